/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The FAT file system of a tree, read back by a reader that knows the format and
 * nothing of how the layout was made.
 */
#include "config.h"

#include <string.h>

#include "../../backends/git/fat.h"
#include "../../backends/git/names.h"
#include "../../backends/git/tree.h"
#include "common/util.h"
#include "layout-fixture.h"

/* --- Names ------------------------------------------------------------------ */

static const struct {
	const char *name;
	const char *is_short; /* or NULL */
	const char *made; /* by number 7 */
	int slots;
} names[] = {
	{ "README.TXT", "README  TXT", "README~7TXT", 1 },
	{ "readme.txt", "README  TXT", "README~7TXT", 1 },
	{ "readme.TXT", "README  TXT", "README~7TXT", 1 },
	{ "Readme.txt", NULL, "README~7TXT", 2 },
	{ "a", "A          ", "A~7        ", 1 },
	{ ".profile", NULL, "PROFIL~7   ", 2 },
	{ "a.b.c", NULL, "AB~7    C  ", 2 },
	{ "name.", NULL, "NAME~7     ", 2 },
	{ "exactly13unit", NULL, "EXACTL~7   ", 2 },
	{ "exactly14units", NULL, "EXACTL~7   ", 3 },
	{ "with space", NULL, "WITHSP~7   ", 2 },
	{ "tilde~1.txt", NULL, "TILDE1~7TXT", 2 },
	{ "\xc3\xbc", NULL, "~7         ", 2 },
};

static void names_of_8_and_3(void **state)
{
	uint8_t bytes[SHORT_BYTES], lower;

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++) {
		const char *name = names[i].name;
		bool is_short = name_is_short(name, bytes, &lower);

		assert_int_equal(is_short, names[i].is_short != NULL);
		if (is_short)
			assert_memory_equal(bytes, names[i].is_short,
					    SHORT_BYTES);
		name_short(name, 7, bytes);
		assert_memory_equal(bytes, names[i].made, SHORT_BYTES);
		assert_int_equal(name_slots(name), names[i].slots);
	}
	name_short("longname.text", 999999, bytes);
	assert_memory_equal(bytes, "L~999999TEX", SHORT_BYTES);
	assert_int_equal(name_made_number("l~999999.tex", bytes), 999999);
	assert_memory_equal(bytes, "L~999999TEX", SHORT_BYTES);
	assert_int_equal(name_made_number("plain.txt", bytes), 0);
	assert_int_equal(name_made_number("a~1~2", bytes), 0);
	assert_int_equal(name_made_number("toolongbase~1", bytes), 0);
}

static const struct {
	const char *name;
	uint16_t units[8]; /* up to a 0 */
} spelled[] = {
	{ "a\xc3\xbc", { 'a', 0xfc } },
	{ "\xe2\x82\xac", { 0x20ac } },
	{ "\xf0\x9f\x98\x80", { 0xd83d, 0xde00 } },
	{ "a:b", { 'a', 0xf03a, 'b' } },
	{ "\x01\x7f", { 0xf001, 0xf07f } },
	{ "a. ", { 'a', '.', 0xf020 } },
	{ "\xff", { 0xf0ff } },
	{ "\xc0\x80", { 0xf0c0, 0xf080 } }, /* not the shortest form */
	{ "\xed\xa0\x80", { 0xf0ed, 0xf0a0, 0xf080 } }, /* a surrogate */
	{ "\xf4\x90\x80\x80", { 0xf0f4, 0xf090, 0xf080, 0xf080 } },
	{ "\xe2\x82", { 0xf0e2, 0xf082 } }, /* it ends too early */
	{ "\xef\x80\xba", { 0xf0ef, 0xf080, 0xf0ba } }, /* U+F03A itself */
};

