/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io-begin.c - a ring's beginning and end, and its second life after a worker
 * has died.
 *
 * Recovery: answers that were written but not published are published; what
 * was taken and not answered is judged again, as if it had just come, and
 * executed again.  inflight.c has the argument why that is all.  Writes that had
 * begun go before those that waited for them, whichever lane they are on: the
 * guest may have read what they wrote, and then have sent the others.
 */
#include "worker/io-guest.h"

#include <string.h>

#include "common/crash.h"
#include "common/log.h"
#include "common/util.h"
#include "worker/sparse.h"

/* --- Main thread ---------------------------------------------------------- */

static size_t lists_bytes(const struct io_ring *ring)
{
	return (size_t)ring->ring.nr_slots * BLKIF_INDIRECT_MAX *
	       sizeof(*ring->lists);
}

int io_ring_new(struct io_ring **ret, struct io_lane *lane, void *pages,
		unsigned int nr_pages, enum blkif_layout layout,
		struct stats_queue *stats)
{
	struct io_ring *ring = calloc(1, sizeof(*ring));
	uint32_t n;

	if (!ring)
		return -ENOMEM;
	ring->lane = lane;
	ring->pages = pages;
	ring->nr_pages = nr_pages;
	ring->stats = stats;
	ring_attach(&ring->ring, pages, nr_pages, layout);
	n = ring->ring.nr_slots;
	ring->ios = calloc(n, sizeof(*ring->ios));
	ring->lists = sparse_new(lists_bytes(ring));
	ring->free = calloc(n, sizeof(*ring->free));
	if (!ring->ios || !ring->lists || !ring->free) {
		io_ring_free(ring);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n; i++) {
		ring->ios[i].io.lane = lane;
		ring->ios[i].ring = ring;
	}
	*ret = ring;
	return 0;
}

void io_ring_free(struct io_ring *ring)
{
	if (!ring)
		return;
	free(ring->ios);
	sparse_free(ring->lists, lists_bytes(ring));
	free(ring->free);
	free(ring->plan);
	free(ring);
}

void io_ring_begin(struct io_ring *ring, struct inflight_ring log,
		   struct inflight_plan *plan)
{
	uint8_t taken[INFLIGHT_MAX_SLOTS] = { 0 };

	ring->log = log;
	ring->plan = plan;
	if (plan) {
		ring_resume(&ring->ring, plan->req_cons);
		for (uint32_t i = 0; i < plan->nr_replay; i++) {
			uint16_t entry = plan->replay[i];

			taken[entry] = 1;
			ring->ios[entry].io.begun = log.entries[entry].begun;
			if (ring->ios[entry].io.begun)
				atomic_fetch_add(&ring->lane->disk->nr_begun,
						 1);
		}
	}
	/* The lowest on top. */
	ring->nr_free = 0;
	for (uint32_t i = ring->ring.nr_slots; i-- > 0;)
		if (!taken[i])
			ring->free[ring->nr_free++] = (uint16_t)i;
}

/* --- After a worker has died ---------------------------------------------- */

static void republish(struct io_ring *ring)
{
	const struct inflight_plan *plan = ring->plan;

	for (uint32_t i = 0; i < plan->nr_publish; i++) {
		struct inflight_entry *e = &ring->log.entries[plan->publish[i]];
		struct blkif_job job;

		blkif_judge(&ring->lane->disk->judge, ring->ring.layout,
			    e->slot, &job);
		ring_put(&ring->ring, job.id, job.op, e->status);
		CRASH_POINT(answer_republished);
	}
	(void)ring_push(&ring->ring);
	CRASH_POINT(republished);
	inflight_published(&ring->log, ring->ring.rsp_prod);
	CRASH_POINT(republish_noted);
	for (uint32_t i = 0; i < plan->nr_publish; i++) {
		inflight_done(&ring->log, plan->publish[i]);
		CRASH_POINT(entry_refreed);
	}
}

/* Has begun, says the log, and has no range: none to get back that others are to wait
 * for.  No worker writes that. */
static void doubt_begun(struct guest_io *guest)
{
	struct io *io = &guest->io;

	if (io->begun && !(io->steps & IO_STEP(IO_LOCK)))
		io_begun_again(io);
}

/* A request that has killed worker after worker is not tried for ever. */
static void give_up(struct guest_io *guest)
{
	struct io *io = &guest->io;

	log_disk(io->lane->disk->who, LOG_LEVEL_ERROR,
		 "a request (operation %u, %llu bytes at %llu) was in flight "
		 "when %u workers died: answered with an error",
		 guest->job.op, (unsigned long long)guest->job.length,
		 (unsigned long long)guest->job.offset, INFLIGHT_MAX_TRIES);
	/* Not past the steps before that: one with data that had begun has its range
	 * to get back, which others wait for. */
	if (io->steps & IO_STEP(IO_PREFLUSH) && flush_needed(io->lane->disk))
		flush_untried(io);
	else
		io_finish(io, BLKIF_STATUS_ERROR, -EIO);
}

void io_ring_recover(struct io_ring *ring)
{
	struct inflight_plan *plan = ring->plan;
	uint64_t now = now_ns();

	republish(ring);
	ring->stats->in_flight = plan->nr_replay;
	for (uint32_t i = 0; i < plan->nr_replay; i++) {
		struct guest_io *guest = guest_prepare(ring, plan->replay[i]);
		bool may_try = inflight_try(&ring->log, guest->entry);

		guest->recovered = true;
		guest->taken_ns = now;
		guest_judge(guest);
		doubt_begun(guest);
		if (!may_try && guest->io.steps)
			give_up(guest);
		else
			io_advance(&guest->io);
		CRASH_POINT(request_replayed);
	}
	free(TAKE_PTR(ring->plan));
	CRASH_POINT(replayed);
}
