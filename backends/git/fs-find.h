/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs-find.h - which file systems there are on a disk, and where.
 */
#ifndef XENDISK_GIT_FS_FIND_H
#define XENDISK_GIT_FS_FIND_H

#include "fs-tree.h"

#define FS_MAX_PLACES 128u

struct fs_place {
	unsigned int partition; /* from 1 on; 0: the whole disk */
	uint64_t start, size; /* bytes, inside the disk */
	const struct fs_ops *ops; /* NULL: none that is known here */
};

/*
 * One on the whole disk; or else all partitions of its table, GPT or MBR, in which
 * those inside an extended partition are not looked for.  Partitions that are not
 * inside of the disk are left out.  Returns how many; -errno and why: reading failed.
 */
int fs_find(struct commit_disk *disk, struct fs_place ret[FS_MAX_PLACES],
	    char *ret_why);

#endif
