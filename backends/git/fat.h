/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat.h - a FAT32 file system of a vtree, of which nothing is stored but where
 * each file begins.  fat_layout() once; the rest is pure, any thread.
 */
#ifndef XENDISK_GIT_FAT_H
#define XENDISK_GIT_FAT_H

#include "vtree.h"

#define FAT_SECTOR	512u
#define FAT_LABEL_BYTES 11

/* A folder larger than this is more than the format allows. */
#define FAT_DIR_MAX (2u << 20)

struct fat_options {
	char label[FAT_LABEL_BYTES + 1];
	uint32_t serial;
	uint8_t partition; /* its type in a partition table; 0: without one */
};

struct fat {
	const struct vtree *tree;
	struct fat_options options;
	uint64_t size; /* bytes, of the whole disk */
	uint32_t hidden; /* sectors before the file system */
	uint32_t reserved; /* sectors before the first FAT */
	uint32_t fat_sectors; /* of one of the two */
	uint32_t cluster; /* bytes */
	uint32_t nr_clusters;
	uint32_t used; /* clusters, all in front */
	uint64_t data; /* where cluster 2 is on the disk, bytes */
	uint32_t *order; /* nodes that have clusters, in their order */
	uint32_t nr_order;
};

/* Takes clusters and sizes of folders down in the tree, which has to stay.
 * -EFBIG, -ENAMETOOLONG, -E2BIG, -ENOMEM and why. */
int fat_layout(struct fat *ret, struct vtree *tree,
	       const struct fat_options *options, char *ret_why);
void fat_free(struct fat *fat);

enum fat_kind {
	FAT_ZERO,
	FAT_META, /* fat_sector() makes it */
	FAT_NODE, /* bytes of a file or folder */
};

struct fat_piece {
	enum fat_kind kind;
	uint64_t length; /* bytes that are alike */
	uint32_t node;
	uint64_t at; /* where in the node, bytes */
};

/* What is there, at most `length` bytes of it. */
struct fat_piece fat_find(const struct fat *fat, uint64_t offset,
			  uint64_t length);

/* A sector of FAT_META. */
void fat_sector(const struct fat *fat, uint64_t sector,
		uint8_t ret[FAT_SECTOR]);

/* All of a folder: its size, as in its node, is a multiple of 32. */
void fat_folder(const struct fat *fat, uint32_t node, uint8_t *ret);

#endif
