/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The socket does not block.  conn_pump() reads while there is something and
 * the session wants it, sends while there is something and the socket takes
 * it, and then has the engine poll for what it waits for: input while the
 * session has room for it, output while some is left.
 *
 * A connection ends when the client says so, goes away or breaks the protocol:
 * `dead` is set and the socket shut down, which makes its polls come back.  The
 * struct stays until those, the timer and the commands under way are done with
 * it (conn_is_over()).
 */
#include "config.h"

#include "serve/conn.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/util.h"

#define SEND_IOVS 64

struct conn {
	struct engine *engine;
	int fd;
	struct nbd_session *session;
	struct xd_sys in, out, timer;
	bool polling_in, polling_out, timing;
	bool readable, writable; /* as far as we know */
	bool stopped; /* nothing is read any more */
	bool dead;
};

static void on_readable(struct xd_sys *sys, int64_t res)
{
	struct conn *conn = container_of(sys, struct conn, in);

	conn->polling_in = false;
	conn->readable = res > 0;
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

int conn_new(struct conn **ret, struct engine *engine, int fd,
	     const struct nbd_session_events *events, void *ctx,
	     uint64_t timeout_ns)
{
	struct conn *conn = calloc(1, sizeof(*conn));
	int r;

	if (!conn)
		return -ENOMEM;
	r = nbd_session_new(&conn->session, events, ctx, NBD_TLS_NONE);
	if (r < 0) {
		free(conn);
		return r;
	}
	conn->engine = engine;
	conn->fd = fd;
	conn->readable = true;
	conn->writable = true;
	conn->timing = true;
	conn->timer.op = XD_SYS_TIMER;
	conn->timer.length = timeout_ns;
	conn->timer.done = on_timer;
	engine_sys(engine, &conn->timer);
	*ret = conn;
	return 0;
}

void conn_free(struct conn *conn)
{
	if (!conn)
		return;
	nbd_session_free(conn->session);
	(void)close(conn->fd);
	free(conn);
}

/* --- Moving bytes ------------------------------------------------------------- */

static bool receive(struct conn *conn)
{
	bool moved = false;

	while (conn->readable && !conn->stopped && !conn->dead) {
		void *room;
		size_t length = nbd_session_room(conn->session, &room);
		ssize_t n;

		if (length == 0)
			break;
		n = recv(conn->fd, room, length, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			conn->readable = errno == EINTR;
			continue;
		}
		if (n <= 0 || nbd_session_take(conn->session, (size_t)n) < 0) {
			end(conn);
			break;
		}
		moved = true;
		/* Less than there was room for: no need to ask again. */
		conn->readable = (size_t)n == length;
	}
	return moved;
}

static bool transmit(struct conn *conn)
{
	struct iovec iov[SEND_IOVS];
	bool moved = false;

	while (conn->writable && !conn->dead) {
		struct msghdr msg = { .msg_iov = iov };
		ssize_t n;

		msg.msg_iovlen =
			nbd_session_output(conn->session, iov, SEND_IOVS);
		if (msg.msg_iovlen == 0)
			break;
		n = sendmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			conn->writable = errno == EINTR;
			continue;
		}
		if (n < 0) {
			end(conn);
			break;
		}
		nbd_session_sent(conn->session, (size_t)n);
		moved = true;
		/* What waited for room in the session goes on. */
		if (nbd_session_take(conn->session, 0) < 0)
			end(conn);
	}
	return moved;
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

static void arm(struct conn *conn)
{
	struct iovec iov[2];
	void *room;

	if (!conn->readable && !conn->polling_in && !conn->stopped &&
	    nbd_session_room(conn->session, &room) > 0) {
		conn->polling_in = true;
		start_poll(conn, &conn->in, POLLIN, on_readable);
	}
	if (!conn->writable && !conn->polling_out &&
	    nbd_session_output(conn->session, iov, ARRAY_SIZE(iov)) > 0) {
		conn->polling_out = true;
		start_poll(conn, &conn->out, POLLOUT, on_writable);
	}
}

bool conn_pump(struct conn *conn)
{
	bool moved;

	if (conn->dead)
		return false;
	moved = receive(conn);
	moved |= transmit(conn);
	if (nbd_session_ended(conn->session) ||
	    (conn->stopped && conn_is_idle(conn)))
		end(conn);
	if (!conn->dead)
		arm(conn);
	return moved;
}

bool conn_is_pending(const struct conn *conn)
{
	return nbd_session_pending(conn->session) > 0;
}

bool conn_is_idle(const struct conn *conn)
{
	struct iovec iov[2];

	return conn->dead ||
	       (!conn_is_pending(conn) &&
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

bool conn_is_over(const struct conn *conn)
{
	return conn->dead && !conn->polling_in && !conn->polling_out &&
	       !conn->timing && !conn_is_pending(conn);
}
