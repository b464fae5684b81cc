/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * child.h - child servers where there is no broker: what broker/nursery.h does,
 * for one process that waits, and whose user the servers are.
 */
#ifndef XENDISK_SERVE_CHILD_H
#define XENDISK_SERVE_CHILD_H

#include "common/expr.h"

struct serve_child;

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
