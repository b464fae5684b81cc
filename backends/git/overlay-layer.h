/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-layer.h - what a layer is made of: for overlay-*.c only.
 *
 * The map in a file: pages, each in two places.  A page is a piece of the bitmap
 * and then who it is; numbers are as this machine has them, since the folder
 * never leaves it.  Pages are in groups, first one place of all pages of a group,
 * then the other, so that neighbours in the map mostly are neighbours in the file
 * and the file grows with the disk.
 */
#ifndef XENDISK_GIT_OVERLAY_LAYER_H
#define XENDISK_GIT_OVERLAY_LAYER_H

#include <pthread.h>

#include "overlay-map.h"

#define MAP_PAGE_BYTES 16384u
#define MAP_WORD_BITS  64u
#define MAP_GROUP      16u /* pages */

struct map_end {
	uint64_t tag; /* first bytes of the overlay's uuid */
	uint64_t generation; /* of the layer */
	uint64_t sequence; /* from 1; of two copies the greater is newer */
	uint32_t page;
	uint32_t check; /* CRC-32 of all that comes before */
};

#define MAP_PAGE_WORDS \
	((MAP_PAGE_BYTES - sizeof(struct map_end)) / sizeof(uint64_t))
#define MAP_PAGE_SECTORS (MAP_PAGE_WORDS * MAP_WORD_BITS)

struct map_page {
	uint64_t words[MAP_PAGE_WORDS];
	struct map_end end;
};
_Static_assert(sizeof(struct map_page) == MAP_PAGE_BYTES, "no gaps");

/* Where the newest durable copy of a page is. */
enum { PLACE_A, PLACE_B, PLACE_NONE };

/* What grows with the disk.  Old ones stay until the layer is closed, since a
 * thread may still be reading. */
struct layer_table {
	uint64_t sectors;
	uint32_t nr_pages;
	uint64_t **pages; /* MAP_PAGE_WORDS each; NULL: all 0 */
	uint64_t *unsaved; /* a bit for each page */
	uint8_t *place; /* PLACE_... for each page; layer->lock */
	struct layer_table *older;
};

struct layer {
	int data_fd, map_fd;
	uint64_t tag, generation;
	struct layer_table *table; /* atomic */
	struct layer_table *next_table; /* layer_grow() to layer_grown() */
	uint64_t count; /* sectors; atomic */

	pthread_mutex_t lock; /* for what follows, and place */
	int err; /* fdatasync() has failed once */
	int write_err; /* of the last write that failed */
	uint64_t ticket; /* of the last flush that has begun */
	uint64_t saved; /* flushes up to this one are durable */
	uint64_t sequence; /* of the last page that was written */
	struct layer_flush *writer; /* writes to the map file */
	struct layer_flush *waiting; /* for it to end */
};

/* Pages as they were when a flush began, in ascending order. */
struct map_save {
	unsigned int nr;
	uint8_t *place; /* where each is written to */
	struct map_page *pages;
};

/* --- overlay-map.c ----------------------------------------------------------- */

/* An empty one; the descriptors stay the caller's. */
int layer_new(struct layer **ret, int data_fd, int map_fd, uint64_t tag,
	      uint64_t generation, uint64_t sectors);
static inline struct layer_table *layer_table(const struct layer *layer)
{
	return __atomic_load_n(&layer->table, __ATOMIC_ACQUIRE);
}
static inline uint64_t *layer_words(const struct layer_table *table,
				    uint32_t page)
{
	return __atomic_load_n(&table->pages[page], __ATOMIC_ACQUIRE);
}
/* The words of a page, made if need be; NULL: no memory. */
uint64_t *layer_page(struct layer_table *table, uint32_t page);
/* fdatasync() of something that it depends on has failed: all later flushes of it
 * fail with that error. */
void layer_fail(struct layer *layer, int err);
/* It has room for more sectors from layer_grown() on, which cannot fail and must
 * not meet a layer_mark(). */
int layer_grow(struct layer *layer, uint64_t sectors);
void layer_grown(struct layer *layer);

static inline void set_unsaved(struct layer_table *table, uint32_t page)
{
	__atomic_fetch_or(&table->unsaved[page / MAP_WORD_BITS],
			  1ull << page % MAP_WORD_BITS, __ATOMIC_SEQ_CST);
}

/* --- overlay-page.c ---------------------------------------------------------- */

/* Bytes of the map file of a disk with that many sectors. */
uint64_t map_file_size(uint64_t sectors);
uint64_t map_page_offset(uint32_t page, unsigned int place);
/* Fills in page->end but for the number, which is there. */
void map_page_seal(const struct layer *layer, struct map_page *page,
		   uint64_t sequence);
/*
 * Reads the map file into a layer_new().  whole: no page can have been hit by a
 * crash; else one that is damaged falls back on its older copy, and is written
 * again by the next flush: *ret_repaired counts them.
 */
int layer_load(struct layer *layer, bool whole, unsigned int *ret_repaired,
	       char *ret_why);
/* In a map that no layer uses: the newest generation of this overlay's, 0: none
 * is there. */
int map_newest(int map_fd, uint64_t tag, uint64_t *ret_generation);
/* Is there anything but zeroes in a map? */
int map_has_page(int map_fd, bool *ret);

#endif
