/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fs-fat.c - FAT12, FAT16 and FAT32, as fat-read.c reads it. */
#include "config.h"

#include <string.h>

#include "common/util.h"
#include "fat-read.h"
#include "fs-tree.h"

static int read_bytes(void *ctx, uint64_t offset, void *buf, size_t n)
{
	struct fs_volume *volume = ctx;
	char reason[WHY_MAX];

	return commit_disk_read(volume->disk, offset, buf, n, reason);
}

/* The children of a folder, in both trees; a folder of ours is where its handle
 * says it is in theirs. */
static int copy_folder(struct fs_tree *tree, const struct vtree *from,
		       const struct fat_volume *fat, uint32_t folder,
		       char *ret_why)
{
	const struct vnode *dir = &from->nodes[tree->nodes[folder].handle];
	struct fs_node *to;
	struct fat_run run;
	int r = 0;

	tree->nodes[folder].first = tree->nr;
	for (uint32_t i = dir->first; i < dir->first + dir->nr && r == 0; i++) {
		const char *name = vtree_name(from, i);
		const struct vnode *node = &from->nodes[i];
		bool is_dir = node->kind == VNODE_DIR;
		uint32_t at;

		r = fs_tree_add(tree, folder, name, strlen(name), &at, ret_why);
		if (r < 0)
			return r;
		to = &tree->nodes[at];
		to->mode = is_dir ? S_IFDIR : S_IFREG;
		to->size = is_dir ? 0 : node->size;
		to->handle = i;
		if (is_dir)
			to->identity[0] = node->block;
		else if (fat_volume_first_run(fat, i, &run))
			to->identity[0] = run.offset;
	}
	fs_tree_sort(tree, folder);
	return 0;
}

static int fat_read(struct fs_volume *volume, char *ret_why)
{
	const struct fat_source source = { .read = read_bytes,
					   .ctx = volume,
					   .mounted = true };
	struct fs_tree *tree = &volume->tree;
	struct fat_volume *fat;
	int r;

	/* Clusters that have become free are soon another file's. */
	tree->weak_identity = true;
	r = fat_volume_read(&fat, &source, volume->start,
			    volume->start + volume->size, ret_why);

	if (r < 0)
		return r;
	volume->data = fat;
	for (uint32_t i = 0; i < tree->nr && r == 0; i++)
		if (S_ISDIR(tree->nodes[i].mode))
			r = copy_folder(tree, fat_volume_tree(fat), fat, i,
					ret_why);
	return r;
}

struct adding {
	struct fs_runs *runs;
	char *why;
};

static int add_run(void *ctx, uint64_t at, const struct fat_run *run)
{
	struct adding *adding = ctx;

	return fs_runs_add(adding->runs,
			   &(struct fs_run){ .at = at,
					     .where = run->offset,
					     .length = run->length },
			   adding->why);
}

static int fat_runs(struct fs_volume *volume, uint32_t node,
		    struct fs_runs *ret, char *ret_why)
{
	struct adding adding = { ret, ret_why };

	return fat_volume_runs(volume->data,
			       (uint32_t)volume->tree.nodes[node].handle,
			       add_run, &adding, ret_why);
}

static void fat_close(struct fs_volume *volume)
{
	fat_volume_free(TAKE_PTR(volume->data));
}

#define FAT_OPS(kind)                                             \
	{                                                         \
		.name = kind, .read = fat_read, .runs = fat_runs, \
		.close = fat_close                                \
	}

const struct fs_ops *fs_fat_ops(unsigned int bits)
{
	static const struct fs_ops fat12 = FAT_OPS("FAT12");
	static const struct fs_ops fat16 = FAT_OPS("FAT16");
	static const struct fs_ops fat32 = FAT_OPS("FAT32");

	return bits == 12 ? &fat12 : bits == 16 ? &fat16 : &fat32;
}
