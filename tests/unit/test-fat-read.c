/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reader of a FAT that a guest has written: it finds what our own layout put
 * there, and each kind of damage gets its sentence.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "../../backends/git/fat-read.h"
#include "../../backends/git/fat.h"
#include "common/util.h"

/* --- A disk in memory ---------------------------------------------------------- */

static const struct file {
	const char *name; /* with a '/' behind it: a folder */
	uint32_t size;
	uint32_t parent; /* number of the folder, from 1; 0: the root */
} files[] = {
	{ "one.txt", 1000, 0 },
	{ "two.bin", 5000, 0 },
	{ "empty", 0, 0 },
	{ "A long name, gr\xc3\xbc\xc3\x9f.text", 700, 0 },
	{ "dir/", 0, 0 },
	{ "with:colon?", 1, 0 },
	{ "bad\xff.", 513, 0 },
	{ "x", 512, 5 },
	{ "Sub Folder/", 0, 5 },
	{ "\xf0\x9f\x98\x80", 1025, 9 },
	{ "MiXed.Case", 1536, 9 },
};

/* Numbers in files[], and so of nodes: breadth first. */
enum { ONE = 1, TWO, EMPTY, LONG, DIR, COLON, BAD, X, SUB, SMILE, MIXED };

struct disk {
	struct vtree tree;
	struct fat *fat;
	uint8_t *bytes;
	int fails_at; /* which read is an error; -1: none */
	struct fat_volume *volume;
	char why[WHY_MAX];
};

static uint8_t content(uint32_t node, uint64_t at)
{
	return (uint8_t)(node * 31 + at * 7 + (at >> 8));
}

static void fill_piece(struct disk *d, uint64_t offset,
		       const struct piece *piece)
{
	const struct vnode *node = &d->tree.nodes[piece->node];
	cleanup_free uint8_t *folder = malloc(node->size + 1);

	if (node->kind == VNODE_DIR) {
		fat_ops.folder(&d->fat->layout, piece->node, folder);
		memcpy(d->bytes + offset, folder + piece->at, piece->length);
		return;
	}
	for (uint64_t i = 0; i < piece->length; i++)
		d->bytes[offset + i] = content(piece->node, piece->at + i);
}

static void fill(struct disk *d)
{
	struct piece piece;

	d->bytes = calloc(1, d->fat->layout.size);
	for (uint64_t at = 0; at < d->fat->layout.size; at += piece.length) {
		piece = fat_ops.find(&d->fat->layout, at,
				     d->fat->layout.size - at);
		if (piece.kind == PIECE_FILE || piece.kind == PIECE_FOLDER)
			fill_piece(d, at, &piece);
		for (uint64_t i = 0;
		     piece.kind == PIECE_META && i < piece.length;
		     i += FAT_SECTOR)
			fat_ops.meta(&d->fat->layout, (at + i) / FAT_SECTOR,
				     d->bytes + at + i);
	}
}

static void make_disk(struct disk *d, uint8_t partition)
{
	struct layout_options options = { .label = "UNIT TEST",
					  .partition = partition ?
							       LAYOUT_MBR :
							       LAYOUT_BARE };
	struct layout *layout;
	uint32_t node;

	*d = (struct disk){ .fails_at = -1 };
	assert_int_equal(vtree_add(&d->tree, 0, VNODE_DIR, "", &node, d->why),
			 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(files); i++) {
		size_t n = strlen(files[i].name);
		bool is_dir = files[i].name[n - 1] == '/';
		cleanup_free char *name = strdup(files[i].name);
		struct vnode *parent;

		name[n - is_dir] = '\0';
		assert_int_equal(vtree_add(&d->tree, files[i].parent,
					   is_dir ? VNODE_DIR : VNODE_BLOB,
					   name, &node, d->why),
				 0);
		d->tree.nodes[node].size = files[i].size;
		parent = &d->tree.nodes[files[i].parent];
		if (parent->nr++ == 0)
			parent->first = node;
	}
	assert_int_equal(fat_ops.make(&layout, &d->tree, &options, d->why), 0);
	d->fat = (struct fat *)(void *)layout;
	fill(d);
}

