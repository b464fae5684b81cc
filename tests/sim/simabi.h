/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkif requests and responses as bytes, in each of the three layouts that
 * guests use (xen/io/blkif.h, xen/io/protocols.h).
 *
 * Written from the public headers alone: the simulated guest is the oracle of
 * the daemon's tests and shares no code with it.  Pure functions, any thread.
 */
#ifndef SIMABI_H
#define SIMABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The version decides whether ring.h gets xen_mb() from Xen's headers. */
#ifndef __XEN_INTERFACE_VERSION__
#define __XEN_INTERFACE_VERSION__ 0x00040d00
#endif
#include <xen/xen.h>
#include <xen/io/blkif.h>

#define SIMABI_SECTOR	  512u
#define SIMABI_PAGE	  4096u
#define SIMABI_PAGE_SECTS (SIMABI_PAGE / SIMABI_SECTOR)
#define SIMABI_MAX_SLOT	  112u /* bytes; the widest layout */

/*
 * Where the fields of a ring entry are.  The 64-bit ABIs align the request id
 * to 8 bytes, i386 to 4; everything behind it moves along.
 */
struct simabi {
	const char *name; /* of the --abi option */
	const char *protocol; /* value of the key; NULL: no key, native */
	unsigned int id; /* offsets in bytes ... */
	unsigned int sector;
	unsigned int body; /* segments, nr_sectors, or indirect's handle */
	unsigned int slot; /* size of a ring entry */
	unsigned int response; /* size of a response with its padding */
};

/* What a request says, whatever the layout.  Sectors are of 512 bytes. */
struct simabi_request {
	uint8_t operation;
	uint8_t indirect_op; /* BLKIF_OP_INDIRECT only */
	uint8_t flag; /* BLKIF_OP_DISCARD only */
	uint16_t nr_segments;
	uint16_t handle;
	uint64_t id;
	uint64_t sector;
	uint64_t nr_sectors; /* discard only */
	const struct blkif_request_segment *segments; /* direct only */
	uint32_t indirect_grefs[BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST];
};

struct simabi_response {
	uint64_t id;
	uint8_t operation;
	int16_t status;
};

/* NULL when there is no ABI of that name. */
const struct simabi *simabi_by_name(const char *name);

/* Entries of a ring of 2^order pages: a power of two behind the header. */
unsigned int simabi_ring_slots(const struct simabi *abi, unsigned int order);

/*
 * Fills all abi->slot bytes.  Bytes that the request does not use get a
 * filler, as a real guest's hold garbage: a backend may not depend on them.
 * At most BLKIF_MAX_SEGMENTS_PER_REQUEST direct segments are written,
 * whatever nr_segments says.
 */
void simabi_encode(const struct simabi *abi, const struct simabi_request *req,
		   uint8_t *ret_slot);

void simabi_decode(const struct simabi *abi, const uint8_t *slot,
		   struct simabi_response *ret_response);

/*
 * True when the answer in slot gives away nothing of the backend's memory
 * (XSA-216): all but id, operation and status is zero or still what the
 * request left in the slot (QEMU and blkback write the fields in place).
 */
bool simabi_padding_clean(const struct simabi *abi, const uint8_t *slot,
			  const uint8_t *request);

#endif
