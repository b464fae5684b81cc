/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The two producers and two event indices of the shared page are read and
 * written here only, each once per decision, with explicit ordering.  A
 * response overwrites the slot of an older request, so the ring keeps a
 * private copy of every slot as sent: it tells stale request bytes from bytes
 * that leaked out of the backend.
 *
 * An id is a serial number over the index of its claim.  The high bits make a
 * late, duplicate or truncated id visible even when the index is in use again.
 */
#include "config.h"

#include "simring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_BITS 16
#define INDEX_MASK ((1u << INDEX_BITS) - 1)
/* Start with high bits set: a backend that keeps 32 of them is caught. */
#define FIRST_ID 0xb10c000000000000ull

static uint32_t load(const uint32_t *index)
{
	return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

static void store(uint32_t *index, uint32_t value)
{
	__atomic_store_n(index, value, __ATOMIC_RELEASE);
}

static void init_shared(blkif_sring_t *sring, size_t size)
{
	memset(sring, 0, size);
	sring->req_event = 1;
	sring->rsp_event = 1;
}

int simring_init(struct simring *ring, const struct simabi *abi, void *pages,
		 unsigned int order)
{
	*ring = (struct simring){
		.abi = abi,
		.sring = pages,
		.slots = (uint8_t *)pages + offsetof(blkif_sring_t, ring),
		.size = simabi_ring_slots(abi, order),
		.next_id = FIRST_ID,
	};
	ring->sent = calloc(ring->size, abi->slot);
	ring->claims = calloc(ring->size, sizeof(*ring->claims));
	ring->unclaimed = calloc(ring->size, sizeof(*ring->unclaimed));
	if (!ring->sent || !ring->claims || !ring->unclaimed) {
		simring_destroy(ring);
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < ring->size; i++)
		ring->unclaimed[i] = (uint16_t)(ring->size - 1 - i);
	ring->nr_unclaimed = ring->size;
	init_shared(pages, (size_t)SIMABI_PAGE << order);
	return 0;
}

void simring_destroy(struct simring *ring)
{
	free(ring->sent);
	free(ring->claims);
	free(ring->unclaimed);
	*ring = (struct simring){ 0 };
}

unsigned int simring_pending(const struct simring *ring)
{
	return ring->req_prod - ring->rsp_cons;
}

unsigned int simring_room(const struct simring *ring)
{
	unsigned int slots = ring->size - simring_pending(ring);

	return slots < ring->nr_unclaimed ? slots : ring->nr_unclaimed;
}

int simring_claim(struct simring *ring, uint8_t operation, void *cookie,
		  uint64_t *ret_id)
{
	unsigned int index;
	uint64_t id;

	if (simring_room(ring) == 0)
		return -EAGAIN;
	index = ring->unclaimed[--ring->nr_unclaimed];
	id = ring->next_id | index;
	ring->next_id += 1u << INDEX_BITS;
	ring->claims[index] = (struct simring_claim){ .pending = true,
						      .operation = operation,
						      .id = id,
						      .cookie = cookie };
	*ret_id = id;
	return (int)index;
}

static size_t slot_offset(const struct simring *ring, uint32_t position)
{
	return (size_t)(position & (ring->size - 1)) * ring->abi->slot;
}

void simring_put(struct simring *ring, const uint8_t *slot)
{
	size_t offset = slot_offset(ring, ring->req_prod);

	memcpy(ring->slots + offset, slot, ring->abi->slot);
	memcpy(ring->sent + offset, slot, ring->abi->slot);
	ring->req_prod++;
}

bool simring_publish(struct simring *ring)
{
	uint32_t old = ring->published;
	uint32_t now = ring->req_prod;

	if (old == now)
		return false;
	ring->published = now;
	store(&ring->sring->req_prod, now);
	/* The backend sees the requests before we look at req_event. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return now - load(&ring->sring->req_event) < now - old;
}

bool simring_arm(struct simring *ring)
{
	store(&ring->sring->rsp_event, ring->rsp_cons + 1);
	/* The backend sees rsp_event before we look at rsp_prod. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return load(&ring->sring->rsp_prod) != ring->rsp_cons;
}

/* NULL when the response answers a pending request as it should. */
static const char *judge(const struct simring *ring,
			 const struct simabi_response *rsp)
{
	unsigned int index = rsp->id & INDEX_MASK;
	const struct simring_claim *claim;

	if (index >= ring->size)
		return "an id that was never given out";
	claim = &ring->claims[index];
	if (claim->id != rsp->id)
		return claim->id > rsp->id && rsp->id >= FIRST_ID ?
			       "an id that was answered before" :
			       "an id that was never given out";
	if (!claim->pending)
		return "a second answer to one request";
	if (claim->operation != rsp->operation)
		return "an operation that is not the request's";
	return NULL;
}

static int fault(struct simring *ring, const struct simabi_response *rsp,
		 const char *what)
{
	snprintf(ring->fault, sizeof(ring->fault),
		 "response %u: %s (id %#llx, operation %u, status %d)",
		 ring->rsp_cons, what, (unsigned long long)rsp->id,
		 rsp->operation, rsp->status);
	return -EPROTO;
}

static int take_slot(struct simring *ring, struct simring_answer *ret_answer)
{
	size_t offset = slot_offset(ring, ring->rsp_cons);
	uint8_t slot[SIMABI_MAX_SLOT];
	struct simabi_response rsp;
	struct simring_claim *claim;
	const char *what;

	memcpy(slot, ring->slots + offset, ring->abi->slot);
	simabi_decode(ring->abi, slot, &rsp);
	what = judge(ring, &rsp);
	if (!what &&
	    !simabi_padding_clean(ring->abi, slot, ring->sent + offset))
		what = "padding with bytes of the backend's";
	if (what)
		return fault(ring, &rsp, what);
	claim = &ring->claims[rsp.id & INDEX_MASK];
	claim->pending = false;
	*ret_answer = (struct simring_answer){
		.index = (unsigned int)(claim - ring->claims),
		.cookie = claim->cookie,
		.status = rsp.status,
	};
	ring->unclaimed[ring->nr_unclaimed++] = (uint16_t)ret_answer->index;
	ring->rsp_cons++;
	return 1;
}

int simring_take(struct simring *ring, struct simring_answer *ret_answer)
{
	uint32_t produced = load(&ring->sring->rsp_prod);

	if (produced == ring->rsp_cons)
		return 0;
	if (produced - ring->rsp_cons > ring->published - ring->rsp_cons) {
		snprintf(ring->fault, sizeof(ring->fault),
			 "rsp_prod %u is beyond req_prod %u", produced,
			 ring->published);
		return -EPROTO;
	}
	return take_slot(ring, ret_answer);
}
