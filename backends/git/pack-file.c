/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One pack that is being written.
 *
 * Theory of operation
 *
 * A pack begins with the number of its objects and ends with the SHA-1 of all in
 * front of it, number included.  The number is known last: what is zero, unchanged
 * or there already is found out on the way.  So the sum is not made while the
 * objects are written, only to be made again, but once, when the pack is complete:
 * from the page cache, at 1.9 GB/s, while the disk is busy with the data.
 *
 * Objects are gathered and written a mebibyte at a time, at multiples of it, which
 * gives large folios in the page cache; every few of those their way to the disk
 * is begun, so that fsync() in the end has little left to do.
 *
 * A file has one user at a time: who appends, then who seals.
 */
#include "config.h"

#include <fcntl.h>
#include <string.h>

#include "common/util.h"
#include "commit-points.h"
#include "pack-private.h"

#define STAGE	   (1u << 20)
#define PUSH_EVERY (8u << 20)
#define HASH_PIECE (256u << 10)

#define FIRST_ROOM 256u

int pack_file_new(struct pack_file **ret, int dir, char *ret_why)
{
	struct pack_file *file = calloc(1, sizeof(*file));
	int r;

	if (!file)
		return why(ret_why, -ENOMEM, "no memory for a pack");
	file->dir = dir;
	file->pack.fd = file->index.fd = file->keep.fd = -1;
	file->end = file->staged = PACK_HEAD;
	/* The head is written when all is known. */
	file->stage = calloc(1, STAGE);
	r = file->stage ? tmp_create(dir, &file->pack, ret_why) :
			  why(ret_why, -ENOMEM, "no memory for a pack");
	if (r < 0) {
		pack_file_free(file);
		return r;
	}
	COMMIT_POINT(pack_made);
	*ret = file;
	return 0;
}

void pack_file_free(struct pack_file *file)
{
	if (!file)
		return;
	tmp_discard(file->dir, &file->pack);
	tmp_discard(file->dir, &file->index);
	tmp_discard(file->dir, &file->keep);
	free(file->stage);
	free(file->objects);
	free(file);
}

static int pack_error(const struct pack_file *file, int err, const char *what,
		      char *ret_why)
{
	return file_error(ret_why, err, file->pack.name, what);
}

/* --- Objects ------------------------------------------------------------------ */

static int write_stage(struct pack_file *file, char *ret_why)
{
	uint64_t at = file->end - file->staged;
	int r = pwrite_all(file->pack.fd, file->stage, file->staged, at);

	if (r < 0)
		return pack_error(file, r, "cannot be written", ret_why);
	file->staged = 0;
	/* Only a hint: fsync() says whether it worked. */
	if (file->end - file->pushed >= PUSH_EVERY) {
		(void)sync_file_range(file->pack.fd, (off_t)file->pushed,
				      (off_t)(file->end - file->pushed),
				      SYNC_FILE_RANGE_WRITE);
		file->pushed = file->end;
	}
	COMMIT_POINT(pack_grown);
	return 0;
}

int pack_file_append(struct pack_file *file, const uint8_t *data, size_t n,
		     char *ret_why)
{
	while (n > 0) {
		size_t len = MIN(n, STAGE - file->staged);

		memcpy(file->stage + file->staged, data, len);
		file->staged += len;
		file->end += len;
		data += len;
		n -= len;
		if (file->staged == STAGE) {
			int r = write_stage(file, ret_why);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

int pack_file_begin(struct pack_file *file, const uint8_t oid[OID_BYTES],
		    char *ret_why)
{
	if (file->nr == file->room) {
		uint32_t room = file->room ? 2 * file->room : FIRST_ROOM;
		void *more = NULL;

		if (file->room < UINT32_MAX / 2)
			more = realloc(file->objects,
				       room * sizeof(*file->objects));
		if (!more)
			return pack_error(file, -ENOMEM, "cannot be written",
					  ret_why);
		file->objects = more;
		file->room = room;
	}
	file->objects[file->nr].at = file->end;
	memcpy(file->objects[file->nr].oid, oid, OID_BYTES);
	return 0;
}

void pack_file_end(struct pack_file *file, uint32_t crc)
{
	file->objects[file->nr++].crc = crc;
}

/* --- Complete ------------------------------------------------------------------ */

static int hash_file(const struct pack_file *file, struct hasher *hasher,
		     uint8_t *buf, uint8_t ret[OID_BYTES])
{
	int r = hasher_begin(hasher);

	for (uint64_t at = 0; r == 0 && at < file->end; at += HASH_PIECE) {
		size_t n = (size_t)MIN(HASH_PIECE, file->end - at);

		r = pread_all(file->pack.fd, buf, n, at);
		if (r == 0)
			r = hasher_add(hasher, buf, n);
	}
	return r < 0 ? r : hasher_end(hasher, ret);
}

static int make_trailer(struct pack_file *file, char *ret_why)
{
	struct hasher *hasher;
	int r = hasher_new(&hasher);

	if (r == 0) {
		/* The stage has been written. */
		r = hash_file(file, hasher, file->stage, file->trailer);
		hasher_free(hasher);
	}
	if (r < 0)
		return pack_error(file, r, "cannot be hashed", ret_why);
	r = pwrite_all(file->pack.fd, file->trailer, OID_BYTES, file->end);
	return r < 0 ? pack_error(file, r, "cannot be written", ret_why) : 0;
}

static int write_head(struct pack_file *file, char *ret_why)
{
	uint8_t head[PACK_HEAD] = { 'P', 'A', 'C', 'K', 0, 0, 0, 2 };
	int r;

	for (int i = 0; i < 4; i++)
		head[8 + i] = (uint8_t)(file->nr >> (24 - 8 * i));
	r = pwrite_all(file->pack.fd, head, sizeof(head), 0);
	return r < 0 ? pack_error(file, r, "cannot be written", ret_why) : 0;
}

static int write_index(struct pack_file *file, char *ret_why)
{
	cleanup_free uint8_t *index = NULL;
	size_t n;
	int r = pack_index_make(file->objects, file->nr, file->trailer, &index,
				&n);

	if (r < 0)
		return pack_error(file, r, "cannot be indexed", ret_why);
	r = tmp_create(file->dir, &file->index, ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(index_made);
	r = pwrite_all(file->index.fd, index, n, 0);
	if (r < 0)
		return file_error(ret_why, r, file->index.name,
				  "cannot be written");
	if (fsync(file->index.fd) < 0)
		return file_error(ret_why, -errno, file->index.name,
				  "cannot be made durable");
	COMMIT_POINT(index_written);
	return 0;
}

int pack_file_seal(struct pack_file *file, char *ret_why)
{
	int r = write_stage(file, ret_why);

	if (r == 0)
		r = write_head(file, ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(pack_counted);
	(void)sync_file_range(file->pack.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	r = make_trailer(file, ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(pack_complete);
	if (fsync(file->pack.fd) < 0)
		return pack_error(file, -errno, "cannot be made durable",
				  ret_why);
	COMMIT_POINT(pack_written);
	return write_index(file, ret_why);
}
