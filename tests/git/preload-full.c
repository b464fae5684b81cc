/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LD_PRELOAD: a file system that is full for one call.
 *
 * XENDISK_FULL=N:FOLDER makes the Nth call fail with ENOSPC that would take space
 * in FOLDER: a write to a file there, or making one.  Parent and children count
 * together.  libgit2's calls are among them.
 */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static unsigned long nth;
static const char *folder;
static unsigned long *passed; /* atomic; shared */

__attribute__((constructor)) static void full_init(void)
{
	const char *text = getenv("XENDISK_FULL");

	if (!text)
		return;
	nth = strtoul(text, NULL, 10);
	folder = strchr(text, ':');
	folder = folder ? folder + 1 : NULL;
	passed = mmap(NULL, sizeof(*passed), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (passed == MAP_FAILED)
		abort();
}

static bool is_full(void)
{
	if (__atomic_add_fetch(passed, 1, __ATOMIC_SEQ_CST) != nth)
		return false;
	errno = ENOSPC;
	return true;
}

/* Is that descriptor's file in the folder, and this call the one? */
static bool no_room(int fd)
{
	char link[64], path[4096] = "";
	int saved = errno;

	if (!folder)
		return false;
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (readlink(link, path, sizeof(path) - 1) < 0 ||
	    strncmp(path, folder, strlen(folder)) != 0) {
		errno = saved;
		return false;
	}
	errno = saved;
	return is_full();
}

/* By name: libgit2 knows the repository as /proc/self/fd/5. */
static bool no_room_for(int dir, const char *path)
{
	if (!folder)
		return false;
	if (path[0] == '/' && strncmp(path, "/proc/self/fd/5/", 16) != 0 &&
	    strncmp(path, folder, strlen(folder)) != 0)
		return false;
	if (path[0] != '/' && dir != AT_FDCWD)
		return no_room(dir);
	return path[0] == '/' && is_full();
}

#define REAL(name)                     \
	static __typeof__(name) *real; \
	if (!real)                     \
	*(void **)(void *)&real = dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *buf, size_t n)
{
	REAL(write);
	return no_room(fd) ? -1 : real(fd, buf, n);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t at)
{
	REAL(pwrite);
	return no_room(fd) ? -1 : real(fd, buf, n, at);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t at)
{
	REAL(pwrite64);
	return no_room(fd) ? -1 : real(fd, buf, n, at);
}

ssize_t writev(int fd, const struct iovec *iov, int n)
{
	REAL(writev);
	return no_room(fd) ? -1 : real(fd, iov, n);
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t at)
{
	REAL(pwritev);
	return no_room(fd) ? -1 : real(fd, iov, n, at);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int n, off64_t at)
{
	REAL(pwritev64);
	return no_room(fd) ? -1 : real(fd, iov, n, at);
}

int mkdir(const char *path, mode_t mode)
{
	REAL(mkdir);
	return no_room_for(AT_FDCWD, path) ? -1 : real(path, mode);
}

static mode_t mode_of(int flags, va_list ap)
{
	return flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
}

#define OPEN(name)                                                      \
	int name(const char *path, int flags, ...)                      \
	{                                                               \
		va_list ap;                                             \
		mode_t mode;                                            \
                                                                        \
		REAL(name);                                             \
		va_start(ap, flags);                                    \
		mode = mode_of(flags, ap);                              \
		va_end(ap);                                             \
		return flags & O_CREAT && no_room_for(AT_FDCWD, path) ? \
			       -1 :                                     \
			       real(path, flags, mode);                 \
	}
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                               \
	int name(int dir, const char *path, int flags, ...)        \
	{                                                          \
		va_list ap;                                        \
		mode_t mode;                                       \
                                                                   \
		REAL(name);                                        \
		va_start(ap, flags);                               \
		mode = mode_of(flags, ap);                         \
		va_end(ap);                                        \
		return flags & O_CREAT && no_room_for(dir, path) ? \
			       -1 :                                \
			       real(dir, path, flags, mode);       \
	}
OPENAT(openat)
OPENAT(openat64)
