/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pack-write.h - new objects of a repository, as packs of our own.
 *
 * A writer is used by one thread, and has threads of its own that hash, compare
 * and compress.  Nothing of what it writes is to be seen before
 * pack_writer_finish(), and then each pack has a ".keep" until pack_unkeep(), so
 * that `git gc` leaves objects alone to which no reference leads yet.
 *
 * Functions return 0 or -errno and then say in ret_why (WHY_MAX bytes) which file
 * or object it was.  A writer that has failed once fails for good, with the same
 * words: pack_writer_free() is all that is left.
 */
#ifndef XENDISK_GIT_PACK_WRITE_H
#define XENDISK_GIT_PACK_WRITE_H

#include "odb.h"

/* Bytes of a pack after which the next one is begun, if nothing else is said. */
#define PACK_SPLIT (2ull << 30)
/* Bytes of one object, and of a chunk. */
#define PACK_MAX_OBJECT	 (1ull << 40)
#define PACK_MAX_CHUNK	 (16u << 20)
#define PACK_MAX_THREADS 16u
/* "pack-", 40 hex digits, NUL: what the files are called up to the dot. */
#define PACK_NAME_MAX 46u

struct pack_writer;

/* What became of a chunk. */
enum pack_fate {
	PACK_ZERO, /* it is all zero, and has no id */
	PACK_SAME, /* as same_as: not written */
	PACK_THERE, /* have() has it, or this writer: not written again */
	PACK_STORED, /* written, not compressed */
	PACK_DEFLATED,
};

struct pack_options {
	/* "objects/pack", open for reading; it stays the caller's, until
	 * pack_writer_free(). */
	int dir;
	unsigned int threads; /* 1 to PACK_MAX_THREADS; 0: 1 */
	bool store_only; /* never compress */
	uint64_t split; /* bytes; 0: PACK_SPLIT */
	/* For the ".keep": one line for people, that says whose it is; or NULL. */
	const char *keep_text;
	/*
	 * Is this object there already, and sure to stay?  That is: reachable
	 * from what a reference or a pin holds, or in a pack with a ".keep".
	 * What is merely there may be pruned by `git gc` before our reference
	 * leads to it.  Called by one thread at a time, but not always the same
	 * one.  NULL: never.
	 */
	bool (*have)(void *ctx, const uint8_t oid[OID_BYTES]);
	/*
	 * What became of a chunk, in the order in which they were sent, by the
	 * thread that uses the writer, from within pack_buffer(),
	 * pack_add_chunk() and pack_chunks_drain().  oid: NULL if all is zero.
	 * May call pack_add(), and nothing else here.  An error ends the writer
	 * and is passed on.  May be NULL when there are no chunks.
	 */
	int (*done)(void *ctx, uint64_t tag, const uint8_t *oid,
		    enum pack_fate fate, char *ret_why);
	void *ctx; /* of both */
};

/* What a writer has done so far. */
struct pack_totals {
	uint64_t fates[PACK_DEFLATED + 1]; /* chunks, by enum pack_fate */
	uint64_t objects; /* that were written, of all types */
	uint64_t bytes; /* of content, of those */
	uint64_t packed; /* bytes that they take in packs */
};

struct pack_published {
	char name[PACK_NAME_MAX];
	int keep; /* open, and locked while this process lives */
};

struct pack_names {
	struct pack_published *packs;
	unsigned int nr;
};

int pack_writer_new(struct pack_writer **ret,
		    const struct pack_options *options, char *ret_why);
/* One that is not finished leaves no file behind.  NULL is fine. */
void pack_writer_free(struct pack_writer *writer);

/*
 * One object.  Its id is known on return; one that have() or this writer has is
 * not written again.  n: up to PACK_MAX_OBJECT (-EFBIG).  A small one is copied; a
 * large one, which may be a mapped file, is read twice, and written before the
 * return.
 */
int pack_add(struct pack_writer *writer, enum object_type type,
	     const void *data, size_t n, uint8_t ret_oid[OID_BYTES],
	     char *ret_why);

/*
 * Blobs in bulk: get a buffer, which may have to wait until one is free, fill its
 * n bytes, and send it; one at a time.  tag: the caller's, for done().  same_as: the
 * id that this chunk has now, or NULL; copied.
 */
int pack_buffer(struct pack_writer *writer, size_t n, void **ret,
		char *ret_why);
int pack_add_chunk(struct pack_writer *writer, void *buffer, size_t n,
		   uint64_t tag, const uint8_t *same_as /* [OID_BYTES] */,
		   char *ret_why);
/* done() has been called for all. */
int pack_chunks_drain(struct pack_writer *writer, char *ret_why);

/*
 * All is durable, visible, and kept; the chunks have been drained.  The packs'
 * names: none, if there was nothing that was not there already.  The last call
 * but pack_totals() and free.  After an error nothing is visible, or whole packs
 * whose ".keep" is left for pack_clean().
 */
int pack_writer_finish(struct pack_writer *writer, struct pack_names *ret,
		       char *ret_why);
void pack_totals(struct pack_writer *writer, struct pack_totals *ret);

/* A reference leads to them now: removes each ".keep". */
int pack_unkeep(int dir, struct pack_names *names, char *ret_why);
/* Closes what is open; a ".keep" that is still there becomes one of the dead. */
void pack_names_free(struct pack_names *names);

/*
 * Removes what writers left behind that are dead: unfinished files, and ".keep"
 * files of packs.  Only what is ours, of this host, and whose lock nobody holds.
 * Call it when a commit that was interrupted has been made or given up.
 * ret_removed: how many files; may be NULL.
 */
int pack_clean(int dir, unsigned int *ret_removed, char *ret_why);
/* How many that would be. */
int pack_clean_look(int dir, unsigned int *ret_nr, char *ret_why);

#endif
