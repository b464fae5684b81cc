/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The socket does not block.  conn_pump() reads while there is something and
 * the session wants it, sends while there is something and the socket takes
 * it, up to its share for this time, and then has the engine poll for what it
 * waits for: input while the session has room for it, output while some is left.
 *
 * With TLS the session says when it begins (STARTTLS); the handshake comes when
 * all output in the clear is gone.  GnuTLS may have bytes that poll() knows
 * nothing of, so the socket counts as readable until it says otherwise.
 *
 * A connection ends when the client says so, goes away or breaks the protocol:
 * `dead` is set and the socket shut down, which makes its polls come back.  The
 * struct stays until those and the commands under way are done with it
 * (conn_is_over()).
 *
 * A client that is cut off comes back on another connection, and what it writes there
 * is newer than all that it has not got an answer to here.  So what has not begun by
 * then never does (conn_lost()), and the end must be seen at once: also while the
 * session has no room and nothing is read, by a poll for nothing but the end, and
 * before anything that waited for that room begins.  Where a poll has told of the end
 * with the last bytes, all of those are read in one go: a goodbye may be among them.
 * Where the session has no room for them, they are kept: some clients close their side
 * after the goodbye (libnbd does), and wait for all replies.
 *
 * Keep-alive tells of a host that is gone, but not while a reply is on its way there:
 * then TCP sends that again and again, for a quarter of an hour.  So by then we look
 * every WATCH_NS whether it acknowledges anything, and end the connection when it was
 * deaf two times in a row.  Once is not enough: who was left alone for long is, too,
 * until its answer to the first reply is here.  One that acknowledges, and only does
 * not read, may stay.
 */
#include "config.h"

#include "worker/conn.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/tcp.h"
#include "common/util.h"

#define SEND_IOVS 64
/* In each direction, before others have their turn. */
#define SHARE_BYTES ((size_t)1 << 20)
#ifndef WATCH_NS /* shorter in tests/unit/test-conn.c */
#define WATCH_NS (20 * 1000000000ull)
#endif
/* More than a socket holds of what was not read yet. */
#define REST_BYTES ((size_t)16 << 20)
#define DEAF_MS	   ((unsigned int)(2 * WATCH_NS / 1000000))

struct conn {
	struct engine *engine;
	int fd;
	struct nbd_session *session;
	const struct nbd_credentials *credentials; /* or NULL */
	struct nbd_tls_conn *tls; /* from STARTTLS on */
	bool handshaking;
	bool handshake_out; /* it waits for room in the socket */
	struct xd_sys in, out, hup, timer;
	uint64_t timeout_ns;
	bool polling_in, polling_out, polling_hup, timing;
	bool readable, writable; /* as far as we know */
	bool gone; /* no more will come than what is in the socket */
	bool told; /* conn_lost() has */
	bool leaving; /* what it has sent ends with a goodbye */
	uint8_t *rest; /* of it, out of the socket and not with the session yet */
	size_t rest_start, rest_end;
	struct xd_sys watch;
	bool watched; /* TCP: it may vanish */
	bool watching;
	bool deaf; /* when it was looked at the last time */
	bool stopped; /* nothing is read any more */
	bool dead;
	/* transmit()'s alone.  Not on its stack, where each call would zero it
	 * (-ftrivial-auto-var-init). */
	struct iovec iov[SEND_IOVS];
};

#define GONE (POLLRDHUP | POLLHUP | POLLERR)

static void on_readable(struct xd_sys *sys, int64_t res)
{
	struct conn *conn = container_of(sys, struct conn, in);

	conn->polling_in = false;
	conn->readable = res > 0;
	conn->gone |= res > 0 && res & GONE;
}

static void on_hup(struct xd_sys *sys, int64_t res)
{
	struct conn *conn = container_of(sys, struct conn, hup);

	conn->polling_hup = false;
	conn->gone |= res > 0;
}

static void on_writable(struct xd_sys *sys, int64_t res)
{
	struct conn *conn = container_of(sys, struct conn, out);

	conn->polling_out = false;
	conn->writable = res > 0;
}

