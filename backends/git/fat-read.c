/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The tree is read breadth first, as build.c does it: the children of a folder
 * side by side at the end of the array.  The chain of each file and folder is
 * followed once, to its end, and each cluster that is met is marked: one that is
 * met again belongs to two, or is a circle.  A folder is read as it is followed; of
 * a file nothing is, but its chain has to be as long as its size says.
 */
#include "config.h"

#include "fat-read.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "common/util.h"

#define FOLDER_MAX (2u << 20) /* bytes; the format has no larger ones */

struct fat_volume {
	struct fat_table table;
	struct vtree tree;
	char label[SHORT_BYTES + 1];
	uint8_t *taken; /* a bit for each cluster */
	uint8_t *buf; /* a cluster */
	uint8_t (*shorts)[SHORT_BYTES]; /* of the folder that is read */
	uint32_t nr_shorts, room_shorts;
};

/* --- What is wrong, and where ---------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int
bad(const struct fat_volume *v, uint32_t node, const char *fmt, ...)
{
	char path[200], text[WHY_MAX - 210];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return why(v->table.why, -EBADMSG, "%s: %s",
		   vtree_path(&v->tree, node, path, sizeof(path)), text);
}

static int no_memory(const struct fat_volume *v)
{
	return why(v->table.why, -ENOMEM, "there is not enough memory");
}

/* --- Chains ------------------------------------------------------------------------------ */

/* Marks a cluster as the node's. */
static int take_cluster(struct fat_volume *v, uint32_t node, uint32_t cluster)
{
	uint32_t i = cluster - FAT_FIRST_CLUSTER;

	if (cluster == 0 || fat_table_is_bad(&v->table, cluster))
		return bad(v, node, "a cluster of it is %s",
			   cluster == 0 ? "free" : "marked as bad");
	if (!fat_table_has(&v->table, cluster))
		return bad(v, node, "cluster %u is not there", cluster);
	if (v->taken[i / 8] & 1u << i % 8)
		return bad(v, node,
			   "cluster %u is in two files, or twice in this one",
			   cluster);
	v->taken[i / 8] |= (uint8_t)(1u << i % 8);
	return 0;
}

/* How many clusters from the first on lie side by side: the node's `at`. */
static int measure_chain(struct fat_volume *v, uint32_t node)
{
	struct vnode *file = &v->tree.nodes[node];
	uint64_t wanted = DIV_ROUND_UP(file->size, v->table.cluster), n = 0;
	uint32_t cluster = file->block, next = FAT_NONE;
	int r = 0;

	file->at = 0;
	for (; cluster != FAT_NONE && n < wanted && r == 0; cluster = next) {
		if (cluster == file->block + n && file->at == n)
			file->at++;
		n++;
		r = take_cluster(v, node, cluster);
		if (r == 0)
			r = fat_table_next(&v->table, cluster, &next);
	}
	if (r < 0)
		return r;
	if (cluster != FAT_NONE)
		return bad(v, node,
			   "more clusters than its %" PRIu64 " bytes take",
			   file->size);
	if (n < wanted)
		return bad(v, node,
			   "%" PRIu64 " clusters are less than its %" PRIu64
			   " bytes take",
			   n, file->size);
	return 0;
}

static int check_file(struct fat_volume *v, uint32_t node)
{
	struct vnode *file = &v->tree.nodes[node];

	if (file->size > 0)
		return measure_chain(v, node);
	return file->block == 0 ?
		       0 :
		       bad(v, node, "it is empty, and has a cluster");
}

/* --- Folders ------------------------------------------------------------------------------- */

/* The first two of all folders but the root. */
static int check_dots(const struct fat_volume *v, uint32_t folder,
		      const struct fat_entry *entry, uint32_t index)
{
	const struct vnode *dir = &v->tree.nodes[folder];
	uint32_t up = v->tree.nodes[dir->parent].block;
	bool right;

	if (!(entry->attributes & FAT_ATTR_FOLDER))
		right = false;
	else if (index == 0)
		right = strcmp(entry->name, ".") == 0 &&
			entry->cluster == dir->block;
	else /* the root is 0 there, wherever it is */
		right = strcmp(entry->name, "..") == 0 &&
			(entry->cluster == up ||
			 (dir->parent == 0 && entry->cluster == 0));
	return right ? 0 :
		       bad(v, folder,
			   "it does not begin with \".\" and \"..\"");
}

static int keep_short(struct fat_volume *v, const struct fat_entry *entry)
{
	void *shorts;

	if (v->nr_shorts == v->room_shorts) {
		uint32_t room = MAX(64u, 2 * v->room_shorts);

		shorts = realloc(v->shorts, room * sizeof(*v->shorts));
		if (!shorts)
			return no_memory(v);
		v->shorts = shorts;
		v->room_shorts = room;
	}
	memcpy(v->shorts[v->nr_shorts++], entry->short_name, SHORT_BYTES);
	return 0;
}

