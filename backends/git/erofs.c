/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The format is that of Linux (fs/erofs/erofs_fs.h), without compression, inline
 * data or extended attributes.  From front to back, in blocks of 4096 bytes:
 * maybe a partition table and nothing else up to 1 MiB; the superblock; inodes of
 * 32 bytes, one for each node, in their order; inodes of 64 bytes, for the nodes
 * that need those (their place among the others stays empty); folders; files.
 * Each folder and each file lies in one piece.  An inode is named by its place in
 * units of 32 bytes, and the root's name has only 16 bits: it is the first.
 *
 * A folder is a row of blocks of entries, sorted by the bytes of their names over
 * all of it, "." and ".." among them: Linux looks for a name by halves, first
 * among blocks, then within one.  git sorts folders as if a '/' followed, so the
 * children of each folder are sorted once more (`sorted`).  With which entry each
 * block begins is kept (`starts`): any block can be made without the others,
 * however many names are in its folder.
 */
#include "config.h"

#include "erofs.h"

#include <inttypes.h>
#include <string.h>

#include "common/util.h"

#define SLOTS_PER_BLOCK (EROFS_BLOCK / EROFS_SLOT)
#define LARGE_SLOTS	2u /* an inode of 64 bytes; never across two blocks */
#define INODES_AT	1u /* block */
#define MOST_BLOCKS	(UINT32_MAX - 1u)
#define TYPE_LINUX	0x83 /* in a partition table */

#define COMPAT_CHECKSUM 0x1u
#define COMPAT_MTIME	0x2u

#define LARGE_INODE 0x1u /* i_format; all the rest 0: flat, plain */

enum { TYPE_FILE = 1, TYPE_FOLDER = 2, TYPE_LINK = 7 };

struct erofs {
	struct layout layout;
	const struct vtree *tree;
	uint32_t serial; /* of the partition table */
	uint32_t before; /* blocks in front of the file system */
	/* Numbers of blocks, counted from the superblock's. */
	uint32_t large_at, folders_at, files_at;
	uint32_t *sorted; /* at the places of a folder's children: those, by
			   * name */
	uint32_t *large; /* nodes with an inode of 64 bytes, rising */
	uint32_t nr_large;
	uint32_t *starts; /* of each block of folders: its first entry */
	uint32_t nr_starts, starts_room;
	struct extents folders, files;
	uint8_t super[EROFS_SUPER_BYTES];
};

static const struct erofs *erofs_of(const struct layout *layout)
{
	return (const struct erofs *)(const void *)layout;
}

/* --- Inodes ----------------------------------------------------------------- */

/* A folder's `at` is the number of its links: one in its parent, its own ".",
 * and each ".." in it. */
static uint64_t links_of(const struct vnode *node)
{
	return node->kind == VNODE_DIR ? node->at : 1;
}

static bool is_large(const struct vnode *node)
{
	return node->size > UINT32_MAX || links_of(node) > UINT16_MAX;
}

static uint64_t nid_of(const struct erofs *erofs, uint32_t node)
{
	uint32_t low = 0, high = erofs->nr_large;

	if (!is_large(&erofs->tree->nodes[node]))
		return (uint64_t)INODES_AT * SLOTS_PER_BLOCK + node;
	while (high - low > 1) {
		uint32_t mid = low + (high - low) / 2;

		if (erofs->large[mid] <= node)
			low = mid;
		else
			high = mid;
	}
	return (uint64_t)erofs->large_at * SLOTS_PER_BLOCK + LARGE_SLOTS * low;
}

static uint32_t mode_of(const struct vnode *node)
{
	switch (node->kind) {
	case VNODE_DIR:
		return 0040755;
	case VNODE_TEXT:
		return 0100444;
	default:
		return node->mark == VNODE_LINK ? 0120777 :
		       node->mark == VNODE_EXEC ? 0100755 :
						  0100644;
	}
}

static uint8_t type_of(const struct vnode *node)
{
	return node->kind == VNODE_DIR	? TYPE_FOLDER :
	       node->mark == VNODE_LINK ? TYPE_LINK :
					  TYPE_FILE;
}

