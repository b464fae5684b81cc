/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * What has been read is a tree of nodes like the one in git, a node a folder:
 * at level 0 data/, at the last level the folders with the chunks.  One lock
 * around it, which is never held while a tree is read: find() goes down as far as
 * there are nodes; what it misses is read without the lock, and then it is asked
 * again, with what was read in hand.  Two threads may read the same folder; one
 * of the two goes.
 *
 * All nodes are in one list, the most recently used in front.  A folder is moved
 * to the front after those in it, so the last one of the list never has
 * others below it and can be freed alone.
 */
#include "config.h"

#include "chunk-map.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <utlist.h>

#include "common/util.h"
#include "tree.h"

/* Bytes of a folder's tree: "100644 ff", a NUL and the id, and a mode that is
 * written in another way. */
#define FOLDER_MAX (GIT_FAN_OUT * 32u)
#define ROOT_MAX   (1u << 20) /* there may be other things in it */

struct node {
	struct node *prev, *next; /* the list */
	struct node **place; /* that points to it */
	struct chunk_folder folder;
	struct node *below[]; /* GIT_FAN_OUT, but for the last level */
};

/* A folder that has to be read. */
struct missing {
	unsigned int level;
	uint64_t number; /* of its level */
	uint8_t oid[OID_BYTES];
};

struct chunk_map {
	pthread_mutex_t lock;
	struct git_disk disk;
	uint8_t *root;
	size_t root_n;
	bool has_data;
	uint8_t data[OID_BYTES];
	struct node *top;
	struct node *used;
	size_t bytes;
};

/* --- Reading trees -------------------------------------------------------------- */

static bool is_present(const struct chunk_folder *folder, unsigned int i)
{
	return folder->present[i / 8] >> i % 8 & 1;
}

/* How many bits of a chunk's number are below a level. */
static unsigned int shift_of(const struct chunk_map *map, unsigned int level)
{
	return 8 * (map->disk.levels - level);
}

