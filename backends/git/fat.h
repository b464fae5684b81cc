/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat.h - a FAT32 file system of a vtree: fat_ops of layout.h.  This is what is
 * kept of it, for those who read it back.
 */
#ifndef XENDISK_GIT_FAT_H
#define XENDISK_GIT_FAT_H

#include "layout.h"

#define FAT_SECTOR	LAYOUT_SECTOR
#define FAT_LABEL_BYTES 11

/* A folder larger than this is more than the format allows. */
#define FAT_DIR_MAX (2u << 20)

struct fat {
	struct layout layout;
	const struct vtree *tree;
	char label[FAT_LABEL_BYTES + 1]; /* upper case, padded with blanks */
	uint32_t serial;
	uint8_t type; /* of the partition; 0: there is none */
	bool writable;
	uint32_t hidden; /* sectors before the file system */
	uint32_t reserved; /* sectors before the first FAT */
	uint32_t fat_sectors; /* of one of the two */
	uint32_t cluster; /* bytes */
	uint32_t nr_clusters;
	uint64_t data; /* where cluster 2 is on the disk, bytes */
	struct extents used; /* clusters, all in front */
};

#endif
