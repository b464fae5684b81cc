/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs-find.h"

#include <string.h>

#include "common/util.h"
#include "fat-entry.h"
#include "fat-table.h"

#define FRONT	    2048u /* bytes in which all that are known show what they are */
#define EXT_MAGIC   0xef53u
#define EXT_AT	    (1024u + 56u)
#define EXT_SIZE_AT (1024u + 24u) /* of blocks: a power of two, from 1024 on */
#define EXT_LARGEST 6u
#define FAT_NAME    82u /* of FAT32: its name in the boot sector */
#define MBR_FIRST   446u
#define MBR_BYTES   16u
#define MBR_COUNT   4u
#define MBR_GPT	    0xeeu
#define GPT_ENTRY   128u /* bytes, the least */
#define GPT_LARGEST 4096u

struct finding {
	struct commit_disk *disk;
	uint64_t size; /* of the disk, bytes */
	uint32_t sector;
	struct fs_place *places;
	unsigned int nr;
	char *why;
};

/* --- File systems ---------------------------------------------------------------- */

/*
 * A FAT16 may have in its FAT what looks like the number of an ext4, which then has to
 * be more likely.  A FAT32 whose boot sector has been damaged is still one.
 */
static const struct fs_ops *recognize_front(const uint8_t front[FRONT])
{
	unsigned int fat = fat_table_recognize(front);

	if (get16(front + EXT_AT) == EXT_MAGIC &&
	    (!fat || get32(front + EXT_SIZE_AT) <= EXT_LARGEST))
		return &fs_ext_ops;
	if (!fat && get16(front + 510) == 0xaa55 &&
	    memcmp(front + FAT_NAME, "FAT32   ", 8) == 0)
		fat = 32;
	return fat ? fs_fat_ops(fat) : NULL;
}

static int recognize(struct finding *f, uint64_t start, uint64_t size,
		     const struct fs_ops **ret)
{
	uint8_t front[FRONT];
	int r;

	*ret = NULL;
	if (size < sizeof(front))
		return 0;
	r = commit_disk_read(f->disk, start, front, sizeof(front), f->why);
	if (r == 0)
		*ret = recognize_front(front);
	return r;
}

/* --- Partitions ------------------------------------------------------------------- */

static uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

/* In sectors; end: the first one behind it. */
static int add_partition(struct finding *f, unsigned int number, uint64_t first,
			 uint64_t end)
{
	struct fs_place *place = &f->places[f->nr];
	int r;

	if (first == 0 || end <= first || end > f->size / f->sector ||
	    f->nr == FS_MAX_PLACES)
		return 0;
	*place = (struct fs_place){ .partition = number,
				    .start = first * f->sector,
				    .size = (end - first) * f->sector };
	r = recognize(f, place->start, place->size, &place->ops);
	if (r == 0)
		f->nr++;
	return r;
}

static int read_gpt(struct finding *f)
{
	uint8_t head[92], entry[GPT_ENTRY], none[16] = { 0 };
	uint64_t table;
	uint32_t count, bytes;
	int r = commit_disk_read(f->disk, f->sector, head, sizeof(head),
				 f->why);

	if (r < 0 || memcmp(head, "EFI PART", 8) != 0)
		return r;
	table = get64(head + 72);
	count = MIN(get32(head + 80), FS_MAX_PLACES);
	bytes = get32(head + 84);
	if (bytes < GPT_ENTRY || bytes > GPT_LARGEST || table < 2 ||
	    table >= f->size / f->sector ||
	    (uint64_t)count * bytes > f->size - table * f->sector)
		return 0;
	for (uint32_t i = 0; i < count && r == 0; i++) {
		r = commit_disk_read(f->disk,
				     table * f->sector + (uint64_t)i * bytes,
				     entry, sizeof(entry), f->why);
		if (r == 0 && memcmp(entry, none, sizeof(none)) != 0 &&
		    get64(entry + 40) != UINT64_MAX)
			r = add_partition(f, i + 1, get64(entry + 32),
					  get64(entry + 40) + 1);
	}
	return r;
}

static int read_table(struct finding *f)
{
	uint8_t mbr[512];
	int r = commit_disk_read(f->disk, 0, mbr, sizeof(mbr), f->why);

	if (r < 0 || get16(mbr + 510) != 0xaa55)
		return r;
	for (unsigned int i = 0; i < MBR_COUNT && r == 0; i++) {
		const uint8_t *entry = mbr + MBR_FIRST + i * MBR_BYTES;
		uint64_t first = get32(entry + 8);

		if (entry[4] == MBR_GPT)
			return read_gpt(f);
		if (entry[4] != 0)
			r = add_partition(f, i + 1, first,
					  first + get32(entry + 12));
	}
	return r;
}

int fs_find(struct commit_disk *disk, struct fs_place ret[FS_MAX_PLACES],
	    char *ret_why)
{
	const struct git_disk *facts = commit_disk_facts(disk);
	struct finding f = { .disk = disk,
			     .size = facts->size,
			     .sector = facts->sector,
			     .places = ret,
			     .why = ret_why };
	const struct fs_ops *ops;
	int r = recognize(&f, 0, f.size, &ops);

	if (r == 0 && ops) {
		ret[0] = (struct fs_place){ .size = f.size, .ops = ops };
		return 1;
	}
	if (r == 0 && f.size >= 4ull * f.sector)
		r = read_table(&f);
	return r < 0 ? r : (int)f.nr;
}