static void names_in_utf_16(void **state)
{
	uint16_t units[NAME_UNITS_MAX];
	char name[300];

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(spelled); i++) {
		int n = name_units(spelled[i].name, units);

		for (int k = 0; k < n; k++)
			assert_int_equal(units[k], spelled[i].units[k]);
		assert_true(n > 0 && spelled[i].units[n] == 0);
	}
	memset(name, 'x', sizeof(name));
	name[255] = '\0';
	assert_int_equal(name_units(name, units), 255);
	name[255] = 'x';
	name[256] = '\0';
	assert_int_equal(name_units(name, units), -ENAMETOOLONG);
	memcpy(name + 252, "\xf0\x9f\x98\x80", 5); /* 254 units */
	assert_int_equal(name_units(name, units), 254);
	memcpy(name + 254, "\xf0\x9f\x98\x80", 5); /* 256 */
	name[253] = 'x';
	assert_int_equal(name_units(name, units), -ENAMETOOLONG);
}

static void names_without_case(void **state)
{
	static const uint16_t pairs[][2] = {
		{ 'a', 'A' },	    { 'z', 'Z' },	{ 0xfc, 0xdc },
		{ 0xff, 0xff },	    { 0x101, 0x100 },	{ 0x100, 0x100 },
		{ 0x3b1, 0x391 },   { 0x3c2, 0x3c2 },	{ 0x44f, 0x42f },
		{ 0x451, 0x401 },   { 0xd83d, 0xd83d }, { '1', '1' },
		{ 0xf03a, 0xf03a }, { 0xd7, 0xd7 },	{ 0xf7, 0xf7 },
	};

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(pairs); i++) {
		assert_int_equal(name_fold(pairs[i][0]), pairs[i][1]);
		assert_int_equal(name_fold(pairs[i][1]), pairs[i][1]);
	}
}

/* --- Trees ------------------------------------------------------------------- */

#define ID "01234567890123456789"

static const struct {
	const char *bytes;
	size_t n;
	int entries; /* or -1 */
} trees[] = {
#define TREE(text, entries)                     \
	{                                       \
		text, sizeof(text) - 1, entries \
	}
	TREE("", 0),
	TREE("100644 a\0" ID, 1),
	TREE("100644 a\0" ID "40000 b\0" ID "120000 c\0" ID "160000 d\0" ID, 4),
	TREE("100664 a\0" ID "040000 b\0" ID, 2),
	TREE("100644 a-b\0" ID "40000 a\0" ID "100644 a0\0" ID, 3),
	TREE("40000 a\0" ID "100644 a-b\0" ID, -1),
	TREE("100644 a\0" ID "40000 a\0" ID, -1),
	TREE("100644 b\0" ID "100644 a\0" ID, -1),
	TREE("100644 a\0" ID "100644 a\0" ID, -1),
	TREE("100644 \0" ID, -1),
	TREE("100644 ..\0" ID, -1),
	TREE("100644 a/b\0" ID, -1),
	TREE("100644 .gIt\0" ID, -1),
	TREE("100648 a\0" ID, -1),
	TREE("20000 a\0" ID, -1),
	TREE(" a\0" ID, -1),
	TREE("000000100644 a\0" ID, -1),
	TREE("100644 a\0"
	     "0123456789012345678",
	     -1),
	TREE("100644 a", -1),
	TREE("100644", -1),
};

static void trees_are_checked(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(trees); i++) {
		struct tree_cursor c =
			tree_begin((const uint8_t *)trees[i].bytes, trees[i].n);
		struct tree_entry entry;
		const char *fault = NULL;
		int n = 0, r;

		while ((r = tree_next(&c, &entry, &fault)) == 1)
			n++;
		assert_int_equal(r < 0 ? -1 : n, trees[i].entries);
		assert_int_equal(r < 0, fault != NULL);
	}
}

/* --- The reader ------------------------------------------------------------------------ */

struct mounted {
	const struct fat *fat;
	uint64_t start, fats, data; /* bytes */
	uint32_t cluster, clusters, fat_bytes, root;
	uint8_t *taken; /* per cluster */
	uint32_t used;
	unsigned int wrong;
};

static void read_bytes(const struct mounted *m, uint64_t offset, uint8_t *ret,
		       uint64_t n)
{
	read_disk(&m->fat->layout, m->fat->tree, offset, ret, n);
}

