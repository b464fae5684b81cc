/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LD_PRELOAD for the real xenstored: the two files of /proc/xen from which it
 * learns dom0's event channel and ring.  Dom0 itself talks to it by socket, so
 * the ring stays empty; the port must be one that xenstored can bind to
 * (`xensim start` allocates it and passes it in XENSIM_STORE_PORT).
 */
#include "config.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int open(const char *path, int flags, ...);

static int answer(const char *name, const char *text, off_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd < 0)
		return -1;
	if (ftruncate(fd, size) < 0 || pwrite(fd, text, strlen(text), 0) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

int open(const char *path, int flags, ...)
{
	const char *port = getenv("XENSIM_STORE_PORT");
	int (*real)(const char *, int, ...);
	mode_t mode = 0;
	va_list ap;

	if (port && !strcmp(path, "/proc/xen/xsd_port"))
		return answer("xsd_port", port, (off_t)strlen(port));
	if (port && !strcmp(path, "/proc/xen/xsd_kva"))
		return answer("xsd_kva", "", 4096);
	if (flags & (O_CREAT | O_TMPFILE)) {
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		va_end(ap);
	}
	*(void **)&real = dlsym(RTLD_NEXT, "open");
	return real(path, flags, mode);
}
