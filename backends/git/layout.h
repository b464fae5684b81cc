/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * layout.h - what lies where on a disk that is made of a vtree: the seam between
 * a file system (fat.c, erofs.c) and who reads the disk (gitfs-io.c), neither of
 * which knows the other.
 *
 * Nothing of a file system is stored but where each file begins; the rest is
 * computed when it is read.  A layout is made by one thread, once; then it does
 * not change, and any thread may ask it.
 */
#ifndef XENDISK_GIT_LAYOUT_H
#define XENDISK_GIT_LAYOUT_H

#include "vtree.h"

#define LAYOUT_SECTOR	    512u
#define LAYOUT_PARTITION_AT 2048u /* sector of the only partition: 1 MiB */
#define LAYOUT_UNIT_MAX	    4096u /* bytes */
#define LAYOUT_ID	    20 /* bytes of an object's id */

enum layout_partition {
	LAYOUT_BARE, /* no partition table */
	LAYOUT_MBR,
	LAYOUT_ESP, /* the same, and it is an EFI system partition */
};

struct layout_options {
	const char *label;
	enum layout_partition partition;
	uint8_t id[LAYOUT_ID]; /* what serial numbers and UUIDs are made of */
	/* A guest may write: no file is marked as read-only. */
	bool writable;
	/* Bytes of the whole disk; 0: as many as it takes.  What is more than
	 * that is free space. */
	uint64_t size;
};

enum piece_kind {
	PIECE_ZERO,
	PIECE_META, /* layout_ops.meta() makes it */
	PIECE_FOLDER, /* bytes of layout_ops.folder() */
	PIECE_FILE, /* bytes of a file's content */
};

/* Bytes of a disk, side by side, that are alike. */
struct piece {
	enum piece_kind kind;
	uint64_t length; /* bytes */
	uint32_t node; /* FOLDER, FILE: whose they are ... */
	uint64_t at; /* ... and where in it they begin, bytes */
};

/* The first member of what a file system keeps. */
struct layout {
	const struct layout_ops *ops;
	uint64_t size; /* bytes, of the whole disk */
};

struct layout_ops {
	const char *name; /* as format= has it */
	/* Names, symbolic links and modes stay as they are; else names are told
	 * apart as FAT does, and a link is a file. */
	bool posix;
	uint32_t unit; /* bytes that meta() makes, at multiples of that */
	/* Before a tree is read.  -EINVAL, and why. */
	int (*check)(const struct layout_options *options, char *ret_why);
	/* Takes down in the tree, which has to stay, what it needs to know of
	 * each node.  Options have been checked.  -EFBIG, -E2BIG,
	 * -ENAMETOOLONG, -ENOMEM, and why. */
	int (*make)(struct layout **ret, struct vtree *tree,
		    const struct layout_options *options, char *ret_why);
	void (*free)(struct layout *layout);
	/* What is at an offset of the disk, at most `length` bytes of it, all
	 * inside. */
	struct piece (*find)(const struct layout *layout, uint64_t offset,
			     uint64_t length);
	/* ops->unit bytes of PIECE_META: those at number * unit. */
	void (*meta)(const struct layout *layout, uint64_t number,
		     uint8_t *ret);
	/* All of a folder, as many bytes as its node says.  NULL: folders are
	 * PIECE_META. */
	void (*folder)(const struct layout *layout, uint32_t node,
		       uint8_t *ret);
	/* For people: "FAT32, clusters of 4096 bytes". */
	void (*describe)(const struct layout *layout, char *ret, size_t size);
};

extern const struct layout_ops fat_ops, erofs_ops;

/* NULL: there is none of that name. */
const struct layout_ops *layout_ops_of(const char *name);
/* NULL is fine. */
void layout_free(struct layout *layout);

/* --- For file systems ---------------------------------------------------------- */

/*
 * Nodes that lie on the disk in one piece each, one behind the other, in whole
 * blocks ("clusters" of FAT); vnode.block is where each begins.
 */
struct extents {
	const struct vtree *tree;
	uint32_t block; /* bytes */
	uint32_t first; /* number of the first block */
	uint32_t end; /* of the block after the last one */
	uint32_t *order; /* nodes that have blocks, in their order */
	uint32_t nr;
};

/* With room for so many nodes.  -ENOMEM. */
int extents_new(struct extents *ret, const struct vtree *tree, uint32_t room,
		uint32_t block, uint32_t first);
void extents_free(struct extents *extents);
/* The next ones: the node's size, which is not 0, says how many.  The caller has
 * checked that there are not more than 32 bits can count. */
void extents_place(struct extents *extents, struct vtree *tree, uint32_t node);
/* Which of `order` has a block: one from `first` to `end`; 0 if there is none. */
uint32_t extents_owner(const struct extents *extents, uint32_t block);
/* The block after the last one of it. */
uint32_t extents_end(const struct extents *extents, uint32_t index);
/* What is at an offset behind the beginning of the first block, all of it before
 * the end of the last. */
struct piece extents_find(const struct extents *extents, uint64_t offset,
			  uint64_t length);

/* A partition table with one partition, from LAYOUT_PARTITION_AT to the end. */
void layout_mbr(uint8_t ret[LAYOUT_SECTOR], uint32_t serial, uint8_t type,
		uint64_t size);

static inline void put16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)value;
	p[1] = (uint8_t)(value >> 8);
}

static inline void put32(uint8_t *p, uint32_t value)
{
	put16(p, value & 0xffff);
	put16(p + 2, value >> 16);
}

static inline void put64(uint8_t *p, uint64_t value)
{
	put32(p, (uint32_t)value);
	put32(p + 4, (uint32_t)(value >> 32));
}

#endif
