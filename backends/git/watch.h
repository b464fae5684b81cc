/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * watch.h - waits for a child, and hears what it says meanwhile.
 */
#ifndef XENDISK_GIT_WATCH_H
#define XENDISK_GIT_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct watch {
	int fd; /* where it speaks, non-blocking; -1: nowhere */
	void (*said)(void *ctx, const char *text, size_t n);
	void *ctx;
	/* Looked at first, and when a signal has come: true sends it SIGTERM.  Or
	 * NULL. */
	bool (*stop)(void);
};

/* Until the child has ended, also when others still have the other end of fd.
 * ret_status is waitpid()'s.  0 or -errno. */
int watch_child(pid_t pid, const struct watch *watch, int *ret_status);

#endif
