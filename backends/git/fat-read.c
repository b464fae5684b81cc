/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The tree is read breadth first, as build.c does it: the children of a folder
 * side by side at the end of the array.  The chain of each file and folder is
 * followed once, to its end, and each cluster that is met is marked: one that is
 * met again belongs to two, or is a circle.  A folder is read as it is followed; of
 * a file nothing is, but its chain has to be as long as its size says.
 *
 * The FAT is read through a small cache, both copies of it, which must be the
 * same.  What is not checked, since it does not say what is in a file: FSInfo, the
 * copy of the boot sector, and clusters that are taken but belong to nobody.
 */
#include "config.h"

#include "fat-read.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "common/util.h"

#define SECTOR	      512u
#define FIRST_CLUSTER 2u
#define MOST_CLUSTERS 0x0ffffff5u
#define END_OF_CHAIN  0x0ffffff8u /* and all above */
#define BAD_CLUSTER   0x0ffffff7u
#define ENTRY_MASK    0x0fffffffu
#define FOLDER_MAX    (2u << 20) /* bytes; the format has no larger ones */
#define NONE	      UINT32_MAX

/* In the second entry of the FAT: set when all is well. */
#define CLEAN	  0x08000000u
#define NO_ERRORS 0x04000000u
/* In the boot sector: set when it is not.  Linux has it from 3.10 on. */
#define DIRTY 0x01u

#define WINDOW	4096u /* bytes of the FAT */
#define WINDOWS 64u

struct window {
	uint64_t number; /* plus 1; 0: there is nothing in it */
	uint8_t bytes[WINDOW];
};

struct fat_volume {
	struct fat_source source;
	uint64_t start, size; /* of the file system, bytes */
	struct vtree tree;
	char label[SHORT_BYTES + 1];
	uint32_t root;
	uint32_t cluster; /* bytes */
	uint32_t nr_clusters;
	uint64_t fat; /* where the one that counts begins, bytes */
	uint64_t copy; /* ... and the one that is the same; 0: there is none */
	uint64_t fat_bytes; /* of each */
	uint64_t data; /* where cluster 2 begins, bytes */
	uint8_t *taken; /* a bit for each cluster */
	struct window *windows;
	uint8_t *buf; /* a cluster */
	uint8_t (*shorts)[SHORT_BYTES]; /* of the folder that is read */
	uint32_t nr_shorts, room_shorts;
	char *why;
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
	return why(v->why, -EBADMSG, "%s: %s",
		   vtree_path(&v->tree, node, path, sizeof(path)), text);
}

static int no_memory(const struct fat_volume *v)
{
	return why(v->why, -ENOMEM, "there is not enough memory");
}

/* --- Reading ------------------------------------------------------------------------ */

static int read_at(const struct fat_volume *v, uint64_t offset, void *buf,
		   size_t n)
{
	int r = v->source.read(v->source.ctx, v->start + offset, buf, n);

	return r < 0 ? why(v->why, r,
			   "reading %zu bytes of the disk at %" PRIu64 ": %s",
			   n, v->start + offset, strerror(-r)) :
		       0;
}

static int load_window(const struct fat_volume *v, uint64_t number,
		       struct window *window)
{
	uint64_t at = number * WINDOW;
	size_t n = (size_t)MIN(v->fat_bytes - at, WINDOW);
	uint8_t copy[WINDOW];
	int r;

	window->number = 0;
	r = read_at(v, v->fat + at, window->bytes, n);
	if (r == 0 && v->copy)
		r = read_at(v, v->copy + at, copy, n);
	if (r < 0)
		return r;
	if (v->copy && memcmp(window->bytes, copy, n) != 0)
		return why(v->why, -EBADMSG,
			   "the two FATs differ, for clusters from %" PRIu64
			   " on",
			   at / 4);
	window->number = number + 1;
	return 0;
}