static void put_inode(const struct erofs *erofs, uint32_t number, uint8_t *ret)
{
	const struct vnode *node = &erofs->tree->nodes[number];
	bool large = is_large(node);

	put16(ret, large ? LARGE_INODE : 0);
	put16(ret + 4, mode_of(node));
	put64(ret + 8, node->size); /* only 32 bits of a small one */
	put32(ret + 16, node->block);
	put32(ret + 20, number + 1); /* for programs of 32 bits */
	if (!large) {
		put16(ret + 6, (uint32_t)links_of(node));
		return; /* its time is the superblock's */
	}
	put64(ret + 32, (uint64_t)erofs->tree->time);
	put32(ret + 44, (uint32_t)links_of(node));
}

static void small_inodes(const struct erofs *erofs, uint32_t block,
			 uint8_t *ret)
{
	uint32_t first = (block - INODES_AT) * SLOTS_PER_BLOCK;
	uint32_t end = MIN(first + SLOTS_PER_BLOCK, erofs->tree->nr);

	for (uint32_t i = first; i < end; i++)
		if (!is_large(&erofs->tree->nodes[i]))
			put_inode(erofs, i, ret + EROFS_SLOT * (i - first));
}

static void large_inodes(const struct erofs *erofs, uint32_t block,
			 uint8_t *ret)
{
	const uint32_t per_block = SLOTS_PER_BLOCK / LARGE_SLOTS;
	uint32_t first = (block - erofs->large_at) * per_block;
	uint32_t end = MIN(first + per_block, erofs->nr_large);

	for (uint32_t i = first; i < end; i++)
		put_inode(erofs, erofs->large[i],
			  ret + EROFS_SLOT * LARGE_SLOTS * (i - first));
}

/* --- Folders ---------------------------------------------------------------- */

/* Its entries by number: children as they are sorted, "." and ".." between. */
struct listing {
	const struct erofs *erofs;
	uint32_t node;
	uint32_t nr; /* with the two */
	uint32_t dot, dots; /* where they are */
};

struct entry {
	uint32_t node;
	const char *name;
	size_t n;
};

