/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs-compare.h - what has become of the files of a file system.
 */
#ifndef XENDISK_GIT_FS_COMPARE_H
#define XENDISK_GIT_FS_COMPARE_H

#include "fs-tree.h"

/* One file, folder or whatever else a name leads to; more than one of the last four
 * may be true. */
struct fs_change {
	uint32_t a, b; /* the node there; FS_NONE: added, or removed */
	bool renamed; /* ... or moved, and not with its folder */
	bool content; /* the bytes of a file, a link's target, a device's number */
	bool mode;
	bool owner;
};

/*
 * Calls fn for each change, those that b has in the order of its nodes, then what is
 * gone; until fn returns something else than 0, which is passed on.  Both volumes
 * have been read, for the first time, and have the same ops.
 */
int fs_compare(struct fs_volume *a, struct fs_volume *b,
	       int (*fn)(void *ctx, const struct fs_change *change), void *ctx,
	       char *ret_why);

#endif
