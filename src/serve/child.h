/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * child.h - child servers where there is no broker: what broker/nursery.h does,
 * for one process that waits, and whose user the servers are.
 */
#ifndef XENDISK_SERVE_CHILD_H
#define XENDISK_SERVE_CHILD_H

#include "common/expr.h"

struct serve_child;

/* Of our own environment: who starts servers.  Not for others. */
#define SERVE_CHILD_OF "XENDISK_SERVE"

/* Before there is any thread: servers that are started end with this process, however
 * that ends. */
int serve_child_prepare(void);
/* In a process that is about to become a server.  False: there is nobody any more whose
 * it would be. */
bool serve_child_follow(void);

/* For a layer whose backend declares a server; starts nothing.  backend_dir is
 * borrowed. */
int serve_child_new(struct serve_child **ret, const struct layer *layer,
		    const char *backend_dir);
/* Ends it, and waits for that. */
void serve_child_free(struct serve_child *child);

/* Starts it if it does not run.  A connection that has been greeted, or -errno
 * and why (MSG_TEXT_MAX bytes).  open_file opens the file of a parameter, by its
 * number. */
int serve_child_call(struct serve_child *child, bool once,
		     int (*open_file)(void *ctx, unsigned int param, int flags),
		     void *ctx, char *ret_why);

#endif
