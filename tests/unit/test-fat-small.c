/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * FAT12 and FAT16, as a guest may have made them: what is on them is found, each kind
 * of damage has its sentence, and the number of clusters says which of them it is.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "../../backends/git/fat-read.h"
#include "common/util.h"

#define SECTOR	512u
#define ENTRIES 32u /* of the root folder: two sectors */
#define LONGEST 5u /* clusters of FILE */

/* Of a sector each.  FAT16's clusters are far apart, in several windows of the FAT. */
static const struct kind {
	unsigned int bits;
	uint32_t clusters, fat; /* number, sectors of a FAT */
	uint32_t file[LONGEST];
	uint32_t folder, deep, in;
} kinds[] = {
	{ 12, 1000, 3, { 5, 6, 9, 1000, 1001 }, 2, 3, 4 },
	{ 16, 4085, 16, { 7, 3071, 3072, 4085, 4086 }, 2, 3073, 4 },
};

struct disk {
	const struct kind *kind;
	uint32_t size;
	uint8_t *bytes;
	struct fat_volume *volume;
	char why[WHY_MAX];
};

static void put(struct disk *d, uint32_t at, uint32_t value, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		d->bytes[at + i] = (uint8_t)(value >> 8 * i);
}

/* In both FATs. */
static void set_next(struct disk *d, uint32_t cluster, uint32_t value)
{
	for (uint32_t i = 0; i < 2; i++) {
		uint32_t fat = (1 + i * d->kind->fat) * SECTOR;
		uint32_t at = fat + cluster * 3 / 2;
		uint32_t pair;

		if (d->kind->bits == 16) {
			put(d, fat + 2 * cluster, value, 2);
			continue;
		}
		pair = get16(d->bytes + at);
		pair = cluster % 2 ? (pair & 0x00f) | value << 4 :
				     (pair & 0xf000) | (value & 0xfff);
		put(d, at, pair, 2);
	}
}

/* As large as an entry can be, less n. */
static uint32_t most(const struct disk *d, uint32_t n)
{
	return (1u << d->kind->bits) - 1 - n;
}

static uint32_t root_of(const struct disk *d)
{
	return (1 + 2 * d->kind->fat) * SECTOR;
}

static uint32_t place_of(const struct disk *d, uint32_t cluster)
{
	return root_of(d) + ENTRIES * FAT_SLOT + (cluster - 2) * SECTOR;
}

static uint32_t put_entry(struct disk *d, uint32_t at, const char *name,
			  uint8_t attributes, uint32_t cluster, uint32_t size)
{
	memcpy(d->bytes + at, name, SHORT_BYTES);
	d->bytes[at + 11] = attributes;
	put(d, at + 20, 0x1234, 2); /* not part of the number there */
	put(d, at + 26, cluster, 2);
	put(d, at + 28, size, 4);
	return at + FAT_SLOT;
}

static void make_boot(struct disk *d, uint32_t sectors)
{
	memcpy(d->bytes, "\xeb\x3c\x90unit    ", 11);
	put(d, 11, SECTOR, 2);
	d->bytes[13] = 1;
	put(d, 14, 1, 2);
	d->bytes[16] = 2;
	put(d, 17, ENTRIES, 2);
	put(d, 19, sectors, 2);
	d->bytes[21] = 0xf8;
	put(d, 22, d->kind->fat, 2);
	put(d, 510, 0xaa55, 2);
	set_next(d, 0, most(d, 7));
	set_next(d, 1, most(d, 0));
}