/* How many children come before a name. */
static uint32_t count_before(const struct erofs *erofs, const struct vnode *dir,
			     const char *name)
{
	uint32_t low = 0, high = dir->nr;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		uint32_t child = erofs->sorted[dir->first + mid];

		if (strcmp(vtree_name(erofs->tree, child), name) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static struct listing list_folder(const struct erofs *erofs, uint32_t node)
{
	const struct vnode *dir = &erofs->tree->nodes[node];

	return (struct listing){
		.erofs = erofs,
		.node = node,
		.nr = dir->nr + 2,
		.dot = count_before(erofs, dir, "."),
		.dots = count_before(erofs, dir, "..") + 1,
	};
}

static struct entry entry_of(const struct listing *list, uint32_t i)
{
	const struct vtree *tree = list->erofs->tree;
	const struct vnode *dir = &tree->nodes[list->node];
	uint32_t child;

	if (i == list->dot)
		return (struct entry){ list->node, ".", 1 };
	if (i == list->dots) /* the root's is itself */
		return (struct entry){ dir->parent, "..", 2 };
	child = list->erofs->sorted[dir->first + i - (i > list->dot) -
				    (i > list->dots)];
	return (struct entry){ child, vtree_name(tree, child),
			       strlen(vtree_name(tree, child)) };
}

/* block: counted from the first one of folders. */
static void folder_block(const struct erofs *erofs, uint32_t block,
			 uint8_t *ret)
{
	uint32_t index =
		extents_owner(&erofs->folders, erofs->folders_at + block);
	struct listing list = list_folder(erofs, erofs->folders.order[index]);
	uint32_t last = extents_end(&erofs->folders, index) - 1;
	uint32_t first = erofs->starts[block];
	uint32_t end = erofs->folders_at + block == last ?
			       list.nr :
			       erofs->starts[block + 1];
	uint32_t name_at = (end - first) * EROFS_DIRENT_BYTES;

	for (uint32_t i = first; i < end; i++) {
		struct entry entry = entry_of(&list, i);
		uint8_t *dirent = ret + (i - first) * EROFS_DIRENT_BYTES;

		put64(dirent, nid_of(erofs, entry.node));
		put16(dirent + 8, name_at);
		dirent[10] = type_of(&erofs->tree->nodes[entry.node]);
		memcpy(ret + name_at, entry.name, entry.n);
		name_at += (uint32_t)entry.n;
	}
}

/* --- Layout: folders -------------------------------------------------------- */

static int by_name(const void *a, const void *b, void *arg)
{
	const struct vtree *tree = arg;

	return strcmp(vtree_name(tree, *(const uint32_t *)a),
		      vtree_name(tree, *(const uint32_t *)b));
}

/* Most folders are in order already. */
static void sort_folder(struct erofs *erofs, struct vtree *tree,
			const struct vnode *dir)
{
	uint32_t *sorted = erofs->sorted + dir->first;
	bool in_order = true;

	for (uint32_t i = 0; i < dir->nr; i++) {
		sorted[i] = dir->first + i;
		if (i > 0 && by_name(&sorted[i - 1], &sorted[i], tree) > 0)
			in_order = false;
	}
	if (!in_order)
		qsort_r(sorted, dir->nr, sizeof(*sorted), by_name, tree);
}

static int add_start(struct erofs *erofs, uint32_t entry)
{
	if (erofs->nr_starts == erofs->starts_room) {
		uint32_t room = MAX(2 * erofs->starts_room, 64u);
		uint32_t *starts =
			realloc(erofs->starts, room * sizeof(*starts));

		if (!starts)
			return -ENOMEM;
		erofs->starts = starts;
		erofs->starts_room = room;
	}
	erofs->starts[erofs->nr_starts++] = entry;
	return 0;
}

static int too_long(const struct vtree *tree, uint32_t node, char *ret_why)
{
	char path[200];

	return why(ret_why, -ENAMETOOLONG,
		   "%s: the name has more than %u bytes",
		   vtree_path(tree, node, path, sizeof(path)),
		   EROFS_NAME_BYTES);
}

/* Its size, its links, and where its blocks begin. */
static int measure_folder(struct erofs *erofs, struct vtree *tree,
			  uint32_t node, char *ret_why)
{
	struct vnode *dir = &tree->nodes[node];
	struct listing list;
	uint64_t size = 0;

	sort_folder(erofs, tree, dir);
	list = list_folder(erofs, node);
	dir->at = 2;
	for (uint32_t i = 0; i < list.nr; i++) {
		struct entry entry = entry_of(&list, i);
		uint64_t bytes = EROFS_DIRENT_BYTES + entry.n;

		if (entry.n > EROFS_NAME_BYTES)
			return too_long(tree, entry.node, ret_why);
		if (size % EROFS_BLOCK == 0 ||
		    size % EROFS_BLOCK + bytes > EROFS_BLOCK) {
			size = ALIGN_UP(size, EROFS_BLOCK);
			if (add_start(erofs, i) < 0)
				return why(ret_why, -ENOMEM,
					   "the layout: no memory");
		}
		size += bytes;
		if (i != list.dot && i != list.dots &&
		    tree->nodes[entry.node].kind == VNODE_DIR)
			dir->at++;
	}
	dir->size = size;
	return 0;
}

static int measure_folders(struct erofs *erofs, struct vtree *tree,
			   uint32_t *ret_nr, char *ret_why)
{
	int r = 0;

	*ret_nr = 0;
	for (uint32_t i = 0; i < tree->nr && r == 0; i++) {
		if (tree->nodes[i].kind != VNODE_DIR)
			continue;
		r = measure_folder(erofs, tree, i, ret_why);
		(*ret_nr)++;
	}
	return r;
}

/* --- Layout: files ---------------------------------------------------------- */

static int find_large(struct erofs *erofs, const struct vtree *tree)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < tree->nr; i++)
		n += is_large(&tree->nodes[i]);
	erofs->large = calloc(MAX(n, 1u), sizeof(*erofs->large));
	if (!erofs->large)
		return -ENOMEM;
	for (uint32_t i = 0; i < tree->nr; i++)
		if (is_large(&tree->nodes[i]))
			erofs->large[erofs->nr_large++] = i;
	return 0;
}

