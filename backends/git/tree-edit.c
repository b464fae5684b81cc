/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * One folder of each level is open, those on the way to the last chunk. When the
 * next chunk lies in another one, the folders that are left are closed, from
 * the last level upwards: what has changed becomes a tree object, whose id goes
 * into the folder above; what is empty now is taken out of it.  So memory does not
 * depend on how much changes, and no folder is written twice.
 */
#include "config.h"

#include "tree-edit.h"

#include <inttypes.h>
#include <string.h>

#include "common/util.h"
#include "pack-write.h"
#include "tree.h"

struct open_folder {
	bool is_open;
	bool changed;
	uint64_t number; /* of its level */
	struct chunk_folder folder;
};

struct tree_edit {
	struct chunk_map *base; /* may be NULL */
	const struct object_source *source;
	struct git_disk disk;
	struct pack_writer *pack;
	uint64_t next; /* the first chunk that may be given */
	struct open_folder levels[GIT_LEVELS_MAX];
	bool has_data; /* once level 0 has been closed */
	uint8_t data[OID_BYTES];
};

static bool is_present(const struct chunk_folder *folder, unsigned int i)
{
	return folder->present[i / 8] >> i % 8 & 1;
}

/* Returns whether that is a change. */
static bool set_entry(struct chunk_folder *folder, unsigned int i,
		      const uint8_t *oid)
{
	if (is_present(folder, i) == (oid != NULL) &&
	    (!oid || memcmp(folder->oids[i], oid, OID_BYTES) == 0))
		return false;
	folder->present[i / 8] &= (uint8_t) ~(1u << i % 8);
	if (oid) {
		folder->present[i / 8] |= (uint8_t)(1u << i % 8);
		memcpy(folder->oids[i], oid, OID_BYTES);
	}
	return true;
}

/* An entry of a tree object; returns where the next one goes. */
static uint8_t *put_entry(uint8_t *to, const char *mode, const char *name,
			  const uint8_t oid[OID_BYTES])
{
	to += sprintf((char *)to, "%s %s", mode, name) + 1;
	memcpy(to, oid, OID_BYTES);
	return to + OID_BYTES;
}

/* 0: it has no entry. */
static size_t print_folder(const struct chunk_folder *folder, const char *mode,
			   uint8_t *to)
{
	uint8_t *start = to;
	char name[3];

	for (unsigned int i = 0; i < GIT_FAN_OUT; i++) {
		if (!is_present(folder, i))
			continue;
		(void)snprintf(name, sizeof(name), "%02x", i);
		to = put_entry(to, mode, name, folder->oids[i]);
	}
	return (size_t)(to - start);
}

/* Into the folder above. */
static void hand_up(struct tree_edit *edit, unsigned int level,
		    const uint8_t *oid)
{
	struct open_folder *above = &edit->levels[level - (level > 0)];

	if (level > 0) {
		above->changed |= set_entry(
			&above->folder, edit->levels[level].number & 0xff, oid);
		return;
	}
	edit->has_data = oid != NULL;
	if (oid)
		memcpy(edit->data, oid, OID_BYTES);
}

static int close_folder(struct tree_edit *edit, unsigned int level,
			char *ret_why)
{
	struct open_folder *here = &edit->levels[level];
	bool last = level == edit->disk.levels - 1;
	uint8_t tree[GIT_FAN_OUT * sizeof("100644 ff") +
		     GIT_FAN_OUT * OID_BYTES];
	uint8_t oid[OID_BYTES];
	size_t n;
	int r = 0;

	here->is_open = false;
	/* data/ itself goes into the root in any case. */
	if (!here->changed && level > 0)
		return 0;
	n = print_folder(&here->folder, last ? "100644" : "40000", tree);
	if (n > 0)
		r = pack_add(edit->pack, OBJECT_TREE, tree, n, oid, ret_why);
	if (r == 0)
		hand_up(edit, level, n > 0 ? oid : NULL);
	return r;
}

/* Closes the folders from a level on downwards, the last level first. */
static int close_from(struct tree_edit *edit, unsigned int level, char *ret_why)
{
	int r = 0;

	for (unsigned int i = edit->disk.levels; i-- > level && r == 0;)
		if (edit->levels[i].is_open)
			r = close_folder(edit, i, ret_why);
	return r;
}

static int open_folder(struct tree_edit *edit, unsigned int level,
		       uint64_t number, char *ret_why)
{
	struct open_folder *here = &edit->levels[level];
	int r = 0;

	here->number = number;
	here->changed = false;
	if (edit->base)
		r = chunk_map_folder(edit->base, edit->source, level, number,
				     &here->folder, ret_why);
	else
		memset(&here->folder, 0, sizeof(here->folder));
	here->is_open = r == 0;
	return r;
}

/* The folder of the last level in which that chunk is. */
static int go_to(struct tree_edit *edit, uint64_t chunk, char *ret_why)
{
	unsigned int levels = edit->disk.levels;
	unsigned int same = 0;
	int r;

	while (same < levels && edit->levels[same].is_open &&
	       edit->levels[same].number == chunk >> 8 * (levels - same))
		same++;
	r = close_from(edit, same, ret_why);
	for (unsigned int i = same; i < levels && r == 0; i++)
		r = open_folder(edit, i, chunk >> 8 * (levels - i), ret_why);
	return r;
}

