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

/* How many clusters there are makes it FAT12 or FAT16, and nothing else. */
#define FAT12_BELOW 4085u
#define FAT16_BELOW 65525u
#define FAT32_BELOW 0x0ffffff6u

/* What an entry says, of as many bits as it has: the largest value is M. */
#define END_OF_CHAIN(m) ((m)-7) /* and all above */
#define BAD_CLUSTER(m)	((m)-8)
/* In the second entry of the FAT, but FAT12: set when all is well. */
#define CLEAN(m)     (((m) + 1) / 2)
#define NO_ERRORS(m) (((m) + 1) / 4)
/* In the boot sector: set when it is not.  Linux has it from 3.10 on. */
#define DIRTY 0x01u

/* Bytes of the FAT: so many that no entry of 12, 16 or 32 bits is in two windows. */
#define WINDOW	6144u
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
			   at * 8 / t->bits);
	window->number = number + 1;
	return 0;
}

static uint32_t largest_entry(const struct fat_table *t)
{
	return t->bits == 12 ? 0xfff : t->bits == 16 ? 0xffff : 0x0fffffff;
}

/* A cluster that is there, or 0 or 1. */
static int read_fat(const struct fat_table *t, uint32_t cluster, uint32_t *ret)
{
	uint64_t at = (uint64_t)cluster * t->bits / 8, number = at / WINDOW;
	struct fat_window *window = &t->windows[number % WINDOWS];
	const uint8_t *p = window->bytes + at % WINDOW;
	int r = window->number == number + 1 ? 0 :
					       load_window(t, number, window);

	if (r < 0)
		return r;
	*ret = t->bits == 32 ? get32(p) : get16(p);
	if (t->bits == 12 && cluster % 2 == 1)
		*ret >>= 4;
	*ret &= largest_entry(t);
	return 0;
}

/* --- The boot sector ------------------------------------------------------------------ */

struct boot {
	bool is_fat32;
	uint32_t cluster; /* sectors */
	uint32_t reserved, fats, fat; /* sectors, number, sectors */
	uint32_t all; /* sectors */
	uint32_t entries; /* of the root folder behind the FATs */
	uint32_t flags, root, version; /* FAT32 */
	uint8_t state;
};

/*
 * FAT32 is what has no 16-bit number of sectors of a FAT: so it is for Linux and
 * Windows, also if it has fewer clusters than Microsoft's document says.
 */
static struct boot parse_boot(const uint8_t *p)
{
	uint32_t fat = get16(p + 22), all = get16(p + 19);
	struct boot boot = { .is_fat32 = fat == 0,
			     .cluster = p[13],
			     .reserved = get16(p + 14),
			     .fats = p[16],
			     .fat = fat,
			     .all = all ? all : get32(p + 32),
			     .entries = get16(p + 17),
			     .state = p[37] };

	if (!boot.is_fat32)
		return boot;
	boot.fat = get32(p + 36);
	boot.flags = get16(p + 40);
	boot.version = get16(p + 42);
	boot.root = get32(p + 44);
	boot.state = p[65];
	return boot;
}

/* Sectors in front of cluster 2. */
static uint64_t data_of(const struct boot *boot)
{
	return boot->reserved + (uint64_t)boot->fats * boot->fat +
	       boot->entries * FAT_SLOT / FAT_SECTOR_BYTES;
}

/* There is room for one. */
static uint64_t clusters_of(const struct boot *boot)
{
	return (boot->all - data_of(boot)) / boot->cluster;
}

static const char *find_fault_of_kind(const uint8_t *p, const struct boot *boot)
{
	if (boot->is_fat32 &&
	    (boot->entries != 0 || get16(p + 19) != 0 || boot->version != 0))
		return "FAT32 with fields of FAT16, or a version that is not "
		       "0.0";
	if (!boot->is_fat32 &&
	    (boot->entries == 0 ||
	     boot->entries * FAT_SLOT % FAT_SECTOR_BYTES != 0))
		return "a root folder of an impossible size";
	if ((boot->flags & 0x80) && (boot->flags & 0x0f) >= boot->fats)
		return "a FAT in use that is not there";
	if (data_of(boot) + boot->cluster > boot->all)
		return "no room for a cluster";
	if (clusters_of(boot) >= (boot->is_fat32 ? FAT32_BELOW : FAT16_BELOW))
		return "more clusters than its FAT can count";
	return NULL;
}

