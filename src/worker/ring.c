/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring.c - the shared ring.
 *
 * Theory of operation
 *
 * The guest runs on other CPUs while this code does, and may write any byte of
 * the ring at any time.  So:
 *   - what is read is read once, through a volatile lvalue that the compiler
 *     can neither repeat nor split up (XSA-155, XSA-478), and judged as a copy;
 *   - our own position is kept in private memory; req_prod only says how far
 *     to go, and never further than the ring is long;
 *   - shared memory sees plain loads and stores and fences, never a
 *     read-modify-write, which a guest could keep from ending (XSA-295);
 *   - a response is made in private memory and stored whole, padding too
 *     (XSA-216).
 *
 * A response takes the place of a request: which one is settled by the order
 * of answers, not by the order of requests.  All requests below req_cons have
 * been copied, so nothing is lost by that while this process lives; for when
 * it does not, see inflight.c.
 */
#include "worker/ring.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#include <xen/xen.h>
#include <xen/io/ring.h>

/* The head of every shared ring; slots follow at RING_HEAD. */
struct ring_head {
	uint32_t req_prod;
	uint32_t req_event;
	uint32_t rsp_prod;
	uint32_t rsp_event;
};

#define RING_HEAD 64u

struct any_request {
	uint8_t bytes[BLKIF_SLOT_MAX];
};
struct any_response {
	uint8_t bytes[BLKIF_RESPONSE_MAX];
};
DEFINE_RING_TYPES(any, struct any_request, struct any_response);
static_assert(offsetof(struct any_sring, req_prod) ==
		      offsetof(struct ring_head, req_prod),
	      "ring.h");
static_assert(offsetof(struct any_sring, req_event) ==
		      offsetof(struct ring_head, req_event),
	      "ring.h");
static_assert(offsetof(struct any_sring, rsp_prod) ==
		      offsetof(struct ring_head, rsp_prod),
	      "ring.h");
static_assert(offsetof(struct any_sring, rsp_event) ==
		      offsetof(struct ring_head, rsp_event),
	      "ring.h");
static_assert(offsetof(struct any_sring, ring) == RING_HEAD, "ring.h");

static volatile struct ring_head *head(const struct ring *ring)
{
	return ring->shared;
}

static volatile uint8_t *slot_at(const struct ring *ring, uint32_t index)
{
	return (volatile uint8_t *)ring->shared + RING_HEAD +
	       (size_t)(index & (ring->nr_slots - 1)) *
		       blkif_slot_size(ring->layout);
}

uint32_t ring_nr_slots(enum blkif_layout layout, unsigned int nr_pages)
{
	size_t room = (size_t)nr_pages * BLKIF_PAGE - RING_HEAD;
	uint32_t fit = (uint32_t)(room / blkif_slot_size(layout));
	uint32_t slots = 1;

	while (slots * 2 <= fit)
		slots *= 2;
	return slots;
}

void ring_attach(struct ring *ring, volatile void *pages, unsigned int nr_pages,
		 enum blkif_layout layout)
{
	uint32_t rsp_prod;

	ring->shared = pages;
	ring->layout = layout;
	ring->nr_slots = ring_nr_slots(layout, nr_pages);
	rsp_prod = head(ring)->rsp_prod;
	ring->req_cons = rsp_prod;
	ring->rsp_prod = rsp_prod;
	ring->rsp_published = rsp_prod;
}

void ring_resume(struct ring *ring, uint32_t req_cons)
{
	assert(req_cons - ring->rsp_prod <= ring->nr_slots);
	ring->req_cons = req_cons;
}

int ring_look(const struct ring *ring, uint32_t *ret_count)
{
	uint32_t prod =
		__atomic_load_n(&head(ring)->req_prod, __ATOMIC_ACQUIRE);
	uint32_t outstanding = prod - ring->rsp_prod;
	uint32_t taken = ring->req_cons - ring->rsp_prod;

	/* Below what we have taken: it went backwards. */
	if (outstanding > ring->nr_slots || outstanding < taken)
		return -EPROTO;
	*ret_count = outstanding - taken;
	return 0;
}

void ring_take(struct ring *ring, void *slot)
{
	const volatile uint8_t *from = slot_at(ring, ring->req_cons);
	size_t size = blkif_slot_size(ring->layout);

	/* Slots of 108 bytes are aligned to 4, those of 112 to 8. */
	if (ring->layout == BLKIF_X86_64) {
		const volatile uint64_t *src = (const volatile void *)from;
		uint64_t *dst = slot;

		for (size_t i = 0; i < size / sizeof(*dst); i++)
			dst[i] = src[i];
	} else {
		const volatile uint32_t *src = (const volatile void *)from;
		uint32_t *dst = slot;

		for (size_t i = 0; i < size / sizeof(*dst); i++)
			dst[i] = src[i];
	}
	ring->req_cons++;
}

void ring_put(struct ring *ring, uint64_t id, uint8_t op, int16_t status)
{
	volatile uint32_t *dst = (volatile void *)slot_at(ring, ring->rsp_prod);
	size_t words = blkif_response_size(ring->layout) / sizeof(*dst);
	uint32_t src[BLKIF_RESPONSE_MAX / sizeof(uint32_t)];

	assert(ring->rsp_prod != ring->req_cons);
	blkif_response(id, op, status, src);
	for (size_t i = 0; i < words; i++)
		dst[i] = src[i];
	ring->rsp_prod++;
}

bool ring_push(struct ring *ring)
{
	uint32_t before = ring->rsp_published;
	uint32_t wanted;

	__atomic_store_n(&head(ring)->rsp_prod, ring->rsp_prod,
			 __ATOMIC_RELEASE);
	ring->rsp_published = ring->rsp_prod;
	/* Not before the guest can see the responses: else both sides could
	 * go to sleep. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	wanted = __atomic_load_n(&head(ring)->rsp_event, __ATOMIC_RELAXED);
	return ring->rsp_prod - wanted < ring->rsp_prod - before;
}

bool ring_pending(const struct ring *ring)
{
	return __atomic_load_n(&head(ring)->req_prod, __ATOMIC_RELAXED) !=
	       ring->req_cons;
}

bool ring_final_check(const struct ring *ring)
{
	__atomic_store_n(&head(ring)->req_event, ring->req_cons + 1,
			 __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return ring_pending(ring);
}