static void free_disk(struct disk *d)
{
	fat_volume_free(d->volume);
	layout_free(&d->fat->layout);
	vtree_free(&d->tree);
	free(d->bytes);
}

static int read_disk(void *ctx, uint64_t offset, void *buf, size_t n)
{
	struct disk *d = ctx;

	assert_true(offset <= d->fat->layout.size &&
		    n <= d->fat->layout.size - offset);
	if (d->fails_at >= 0 && d->fails_at-- == 0)
		return -EIO;
	memcpy(buf, d->bytes + offset, n);
	return 0;
}

static int mount(struct disk *d)
{
	struct fat_source source = { .read = read_disk, .ctx = d };

	fat_volume_free(TAKE_PTR(d->volume));
	d->why[0] = '\0';
	return fat_volume_read(&d->volume, &source, d->fat->hidden * 512ull,
			       d->fat->layout.size, d->why);
}

/* --- What is sound ----------------------------------------------------------------- */

static void check_node(struct disk *d, uint32_t i)
{
	const struct vnode *wanted = &d->tree.nodes[i];
	const struct vnode *node = &fat_volume_tree(d->volume)->nodes[i];
	cleanup_free uint8_t *bytes = malloc(wanted->size + 1);
	struct fat_run run;

	assert_string_equal(vtree_name(fat_volume_tree(d->volume), i),
			    vtree_name(&d->tree, i));
	assert_int_equal(node->kind, wanted->kind);
	assert_int_equal(node->parent, wanted->parent);
	if (wanted->kind == VNODE_DIR)
		return;
	assert_int_equal(node->size, wanted->size);
	assert_int_equal(fat_volume_file(d->volume, i, bytes, d->why), 0);
	for (uint64_t at = 0; at < wanted->size; at++)
		assert_int_equal(bytes[at], content(i, at));
	assert_int_equal(fat_volume_first_run(d->volume, i, &run),
			 wanted->size > 0);
	if (wanted->size > 0) {
		struct piece piece =
			fat_ops.find(&d->fat->layout, run.offset, run.length);

		assert_int_equal(run.length, wanted->size);
		assert_true(piece.node == i && piece.at == 0 &&
			    piece.length == run.length);
	}
}

static void our_own_disk(void **state)
{
	(void)state;
	for (unsigned int partition = 0; partition < 13; partition += 12) {
		struct disk d;

		make_disk(&d, (uint8_t)partition);
		assert_int_equal(mount(&d), 0);
		assert_int_equal(fat_volume_tree(d.volume)->nr, d.tree.nr);
		assert_string_equal(fat_volume_label(d.volume), "UNIT TEST");
		for (uint32_t i = 1; i < d.tree.nr; i++)
			check_node(&d, i);
		free_disk(&d);
	}
}

/* --- What a guest may do to it ---------------------------------------------------------- */

static uint32_t next_of(struct disk *d, uint32_t cluster)
{
	return get32(d->bytes + d->fat->reserved * 512 + 4 * cluster);
}

/* In both FATs. */
static void set_next(struct disk *d, uint32_t cluster, uint32_t value)
{
	for (unsigned int i = 0; i < 2; i++) {
		uint8_t *p =
			d->bytes +
			(d->fat->reserved + i * d->fat->fat_sectors) * 512 +
			4 * cluster;

		p[0] = (uint8_t)value;
		p[1] = (uint8_t)(value >> 8);
		p[2] = (uint8_t)(value >> 16);
		p[3] = (uint8_t)(value >> 24);
	}
}

static uint32_t cluster_of(struct disk *d, uint32_t node)
{
	return d->tree.nodes[node].block;
}

static uint8_t *bytes_of(struct disk *d, uint32_t node)
{
	return d->bytes + d->fat->data +
	       (uint64_t)(cluster_of(d, node) - 2) * d->fat->cluster;
}

/* The short entry of a file. */
static uint8_t *entry_of(struct disk *d, uint32_t node)
{
	const struct vnode *dir = &d->tree.nodes[d->tree.nodes[node].parent];
	uint8_t *p = bytes_of(d, d->tree.nodes[node].parent);
	uint32_t i = dir->first;

	p += d->tree.nodes[node].parent == 0 ? 32 : 64;
	for (;; p += 32) {
		if (p[11] == FAT_ATTR_LONG)
			continue;
		if (i++ == node)
			return p;
	}
}

