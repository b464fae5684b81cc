/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * A request goes build (describe it and grant its pages), encode (simabi),
 * put (simring); only build belongs to an honest guest.  The grants of a
 * request live in a slot chosen by its claim on the ring and end when it is
 * answered: like a blkfront without persistent grants, which must not be
 * answered while the backend still maps a page.
 *
 * With persistent grants the pages of a request, and its list, are lent by a pool
 * (simpool.h).  What a read brings is copied from there when it is answered, and
 * bytes outside of its segments must be as they were.
 */
#include "simqueue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "simpool.h"
#include "simring.h"

#define FILLER 0xc3

/* A page of the pool that a request has, and the segment that it is for. */
struct lent {
	struct simpool_page *page;
	struct simqueue_segment segment; /* page NULL: none, it is the list */
};

/* Grants and indirect page of the request at one claim of the ring. */
struct grants {
	unsigned int count;
	union { /* + the indirect page */
		uint32_t refs[SIMQUEUE_MAX_SEGMENTS + 1];
		struct lent lent[SIMQUEUE_MAX_SEGMENTS + 1];
	};
};

struct simqueue {
	struct simqueue_config config;
	struct simring ring;
	void *ring_pages;
	uint32_t ring_refs[1 << SIMQUEUE_MAX_ORDER];
	unsigned int nr_ring_refs;
	struct xensim_events *events;
	uint32_t port;
	struct grants *grants; /* ring.size of them */
	struct simpool *pool; /* persistent grants; or NULL */
	uint8_t *indirect_pages; /* one page for each of them */
	struct simqueue_counters counters;
	bool broken;
	char fault[200];
};

static unsigned int nr_ring_pages(const struct simqueue *q)
{
	return 1u << q->config.order;
}

static int create_ring(struct simqueue *q)
{
	unsigned int pages = nr_ring_pages(q);
	int r;

	q->ring_pages = xensim_alloc_pages(q->config.guest, pages);
	if (!q->ring_pages)
		return -errno;
	r = simring_init(&q->ring, q->config.abi, q->ring_pages,
			 q->config.order);
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < pages; i++) {
		r = xensim_grant(q->config.guest, q->config.backend_domid,
				 (uint8_t *)q->ring_pages + i * SIMABI_PAGE,
				 false, &q->ring_refs[i]);
		if (r < 0)
			return r;
		q->nr_ring_refs++;
	}
	q->grants = calloc(q->ring.size, sizeof(*q->grants));
	q->indirect_pages = xensim_alloc_pages(q->config.guest, q->ring.size);
	return q->grants && q->indirect_pages ? 0 : -ENOMEM;
}

int simqueue_create(const struct simqueue_config *config,
		    struct simqueue **ret_queue)
{
	struct simqueue *q;
	int r;

	if (config->order > SIMQUEUE_MAX_ORDER)
		return -EINVAL;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	q->config = *config;
	r = create_ring(q);
	if (r == 0)
		r = xensim_events_open(config->guest, &q->events);
	if (r == 0)
		r = xensim_evtchn_alloc_unbound(
			q->events, config->backend_domid, &q->port);
	if (r < 0) {
		simqueue_destroy(q);
		return r;
	}
	*ret_queue = q;
	return 0;
}

int simqueue_make_persistent(struct simqueue *queue)
{
	return simpool_new(queue->config.guest, queue->config.backend_domid,
			   &queue->pool);
}

/* True when the backend maps none of these any more. */
static bool end_grants(struct simqueue *q, const uint32_t *refs,
		       unsigned int count)
{
	bool ended = true;

	for (unsigned int i = 0; i < count; i++)
		if (xensim_grant_end(q->config.guest, refs[i]) == -EBUSY)
			ended = false;
	return ended;
}