/* A cluster that is there, or 0 or 1. */
static int read_fat(const struct fat_volume *v, uint32_t cluster, uint32_t *ret)
{
	uint64_t at = 4ull * cluster, number = at / WINDOW;
	struct window *window = &v->windows[number % WINDOWS];
	int r = window->number == number + 1 ? 0 :
					       load_window(v, number, window);

	if (r == 0)
		*ret = get32(window->bytes + at % WINDOW);
	return r;
}

static uint64_t offset_of(const struct fat_volume *v, uint32_t cluster)
{
	return v->data + (uint64_t)(cluster - FIRST_CLUSTER) * v->cluster;
}

/* --- The boot sector ------------------------------------------------------------------ */

struct boot {
	uint32_t cluster; /* sectors */
	uint32_t reserved, fats, fat; /* sectors, number, sectors */
	uint32_t all; /* sectors */
	uint32_t flags;
	uint32_t root;
};

static const char *find_fault(const uint8_t *p, const struct boot *boot)
{
	uint64_t data = boot->reserved + (uint64_t)boot->fats * boot->fat;

	if (get16(p + 510) != 0xaa55)
		return "no boot sector";
	if (get16(p + 11) != SECTOR)
		return "sectors that are not of 512 bytes";
	if (boot->cluster == 0 || (boot->cluster & (boot->cluster - 1)) != 0)
		return "clusters of an impossible size";
	if (get16(p + 17) != 0 || get16(p + 19) != 0 || get16(p + 22) != 0 ||
	    get16(p + 42) != 0)
		return "FAT12, FAT16, or a version of FAT32 that is not 0.0";
	if (boot->reserved == 0 || boot->fats == 0 || boot->fats > 2 ||
	    boot->fat == 0)
		return "a number of FATs or reserved sectors that cannot be";
	if ((boot->flags & 0x80) && (boot->flags & 0x0f) >= boot->fats)
		return "a FAT in use that is not there";
	if (data + boot->cluster > boot->all)
		return "no room for a cluster";
	return NULL;
}

static int set_geometry(struct fat_volume *v, const struct boot *boot)
{
	uint64_t data = boot->reserved + (uint64_t)boot->fats * boot->fat;
	uint64_t clusters = (boot->all - data) / boot->cluster;
	uint64_t fats = (uint64_t)boot->reserved * SECTOR;
	bool one = boot->fats == 1 || (boot->flags & 0x80);

	v->fat_bytes = (uint64_t)boot->fat * SECTOR;
	v->fat = fats;
	if (boot->flags & 0x80)
		v->fat += (boot->flags & 0x0f) * v->fat_bytes;
	v->copy = one ? 0 : fats + v->fat_bytes;
	v->data = data * SECTOR;
	v->cluster = boot->cluster * SECTOR;
	v->root = boot->root;
	if ((uint64_t)boot->all * SECTOR > v->size)
		return why(v->why, -EBADMSG,
			   "the file system has %u sectors, which is more than "
			   "the disk",
			   boot->all);
	if (clusters > MOST_CLUSTERS ||
	    (clusters + FIRST_CLUSTER) * 4 > v->fat_bytes)
		return why(v->why, -EBADMSG,
			   "%" PRIu64
			   " clusters are more than a FAT of %" PRIu64
			   " bytes has room for",
			   clusters, v->fat_bytes);
	v->nr_clusters = (uint32_t)clusters;
	return 0;
}

static int read_boot(struct fat_volume *v, bool *ret_dirty)
{
	uint8_t p[SECTOR];
	struct boot boot;
	const char *fault;
	int r;

	if (v->size < SECTOR)
		return why(v->why, -EBADMSG, "the disk ends before it begins");
	r = read_at(v, 0, p, sizeof(p));
	if (r < 0)
		return r;
	boot = (struct boot){ .cluster = p[13],
			      .reserved = get16(p + 14),
			      .fats = p[16],
			      .fat = get32(p + 36),
			      .all = get32(p + 32),
			      .flags = get16(p + 40),
			      .root = get32(p + 44) };
	fault = find_fault(p, &boot);
	if (fault)
		return why(v->why, -EBADMSG, "there is no FAT32: %s", fault);
	*ret_dirty = (p[65] & DIRTY) != 0;
	return set_geometry(v, &boot);
}

