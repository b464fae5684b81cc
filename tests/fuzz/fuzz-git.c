/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-git.c - a repository that somebody hostile has made, up to the disk.
 *
 * Input: 0, the id of a tree, the length of an index, an index, a pack; or 1 and
 * objects, of which a pack and an index are made that are right in themselves:
 * type, which one before is the base, length, content.
 *
 * Either the tree is refused, with a sentence; or its nodes are sound, names in a
 * folder differ, the layout covers the disk, and each file is as large as was
 * said, reads the same in pieces as in one, or fails.
 */
#define _GNU_SOURCE
#include "config.h"

#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "../../backends/git/build.h"
#include "../../backends/git/fat.h"
#include "../../backends/git/names.h"
#include "../../backends/git/stream.h"

#define FILE_MAX    65536u
#define OBJECTS_MAX 64u
#define CHECKED	    40u /* files that are read, of one input */

static char folder[64];
static int objects = -1;

void fuzz_leave(void)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	if (folder[0])
		(void)!system(command);
}

static void make_folder(void)
{
	(void)snprintf(folder, sizeof(folder), "/tmp/xendisk-fuzz-XXXXXX");
	HOLDS(mkdtemp(folder), "own folder");
	(void)atexit(fuzz_leave);
	objects = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	HOLDS(objects >= 0 && mkdirat(objects, "pack", 0700) == 0,
	      "own folder");
}

static void put_file(const char *name, const uint8_t *bytes, size_t n)
{
	int fd = openat(objects, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
			0600);

	HOLDS(fd >= 0 && write(fd, bytes, n) == (ssize_t)n, "own file");
	(void)close(fd);
}

/* --- A pack of any objects ---------------------------------------------------- */

struct made {
	uint8_t bytes[FILE_MAX];
	size_t n;
};

static void put(struct made *made, const void *bytes, size_t n)
{
	if (n > sizeof(made->bytes) - made->n)
		n = sizeof(made->bytes) - made->n;
	memcpy(made->bytes + made->n, bytes, n);
	made->n += n;
}

static void put32(struct made *made, uint32_t value)
{
	const uint8_t bytes[4] = { (uint8_t)(value >> 24),
				   (uint8_t)(value >> 16),
				   (uint8_t)(value >> 8), (uint8_t)value };

	put(made, bytes, 4);
}

/* Ids that are sorted as the objects are numbered. */
static void id_of(unsigned int number, uint8_t ret[OID_BYTES])
{
	memset(ret, 'i', OID_BYTES);
	ret[0] = (uint8_t)number;
}

static void put_head(struct made *pack, unsigned int type, size_t size)
{
	uint8_t c = (uint8_t)(type << 4 | (size & 15));

	for (size >>= 4; size > 0; size >>= 7) {
		c |= 0x80;
		put(pack, &c, 1);
		c = size & 0x7f;
	}
	put(pack, &c, 1);
}

/* How far back, as OFS_DELTA has it. */
static void put_distance(struct made *pack, uint32_t distance)
{
	uint8_t bytes[8];
	int at = 7;

	bytes[at] = distance & 0x7f;
	while (distance >>= 7)
		bytes[--at] = (uint8_t)(0x80 | (--distance & 0x7f));
	put(pack, bytes + at, (size_t)(8 - at));
}

static void put_object(struct made *pack, struct input *in, uint32_t *offsets,
		       unsigned int number)
{
	unsigned int type = input_u8(in) & 7, base = input_u8(in);
	size_t n = input_u16(in) % 2048;
	static uint8_t bytes[2048], packed[4096];
	uLongf length = sizeof(packed);
	uint8_t id[OID_BYTES];

	n = n < in->left ? n : in->left;
	input_bytes(in, bytes, n);
	put_head(pack, type, n);
	if (type == OBJECT_OFS_DELTA)
		put_distance(pack, offsets[number] -
					   offsets[number ? base % number : 0]);
	id_of(base, id);
	if (type == OBJECT_REF_DELTA)
		put(pack, id, sizeof(id));
	HOLDS(compress2(packed, &length, bytes, n, n % 2 ? 1 : 0) == Z_OK,
	      "own stream");
	put(pack, packed, length);
}

