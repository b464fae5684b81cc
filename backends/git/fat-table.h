/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat-table.h - where things are on a FAT that a guest has written, and which
 * cluster is behind which.  For fat-read.c.
 *
 * Facts are from Microsoft's "FAT: General Overview of On-Disk Format" 1.03.
 * Nothing on the disk is believed.  One thread.
 */
#ifndef XENDISK_GIT_FAT_TABLE_H
#define XENDISK_GIT_FAT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAT_SECTOR_BYTES  512u
#define FAT_FIRST_CLUSTER 2u
#define FAT_NONE	  UINT32_MAX

/* Where the bytes of the disk come from. */
struct fat_source {
	/* All n bytes at an offset, both in bytes and inside; or -errno. */
	int (*read)(void *ctx, uint64_t offset, void *buf, size_t n);
	void *ctx;
	/* Also when a guest has it mounted: it is what it is, and never -EBUSY. */
	bool mounted;
};

struct fat_window;

/* After fat_table_open() as it was found, and checked. */
struct fat_table {
	struct fat_source source;
	uint64_t start, size; /* of the file system, bytes */
	unsigned int bits; /* of an entry: 12, 16 or 32 */
	uint32_t root; /* FAT32: its first cluster */
	uint64_t root_at; /* FAT12 and FAT16: where it is, bytes */
	uint32_t root_bytes; /* ... and its size; FAT32: 0 */
	uint32_t cluster; /* bytes */
	uint32_t nr_clusters;
	uint64_t fat; /* where the one that counts begins, bytes */
	uint64_t copy; /* ... and the one that is the same; 0: there is none */
	uint64_t fat_bytes; /* of each */
	uint64_t data; /* where cluster 2 begins, bytes */
	struct fat_window *windows;
	char *why; /* where a sentence goes */
};

/* 12, 16 or 32: what FAT it can be of which this is the boot sector; 0: none.  A text
 * in it does not count. */
unsigned int fat_table_recognize(const uint8_t sector[FAT_SECTOR_BYTES]);

/* source, start, size and why are set, all else is zero.  As fat_volume_read(); to be
 * closed, also after a failure. */
int fat_table_open(struct fat_table *t);
void fat_table_close(struct fat_table *t);

/* Bytes of the file system. */
int fat_table_read(const struct fat_table *t, uint64_t offset, void *buf,
		   size_t n);
/* The one behind a cluster that is there; FAT_NONE: it is the last.  What it says may
 * be none that is there. */
int fat_table_next(const struct fat_table *t, uint32_t cluster, uint32_t *ret);
/* What it says is that the cluster is marked as bad. */
bool fat_table_is_bad(const struct fat_table *t, uint32_t entry);

static inline bool fat_table_has(const struct fat_table *t, uint32_t cluster)
{
	return cluster >= FAT_FIRST_CLUSTER &&
	       cluster - FAT_FIRST_CLUSTER < t->nr_clusters;
}

/* Where a cluster that is there begins, bytes. */
static inline uint64_t fat_table_offset(const struct fat_table *t,
					uint32_t cluster)
{
	return t->data + (uint64_t)(cluster - FAT_FIRST_CLUSTER) * t->cluster;
}

#endif
