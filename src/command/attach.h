/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * attach.h - attaching a disk, for the verbs that do it.
 */
#ifndef XENDISK_ATTACH_H
#define XENDISK_ATTACH_H

#include "command/device.h"

struct attach {
	/* Set by the verb: its first argument is DOM, --vdev and --readonly are
	 * options of it. */
	const struct invocation *call;
	const char *expr;
	int cancel_fd; /* readable: stop waiting; -1: none */

	struct xs_handle *store;
	bool read_only;
	bool no_discard;
	bool tap; /* by xl: backendtype=tap, and so backend/vbd3 */
	bool choose; /* the first free vdev */
	uint32_t backend_domid;
	struct device device;
};

/* Everything that can be found wrong before something is written.  Says itself
 * what that is.  attach_release() also when it failed. */
enum status attach_prepare(struct attach *a);
/* Is the expression right?  As the daemon sees it; part of attach_prepare(). */
enum status attach_check(const struct attach *a);
/* By xl, which then knows the disk.  What fails has been said. */
enum status attach_by_xl(struct attach *a);
/* Writes both directories in xenstore, and waits for the daemon's verdict.
 * What fails leaves nothing behind. */
enum status attach_direct(struct attach *a);
void attach_release(struct attach *a);

#endif
