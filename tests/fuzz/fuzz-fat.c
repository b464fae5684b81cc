/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-fat.c - a FAT that a guest has written, up to the tree in git.
 *
 * Input: changes to a small disk that is sound: offset (16 bits), how many bytes
 * (8 bits; the highest bit: the same in the second FAT), the bytes.
 *
 * Either the disk is refused, with a sentence; or a second, simple reader finds
 * each file's content where the first has it, no cluster belongs to two, names in
 * a folder are different, the trees are such as git takes them, and a second look
 * says the same.
 */
#include "config.h"

#include "fuzz.h"

#include "../../backends/git/fat-tree.h"
#include "../../backends/git/tree.h"
#include "common/util.h"

#define SECTOR	 512u
#define RESERVED 2u
#define CLUSTERS 120u
#define DATA	 ((RESERVED + 2) * SECTOR)
#define SECTORS	 (RESERVED + 2 + CLUSTERS)
#define SIZE	 (SECTORS * SECTOR)
#define END	 0x0fffffffu

static uint8_t disk[SIZE];

/* --- A sound disk ---------------------------------------------------------------- */

static void put(uint32_t at, uint32_t value, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		disk[at + i] = (uint8_t)(value >> 8 * i);
}

static void link_cluster(uint32_t cluster, uint32_t next)
{
	put(RESERVED * SECTOR + 4 * cluster, next, 4);
	put((RESERVED + 1) * SECTOR + 4 * cluster, next, 4);
}

static uint32_t place_of(uint32_t cluster)
{
	return DATA + (cluster - 2) * SECTOR;
}

static uint32_t put_entry(uint32_t at, const char *name, uint8_t attributes,
			  uint32_t cluster, uint32_t size)
{
	memcpy(disk + at, name, SHORT_BYTES);
	disk[at + 11] = attributes;
	put(at + 20, cluster >> 16, 2);
	put(at + 26, cluster & 0xffff, 2);
	put(at + 28, size, 4);
	return at + FAT_SLOT;
}

/* Up to 13 units of ASCII. */
static uint32_t put_long(uint32_t at, const char *name, uint8_t number,
			 const char *short_name)
{
	static const uint8_t places[] = { 1,  3,  5,  7,  9,  14, 16,
					  18, 20, 22, 24, 28, 30 };
	size_t n = strlen(name);

	disk[at] = number;
	disk[at + 11] = FAT_ATTR_LONG;
	disk[at + 13] = fat_short_sum((const uint8_t *)short_name);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		put(at + places[i],
		    i < n  ? (uint8_t)name[i] :
		    i == n ? 0 :
			     0xffff,
		    2);
	return at + FAT_SLOT;
}

static void make_boot(void)
{
	memcpy(disk,
	       "\xeb\x58\x90"
	       "fuzz    ",
	       11);
	put(11, SECTOR, 2);
	disk[13] = 1;
	put(14, RESERVED, 2);
	disk[16] = 2;
	disk[21] = 0xf8;
	put(32, SECTORS, 4);
	put(36, 1, 4);
	put(44, 2, 4);
	put(510, 0xaa55, 2);
	link_cluster(0, 0x0ffffff8);
	link_cluster(1, END);
}

/* A label, a file of three clusters in two pieces, a long name, an empty file, a
 * folder with a folder and a file in it. */
static void make_disk(void)
{
	uint32_t at = place_of(2);

	memset(disk, 0, sizeof(disk));
	make_boot();
	for (uint32_t i = 2; i <= 6; i++)
		link_cluster(i, END);
	at = put_entry(at, "FUZZ       ", FAT_ATTR_LABEL, 0, 0);
	at = put_entry(at, "FILE    TXT", 0x20, 7, 1300);
	link_cluster(7, 9);
	link_cluster(9, 10);
	link_cluster(10, END);
	at = put_long(at, "me.text", 0x42, "LONG~1  TEX");
	at = put_long(at, "a long file n", 0x01, "LONG~1  TEX");
	at = put_entry(at, "LONG~1  TEX", 0x20, 5, 5);
	at = put_entry(at, "EMPTY      ", 0x20, 0, 0);
	at = put_entry(at, "FOLDER     ", FAT_ATTR_FOLDER, 3, 0);
	(void)put_entry(at, "GONE       ", 0x20, 0, 0);
	at = place_of(3);
	at = put_entry(at, ".          ", FAT_ATTR_FOLDER, 3, 0);
	at = put_entry(at, "..         ", FAT_ATTR_FOLDER, 0, 0);
	at = put_entry(at, "DEEP       ", FAT_ATTR_FOLDER, 4, 0);
	(void)put_entry(at, "IN         ", 0x20, 6, 512);
	at = place_of(4);
	at = put_entry(at, ".          ", FAT_ATTR_FOLDER, 4, 0);
	(void)put_entry(at, "..         ", FAT_ATTR_FOLDER, 3, 0);
	for (uint32_t i = place_of(5); i < SIZE; i++)
		disk[i] = (uint8_t)(i * 7 + (i >> 9));
}