static void fill(struct disk *d)
{
	const struct kind *kind = d->kind;
	uint32_t at = root_of(d);

	at = put_entry(d, at, "UNIT TEST  ", FAT_ATTR_LABEL, 0, 0);
	at = put_entry(d, at, "FILE    TXT", 0x20, kind->file[0],
		       LONGEST * SECTOR - 7);
	(void)put_entry(d, at, "FOLDER     ", FAT_ATTR_FOLDER, kind->folder, 0);
	for (uint32_t i = 0; i < LONGEST; i++) {
		set_next(d, kind->file[i],
			 i + 1 < LONGEST ? kind->file[i + 1] : most(d, i));
		memset(d->bytes + place_of(d, kind->file[i]), 'a' + (int)i,
		       SECTOR);
	}
	set_next(d, kind->folder, most(d, 0));
	set_next(d, kind->deep, most(d, 7));
	set_next(d, kind->in, most(d, 1));
	at = place_of(d, kind->folder);
	at = put_entry(d, at, ".          ", FAT_ATTR_FOLDER, kind->folder, 0);
	at = put_entry(d, at, "..         ", FAT_ATTR_FOLDER, 0, 0);
	at = put_entry(d, at, "DEEP       ", FAT_ATTR_FOLDER, kind->deep, 0);
	(void)put_entry(d, at, "IN         ", 0x20, kind->in, 512);
	memset(d->bytes + place_of(d, kind->in), 'z', SECTOR);
	at = place_of(d, kind->deep);
	at = put_entry(d, at, ".          ", FAT_ATTR_FOLDER, kind->deep, 0);
	(void)put_entry(d, at, "..         ", FAT_ATTR_FOLDER, kind->folder, 0);
}

static void make_disk(struct disk *d, const struct kind *kind)
{
	uint32_t sectors = 1 + 2 * kind->fat + 2 + kind->clusters;

	*d = (struct disk){ .kind = kind, .size = sectors * SECTOR };
	d->bytes = calloc(1, d->size);
	assert_non_null(d->bytes);
	make_boot(d, sectors);
	fill(d);
}

static void free_disk(struct disk *d)
{
	fat_volume_free(d->volume);
	free(d->bytes);
}

static int read_disk(void *ctx, uint64_t offset, void *buf, size_t n)
{
	struct disk *d = ctx;

	assert_true(offset <= d->size && n <= d->size - offset);
	memcpy(buf, d->bytes + offset, n);
	return 0;
}

static int mount(struct disk *d, bool mounted)
{
	struct fat_source source = { .read = read_disk,
				     .ctx = d,
				     .mounted = mounted };

	fat_volume_free(TAKE_PTR(d->volume));
	d->why[0] = '\0';
	return fat_volume_read(&d->volume, &source, 0, d->size, d->why);
}

/* --- What is sound ----------------------------------------------------------------- */

static void check_files(struct disk *d)
{
	static const char *const names[] = { "", "FILE.TXT", "FOLDER", "DEEP",
					     "IN" };
	const struct vtree *tree = fat_volume_tree(d->volume);
	uint8_t bytes[LONGEST * SECTOR];

	assert_int_equal(tree->nr, ARRAY_SIZE(names));
	for (uint32_t i = 1; i < tree->nr; i++) {
		assert_string_equal(vtree_name(tree, i), names[i]);
		assert_int_equal(tree->nodes[i].parent, i < 3 ? 0 : 2);
	}
	assert_string_equal(fat_volume_label(d->volume), "UNIT TEST");
	assert_int_equal(tree->nodes[1].size, LONGEST * SECTOR - 7);
	assert_int_equal(fat_volume_file(d->volume, 1, bytes, d->why), 0);
	for (uint32_t i = 0; i < LONGEST * SECTOR - 7; i++)
		assert_int_equal(bytes[i], 'a' + i / SECTOR);
	assert_int_equal(fat_volume_file(d->volume, 4, bytes, d->why), 0);
	for (uint32_t i = 0; i < SECTOR; i++)
		assert_int_equal(bytes[i], 'z');
}

static void what_is_there(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct disk d;

		make_disk(&d, &kinds[i]);
		assert_int_equal(fat_table_recognize(d.bytes), kinds[i].bits);
		assert_int_equal(mount(&d, false), 0);
		check_files(&d);
		/* One FAT is as good. */
		d.bytes[16] = 1;
		put(&d, 14, 1 + d.kind->fat, 2);
		assert_int_equal(mount(&d, false), 0);
		check_files(&d);
		free_disk(&d);
	}
}

/* --- Which of them it is ------------------------------------------------------------ */

