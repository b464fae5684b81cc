/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * build.h - from a tree in git to the files and folders of a disk.
 */
#ifndef XENDISK_GIT_BUILD_H
#define XENDISK_GIT_BUILD_H

#include "lfs.h"
#include "odb.h"
#include "vtree.h"

/* The node of our own folder, /.xendisk: the root's first child. */
#define BUILD_OWN_FOLDER 1u
#define BUILD_OWN_NAME	 ".xendisk"

struct build_source {
	uint8_t tree[OID_BYTES];
	int64_t time; /* of all files: the commit's, Unix, UTC */
	bool posix; /* as layout_ops has it */
	bool follow; /* else: symbolic links to files are those files */
	struct lfs *lfs; /* NULL: pointers of Git LFS are files like others */
	const char *about; /* what /.xendisk/commit says */
};

struct build_counts {
	uint32_t files, folders;
	uint32_t texts; /* symbolic links that are files with their target */
	uint32_t modules;
	uint32_t lfs; /* pointers that are the object now ... */
	uint32_t pointers; /* ... and those whose object is not there */
	uint32_t renamed;
};

/* ret is empty before, and vtree_free() is the caller's in any case. */
int build_vtree(struct vtree *ret, struct odb *odb, struct reader *reader,
		struct cache *cache, const struct build_source *source,
		struct build_counts *ret_counts, char *ret_why);

#endif
