/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "tree-disk.h"

#include "common/util.h"

#define TRIES 3u /* a repack may come in between */

static int read_tree(struct tree_disk *disk, int objects,
		     const struct build_source *source,
		     struct build_counts *ret_counts, char *ret_why)
{
	struct reader *reader = NULL;
	int r = cache_new(&disk->cache, TREE_DISK_CACHE);

	if (r == 0)
		r = odb_open(&disk->odb, objects, ret_why);
	if (r == 0)
		r = reader_new(&reader, disk->odb, disk->cache);
	if (r == 0)
		r = build_vtree(&disk->tree, disk->odb, reader, disk->cache,
				source, ret_counts, ret_why);
	reader_free(reader);
	if (r < 0)
		tree_disk_free(disk);
	return r;
}

/* Objects are in a new pack before the old ones are gone, but we may have looked
 * before that. */
int tree_disk_make(struct tree_disk *ret, int objects,
		   const struct build_source *source,
		   const struct layout_ops *ops,
		   const struct layout_options *options,
		   struct build_counts *ret_counts, char *ret_why)
{
	int r = -ENOENT;

	for (unsigned int i = 0; i < TRIES && r == -ENOENT; i++)
		r = read_tree(ret, objects, source, ret_counts, ret_why);
	if (r == 0)
		r = ops->make(&ret->layout, &ret->tree, options, ret_why);
	if (r < 0)
		tree_disk_free(ret);
	return r;
}

void tree_disk_free(struct tree_disk *disk)
{
	layout_free(TAKE_PTR(disk->layout));
	vtree_free(&disk->tree);
	odb_close(TAKE_PTR(disk->odb));
	cache_free(TAKE_PTR(disk->cache));
}