static const struct {
	uint32_t all, fat, root; /* sectors; entries */
	unsigned int bits;
} counts[] = {
	/* One reserved, the FATs, the root: what is left is clusters. */
	{ 1 + 2 * 16 + 2 + 4084, 16, 32, 12 },
	{ 1 + 2 * 16 + 2 + 4085, 16, 32, 16 },
	{ 1 + 2 * 16 + 2 + 1, 16, 32, 12 },
	{ 1 + 2 * 16 + 2, 16, 32, 0 },
	{ 1 + 2 * 256 + 2 + 65524, 256, 32, 16 },
	{ 1 + 2 * 256 + 2 + 65525, 256, 32, 0 },
	{ 1 + 2 * 16 + 2 + 4085, 16, 0, 0 },
	{ 1 + 2 * 16 + 2 + 4085, 16, 33, 0 },
	{ 1 + 2 * 16 + 4095 + 4084, 16, 65520, 12 },
	{ 1 + 2 * 16 + 2 + 4085, 0, 32, 0 },
};

static void kinds_by_their_clusters(void **state)
{
	struct disk d;

	(void)state;
	make_disk(&d, &kinds[1]);
	memcpy(d.bytes + 54, "FAT32   ", 8); /* is not believed */
	for (unsigned int i = 0; i < ARRAY_SIZE(counts); i++) {
		put(&d, 19, 0, 2);
		put(&d, 32, counts[i].all, 4);
		put(&d, 22, counts[i].fat, 2);
		put(&d, 17, counts[i].root, 2);
		if (fat_table_recognize(d.bytes) != counts[i].bits)
			fail_msg("line %u: %u bits", i,
				 fat_table_recognize(d.bytes));
	}
	free_disk(&d);
}

static void a_text_alone(void **state)
{
	uint8_t sector[FAT_SECTOR_BYTES] = { 0xeb };

	(void)state;
	memcpy(sector + 54, "FAT16   ", 8);
	sector[510] = 0x55;
	sector[511] = 0xaa;
	assert_int_equal(fat_table_recognize(sector), 0);
}

/* --- Damage ----------------------------------------------------------------------------- */

static void no_damage(struct disk *d)
{
	(void)d;
}

static void dirty_as_windows(struct disk *d)
{
	set_next(d, 1, most(d, 0) / 2);
}

static void dirty_as_linux(struct disk *d)
{
	d->bytes[37] = 1;
}

/* Where FAT32 has it: that is code here. */
static void dirty_as_fat32(struct disk *d)
{
	d->bytes[65] = 1;
}

static void had_errors(struct disk *d)
{
	set_next(d, 1, most(d, 0) - (most(d, 0) + 1) / 4);
}

static void no_medium(struct disk *d)
{
	set_next(d, 0, 0xf8);
}

static void other_copy(struct disk *d)
{
	d->bytes[(1 + d->kind->fat) * SECTOR + 30] ^= 1;
}

/* What was in the other sectors is reserved. */
static void short_fat(struct disk *d)
{
	put(d, 14, 1 + 2 * (d->kind->fat - 1), 2);
	put(d, 22, 1, 2);
}

static void larger_than_disk(struct disk *d)
{
	put(d, 19, d->size / SECTOR + 1, 2);
}

static void root_larger_than_disk(struct disk *d)
{
	put(d, 17, 0xfff0, 2);
}

static void root_of_nothing(struct disk *d)
{
	put(d, 17, 0, 2);
}

static void half_a_sector(struct disk *d)
{
	put(d, 17, ENTRIES + 1, 2);
}

static void circle(struct disk *d)
{
	set_next(d, d->kind->file[4], d->kind->file[1]);
}

static void too_short(struct disk *d)
{
	set_next(d, d->kind->file[1], most(d, 7));
}

static void too_long(struct disk *d)
{
	set_next(d, d->kind->file[4], d->kind->file[4] - 20);
}

static void to_free(struct disk *d)
{
	set_next(d, d->kind->file[2], 0);
}

static void to_bad(struct disk *d)
{
	set_next(d, d->kind->file[2], most(d, 8));
}

static void to_one(struct disk *d)
{
	set_next(d, d->kind->file[2], 1);
}

static void to_nowhere(struct disk *d)
{
	set_next(d, d->kind->file[2], d->kind->clusters + 2);
}

static void reserved(struct disk *d)
{
	set_next(d, d->kind->file[2], most(d, 9));
}

