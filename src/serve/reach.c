/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "serve/reach.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/msg.h"
#include "common/server.h"
#include "common/util.h"

/* --- In the process ------------------------------------------------------- */

/* Whatever it is asked, it is this.  Nothing but the socket is left open. */
static void answer_all(int sock, const struct server *server)
{
	char word;

	while (recv(sock, &word, 1, 0) == 1) {
		struct msg_text reached = { .h.result = 0 };
		cleanup_close int fd = server_connect(server, reached.text);

		reached.h.result = MIN(fd, 0);
		if (msg_send(sock, &reached, sizeof(reached), MSG_REACHED, fd) <
		    0)
			return;
	}
}

static void become(int sock, const struct server *server)
{
	sigset_t all;

	/* It ends with the other end and not before; and holds nothing that would
	 * seem to be in use still: the port, pipes. */
	(void)sigfillset(&all);
	(void)sigprocmask(SIG_BLOCK, &all, NULL);
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	(void)dup2(sock, STDIN_FILENO);
	close_fds_from(STDIN_FILENO + 1);
	answer_all(STDIN_FILENO, server);
	_exit(0);
}

/* --- Outside of it -------------------------------------------------------- */

int reach_new(const char *uri)
{
	char why[SERVER_TEXT_MAX];
	struct server server;
	int pair[2];
	pid_t pid;
	int r = server_parse(uri, &server, why);

	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		become(pair[1], &server);
	r = pid < 0 ? -errno : pair[0];
	if (pid < 0)
		(void)close(pair[0]);
	(void)close(pair[1]);
	return r;
}

int reach_call(int sock, char *ret_why)
{
	unsigned char buf[MSG_MAX] __attribute__((aligned(16))) = { 0 };
	struct msg_text reached;
	size_t length;
	int fd = -1, r;

	if (send(sock, "", 1, MSG_NOSIGNAL) < 0)
		r = -errno;
	else
		r = msg_receive(sock, buf, &length, &fd);
	memcpy(&reached, buf, sizeof(reached));
	if (r == 0 && reached.h.type != MSG_REACHED)
		r = -EPROTO;
	if (r == 0 && reached.h.result < 0) {
		r = reached.h.result;
		(void)snprintf(ret_why, MSG_TEXT_MAX, "%s", reached.text);
	} else if (r == 0 && fd < 0) {
		r = -EPROTO;
	}
	if (r < 0 && !ret_why[0])
		(void)snprintf(ret_why, MSG_TEXT_MAX, "%s", strerror(-r));
	return r < 0 ? r : fd;
}