/* Blocks of metadata are few: a million nodes take no more than 300,000. */
static int check_room(const struct erofs *erofs, const struct vtree *tree,
		      const struct layout_options *options, char *ret_why)
{
	uint64_t most = options->partition == LAYOUT_BARE ?
				MOST_BLOCKS :
				UINT32_MAX / (EROFS_BLOCK / LAYOUT_SECTOR);
	uint64_t blocks = erofs->files_at;
	char path[200];

	for (uint32_t i = 0; i < tree->nr; i++) {
		const struct vnode *node = &tree->nodes[i];

		if (node->kind == VNODE_DIR)
			continue;
		blocks += node->size / EROFS_BLOCK +
			  (node->size % EROFS_BLOCK != 0);
		if (blocks > most)
			return why(ret_why, -EFBIG,
				   "%s: with its %" PRIu64
				   " bytes the files are "
				   "more than %s can hold",
				   vtree_path(tree, i, path, sizeof(path)),
				   node->size,
				   options->partition == LAYOUT_BARE ?
					   "EROFS (16 TiB)" :
					   "a partition (2 TiB)");
	}
	return 0;
}

static void place_all(struct erofs *erofs, struct vtree *tree)
{
	for (uint32_t i = 0; i < tree->nr; i++) {
		if (tree->nodes[i].kind == VNODE_DIR)
			extents_place(&erofs->folders, tree, i);
		else if (tree->nodes[i].size > 0)
			extents_place(&erofs->files, tree, i);
	}
}

/* --- Layout: all of it ------------------------------------------------------ */

/* CRC-32C as the format has it, not inverted at the end. */
static uint32_t crc32c(uint32_t crc, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return crc;
}

/* Of SHA-1, as version 5 of RFC 9562 has it. */
static void put_uuid(uint8_t ret[16], const uint8_t id[LAYOUT_ID])
{
	memcpy(ret, id, 16);
	ret[6] = (uint8_t)((ret[6] & 0x0f) | 0x50);
	ret[8] = (uint8_t)((ret[8] & 0x3f) | 0x80);
}

static void make_super(struct erofs *erofs,
		       const struct layout_options *options)
{
	uint8_t block[EROFS_BLOCK - EROFS_SUPER_AT] = { 0 };
	size_t n = strlen(options->label);

	put32(block, EROFS_MAGIC);
	put32(block + 8, COMPAT_CHECKSUM | COMPAT_MTIME);
	block[12] = 12; /* bits of a block */
	put16(block + 14, INODES_AT * SLOTS_PER_BLOCK); /* the root */
	put64(block + 16, erofs->tree->nr);
	put64(block + 24, (uint64_t)erofs->tree->time);
	put32(block + 36, erofs->files.end);
	put_uuid(block + 48, options->id);
	memcpy(block + 64, options->label, MIN(n, EROFS_LABEL_BYTES));
	/* Of all that is behind it in its block, too. */
	put32(block + 4, crc32c(UINT32_MAX, block, sizeof(block)));
	memcpy(erofs->super, block, sizeof(erofs->super));
}

static int lay_out(struct erofs *erofs, struct vtree *tree,
		   const struct layout_options *options, char *ret_why)
{
	uint32_t folders;
	int r = measure_folders(erofs, tree, &folders, ret_why);

	if (r < 0)
		return r;
	if (find_large(erofs, tree) < 0)
		return why(ret_why, -ENOMEM, "the layout: no memory");
	erofs->large_at = INODES_AT + DIV_ROUND_UP(tree->nr, SLOTS_PER_BLOCK);
	erofs->folders_at =
		erofs->large_at +
		DIV_ROUND_UP(erofs->nr_large * LARGE_SLOTS, SLOTS_PER_BLOCK);
	erofs->files_at = erofs->folders_at + erofs->nr_starts;
	r = check_room(erofs, tree, options, ret_why);
	if (r < 0)
		return r;
	if (extents_new(&erofs->folders, tree, folders, EROFS_BLOCK,
			erofs->folders_at) < 0 ||
	    extents_new(&erofs->files, tree, tree->nr - folders, EROFS_BLOCK,
			erofs->files_at) < 0)
		return why(ret_why, -ENOMEM, "the layout: no memory");
	place_all(erofs, tree);
	make_super(erofs, options);
	return 0;
}

