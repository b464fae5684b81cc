/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/reopen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* To open the wrong thing may already do harm: it winds a tape back, starts a
 * watchdog, waits for a FIFO's other end.  So it is looked at first. */
static int check_type(int fd, int flags)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
		return 0;
	if (S_ISDIR(st.st_mode))
		return flags & O_DIRECTORY ? 0 : -EISDIR;
	return -ENOTBLK;
}

int reopen(int path_fd, int flags)
{
	/* The kernel's own link to the very file; it is no name that could
	 * have been changed. */
	char path[sizeof("/proc/self/fd/") + 3 * sizeof(int)];
	int fd, r;

	r = path_fd < 0 ? path_fd : check_type(path_fd, flags);
	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", path_fd);
	flags &= ~(O_CREAT | O_NOFOLLOW);
	flags |= O_CLOEXEC | O_NOCTTY;
	/* The kernel looks at the time of access after each read; of a disk
	 * nobody asks for it. */
	fd = open(path, flags | O_NOATIME);
	if (fd < 0 && errno == EPERM)
		fd = open(path, flags);
	return fd < 0 ? -errno : fd;
}

void reopen_explain(int err, int flags, char *buf, size_t size)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY;
	bool may_not = err == -EACCES || err == -EPERM || err == -EROFS;

	(void)snprintf(
		buf, size, "%s%s",
		err == -ENOTBLK ? "neither a file nor a block device" :
				  strerror(-err),
		writes && may_not ?
			"; to read it only: --readonly, or readonly(...)" :
			"");
}
