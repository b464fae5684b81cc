/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat-match.h - which file of the tree that was laid out each one on the FAT is,
 * by its path.
 */
#ifndef XENDISK_GIT_FAT_MATCH_H
#define XENDISK_GIT_FAT_MATCH_H

#include "fat-tree.h"

#define FAT_NOWHERE UINT32_MAX

/* A node of the tree that was laid out, as git has it. */
struct fat_base {
	uint8_t oid[OID_BYTES];
	uint32_t mode; /* 0: it is not in git, but ours */
	uint32_t name; /* in fat_match.names */
	uint32_t user; /* the node on the FAT that it is; FAT_NOWHERE: none */
};

/* A node on the FAT. */
struct fat_found {
	uint32_t base; /* what it was; FAT_NOWHERE: it is new */
	bool left_out; /* our own folder, and what is in it */
};

struct fat_match {
	const struct vtree *laid; /* names as on FAT */
	const struct vtree *tree; /* of the FAT */
	struct fat_base *base; /* for each node of laid */
	struct fat_found *found; /* for each node of tree */
	struct vtree names; /* only its names are used */
};

/* All of it is made here; fat_match_free() in any case. */
int fat_match_make(struct fat_match *ret, const struct vtree *laid,
		   const uint8_t root[OID_BYTES], const struct vtree *tree,
		   const struct fat_tree_ops *ops, char *ret_why);
void fat_match_free(struct fat_match *match);

/* A node's name in git. */
const char *fat_match_name(const struct fat_match *match, uint32_t node);

/* "a/b/c" of a node of the base, or of the FAT: in git, to be freed.  NULL: no
 * memory. */
char *fat_match_base_path(const struct fat_match *match, uint32_t base);
char *fat_match_path(const struct fat_match *match, uint32_t node);

#endif