static void erofs_free(struct layout *layout)
{
	struct erofs *erofs = container_of(layout, struct erofs, layout);

	extents_free(&erofs->folders);
	extents_free(&erofs->files);
	free(erofs->sorted);
	free(erofs->large);
	free(erofs->starts);
	free(erofs);
}

static int erofs_make(struct layout **ret, struct vtree *tree,
		      const struct layout_options *options, char *ret_why)
{
	struct erofs *erofs = calloc(1, sizeof(*erofs));
	const uint8_t *id = options->id;
	int r = 0;

	if (erofs)
		erofs->sorted = calloc(tree->nr, sizeof(*erofs->sorted));
	if (!erofs || !erofs->sorted) {
		free(erofs);
		return why(ret_why, -ENOMEM, "the layout: no memory");
	}
	erofs->layout.ops = &erofs_ops;
	erofs->tree = tree;
	erofs->serial = (uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 |
			(uint32_t)id[2] << 8 | id[3];
	if (options->partition != LAYOUT_BARE)
		erofs->before =
			LAYOUT_PARTITION_AT / (EROFS_BLOCK / LAYOUT_SECTOR);
	r = lay_out(erofs, tree, options, ret_why);
	if (r < 0) {
		erofs_free(&erofs->layout);
		return r;
	}
	erofs->layout.size =
		((uint64_t)erofs->before + erofs->files.end) * EROFS_BLOCK;
	*ret = &erofs->layout;
	return 0;
}

static int erofs_check(const struct layout_options *options, char *ret_why)
{
	size_t n = strlen(options->label);

	if (options->partition == LAYOUT_ESP)
		return why(ret_why, -EINVAL,
			   "esp: UEFI boots from FAT, not from erofs");
	if (n < 1 || n > EROFS_LABEL_BYTES)
		return why(ret_why, -EINVAL,
			   "label: \"%.40s\" is not 1 to %u bytes",
			   options->label, EROFS_LABEL_BYTES);
	return 0;
}

/* --- What is where ---------------------------------------------------------- */

static void erofs_meta(const struct layout *layout, uint64_t number,
		       uint8_t *ret)
{
	const struct erofs *erofs = erofs_of(layout);
	uint32_t block = (uint32_t)(number - erofs->before);

	memset(ret, 0, EROFS_BLOCK);
	if (number < erofs->before) {
		if (number == 0)
			layout_mbr(ret, erofs->serial, TYPE_LINUX,
				   layout->size);
	} else if (block < INODES_AT) {
		memcpy(ret + EROFS_SUPER_AT, erofs->super,
		       sizeof(erofs->super));
	} else if (block < erofs->large_at) {
		small_inodes(erofs, block, ret);
	} else if (block < erofs->folders_at) {
		large_inodes(erofs, block, ret);
	} else {
		folder_block(erofs, block - erofs->folders_at, ret);
	}
}

static struct piece erofs_find(const struct layout *layout, uint64_t offset,
			       uint64_t length)
{
	const struct erofs *erofs = erofs_of(layout);
	uint64_t files =
		((uint64_t)erofs->before + erofs->files_at) * EROFS_BLOCK;

	if (offset < files)
		return (struct piece){ .kind = PIECE_META,
				       .length = MIN(length, files - offset) };
	return extents_find(&erofs->files, offset - files, length);
}

static void erofs_describe(const struct layout *layout, char *ret, size_t size)
{
	(void)snprintf(ret, size, "EROFS, %u blocks of %u bytes",
		       erofs_of(layout)->files.end, EROFS_BLOCK);
}

const struct layout_ops erofs_ops = {
	.name = "erofs",
	.posix = true,
	.unit = EROFS_BLOCK,
	.check = erofs_check,
	.make = erofs_make,
	.free = erofs_free,
	.find = erofs_find,
	.meta = erofs_meta,
	.describe = erofs_describe,
};