static void change_disk(struct input *in)
{
	while (in->left > 0) {
		uint32_t at = input_u16(in);
		uint8_t n = input_u8(in);

		for (uint32_t i = 0; i < (n & 0x7fu); i++, at++) {
			uint8_t byte = input_u8(in);

			if (at >= SIZE)
				continue;
			disk[at] = byte;
			if ((n & 0x80) && at + SECTOR < SIZE)
				disk[at + SECTOR] = byte;
		}
	}
}

static int read_disk(void *ctx, uint64_t offset, void *buf, size_t n)
{
	(void)ctx;
	HOLDS(offset <= SIZE && n <= SIZE - offset, "inside");
	memcpy(buf, disk + offset, n);
	return 0;
}

/* --- The second reader ---------------------------------------------------------------- */

struct geometry {
	bool is_fat12; /* or FAT32: for FAT16 the disk is too small */
	uint32_t cluster, fat, data;
};

static struct geometry geometry(void)
{
	bool is_fat12 = get16(disk + 22) != 0;
	uint32_t reserved = get16(disk + 14), root = get16(disk + 17);
	uint32_t fat = is_fat12 ? get16(disk + 22) : get32(disk + 36);
	uint32_t active = !is_fat12 && (disk[40] & 0x80) ? disk[40] & 0x0fu : 0;

	return (struct geometry){ .is_fat12 = is_fat12,
				  .cluster = disk[13] * SECTOR,
				  .fat = (reserved + active * fat) * SECTOR,
				  .data = (reserved + disk[16] * fat) * SECTOR +
					  root * FAT_SLOT };
}

/* 0: it is the last. */
static uint32_t cluster_behind(const struct geometry *g, uint32_t cluster)
{
	const uint8_t *p = disk + g->fat;
	uint32_t next;

	if (!g->is_fat12) {
		next = get32(p + 4 * cluster) & 0x0fffffff;
		return next >= 0x0ffffff8 ? 0 : next;
	}
	p += cluster / 2 * 3;
	next = cluster % 2 ? p[1] >> 4 | p[2] << 4 : p[0] | (p[1] & 0x0f) << 8;
	return next >= 0xff8 ? 0 : next;
}

struct pieces {
	const uint8_t *bytes; /* of the whole file */
	uint64_t at; /* so far */
};

static int see_piece(void *ctx, uint64_t at, const struct fat_run *run)
{
	struct pieces *pieces = ctx;

	HOLDS(at == pieces->at && run->length > 0, "the order of its pieces");
	HOLDS(memcmp(pieces->bytes + at, disk + run->offset, run->length) == 0,
	      "what is in a piece");
	pieces->at += run->length;
	return 0;
}

static void check_pieces(struct fat_volume *volume, uint32_t node,
			 const uint8_t *bytes)
{
	struct pieces pieces = { .bytes = bytes };
	char reason[WHY_MAX];

	HOLDS(fat_volume_runs(volume, node, see_piece, &pieces, reason) == 0 &&
		      pieces.at == fat_volume_tree(volume)->nodes[node].size,
	      "its pieces are all of it");
}

static void check_file(struct fat_volume *volume, uint32_t node,
		       uint8_t taken[SIZE])
{
	const struct vnode *file = &fat_volume_tree(volume)->nodes[node];
	uint32_t cluster = file->block, at = 0;
	struct geometry g = geometry();
	char reason[WHY_MAX];
	uint8_t *bytes;
	struct fat_run run;

	HOLDS(file->size <= SIZE, "a file of more bytes than the disk");
	bytes = malloc(file->size + 1);
	HOLDS(bytes && fat_volume_file(volume, node, bytes, reason) == 0,
	      "what was checked can be read");
	while (at < file->size) {
		uint32_t place = g.data + (cluster - 2) * g.cluster;
		uint32_t n = MIN(g.cluster, (uint32_t)file->size - at);

		HOLDS(!taken[place]++, "a cluster of two files");
		HOLDS(memcmp(bytes + at, disk + place, n) == 0, "its content");
		at += n;
		cluster = cluster_behind(&g, cluster);
	}
	HOLDS(file->size == 0 || cluster == 0, "its end");
	HOLDS(fat_volume_first_run(volume, node, &run) == (file->size > 0),
	      "where it begins");
	if (file->size > 0)
		HOLDS(run.length > 0 && run.length <= file->size &&
			      memcmp(bytes, disk + run.offset, run.length) == 0,
		      "what is there");
	check_pieces(volume, node, bytes);
	free(bytes);
}