static void no_damage(struct disk *d)
{
	(void)d;
}

static void no_signature(struct disk *d)
{
	d->bytes[510] = 0;
}

static void other_sectors(struct disk *d)
{
	d->bytes[12] = 4;
}

static void odd_clusters(struct disk *d)
{
	d->bytes[13] = 3;
}

static void fat16(struct disk *d)
{
	d->bytes[22] = 1;
}

static void with_a_root(struct disk *d)
{
	d->bytes[18] = 2;
}

/* The reader's own sign for the end of a chain. */
static void no_root(struct disk *d)
{
	memset(d->bytes + 44, 0xff, 4);
}

static void three_fats(struct disk *d)
{
	d->bytes[16] = 3;
}

static void larger_than_disk(struct disk *d)
{
	d->bytes[34]++;
}

static void short_fat(struct disk *d)
{
	d->bytes[36]--;
}

static void nothing_but_fats(struct disk *d)
{
	memset(d->bytes + 32, 0, 4);
	d->bytes[32] = 40;
}

static void no_medium(struct disk *d)
{
	set_next(d, 0, 0);
}

static void dirty_as_windows(struct disk *d)
{
	set_next(d, 1, 0x07ffffff);
}

static void dirty_as_linux(struct disk *d)
{
	d->bytes[65] |= 1;
}

static void had_errors(struct disk *d)
{
	set_next(d, 1, 0x0bffffff);
}

static void other_copy(struct disk *d)
{
	d->bytes[(d->fat->reserved + d->fat->fat_sectors) * 512 + 4 * 9] ^= 1;
}

static void cross_link(struct disk *d)
{
	set_next(d, cluster_of(d, ONE), cluster_of(d, TWO) + 9);
}

static void same_start(struct disk *d)
{
	memcpy(entry_of(d, TWO) + 26, entry_of(d, ONE) + 26, 2);
}

static void circle(struct disk *d)
{
	set_next(d, cluster_of(d, TWO) + 4, cluster_of(d, TWO) + 1);
}

static void folder_circle(struct disk *d)
{
	set_next(d, cluster_of(d, DIR), cluster_of(d, DIR));
}

static void folder_in_itself(struct disk *d)
{
	memcpy(entry_of(d, SUB) + 26, entry_of(d, DIR) + 26, 2);
}

static void too_short(struct disk *d)
{
	set_next(d, cluster_of(d, TWO) + 8, 0x0fffffff);
}

static void too_long(struct disk *d)
{
	uint8_t *size = entry_of(d, TWO) + 28;

	size[0] = 0;
	size[1] = 0x12; /* 4608: one cluster less */
}

static void to_free(struct disk *d)
{
	set_next(d, cluster_of(d, TWO), 0);
}

static void to_bad(struct disk *d)
{
	set_next(d, cluster_of(d, TWO), 0x0ffffff7);
}

static void to_nowhere(struct disk *d)
{
	set_next(d, cluster_of(d, TWO), d->fat->nr_clusters + 2);
}

static void start_at_one(struct disk *d)
{
	memcpy(entry_of(d, ONE) + 26, "\x01", 2);
}

static void empty_with_cluster(struct disk *d)
{
	memset(entry_of(d, ONE) + 28, 0, 4);
}

static void none_with_size(struct disk *d)
{
	entry_of(d, EMPTY)[28] = 1;
}

static void folder_with_size(struct disk *d)
{
	entry_of(d, DIR)[28] = 1;
}

static void folder_of_nothing(struct disk *d)
{
	memset(entry_of(d, DIR) + 26, 0, 2);
}

static void wrong_dot(struct disk *d)
{
	bytes_of(d, SUB)[26]++;
}

static void wrong_dots(struct disk *d)
{
	bytes_of(d, SUB)[32 + 26]++;
}

static void no_dots(struct disk *d)
{
	memset(bytes_of(d, SUB), 0, 512);
}

