/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * chunk-map.h - which object each chunk of a disk is, at one commit.
 *
 * The trees are read one by one when they are first needed, checked, and kept
 * as tables of ids: 5 KiB for 256 chunks, at most CHUNK_MAP_MAX bytes of them;
 * those that have not been used for longest go first.
 *
 * Any thread may ask; each needs a source of its own.  While one reads a tree
 * the others are not held up.
 */
#ifndef XENDISK_GIT_CHUNK_MAP_H
#define XENDISK_GIT_CHUNK_MAP_H

#include <stdbool.h>

#include "disk-format.h"
#include "odb.h"

#ifndef CHUNK_MAP_MAX /* tests have less */
#define CHUNK_MAP_MAX (128u << 20)
#endif

/*
 * Where trees come from.  read() gives the whole object, which has to be of that
 * type and of at most max bytes, in memory to be freed with free(); -errno and a
 * sentence that names the object.
 */
struct object_source {
	int (*read)(void *ctx, const uint8_t oid[OID_BYTES],
		    enum object_type type, size_t max, uint8_t **ret,
		    size_t *ret_n, char *ret_why);
	void *ctx;
};

/* A source: packs and loose objects that odb.h reads, by one thread. */
struct odb_source {
	struct odb *odb;
	struct reader *reader;
	struct cache *cache; /* the reader's */
};
int odb_source_read(void *ctx, const uint8_t oid[OID_BYTES],
		    enum object_type type, size_t max, uint8_t **ret,
		    size_t *ret_n, char *ret_why);

struct chunk_map;

/* Reads the root tree and what the disk is.  -EBADMSG: it is no disk. */
int chunk_map_open(struct chunk_map **ret, const struct object_source *source,
		   const uint8_t root[OID_BYTES], char *ret_why);
void chunk_map_free(struct chunk_map *map);
const struct git_disk *chunk_map_disk(const struct chunk_map *map);

/* 1: ret_oid is the blob; 0: all zero; -errno and why, which names the path.
 * The chunk is in the disk. */
int chunk_map_get(struct chunk_map *map, const struct object_source *source,
		  uint64_t chunk, uint8_t ret_oid[OID_BYTES], char *ret_why);
/* The same from memory, never blocks: -EAGAIN when a tree is to be read first. */
int chunk_map_peek(struct chunk_map *map, uint64_t chunk,
		   uint8_t ret_oid[OID_BYTES]);

/*
 * Calls fn for each chunk from first on, before end, that is not all zero, in
 * ascending order, until it returns something else than 0, which is passed on.
 * Folders that are not there cost nothing.
 */
int chunk_map_walk(struct chunk_map *map, const struct object_source *source,
		   uint64_t first, uint64_t end,
		   int (*fn)(void *ctx, uint64_t chunk,
			     const uint8_t oid[OID_BYTES]),
		   void *ctx, char *ret_why);

/*
 * The same for each chunk whose id is another one in b than in a; an id of NULL:
 * all zero, or not in the disk.  Both have chunks of the same size and as many
 * levels (-EINVAL).  Folders that are the same in both are not looked into.
 */
int chunk_map_compare(struct chunk_map *a, struct chunk_map *b,
		      const struct object_source *source,
		      int (*fn)(void *ctx, uint64_t chunk, const uint8_t *in_a,
				const uint8_t *in_b),
		      void *ctx, char *ret_why);

/* --- For tree-edit.c --------------------------------------------------------- */

/* A folder of data/, or data/ itself. */
struct chunk_folder {
	uint8_t present[GIT_FAN_OUT / 8]; /* a bit each, the lowest first */
	uint8_t oids[GIT_FAN_OUT][OID_BYTES];
};

/* Level 0 is data/; `number` is which of its level: the chunk's number without
 * the levels below.  An empty one for what is not there. */
int chunk_map_folder(struct chunk_map *map, const struct object_source *source,
		     unsigned int level, uint64_t number,
		     struct chunk_folder *ret, char *ret_why);
/* The root tree as it is in git. */
const uint8_t *chunk_map_root(const struct chunk_map *map, size_t *ret_n);

#endif
