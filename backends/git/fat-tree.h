/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat-tree.h - from the files that a guest left on a FAT, and the tree that had
 * been laid out there, to the tree that git should have now.
 *
 * FAT knows less than git: modes, symbolic links, names that it does not tell
 * apart, and submodules are those of the tree that was laid out, where a path is
 * still there.  One thread.
 */
#ifndef XENDISK_GIT_FAT_TREE_H
#define XENDISK_GIT_FAT_TREE_H

#include "fat-read.h"
#include "odb.h"

/* Bytes of a file that was changed: it is read whole. */
#define FAT_TREE_MAX_FILE (256u << 20)

enum fat_change {
	FAT_ADDED = 'A',
	FAT_CHANGED = 'M', /* content or mode */
	FAT_RETYPED = 'T', /* a symbolic link or submodule is a file now */
	FAT_REMOVED = 'D',
};

struct fat_tree_ops {
	/* A tree of the commit that was laid out, to be freed. */
	int (*read_tree)(void *ctx, const uint8_t oid[OID_BYTES], uint8_t **ret,
			 size_t *ret_n, char *ret_why);
	/* Is this part of the disk as it was laid out, and the beginning of a
	 * file?  Then which one: a node of the tree that was laid out. */
	bool (*untouched)(void *ctx, const struct fat_run *run,
			  uint32_t *ret_node);
	/* Writes an object, unless it is there. */
	int (*put)(void *ctx, enum object_type type, const void *data, size_t n,
		   uint8_t ret_oid[OID_BYTES], char *ret_why);
	/* Optional.  What is different from the tree that was laid out; the path
	 * is as in git, without a '/' in front. */
	void (*changed)(void *ctx, enum fat_change change, const char *path);
	/* Optional.  Is that file, of so many bytes, of the commit that was laid
	 * out a pointer of Git LFS?  0, 1, or -errno and why.  If it is, only
	 * another pointer, or nothing (git-lfs, docs/spec.md), may take its place:
	 * else -EBADMSG. */
	int (*is_pointer)(void *ctx, const uint8_t oid[OID_BYTES],
			  uint64_t size, char *ret_why);
	void *ctx;
};

struct fat_tree_counts {
	uint32_t added, changed, removed; /* RETYPED is changed */
	uint32_t read; /* files that had to be read */
	uint64_t bytes; /* ... and what was in them */
};

/*
 * base: what build_vtree() made of the tree base_tree.  -EBADMSG: the FAT has what
 * git cannot have; -EFBIG: a file is too large; others are those of ops; and why.
 */
int fat_tree_make(const struct vtree *base, const uint8_t base_tree[OID_BYTES],
		  struct fat_volume *volume, const struct fat_tree_ops *ops,
		  uint8_t ret_tree[OID_BYTES],
		  struct fat_tree_counts *ret_counts, char *ret_why);

/*
 * The tree `root` with the folder at a path ("a/b"; "": itself) replaced by
 * another one.  -ENOENT: there is no such folder.
 */
int fat_tree_graft(const uint8_t root[OID_BYTES], const char *path,
		   const uint8_t tree[OID_BYTES],
		   const struct fat_tree_ops *ops, uint8_t ret_root[OID_BYTES],
		   char *ret_why);

#endif
