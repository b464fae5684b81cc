/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a guest can do to its ring and its event channel. */
#include "config.h"

#include "simguest-hostile.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xen/io/xenbus.h>

#define NR_REFS 64

static void store(uint32_t *index, uint32_t value)
{
	__atomic_store_n(index, value, __ATOMIC_RELEASE);
}

static void ring_bell(struct hostile *h)
{
	(void)xensim_evtchn_send(h->domain, simqueue_port(h->queue));
}

static void make_refs(struct hostile *h, uint32_t *refs)
{
	for (unsigned int i = 0; i < NR_REFS; i++)
		refs[i] = hostile_grant(h, h->pages + (size_t)i * SIMABI_PAGE,
					i % 8 == 0);
	refs[3] = 0;
	refs[5] = UINT32_MAX;
}

unsigned int hostile_fill_ring(struct hostile *h, const uint32_t *refs,
			       unsigned int nr_refs)
{
	unsigned int posted = 0;
	struct simring *ring = simqueue_ring(h->queue);
	uint32_t answered =
		__atomic_load_n(&ring->sring->rsp_prod, __ATOMIC_ACQUIRE);
	uint8_t slot[SIMABI_MAX_SLOT];

	/* A ring that it has spoilt says anything. */
	if (ring->req_prod - answered >= ring->size)
		return 0;
	while (ring->req_prod - answered < ring->size) {
		hostile_random_slot(h, refs, nr_refs, slot);
		simring_put(ring, slot);
		posted++;
	}
	store(&ring->sring->rsp_event, answered + 1);
	store(&ring->sring->req_prod, ring->req_prod);
	ring_bell(h);
	return posted;
}

/* --- Never taking an answer ------------------------------------------------- */

static int run_deaf(struct hostile *h)
{
	uint32_t refs[NR_REFS];

	make_refs(h, refs);
	do {
		h->count += hostile_fill_ring(h, refs, NR_REFS);
	} while (hostile_has_time(h));
	return SIMGUEST_OK;
}

/* The largest requests that there are, all at once. */
static int run_full(struct hostile *h)
{
	struct blkif_request_segment *list = (void *)h->pages;
	uint32_t list_ref = hostile_grant(h, h->pages, true);
	uint32_t ref = hostile_grant(h, h->pages + SIMABI_PAGE, false);
	struct simring *ring = simqueue_ring(h->queue);
	struct simabi_request req = { .operation = BLKIF_OP_INDIRECT,
				      .nr_segments = 256 };

	for (unsigned int i = 0; i < 256; i++)
		list[i] = (struct blkif_request_segment){ .gref = ref,
							  .last_sect = 7 };
	req.indirect_grefs[0] = list_ref;
	do {
		uint32_t answered = __atomic_load_n(&ring->sring->rsp_prod,
						    __ATOMIC_ACQUIRE);
		uint8_t slot[SIMABI_MAX_SLOT];

		while (ring->req_prod - answered < ring->size) {
			req.indirect_op = hostile_random(h, 2) ? BLKIF_OP_READ :
								 BLKIF_OP_WRITE;
			req.sector = hostile_random(h, 8) * 2048;
			simabi_encode(h->abi, &req, slot);
			simring_put(ring, slot);
			h->count++;
		}
		store(&ring->sring->req_prod, ring->req_prod);
		ring_bell(h);
	} while (hostile_has_time(h));
	return SIMGUEST_OK;
}

/* --- Refused, as fast as can be ---------------------------------------------- */

static int run_flood(struct hostile *h)
{
	struct simring *ring = simqueue_ring(h->queue);
	uint8_t slot[SIMABI_MAX_SLOT] = { 99 };

	do {
		uint32_t answered = __atomic_load_n(&ring->sring->rsp_prod,
						    __ATOMIC_ACQUIRE);

		if (ring->req_prod - answered == ring->size)
			continue;
		while (ring->req_prod - answered < ring->size) {
			simring_put(ring, slot);
			h->count++;
		}
		store(&ring->sring->req_prod, ring->req_prod);
		ring_bell(h);
	} while (hostile_has_time(h));
	return SIMGUEST_OK;
}

/* --- More than the ring has room for ------------------------------------------ */

static int run_overrun(struct hostile *h)
{
	static const int64_t ahead[] = { 1, 2, 1 << 16, 1ll << 30, 1ll << 31 };
	unsigned int nr = sizeof(ahead) / sizeof(ahead[0]);
	uint32_t start = hostile_random(h, nr);
	int code = SIMGUEST_OK;

	for (unsigned int i = 0; code == SIMGUEST_OK; i++) {
		struct simring *ring;
		uint32_t prod;

		/* Some answers first, so that there is a "backwards". */
		code = hostile_work(h);
		if (code != SIMGUEST_OK)
			break;
		ring = simqueue_ring(h->queue);
		prod = ring->rsp_cons + ring->size +
		       (uint32_t)ahead[(start + i) % nr];
		if (i % 2)
			prod = ring->rsp_cons - 1 - hostile_random(h, 8);
		store(&ring->sring->req_prod, prod);
		ring_bell(h);
		h->count++;
		code = hostile_await_closed(h);
		if (i > 0 && !hostile_has_time(h))
			break;
		if (code == SIMGUEST_OK)
			code = hostile_connect(h);
	}
	return code;
}

