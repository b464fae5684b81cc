/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-git.c - a repository that somebody hostile has made, up to the disk.
 *
 * Input: 0, the id of a tree, the length of an index, an index, a pack; or 1 and
 * objects, of which a pack and an index are made that are right in themselves:
 * type, which one before is the base, length, content.
 *
 * Either the tree is refused, with a sentence; or, for each file system, its nodes
 * are sound, names in a folder differ, the layout covers the disk, and each file
 * is as large as was said, reads the same in pieces as in one, or fails.  Folders
 * of EROFS are sorted, and lead to where they should.
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
#include "../../backends/git/erofs.h"
#include "../../backends/git/layout.h"
#include "../../backends/git/names.h"
#include "../../backends/git/stream.h"

#define FILE_MAX    65536u
#define OBJECTS_MAX 64u
#define CHECKED	    40u /* files that are read, of one input */
#define LFS_BYTES   "12345"

static char folder[64];
static int objects = -1;

void fuzz_leave(void)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	if (folder[0])
		(void)!system(command);
}

static void put_file(const char *name, const uint8_t *bytes, size_t n)
{
	int fd = openat(objects, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
			0600);

	HOLDS(fd >= 0 && write(fd, bytes, n) == (ssize_t)n, "own file");
	(void)close(fd);
}

/* The only object of Git LFS that there is; no pointer says how it got there. */
static void make_lfs(void)
{
	static const char *const dirs[] = { "lfs", "lfs/objects",
					    "lfs/objects/aa",
					    "lfs/objects/aa/aa" };
	char name[sizeof("lfs/objects/aa/aa/") + LFS_OID_HEX] =
		"lfs/objects/aa/aa/";

	for (unsigned int i = 0; i < 4; i++)
		HOLDS(mkdirat(objects, dirs[i], 0700) == 0, "own folder");
	memset(name + strlen(name), 'a', LFS_OID_HEX);
	put_file(name, (const uint8_t *)LFS_BYTES, strlen(LFS_BYTES));
}

static void make_folder(void)
{
	(void)snprintf(folder, sizeof(folder), "/tmp/xendisk-fuzz-XXXXXX");
	HOLDS(mkdtemp(folder), "own folder");
	(void)atexit(fuzz_leave);
	objects = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	HOLDS(objects >= 0 && mkdirat(objects, "pack", 0700) == 0,
	      "own folder");
	make_lfs();
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

static void put_be32(struct made *made, uint32_t value)
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
		put_be32(index, i + 1 < nr ? i + 1 : nr);
	for (unsigned int i = 0; i < nr; i++) {
		id_of(i, id);
		put(index, id, sizeof(id));
	}
	for (unsigned int i = 0; i < nr; i++)
		put_be32(index, 0);
	for (unsigned int i = 0; i < nr; i++)
		put_be32(index, offsets[i]);
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

static void check_folder(const struct vtree *tree, uint32_t node, bool posix)
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
	for (uint32_t i = 0; i < nr && !posix; i++)
		for (uint32_t k = i + 1; k < nr; k++)
			HOLDS(!same_name(tree, dir->first + i, dir->first + k),
			      "%s twice", vtree_name(tree, dir->first + i));
}

/* --- Folders of EROFS ------------------------------------------------------------ */

struct entries {
	const struct vtree *tree;
	uint32_t node; /* the folder */
	uint32_t nr;
	char before[EROFS_NAME_BYTES + 1];
};

static uint32_t get(const uint8_t *p, unsigned int bytes)
{
	return bytes ? p[0] | get(p + 1, bytes - 1) << 8 : 0;
}

/* The node of which a name speaks. */
static void check_entry(struct entries *entries, const char *name, uint64_t nid)
{
	const struct vtree *tree = entries->tree;
	uint64_t node = nid - EROFS_BLOCK / EROFS_SLOT; /* none here is large */

	HOLDS(entries->nr++ == 0 || strcmp(entries->before, name) < 0,
	      "sorted: %s, %s", entries->before, name);
	strcpy(entries->before, name);
	HOLDS(node < tree->nr, "a node");
	if (strcmp(name, ".") == 0)
		HOLDS(node == entries->node, "itself");
	else if (strcmp(name, "..") == 0)
		HOLDS(node == tree->nodes[entries->node].parent, "its parent");
	else
		HOLDS(tree->nodes[node].parent == entries->node &&
			      strcmp(vtree_name(tree, (uint32_t)node), name) ==
				      0,
		      "its child %s", name);
}

static void check_block(struct entries *entries, const uint8_t *block,
			uint32_t n)
{
	uint32_t nr = get(block + 8, 2) / EROFS_DIRENT_BYTES;

	HOLDS(nr > 0 && nr * EROFS_DIRENT_BYTES < n, "entries in a block");
	for (uint32_t i = 0; i < nr; i++) {
		const uint8_t *entry = block + i * EROFS_DIRENT_BYTES;
		uint32_t at = get(entry + 8, 2);
		uint32_t end =
			i + 1 < nr ? get(entry + 8 + EROFS_DIRENT_BYTES, 2) : n;
		char name[EROFS_NAME_BYTES + 1] = "";

		HOLDS(at < end && end <= n, "a name");
		if (i + 1 == nr) /* the block may be longer */
			end = at + (uint32_t)strnlen((const char *)block + at,
						     end - at);
		HOLDS(end - at <= EROFS_NAME_BYTES, "a name");
		memcpy(name, block + at, end - at);
		HOLDS(strlen(name) == end - at, "no NUL in it");
		check_entry(entries, name,
			    get(entry, 4) | (uint64_t)get(entry + 4, 4) << 32);
	}
}