static int check_clean(const struct fat_volume *v, bool dirty)
{
	uint32_t medium, state;
	int r = read_fat(v, 0, &medium);

	if (r == 0)
		r = read_fat(v, 1, &state);
	if (r < 0)
		return r;
	if ((medium & 0x0fffff00) != 0x0fffff00)
		return why(v->why, -EBADMSG,
			   "the FAT does not begin as one does");
	if (!v->source.mounted && (dirty || !(state & CLEAN)))
		return why(v->why, -EBUSY,
			   "the file system is mounted for writing, or was not "
			   "unmounted");
	if (!(state & NO_ERRORS))
		return why(v->why, -EBADMSG,
			   "a guest has marked the disk: it had I/O errors");
	return 0;
}

/* --- Chains ------------------------------------------------------------------------------ */

/* Marks a cluster as the node's. */
static int take_cluster(struct fat_volume *v, uint32_t node, uint32_t cluster)
{
	uint32_t i = cluster - FIRST_CLUSTER;

	if (cluster == 0 || cluster == BAD_CLUSTER)
		return bad(v, node, "a cluster of it is %s",
			   cluster == 0 ? "free" : "marked as bad");
	if (cluster < FIRST_CLUSTER || i >= v->nr_clusters)
		return bad(v, node, "cluster %u is not there", cluster);
	if (v->taken[i / 8] & 1u << i % 8)
		return bad(v, node,
			   "cluster %u is in two files, or twice in this one",
			   cluster);
	v->taken[i / 8] |= (uint8_t)(1u << i % 8);
	return 0;
}

/* The one behind it; NONE: it is the last. */
static int next_cluster(const struct fat_volume *v, uint32_t cluster,
			uint32_t *ret)
{
	uint32_t entry;
	int r = read_fat(v, cluster, &entry);

	if (r < 0)
		return r;
	entry &= ENTRY_MASK;
	*ret = entry >= END_OF_CHAIN ? NONE : entry;
	return 0;
}

/* How many clusters from the first on lie side by side: the node's `at`. */
static int measure_chain(struct fat_volume *v, uint32_t node)
{
	struct vnode *file = &v->tree.nodes[node];
	uint64_t wanted = DIV_ROUND_UP(file->size, v->cluster), n = 0;
	uint32_t cluster = file->block, next = NONE;
	int r = 0;

	file->at = 0;
	for (; cluster != NONE && n < wanted && r == 0; cluster = next) {
		if (cluster == file->block + n && file->at == n)
			file->at++;
		n++;
		r = take_cluster(v, node, cluster);
		if (r == 0)
			r = next_cluster(v, cluster, &next);
	}
	if (r < 0)
		return r;
	if (cluster != NONE)
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
			  entry->name, &node, v->why);

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

