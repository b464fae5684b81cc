/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs-tree.h - the files of a file system that is on a disk at one commit.
 *
 * Which bytes of the disk a file has is asked of who has read the file system
 * (struct fs_ops).  Nothing on it is believed; work and memory have limits.  One
 * thread.
 */
#ifndef XENDISK_GIT_FS_TREE_H
#define XENDISK_GIT_FS_TREE_H

#include <sys/stat.h>

#include "commit-disk.h"

#define FS_MAX_NODES 2000000u
#define FS_MAX_DEPTH 1000u
#define FS_MAX_RUNS  4000000u /* pieces of a file */
#define FS_NONE	     UINT32_MAX /* no node, no text */

struct fs_node {
	uint64_t size; /* bytes; of a folder: 0 */
	/* What stays when it is renamed, and is no other file's; 0 and 0: there is
	 * no such thing. */
	uint64_t identity[2];
	uint64_t handle; /* of who reads it: inode, or node */
	uint32_t name; /* where in names */
	uint32_t text; /* where in names its `size` bytes are, of a symbolic link
			* and of a file without runs; FS_NONE: it has runs */
	uint32_t parent;
	uint32_t first, nr; /* folder: its children, by name */
	uint32_t uid, gid;
	uint32_t device; /* of a device: its number */
	uint32_t partner; /* in the other tree; FS_NONE: there is none */
	uint16_t mode; /* as in stat(2) */
};

struct fs_tree {
	struct fs_node *nodes; /* a folder before what is in it; 0: the root */
	uint32_t nr, room;
	char *names;
	uint32_t names_used, names_room;
	bool has_modes; /* permissions and owners mean something */
	/* An identity may have become another file's: it counts where the content
	 * is the same as well. */
	bool weak_identity;
};

/* Bytes of a file that are side by side.  Where there are none it is zero. */
struct fs_run {
	uint64_t at; /* in the file, bytes */
	uint64_t where; /* on the disk, bytes */
	uint64_t length;
	bool escaped; /* its first four bytes are FS_ESCAPED, not those there */
};
#define FS_ESCAPED "\xc0\x3b\x39\x98" /* the magic number of a journal */

struct fs_runs {
	struct fs_run *runs; /* in the order of the file, without overlaps */
	uint32_t nr, room;
};

struct fs_volume;

struct fs_ops {
	const char *name; /* "ext4" */
	/* The whole tree.  -EBADMSG, -E2BIG, -EOPNOTSUPP, -ENOMEM or what reading
	 * says, with a sentence. */
	int (*read)(struct fs_volume *volume, char *ret_why);
	/* Of a file that has no text. */
	int (*runs)(struct fs_volume *volume, uint32_t node,
		    struct fs_runs *ret, char *ret_why);
	void (*close)(struct fs_volume *volume);
};

struct fs_volume {
	const struct fs_ops *ops;
	unsigned int partition; /* from 1 on; 0: the whole disk */
	struct commit_disk *disk;
	uint64_t start, size; /* on the disk, bytes */
	struct fs_tree tree;
	void *data; /* of the reader */
	char note[WHY_MAX]; /* what the list may lack; or "" */
};

/* By the bits of an entry of the FAT: 12, 16 or 32. */
const struct fs_ops *fs_fat_ops(unsigned int bits);
extern const struct fs_ops fs_ext_ops;

/* Reads it; volume has ops, disk and place, and is freed, also after a failure. */
int fs_volume_read(struct fs_volume *volume, char *ret_why);
/* ... or not: there is nothing on it. */
int fs_volume_empty(struct fs_volume *volume, char *ret_why);
void fs_volume_free(struct fs_volume *volume);
/* Bytes of the volume. */
int fs_read(const struct fs_volume *volume, uint64_t offset, void *buf,
	    size_t n, char *ret_why);

/* --- For readers -------------------------------------------------------------- */

/* -ENOMEM, or -E2BIG and why. */
int fs_tree_add(struct fs_tree *tree, uint32_t parent, const char *name,
		size_t n, uint32_t *ret, char *ret_why);
int fs_tree_keep(struct fs_tree *tree, const void *bytes, size_t n,
		 uint32_t *ret, char *ret_why);
/* All children of a folder have been added, from `first` to the end: by name from
 * now on. */
void fs_tree_sort(struct fs_tree *tree, uint32_t folder);
uint32_t fs_tree_depth(const struct fs_tree *tree, uint32_t node);
/* Goes on from the last one where both say so. */
int fs_runs_add(struct fs_runs *runs, const struct fs_run *run, char *ret_why);

/* --- For who compares --------------------------------------------------------- */

/* The child of that name; FS_NONE. */
uint32_t fs_tree_find(const struct fs_tree *tree, uint32_t folder,
		      const char *name);
/* "/folder/name" as UTF-8, to be freed; NULL: no memory.  What is not printable, no
 * UTF-8, or a backslash is \xNN. */
char *fs_tree_path(const struct fs_tree *tree, uint32_t node);

static inline const char *fs_tree_name(const struct fs_tree *tree,
				       uint32_t node)
{
	return tree->names + tree->nodes[node].name;
}

#endif