static void cross_link(struct disk *d)
{
	set_next(d, d->kind->file[3], d->kind->in);
}

static void wrong_dots(struct disk *d)
{
	put(d, place_of(d, d->kind->deep) + 32 + 26, 0, 2);
}

static void wrong_dots_to_root(struct disk *d)
{
	put(d, place_of(d, d->kind->folder) + 32 + 26, 2, 2);
}

static void folder_is_root(struct disk *d)
{
	put(d, root_of(d) + 64 + 26, 0, 2);
}

/* What is behind its end is no entry, nor looked at. */
static void full_root(struct disk *d)
{
	for (uint32_t at = 96; at < ENTRIES * FAT_SLOT; at += FAT_SLOT)
		d->bytes[root_of(d) + at] = 0xe5;
}

static const struct {
	void (*damage)(struct disk *d);
	int err12, err16;
	const char *why; /* a part of the sentence, where there is one */
} damages[] = {
	{ no_damage, 0, 0, "" },
	{ full_root, 0, 0, "" },
	{ dirty_as_fat32, 0, 0, "" },
	{ dirty_as_linux, -EBUSY, -EBUSY, "not unmounted" },
	{ dirty_as_windows, 0, -EBUSY, "not unmounted" },
	{ had_errors, 0, -EBADMSG, "I/O errors" },
	{ no_medium, -EBADMSG, -EBADMSG, "does not begin as one does" },
	{ other_copy, -EBADMSG, -EBADMSG, "the two FATs differ" },
	{ short_fat, -EBADMSG, -EBADMSG, "has room for" },
	{ larger_than_disk, -EBADMSG, -EBADMSG, "more than the disk" },
	{ root_larger_than_disk, -EBADMSG, -EBADMSG, "no room for a cluster" },
	{ root_of_nothing, -EBADMSG, -EBADMSG, "a root folder of an" },
	{ half_a_sector, -EBADMSG, -EBADMSG, "a root folder of an" },
	{ circle, -EBADMSG, -EBADMSG, "/FILE.TXT: more clusters than" },
	{ too_short, -EBADMSG, -EBADMSG, "/FILE.TXT: 2 clusters are less" },
	{ too_long, -EBADMSG, -EBADMSG, "/FILE.TXT: more clusters than" },
	{ to_free, -EBADMSG, -EBADMSG, "/FILE.TXT: a cluster of it is free" },
	{ to_bad, -EBADMSG, -EBADMSG, "/FILE.TXT: a cluster of it is marked" },
	{ to_one, -EBADMSG, -EBADMSG, "/FILE.TXT: cluster 1 is not there" },
	{ to_nowhere, -EBADMSG, -EBADMSG, "is not there" },
	{ reserved, -EBADMSG, -EBADMSG, "is not there" },
	{ cross_link, -EBADMSG, -EBADMSG, "/FOLDER/IN: cluster 4 is in two" },
	{ wrong_dots, -EBADMSG, -EBADMSG, "/FOLDER/DEEP: it does not begin" },
	{ wrong_dots_to_root, -EBADMSG, -EBADMSG, "/FOLDER: it does not" },
	{ folder_is_root, -EBADMSG, -EBADMSG, "/FOLDER: a cluster of it is" },
};

static void each_damage_has_its_sentence(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(damages) * 2; i++) {
		bool is_fat16 = i % 2;
		int err = is_fat16 ? damages[i / 2].err16 :
				     damages[i / 2].err12;
		const char *text = err ? damages[i / 2].why : "";
		struct disk d;
		int r;

		make_disk(&d, &kinds[is_fat16]);
		damages[i / 2].damage(&d);
		r = mount(&d, false);
		if (r != err || !strstr(d.why, text))
			fail_msg("damage %u, FAT%s: %d, \"%s\"", i / 2,
				 is_fat16 ? "16" : "12", r, d.why);
		if (err == -EBUSY)
			assert_int_equal(mount(&d, true), 0);
		free_disk(&d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_there),
		cmocka_unit_test(kinds_by_their_clusters),
		cmocka_unit_test(a_text_alone),
		cmocka_unit_test(each_damage_has_its_sentence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
