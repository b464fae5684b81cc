/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One queue of a simulated blkfront: a ring, its event channel, and the
 * grants of the requests on it.
 *
 * Asynchronous: submit any number, push, reap.  One thread at a time, except
 * simqueue_kick().  After an answer that a hardened blkfront would not take,
 * or a page still mapped when its request is answered (unless grants are
 * persistent), the queue is broken: every call returns -EPROTO and
 * simqueue_fault() says why.
 */
#ifndef SIMQUEUE_H
#define SIMQUEUE_H

#include "sim.h"
#include "simabi.h"

#define SIMQUEUE_MAX_SEGMENTS 256u
#define SIMQUEUE_MAX_ORDER    4u

struct simqueue;

struct simqueue_config {
	struct xensim_guest *guest;
	uint32_t backend_domid;
	const struct simabi *abi;
	unsigned int order; /* the ring is of 2^order pages */
	uint16_t handle; /* in every request; backends ignore it */
};

/* Part of one page of guest memory: sectors first to last, 0 to 7. */
struct simqueue_segment {
	uint8_t *page; /* from xensim_alloc_pages() */
	uint8_t first, last;
};

struct simqueue_request {
	uint8_t operation; /* BLKIF_OP_*, but never BLKIF_OP_INDIRECT */
	bool indirect; /* send READ or WRITE in an indirect request */
	bool secure; /* DISCARD only */
	uint16_t nr_segments; /* over 11 is sent as indirect */
	const struct simqueue_segment *segments; /* valid until submitted, the
						  * pages until answered */
	uint64_t sector;
	uint64_t nr_sectors; /* DISCARD only */

	/* Called by simqueue_reap(), in its thread; may submit. */
	void (*done)(struct simqueue_request *req);
	int16_t status; /* BLKIF_RSP_*, as the backend gave it */
};

struct simqueue_counters {
	uint64_t requests, notifies, events;
};

/* Returns 0 or -errno. */
int simqueue_create(const struct simqueue_config *config,
		    struct simqueue **ret_queue);
/*
 * From now on grants are persistent: both sides have said so.  Before the first
 * request.  The data of each goes through a page of the queue's own (simpool.h), which
 * may stay mapped until the backend has closed.  0 or -errno.
 */
int simqueue_make_persistent(struct simqueue *queue);
/*
 * Ends all grants.  -EBUSY: the backend still maps the ring or a page of a
 * request (then the pages are left alone); the queue is gone all the same.
 */
int simqueue_destroy(struct simqueue *queue);

/* What the xenstore keys say: a reference per ring page, and the port. */
const uint32_t *simqueue_ring_refs(const struct simqueue *queue);
uint32_t simqueue_port(const struct simqueue *queue);

unsigned int simqueue_size(const struct simqueue *queue); /* ring slots */
unsigned int simqueue_room(const struct simqueue *queue);
unsigned int simqueue_pending(const struct simqueue *queue);
const char *simqueue_fault(const struct simqueue *queue);
void simqueue_counters(const struct simqueue *queue,
		       struct simqueue_counters *ret_counters);

/*
 * -EAGAIN: the ring is full; -EINVAL: too many segments; -ESHUTDOWN: the
 * domain was destroyed; -EPROTO: broken.
 */
int simqueue_submit(struct simqueue *queue, struct simqueue_request *req);
/*
 * For a guest that is not honest: a slot as it is, but for its id.  The answer
 * is judged as any other; it must echo req->operation.
 */
int simqueue_submit_slot(struct simqueue *queue, struct simqueue_request *req,
			 uint8_t *slot);
/* The ring, to do to it what one likes.  It must not be used as a queue then. */
struct simring *simqueue_ring(struct simqueue *queue);

/* Publishes what was submitted; sends an event if the backend wants one. */
void simqueue_push(struct simqueue *queue);
/*
 * Takes all answers; when there are none waits for one up to timeout_ms
 * (negative: for ever).  Returns how many were taken (0: time is up),
 * -EINTR: kicked, -ESHUTDOWN: the domain was destroyed, -EPROTO: broken.
 */
int simqueue_reap(struct simqueue *queue, int timeout_ms);
/*
 * Waits for an event only, up to timeout_ms, and may run while another thread
 * submits or reaps.  Event or not: simqueue_reap(queue, 0) comes next.
 */
void simqueue_wait(struct simqueue *queue, int timeout_ms);
/* Ends a simqueue_reap() (-EINTR) or simqueue_wait().  From any thread. */
void simqueue_kick(struct simqueue *queue);

#endif
