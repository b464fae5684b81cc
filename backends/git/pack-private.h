/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pack-private.h - between the files of the pack writer.
 */
#ifndef XENDISK_GIT_PACK_PRIVATE_H
#define XENDISK_GIT_PACK_PRIVATE_H

#include <pthread.h>

#include "pack-write.h"

#define PACK_HEAD 12u /* "PACK", version, number of objects */

/* --- pack-ids.c: ids, and sets of them ----------------------------------------- */

struct hasher; /* of one thread; SHA-1 */

int hasher_new(struct hasher **ret);
void hasher_free(struct hasher *hasher);
/* In pieces.  -EIO: the library failed. */
int hasher_begin(struct hasher *hasher);
int hasher_add(struct hasher *hasher, const void *data, size_t n);
int hasher_end(struct hasher *hasher, uint8_t ret[OID_BYTES]);
/* The id of an object. */
int hasher_oid(struct hasher *hasher, enum object_type type, const void *data,
	       size_t n, uint8_t ret[OID_BYTES]);

struct oid_set;

int oid_set_new(struct oid_set **ret);
void oid_set_free(struct oid_set *set);
/* 1: it is in now; 0: it was in; -ENOMEM. */
int oid_set_add(struct oid_set *set, const uint8_t oid[OID_BYTES]);

/* --- pack-deflate.c: an object as a pack has it -------------------------------- */

struct packer; /* of one thread */

int packer_new(struct packer **ret, bool store_only);
void packer_free(struct packer *packer);
/* Bytes that pack_entry() may write for n bytes of content. */
size_t pack_entry_max(size_t n);
/* Type, size and zlib stream; returns how many bytes. */
size_t pack_entry(struct packer *packer, enum object_type type,
		  const uint8_t *data, size_t n, uint8_t *ret,
		  bool *ret_stored);
/* The same in pieces, for objects that are never in memory as a whole: what they
 * begin with; pieces, of which only the last may be empty; the end. */
#define PACK_BEGIN_MAX 12u
#define PACK_END       4u
size_t pack_entry_begin(enum object_type type, uint64_t size,
			uint8_t ret[PACK_BEGIN_MAX]);
size_t pack_piece_max(size_t n);
size_t pack_piece(struct packer *packer, const uint8_t *data, size_t n,
		  bool last, uint8_t *ret, bool *ret_stored);
void pack_entry_end(uint32_t adler, uint8_t ret[PACK_END]);
/* They begin with 1 and 0. */
uint32_t pack_adler(uint32_t adler, const void *data, size_t n);
uint32_t pack_crc(uint32_t crc, const void *data, size_t n);

/* --- pack-index.c -------------------------------------------------------------- */

struct pack_object {
	uint8_t oid[OID_BYTES];
	uint32_t crc; /* of its bytes in the pack */
	uint64_t at; /* where they begin */
};

/* The whole file, to be freed; sorts the objects.  trailer: the pack's. */
int pack_index_make(struct pack_object *objects, uint32_t nr,
		    const uint8_t trailer[OID_BYTES], uint8_t **ret,
		    size_t *ret_n);

/* --- pack-file.c: one pack that is being written -------------------------------- */

#define TMP_NAME_MAX 128u

/* A file that is not published yet. */
struct tmp_file {
	int fd; /* -1: there is none; locked */
	char name[TMP_NAME_MAX];
};

struct pack_file {
	int dir; /* borrowed */
	struct tmp_file pack, index, keep;
	uint64_t end; /* where the next object comes */
	uint8_t *stage; /* what is not written yet */
	size_t staged;
	uint64_t pushed; /* bytes whose way to the disk has begun */
	struct pack_object *objects;
	uint32_t nr, room;
	uint8_t trailer[OID_BYTES];
};

int pack_file_new(struct pack_file **ret, int dir, char *ret_why);
/* Nothing of it is left in the folder, unless it was published. */
void pack_file_free(struct pack_file *file);
/* An object, and the bytes that it takes, at once or in several calls. */
int pack_file_begin(struct pack_file *file, const uint8_t oid[OID_BYTES],
		    char *ret_why);
int pack_file_append(struct pack_file *file, const uint8_t *data, size_t n,
		     char *ret_why);
void pack_file_end(struct pack_file *file, uint32_t crc);
/* Complete, and durable but for its name; its index, too.  Any thread. */
int pack_file_seal(struct pack_file *file, char *ret_why);

/* --- pack-set.c: packs, each full but the last ----------------------------------- */

struct pack_set;

/* split: bytes. */
int pack_set_new(struct pack_set **ret, int dir, uint64_t split);
void pack_set_free(struct pack_set *set);
/* The one in which an object of n bytes is to be written.  One thread at a time. */
int pack_set_room(struct pack_set *set, uint64_t n, struct pack_file **ret,
		  char *ret_why);
int pack_set_publish(struct pack_set *set, const char *keep_text,
		     struct pack_names *ret, char *ret_why);

/* pack-large.c: an object that is in memory, or mapped, and stays there. */
struct pack_large {
	enum object_type type;
	const uint8_t *data;
	size_t n; /* not 0 */
	const uint8_t *oid;
};

int pack_large(struct pack_set *set, bool store_only,
	       const struct pack_large *object, uint64_t *ret_packed,
	       char *ret_why);

/* A thread that gets no signals. */
int pack_thread(pthread_t *ret, void *(*run)(void *), void *ctx);

/* --- pack-publish.c ------------------------------------------------------------- */

/* What our unfinished files and the text of our ".keep" files begin with: they
 * name this host. */
#define OURS_MAX 96u
void tmp_prefix(char ret[OURS_MAX]);
void keep_prefix(char ret[OURS_MAX]);
#define KEEP_MAX 512u /* bytes of a ".keep" of ours */

int tmp_create(int dir, struct tmp_file *ret, char *ret_why);
/* Closes and removes. */
void tmp_discard(int dir, struct tmp_file *file);
/* -errno of a file, said as all here say it. */
int file_error(char *ret_why, int err, const char *name, const char *what);

/* They have been sealed.  After an error some may be there, with a ".keep". */
int packs_publish(struct pack_file *const *files, unsigned int nr,
		  const char *keep_text, struct pack_names *ret, char *ret_why);

#endif
