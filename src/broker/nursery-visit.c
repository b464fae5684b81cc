/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nursery-visit.c - those who wait to be connected to a child server.
 *
 * A connection to a listening socket succeeds before anybody takes it.  So it is
 * handed on only when the server's greeting has come (which is left in the socket):
 * then the server is alive, and serves.  If the child ends before that, the asker is
 * told what it said last.
 */
#include "config.h"

#include <event2/event.h>
#include <string.h>
#include <sys/socket.h>
#include <utlist.h>

#include "broker/nursery-private.h"

/* Less than the worker has for the whole handshake. */
#define GREETING_TIMEOUT_S 15
/* More at a time is an attack: a lane makes one, and tries again later. */
#define MAX_VISITS 16

struct visit {
	struct visit *prev;
	struct visit *next;
	struct nursling *nursling;
	int sock; /* where the outcome is told */
	int conn; /* to the child; -1: it is not there yet */
	struct event *readable;
	struct event *timer;
};

static void visit_free(struct visit *visit)
{
	DL_DELETE(visit->nursling->visits, visit);
	visit->nursling->nr_visits--;
	if (visit->readable)
		event_free(visit->readable);
	if (visit->timer)
		event_free(visit->timer);
	if (visit->conn >= 0)
		(void)close(visit->conn);
	(void)close(visit->sock);
	free(visit);
}

/* Ends it.  The asker may have gone. */
static void tell(struct visit *visit, int err, const char *why)
{
	struct msg_text reached = { .h.result = err };

	(void)snprintf(reached.text, sizeof(reached.text), "%s", why);
	(void)msg_send(visit->sock, &reached, sizeof(reached), MSG_REACHED,
		       err ? -1 : visit->conn);
	visit_free(visit);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct visit *visit = arg;
	struct nursling *nursling = visit->nursling;
	char why[MSG_TEXT_MAX];

	(void)fd;
	(void)what;
	(void)snprintf(why, sizeof(why), "%s does not answer within %d s",
		       nursling_name(nursling), GREETING_TIMEOUT_S);
	tell(visit, -ETIMEDOUT, why);
	nursling_give_up(nursling);
}

/* It has hung up: its death will be told in a moment. */
static void wait_for_death(struct visit *visit)
{
	event_free(TAKE_PTR(visit->readable));
	(void)close(TAKE_FD(visit->conn));
}

static void on_greeting(evutil_socket_t fd, short what, void *arg)
{
	struct visit *visit = arg;
	char byte;

	(void)what;
	if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 1) {
		wait_for_death(visit);
		return;
	}
	visit->nursling->greeted = true;
	tell(visit, 0, "");
}

static int connect_to_child(struct visit *visit)
{
	struct nursling *nursling = visit->nursling;

	visit->conn = nursery_call(nursery_run_dir(nursling), &nursling->note);
	if (visit->conn < 0)
		return TAKE_FD(visit->conn) == -ECONNREFUSED ? 0 : -EAGAIN;
	visit->readable = event_new(nursery_base(nursling), visit->conn,
				    EV_READ, on_greeting, visit);
	if (!visit->readable || event_add(visit->readable, NULL) < 0)
		return -ENOMEM;
	return 0;
}

void visits_connect(struct nursling *nursling)
{
	struct visit *visit, *next;

	DL_FOREACH_SAFE(nursling->visits, visit, next) {
		int r = visit->conn < 0 ? connect_to_child(visit) : 0;

		if (r < 0)
			tell(visit, r, strerror(-r));
	}
}

void visits_fail(struct nursling *nursling, int err)
{
	while (nursling->visits)
		tell(nursling->visits, err, nursling->why);
}

void visits_wait(struct nursling *nursling)
{
	struct visit *visit;

	DL_FOREACH(nursling->visits, visit)
		if (visit->conn >= 0)
			wait_for_death(visit);
}

int visit_new(struct nursling *nursling, int *ret_pending)
{
	const struct timeval timeout = { .tv_sec = GREETING_TIMEOUT_S };
	struct visit *visit;
	int pair[2];

	if (nursling->nr_visits >= MAX_VISITS)
		return -EAGAIN;
	visit = calloc(1, sizeof(*visit));
	if (!visit)
		return -ENOMEM;
	/* Not blocking: a lane that asked must not have to wait for a message. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
		       0, pair) < 0) {
		free(visit);
		return -errno;
	}
	visit->nursling = nursling;
	visit->conn = -1;
	visit->sock = pair[1];
	DL_APPEND(nursling->visits, visit);
	nursling->nr_visits++;
	visit->timer = evtimer_new(nursery_base(nursling), on_timeout, visit);
	if (!visit->timer || evtimer_add(visit->timer, &timeout) < 0) {
		(void)close(pair[0]);
		visit_free(visit);
		return -ENOMEM;
	}
	*ret_pending = pair[0];
	return 0;
}