static void more_dots(struct disk *d)
{
	memcpy(entry_of(d, X), bytes_of(d, SUB), 11);
}

static void same_names(struct disk *d)
{
	memcpy(entry_of(d, TWO), "ONE     TXT", 11);
	entry_of(d, TWO)[12] = 0; /* upper case */
}

static void same_short_names(struct disk *d)
{
	memcpy(entry_of(d, LONG), entry_of(d, ONE), 11);
	for (uint8_t *p = entry_of(d, LONG) - 32; p[11] == FAT_ATTR_LONG;
	     p -= 32)
		p[13] = fat_short_sum(entry_of(d, LONG));
}

static void no_name(struct disk *d)
{
	memset(entry_of(d, ONE), ' ', 11);
}

static void odd_name(struct disk *d)
{
	entry_of(d, ONE)[2] = '/';
}

static void odd_attributes(struct disk *d)
{
	entry_of(d, ONE)[11] = 0xc0;
}

static void half_a_character(struct disk *d)
{
	uint8_t *part = entry_of(d, SMILE) - 32;

	part[3] = 'x';
	part[4] = 0;
}

static void slash_in_name(struct disk *d)
{
	uint8_t *part = entry_of(d, COLON) - 32;

	part[1] = 0x2f;
	part[2] = 0xf0;
}

static void nul_in_name(struct disk *d)
{
	uint8_t *part = entry_of(d, COLON) - 32;

	part[1] = 0x00;
	part[2] = 0xf0;
}

static void dots_as_long_name(struct disk *d)
{
	uint8_t *part = entry_of(d, COLON) - 32;

	memcpy(part + 1, "\x2e\xf0\x2e\xf0\0", 6);
}

static const struct {
	void (*damage)(struct disk *d);
	int err;
	const char *why; /* a part of the sentence */
} damages[] = {
	{ no_damage, 0, "" },
	{ no_signature, -EBADMSG, "no boot sector" },
	{ other_sectors, -EBADMSG, "not of 512 bytes" },
	{ odd_clusters, -EBADMSG, "impossible size" },
	{ fat16, -EBADMSG, "a root folder of an" },
	{ with_a_root, -EBADMSG, "FAT32 with fields of FAT16" },
	{ no_root, -EBADMSG, "the root folder: cluster" },
	{ three_fats, -EBADMSG, "a number of FATs" },
	{ larger_than_disk, -EBADMSG, "more than the disk" },
	{ short_fat, -EBADMSG, "has room for" },
	{ nothing_but_fats, -EBADMSG, "no room for a cluster" },
	{ no_medium, -EBADMSG, "does not begin as one does" },
	{ dirty_as_windows, -EBUSY, "not unmounted" },
	{ dirty_as_linux, -EBUSY, "not unmounted" },
	{ had_errors, -EBADMSG, "I/O errors" },
	{ other_copy, -EBADMSG, "the two FATs differ" },
	{ cross_link, -EBADMSG, "/two.bin: cluster" },
	{ same_start, -EBADMSG, "/two.bin: cluster" },
	{ circle, -EBADMSG, "/two.bin: cluster" },
	{ folder_circle, -EBADMSG, "/dir: cluster" },
	{ folder_in_itself, -EBADMSG, "/dir/Sub Folder: cluster" },
	{ too_short, -EBADMSG, "/two.bin: 9 clusters are less than" },
	{ too_long, -EBADMSG, "/two.bin: more clusters than" },
	{ to_free, -EBADMSG, "/two.bin: a cluster of it is free" },
	{ to_bad, -EBADMSG, "/two.bin: a cluster of it is marked as bad" },
	{ to_nowhere, -EBADMSG, "/two.bin: cluster 65602 is not there" },
	{ start_at_one, -EBADMSG, "/one.txt: cluster 1 is not there" },
	{ empty_with_cluster, -EBADMSG, "/one.txt: it is empty" },
	{ none_with_size, -EBADMSG, "/empty: a cluster of it is free" },
	{ folder_with_size, -EBADMSG, "/dir: a folder that has a size" },
	{ folder_of_nothing, -EBADMSG, "/dir: a cluster of it is free" },
	{ wrong_dot, -EBADMSG, "/dir/Sub Folder: it does not begin" },
	{ wrong_dots, -EBADMSG, "/dir/Sub Folder: it does not begin" },
	{ no_dots, -EBADMSG, "/dir/Sub Folder: it has no" },
	{ more_dots, -EBADMSG, "/dir: \".\" or \"..\" where" },
	{ same_names, -EBADMSG, "there are two of that name" },
	{ same_short_names, -EBADMSG, "short name \"ONE     TXT\"" },
	{ no_name, -EBADMSG, "/: a short name that is none" },
	{ odd_name, -EBADMSG, "/: a short name that is none" },
	{ odd_attributes, -EBADMSG, "/: an entry with unknown attributes" },
	{ half_a_character, -EBADMSG, "/dir/Sub Folder: a name that is no" },
	{ slash_in_name, -EBADMSG, "/: a name that is no UTF-16, or" },
	{ nul_in_name, -EBADMSG, "/: a name that is no UTF-16, or" },
	{ dots_as_long_name, -EBADMSG, "/: a long name \".\"" },
};

