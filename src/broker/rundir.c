/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/rundir.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

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

int rundir_folder(const char *dir, const char *folder)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, folder);
	int fd;

	if (!path)
		return -ENOMEM;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int rundir_list(const char *dir, const char *folder, DIR **ret)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, folder);
	int r = path ? make_subdir(dir, folder) : -ENOMEM;
	DIR *list;

	if (r < 0)
		return r;
	list = opendir(path);
	if (!list)
		return -errno;
	*ret = list;
	return 0;
}

/* By way of the folder's descriptor: a path from the root may be too long for a
 * socket. */
static struct sockaddr_un address_in(int folder_fd, const char *name)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	(void)snprintf(at.sun_path, sizeof(at.sun_path), "/proc/self/fd/%d/%s",
		       folder_fd, name);
	return at;
}

int rundir_listen(int folder_fd, const char *name, int type, int backlog)
{
	struct sockaddr_un at = address_in(folder_fd, name);
	cleanup_close int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	(void)unlink(at.sun_path);
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
	    listen(fd, backlog) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int rundir_call(int folder_fd, const char *name, int type)
{
	struct sockaddr_un at = address_in(folder_fd, name);
	cleanup_close int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		return -errno;
	return TAKE_FD(fd);
}