static void end(struct conn *conn)
{
	if (conn->dead)
		return;
	conn->dead = true;
	/* Else it would take a client's place until then. */
	if (conn->timing)
		engine_drop_timer(conn->engine, &conn->timer);
	conn->timing = false;
	if (conn->watching)
		engine_drop_timer(conn->engine, &conn->watch);
	conn->watching = false;
	if (conn->tls && !conn->handshaking)
		nbd_tls_bye(conn->tls);
	(void)shutdown(conn->fd, SHUT_RDWR);
}

static void on_timer(struct xd_sys *sys, int64_t res)
{
	struct conn *conn = container_of(sys, struct conn, timer);

	conn->timing = false;
	if (res == 0 && !conn->dead && !nbd_session_export(conn->session)) {
		log_info("a client has chosen no export in time: sent away");
		end(conn);
	}
}

static void start_timer(struct conn *conn)
{
	conn->timing = true;
	conn->timer.op = XD_SYS_TIMER;
	conn->timer.length = conn->timeout_ns;
	conn->timer.done = on_timer;
	engine_sys(conn->engine, &conn->timer);
}

/* --- Is anybody there? ------------------------------------------------------ */

static void on_watch(struct xd_sys *sys, int64_t res);

static void watch(struct conn *conn)
{
	if (!conn->watched || conn->watching)
		return;
	conn->watching = true;
	conn->watch.op = XD_SYS_TIMER;
	conn->watch.length = WATCH_NS;
	conn->watch.done = on_watch;
	engine_sys(conn->engine, &conn->watch);
}

static void on_watch(struct xd_sys *sys, int64_t res)
{
	struct conn *conn = container_of(sys, struct conn, watch);
	enum tcp_peer peer;
	bool before = conn->deaf;

	conn->watching = false;
	if (res < 0 || conn->dead)
		return;
	peer = tcp_look(conn->fd, DEAF_MS);
	conn->deaf = peer == TCP_DEAF;
	if (conn->deaf && before) {
		log_info("a client's host acknowledges nothing any more: given "
			 "up");
		end(conn);
	} else if (peer != TCP_IDLE) {
		watch(conn);
	}
}

/* --- Life ------------------------------------------------------------------- */

int conn_new(struct conn **ret, struct engine *engine, int fd,
	     const struct nbd_credentials *credentials,
	     const struct nbd_session_events *events, void *ctx,
	     uint64_t timeout_ns)
{
	struct conn *conn = calloc(1, sizeof(*conn));
	int r;

	if (!conn)
		return -ENOMEM;
	r = nbd_session_new(&conn->session, events, ctx,
			    credentials ? NBD_TLS_REQUIRED : NBD_TLS_NONE);
	if (r < 0) {
		free(conn);
		return r;
	}
	conn->engine = engine;
	conn->fd = fd;
	conn->credentials = credentials;
	conn->readable = true;
	conn->writable = true;
	conn->timeout_ns = timeout_ns;
	conn->watched = tcp_look(fd, 0) != TCP_NONE;
	start_timer(conn);
	*ret = conn;
	return 0;
}

void conn_move(struct conn *conn, struct engine *engine)
{
	conn->engine = engine;
	conn->readable = true;
	conn->writable = true;
	if (!conn->dead && !nbd_session_export(conn->session))
		start_timer(conn);
	if (!conn->dead)
		watch(conn); /* it may have been, for what is on its way */
}

void conn_free(struct conn *conn)
{
	if (!conn)
		return;
	nbd_session_free(conn->session);
	nbd_tls_free(conn->tls);
	free(conn->rest);
	(void)close(conn->fd);
	free(conn);
}

/* --- Moving bytes --------------------------------------------------------- */

static ssize_t take(struct conn *conn, void *room, size_t length)
{
	ssize_t n;

	if (conn->leaving) {
		length = MIN(length, conn->rest_end - conn->rest_start);
		if (length)
			memcpy(room, conn->rest + conn->rest_start, length);
		conn->rest_start += length;
		return (ssize_t)length;
	}
	if (conn->tls)
		return nbd_tls_recv(conn->tls, room, length);
	n = recv(conn->fd, room, length, MSG_DONTWAIT);
	return n < 0 ? -errno : n;
}