static void check_folder(const struct vtree *tree, uint32_t folder)
{
	const struct vnode *dir = &tree->nodes[folder];

	HOLDS(dir->first >= folder && dir->first + dir->nr <= tree->nr,
	      "children");
	for (uint32_t i = dir->first; i < dir->first + dir->nr; i++) {
		const char *name = vtree_name(tree, i);

		HOLDS(tree->nodes[i].parent == folder, "a child's parent");
		HOLDS(*name && !strchr(name, '/') && strcmp(name, ".") != 0 &&
			      strcmp(name, "..") != 0,
		      "a name");
		for (uint32_t k = dir->first; k < i; k++)
			HOLDS(strcasecmp(name, vtree_name(tree, k)) != 0,
			      "names that differ");
	}
}

/* --- Git ---------------------------------------------------------------------------------- */

struct sink {
	uint32_t objects;
	uint64_t sum;
};

static int no_tree(void *ctx, const uint8_t oid[OID_BYTES], uint8_t **ret,
		   size_t *ret_n, char *ret_why)
{
	(void)ctx;
	(void)oid;
	(void)ret_why;
	*ret = calloc(1, 1);
	*ret_n = 0;
	return 0;
}

static bool all_written(void *ctx, const struct fat_run *run,
			uint32_t *ret_node)
{
	(void)ctx;
	(void)run;
	(void)ret_node;
	return false;
}

static int take_object(void *ctx, enum object_type type, const void *data,
		       size_t n, uint8_t ret_oid[OID_BYTES], char *ret_why)
{
	struct tree_cursor cursor = tree_begin(data, n);
	struct tree_entry entry;
	struct sink *sink = ctx;
	const char *what = "";
	int r;

	(void)ret_why;
	if (type == OBJECT_TREE) {
		while ((r = tree_next(&cursor, &entry, &what)) > 0)
			HOLDS(!tree_name_fault(entry.name), "a name for git");
		HOLDS(r == 0, "%s", what);
	}
	for (size_t i = 0; i < n; i++)
		sink->sum = (sink->sum ^ ((const uint8_t *)data)[i]) *
			    0x100000001b3u;
	memset(ret_oid, 0, OID_BYTES);
	memcpy(ret_oid, &sink->sum, sizeof(sink->sum));
	sink->objects++;
	return 0;
}

/* Nothing had been laid out but our own folder. */
static struct sink make_tree(struct fat_volume *volume)
{
	static const uint8_t nothing[OID_BYTES];
	struct sink sink = { 0 };
	const struct fat_tree_ops ops = { .read_tree = no_tree,
					  .untouched = all_written,
					  .put = take_object,
					  .ctx = &sink };
	struct vtree base = { .nodes = NULL };
	struct fat_tree_counts counts = { 0 };
	uint8_t oid[OID_BYTES];
	char reason[WHY_MAX] = "";
	uint32_t node;
	int r;

	r = vtree_add(&base, 0, VNODE_DIR, "", &node, reason);
	r = r ? r : vtree_add(&base, 0, VNODE_DIR, ".xendisk", &node, reason);
	HOLDS(r == 0, "memory");
	base.nodes[0].first = 1;
	base.nodes[0].nr = 1;
	r = fat_tree_make(&base, nothing, volume, &ops, oid, &counts, reason);
	HOLDS((r == 0) == (*reason == '\0'), "a sentence");
	HOLDS(r < 0 || counts.changed + counts.removed == 0, "all are new");
	vtree_free(&base);
	return sink;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct fat_source source = { .read = read_disk,
						  .ctx = NULL };
	struct input in = { data, size };
	struct fat_volume *volume = NULL;
	static uint8_t taken[SIZE];
	char reason[WHY_MAX] = "";
	const struct vtree *tree;
	struct sink once, twice;
	int r;

	make_disk();
	change_disk(&in);
	r = fat_volume_read(&volume, &source, 0, SIZE, reason);
	HOLDS((r == 0) == (*reason == '\0'), "a sentence");
	if (r < 0)
		return 0;
	memset(taken, 0, sizeof(taken));
	tree = fat_volume_tree(volume);
	for (uint32_t i = 0; i < tree->nr; i++)
		if (tree->nodes[i].kind == VNODE_DIR)
			check_folder(tree, i);
		else
			check_file(volume, i, taken);
	once = make_tree(volume);
	twice = make_tree(volume);
	HOLDS(once.objects == twice.objects && once.sum == twice.sum,
	      "the same twice");
	fat_volume_free(volume);
	return 0;
}
