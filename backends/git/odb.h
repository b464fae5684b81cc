/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * odb.h - the objects of a repository: where they are, and what is in them.
 *
 * Packs are read through descriptors that are opened once, so that what was
 * found stays readable whatever `git gc` does, also by a worker that may open
 * nothing any more.  Loose objects that are wanted are copied, as they are, into
 * memory.  Nothing in the files is believed: what is wrong is -EBADMSG and a
 * sentence that names the pack or the object.
 *
 * Opening and odb_find() belong to one thread.  After odb_settle(), and from the
 * start after odb_new(), any thread may look up, add and read, each with a reader
 * of its own.
 */
#ifndef XENDISK_GIT_ODB_H
#define XENDISK_GIT_ODB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "why.h"

#define OID_BYTES 20
#define OID_HEX	  40

/* Packs with objects of one disk: each is two descriptors. */
#define ODB_MAX_PACKS 400u
/* Bytes of loose objects, compressed, that are copied. */
#define ODB_MAX_LOOSE (1ull << 30)
/* Bytes of all indexes, which are read whole, for a moment. */
#define ODB_MAX_INDEXES (1ull << 30)
/* Bytes of an object that is read whole: of trees, and of what is stored as
 * changes to another one. */
#define ODB_MAX_WHOLE (64u << 20)
#define ODB_MAX_CHAIN 4096u /* changes upon changes; git makes 4095 at most */

/* As in packs (git's pack-format). */
enum object_type {
	OBJECT_COMMIT = 1,
	OBJECT_TREE,
	OBJECT_BLOB,
	OBJECT_TAG,
	OBJECT_OFS_DELTA = 6,
	OBJECT_REF_DELTA,
};

struct place {
	uint16_t pack;
	uint64_t at; /* offset of its header */
};

/* What the header of an object says. */
struct object_head {
	enum object_type type; /* maybe a delta */
	uint64_t size; /* inflated; of a delta: of its instructions */
	uint64_t data; /* where its zlib stream begins */
	uint32_t skip; /* bytes of the stream before its content */
	struct place base; /* of a delta */
};

struct object {
	enum object_type type;
	uint64_t size;
	const uint8_t *data; /* a NUL behind it does not count */
	/* cache.c */
	struct object *prev, *next;
	struct object *chained;
	struct place place;
	unsigned int users;
};

struct odb;
struct cache;

/* From the folder "objects", whose descriptor stays the caller's. */
int odb_open(struct odb **ret, int objects, char *ret_why);
void odb_close(struct odb *odb);

/* -ENOENT: it is nowhere; -EBADMSG: an index is wrong. */
int odb_find(struct odb *odb, const uint8_t oid[OID_BYTES], struct place *ret,
	     char *ret_why);
/* Lets go of what is not used, and of indexes in memory. */
void odb_settle(struct odb *odb);
/* One without a repository, settled: what is in it came by odb_add(). */
int odb_new(struct odb **ret, char *ret_why);
/* Adds "pack-..." by the descriptors of pack and index, for reading, which it
 * takes, also when it fails.  -EMFILE: there are too many. */
int odb_add(struct odb *odb, const char *name, int fd, int index,
	    char *ret_why);
bool odb_has_pack(struct odb *odb, const char *name);
/* How many may still be added. */
uint32_t odb_packs_left(struct odb *odb);
/* As odb_find(), but any thread's, and in packs that are open only.  -ENOENT
 * comes without a sentence. */
int odb_look_up(struct odb *odb, const uint8_t oid[OID_BYTES],
		struct place *ret, char *ret_why);
/* For reads without a reader; the odb's own. */
int odb_pack_fd(const struct odb *odb, uint16_t pack);
/* Bytes of memory that copied loose objects take. */
uint64_t odb_loose_bytes(const struct odb *odb);

void oid_hex(const uint8_t oid[OID_BYTES], char ret[OID_HEX + 1]);

/* --- Reading: object.c ------------------------------------------------------- */

struct reader;

int reader_new(struct reader **ret, const struct odb *odb, struct cache *cache);
void reader_free(struct reader *reader);

int object_head(struct reader *reader, struct place place,
		struct object_head *ret);
/* Its type, as its header says, and the size of its content, also of one that is
 * stored as a delta. */
int object_size(struct reader *reader, struct place place,
		enum object_type *ret_type, uint64_t *ret);
/* All of it, of at most ODB_MAX_WHOLE bytes (-EFBIG); give it back with
 * cache_put(). */
int object_read(struct reader *reader, struct place place,
		const struct object **ret);
/* A blob of n bytes that is no delta, not by way of the cache: 1.  0: it is none.  to
 * may have been written to in any case. */
int object_read_into(struct reader *reader, struct place place, uint8_t *to,
		     uint64_t n);

/* --- odb.c, for object.c and stream.c ----------------------------------------- */

/* At most n bytes of a pack without its trailer; returns how many, or -errno. */
ssize_t odb_pread(const struct odb *odb, struct place place, void *buf,
		  size_t n);
/* The base of a REF_DELTA is in the same pack.  -EBADMSG: it is not. */
int odb_find_in(const struct odb *odb, uint16_t pack,
		const uint8_t oid[OID_BYTES], struct place *ret);
/* Is it one of those that were copied: a loose object? */
bool odb_is_loose(struct place place);

/* --- cache.c: objects in memory, the least recently used go -------------------- */

/* Never more than this, but for a single object that is larger. */
int cache_new(struct cache **ret, uint64_t bytes);
void cache_free(struct cache *cache); /* all have been given back */
/* NULL: it is not there.  Else give it back. */
const struct object *cache_get(struct cache *cache, struct place place);
/* With room for data, which the caller fills in before anybody else has it.
 * NULL: no memory. */
struct object *object_new(enum object_type type, uint64_t size,
			  struct place place);
static inline uint8_t *object_bytes(struct object *object)
{
	return (uint8_t *)(object + 1);
}
/* It is in the cache now, and used by the caller. */
const struct object *cache_add(struct cache *cache, struct object *object);
void cache_put(struct cache *cache, const struct object *object);

#endif