static void each_damage_has_its_sentence(void **state)
{
	struct disk d;
	uint8_t *sound;

	(void)state;
	make_disk(&d, 0);
	sound = malloc(d.fat->layout.size);
	memcpy(sound, d.bytes, d.fat->layout.size);
	for (unsigned int i = 0; i < ARRAY_SIZE(damages); i++) {
		int r;

		memcpy(d.bytes, sound, d.fat->layout.size);
		damages[i].damage(&d);
		r = mount(&d);
		if (r != damages[i].err || !strstr(d.why, damages[i].why))
			fail_msg("damage %u: %d, \"%s\"", i, r, d.why);
	}
	free(sound);
	free_disk(&d);
}

static void errors_are_passed_on(void **state)
{
	struct disk d;
	int n = 0;

	(void)state;
	make_disk(&d, 0);
	do {
		d.fails_at = n++;
		if (mount(&d) == 0)
			break;
		assert_non_null(strstr(d.why, "reading"));
	} while (n < 1000);
	assert_in_range(n, 5, 999);
	free_disk(&d);
}

/* What guests do all the time. */
static void what_is_no_damage(void **state)
{
	struct disk d;
	uint8_t *entry;

	(void)state;
	make_disk(&d, 0);
	/* A long name without its sum belongs to nobody. */
	entry = entry_of(&d, LONG);
	entry[-32 + 13]++;
	/* Removed. */
	entry_of(&d, ONE)[0] = 0xe5;
	set_next(&d, cluster_of(&d, ONE), 0);
	set_next(&d, cluster_of(&d, ONE) + 1, 0);
	assert_int_equal(mount(&d), 0);
	assert_int_equal(fat_volume_tree(d.volume)->nr, d.tree.nr - 1);
	assert_string_equal(vtree_name(fat_volume_tree(d.volume), LONG - 1),
			    "ALONGN~4.TEX");
	free_disk(&d);
}

static void files_in_pieces(void **state)
{
	uint8_t bytes[1536];
	struct fat_run run;
	struct disk d;

	(void)state;
	make_disk(&d, 0);
	set_next(&d, cluster_of(&d, MIXED), d.fat->used.end + 98);
	set_next(&d, d.fat->used.end + 98, cluster_of(&d, MIXED) + 2);
	memset(d.bytes + d.fat->data +
		       (d.fat->used.end + 96ull) * d.fat->cluster,
	       'z', d.fat->cluster);
	assert_int_equal(next_of(&d, cluster_of(&d, MIXED)),
			 d.fat->used.end + 98);
	assert_int_equal(mount(&d), 0);
	assert_true(fat_volume_first_run(d.volume, MIXED, &run));
	assert_int_equal(run.length, 512);
	assert_int_equal(fat_volume_file(d.volume, MIXED, bytes, d.why), 0);
	for (unsigned int i = 0; i < sizeof(bytes); i++)
		assert_int_equal(bytes[i],
				 i / 512 == 1 ? 'z' : content(MIXED, i));
	free_disk(&d);
}

