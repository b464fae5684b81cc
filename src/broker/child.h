/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * child.h - the broker's child processes: watched, reaped, explained.
 *
 * Broker thread only.  Only the process ids given to child_watch() are waited
 * for, so that a library's own children are left to it.
 */
#ifndef XENDISK_CHILD_H
#define XENDISK_CHILD_H

#include <stddef.h>
#include <sys/types.h>

struct event_base;
struct child;
struct children;

/* status as waitpid() gives it.  From the event loop; the child is gone, and
 * with it the struct child. */
typedef void (*child_exit_fn)(void *ctx, int status);

int children_new(struct children **ret, struct event_base *base);
/* Forgets all; kills nobody. */
void children_free(struct children *children);

int child_watch(struct children *children, pid_t pid, child_exit_fn fn,
		void *ctx, struct child **ret);
/* fn is not called any more; the process is still reaped when it ends. */
void child_forget(struct child *child);

/* "exited with status 1", "was killed by signal 9 (Killed)" */
void child_explain(int status, char *buf, size_t len);

#endif
