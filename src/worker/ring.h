/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring.h - requests off shared memory, responses onto it.
 *
 * The only part that touches memory that a guest can write at the same time.
 * A ring belongs to one lane (to the main thread while the lane does not run).
 * Indices are free-running, as in Xen's io/ring.h.
 */
#ifndef XENDISK_RING_H
#define XENDISK_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/blkif.h"

struct ring {
	volatile void *shared;
	enum blkif_layout layout;
	uint32_t nr_slots; /* a power of two */
	uint32_t req_cons; /* next request to take */
	uint32_t rsp_prod; /* next response to write */
	uint32_t rsp_published; /* what the guest can see */
};

/* How many requests fit into that many pages. */
uint32_t ring_nr_slots(enum blkif_layout layout, unsigned int nr_pages);

/* pages: the mapped ring, borrowed.  Goes on where the guest sees it. */
void ring_attach(struct ring *ring, volatile void *pages, unsigned int nr_pages,
		 enum blkif_layout layout);

/* After ring_attach(), for a ring that a dead worker served up to there. */
void ring_resume(struct ring *ring, uint32_t req_cons);

/* Looks once how many requests there are.  -EPROTO: more than can be; the
 * guest has broken its ring. */
int ring_look(const struct ring *ring, uint32_t *ret_count);

/* Copies the next request, each byte once, to slot (BLKIF_SLOT_MAX bytes,
 * aligned to 8).  At most as many times as ring_look() has counted. */
void ring_take(struct ring *ring, void *slot);

/* Writes a response that the guest does not see yet. */
void ring_put(struct ring *ring, uint64_t id, uint8_t op, int16_t status);

/* Publishes what was put; says whether the guest wants to be told. */
bool ring_push(struct ring *ring);

/* Are there requests?  Looks only. */
bool ring_pending(const struct ring *ring);

/* Before sleeping: asks for an event with the next request.  True when there
 * is one already. */
bool ring_final_check(const struct ring *ring);

#endif
