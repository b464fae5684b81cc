/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-link.c - one connection: making it, hearing from it, losing it.
 *
 * Theory of operation
 *
 * libnbd is a state machine that never sleeps: told that its socket is readable
 * or writable it goes as far as it can, and calls back for each command that
 * ends.  Here it is told so by the lane's engine: `in` and `out` poll the socket
 * for what the machine waits for.
 *
 *   DOWN      the time before the next attempt (`again`)
 *   CALLING   xd_connect(): `in` polls for its outcome
 *   GREETING  libnbd shakes hands; `limit` ends one that takes too long
 *   RESTORING what the server may have forgotten (nbd-restore.c)
 *   UP        requests go out
 *   ENDING    the socket is shut down, so that both polls come back; only then
 *             it is closed, and its number may mean another one
 *
 * A handle cannot be connected twice: each attempt has its own.  libnbd closes
 * its socket when it finds it broken, so the polls use a duplicate.
 *
 * libnbd takes one reply each time it is told "readable", and must not be told
 * so when it is not: it would wait for the rest of a reply that has not begun,
 * and send nothing meanwhile.  So what is in the socket is asked for before each but
 * the first; of a burst of replies, as many as these bytes must hold are taken then.
 *
 * Mustn't: touch the handle from within a callback; start a poll or timer when
 * the channel is closing.
 */
#include "config.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "common/tcp.h"
#include "common/util.h"
#include "nbd.h"

#define FIRST_DELAY_NS 50000000ull
#define MAX_DELAY_NS   2000000000ull
/* Connections in a row that came to nothing: the network may be bad. */
#define MAX_USELESS 8u
/* ... and that lasted less than FIRST_DELAY_NS, though something was answered: each
 * costs the host a process. */
#define MAX_BRIEF 20u
/* For a server that is away when the guest goes, to take the last flush: longer
 * than MAX_DELAY_NS, so that it is tried again. */
#define PATIENCE_NS 5000000000ull

/* How often a host that something is under way to is looked at, and since when it
 * must have acknowledged nothing to look deaf.  It is gone when it does two times in
 * a row, half a minute or more: see tcp_look(). */
#define WATCH_NS 5000000000ull
#define DEAF_MS	 25000u

/* Answers that may be in a socket, and more. */
#define MAX_DRAIN 10000

/* So many at a time: a reply may be of parts without end, and the lane has other
 * things to do. */
#define MAX_BURST 500

/* Why it is made anew. */
#define ANOTHER "another connection to it had to be made anew"

static void on_in(struct xd_sys *sys, int64_t res);
static void on_out(struct xd_sys *sys, int64_t res);
static void on_again(struct xd_sys *sys, int64_t res);
static void on_limit(struct xd_sys *sys, int64_t res);
static void on_patience(struct xd_sys *sys, int64_t res);
static void on_watch(struct xd_sys *sys, int64_t res);

static void PRINTF(2, 3) set_why(struct nbd_link *link, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(link->why, sizeof(link->why), fmt, ap);
	va_end(ap);
	nbd_printable(link->why);
}

/* --- Polls and timers ----------------------------------------------------- */

static void arm_in(struct nbd_link *link)
{
	if (link->in_armed || link->closing)
		return;
	link->in = (struct xd_sys){ .op = XD_SYS_POLL,
				    .fd = link->fd,
				    .flags = POLLIN,
				    .done = on_in };
	link->in_armed = true;
	xd_sys(link->ch, &link->in);
}

static void arm_out(struct nbd_link *link)
{
	if (link->out_armed || link->closing)
		return;
	link->out = (struct xd_sys){ .op = XD_SYS_POLL,
				     .fd = link->fd,
				     .flags = POLLOUT,
				     .done = on_out };
	link->out_armed = true;
	xd_sys(link->ch, &link->out);
}

static void on_tls(struct xd_sys *sys, int64_t res);

