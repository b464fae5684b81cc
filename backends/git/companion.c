/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "companion.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/util.h"

#define PROGRAM	 "xendisk-git"
#define FIRST_FD 3 /* socket, state folder, repository */
#define NR_FDS	 3

/* Tests name a place of their own; whoever may set the environment of a worker
 * could as well start another program. */
static int find_program(char ret[PATH_MAX], char *ret_why)
{
	const char *dir = secure_getenv("XENDISK_LIBEXEC_DIR");
	int n = snprintf(ret, PATH_MAX, "%s/%s", dir ? dir : PKGLIBEXECDIR,
			 PROGRAM);

	if (n < 0 || n >= PATH_MAX)
		return why(ret_why, -ENAMETOOLONG, "the path of %s", PROGRAM);
	return access(ret, X_OK) < 0 ?
		       why(ret_why, -errno, "%s: %s", ret, strerror(errno)) :
		       0;
}

/* Out of the way of 3 to 5, then there.  -1 stays closed. */
static int place(const int from[NR_FDS])
{
	int high[NR_FDS];

	for (int i = 0; i < NR_FDS; i++) {
		high[i] = from[i] < 0 ? -1 :
					fcntl(from[i], F_DUPFD_CLOEXEC,
					      FIRST_FD + NR_FDS);
		if (from[i] >= 0 && high[i] < 0)
			return -errno;
	}
	for (int i = 0; i < NR_FDS; i++) {
		(void)close(FIRST_FD + i);
		if (high[i] >= 0 && dup2(high[i], FIRST_FD + i) < 0)
			return -errno;
	}
	return 0;
}

static void reset_signals(void)
{
	sigset_t none;

	for (int s = 1; s < NSIG; s++)
		(void)signal(s, SIG_DFL);
	(void)signal(SIGPIPE, SIG_IGN);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the child. */
static void run(const char *program, const char *verb, const int fds[NR_FDS])
{
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	char *argv[] = { (char *)(uintptr_t)PROGRAM, (char *)(uintptr_t)verb,
			 NULL };

	(void)setsid();
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 ||
	    dup2(null, STDOUT_FILENO) < 0 || place(fds) < 0)
		_exit(126);
	reset_signals();
	(void)execv(program, argv);
	_exit(127);
}

int companion_start(const char *verb, int state, int repo, char *ret_why)
{
	char program[PATH_MAX];
	cleanup_close int mine = -1, its = -1;
	int pair[2], status;
	pid_t pid;
	int r = find_program(program, ret_why);

	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return why(ret_why, -errno, "a socket: %s", strerror(errno));
	mine = pair[0];
	its = pair[1];
	pid = fork();
	if (pid == 0) {
		/* The grandchild belongs to init, which waits for it; an
		 * isolated worker could not. */
		pid = fork();
		if (pid == 0)
			run(program, verb,
			    (const int[NR_FDS]){ its, state, repo });
		_exit(pid < 0);
	}
	if (pid < 0)
		return why(ret_why, -errno, "%s: %s", program, strerror(errno));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return why(ret_why, -EAGAIN, "%s: it cannot be started",
			   program);
	return TAKE_FD(mine);
}