static uint32_t fat_next(struct mounted *m, uint32_t cluster)
{
	uint8_t a[4], b[4];

	read_bytes(m, m->fats + 4ull * cluster, a, 4);
	read_bytes(m, m->fats + m->fat_bytes + 4ull * cluster, b, 4);
	m->wrong += memcmp(a, b, 4) != 0;
	return get32(a) & 0x0fffffff;
}

/* A chain's content; NULL: it is none. */
static uint8_t *read_chain(struct mounted *m, uint32_t cluster, uint32_t *ret_n)
{
	uint8_t *bytes = NULL;
	uint32_t n = 0;

	while (cluster >= 2 && cluster < m->clusters + 2 &&
	       !m->taken[cluster]) {
		m->taken[cluster] = 1;
		m->used++;
		bytes = realloc(bytes, n + m->cluster);
		read_bytes(m, m->data + (cluster - 2ull) * m->cluster,
			   bytes + n, m->cluster);
		n += m->cluster;
		cluster = fat_next(m, cluster);
	}
	m->wrong += cluster < 0x0ffffff8;
	*ret_n = n;
	return bytes;
}

static void mount(struct mounted *m, const struct fat *fat)
{
	uint8_t boot[512], copy[512], info[512];

	*m = (struct mounted){ .fat = fat };
	read_bytes(m, 0, boot, 512);
	if (fat->type) {
		assert_int_equal(boot[446 + 4], fat->type);
		m->start = get32(boot + 446 + 8) * 512ull;
		assert_int_equal(get32(boot + 446 + 12) * 512ull + m->start,
				 fat->layout.size);
	}
	read_bytes(m, m->start, boot, 512);
	read_bytes(m, m->start + 512 * get16(boot + 50), copy, 512);
	assert_memory_equal(boot, copy, 512);
	assert_int_equal(get16(boot + 510), 0xaa55);
	m->cluster = boot[13] * 512u;
	m->fats = m->start + get16(boot + 14) * 512ull;
	m->fat_bytes = get32(boot + 36) * 512;
	m->data = m->fats + boot[16] * (uint64_t)m->fat_bytes;
	m->clusters =
		(uint32_t)((get32(boot + 32) * 512ull - (m->data - m->start)) /
			   m->cluster);
	m->root = get32(boot + 44);
	assert_true(m->clusters >= 65525);
	assert_true(m->fat_bytes >= (m->clusters + 2) * 4);
	assert_int_equal(m->data % 4096, 0);
	read_bytes(m, m->start + 512 * get16(boot + 48), info, 512);
	assert_int_equal(get32(info + 488), m->clusters + 2 - fat->used.end);
	m->taken = calloc(m->clusters + 2, 1);
}

/* A long name in front of an entry; returns its units. */
static int long_name(struct mounted *m, const uint8_t *first,
		     const uint8_t *entry, uint16_t units[NAME_UNITS_MAX + 13])
{
	static const uint8_t at[] = { 1,  3,  5,  7,  9,  14, 16,
				      18, 20, 22, 24, 28, 30 };
	uint8_t sum = 0;
	int n = 0, pieces = (int)(entry - first) / 32;

	for (int i = 0; i < 11; i++)
		sum = (uint8_t)((sum << 7 | sum >> 1) + entry[i]);
	for (int i = 1; i <= pieces; i++) {
		const uint8_t *slot = entry - 32 * i;

		m->wrong += slot[0] != (i | (i == pieces ? 0x40 : 0)) ||
			    slot[13] != sum;
		for (int k = 0; k < 13; k++)
			units[n++] = (uint16_t)get16(slot + at[k]);
	}
	while (n > 0 && units[n - 1] == 0xffff)
		n--;
	return n > 0 && units[n - 1] == 0 ? n - 1 : n;
}

