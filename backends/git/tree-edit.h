/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree-edit.h - the tree of a disk's next commit: that of another one with some
 * chunks changed.
 *
 * Chunks are given in ascending order, so that one folder a level is open; a
 * folder is written when the edit has left it, if it changed, and only
 * then.  One thread.
 */
#ifndef XENDISK_GIT_TREE_EDIT_H
#define XENDISK_GIT_TREE_EDIT_H

#include "chunk-map.h"

struct pack_writer;
struct tree_edit;

/*
 * base: the commit's map, or NULL for a disk without any chunk; source is where
 * its trees are read from, and both outlive the edit.  disk is what it becomes:
 * with the same chunk and levels as the base, and no smaller (-EINVAL).  What
 * else lies in the base's root tree is kept.
 */
int tree_edit_new(struct tree_edit **ret, struct chunk_map *base,
		  const struct object_source *source,
		  const struct git_disk *disk, struct pack_writer *pack,
		  char *ret_why);
/* oid NULL: the chunk is all zero.  -EINVAL: not after the one before, or not in
 * the disk. */
int tree_edit_set(struct tree_edit *edit, uint64_t chunk,
		  const uint8_t *oid /* [OID_BYTES] */, char *ret_why);
/* The last call but free. */
int tree_edit_finish(struct tree_edit *edit, uint8_t ret_root[OID_BYTES],
		     char *ret_why);
void tree_edit_free(struct tree_edit *edit);

#endif