int tree_edit_set(struct tree_edit *edit, uint64_t chunk, const uint8_t *oid,
		  char *ret_why)
{
	struct open_folder *last = &edit->levels[edit->disk.levels - 1];
	int r;

	if (chunk < edit->next || chunk >= git_disk_chunks(&edit->disk))
		return why(ret_why, -EINVAL, "chunk %" PRIu64 " is out of turn",
			   chunk);
	edit->next = chunk + 1;
	r = go_to(edit, chunk, ret_why);
	if (r == 0)
		last->changed |= set_entry(&last->folder, chunk & 0xff, oid);
	return r;
}

/* --- The root ---------------------------------------------------------------------- */

struct own_entry {
	const char *mode;
	const char *name;
	bool folder;
	const uint8_t *oid;
	bool done;
};

static uint8_t *put_own(uint8_t *to, struct own_entry *own)
{
	own->done = true;
	return put_entry(to, own->mode, own->name, own->oid);
}

/* The base's entries, in whose place or between which ours go. */
static int merge_root(const struct tree_edit *edit, struct own_entry *own,
		      unsigned int n, uint8_t *to, size_t *ret_n)
{
	struct tree_cursor cursor = tree_begin(NULL, 0);
	const uint8_t *start = to;
	const uint8_t *raw;
	struct tree_entry entry;
	const char *fault;
	size_t bytes;
	int r;

	if (edit->base) {
		raw = chunk_map_root(edit->base, &bytes);
		cursor = tree_begin(raw, bytes);
	}
	while (raw = cursor.at, (r = tree_next(&cursor, &entry, &fault)) == 1) {
		if (strcmp(entry.name, GIT_DISK_DATA) == 0 ||
		    strcmp(entry.name, GIT_DISK_FILE) == 0)
			continue;
		for (unsigned int i = 0; i < n; i++)
			if (!own[i].done &&
			    tree_compare(own[i].name, own[i].folder, entry.name,
					 entry.kind == TREE_FOLDER) < 0)
				to = put_own(to, &own[i]);
		memcpy(to, raw, (size_t)(cursor.at - raw));
		to += cursor.at - raw;
	}
	for (unsigned int i = 0; i < n; i++)
		if (!own[i].done)
			to = put_own(to, &own[i]);
	*ret_n = (size_t)(to - start);
	return r;
}

static int write_root(struct tree_edit *edit, const uint8_t disk[OID_BYTES],
		      uint8_t ret_root[OID_BYTES], char *ret_why)
{
	struct own_entry own[] = {
		{ "40000", GIT_DISK_DATA, true, edit->data, false },
		{ "100644", GIT_DISK_FILE, false, disk, false },
	};
	struct own_entry *first = edit->has_data ? own : own + 1;
	cleanup_free uint8_t *tree = NULL;
	size_t n = 0;
	int r;

	if (edit->base)
		(void)chunk_map_root(edit->base, &n);
	tree = malloc(n + 2 * (sizeof("100644 data") + OID_BYTES));
	if (!tree)
		return why(ret_why, -ENOMEM, "no memory");
	r = merge_root(edit, first, (unsigned int)(own + 2 - first), tree, &n);
	if (r < 0)
		return why(ret_why, r, "the base's tree is broken");
	return pack_add(edit->pack, OBJECT_TREE, tree, n, ret_root, ret_why);
}

int tree_edit_finish(struct tree_edit *edit, uint8_t ret_root[OID_BYTES],
		     char *ret_why)
{
	uint8_t disk[OID_BYTES];
	char text[GIT_DISK_TEXT];
	int r = 0;

	if (!edit->levels[0].is_open) /* no chunk was given */
		r = open_folder(edit, 0, 0, ret_why);
	if (r == 0)
		r = close_from(edit, 0, ret_why);
	if (r == 0)
		r = pack_add(edit->pack, OBJECT_BLOB, text,
			     git_disk_print(&edit->disk, text), disk, ret_why);
	return r < 0 ? r : write_root(edit, disk, ret_root, ret_why);
}

int tree_edit_new(struct tree_edit **ret, struct chunk_map *base,
		  const struct object_source *source,
		  const struct git_disk *disk, struct pack_writer *pack,
		  char *ret_why)
{
	const struct git_disk *before = base ? chunk_map_disk(base) : disk;
	struct tree_edit *edit;

	if (before->chunk != disk->chunk || before->levels != disk->levels ||
	    before->size > disk->size)
		return why(ret_why, -EINVAL,
			   "a disk keeps its chunks and levels, and gets no "
			   "smaller");
	edit = calloc(1, sizeof(*edit));
	if (!edit)
		return why(ret_why, -ENOMEM, "no memory");
	edit->base = base;
	edit->source = source;
	edit->disk = *disk;
	edit->pack = pack;
	*ret = edit;
	return 0;
}

void tree_edit_free(struct tree_edit *edit)
{
	free(edit);
}