static void put_index(struct made *index, const uint32_t *offsets,
		      unsigned int nr)
{
	uint8_t id[OID_BYTES];

	put(index, "\377tOc\0\0\0\2", 8);
	for (unsigned int i = 0; i < 256; i++)
		put32(index, i + 1 < nr ? i + 1 : nr);
	for (unsigned int i = 0; i < nr; i++) {
		id_of(i, id);
		put(index, id, sizeof(id));
	}
	for (unsigned int i = 0; i < nr; i++)
		put32(index, 0);
	for (unsigned int i = 0; i < nr; i++)
		put32(index, offsets[i]);
	put(index, id, sizeof(id));
	put(index, id, sizeof(id));
}

static void make_pack(struct input *in, struct made *index, struct made *pack)
{
	static const uint8_t trailer[20];
	uint32_t offsets[OBJECTS_MAX];
	unsigned int nr = 0;

	put(pack, "PACK\0\0\0\2\0\0\0\0", 12);
	while (in->left > 0 && nr < OBJECTS_MAX && pack->n < FILE_MAX - 8192) {
		offsets[nr] = (uint32_t)pack->n;
		put_object(pack, in, offsets, nr);
		nr++;
	}
	put_index(index, offsets, nr);
	put(pack, trailer, sizeof(trailer));
}

/* Writes both files; returns the tree's id. */
static void make_files(struct input *in, uint8_t root[OID_BYTES])
{
	static struct made index, pack;
	size_t n;

	index.n = pack.n = 0;
	if (input_u8(in) & 1) {
		make_pack(in, &index, &pack);
		id_of(0, root);
	} else {
		input_bytes(in, root, OID_BYTES);
		n = input_u16(in);
		n = n < in->left ? n : in->left;
		put(&index, in->at, n);
		put(&pack, in->at + n, in->left - n);
	}
	put_file("pack/pack-a.idx", index.bytes, index.n);
	put_file("pack/pack-a.pack", pack.bytes, pack.n);
}

/* --- What must hold ------------------------------------------------------------- */

static bool same_name(const struct vtree *tree, uint32_t a, uint32_t b)
{
	uint16_t units_a[NAME_UNITS_MAX], units_b[NAME_UNITS_MAX];
	int n = name_units(vtree_name(tree, a), units_a);

	if (name_units(vtree_name(tree, b), units_b) != n)
		return false;
	for (int i = 0; i < n; i++)
		if (name_fold(units_a[i]) != name_fold(units_b[i]))
			return false;
	return true;
}

static void check_folder(const struct vtree *tree, uint32_t node)
{
	const struct vnode *dir = &tree->nodes[node];
	uint32_t nr = dir->nr < 100 ? dir->nr : 100;

	HOLDS(dir->nr == 0 || (dir->first > node &&
			       (uint64_t)dir->first + dir->nr <= tree->nr),
	      "children of %u", node);
	for (uint32_t i = 0; i < dir->nr; i++) {
		const char *name = vtree_name(tree, dir->first + i);

		HOLDS(*name && !strchr(name, '/'), "a name");
		HOLDS(tree->nodes[dir->first + i].parent == node, "its parent");
	}
	for (uint32_t i = 0; i < nr; i++)
		for (uint32_t k = i + 1; k < nr; k++)
			HOLDS(!same_name(tree, dir->first + i, dir->first + k),
			      "%s twice", vtree_name(tree, dir->first + i));
}