/* --- Memory that changes under the reader -------------------------------------- */

struct flipper {
	struct hostile *h;
	pthread_t thread;
	bool indices;
	bool stop; /* atomic */
	uint64_t random;
};

/* Of the slots, and of the first pages, where lists are. */
static void flip_bytes(struct flipper *f)
{
	struct simring *ring = simqueue_ring(f->h->queue);
	size_t slots = (size_t)ring->size * f->h->abi->slot;
	uint64_t random = simio_random(&f->random);
	uint8_t *at = random % 2 ? ring->slots + (random >> 8) % slots :
				   f->h->pages + (random >> 8) % 16384;

	*(volatile uint8_t *)at = (uint8_t)(random >> 56);
}

static void flip_index(struct flipper *f)
{
	blkif_sring_t *sring = simqueue_ring(f->h->queue)->sring;
	uint64_t random = simio_random(&f->random);
	uint32_t value = (uint32_t)(random >> 32);
	uint32_t *index[] = { &sring->rsp_prod, &sring->rsp_event,
			      &sring->req_event, &sring->req_prod };

	if (random % 4 < 2)
		value = *(volatile uint32_t *)&sring->req_prod + value % 3;
	/* req_prod ends it all: now and then. */
	if (random % 65536 == 0)
		store(index[3], value);
	else
		store(index[(random >> 8) % 3], value);
}

static void *flipper_main(void *arg)
{
	struct flipper *f = arg;

	while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED)) {
		if (f->indices)
			flip_index(f);
		else
			flip_bytes(f);
	}
	return NULL;
}

/* A few, whatever rsp_prod says: it is not to be believed any more. */
static unsigned int post_blindly(struct hostile *h, const uint32_t *refs)
{
	struct simring *ring = simqueue_ring(h->queue);
	unsigned int nr = 1 + hostile_random(h, 4);
	uint8_t slot[SIMABI_MAX_SLOT];

	for (unsigned int i = 0; i < nr; i++) {
		hostile_random_slot(h, refs, NR_REFS, slot);
		simring_put(ring, slot);
	}
	store(&ring->sring->req_prod, ring->req_prod);
	ring_bell(h);
	usleep(20);
	return nr;
}

static int race(struct hostile *h, bool indices)
{
	struct flipper f = { .h = h,
			     .indices = indices,
			     .random = simio_random(&h->random) | 1 };
	uint32_t refs[NR_REFS];

	make_refs(h, refs);
	if (pthread_create(&f.thread, NULL, flipper_main, &f) != 0)
		return hostile_fault("no thread");
	do {
		h->count += indices ? post_blindly(h, refs) :
				      hostile_fill_ring(h, refs, NR_REFS);
	} while (hostile_has_time(h) && !simfront_closing(h->front));
	__atomic_store_n(&f.stop, true, __ATOMIC_RELAXED);
	pthread_join(f.thread, NULL);
	return SIMGUEST_OK;
}

static int run_race_bytes(struct hostile *h)
{
	return race(h, false);
}

/* The backend may find its ring broken, again and again. */
static int run_race_indices(struct hostile *h)
{
	int code = SIMGUEST_OK;
	int rounds = 0;

	do {
		if (rounds++ > 0)
			code = hostile_connect(h);
		if (code == SIMGUEST_OK)
			code = race(h, true);
	} while (code == SIMGUEST_OK && hostile_has_time(h));
	return code;
}

/* --- Ringing for nothing --------------------------------------------------------- */

static int run_events(struct hostile *h)
{
	do {
		for (int i = 0; i < 100; i++)
			ring_bell(h);
		h->count += 100;
	} while (hostile_has_time(h));
	return SIMGUEST_OK;
}

/* A request, now and then, that makes it look honest. */
static int run_events_and_work(struct hostile *h)
{
	int code;

	do {
		code = hostile_work(h);
		for (int i = 0; i < 1000; i++)
			ring_bell(h);
		h->count += 1000;
	} while (code == SIMGUEST_OK && hostile_has_time(h));
	return code;
}

const struct hostile_case hostile_ring_cases[] = {
	{ "overrun", HOSTILE_CLOSED, run_overrun, "overruns",
	  "req_prod by 1 to 2^31 too far, and backwards" },
	{ "race-bytes", HOSTILE_SPOILT, run_race_bytes, "requests",
	  "a thread changes slots and lists while they are read" },
	{ "race-indices", HOSTILE_SPOILT, run_race_indices, "requests",
	  "a thread changes all four indices" },
	{ "deaf", HOSTILE_SPOILT, run_deaf, "requests",
	  "keeps the ring full, takes no answer and no event" },
	{ "full", HOSTILE_SPOILT, run_full, "requests",
	  "keeps the ring full of the largest requests" },
	{ "flood", HOSTILE_SPOILT, run_flood, "requests",
	  "requests that are refused, as fast as the ring takes them" },
	{ "events", HOSTILE_GOOD, run_events, "events",
	  "rings without a request, as fast as it can" },
	{ "events-and-work", HOSTILE_GOOD, run_events_and_work, "events",
	  "the same with an honest request among 1000" },
	{ 0 },
};