static ssize_t give(struct conn *conn, struct iovec *iov, unsigned int iovcnt)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = iovcnt };
	ssize_t n;

	if (conn->tls)
		return nbd_tls_send(conn->tls, iov, iovcnt);
	n = sendmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n < 0 ? -errno : n;
}

static bool receive(struct conn *conn)
{
	size_t moved = 0;

	while (conn->readable && !conn->stopped && !conn->dead &&
	       (moved < SHARE_BYTES || conn->gone)) {
		void *room;
		size_t length = nbd_session_room(conn->session, &room);
		ssize_t n;

		if (length == 0)
			break;
		n = take(conn, room, length);
		if (n == -EAGAIN || n == -EINTR) {
			conn->readable = n == -EINTR;
			continue;
		}
		if (n <= 0 || nbd_session_take(conn->session, (size_t)n) < 0) {
			end(conn);
			break;
		}
		moved += (size_t)n;
		/* Less than there was room for: no need to ask again. */
		conn->readable = conn->tls || conn->gone || (size_t)n == length;
	}
	return moved > 0;
}

/* All that is left of what it has sent. */
static void take_rest(struct conn *conn)
{
	size_t size = 0;
	ssize_t n = 1;

	while (n > 0 || n == -EINTR) {
		if (conn->rest_end == size) {
			size_t more = MAX(size * 2, (size_t)1 << 16);
			uint8_t *rest = more > REST_BYTES ?
						NULL :
						realloc(conn->rest, more);

			if (!rest)
				return;
			conn->rest = rest;
			size = more;
		}
		n = take(conn, conn->rest + conn->rest_end,
			 size - conn->rest_end);
		conn->rest_end += (size_t)MAX(n, 0);
	}
}

/* The session has no room, and the client sends no more.  Does it want to have done
 * what it has sent? */
static bool is_lost(struct conn *conn)
{
	if (!conn->gone)
		return false;
	if (!conn->leaving) {
		take_rest(conn);
		conn->leaving = nbd_session_goodbye(conn->session, conn->rest,
						    conn->rest_end);
		conn->readable = true;
	}
	return !conn->leaving;
}

/* What waited for room in the session goes on, if its client is still there. */
static void go_on(struct conn *conn, bool was_full)
{
	struct pollfd fd = { .fd = conn->fd, .events = POLLRDHUP };

	if (was_full && !conn->gone)
		conn->gone = poll(&fd, 1, 0) > 0;
	if ((was_full && is_lost(conn)) ||
	    nbd_session_take(conn->session, 0) < 0)
		end(conn);
}

static bool transmit(struct conn *conn)
{
	size_t moved = 0;

	while (conn->writable && !conn->dead && moved < SHARE_BYTES) {
		unsigned int iovcnt =
			nbd_session_output(conn->session, conn->iov, SEND_IOVS);
		bool full;
		ssize_t n;

		if (iovcnt == 0)
			break;
		n = give(conn, conn->iov, iovcnt);
		if (n == -EAGAIN || n == -EINTR) {
			conn->writable = n == -EINTR;
			continue;
		}
		if (n < 0) {
			end(conn);
			break;
		}
		full = nbd_session_is_full(conn->session);
		nbd_session_sent(conn->session, (size_t)n);
		moved += (size_t)n;
		go_on(conn, full);
	}
	if (moved > 0 && !conn->dead)
		watch(conn);
	return moved > 0;
}

/* --- TLS ------------------------------------------------------------------ */

static void begin_tls(struct conn *conn)
{
	int r = nbd_tls_new(&conn->tls, conn->credentials, conn->fd);

	if (r < 0) {
		log_error("TLS: %s", strerror(-r));
		end(conn);
		return;
	}
	conn->handshaking = true;
	conn->readable = true;
}

