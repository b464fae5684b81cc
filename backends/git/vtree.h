/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vtree.h - the files and folders that a disk is made of.
 *
 * Nodes are in one array, the children of a folder side by side, and a folder
 * before what is in it (node 0 is the root).  Built by one thread, read by any.
 */
#ifndef XENDISK_GIT_VTREE_H
#define XENDISK_GIT_VTREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "why.h"

#define VTREE_MAX_NODES 1000000u
#define VTREE_MAX_DEPTH 128u
/* Bytes of where a symbolic link leads: Linux has no longer ones. */
#define VTREE_MAX_LINK 4095u

enum vnode_kind {
	VNODE_DIR,
	VNODE_BLOB, /* bytes of an object */
	VNODE_TEXT, /* bytes of our own */
	VNODE_LFS, /* bytes of an object of Git LFS, which is a file */
};

enum vnode_mark {
	VNODE_PLAIN,
	VNODE_EXEC, /* BLOB, LFS: may be executed */
	VNODE_LINK, /* BLOB: its content is where a symbolic link leads */
	VNODE_MODULE, /* DIR: a submodule, which is empty */
};

/* 40 bytes; there are as many as there are files. */
struct vnode {
	uint64_t size; /* bytes; of a folder: set by the layout */
	uint64_t at; /* BLOB: where in its pack; TEXT: where in names; LFS:
		      * its number; DIR: where its tree is until it has been
		      * read, then the layout's */
	uint32_t name; /* where in names; ends with a NUL */
	uint32_t parent;
	uint32_t first; /* DIR: its first child */
	uint32_t nr; /* ... and how many */
	uint32_t block; /* set by the layout; 0: none */
	uint16_t pack; /* as `at` */
	uint8_t kind; /* enum vnode_kind */
	uint8_t mark; /* enum vnode_mark */
};

struct vtree {
	struct vnode *nodes;
	uint32_t nr, room;
	char *names; /* names and texts */
	uint32_t names_used, names_room;
	int64_t time; /* of all of them, Unix, UTC */
};

/* -ENOMEM, or -E2BIG and why: too many. */
int vtree_add(struct vtree *tree, uint32_t parent, enum vnode_kind kind,
	      const char *name, uint32_t *ret, char *ret_why);
/* Keeps bytes, and a NUL behind them.  -ENOMEM, -E2BIG. */
int vtree_keep(struct vtree *tree, const void *bytes, size_t n,
	       uint32_t *ret_at);
void vtree_free(struct vtree *tree);

static inline const char *vtree_name(const struct vtree *tree, uint32_t node)
{
	return tree->names + tree->nodes[node].name;
}

/* "/folder/name", with what is not printable as \xNN and cut in front when it
 * is long: for people.  Returns ret. */
const char *vtree_path(const struct vtree *tree, uint32_t node, char *ret,
		       size_t size);

/* Names that FAT takes for one and the same, or for another's short name: the
 * later one in a folder becomes "NAME~N.EXT".  ret_list, to be freed: a line
 * "PATH is PATH\n" for each, the new one and that in git. */
int vtree_part_names(struct vtree *tree, char **ret_list, char *ret_why);

/* Are two names in a folder one and the same to FAT?  1: ret_node has the name of
 * one before it; 0: no; -ENOMEM, -EIO and why. */
int vtree_same_names(struct vtree *tree, uint32_t folder, uint32_t *ret_node,
		     char *ret_why);

#endif