static bool end_all_grants(struct simqueue *q)
{
	bool ended = end_grants(q, q->ring_refs, q->nr_ring_refs);

	if (q->pool)
		return simpool_free(q->pool) && ended;
	for (unsigned int i = 0; q->grants && i < q->ring.size; i++)
		if (!end_grants(q, q->grants[i].refs, q->grants[i].count))
			ended = false;
	return ended;
}

int simqueue_destroy(struct simqueue *queue)
{
	struct xensim_guest *guest;
	bool ended;

	if (!queue)
		return 0;
	guest = queue->config.guest;
	if (queue->events)
		xensim_events_close(queue->events);
	ended = end_all_grants(queue);
	if (ended && queue->indirect_pages)
		xensim_free_pages(guest, queue->indirect_pages,
				  queue->ring.size);
	if (ended && queue->ring_pages)
		xensim_free_pages(guest, queue->ring_pages,
				  nr_ring_pages(queue));
	simring_destroy(&queue->ring);
	free(queue->grants);
	free(queue);
	return ended ? 0 : -EBUSY;
}

const uint32_t *simqueue_ring_refs(const struct simqueue *queue)
{
	return queue->ring_refs;
}

uint32_t simqueue_port(const struct simqueue *queue)
{
	return queue->port;
}

unsigned int simqueue_size(const struct simqueue *queue)
{
	return queue->ring.size;
}

unsigned int simqueue_room(const struct simqueue *queue)
{
	return simring_room(&queue->ring);
}

unsigned int simqueue_pending(const struct simqueue *queue)
{
	return simring_pending(&queue->ring);
}

const char *simqueue_fault(const struct simqueue *queue)
{
	return queue->fault;
}

void simqueue_counters(const struct simqueue *queue,
		       struct simqueue_counters *ret_counters)
{
	*ret_counters = queue->counters;
}

static int break_queue(struct simqueue *q, const char *why)
{
	if (!q->broken)
		snprintf(q->fault, sizeof(q->fault), "%s", why);
	q->broken = true;
	return -EPROTO;
}

/* --- Building a request ------------------------------------------------- */

static int grant_page(struct simqueue *q, struct grants *grants,
		      const void *page, bool readonly, uint32_t *ret_ref)
{
	int r = xensim_grant(q->config.guest, q->config.backend_domid, page,
			     readonly, ret_ref);

	if (r == 0)
		grants->refs[grants->count++] = *ret_ref;
	return r;
}

/* A page of the pool in the place of one of the request's. */
static int lend_page(struct simqueue *q, struct grants *grants,
		     const struct simqueue_segment *segment, bool read,
		     struct simpool_page **ret_page)
{
	unsigned int start = segment->first * SIMABI_SECTOR;
	unsigned int end = (segment->last + 1) * SIMABI_SECTOR;
	struct lent *lent = &grants->lent[grants->count];
	int r = simpool_take(q->pool, &lent->page);

	if (r < 0)
		return r;
	lent->segment = *segment;
	grants->count++;
	*ret_page = lent->page;
	memset(lent->page->data, FILLER, SIMABI_PAGE);
	if (!read && segment->page && start < end && end <= SIMABI_PAGE)
		memcpy(lent->page->data + start, segment->page + start,
		       end - start);
	return 0;
}

static int grant_segment(struct simqueue *q, struct grants *grants,
			 const struct simqueue_segment *segment, bool read,
			 uint32_t *ret_ref)
{
	struct simpool_page *page;
	int r;

	if (!q->pool)
		return grant_page(q, grants, segment->page, !read, ret_ref);
	r = lend_page(q, grants, segment, read, &page);
	if (r == 0)
		*ret_ref = page->ref;
	return r;
}

/* Grants the data pages and describes them in out. */
static int grant_segments(struct simqueue *q, struct grants *grants,
			  const struct simqueue_request *req,
			  struct blkif_request_segment *out)
{
	bool read = req->operation == BLKIF_OP_READ;