static int read_slots(struct fat_volume *v, struct reading *reading)
{
	struct fat_entry entry;
	const char *fault = "";
	int r = 0;

	for (uint32_t at = 0; at < v->cluster && !reading->ended && r == 0;
	     at += FAT_SLOT) {
		r = fat_slots_take(&reading->slots, v->buf + at, &entry,
				   &fault);
		if (r < 0)
			return bad(v, reading->folder, "%s", fault);
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
	int r = vtree_same_names(&v->tree, folder, &other, v->why);

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
	return why(v->why, -E2BIG, "%s: folders are more than %u deep",
		   vtree_path(&v->tree, folder, path, sizeof(path)),
		   VTREE_MAX_DEPTH);
}

static int read_chain(struct fat_volume *v, struct reading *reading)
{
	uint32_t cluster = v->tree.nodes[reading->folder].block;
	uint64_t bytes = 0;
	int r = 0;

	for (; cluster != NONE && r == 0; bytes += v->cluster) {
		if (bytes >= FOLDER_MAX)
			return bad(v, reading->folder,
				   "more entries than a folder can have");
		r = take_cluster(v, reading->folder, cluster);
		if (r == 0 && !reading->ended)
			r = read_at(v, offset_of(v, cluster), v->buf,
				    v->cluster);
		if (r == 0 && !reading->ended)
			r = read_slots(v, reading);
		if (r == 0)
			r = next_cluster(v, cluster, &cluster);
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
		r = read_chain(v, &reading);
	if (r == 0 && folder != 0 && reading.entries < 2)
		return bad(v, folder, "it has no \".\" and \"..\"");
	return r == 0 ? check_names(v, folder) : r;
}

/* --- All of it -------------------------------------------------------------------------------- */

static int make_tables(struct fat_volume *v)
{
	v->windows = calloc(WINDOWS, sizeof(*v->windows));
	v->taken = calloc(v->nr_clusters / 8 + 1, 1);
	v->buf = malloc(v->cluster);
	return v->windows && v->taken && v->buf ? 0 : no_memory(v);
}

static int read_tree(struct fat_volume *v)
{
	uint32_t root;
	int r = vtree_add(&v->tree, 0, VNODE_DIR, "", &root, v->why);

	if (r == 0)
		v->tree.nodes[root].block = v->root;
	for (uint32_t i = 0; i < v->tree.nr && r == 0; i++)
		r = v->tree.nodes[i].kind == VNODE_DIR ? read_folder(v, i) :
							 check_file(v, i);
	return r;
}

int fat_volume_read(struct fat_volume **ret, const struct fat_source *source,
		    uint64_t start, uint64_t size, char *ret_why)
{
	struct fat_volume *v = calloc(1, sizeof(*v));
	bool dirty;
	int r;

	if (!v)
		return why(ret_why, -ENOMEM, "there is not enough memory");
	v->source = *source;
	v->start = start;
	v->size = size > start ? size - start : 0;
	v->why = ret_why;
	r = read_boot(v, &dirty);
	if (r == 0)
		r = make_tables(v);
	if (r == 0)
		r = check_clean(v, dirty);
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
	free(volume->windows);
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
	*ret = (struct fat_run){ volume->start + offset_of(volume, file->block),
				 MIN(file->size, file->at * volume->cluster) };
	return true;
}

/* Its chain has been checked; what is said of it now may be different, if the
 * disk is. */
static int check_again(const struct fat_volume *v, uint32_t node,
		       uint32_t cluster)
{
	return cluster < FIRST_CLUSTER ||
			       cluster - FIRST_CLUSTER >= v->nr_clusters ?
		       bad(v, node, "it was changed while it was read") :
		       0;
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

	volume->why = ret_why;
	for (uint64_t at = 0; at < file->size && r == 0;
	     at += volume->cluster) {
		uint64_t where;

		r = check_again(volume, node, cluster);
		if (r < 0)
			return r;
		where = volume->start + offset_of(volume, cluster);
		if (where != run.offset + run.length) {
			if (run.length > 0)
				r = fn(ctx, begin, &run);
			begin = at;
			run = (struct fat_run){ .offset = where };
		}
		run.length += MIN(file->size - at, volume->cluster);
		if (r == 0)
			r = next_cluster(volume, cluster, &cluster);
	}
	return r == 0 && run.length > 0 ? fn(ctx, begin, &run) : r;
}

int fat_volume_file(struct fat_volume *volume, uint32_t node, void *buf,
		    char *ret_why)
{
	const struct vnode *file = &volume->tree.nodes[node];
	uint32_t cluster = file->block;
	int r = 0;

	volume->why = ret_why;
	for (uint64_t at = 0; at < file->size && r == 0;
	     at += volume->cluster) {
		uint64_t left = file->size - at;

		r = check_again(volume, node, cluster);
		if (r < 0)
			return r;
		r = read_at(volume, offset_of(volume, cluster),
			    (uint8_t *)buf + at,
			    (size_t)MIN(left, volume->cluster));
		if (r == 0)
			r = next_cluster(volume, cluster, &cluster);
	}
	return r;
}