static void check_name(struct mounted *m, uint32_t node, const uint8_t *first,
		       const uint8_t *entry)
{
	const char *name = vtree_name(m->fat->tree, node);
	uint16_t units[NAME_UNITS_MAX + 13], wanted[NAME_UNITS_MAX];
	int n = long_name(m, first, entry, units);
	char text[13] = "";
	int at = 0;

	if (n > 0) {
		m->wrong += n != name_units(name, wanted) ||
			    memcmp(units, wanted, 2 * (size_t)n) != 0;
		return;
	}
	for (int i = 0; i < 11; i++) {
		bool lower = entry[12] & (i < 8 ? 0x08 : 0x10);

		if (i == 8 && entry[8] != ' ')
			text[at++] = '.';
		if (entry[i] != ' ')
			text[at++] = (char)(entry[i] +
					    (lower && entry[i] >= 'A' &&
							     entry[i] <= 'Z' ?
						     32 :
						     0));
	}
	m->wrong += strcmp(text, name) != 0;
}

static void check_folder(struct mounted *m, uint32_t node, uint32_t cluster,
			 uint32_t up);

static void check_entry(struct mounted *m, uint32_t node, const uint8_t *entry,
			uint32_t folder)
{
	const struct vnode *vnode = &m->fat->tree->nodes[node];
	uint32_t cluster = get16(entry + 20) << 16 | get16(entry + 26);
	uint32_t n = 0;
	cleanup_free uint8_t *bytes = NULL;

	m->wrong += !(entry[11] & 0x10) != (vnode->kind != VNODE_DIR);
	if (entry[11] & 0x10) {
		check_folder(m, node, cluster, folder);
		return;
	}
	m->wrong += get32(entry + 28) != vnode->size;
	if (cluster)
		bytes = read_chain(m, cluster, &n);
	m->wrong += n != ALIGN_UP(vnode->size, m->cluster);
	for (uint32_t i = 0; i < n; i++)
		m->wrong += bytes[i] !=
			    (i < vnode->size ? content(node, i) : 0);
}

/* cluster: of the folder; up: of the one it is in. */
static void check_folder(struct mounted *m, uint32_t node, uint32_t cluster,
			 uint32_t up)
{
	const struct vnode *dir = &m->fat->tree->nodes[node];
	uint32_t n, child = dir->first;
	cleanup_free uint8_t *bytes = read_chain(m, cluster, &n);
	uint32_t at = node == 0 ? 32 : 64;
	uint32_t first = at;

	if (!bytes) {
		m->wrong++;
		return;
	}
	if (node == 0) {
		m->wrong += bytes[11] != 0x08;
	} else {
		m->wrong += memcmp(bytes, ".          \x10", 12) != 0 ||
			    memcmp(bytes + 32, "..         \x10", 12) != 0;
		m->wrong += (get16(bytes + 20) << 16 | get16(bytes + 26)) !=
			    cluster;
		m->wrong += (get16(bytes + 52) << 16 | get16(bytes + 58)) !=
			    (up == m->root ? 0 : up);
	}
	for (; at < n && bytes[at] && child < dir->first + dir->nr; at += 32) {
		if (bytes[at + 11] == 0x0f)
			continue;
		check_name(m, child, bytes + first, bytes + at);
		check_entry(m, child++, bytes + at, cluster);
		first = at + 32;
	}
	m->wrong += child != dir->first + dir->nr;
	m->wrong += at < n && bytes[at] != 0;
}

/* How much is wrong. */
static unsigned int check_disk(const struct fat *fat)
{
	struct mounted m;

	mount(&m, fat);
	check_folder(&m, 0, m.root, 0);
	m.wrong += m.used != fat->used.end - 2;
	free(m.taken);
	return m.wrong;
}

/* --- The tests -------------------------------------------------------------------------- */

static const struct layout_options plain = { .label = "test",
					     .id = { 0, 0, 0x12, 0x34 } };

/* NULL, and why. */
static struct fat *lay_out(struct vtree *tree,
			   const struct layout_options *options, int *ret_err,
			   char *ret_why)
{
	struct layout *layout = NULL;

	assert_int_equal(fat_ops.check(options, ret_why), 0);
	*ret_err = fat_ops.make(&layout, tree, options, ret_why);
	return (struct fat *)(void *)layout;
}

