/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/rundir.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/util.h"

static int make_subdir(const char *dir, const char *name)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, name);

	if (!path)
		return -ENOMEM;
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int write_pid(int fd)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	if (ftruncate(fd, 0) < 0)
		return -errno;
	return pwrite_all(fd, text, (size_t)n, 0);
}

int rundir_take(const char *dir, int *ret_lock, pid_t *ret_holder)
{
	/* A lock of this kind belongs to the process: the children that it
	 * forks do not keep it, and the kernel tells who holds it. */
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	cleanup_free char *path = xasprintf("%s/xendiskd.pid", dir);
	cleanup_close int fd = -1;
	int r;

	if (!path)
		return -ENOMEM;
	r = make_dirs(dir, 0755);
	if (r < 0)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (fcntl(fd, F_SETLK, &lock) < 0) {
		if (errno != EAGAIN && errno != EACCES)
			return -errno;
		if (fcntl(fd, F_GETLK, &lock) == 0)
			*ret_holder = lock.l_pid;
		return -EBUSY;
	}
	r = write_pid(fd);
	if (r == 0)
		r = make_subdir(dir, "nbd");
	if (r < 0)
		return r;
	*ret_lock = TAKE_FD(fd);
	return 0;
}

bool rundir_is_shared(const char *dir)
{
	struct stat st;

	return stat(dir, &st) == 0 &&
	       ((st.st_uid != 0 && st.st_uid != geteuid()) ||
		(st.st_mode & (S_IWGRP | S_IWOTH)));
}
