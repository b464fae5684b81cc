/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An object as it is in a pack: type and size, then a zlib stream (gitformat-pack(5),
 * RFC 1950, RFC 1951).
 *
 * What deflate would not shorten by an eighth goes in as stored blocks, that is,
 * as it is, with five bytes in front of each 65535: a reader finds it by pread().
 * `git gc` and clones copy it like that.  Deflate is ISA-L's, at level 1, where
 * configure found it, else libdeflate's, which leaves objects that come in pieces
 * as they are.
 */
#include "config.h"

#include <libdeflate.h>
#include <string.h>

#ifdef HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif

#include "common/util.h"
#include "pack-private.h"

#define BLOCK	   65535u /* bytes of a stored block, at most */
#define BLOCK_HEAD 5u

/*
 * A sample decides whether it is worth trying, by how many pairs of its bytes are
 * alike.  Where all 256 are equally likely that is one pair in 256, give or take half
 * a percent for a sample of this size; what a code for single bytes can shorten by an
 * eighth has no more than seven bits in eight, so one in 128 at least.  Noise that
 * is repeated looks like noise: that costs room, and no more.
 *
 * Eight bytes of each part of the data, somewhere else in each: at equal distances all
 * of them might be what records begin with, check sums or keys.
 */
#define SAMPLE	   4096u
#define ALIKE_FLAT (SAMPLE + (uint64_t)SAMPLE * SAMPLE / 256)
#define ALIKE_MIN  (ALIKE_FLAT + ALIKE_FLAT / 16)

struct packer {
	bool store_only;
#ifdef HAVE_ISAL
	struct isal_zstream stream;
	uint8_t level_buf[ISAL_DEF_LVL1_DEFAULT];
#else
	struct libdeflate_compressor *compressor;
#endif
};

int packer_new(struct packer **ret, bool store_only)
{
	struct packer *packer = calloc(1, sizeof(*packer));

	if (!packer)
		return -ENOMEM;
	packer->store_only = store_only;
#ifndef HAVE_ISAL
	packer->compressor = libdeflate_alloc_compressor(1);
	if (!packer->compressor) {
		free(packer);
		return -ENOMEM;
	}
#endif
	*ret = packer;
	return 0;
}

void packer_free(struct packer *packer)
{
	if (!packer)
		return;
#ifndef HAVE_ISAL
	libdeflate_free_compressor(packer->compressor);
#endif
	free(packer);
}

/*
 * Blocks of a deflate stream that end with a byte, or 0: they need more than room.
 * More can follow, unless it is the last: libdeflate knows whole streams only.
 */
static size_t deflate_raw(struct packer *packer, const uint8_t *data, size_t n,
			  bool last, uint8_t *ret, size_t room)
{
#ifdef HAVE_ISAL
	struct isal_zstream *s = &packer->stream;

	isal_deflate_stateless_init(s);
	s->level = 1;
	s->level_buf = packer->level_buf;
	s->level_buf_size = sizeof(packer->level_buf);
	s->end_of_stream = last;
	s->flush = last ? NO_FLUSH : FULL_FLUSH;
	/* It only reads there. */
	s->next_in = (uint8_t *)(uintptr_t)data;
	s->avail_in = (uint32_t)n;
	s->next_out = ret;
	s->avail_out = (uint32_t)room;
	return isal_deflate_stateless(s) == COMP_OK ? s->total_out : 0;
#else
	return last ? libdeflate_deflate_compress(packer->compressor, data, n,
						  ret, room) :
		      0;
#endif
}

static bool worth_trying(const struct packer *packer, const uint8_t *data,
			 size_t n)
{
	uint16_t count[256] = { 0 };
	uint64_t alike = 0;
	size_t stride = n / (SAMPLE / 8); /* 16 or more */
	uint32_t somewhere = 0;

	if (packer->store_only)
		return false;
	if (n < 2 * (size_t)SAMPLE)
		return true;
	for (size_t part = 0; part < SAMPLE / 8; part++) {
		const uint8_t *at = data + part * stride;

		somewhere += 0x9e3779b9; /* 2^32 by the golden ratio */
		at += ((uint64_t)somewhere * (stride - 7)) >> 32;
		for (size_t byte = 0; byte < 8; byte++)
			count[at[byte]]++;
	}
	for (size_t i = 0; i < 256; i++)
		alike += (uint64_t)count[i] * count[i];
	return alike >= ALIKE_MIN;
}

static size_t store(const uint8_t *data, size_t n, bool last, uint8_t *ret)
{
	uint8_t *p = ret;

	do {
		size_t len = MIN(n, BLOCK);

		*p++ = last && len == n; /* of type 0 */
		*p++ = (uint8_t)len;
		*p++ = (uint8_t)(len >> 8);
		*p++ = (uint8_t)~len;
		*p++ = (uint8_t)(~len >> 8);
		memcpy(p, data, len);
		p += len;
		data += len;
		n -= len;
	} while (n > 0);
	return (size_t)(p - ret);
}

size_t pack_piece_max(size_t n)
{
	return n + BLOCK_HEAD * (n / BLOCK + 1);
}

size_t pack_piece(struct packer *packer, const uint8_t *data, size_t n,
		  bool last, uint8_t *ret, bool *ret_stored)
{
	size_t len = 0;

	if (worth_trying(packer, data, n))
		len = deflate_raw(packer, data, n, last, ret, n - n / 8);
	*ret_stored = len == 0;
	return len > 0 ? len : store(data, n, last, ret);
}

static size_t put_head(enum object_type type, uint64_t size, uint8_t *ret)
{
	size_t i = 0;
	uint8_t byte = (uint8_t)((unsigned int)type << 4 | (size & 15));

	for (size >>= 4; size > 0; size >>= 7) {
		ret[i++] = byte | 0x80;
		byte = size & 0x7f;
	}
	ret[i++] = byte;
	return i;
}

size_t pack_entry_begin(enum object_type type, uint64_t size,
			uint8_t ret[PACK_BEGIN_MAX])
{
	size_t n = put_head(type, size, ret);

	ret[n++] = 0x78; /* deflate, a window of 32 KiB */
	ret[n++] = 0x01; /* fastest; makes both a multiple of 31 */
	return n;
}

void pack_entry_end(uint32_t adler, uint8_t ret[PACK_END])
{
	for (int i = 0; i < (int)PACK_END; i++)
		ret[i] = (uint8_t)(adler >> (24 - 8 * i));
}

uint32_t pack_adler(uint32_t adler, const void *data, size_t n)
{
	return libdeflate_adler32(adler, data, n);
}

uint32_t pack_crc(uint32_t crc, const void *data, size_t n)
{
	return libdeflate_crc32(crc, data, n);
}

size_t pack_entry_max(size_t n)
{
	return PACK_BEGIN_MAX + pack_piece_max(n) + PACK_END;
}

size_t pack_entry(struct packer *packer, enum object_type type,
		  const uint8_t *data, size_t n, uint8_t *ret, bool *ret_stored)
{
	uint8_t *p = ret + pack_entry_begin(type, n, ret);

	p += pack_piece(packer, data, n, true, p, ret_stored);
	pack_entry_end(pack_adler(1, data, n), p);
	return (size_t)(p - ret) + PACK_END;
}