static void fits(struct vtree *tree)
{
	char reason[WHY_MAX] = "";
	int err;
	struct fat *fat = lay_out(tree, &plain, &err, reason);

	assert_non_null(fat);
	layout_free(&fat->layout);
}

static void every_file_is_found(void **state)
{
	static const struct layout_options esp = {
		.label = "TEST",
		.partition = LAYOUT_ESP,
	};
	char reason[WHY_MAX] = "";
	int err;

	(void)state;
	for (uint64_t i = 1; i <= 6; i++) {
		struct vtree tree;
		struct fat *fat;

		make_tree(&tree, i, i == 1 ? 1 : 900);
		fat = lay_out(&tree, i % 2 ? &plain : &esp, &err, reason);
		assert_non_null(fat);
		assert_int_equal(fat->type, i % 2 ? 0 : 0xef);
		assert_int_equal(check_disk(fat), 0);
		layout_free(&fat->layout);
		vtree_free(&tree);
	}
}

/* The check can fail: a byte of FAT, folder or file that is another. */
static void the_reader_notices(void **state)
{
	char reason[WHY_MAX] = "";
	struct vtree tree;
	struct fat *fat;
	uint32_t last;
	int err;

	(void)state;
	make_tree(&tree, 2, 900);
	fat = lay_out(&tree, &plain, &err, reason);
	assert_non_null(fat);
	last = fat->used.order[fat->used.nr - 1];
	spoiled = fat->reserved * 512ull + 4 * 100;
	assert_int_not_equal(check_disk(fat), 0);
	spoiled = fat->data + 32; /* the first entry after the label */
	assert_int_not_equal(check_disk(fat), 0);
	spoiled = fat->data + (tree.nodes[last].block - 2ull) * fat->cluster;
	assert_int_not_equal(check_disk(fat), 0);
	spoiled = UINT64_MAX;
	assert_int_equal(check_disk(fat), 0);
	layout_free(&fat->layout);
	vtree_free(&tree);
}

static void refuses(struct vtree *tree, int err, const char *text)
{
	char reason[WHY_MAX] = "";
	int got;

	assert_null(lay_out(tree, &plain, &got, reason));
	assert_int_equal(got, err);
	if (!strstr(reason, text))
		fail_msg("\"%s\" does not say \"%s\"", reason, text);
	vtree_free(tree);
}

static void labels_are_checked(void **state)
{
	static const struct {
		const char *label;
		int r;
	} labels[] = {
		{ "CIDATA", 0 },
		{ "a b-c", 0 },
		{ "12345678901", 0 },
		{ "", -EINVAL },
		{ "123456789012", -EINVAL },
		{ " a", -EINVAL },
		{ "a+b", -EINVAL },
		{ "\xc3\xbc", -EINVAL },
	};
	char reason[WHY_MAX];

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(labels); i++) {
		struct layout_options options = { .label = labels[i].label };

		assert_int_equal(fat_ops.check(&options, reason), labels[i].r);
	}
}

static void limits_are_named(void **state)
{
	struct vtree tree;
	char name[300];

	(void)state;
	make_tree(&tree, 3, 1);
	add(&tree, 0, VNODE_BLOB, "huge", UINT32_MAX);
	fits(&tree);
	tree.nodes[tree.nr - 1].size++;
	refuses(&tree, -EFBIG, "/huge: 4294967296 bytes");

	make_tree(&tree, 3, 1);
	for (uint32_t i = 0; i < 600; i++) {
		(void)snprintf(name, sizeof(name), "f%u", i);
		add(&tree, 0, VNODE_BLOB, name, UINT32_MAX);
	}
	refuses(&tree, -EFBIG, "(2 TiB)");

	make_tree(&tree, 3, 1);
	for (uint32_t i = 1; i < 65536; i++) {
		(void)snprintf(name, sizeof(name), "F%u", i);
		add(&tree, 0, VNODE_BLOB, name, 0);
	}
	fits(&tree);
	add(&tree, 0, VNODE_BLOB, "MORE", 0);
	refuses(&tree, -E2BIG, "/: 65536 names are more");

	make_tree(&tree, 3, 1);
	memset(name, 'n', 256);
	name[256] = '\0';
	add(&tree, 0, VNODE_BLOB, name, 0);
	refuses(&tree, -ENAMETOOLONG, "the name has more than 255");
}

