/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The boot sector says where things are; each number of it is checked before it is
 * used, so that what is computed of them is inside of the file system.
 *
 * The FAT is read through a small cache, both copies of it, which must be the
 * same.  What is not checked, since it does not say what is in a file: FSInfo, the
 * copy of the boot sector, and clusters that are taken but belong to nobody.
 */
#include "config.h"

#include "fat-table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "fat-entry.h"
#include "why.h"

#define MOST_CLUSTERS 0x0ffffff5u
#define END_OF_CHAIN  0x0ffffff8u /* and all above */
#define BAD_CLUSTER   0x0ffffff7u
#define ENTRY_MASK    0x0fffffffu

/* In the second entry of the FAT: set when all is well. */
#define CLEAN	  0x08000000u
#define NO_ERRORS 0x04000000u
/* In the boot sector: set when it is not.  Linux has it from 3.10 on. */
#define DIRTY 0x01u

#define WINDOW	4096u /* bytes of the FAT */
#define WINDOWS 64u

struct fat_window {
	uint64_t number; /* plus 1; 0: there is nothing in it */
	uint8_t bytes[WINDOW];
};

/* --- Reading ------------------------------------------------------------------------ */

int fat_table_read(const struct fat_table *t, uint64_t offset, void *buf,
		   size_t n)
{
	int r = t->source.read(t->source.ctx, t->start + offset, buf, n);

	return r < 0 ? why(t->why, r,
			   "reading %zu bytes of the disk at %" PRIu64 ": %s",
			   n, t->start + offset, strerror(-r)) :
		       0;
}

static int load_window(const struct fat_table *t, uint64_t number,
		       struct fat_window *window)
{
	uint64_t at = number * WINDOW;
	size_t n = (size_t)MIN(t->fat_bytes - at, WINDOW);
	uint8_t copy[WINDOW];
	int r;

	window->number = 0;
	r = fat_table_read(t, t->fat + at, window->bytes, n);
	if (r == 0 && t->copy)
		r = fat_table_read(t, t->copy + at, copy, n);
	if (r < 0)
		return r;
	if (t->copy && memcmp(window->bytes, copy, n) != 0)
		return why(t->why, -EBADMSG,
			   "the two FATs differ, for clusters from %" PRIu64
			   " on",
			   at / 4);
	window->number = number + 1;
	return 0;
}

/* A cluster that is there, or 0 or 1. */
static int read_fat(const struct fat_table *t, uint32_t cluster, uint32_t *ret)
{
	uint64_t at = 4ull * cluster, number = at / WINDOW;
	struct fat_window *window = &t->windows[number % WINDOWS];
	int r = window->number == number + 1 ? 0 :
					       load_window(t, number, window);

	if (r == 0)
		*ret = get32(window->bytes + at % WINDOW);
	return r;
}

/* --- The boot sector ------------------------------------------------------------------ */

struct boot {
	uint32_t cluster; /* sectors */
	uint32_t reserved, fats, fat; /* sectors, number, sectors */
	uint32_t all; /* sectors */
	uint32_t flags;
	uint32_t root;
};

static const char *find_fault(const uint8_t *p, const struct boot *boot)
{
	uint64_t data = boot->reserved + (uint64_t)boot->fats * boot->fat;

	if (get16(p + 510) != 0xaa55)
		return "no boot sector";
	if (get16(p + 11) != FAT_SECTOR_BYTES)
		return "sectors that are not of 512 bytes";
	if (boot->cluster == 0 || (boot->cluster & (boot->cluster - 1)) != 0)
		return "clusters of an impossible size";
	if (get16(p + 17) != 0 || get16(p + 19) != 0 || get16(p + 22) != 0 ||
	    get16(p + 42) != 0)
		return "FAT12, FAT16, or a version of FAT32 that is not 0.0";
	if (boot->reserved == 0 || boot->fats == 0 || boot->fats > 2 ||
	    boot->fat == 0)
		return "a number of FATs or reserved sectors that cannot be";
	if ((boot->flags & 0x80) && (boot->flags & 0x0f) >= boot->fats)
		return "a FAT in use that is not there";
	if (data + boot->cluster > boot->all)
		return "no room for a cluster";
	return NULL;
}