static const char *find_fault(const uint8_t *p, const struct boot *boot)
{
	if (get16(p + 510) != 0xaa55)
		return "no boot sector";
	if (get16(p + 11) != FAT_SECTOR_BYTES)
		return "sectors that are not of 512 bytes";
	if (!is_power_of_2(boot->cluster))
		return "clusters of an impossible size";
	if (boot->reserved == 0 || boot->fats == 0 || boot->fats > 2 ||
	    boot->fat == 0)
		return "a number of FATs or reserved sectors that cannot be";
	return find_fault_of_kind(p, boot);
}

static unsigned int bits_of(const struct boot *boot)
{
	if (boot->is_fat32)
		return 32;
	return clusters_of(boot) < FAT12_BELOW ? 12 : 16;
}

unsigned int fat_table_recognize(const uint8_t sector[FAT_SECTOR_BYTES])
{
	struct boot boot = parse_boot(sector);
	uint8_t medium = sector[21];

	if ((sector[0] != 0xe9 && sector[0] != 0xeb) ||
	    (medium != 0xf0 && medium < 0xf8) || find_fault(sector, &boot))
		return 0;
	return bits_of(&boot);
}

static int set_geometry(struct fat_table *t, const struct boot *boot)
{
	uint64_t clusters = clusters_of(boot);
	uint64_t fats = (uint64_t)boot->reserved * FAT_SECTOR_BYTES;
	bool one = boot->fats == 1 || (boot->flags & 0x80);

	t->bits = bits_of(boot);
	t->fat_bytes = (uint64_t)boot->fat * FAT_SECTOR_BYTES;
	t->fat = fats;
	if (boot->flags & 0x80)
		t->fat += (boot->flags & 0x0f) * t->fat_bytes;
	t->copy = one ? 0 : fats + t->fat_bytes;
	t->data = data_of(boot) * FAT_SECTOR_BYTES;
	t->root_bytes = boot->entries * FAT_SLOT;
	t->root_at = t->data - t->root_bytes;
	t->cluster = boot->cluster * FAT_SECTOR_BYTES;
	t->root = boot->root;
	if ((uint64_t)boot->all * FAT_SECTOR_BYTES > t->size)
		return why(t->why, -EBADMSG,
			   "the file system has %u sectors, which is more than "
			   "the disk",
			   boot->all);
	if (DIV_ROUND_UP((clusters + FAT_FIRST_CLUSTER) * t->bits, 8) >
	    t->fat_bytes)
		return why(t->why, -EBADMSG,
			   "%" PRIu64
			   " clusters are more than a FAT of %" PRIu64
			   " bytes has room for",
			   clusters, t->fat_bytes);
	/* It would be a folder of no clusters; all others are looked at. */
	if (t->bits == 32 && t->root == FAT_NONE)
		return why(t->why, -EBADMSG,
			   "the root folder: cluster %u is not there", t->root);
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
	boot = parse_boot(p);
	fault = find_fault(p, &boot);
	if (fault)
		return why(t->why, -EBADMSG, "there is no FAT: %s", fault);
	*ret_dirty = (boot.state & DIRTY) != 0;
	return set_geometry(t, &boot);
}

static int check_clean(const struct fat_table *t, bool dirty)
{
	uint32_t medium, state, m = largest_entry(t);
	int r = read_fat(t, 0, &medium);

	if (r == 0)
		r = read_fat(t, 1, &state);
	if (r < 0)
		return r;
	if (t->bits == 12)
		state = m;
	if ((medium | 0xff) != m)
		return why(t->why, -EBADMSG,
			   "the FAT does not begin as one does");
	if (!t->source.mounted && (dirty || !(state & CLEAN(m))))
		return why(t->why, -EBUSY,
			   "the file system is mounted for writing, or was not "
			   "unmounted");
	if (!(state & NO_ERRORS(m)))
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
	*ret = entry >= END_OF_CHAIN(largest_entry(t)) ? FAT_NONE : entry;
	return 0;
}

bool fat_table_is_bad(const struct fat_table *t, uint32_t entry)
{
	return entry == BAD_CLUSTER(largest_entry(t));
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