static void shake_hands(struct conn *conn)
{
	char why[NBD_TLS_WHY_MAX];
	int r = nbd_tls_handshake(conn->tls, &conn->handshake_out, why);

	if (r == -EAGAIN) {
		conn->readable = false;
		conn->writable = !conn->handshake_out;
		return;
	}
	conn->handshaking = false;
	if (r < 0) {
		log_warning("a client was refused: %s", why);
		end(conn);
		return;
	}
	conn->readable = true;
	conn->writable = true;
	nbd_session_tls_started(conn->session);
}

/* True: TLS is not there yet, but shall be. */
static bool is_upgrading(struct conn *conn)
{
	struct iovec iov[2];

	if (!conn->tls && nbd_session_wants_tls(conn->session) &&
	    nbd_session_output(conn->session, iov, ARRAY_SIZE(iov)) == 0)
		begin_tls(conn);
	if (conn->handshaking && !conn->dead)
		shake_hands(conn);
	return conn->handshaking;
}

static void start_poll(struct conn *conn, struct xd_sys *sys, int events,
		       void (*done)(struct xd_sys *sys, int64_t res))
{
	sys->op = XD_SYS_POLL;
	sys->fd = conn->fd;
	sys->flags = events;
	sys->done = done;
	engine_sys(conn->engine, sys);
}

static bool wants_input(const struct conn *conn)
{
	void *room;

	return conn->handshaking ||
	       (!conn->stopped && nbd_session_room(conn->session, &room) > 0);
}

static bool wants_output(const struct conn *conn)
{
	struct iovec iov[2];

	if (conn->handshaking)
		return conn->handshake_out;
	return nbd_session_output(conn->session, iov, ARRAY_SIZE(iov)) > 0;
}

static void arm(struct conn *conn)
{
	if (!conn->readable && !conn->polling_in && wants_input(conn)) {
		conn->polling_in = true;
		start_poll(conn, &conn->in, POLLIN | POLLRDHUP, on_readable);
	}
	if (!conn->polling_hup && !conn->gone && !conn->stopped &&
	    nbd_session_is_full(conn->session)) {
		conn->polling_hup = true;
		start_poll(conn, &conn->hup, POLLRDHUP, on_hup);
	}
	if (!conn->writable && !conn->polling_out && wants_output(conn)) {
		conn->polling_out = true;
		start_poll(conn, &conn->out, POLLOUT, on_writable);
	}
}

bool conn_pump(struct conn *conn)
{
	bool moved = false;

	if (conn->dead)
		return false;
	if (conn->handshaking && !is_upgrading(conn))
		moved = true;
	if (!conn->handshaking) {
		moved |= receive(conn);
		if (!conn->stopped && nbd_session_is_full(conn->session) &&
		    is_lost(conn))
			end(conn);
		moved |= transmit(conn);
		(void)is_upgrading(conn);
	}
	if (nbd_session_ended(conn->session) ||
	    (conn->stopped && conn_is_idle(conn)))
		end(conn);
	if (!conn->dead)
		arm(conn);
	return moved;
}

bool conn_look(struct conn *conn)
{
	if (conn->dead || conn->tls || conn->handshaking || conn->stopped)
		return false;
	conn->readable = true;
	return receive(conn) || conn->dead;
}

unsigned int conn_pending(const struct conn *conn)
{
	return nbd_session_pending(conn->session);
}

bool conn_is_idle(const struct conn *conn)
{
	struct iovec iov[2];

	return conn->dead ||
	       (conn_pending(conn) == 0 &&
		nbd_session_output(conn->session, iov, ARRAY_SIZE(iov)) == 0);
}

void conn_abandon(struct conn *conn)
{
	end(conn);
}

void conn_stop(struct conn *conn)
{
	conn->stopped = true;
}

const struct nbd_session *conn_lost(struct conn *conn)
{
	if (!conn->dead || conn->told || conn->leaving ||
	    nbd_session_is_leaving(conn->session))
		return NULL;
	conn->told = true;
	return conn->session;
}

bool conn_is_over(const struct conn *conn)
{
	return conn->dead && !conn->polling_in && !conn->polling_out &&
	       !conn->polling_hup && conn_pending(conn) == 0;
}
