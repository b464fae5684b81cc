/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/connector.h"

#include <string.h>
#include <sys/socket.h>

#include "broker/broker.h"
#include "common/msg.h"
#include "common/server.h"
#include "common/util.h"

/* Some addresses of one host, each with a time of its own. */
#define CONNECT_TIMEOUT_S 20

/* --- In the child --------------------------------------------------------- */

/* A name is looked up with the help of half the C library, which may not be
 * used after a fork of a program with threads: so it is started afresh. */
static void connect_work(const void *arg)
{
	char program[] = "xendiskd";
	char mode[] = "--connect";
	/* const is lost in the signature only. */
	char *argv[] = { program, mode, (char *)(uintptr_t)arg, NULL };

	(void)execv("/proc/self/exe", argv);
	errand_report(0, -errno, -1);
}

int connector_main(const char *uri)
{
	struct msg_text reached = { .h.result = 0 };
	cleanup_close int fd = -1;
	struct server server;

	_Static_assert(SERVER_TEXT_MAX <= MSG_TEXT_MAX, "a sentence fits");
	fd = server_parse(uri, &server, reached.text);
	if (fd == 0)
		fd = server_connect(&server, reached.text);
	reached.h.result = MIN(fd, 0);
	(void)msg_send(ERRAND_FD, &reached, sizeof(reached), MSG_REACHED, fd);
	errand_report(0, 0, -1);
	return 0;
}

/* --- In the broker -------------------------------------------------------- */

int connector_start(struct errand **ret, struct broker *broker, const char *uri,
		    int *ret_pending,
		    void (*done)(void *ctx, struct errand_result *results),
		    void *ctx)
{
	struct errand_spec spec = {
		.work = connect_work,
		.arg = uri,
		.nr_results = 1,
		.timeout_s = CONNECT_TIMEOUT_S,
		.done = done,
		.ctx = ctx,
	};
	cleanup_close int ours = -1;
	cleanup_close int childs = -1;
	int pair[2], r;

	/* Not blocking: a lane that asked must not have to wait for a message. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
		       0, pair) < 0)
		return -errno;
	ours = pair[0];
	childs = pair[1];
	spec.fd = childs;
	r = errand_start(ret, broker, &spec);
	if (r < 0)
		return r;
	*ret_pending = TAKE_FD(ours);
	return 0;
}