static void check_layout(struct vtree *tree)
{
	const struct fat_options options = { .label = "FUZZ       " };
	char reason[WHY_MAX] = "";
	struct fat fat;
	int r = fat_layout(&fat, tree, &options, reason);

	HOLDS((r == 0) == (*reason == '\0'), "a sentence");
	if (r < 0)
		return;
	for (uint64_t at = 0; at < fat.size;) {
		struct fat_piece piece = fat_find(&fat, at, fat.size - at);

		HOLDS(piece.length > 0 && piece.length <= fat.size - at,
		      "a piece");
		if (piece.kind == FAT_NODE)
			HOLDS(piece.node < tree->nr &&
				      piece.at + piece.length <=
					      tree->nodes[piece.node].size,
			      "inside its node");
		at += piece.length;
	}
	for (uint32_t i = 0; i < tree->nr; i++) {
		uint8_t *bytes = malloc(tree->nodes[i].size);

		if (tree->nodes[i].kind == VNODE_DIR)
			fat_folder(&fat, i, bytes);
		free(bytes);
	}
	fat_free(&fat);
}

static void check_pieces(struct streams *streams, struct place place,
			 const struct object_head *head,
			 const struct object *object)
{
	static const atomic_bool stop;
	uint8_t bytes[97];

	for (uint64_t at = 0; at < object->size; at += sizeof(bytes)) {
		size_t n = sizeof(bytes);

		n = n < object->size - at ? n : (size_t)(object->size - at);
		HOLDS(streams_read(streams, place, head, at, bytes, n, &stop) ==
			      0,
		      "what can be read at once");
		HOLDS(memcmp(bytes, object->data + at, n) == 0, "in pieces");
	}
}

static void check_file(struct reader *reader, struct cache *cache,
		       struct streams *streams, const struct vnode *node)
{
	struct place place = { node->pack, node->at };
	const struct object *object;
	struct object_head head;
	int r = object_read(reader, place, &object);

	HOLDS(r == 0 || r == -EBADMSG || r == -EFBIG, "%d", r);
	if (r < 0)
		return;
	HOLDS(object->size == node->size, "the size that was said");
	HOLDS(object_head(reader, place, &head) == 0, "what was read");
	if (head.type < OBJECT_OFS_DELTA && object->size < 4096)
		check_pieces(streams, place, &head, object);
	cache_put(cache, object);
}

static void check_files(struct reader *reader, struct cache *cache,
			const struct odb *odb, const struct vtree *tree)
{
	struct streams *streams;
	unsigned int left = CHECKED;

	HOLDS(streams_new(&streams, odb) == 0, "memory");
	for (uint32_t i = 0; i < tree->nr && left > 0; i++) {
		if (tree->nodes[i].kind != VNODE_BLOB)
			continue;
		check_file(reader, cache, streams, &tree->nodes[i]);
		left--;
	}
	streams_free(streams);
}

static void check_disk(struct odb *odb, struct build_source *source)
{
	char reason[WHY_MAX] = "";
	struct build_counts counts;
	struct vtree tree = { 0 };
	struct reader *reader;
	struct cache *cache;
	int r;

	HOLDS(cache_new(&cache, 1 << 16) == 0 &&
		      reader_new(&reader, odb, cache) == 0,
	      "memory");
	r = build_vtree(&tree, odb, reader, cache, source, &counts, reason);
	HOLDS((r == 0) == (*reason == '\0'), "a sentence");
	if (r == 0) {
		odb_settle(odb);
		for (uint32_t i = 0; i < tree.nr; i++)
			if (tree.nodes[i].kind == VNODE_DIR)
				check_folder(&tree, i);
		check_files(reader, cache, odb, &tree);
		check_layout(&tree);
	}
	vtree_free(&tree);
	reader_free(reader);
	cache_free(cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct build_source source = { .about = "fuzz\n", .follow = true };
	struct input in = { data, size };
	char reason[WHY_MAX] = "";
	struct odb *odb = NULL;
	int r;

	if (objects < 0)
		make_folder();
	make_files(&in, source.tree);
	r = odb_open(&odb, objects, reason);
	HOLDS((r == 0) == (*reason == '\0'), "a sentence");
	if (r == 0)
		check_disk(odb, &source);
	odb_close(odb);
	return 0;
}
