/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "watch.h"

#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

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

static void follow(pid_t pid, int process, const struct watch *watch)
{
	struct pollfd fds[] = { { .fd = process, .events = POLLIN },
				{ .fd = watch->fd, .events = POLLIN } };

	while (fds[0].revents == 0) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0) {
			fds[0].revents = 0;
			fds[1].revents = 0;
			look_at_stop(pid, watch);
			continue;
		}
		if (fds[1].revents && !hear(watch))
			fds[1].fd = -1;
	}
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