	for (unsigned int i = 0; i < req->nr_segments; i++) {
		const struct simqueue_segment *in = &req->segments[i];
		uint32_t ref;
		int r = grant_segment(q, grants, in, read, &ref);

		if (r < 0)
			return r;
		memset(&out[i], FILLER, sizeof(out[i]));
		out[i].gref = ref;
		out[i].first_sect = in->first;
		out[i].last_sect = in->last;
	}
	return 0;
}

static int build_direct(struct simqueue *q, struct grants *grants,
			const struct simqueue_request *req,
			struct simabi_request *ret)
{
	struct blkif_request_segment segments[BLKIF_MAX_SEGMENTS_PER_REQUEST];
	uint8_t slot[SIMABI_MAX_SLOT];
	int r = grant_segments(q, grants, req, segments);

	if (r < 0)
		return r;
	ret->segments = segments;
	simabi_encode(q->config.abi, ret, slot);
	simring_put(&q->ring, slot);
	return 0;
}

/* The page that the list of an indirect request goes into. */
static int grant_list(struct simqueue *q, struct grants *grants,
		      uint32_t *ret_ref, uint8_t **ret_page)
{
	static const struct simqueue_segment none = { 0 };
	size_t index = (size_t)(grants - q->grants);
	struct simpool_page *page;
	int r;

	if (!q->pool) {
		*ret_page = q->indirect_pages + index * SIMABI_PAGE;
		memset(*ret_page, FILLER, SIMABI_PAGE);
		return grant_page(q, grants, *ret_page, true, ret_ref);
	}
	r = lend_page(q, grants, &none, false, &page);
	if (r < 0)
		return r;
	*ret_page = page->data;
	*ret_ref = page->ref;
	return 0;
}

static int build_indirect(struct simqueue *q, struct grants *grants,
			  const struct simqueue_request *req,
			  struct simabi_request *ret)
{
	uint8_t slot[SIMABI_MAX_SLOT];
	uint8_t *page;
	int r = grant_list(q, grants, &ret->indirect_grefs[0], &page);

	if (r == 0)
		r = grant_segments(
			q, grants, req,
			(struct blkif_request_segment *)(void *)page);
	if (r < 0)
		return r;
	ret->operation = BLKIF_OP_INDIRECT;
	ret->indirect_op = req->operation;
	simabi_encode(q->config.abi, ret, slot);
	simring_put(&q->ring, slot);
	return 0;
}

int simqueue_submit(struct simqueue *queue, struct simqueue_request *req)
{
	bool indirect = req->indirect ||
			req->nr_segments > BLKIF_MAX_SEGMENTS_PER_REQUEST;
	struct simabi_request out = {
		.operation = req->operation,
		.flag = req->secure ? BLKIF_DISCARD_SECURE : 0,
		.nr_segments = req->nr_segments,
		.handle = queue->config.handle,
		.sector = req->sector,
		.nr_sectors = req->nr_sectors,
	};
	struct grants *grants;
	int r;

	if (queue->broken)
		return -EPROTO;
	if (req->nr_segments > SIMQUEUE_MAX_SEGMENTS)
		return -EINVAL;
	r = simring_claim(&queue->ring, req->operation, req, &out.id);
	if (r < 0)
		return r;
	grants = &queue->grants[r];
	grants->count = 0;
	r = indirect ? build_indirect(queue, grants, req, &out) :
		       build_direct(queue, grants, req, &out);
	if (r < 0 && !xensim_guest_alive(queue->config.guest))
		return -ESHUTDOWN;
	if (r < 0)
		return break_queue(queue, "the grant table is full");
	queue->counters.requests++;
	return 0;
}

int simqueue_submit_slot(struct simqueue *queue, struct simqueue_request *req,
			 uint8_t *slot)
{
	uint64_t id;
	int r;

	if (queue->broken)
		return -EPROTO;
	r = simring_claim(&queue->ring, req->operation, req, &id);
	if (r < 0)
		return r;
	queue->grants[r].count = 0;
	memcpy(slot + queue->config.abi->id, &id, sizeof(id));
	simring_put(&queue->ring, slot);
	queue->counters.requests++;
	return 0;
}

