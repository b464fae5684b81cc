/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lend.c - a library that is loaded into child servers (LD_PRELOAD): gives them the
 * files that were opened for them, and lets them outlive the broker.
 *
 * To open /dev/fd/4 is to open the file anew, and the kernel asks whether the
 * server's user may; it may not, since that user owns nothing.  qemu-nbd knows no
 * other way to be given a descriptor.  So here opening one of the first
 * XENDISK_FILES descriptors from 4 on, by that name, is duplicating it.  All else
 * goes to the kernel.  Without this library nothing is open that should not be:
 * then the server fails with "Permission denied".
 *
 * The duplicates share one file offset and one set of status flags, which does no
 * harm to a server that reads and writes at offsets.
 *
 * nbdkit (1.32) that is started by socket activation asks the kernel for SIGTERM when
 * its parent dies.  A broker that dies is no reason to end: its guests are served
 * on, and the next one finds the server again.  So that wish is not passed on.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST_FILE 4
#define FOLDER	   "/dev/fd/"
#define API	   __attribute__((visibility("default")))

/* What the C library calls when it checks a program's calls. */
API int __open_2(const char *path, int flags);
API int __open64_2(const char *path, int flags);
API int __openat_2(int dir, const char *path, int flags);
API int __openat64_2(int dir, const char *path, int flags);

static int nr_files;

/* The library's own descriptor is the one behind the files.  What the server
 * starts is not lent anything. */
__attribute__((constructor)) static void begin(void)
{
	const char *files = getenv("XENDISK_FILES");

	if (!files)
		return;
	nr_files = atoi(files);
	(void)close(FIRST_FILE + nr_files);
	(void)unsetenv("XENDISK_FILES");
	(void)unsetenv("LD_PRELOAD");
}

/* The descriptor that the path names, if it is one that was lent; or -1. */
static int lent(const char *path)
{
	const size_t n = sizeof(FOLDER) - 1;
	char *end;
	long fd;

	if (!path || strncmp(path, FOLDER, n) != 0 || !path[n])
		return -1;
	fd = strtol(path + n, &end, 10);
	return !*end && fd >= FIRST_FILE && fd < FIRST_FILE + nr_files ?
		       (int)fd :
		       -1;
}

static int take(int fd, int flags)
{
	const int settable = O_APPEND | O_DIRECT | O_NONBLOCK;
	int have = fcntl(fd, F_GETFL);
	int copy;

	if (have < 0)
		return -1;
	if ((flags & O_ACCMODE) != O_RDONLY && (have & O_ACCMODE) != O_RDWR) {
		errno = EROFS;
		return -1;
	}
	copy = fcntl(fd, flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	if (copy >= 0 && (have & settable) != (flags & settable) &&
	    fcntl(copy, F_SETFL, (have & ~settable) | (flags & settable)) < 0) {
		int saved = errno;

		(void)close(copy);
		errno = saved;
		return -1;
	}
	return copy;
}

static int open_or_take(int dir, const char *path, int flags, mode_t mode)
{
	int fd = lent(path);

	if (fd >= 0)
		return take(fd, flags);
	return (int)syscall(SYS_openat, dir, path, flags | O_LARGEFILE, mode);
}

/* The last argument is there only if it is needed. */
#define MODE(flags)                                                          \
	({                                                                   \
		mode_t mode_ = 0;                                            \
		va_list ap_;                                                 \
		if (((flags)&O_CREAT) || ((flags)&O_TMPFILE) == O_TMPFILE) { \
			va_start(ap_, flags);                                \
			mode_ = va_arg(ap_, mode_t);                         \
			va_end(ap_);                                         \
		}                                                            \
		mode_;                                                       \
	})

API int open(const char *path, int flags, ...)
{
	return open_or_take(AT_FDCWD, path, flags, MODE(flags));
}

API int open64(const char *path, int flags, ...)
{
	return open_or_take(AT_FDCWD, path, flags, MODE(flags));
}

API int openat(int dir, const char *path, int flags, ...)
{
	return open_or_take(dir, path, flags, MODE(flags));
}

API int openat64(int dir, const char *path, int flags, ...)
{
	return open_or_take(dir, path, flags, MODE(flags));
}

API int prctl(int option, ...)
{
	unsigned long arg[4];
	va_list ap;

	va_start(ap, option);
	for (int i = 0; i < 4; i++)
		arg[i] = va_arg(ap, unsigned long);
	va_end(ap);
	if (option == PR_SET_PDEATHSIG)
		return 0;
	return (int)syscall(SYS_prctl, option, arg[0], arg[1], arg[2], arg[3]);
}

int __open_2(const char *path, int flags)
{
	return open_or_take(AT_FDCWD, path, flags, 0);
}

int __open64_2(const char *path, int flags)
{
	return open_or_take(AT_FDCWD, path, flags, 0);
}

int __openat_2(int dir, const char *path, int flags)
{
	return open_or_take(dir, path, flags, 0);
}

int __openat64_2(int dir, const char *path, int flags)
{
	return open_or_take(dir, path, flags, 0);
}