/* --- Names that FAT does not tell apart ------------------------------------------------------ */

static bool all_differ(const struct vtree *tree)
{
	uint16_t a[NAME_UNITS_MAX], b[NAME_UNITS_MAX];

	for (uint32_t i = 1; i < tree->nr; i++)
		for (uint32_t k = i + 1; k < tree->nr; k++) {
			int n = name_units(vtree_name(tree, i), a);
			int same = n == name_units(vtree_name(tree, k), b);

			for (int j = 0; j < n && same; j++)
				same = name_fold(a[j]) == name_fold(b[j]);
			if (same)
				return false;
		}
	return true;
}

static char *part(struct vtree *tree)
{
	static const char *const stems[] = { "a",     "A",   "a~1", "A~2",
					     "a~1~2", "b.c", "B.C", "b~1.c" };
	char reason[WHY_MAX], name[32];
	char *list = NULL;

	make_tree(tree, 4, 1);
	for (unsigned int i = 0; i < 8; i++)
		add(tree, 0, VNODE_BLOB, stems[i], 0);
	for (unsigned int i = 0; i < 256; i++) { /* all are one name */
		for (unsigned int bit = 0; bit < 8; bit++)
			name[bit] = (char)('p' + bit - (i >> bit & 1 ? 32 : 0));
		name[8] = '\0';
		add(tree, 0, VNODE_BLOB, name, 0);
	}
	assert_int_equal(vtree_part_names(tree, &list, reason), 0);
	return list;
}

static void names_are_told_apart(void **state)
{
	cleanup_free char *list = NULL, *again = NULL;
	struct vtree one, two;
	unsigned int lines = 0;

	(void)state;
	list = part(&one);
	assert_true(all_differ(&one));
	for (const char *p = list; (p = strchr(p, '\n')); p++)
		lines++;
	assert_true(lines >= 257 && lines < 264);
	/* What draws random numbers gives the same each time. */
	again = part(&two);
	assert_string_equal(list, again);
	two.nodes[2].name = two.nodes[1].name;
	assert_false(all_differ(&two));
	vtree_free(&one);
	vtree_free(&two);
}

/* Parts n names that are the same, 7000 characters from the root. */
static int part_deep(uint32_t n, char **ret_list, char *ret_why)
{
	struct vtree tree;
	char name[251];
	int r;

	make_tree(&tree, 5, 1);
	memset(name, 'n', sizeof(name));
	name[250] = '\0';
	for (uint32_t folder = 0; folder < 28; folder++)
		add(&tree, folder, VNODE_DIR, name, 0);
	for (uint32_t i = 0; i < n; i++)
		add(&tree, 28, VNODE_BLOB, "same", 0);
	r = vtree_part_names(&tree, ret_list, ret_why);
	vtree_free(&tree);
	return r;
}

/* A repository could be made of such names only. */
static void the_list_is_bounded(void **state)
{
	char reason[WHY_MAX] = "";
	char *list = NULL;

	(void)state;
	assert_int_equal(part_deep(5000, &list, reason), -E2BIG);
	assert_non_null(strstr(reason, "too many names"));
	assert_null(list);
	assert_int_equal(part_deep(500, &list, reason), 0);
	assert_true(strlen(list) > 499 * 14000);
	free(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_of_8_and_3),
		cmocka_unit_test(names_in_utf_16),
		cmocka_unit_test(names_without_case),
		cmocka_unit_test(trees_are_checked),
		cmocka_unit_test(every_file_is_found),
		cmocka_unit_test(the_reader_notices),
		cmocka_unit_test(limits_are_named),
		cmocka_unit_test(labels_are_checked),
		cmocka_unit_test(names_are_told_apart),
		cmocka_unit_test(the_list_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