struct simring *simqueue_ring(struct simqueue *queue)
{
	return &queue->ring;
}

void simqueue_push(struct simqueue *queue)
{
	if (queue->broken || !simring_publish(&queue->ring))
		return;
	queue->counters.notifies++;
	xensim_evtchn_send(queue->config.guest, queue->port);
}

/* --- Answers ------------------------------------------------------------- */

/* What a read has brought; false: and more than that. */
static bool copy_back(const struct lent *lent)
{
	const struct simqueue_segment *s = &lent->segment;
	const uint8_t *data = lent->page->data;
	unsigned int start = s->first * SIMABI_SECTOR;
	unsigned int end = (s->last + 1) * SIMABI_SECTOR;

	if (!s->page || start >= end || end > SIMABI_PAGE)
		return true;
	memcpy(s->page + start, data + start, end - start);
	for (unsigned int i = 0; i < SIMABI_PAGE; i++)
		if ((i < start || i >= end) && data[i] != FILLER)
			return false;
	return true;
}

static int take_back(struct simqueue *q, struct grants *grants, bool read)
{
	bool alone = true;

	for (unsigned int i = 0; i < grants->count; i++) {
		if (read && !copy_back(&grants->lent[i]))
			alone = false;
		simpool_put(q->pool, grants->lent[i].page);
	}
	return alone ? 0 :
		       break_queue(q, "bytes outside of the segments were "
				      "written");
}

static int end_request(struct simqueue *q, struct grants *grants, bool read)
{
	int r = 0;

	if (q->pool)
		r = take_back(q, grants, read);
	else if (!end_grants(q, grants->refs, grants->count))
		r = break_queue(q, "a request was answered while a page of it "
				   "was still mapped");
	grants->count = 0;
	return r;
}

static int complete(struct simqueue *q, const struct simring_answer *answer)
{
	struct simqueue_request *req = answer->cookie;
	int r = end_request(q, &q->grants[answer->index],
			    req->operation == BLKIF_OP_READ);

	if (r < 0)
		return r;
	req->status = answer->status;
	req->done(req);
	return 1;
}

static int take_all(struct simqueue *q)
{
	struct simring_answer answer;
	int taken = 0;
	int r;

	for (;;) {
		r = simring_take(&q->ring, &answer);
		if (r < 0)
			return break_queue(q, q->ring.fault);
		if (r == 0 && !simring_arm(&q->ring))
			return taken;
		if (r == 0)
			continue;
		r = complete(q, &answer);
		if (r < 0)
			return r;
		taken += r;
	}
}

/* One event, or the time is up. */
static int await_event(struct simqueue *q, int timeout_ms)
{
	uint32_t port;
	int r = xensim_events_wait(q->events, timeout_ms, &port);

	if (r == 0)
		__atomic_fetch_add(&q->counters.events, 1, __ATOMIC_RELAXED);
	return r;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int simqueue_reap(struct simqueue *queue, int timeout_ms)
{
	int64_t end = timeout_ms > 0 ? now_ms() + timeout_ms : 0;
	int left = timeout_ms;
	int r;

	if (queue->broken)
		return -EPROTO;
	/* An event may be of an answer that was taken before: wait on. */
	while ((r = take_all(queue)) == 0) {
		r = await_event(queue, left);
		if (r < 0 && !xensim_guest_alive(queue->config.guest))
			return -ESHUTDOWN;
		if (r < 0)
			return r == -ETIMEDOUT ? 0 : r;
		if (timeout_ms > 0)
			left = end > now_ms() ? (int)(end - now_ms()) : 0;
	}
	return r;
}

void simqueue_wait(struct simqueue *queue, int timeout_ms)
{
	await_event(queue, timeout_ms);
}

void simqueue_kick(struct simqueue *queue)
{
	xensim_events_kick(queue->events);
}