static int set_geometry(struct fat_table *t, const struct boot *boot)
{
	uint64_t data = boot->reserved + (uint64_t)boot->fats * boot->fat;
	uint64_t clusters = (boot->all - data) / boot->cluster;
	uint64_t fats = (uint64_t)boot->reserved * FAT_SECTOR_BYTES;
	bool one = boot->fats == 1 || (boot->flags & 0x80);

	t->fat_bytes = (uint64_t)boot->fat * FAT_SECTOR_BYTES;
	t->fat = fats;
	if (boot->flags & 0x80)
		t->fat += (boot->flags & 0x0f) * t->fat_bytes;
	t->copy = one ? 0 : fats + t->fat_bytes;
	t->data = data * FAT_SECTOR_BYTES;
	t->cluster = boot->cluster * FAT_SECTOR_BYTES;
	t->root = boot->root;
	if ((uint64_t)boot->all * FAT_SECTOR_BYTES > t->size)
		return why(t->why, -EBADMSG,
			   "the file system has %u sectors, which is more than "
			   "the disk",
			   boot->all);
	if (clusters > MOST_CLUSTERS ||
	    (clusters + FAT_FIRST_CLUSTER) * 4 > t->fat_bytes)
		return why(t->why, -EBADMSG,
			   "%" PRIu64
			   " clusters are more than a FAT of %" PRIu64
			   " bytes has room for",
			   clusters, t->fat_bytes);
	t->nr_clusters = (uint32_t)clusters;
	return 0;
}

static int read_boot(struct fat_table *t, bool *ret_dirty)
{
	uint8_t p[FAT_SECTOR_BYTES];
	struct boot boot;
	const char *fault;
	int r;

	if (t->size < FAT_SECTOR_BYTES)
		return why(t->why, -EBADMSG, "the disk ends before it begins");
	r = fat_table_read(t, 0, p, sizeof(p));
	if (r < 0)
		return r;
	boot = (struct boot){ .cluster = p[13],
			      .reserved = get16(p + 14),
			      .fats = p[16],
			      .fat = get32(p + 36),
			      .all = get32(p + 32),
			      .flags = get16(p + 40),
			      .root = get32(p + 44) };
	fault = find_fault(p, &boot);
	if (fault)
		return why(t->why, -EBADMSG, "there is no FAT32: %s", fault);
	*ret_dirty = (p[65] & DIRTY) != 0;
	return set_geometry(t, &boot);
}

static int check_clean(const struct fat_table *t, bool dirty)
{
	uint32_t medium, state;
	int r = read_fat(t, 0, &medium);

	if (r == 0)
		r = read_fat(t, 1, &state);
	if (r < 0)
		return r;
	if ((medium & 0x0fffff00) != 0x0fffff00)
		return why(t->why, -EBADMSG,
			   "the FAT does not begin as one does");
	if (!t->source.mounted && (dirty || !(state & CLEAN)))
		return why(t->why, -EBUSY,
			   "the file system is mounted for writing, or was not "
			   "unmounted");
	if (!(state & NO_ERRORS))
		return why(t->why, -EBADMSG,
			   "a guest has marked the disk: it had I/O errors");
	return 0;
}

/* --- All of it ------------------------------------------------------------------------ */

int fat_table_next(const struct fat_table *t, uint32_t cluster, uint32_t *ret)
{
	uint32_t entry;
	int r = read_fat(t, cluster, &entry);

	if (r < 0)
		return r;
	entry &= ENTRY_MASK;
	*ret = entry >= END_OF_CHAIN ? FAT_NONE : entry;
	return 0;
}

bool fat_table_is_bad(const struct fat_table *t, uint32_t entry)
{
	(void)t;
	return entry == BAD_CLUSTER;
}

int fat_table_open(struct fat_table *t)
{
	bool dirty;
	int r = read_boot(t, &dirty);

	if (r < 0)
		return r;
	t->windows = calloc(WINDOWS, sizeof(*t->windows));
	if (!t->windows)
		return why(t->why, -ENOMEM, "there is not enough memory");
	return check_clean(t, dirty);
}

void fat_table_close(struct fat_table *t)
{
	free(TAKE_PTR(t->windows));
}
