/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * base.h - the disk as it is in one commit, below all layers.
 *
 * For each chunk is remembered, from when it was first looked for, where its
 * content is: most are stored in a pack as they are, and any lane can read them
 * there, at the speed of a plain file; the others are inflated by a thread
 * that may wait, and stay in a cache for a while.
 *
 * Many threads use a base at a time.  Each that may wait has a base_reader.
 */
#ifndef XENDISK_GIT_BASE_H
#define XENDISK_GIT_BASE_H

#include <stdatomic.h>

#include "chunk-map.h"

/* Bytes of a stored deflate block, and of the header in front of each. */
#define STORED_BLOCK 65535u
#define STORED_HEAD  5u

/* --- Packs, and what was read from them ---------------------------------------- */

/* Shared by the bases of one disk, one after the other; counted. */
struct store {
	atomic_uint users;
	struct odb *odb;
	struct cache *cache;
	uint64_t key; /* of the places of what was asked for */
};

/* cache: bytes of inflated chunks. */
int store_new(struct store **ret, uint64_t cache, char *ret_why);
void store_put(struct store *store); /* NULL: nothing */

/*
 * Asks somebody else for an object that is in none of our packs, and waits: a file
 * of that many bytes, the caller's.  -errno and why.
 */
struct asker {
	int (*ask)(void *ctx, const uint8_t oid[OID_BYTES],
		   enum object_type *ret_type, uint64_t *ret_size, int *ret_fd,
		   char *ret_why);
	void *ctx;
};

/* One thread's.  Which store it reads, it finds out by itself. */
struct base_reader;
int base_reader_new(struct base_reader **ret, const struct asker *asker);
void base_reader_free(struct base_reader *reader);

/* --- A base -------------------------------------------------------------------- */

struct base;

/* tree: the commit's; both ids are kept.  Takes one of the store's users when it
 * succeeds.  May wait. */
int base_open(struct base **ret, struct store *store,
	      struct base_reader *reader, const uint8_t commit[OID_BYTES],
	      const uint8_t tree[OID_BYTES], char *ret_why);
/* What `before` knows of chunks that touched() says are the same in both, when
 * both have the same store. */
void base_inherit(struct base *base, const struct base *before,
		  bool (*touched)(void *ctx, uint64_t chunk), void *ctx);
struct base *base_get(struct base *base);
void base_put(struct base *base); /* NULL: nothing */

const struct git_disk *base_disk(const struct base *base);
const uint8_t *base_commit(const struct base *base);

enum where_kind {
	WHERE_UNKNOWN, /* base_fetch() finds out */
	WHERE_ZERO,
	WHERE_STORED, /* from `at` on, in blocks of STORED_BLOCK bytes */
	WHERE_CACHED, /* maybe: base_cached(); else base_fetch() */
};

struct where {
	enum where_kind kind;
	int fd; /* the store's */
	uint64_t at;
};

/* Never waits. */
struct where base_where(const struct base *base, uint64_t chunk);
/* Never waits.  Give it back with base_uncache(). */
const struct object *base_cached(const struct base *base, uint64_t chunk);
void base_uncache(const struct base *base, const struct object *object);

/*
 * Finds out where a chunk is; and if it is neither zero nor stored, gives its
 * content, to be given back with base_uncache(), else NULL.  May wait.  A chunk
 * that is not what it should be is -EIO, and why names it.
 *
 * into: room for all of the chunk, where its content may be put instead: 1.  Then it
 * is not in the cache, which is not for those who read everything.  NULL: none.
 */
int base_fetch(struct base *base, struct base_reader *reader, uint64_t chunk,
	       uint8_t *into, const struct object **ret, char *ret_why);
/* The one before `chunk` was fetched: finds out about those from there on, where
 * that is likely to be of use; may wait a little. */
void base_look_ahead(struct base *base, struct base_reader *reader,
		     uint64_t chunk);

#endif
