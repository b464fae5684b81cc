/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree-disk.h - a tree of git, laid out as a disk: what the worker serves, and
 * what the companion that makes commits of it looks at once more.
 */
#ifndef XENDISK_GIT_TREE_DISK_H
#define XENDISK_GIT_TREE_DISK_H

#include "build.h"
#include "layout.h"

/* Objects and folders in memory. */
#define TREE_DISK_CACHE (32u << 20)
/* Files up to this size are read whole; larger ones piece by piece. */
#define TREE_DISK_WHOLE (4u << 20)

/* Does not change once it is made. */
struct tree_disk {
	struct vtree tree;
	struct layout *layout;
	struct odb *odb;
	struct cache *cache;
};

/*
 * objects: the folder of that name, which stays the caller's.  *ret is empty
 * before, and again on failure.  A repack at the same time does no harm.
 */
int tree_disk_make(struct tree_disk *ret, int objects,
		   const struct build_source *source,
		   const struct layout_ops *ops,
		   const struct layout_options *options,
		   struct build_counts *ret_counts, char *ret_why);
void tree_disk_free(struct tree_disk *disk);

/* --- Reading it: tree-read.c ---------------------------------------------------- */

/* For one thread, which may block. */
struct tree_reader;

int tree_reader_new(struct tree_reader **ret, const struct tree_disk *disk);
void tree_reader_free(struct tree_reader *reader);
/* n bytes at an offset, all inside.  -EBADMSG: an object is damaged. */
int tree_reader_read(struct tree_reader *reader, uint64_t offset, void *buf,
		     size_t n);

#endif
