/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An object that is too large to be copied: piece by piece from where it is.
 */
#include "config.h"

#include "common/util.h"
#include "pack-private.h"

#define PIECE (4u * 65535) /* whole stored blocks */

struct large {
	struct pack_file *file;
	struct packer *packer;
	uint8_t *out; /* for a piece */
	uint32_t adler, crc;
	uint64_t packed; /* bytes */
};

static int put_large(struct large *large, const uint8_t *data, size_t n,
		     char *ret_why)
{
	large->crc = pack_crc(large->crc, data, n);
	large->packed += n;
	return pack_file_append(large->file, data, n, ret_why);
}

static int put_pieces(struct large *large, const uint8_t *data, size_t n,
		      char *ret_why)
{
	int r = 0;

	for (size_t len; n > 0 && r == 0; data += len, n -= len) {
		bool stored;

		len = MIN(n, PIECE);
		large->adler = pack_adler(large->adler, data, len);
		r = put_large(large, large->out,
			      pack_piece(large->packer, data, len, len == n,
					 large->out, &stored),
			      ret_why);
	}
	return r;
}

static int put_object(struct large *large, const struct pack_large *object,
		      char *ret_why)
{
	uint8_t begin[PACK_BEGIN_MAX], end[PACK_END];
	int r = pack_file_begin(large->file, object->oid, ret_why);

	if (r == 0)
		r = put_large(large, begin,
			      pack_entry_begin(object->type, object->n, begin),
			      ret_why);
	if (r == 0)
		r = put_pieces(large, object->data, object->n, ret_why);
	if (r < 0)
		return r;
	pack_entry_end(large->adler, end);
	r = put_large(large, end, sizeof(end), ret_why);
	if (r == 0)
		pack_file_end(large->file, large->crc);
	return r;
}

int pack_large(struct pack_set *set, bool store_only,
	       const struct pack_large *object, uint64_t *ret_packed,
	       char *ret_why)
{
	struct large large = { .adler = 1 };
	int r = pack_set_room(set, pack_entry_max(object->n), &large.file,
			      ret_why);

	if (r < 0)
		return r;
	large.out = malloc(pack_piece_max(PIECE));
	r = large.out ? packer_new(&large.packer, store_only) : -ENOMEM;
	r = r < 0 ? why(ret_why, r, "no memory for an object") :
		    put_object(&large, object, ret_why);
	packer_free(large.packer);
	free(large.out);
	if (r == 0)
		*ret_packed = large.packed;
	return r;
}