static int bad_folder(const struct chunk_map *map,
		      const struct missing *missing, const char *what,
		      char *ret_why)
{
	char path[GIT_CHUNK_PATH];
	char hex[OID_HEX + 1];

	oid_hex(missing->oid, hex);
	(void)git_disk_path(&map->disk,
			    missing->number << shift_of(map, missing->level),
			    path);
	path[sizeof(GIT_DISK_DATA) - 1 + 3 * (size_t)missing->level] = '\0';
	return why(ret_why, -EBADMSG, "tree %s (%s/): %s", hex, path, what);
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "1a"; -1: it is something else. */
static int number_of(const char *name)
{
	int high = digit(name[0]);
	int low = high < 0 ? -1 : digit(name[1]);

	return low < 0 || name[2] ? -1 : high << 4 | low;
}

static const char *take_entry(const struct chunk_map *map,
			      const struct missing *missing,
			      const struct tree_entry *entry,
			      struct chunk_folder *ret)
{
	bool last = missing->level == map->disk.levels - 1;
	int i = number_of(entry->name);
	uint64_t first;

	if (i < 0)
		return "a name that is not two hexadecimal digits";
	if (entry->kind != (last ? TREE_FILE : TREE_FOLDER))
		return last ? "a chunk that is no file" :
			      "an entry that is no folder";
	first = (missing->number << 8 | (unsigned int)i)
		<< shift_of(map, missing->level + 1);
	if (first >= git_disk_chunks(&map->disk))
		return "a chunk beyond the end of the disk";
	ret->present[i / 8] |= (uint8_t)(1u << i % 8);
	memcpy(ret->oids[i], entry->oid, OID_BYTES);
	return NULL;
}

static int read_folder(const struct chunk_map *map,
		       const struct object_source *source,
		       const struct missing *missing, struct chunk_folder *ret,
		       char *ret_why)
{
	cleanup_free uint8_t *data = NULL;
	struct tree_cursor cursor;
	struct tree_entry entry;
	const char *fault = NULL;
	size_t n;
	int r = source->read(source->ctx, missing->oid, OBJECT_TREE, FOLDER_MAX,
			     &data, &n, ret_why);

	if (r < 0)
		return r;
	memset(ret, 0, sizeof(*ret));
	cursor = tree_begin(data, n);
	while (!fault && (r = tree_next(&cursor, &entry, &fault)) == 1)
		fault = take_entry(map, missing, &entry, ret);
	return fault ? bad_folder(map, missing, fault, ret_why) : 0;
}

static size_t node_bytes(const struct chunk_map *map, unsigned int level)
{
	size_t below = level == map->disk.levels - 1 ? 0 : GIT_FAN_OUT;

	return sizeof(struct node) + below * sizeof(struct node *);
}

static int read_node(const struct chunk_map *map,
		     const struct object_source *source,
		     const struct missing *missing, struct node **ret,
		     char *ret_why)
{
	struct node *node = calloc(1, node_bytes(map, missing->level));
	int r = node ? read_folder(map, source, missing, &node->folder,
				   ret_why) :
		       why(ret_why, -ENOMEM, "the ids of chunks: no memory");

	if (r < 0)
		free(node);
	else
		*ret = node;
	return r;
}

/* --- The nodes -------------------------------------------------------------------- */

/* The size of one is not kept: the pieces of the last level are by far the most,
 * so all count as the larger kind. */
static void evict(struct chunk_map *map)
{
	while (map->bytes > CHUNK_MAP_MAX && map->used) {
		struct node *node = map->used->prev;

		*node->place = NULL;
		DL_DELETE(map->used, node);
		map->bytes -= node_bytes(map, 0);
		free(node);
	}
}

static void install(struct chunk_map *map, struct node **place,
		    struct node *node)
{
	node->place = place;
	*place = node;
	DL_PREPEND(map->used, node);
	map->bytes += node_bytes(map, 0);
}

/* Upwards, so that a folder is in front of what is in it. */
static void touch(struct chunk_map *map, struct node *const *way,
		  unsigned int n)
{
	while (n-- > 0) {
		DL_DELETE(map->used, way[n]);
		DL_PREPEND(map->used, way[n]);
	}
}

/*
 * With the lock.  The folder of a chunk at a level: 1 and the node; 0: there is
 * none; -EAGAIN: it, or one above it, has to be read.  Takes what was missing the
 * time before, if it still is.
 */
static int find(struct chunk_map *map, unsigned int level, uint64_t chunk,
		struct missing *io_missing, struct node **io_fresh,
		struct node **ret)
{
	const uint8_t *oid = map->has_data ? map->data : NULL;
	struct node *way[GIT_LEVELS_MAX] = { NULL };
	struct node **place = &map->top;
	unsigned int n = 0, i;

	while (oid) {
		uint64_t number = chunk >> shift_of(map, n);

		if (!*place && *io_fresh && io_missing->level == n &&
		    io_missing->number == number)
			install(map, place, TAKE_PTR(*io_fresh));
		if (!*place) {
			touch(map, way, n);
			*io_missing = (struct missing){ n, number, { 0 } };
			memcpy(io_missing->oid, oid, OID_BYTES);
			return -EAGAIN;
		}
		way[n] = *place;
		if (n++ == level)
			break;
		i = chunk >> shift_of(map, n) & 0xff;
		oid = is_present(&(*place)->folder, i) ?
			      (*place)->folder.oids[i] :
			      NULL;
		place = &(*place)->below[i];
	}
	touch(map, way, n);
	if (oid)
		*ret = *place;
	return oid ? 1 : 0;
}

/* Locks; the caller unlocks, whatever comes out. */
static int get_node(struct chunk_map *map, const struct object_source *source,
		    unsigned int level, uint64_t chunk, struct node **ret,
		    char *ret_why)
{
	struct node *fresh = NULL;
	struct missing missing;
	int r;

	pthread_mutex_lock(&map->lock);
	while ((r = find(map, level, chunk, &missing, &fresh, ret)) ==
	       -EAGAIN) {
		pthread_mutex_unlock(&map->lock);
		free(fresh);
		fresh = NULL;
		r = read_node(map, source, &missing, &fresh, ret_why);
		pthread_mutex_lock(&map->lock);
		if (r < 0)
			break;
		evict(map);
	}
	free(fresh);
	return r;
}

static int id_in(const struct node *node, uint64_t chunk,
		 uint8_t ret_oid[OID_BYTES])
{
	unsigned int i = chunk & 0xff;

	if (!is_present(&node->folder, i))
		return 0;
	memcpy(ret_oid, node->folder.oids[i], OID_BYTES);
	return 1;
}

int chunk_map_get(struct chunk_map *map, const struct object_source *source,
		  uint64_t chunk, uint8_t ret_oid[OID_BYTES], char *ret_why)
{
	struct node *node;
	int r = get_node(map, source, map->disk.levels - 1, chunk, &node,
			 ret_why);

	if (r == 1)
		r = id_in(node, chunk, ret_oid);
	pthread_mutex_unlock(&map->lock);
	return r;
}

int chunk_map_peek(struct chunk_map *map, uint64_t chunk,
		   uint8_t ret_oid[OID_BYTES])
{
	struct node *none = NULL;
	struct missing missing;
	struct node *node;
	int r;

	pthread_mutex_lock(&map->lock);
	r = find(map, map->disk.levels - 1, chunk, &missing, &none, &node);
	if (r == 1)
		r = id_in(node, chunk, ret_oid);
	pthread_mutex_unlock(&map->lock);
	return r;
}

int chunk_map_folder(struct chunk_map *map, const struct object_source *source,
		     unsigned int level, uint64_t number,
		     struct chunk_folder *ret, char *ret_why)
{
	struct node *node;
	int r = get_node(map, source, level, number << shift_of(map, level),
			 &node, ret_why);

	if (r == 1)
		*ret = node->folder;
	pthread_mutex_unlock(&map->lock);
	if (r == 0)
		memset(ret, 0, sizeof(*ret));
	return r < 0 ? r : 0;
}

/* --- From chunk to chunk ------------------------------------------------------------ */

struct walk {
	struct chunk_map *map;
	struct chunk_map *other; /* compare: b; map is a */
	const struct object_source *source;
	uint64_t first, end; /* chunks */
	int (*fn)(void *ctx, uint64_t chunk, const uint8_t oid[OID_BYTES]);
	int (*compare)(void *ctx, uint64_t chunk, const uint8_t *in_a,
		       const uint8_t *in_b);
	void *ctx;
	char *ret_why;
};

static int walk_folder(const struct walk *walk, unsigned int level,
		       uint64_t number)
{
	unsigned int shift = shift_of(walk->map, level + 1);
	struct chunk_folder folder;
	int r = chunk_map_folder(walk->map, walk->source, level, number,
				 &folder, walk->ret_why);

	for (unsigned int i = 0; i < GIT_FAN_OUT && r == 0; i++) {
		uint64_t inner = number << 8 | i;

		if (!is_present(&folder, i) || inner << shift >= walk->end ||
		    (inner + 1) << shift <= walk->first)
			continue;
		if (shift == 0)
			r = walk->fn(walk->ctx, inner, folder.oids[i]);
		else
			r = walk_folder(walk, level + 1, inner);
	}
	return r;
}

int chunk_map_walk(struct chunk_map *map, const struct object_source *source,
		   uint64_t first, uint64_t end,
		   int (*fn)(void *ctx, uint64_t chunk,
			     const uint8_t oid[OID_BYTES]),
		   void *ctx, char *ret_why)
{
	struct walk walk = { .map = map,
			     .source = source,
			     .first = first,
			     .end = end,
			     .fn = fn,
			     .ctx = ctx,
			     .ret_why = ret_why };

	return walk_folder(&walk, 0, 0);
}

static int compare_folders(const struct walk *walk, unsigned int level,
			   uint64_t number)
{
	struct chunk_folder a, b;
	int r = chunk_map_folder(walk->map, walk->source, level, number, &a,
				 walk->ret_why);

	if (r == 0)
		r = chunk_map_folder(walk->other, walk->source, level, number,
				     &b, walk->ret_why);
	for (unsigned int i = 0; i < GIT_FAN_OUT && r == 0; i++) {
		const uint8_t *in_a = is_present(&a, i) ? a.oids[i] : NULL;
		const uint8_t *in_b = is_present(&b, i) ? b.oids[i] : NULL;
		uint64_t inner = number << 8 | i;

		if (in_a == in_b ||
		    (in_a && in_b && memcmp(in_a, in_b, OID_BYTES) == 0))
			continue;
		if (level == walk->map->disk.levels - 1)
			r = walk->compare(walk->ctx, inner, in_a, in_b);
		else
			r = compare_folders(walk, level + 1, inner);
	}
	return r;
}

int chunk_map_compare(struct chunk_map *a, struct chunk_map *b,
		      const struct object_source *source,
		      int (*fn)(void *ctx, uint64_t chunk, const uint8_t *in_a,
				const uint8_t *in_b),
		      void *ctx, char *ret_why)
{
	struct walk walk = { .map = a,
			     .other = b,
			     .source = source,
			     .compare = fn,
			     .ctx = ctx,
			     .ret_why = ret_why };

	if (a->disk.chunk != b->disk.chunk || a->disk.levels != b->disk.levels)
		return why(ret_why, -EINVAL,
			   "the two have chunks of different sizes");
	if (a->has_data == b->has_data &&
	    memcmp(a->data, b->data, OID_BYTES) == 0)
		return 0;
	return compare_folders(&walk, 0, 0);
}

/* --- The root ---------------------------------------------------------------------- */

static int bad_root(const uint8_t oid[OID_BYTES], int err, const char *what,
		    char *ret_why)
{
	char text[WHY_MAX];
	char hex[OID_HEX + 1];

	oid_hex(oid, hex);
	(void)snprintf(text, sizeof(text), "%s", what); /* maybe of ret_why */
	return why(ret_why, err, "tree %s: %.400s", hex, text);
}

static int read_disk(struct chunk_map *map, const struct object_source *source,
		     const uint8_t oid[OID_BYTES], char *ret_why)
{
	cleanup_free uint8_t *text = NULL;
	size_t n;
	int r = source->read(source->ctx, oid, OBJECT_BLOB, GIT_DISK_TEXT,
			     &text, &n, ret_why);

	return r < 0 ? r : git_disk_parse(text, n, &map->disk, ret_why);
}

static int read_root(struct chunk_map *map, const struct object_source *source,
		     const uint8_t root[OID_BYTES], char *ret_why)
{
	const uint8_t *disk = NULL;
	struct tree_cursor cursor;
	struct tree_entry entry;
	const char *fault = NULL;
	int r = source->read(source->ctx, root, OBJECT_TREE, ROOT_MAX,
			     &map->root, &map->root_n, ret_why);

	if (r < 0)
		return r;
	cursor = tree_begin(map->root, map->root_n);
	while ((r = tree_next(&cursor, &entry, &fault)) == 1) {
		if (strcmp(entry.name, GIT_DISK_FILE) == 0 &&
		    entry.kind == TREE_FILE)
			disk = entry.oid;
		if (strcmp(entry.name, GIT_DISK_DATA) != 0)
			continue;
		if (entry.kind != TREE_FOLDER)
			return bad_root(root, -EBADMSG, "data is no folder",
					ret_why);
		map->has_data = true;
		memcpy(map->data, entry.oid, OID_BYTES);
	}
	if (r < 0)
		return bad_root(root, -EBADMSG, fault, ret_why);
	if (!disk)
		return bad_root(root, -EBADMSG,
				"no disk: there is no file \"disk\" in it",
				ret_why);
	r = read_disk(map, source, disk, ret_why);
	return r < 0 ? bad_root(root, r, ret_why, ret_why) : 0;
}

int chunk_map_open(struct chunk_map **ret, const struct object_source *source,
		   const uint8_t root[OID_BYTES], char *ret_why)
{
	struct chunk_map *map = calloc(1, sizeof(*map));
	int r;

	if (!map)
		return why(ret_why, -ENOMEM, "no memory");
	pthread_mutex_init(&map->lock, NULL);
	r = read_root(map, source, root, ret_why);
	if (r < 0)
		chunk_map_free(map);
	else
		*ret = map;
	return r;
}

void chunk_map_free(struct chunk_map *map)
{
	struct node *node, *next;

	if (!map)
		return;
	DL_FOREACH_SAFE(map->used, node, next)
		free(node);
	pthread_mutex_destroy(&map->lock);
	free(map->root);
	free(map);
}

const struct git_disk *chunk_map_disk(const struct chunk_map *map)
{
	return &map->disk;
}

const uint8_t *chunk_map_root(const struct chunk_map *map, size_t *ret_n)
{
	*ret_n = map->root_n;
	return map->root;
}