static int add_child(struct fat_volume *v, uint32_t folder,
		     const struct fat_entry *entry)
{
	bool is_dir = entry->attributes & FAT_ATTR_FOLDER;
	uint32_t node;
	int r = vtree_add(&v->tree, folder, is_dir ? VNODE_DIR : VNODE_BLOB,
			  entry->name, &node, v->table.why);

	if (r == 0)
		r = keep_short(v, entry);
	if (r < 0)
		return r;
	v->tree.nodes[node].block = entry->cluster;
	v->tree.nodes[node].size = entry->size;
	v->tree.nodes[folder].nr++;
	if (is_dir && entry->size != 0)
		return bad(v, node, "a folder that has a size");
	return 0;
}

static int add_entry(struct fat_volume *v, uint32_t folder,
		     const struct fat_entry *entry, uint32_t index)
{
	if (folder != 0 && index < 2)
		return check_dots(v, folder, entry, index);
	if (entry->attributes & FAT_ATTR_LABEL) {
		if (folder == 0)
			(void)snprintf(v->label, sizeof(v->label), "%.11s",
				       entry->name);
		return 0;
	}
	if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
		return bad(v, folder,
			   "\".\" or \"..\" where they do not belong");
	return add_child(v, folder, entry);
}

/* A folder while it is read. */
struct reading {
	struct fat_slots slots;
	uint32_t folder;
	uint32_t entries; /* so far */
	bool ended;
};

/* Of the n bytes in v->buf. */
static int read_slots(struct fat_volume *v, struct reading *reading, uint32_t n)
{
	struct fat_entry entry;
	const char *fault = "";
	int r = 0;

	for (uint32_t at = 0; at < n && !reading->ended && r == 0;
	     at += FAT_SLOT) {
		r = fat_slots_take(&reading->slots, v->buf + at, &entry,
				   &fault);
		if (r < 0)
			return bad(v, reading->folder, "%s", fault);
		/* The upper half is somebody else's there, OS/2's for one. */
		if (r == FAT_SLOT_ENTRY && v->table.bits != 32)
			entry.cluster &= 0xffff;
		reading->ended = r == FAT_SLOT_END;
		r = r == FAT_SLOT_ENTRY ? add_entry(v, reading->folder, &entry,
						    reading->entries++) :
					  0;
	}
	return r;
}

static int by_bytes(const void *a, const void *b)
{
	return memcmp(a, b, SHORT_BYTES);
}

static int check_names(struct fat_volume *v, uint32_t folder)
{
	uint32_t other;
	int r = vtree_same_names(&v->tree, folder, &other, v->table.why);

	if (r < 0)
		return r;
	if (r > 0)
		return bad(v, other, "there are two of that name");
	if (v->nr_shorts > 1)
		qsort(v->shorts, v->nr_shorts, SHORT_BYTES, by_bytes);
	for (uint32_t i = 1; i < v->nr_shorts; i++)
		if (by_bytes(v->shorts[i - 1], v->shorts[i]) == 0)
			return bad(v, folder,
				   "there are two of the short name \"%.11s\"",
				   (const char *)v->shorts[i]);
	return 0;
}

static int check_depth(const struct fat_volume *v, uint32_t folder)
{
	uint32_t depth = 0;
	char path[200];

	for (uint32_t i = folder; i != 0; i = v->tree.nodes[i].parent)
		depth++;
	if (depth <= VTREE_MAX_DEPTH)
		return 0;
	return why(v->table.why, -E2BIG, "%s: folders are more than %u deep",
		   vtree_path(&v->tree, folder, path, sizeof(path)),
		   VTREE_MAX_DEPTH);
}

static int read_chain(struct fat_volume *v, struct reading *reading)
{
	uint32_t cluster = v->tree.nodes[reading->folder].block;
	uint64_t bytes = 0;
	int r = 0;

	for (; cluster != FAT_NONE && r == 0; bytes += v->table.cluster) {
		if (bytes >= FOLDER_MAX)
			return bad(v, reading->folder,
				   "more entries than a folder can have");
		r = take_cluster(v, reading->folder, cluster);
		if (r == 0 && !reading->ended)
			r = fat_table_read(&v->table,
					   fat_table_offset(&v->table, cluster),
					   v->buf, v->table.cluster);
		if (r == 0 && !reading->ended)
			r = read_slots(v, reading, v->table.cluster);
		if (r == 0)
			r = fat_table_next(&v->table, cluster, &cluster);
	}
	return r;
}

/* The root of FAT12 and FAT16, which has its place behind the FATs. */
static int read_region(struct fat_volume *v, struct reading *reading)
{
	uint32_t n = FAT_SECTOR_BYTES;
	int r = 0;

	for (uint32_t at = 0;
	     at < v->table.root_bytes && !reading->ended && r == 0; at += n) {
		r = fat_table_read(&v->table, v->table.root_at + at, v->buf, n);
		if (r == 0)
			r = read_slots(v, reading, n);
	}
	return r;
}

