/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The index of a pack, version 2 (gitformat-pack(5)): how many ids begin with each
 * byte or a lower one; the ids, sorted; for each the CRC-32 of its bytes in the
 * pack; its offset, of 31 bits, or the number of one of 64 that follow; the two
 * trailers.
 */
#include "config.h"

#include <string.h>

#include "common/util.h"
#include "pack-private.h"

#define HEAD	  8u
#define FANOUT	  (256u * 4)
#define AN_OBJECT (OID_BYTES + 4 + 4)
#define LARGE	  0x80000000u /* this bit in 32: the rest is a number */

static int by_oid(const void *a, const void *b)
{
	const struct pack_object *x = a, *y = b;

	return memcmp(x->oid, y->oid, OID_BYTES);
}

static uint8_t *put32(uint8_t *p, uint32_t value)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		*p++ = (uint8_t)(value >> shift);
	return p;
}

static uint8_t *put_fanout(uint8_t *p, const struct pack_object *objects,
			   uint32_t nr)
{
	uint32_t n = 0;

	for (unsigned int byte = 0; byte < 256; byte++) {
		while (n < nr && objects[n].oid[0] == byte)
			n++;
		p = put32(p, n);
	}
	return p;
}

static uint8_t *put_offsets(uint8_t *p, const struct pack_object *objects,
			    uint32_t nr)
{
	uint32_t large = 0;

	for (uint32_t i = 0; i < nr; i++)
		p = put32(p, objects[i].at < LARGE ? (uint32_t)objects[i].at :
						     LARGE | large++);
	for (uint32_t i = 0; i < nr; i++) {
		if (objects[i].at < LARGE)
			continue;
		p = put32(p, (uint32_t)(objects[i].at >> 32));
		p = put32(p, (uint32_t)objects[i].at);
	}
	return p;
}

static uint8_t *put_tables(uint8_t *p, const struct pack_object *objects,
			   uint32_t nr)
{
	static const uint8_t head[HEAD] = { 0xff, 't', 'O', 'c', 0, 0, 0, 2 };

	memcpy(p, head, HEAD);
	p = put_fanout(p + HEAD, objects, nr);
	for (uint32_t i = 0; i < nr; i++, p += OID_BYTES)
		memcpy(p, objects[i].oid, OID_BYTES);
	for (uint32_t i = 0; i < nr; i++)
		p = put32(p, objects[i].crc);
	return put_offsets(p, objects, nr);
}

/* The index's own trailer. */
static int put_sum(uint8_t *index, uint8_t *end)
{
	struct hasher *hasher;
	int r = hasher_new(&hasher);

	if (r < 0)
		return r;
	r = hasher_begin(hasher);
	if (r == 0)
		r = hasher_add(hasher, index, (size_t)(end - index));
	if (r == 0)
		r = hasher_end(hasher, end);
	hasher_free(hasher);
	return r;
}

int pack_index_make(struct pack_object *objects, uint32_t nr,
		    const uint8_t trailer[OID_BYTES], uint8_t **ret,
		    size_t *ret_n)
{
	size_t n = HEAD + FANOUT + (size_t)nr * AN_OBJECT + 2 * OID_BYTES;
	uint8_t *index, *end;
	int r;

	for (uint32_t i = 0; i < nr; i++)
		n += objects[i].at < LARGE ? 0 : 8;
	index = malloc(n);
	if (!index)
		return -ENOMEM;
	qsort(objects, nr, sizeof(*objects), by_oid);
	end = put_tables(index, objects, nr);
	memcpy(end, trailer, OID_BYTES);
	r = put_sum(index, end + OID_BYTES);
	if (r < 0) {
		free(index);
		return r;
	}
	*ret = index;
	*ret_n = n;
	return 0;
}