/* What TLS waits for, of either socket. */
static void arm_tls(struct nbd_link *link)
{
	struct pollfd wants[2];

	if (!link->tls || link->closing)
		return;
	nbd_tls_wants(link->tls, wants);
	for (unsigned int i = 0; i < ARRAY_SIZE(link->tls_polls); i++) {
		struct nbd_tls_poll *poll = &link->tls_polls[i];
		short event = i % 2 ? POLLOUT : POLLIN;

		if (poll->armed || !(wants[i / 2].events & event))
			continue;
		poll->link = link;
		poll->armed = true;
		poll->sys = (struct xd_sys){ .op = XD_SYS_POLL,
					     .fd = wants[i / 2].fd,
					     .flags = event,
					     .done = on_tls };
		xd_sys(link->ch, &poll->sys);
	}
}

static void start_timer(struct nbd_link *link, struct xd_sys *timer,
			bool *armed, uint64_t ns,
			void (*done)(struct xd_sys *sys, int64_t res))
{
	if (*armed || link->closing)
		return;
	*timer = (struct xd_sys){ .op = XD_SYS_TIMER,
				  .length = ns,
				  .done = done };
	*armed = true;
	xd_sys(link->ch, timer);
}

/* --- The end of a connection ---------------------------------------------- */

static void drop(struct nbd_link *link)
{
	if (link->h)
		nbd_close(link->h);
	link->h = NULL;
	if (link->fd >= 0)
		(void)close(link->fd);
	link->fd = -1;
	nbd_tls_free(TAKE_PTR(link->tls));
}

static void lose_patience(struct nbd_link *link)
{
	nbd_io_stop(link);
	if (!link->impatient)
		start_timer(link, &link->patience, &link->patience_armed,
			    PATIENCE_NS, on_patience);
}

/* A server that was of use, or there for a while, is tried again at once, unless it
 * hangs up soon each time.  One that does so at the first request is away. */
static void forgive(struct nbd_link *link, uint64_t now)
{
	uint64_t lasted = now - link->up_since;

	if (!link->up_since)
		return;
	if (link->answered || lasted >= MAX_DELAY_NS)
		link->down_since = 0;
	if (link->answered || lasted >= FIRST_DELAY_NS)
		link->useless = 0;
	else
		link->useless++;
	link->brief = lasted < FIRST_DELAY_NS ? link->brief + 1 : 0;
	if (link->useless <= MAX_USELESS)
		link->delay_ns = link->brief > MAX_BRIEF ? FIRST_DELAY_NS : 0;
	link->up_since = 0;
}

/* Says so, and tries again after a pause that grows. */
static void go_down(struct nbd_link *link)
{
	uint64_t now = now_ns();

	link->phase = NBD_DOWN;
	forgive(link, now);
	if (!link->down_since)
		link->down_since = now;
	xd_paused(link->ch, "the server %s is away: %s", link->nbd->place,
		  link->why);
	if (link->nbd->give_up_ns &&
	    now - link->down_since >= link->nbd->give_up_ns)
		link->given_up = true;
	if (link->given_up && !link->stopping)
		nbd_io_give_up(link);
	if (link->stopping)
		lose_patience(link);
	start_timer(link, &link->again, &link->again_armed, link->delay_ns,
		    on_again);
	link->delay_ns =
		MIN(MAX(2 * link->delay_ns, FIRST_DELAY_NS), MAX_DELAY_NS);
}

static void end_if_quiet(struct nbd_link *link)
{
	if (link->phase != NBD_ENDING || link->in_armed || link->out_armed ||
	    link->closing)
		return;
	for (unsigned int i = 0; i < ARRAY_SIZE(link->tls_polls); i++)
		if (link->tls_polls[i].armed)
			return;
	drop(link);
	go_down(link);
}

/* Answers that are there already count. */
static void drain(struct nbd_link *link)
{
	for (unsigned int i = 0; i < MAX_DRAIN; i++) {
		if (nbd_aio_is_dead(link->h) || nbd_aio_is_closed(link->h) ||
		    nbd_aio_notify_read(link->h) < 0)
			return;
	}
}