static int read_folder(struct fat_volume *v, uint32_t folder)
{
	struct reading reading = { .folder = folder };
	int r = check_depth(v, folder);

	v->nr_shorts = 0;
	v->tree.nodes[folder].first = v->tree.nr;
	if (r == 0)
		r = folder == 0 && v->table.root_bytes > 0 ?
			    read_region(v, &reading) :
			    read_chain(v, &reading);
	if (r == 0 && folder != 0 && reading.entries < 2)
		return bad(v, folder, "it has no \".\" and \"..\"");
	return r == 0 ? check_names(v, folder) : r;
}

/* --- All of it -------------------------------------------------------------------------------- */

static int make_tables(struct fat_volume *v)
{
	v->taken = calloc(v->table.nr_clusters / 8 + 1, 1);
	v->buf = malloc(v->table.cluster);
	return v->taken && v->buf ? 0 : no_memory(v);
}

static int read_tree(struct fat_volume *v)
{
	uint32_t root;
	int r = vtree_add(&v->tree, 0, VNODE_DIR, "", &root, v->table.why);

	if (r == 0)
		v->tree.nodes[root].block = v->table.root;
	for (uint32_t i = 0; i < v->tree.nr && r == 0; i++)
		r = v->tree.nodes[i].kind == VNODE_DIR ? read_folder(v, i) :
							 check_file(v, i);
	return r;
}

int fat_volume_read(struct fat_volume **ret, const struct fat_source *source,
		    uint64_t start, uint64_t size, char *ret_why)
{
	struct fat_volume *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return why(ret_why, -ENOMEM, "there is not enough memory");
	v->table.source = *source;
	v->table.start = start;
	v->table.size = size > start ? size - start : 0;
	v->table.why = ret_why;
	r = fat_table_open(&v->table);
	if (r == 0)
		r = make_tables(v);
	if (r == 0)
		r = read_tree(v);
	free(TAKE_PTR(v->taken));
	free(TAKE_PTR(v->shorts));
	if (r < 0) {
		fat_volume_free(v);
		return r;
	}
	*ret = v;
	return 0;
}

void fat_volume_free(struct fat_volume *volume)
{
	if (!volume)
		return;
	vtree_free(&volume->tree);
	free(volume->taken);
	fat_table_close(&volume->table);
	free(volume->buf);
	free(volume->shorts);
	free(volume);
}

const struct vtree *fat_volume_tree(const struct fat_volume *volume)
{
	return &volume->tree;
}

const char *fat_volume_label(const struct fat_volume *volume)
{
	return volume->label;
}

/* --- Files ------------------------------------------------------------------------------------ */

bool fat_volume_first_run(const struct fat_volume *volume, uint32_t node,
			  struct fat_run *ret)
{
	const struct vnode *file = &volume->tree.nodes[node];

	if (file->size == 0)
		return false;
	*ret = (struct fat_run){
		volume->table.start +
			fat_table_offset(&volume->table, file->block),
		MIN(file->size, file->at * volume->table.cluster)
	};
	return true;
}

/* Its chain has been checked; what is said of it now may be different, if the
 * disk is. */
static int check_again(const struct fat_volume *v, uint32_t node,
		       uint32_t cluster)
{
	return fat_table_has(&v->table, cluster) ?
		       0 :
		       bad(v, node, "it was changed while it was read");
}

int fat_volume_runs(struct fat_volume *volume, uint32_t node,
		    int (*fn)(void *ctx, uint64_t at,
			      const struct fat_run *run),
		    void *ctx, char *ret_why)
{
	const struct vnode *file = &volume->tree.nodes[node];
	uint32_t cluster = file->block;
	uint64_t begin = 0;
	struct fat_run run = { 0, 0 };
	int r = 0;

	volume->table.why = ret_why;
	for (uint64_t at = 0; at < file->size && r == 0;
	     at += volume->table.cluster) {
		uint64_t where;

		r = check_again(volume, node, cluster);
		if (r < 0)
			return r;
		where = volume->table.start +
			fat_table_offset(&volume->table, cluster);
		if (where != run.offset + run.length) {
			if (run.length > 0)
				r = fn(ctx, begin, &run);
			begin = at;
			run = (struct fat_run){ .offset = where };
		}
		run.length += MIN(file->size - at, volume->table.cluster);
		if (r == 0)
			r = fat_table_next(&volume->table, cluster, &cluster);
	}
	return r == 0 && run.length > 0 ? fn(ctx, begin, &run) : r;
}

int fat_volume_file(struct fat_volume *volume, uint32_t node, void *buf,
		    char *ret_why)
{
	const struct vnode *file = &volume->tree.nodes[node];
	uint32_t cluster = file->block;
	int r = 0;

	volume->table.why = ret_why;
	for (uint64_t at = 0; at < file->size && r == 0;
	     at += volume->table.cluster) {
		uint64_t left = file->size - at;

		r = check_again(volume, node, cluster);
		if (r < 0)
			return r;
		r = fat_table_read(&volume->table,
				   fat_table_offset(&volume->table, cluster),
				   (uint8_t *)buf + at,
				   (size_t)MIN(left, volume->table.cluster));
		if (r == 0)
			r = fat_table_next(&volume->table, cluster, &cluster);
	}
	return r;
}
