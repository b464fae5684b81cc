/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "watch.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "common/pidfd.h"
#include "common/util.h"

/* More than a pipe holds: whoever keeps on writing does not keep us here. */
#define READS 64

/* False: there is nothing any more. */
static bool hear(const struct watch *watch)
{
	unsigned int reads = 0;
	char text[4096];
	ssize_t n;

	do {
		n = read(watch->fd, text, sizeof(text));
		if (n > 0)
			watch->said(watch->ctx, text, (size_t)n);
	} while ((n > 0 && ++reads < READS) || (n < 0 && errno == EINTR));
	return n > 0 || (n < 0 && errno == EAGAIN);
}

static void look_at_stop(pid_t pid, const struct watch *watch)
{
	if (watch->stop && watch->stop())
		(void)kill(pid, SIGTERM);
}

/* A signal that comes before we sleep is to end the sleep, too. */
static void hold_signals(sigset_t *ret_before)
{
	sigset_t ends;

	(void)sigemptyset(&ends);
	(void)sigaddset(&ends, SIGINT);
	(void)sigaddset(&ends, SIGTERM);
	(void)sigaddset(&ends, SIGHUP);
	(void)pthread_sigmask(SIG_BLOCK, &ends, ret_before);
}

static void follow(pid_t pid, int process, const struct watch *watch)
{
	struct pollfd fds[] = { { .fd = process, .events = POLLIN },
				{ .fd = watch->fd, .events = POLLIN } };
	sigset_t before;

	hold_signals(&before);
	while (fds[0].revents == 0) {
		look_at_stop(pid, watch);
		if (ppoll(fds, ARRAY_SIZE(fds), NULL, &before) < 0) {
			fds[0].revents = 0;
			fds[1].revents = 0;
			continue;
		}
		if (fds[1].revents && !hear(watch))
			fds[1].fd = -1;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (fds[1].fd >= 0)
		(void)hear(watch);
}

int watch_child(pid_t pid, const struct watch *watch, int *ret_status)
{
	cleanup_close int process = pidfd_open(pid, 0);

	if (process >= 0)
		follow(pid, process, watch);
	/* Without one, what it says is not heard. */
	while (waitpid(pid, ret_status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
		look_at_stop(pid, watch);
	}
	return 0;
}