/* link->why says why. */
static void begin_ending(struct nbd_link *link)
{
	link->phase = NBD_ENDING;
	link->deaf = false;
	if (link->leaving)
		set_why(link, "%s",
			nbd_is_stale(link) ? ANOTHER :
					     "it shuts down, or has grown");
	if (link->tls) {
		if (nbd_tls_why(link->tls))
			set_why(link, "%s", nbd_tls_why(link->tls));
		nbd_tls_shut(link->tls);
	}
	(void)shutdown(link->fd, SHUT_RDWR);
	drain(link);
	nbd_close(TAKE_PTR(link->h));
	nbd_io_down(link);
	link->leaving = false;
	nbd_generation_lost(link);
	end_if_quiet(link);
}

/* --- The handshake -------------------------------------------------------- */

/* It may be used. */
static void come_up(struct nbd_link *link)
{
	link->phase = NBD_UP;
	link->up_since = now_ns();
	link->answered = false;
	link->given_up = false;
	set_why(link, "it hung up");
	xd_paused(link->ch, NULL);
	nbd_io_up(link);
}

/* It may be to the server that there was before; there is one, so at once again. */
static void be_outdated(struct nbd_link *link)
{
	link->outdated = true;
	link->delay_ns = 0;
	set_why(link, ANOTHER);
	begin_ending(link);
}

/* False: it has become UP, and has been pumped, or it is ENDING. */
static bool restore(struct nbd_link *link)
{
	int r = nbd_restore_step(link);

	if (r == -EAGAIN)
		return true;
	if (r == 0 && nbd_is_stale(link)) {
		be_outdated(link);
	} else if (r == 0) {
		come_up(link);
	} else {
		set_why(link, "it does not take again what it had taken");
		begin_ending(link);
	}
	return false;
}

static bool greeted(struct nbd_link *link)
{
	if (nbd_facts_read(link->h, &link->facts, link->why) < 0 ||
	    nbd_facts_compare(link->nbd, &link->facts, link->why) < 0) {
		begin_ending(link);
		return false;
	}
	nbd_facts_keep_blocks(link->nbd, &link->facts);
	if (!nbd_generation_join(link)) {
		be_outdated(link);
		return false;
	}
	link->phase = NBD_RESTORING;
	set_why(link, "it hung up");
	nbd_restore_begin(link);
	return true;
}

static void greet(struct nbd_link *link, int fd)
{
	if (link->nbd->certs)
		fd = nbd_tls_new(&link->tls, link->nbd->certs, fd);
	link->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
	link->h = link->fd >= 0 ? nbd_facts_handle(link->nbd) : NULL;
	if (!link->h) {
		if (fd >= 0)
			(void)close(fd);
		drop(link);
		set_why(link, "no memory");
		go_down(link);
		return;
	}
	link->phase = NBD_GREETING;
	set_why(link, "it hung up in the handshake");
	link->greet_until = now_ns() + link->nbd->handshake_ns;
	start_timer(link, &link->limit, &link->limit_armed,
		    link->nbd->handshake_ns, on_limit);
	/* The socket is libnbd's now, whether this works or not. */
	if (nbd_aio_connect_socket(link->h, fd) < 0)
		set_why(link, "%s", nbd_get_error());
	nbd_link_pump(link);
}

static void on_limit(struct xd_sys *sys, int64_t res)
{
	struct nbd_link *link = container_of(sys, struct nbd_link, limit);
	uint64_t now = now_ns();

	link->limit_armed = false;
	if (res < 0 || link->phase != NBD_GREETING)
		return;
	if (now < link->greet_until) { /* another one than it was for */
		start_timer(link, &link->limit, &link->limit_armed,
			    link->greet_until - now, on_limit);
		return;
	}
	set_why(link, "no answer in the handshake");
	begin_ending(link);
}

