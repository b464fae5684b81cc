/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io-ring.c - a ring's beginning and end, and its second life after a worker
 * has died.
 *
 * Recovery: answers that were written but not published are published; what
 * was taken and not answered is judged again, as if it had just come, and
 * executed again.  inflight.c has the argument why that is all.  Writes that had
 * begun go before those that waited for them, whichever lane they are on: the
 * guest may have read what they wrote, and then have sent the others.
 */
#include "worker/io.h"

#include <string.h>

#include "common/crash.h"
#include "common/log.h"
#include "common/util.h"

/* --- Main thread ---------------------------------------------------------- */

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
	ring->lists =
		calloc(n * (size_t)BLKIF_INDIRECT_MAX, sizeof(*ring->lists));
	ring->free = calloc(n, sizeof(*ring->free));
	if (!ring->ios || !ring->lists || !ring->free) {
		io_ring_free(ring);
		return -ENOMEM;
	}
	*ret = ring;
	return 0;
}

void io_ring_free(struct io_ring *ring)
{
	if (!ring)
		return;
	free(ring->ios);
	free(ring->lists);
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
			ring->ios[entry].begun = log.entries[entry].begun;
			if (ring->ios[entry].begun)
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

/* A request that has killed worker after worker is not tried for ever. */
static void give_up(struct io *io)
{
	struct io_disk *disk = io->ring->lane->disk;

	log_disk(disk->who, LOG_LEVEL_ERROR,
		 "a request (operation %u, %llu bytes at %llu) was in flight "
		 "when %u workers died: answered with an error",
		 io->job.op, (unsigned long long)io->job.length,
		 (unsigned long long)io->job.offset, INFLIGHT_MAX_TRIES);
	if (io->steps & IO_STEP(IO_PREFLUSH))
		flush_failed(io, -EIO);
	else
		io_finish(io, BLKIF_STATUS_ERROR);
}

void io_ring_recover(struct io_ring *ring)
{
	struct inflight_plan *plan = ring->plan;
	uint64_t now = now_ns();

	republish(ring);
	ring->stats->in_flight = plan->nr_replay;
	for (uint32_t i = 0; i < plan->nr_replay; i++) {
		struct io *io = io_prepare(ring, plan->replay[i]);

		io->recovered = true;
		io->taken_ns = now;
		io_judge(io);
		if (ring->log.entries[io->entry].tries >= INFLIGHT_MAX_TRIES &&
		    io->steps)
			give_up(io);
		else
			io_advance(io);
		CRASH_POINT(request_replayed);
	}
	free(TAKE_PTR(ring->plan));
	CRASH_POINT(replayed);
}
