/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Layouts of blkif ring entries; see simabi.h. */
#include "config.h"

#include "simabi.h"

#include <string.h>
#include <xen/io/protocols.h>

#define FILLER	    0xc3
#define RING_HEADER 64u /* bytes before the first entry, ring.h */

#define LAYOUT_32 .id = 4, .sector = 12, .body = 20, .slot = 108, .response = 12
#define LAYOUT_64 .id = 8, .sector = 16, .body = 24, .slot = 112, .response = 16
#ifdef __i386__
#define LAYOUT_NATIVE LAYOUT_32
#else
#define LAYOUT_NATIVE LAYOUT_64
#endif

static const struct simabi abis[] = {
	{ .name = "native", .protocol = NULL, LAYOUT_NATIVE },
	{ .name = "x86_32", .protocol = XEN_IO_PROTO_ABI_X86_32, LAYOUT_32 },
	{ .name = "x86_64", .protocol = XEN_IO_PROTO_ABI_X86_64, LAYOUT_64 },
	{ .name = "arm", .protocol = XEN_IO_PROTO_ABI_ARM, LAYOUT_64 },
};

#ifndef __i386__
/* The 64-bit table against what the compiler makes of Xen's own structs. */
_Static_assert(offsetof(blkif_request_t, id) == 8, "id");
_Static_assert(offsetof(blkif_request_t, sector_number) == 16, "sector");
_Static_assert(offsetof(blkif_request_t, seg) == 24, "segments");
_Static_assert(offsetof(blkif_request_discard_t, nr_sectors) == 24, "discard");
_Static_assert(offsetof(blkif_request_indirect_t, handle) == 24, "handle");
_Static_assert(offsetof(blkif_request_indirect_t, indirect_grefs) == 28,
	       "indirect_grefs");
_Static_assert(sizeof(union blkif_sring_entry) == 112, "slot");
_Static_assert(sizeof(blkif_response_t) == 16, "response");
#endif
_Static_assert(offsetof(blkif_response_t, operation) == 8, "operation");
_Static_assert(offsetof(blkif_response_t, status) == 10, "status");
_Static_assert(sizeof(struct blkif_request_segment) == 8, "segment");
_Static_assert(offsetof(blkif_sring_t, ring) == RING_HEADER, "header");

const struct simabi *simabi_by_name(const char *name)
{
	for (size_t i = 0; i < sizeof(abis) / sizeof(abis[0]); i++)
		if (strcmp(abis[i].name, name) == 0)
			return &abis[i];
	return NULL;
}

unsigned int simabi_ring_slots(const struct simabi *abi, unsigned int order)
{
	unsigned int fit = ((SIMABI_PAGE << order) - RING_HEADER) / abi->slot;
	unsigned int slots = 1;

	while (slots * 2 <= fit)
		slots *= 2;
	return slots;
}

static void put(uint8_t *slot, unsigned int offset, const void *value,
		size_t size)
{
	memcpy(slot + offset, value, size);
}

static void encode_segments(const struct simabi *abi,
			    const struct simabi_request *req, uint8_t *slot)
{
	unsigned int n = req->nr_segments;

	if (n > BLKIF_MAX_SEGMENTS_PER_REQUEST)
		n = BLKIF_MAX_SEGMENTS_PER_REQUEST;
	if (n > 0)
		put(slot, abi->body, req->segments, n * sizeof(*req->segments));
}

void simabi_encode(const struct simabi *abi, const struct simabi_request *req,
		   uint8_t *ret_slot)
{
	memset(ret_slot, FILLER, abi->slot);
	ret_slot[0] = req->operation;
	put(ret_slot, abi->id, &req->id, sizeof(req->id));
	put(ret_slot, abi->sector, &req->sector, sizeof(req->sector));
	switch (req->operation) {
	case BLKIF_OP_INDIRECT:
		ret_slot[1] = req->indirect_op;
		put(ret_slot, 2, &req->nr_segments, sizeof(req->nr_segments));
		put(ret_slot, abi->body, &req->handle, sizeof(req->handle));
		put(ret_slot, abi->body + 4, req->indirect_grefs,
		    sizeof(req->indirect_grefs));
		break;
	case BLKIF_OP_DISCARD:
		ret_slot[1] = req->flag;
		put(ret_slot, 2, &req->handle, sizeof(req->handle));
		put(ret_slot, abi->body, &req->nr_sectors,
		    sizeof(req->nr_sectors));
		break;
	default:
		ret_slot[1] = (uint8_t)req->nr_segments;
		put(ret_slot, 2, &req->handle, sizeof(req->handle));
		encode_segments(abi, req, ret_slot);
	}
}

void simabi_decode(const struct simabi *abi, const uint8_t *slot,
		   struct simabi_response *ret_response)
{
	(void)abi; /* a response starts alike in all layouts */
	memcpy(&ret_response->id, slot, 8);
	memcpy(&ret_response->operation, slot + 8, 1);
	memcpy(&ret_response->status, slot + 10, 2);
}

/* Zeroes, or what the request had there. */
static bool is_clean(const uint8_t *slot, const uint8_t *request,
		     unsigned int from, unsigned int to)
{
	for (unsigned int i = from; i < to; i++)
		if (slot[i] != 0 && slot[i] != request[i])
			return false;
	return true;
}

bool simabi_padding_clean(const struct simabi *abi, const uint8_t *slot,
			  const uint8_t *request)
{
	/* Between the operation and the status; up to where the longest response ends,
	 * whose padding nearly every backend clears; and the rest, which nearly none
	 * touches: at once, for its time counts as the backend's latency where that is
	 * measured. */
	return is_clean(slot, request, 9, 10) &&
	       is_clean(slot, request, 12, 16) &&
	       (memcmp(slot + 16, request + 16, abi->slot - 16) == 0 ||
		is_clean(slot, request, 16, abi->slot));
}