/* --- Calling -------------------------------------------------------------- */

static void call(struct nbd_link *link)
{
	int r;

	nbd_generation_call(link);
	r = nbd_call(link->nbd);
	if (r < 0) {
		set_why(link, "%s",
			r == -ECONNRESET ? "there is no broker to connect" :
					   strerror(-r));
		go_down(link);
		return;
	}
	link->fd = r;
	link->phase = NBD_CALLING;
	arm_in(link);
}

static void on_again(struct xd_sys *sys, int64_t res)
{
	struct nbd_link *link = container_of(sys, struct nbd_link, again);

	link->again_armed = false;
	if (res == 0 && link->phase == NBD_DOWN)
		call(link);
}

static void called(struct nbd_link *link)
{
	int fd = xd_connected(link->fd, link->why, sizeof(link->why));

	if (fd == -EAGAIN) {
		arm_in(link);
		return;
	}
	link->fd = -1; /* closed */
	if (fd >= 0) {
		greet(link, fd);
		return;
	}
	nbd_generation_lost(link);
	go_down(link);
}

/* --- Hearing from it ------------------------------------------------------ */

/* How many bytes are in the socket, at least?  What cannot tell says 1 at its end as
 * well; of others the poll `in` tells that. */
static uint64_t readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int n;

	if (ioctl(fd, FIONREAD, &n) == 0)
		return n > 0 ? (uint64_t)n : 0;
	return poll(&pfd, 1, 0) == 1;
}

/* With a key libnbd reads records, of which one may hold many replies. */
static bool counts_bytes(const struct nbd_link *link)
{
	return !link->nbd->server.tls || link->nbd->certs;
}

/* Is there another reply?  *io_left: bytes that are in the socket, at least. */
static bool is_more(struct nbd_link *link, uint64_t *io_left)
{
	if (!nbd_aio_is_ready(link->h) ||
	    !(link->flying || nbd_restore_is_busy(link)))
		return false;
	*io_left = *io_left > link->took ? *io_left - link->took : 0;
	if (*io_left == 0)
		*io_left = readable(link->fd);
	return *io_left > 0;
}

static void receive(struct nbd_link *link)
{
	unsigned int parts = 0;
	uint64_t left = 0;

	if (!(nbd_aio_get_direction(link->h) & LIBNBD_AIO_DIRECTION_READ))
		return;
	do {
		link->took = UINT64_MAX;
		if (nbd_aio_notify_read(link->h) < 0) {
			set_why(link, "%s", nbd_get_error());
			return;
		}
		if (!counts_bytes(link))
			left = 0;
	} while (++parts < MAX_BURST && is_more(link, &left));
}

/* There is a handle that talks. */
static bool is_talking(const struct nbd_link *link)
{
	return link->phase == NBD_GREETING || link->phase == NBD_RESTORING ||
	       link->phase == NBD_UP;
}

/* Of a request there is no limit; but is there still a host? */
static void watch(struct nbd_link *link)
{
	if (link->nbd->child || link->nbd->server.transport != SERVER_TCP)
		return;
	if (link->flying || link->forcing || nbd_restore_is_busy(link))
		start_timer(link, &link->watch, &link->watch_armed, WATCH_NS,
			    on_watch);
	else
		link->deaf = false;
}

static void on_watch(struct xd_sys *sys, int64_t res)
{
	struct nbd_link *link = container_of(sys, struct nbd_link, watch);
	bool before = link->deaf;
	struct pollfd tls[2];
	int fd = link->fd;

	link->watch_armed = false;
	if (res < 0 || !is_talking(link))
		return;
	if (link->tls) {
		nbd_tls_wants(link->tls, tls);
		fd = tls[0].fd;
	}
	link->deaf = tcp_look(fd, DEAF_MS) == TCP_DEAF;
	if (!link->deaf || !before) {
		watch(link);
		return;
	}
	set_why(link, "its host acknowledges nothing");
	begin_ending(link);
}