/* --- Names ---------------------------------------------------------------------------------- */

static const struct {
	uint16_t units[6]; /* up to a 0 */
	const char *name; /* NULL: refused */
} spelled[] = {
	{ { 'a', 0xfc }, "a\xc3\xbc" },
	{ { 0x20ac }, "\xe2\x82\xac" },
	{ { 0xd83d, 0xde00 }, "\xf0\x9f\x98\x80" },
	{ { 'a', 0xf03a, 'b' }, "a:b" },
	{ { 'a', '.', 0xf020 }, "a. " },
	{ { 0xf0ff }, "\xff" },
	{ { 0xf0ef, 0xf080, 0xf0ba }, "\xef\x80\xba" },
	{ { 0xf100 }, "\xef\x84\x80" },
	{ { 0xffff }, "\xef\xbf\xbf" },
	{ { 0xd83d }, NULL },
	{ { 0xd83d, 'x' }, NULL },
	{ { 0xde00, 0xd83d }, NULL },
	{ { 'a', '/' }, NULL },
	{ { 'a', 0xf02f }, NULL },
	{ { 'a', 0xf000 }, NULL },
	{ { 0 }, NULL },
};

static void names_back_to_bytes(void **state)
{
	char name[NAME_BYTES_MAX];
	uint16_t units[NAME_UNITS_MAX];

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(spelled); i++) {
		int n = 0, r;

		while (n < 6 && spelled[i].units[n] != 0)
			n++;
		r = name_bytes(spelled[i].units, n, name);
		assert_int_equal(r, spelled[i].name ? 0 : -EILSEQ);
		if (r < 0)
			continue;
		assert_string_equal(name, spelled[i].name);
		assert_int_equal(name_units(name, units), n);
		assert_memory_equal(units, spelled[i].units,
				    (size_t)n * sizeof(*units));
	}
	for (int i = 0; i < NAME_UNITS_MAX; i++)
		units[i] = 0x20ac;
	assert_int_equal(name_bytes(units, NAME_UNITS_MAX, name), 0);
	assert_int_equal(strlen(name), NAME_BYTES_MAX - 1);
	assert_int_equal(name_bytes(units, NAME_UNITS_MAX + 1, name), -EILSEQ);
}

static const struct {
	const char bytes[12];
	uint8_t lower;
	const char *name; /* NULL: refused */
} shorts[] = {
	{ "README  TXT", 0x00, "README.TXT" },
	{ "README  TXT", 0x08, "readme.TXT" },
	{ "README  TXT", 0x18, "readme.txt" },
	{ "A          ", 0x10, "A" },
	{ "A B     C  ", 0x00, "A B.C" },
	{ "\x05"
	  "X        ",
	  0x00, "\xcf\x83X" },
	{ "\x81\x9a       ", 0x08, "\xc3\xbc\xc3\x9c" },
	{ "        TXT", 0x00, NULL },
	{ " A         ", 0x00, NULL },
	{ "A*         ", 0x00, NULL },
	{ "A\x01         ", 0x00, NULL },
	{ "A.B        ", 0x00, NULL },
};

static void short_names(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(shorts); i++) {
		struct fat_slots slots = { .parts = 0 };
		struct fat_entry entry;
		uint8_t slot[FAT_SLOT] = { 0 };
		const char *fault = NULL;
		int r;

		memset(slot, ' ', SHORT_BYTES);
		memcpy(slot, shorts[i].bytes, strlen(shorts[i].bytes));
		slot[12] = shorts[i].lower;
		r = fat_slots_take(&slots, slot, &entry, &fault);
		assert_int_equal(r, shorts[i].name ? FAT_SLOT_ENTRY : -EBADMSG);
		assert_int_equal(r < 0, fault != NULL);
		if (r >= 0)
			assert_string_equal(entry.name, shorts[i].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(our_own_disk),
		cmocka_unit_test(each_damage_has_its_sentence),
		cmocka_unit_test(errors_are_passed_on),
		cmocka_unit_test(what_is_no_damage),
		cmocka_unit_test(files_in_pieces),
		cmocka_unit_test(names_back_to_bytes),
		cmocka_unit_test(short_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