static void check_erofs_folder(const struct layout *layout,
			       const struct vtree *tree, uint32_t node)
{
	const struct vnode *dir = &tree->nodes[node];
	struct entries entries = { .tree = tree, .node = node };
	uint8_t block[LAYOUT_UNIT_MAX];

	for (uint64_t at = 0; at < dir->size; at += EROFS_BLOCK) {
		uint64_t left = dir->size - at;

		layout->ops->meta(layout, dir->block + at / EROFS_BLOCK, block);
		check_block(&entries, block,
			    left < EROFS_BLOCK ? (uint32_t)left : EROFS_BLOCK);
	}
	HOLDS(entries.nr == dir->nr + 2, "all of them");
}

/* --- The layout -------------------------------------------------------------------- */

static void check_node(const struct layout *layout, const struct vtree *tree,
		       uint32_t node)
{
	uint8_t *bytes;

	if (tree->nodes[node].kind != VNODE_DIR)
		return;
	if (!layout->ops->folder) {
		check_erofs_folder(layout, tree, node);
		return;
	}
	bytes = malloc(tree->nodes[node].size);
	layout->ops->folder(layout, node, bytes);
	free(bytes);
}

static void check_layout(struct vtree *tree, const struct layout_ops *ops)
{
	const struct layout_options options = { .label = "FUZZ" };
	uint8_t bytes[LAYOUT_UNIT_MAX];
	char reason[WHY_MAX] = "";
	struct layout *layout;
	int r = ops->make(&layout, tree, &options, reason);

	HOLDS((r == 0) == (*reason == '\0'), "a sentence");
	if (r < 0)
		return;
	for (uint64_t at = 0; at < layout->size;) {
		uint64_t left = layout->size - at;
		struct piece piece = ops->find(layout, at, left);

		HOLDS(piece.length > 0 && piece.length <= left, "a piece");
		HOLDS(piece.kind < PIECE_FOLDER ||
			      (piece.node < tree->nr &&
			       piece.at + piece.length <=
				       tree->nodes[piece.node].size),
		      "inside its node");
		if (piece.kind == PIECE_META)
			ops->meta(layout, at / ops->unit, bytes);
		at += piece.length;
	}
	for (uint32_t i = 0; i < tree->nr; i++)
		check_node(layout, tree, i);
	layout_free(layout);
}

/* --- Files --------------------------------------------------------------------------- */

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
		const struct vnode *node = &tree->nodes[i];

		HOLDS(node->kind != VNODE_LFS ||
			      (node->at == 0 &&
			       node->size == strlen(LFS_BYTES)),
		      "the object of Git LFS");
		if (node->kind != VNODE_BLOB)
			continue;
		check_file(reader, cache, streams, node);
		left--;
	}
	streams_free(streams);
}

static void check_disk(struct odb *odb, struct build_source *source,
		       const struct layout_ops *ops)
{
	char reason[WHY_MAX] = "";
	struct build_counts counts;
	struct vtree tree = { 0 };
	struct reader *reader;
	struct cache *cache;
	int r;

	source->posix = ops->posix;
	HOLDS(cache_new(&cache, 1 << 16) == 0 &&
		      reader_new(&reader, odb, cache) == 0 &&
		      lfs_open(&source->lfs, objects, NULL, reason) == 0,
	      "memory");
	r = build_vtree(&tree, odb, reader, cache, source, &counts, reason);
	HOLDS((r == 0) == (*reason == '\0'), "a sentence");
	if (r == 0) {
		odb_settle(odb);
		for (uint32_t i = 0; i < tree.nr; i++)
			if (tree.nodes[i].kind == VNODE_DIR)
				check_folder(&tree, i, ops->posix);
		check_files(reader, cache, odb, &tree);
		check_layout(&tree, ops);
	}
	vtree_free(&tree);
	lfs_close(source->lfs);
	reader_free(reader);
	cache_free(cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct layout_ops *const formats[] = { &fat_ops,
							    &erofs_ops };
	struct build_source source = { .about = "fuzz\n", .follow = true };
	struct input in = { data, size };

	if (objects < 0)
		make_folder();
	make_files(&in, source.tree);
	for (unsigned int i = 0; i < 2; i++) {
		char reason[WHY_MAX] = "";
		struct odb *odb = NULL;
		int r = odb_open(&odb, objects, reason);

		HOLDS((r == 0) == (*reason == '\0'), "a sentence");
		if (r == 0)
			check_disk(odb, &source, formats[i]);
		odb_close(odb);
	}
	return 0;
}