void nbd_link_pump(struct nbd_link *link)
{
	unsigned int direction;

	nbd_io_reap(link);
	if (link->phase == NBD_ENDING)
		end_if_quiet(link);
	if (!is_talking(link))
		return;
	if (link->leaving || nbd_aio_is_dead(link->h) ||
	    nbd_aio_is_closed(link->h)) {
		begin_ending(link);
		return;
	}
	if (link->phase == NBD_GREETING && nbd_aio_is_ready(link->h) &&
	    !greeted(link))
		return;
	if (link->phase == NBD_RESTORING && !restore(link))
		return;
	watch(link);
	arm_tls(link);
	direction = nbd_aio_get_direction(link->h);
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		arm_in(link);
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		arm_out(link);
}

void nbd_link_kick(struct xd_channel *ch)
{
	nbd_link_pump(ch->data);
}

static void on_in(struct xd_sys *sys, int64_t res)
{
	struct nbd_link *link = container_of(sys, struct nbd_link, in);

	link->in_armed = false;
	if (link->closing || res == -ECANCELED)
		return;
	if (link->phase == NBD_CALLING) {
		called(link);
		return;
	}
	if (is_talking(link))
		receive(link);
	nbd_link_pump(link);
}

/* What it brings libnbd, or takes from it, is told by libnbd's own polls. */
static void on_tls(struct xd_sys *sys, int64_t res)
{
	struct nbd_tls_poll *poll = container_of(sys, struct nbd_tls_poll, sys);
	struct nbd_link *link = poll->link;

	poll->armed = false;
	if (link->closing || res == -ECANCELED)
		return;
	if (is_talking(link)) {
		nbd_tls_pump(link->tls);
		arm_tls(link);
	}
	end_if_quiet(link);
}

static void on_out(struct xd_sys *sys, int64_t res)
{
	struct nbd_link *link = container_of(sys, struct nbd_link, out);

	link->out_armed = false;
	if (link->closing || res == -ECANCELED)
		return;
	if (is_talking(link) &&
	    nbd_aio_get_direction(link->h) & LIBNBD_AIO_DIRECTION_WRITE &&
	    nbd_aio_notify_write(link->h) < 0)
		set_why(link, "%s", nbd_get_error());
	nbd_link_pump(link);
}

/* --- The guest goes ------------------------------------------------------- */

static void on_patience(struct xd_sys *sys, int64_t res)
{
	struct nbd_link *link = container_of(sys, struct nbd_link, patience);

	link->patience_armed = false;
	if (res < 0 || link->phase == NBD_UP)
		return;
	link->impatient = true;
	nbd_io_stop(link);
}

/* A server that is there may end what it has. */
void nbd_link_stop(struct xd_channel *ch)
{
	struct nbd_link *link = ch->data;

	link->stopping = true;
	if (link->phase != NBD_UP)
		lose_patience(link);
	else
		nbd_io_stop(link);
	/* Without waiting for the next time, and if it was cancelled. */
	if (link->phase == NBD_DOWN)
		call(link);
	else if (link->phase == NBD_CALLING)
		arm_in(link);
}

/* --- The channel ---------------------------------------------------------- */

int nbd_link_open(struct xd_channel *ch)
{
	struct nbd_link *link = calloc(1, sizeof(*link));

	if (!link)
		return -ENOMEM;
	link->ch = ch;
	link->nbd = ch->disk->data;
	link->fd = -1;
	ch->data = link;
	if (nbd_restore_open(link) < 0) {
		nbd_restore_close(link);
		free(link);
		return -ENOMEM;
	}
	call(link);
	return 0;
}

/* Polls and timers have been cancelled, no request is there. */
void nbd_link_close(struct xd_channel *ch)
{
	struct nbd_link *link = ch->data;

	link->closing = true;
	if (link->phase == NBD_UP)
		(void)nbd_aio_disconnect(link->h, 0);
	drop(link);
	nbd_restore_close(link);
	free(link);
}
