/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io-round.c - the work of a lane, round by round.
 *
 * Work is done in rounds (io_pump()) so that it comes in bursts: all of a ring is
 * taken (of large requests some, see io-guest.c), one batch of copies moves all
 * their data, the stack is kicked once, all answers are published together and the
 * guest is notified once.
 *
 * Runs on the lane's thread.
 */
#include "worker/io.h"

#include "common/crash.h"
#include "common/util.h"
#include "worker/io-guest.h"

/* A lane that has had nothing to do for this long gives its memory back. */
#define IDLE_NS (2 * 1000000000ull)
/* ... and whose stack has had nothing to say for so long is not in its way. */
#define WAIT_NS (200 * 1000000ull)

/* The stack works until it has nothing to do at once. */
static void run_stack(struct io_lane *lane)
{
	do {
		guest_copy(lane);
		flush_pump(lane);
		if (lane->unkicked) {
			lane->unkicked = false;
			stack_kick(lane->top);
			CRASH_POINT(kicked);
		}
	} while (stack_reap(lane->top) || lane->copying.first ||
		 lane->unkicked);
}

static void look_at_ranges(struct io_lane *lane)
{
	struct io_disk *disk = lane->disk;
	struct io_list waiting;
	struct range *range;
	struct io *io;

	lane->look_at_ranges = false;
	while ((range = range_granted(disk->ranges, lane->index)))
		io_has_range(container_of(range, struct io, range));
	if (!lane->want_begun.first || atomic_load(&disk->nr_begun))
		return;
	waiting = io_take_all(&lane->want_begun);
	while ((io = io_pop(&waiting)))
		io_advance(io);
}

static void wake_others(struct io_lane *lane)
{
	uint32_t mask = lane->wake;

	lane->wake = 0;
	for (unsigned int i = 0; mask; i++, mask >>= 1) {
		if (!(mask & 1))
			continue;
		if (i == lane->index)
			lane->look_at_ranges = true;
		else
			io_poke(lane->disk->lanes[i]);
	}
}

static bool may_take(struct io_ring *ring)
{
	if (ring->barrier)
		return false;
	return !ring->storm.look_at || storm_may_look(&ring->storm, now_ns());
}

static bool has_clients(const struct io_lane *lane)
{
	return atomic_load_explicit(&lane->clients.nr, memory_order_relaxed);
}

/* A stack that is done at once would do all of a long request before the guest is
 * heard again; so a client's goes on here, a piece in each round. */
static void take_clients(struct io_lane *lane)
{
	struct io_list pieces = io_take_all(&lane->clients.pieces);
	struct io *io;

	while ((io = io_pop(&pieces)))
		io_next_piece(io);
	lane->clients.ops->take(lane);
}

bool io_pump(struct io_lane *lane)
{
	struct io_disk *disk = lane->disk;
	bool more = false;

	lane->again = false;
	/* Looked at before the flag's cost: a locked exchange. */
	if (atomic_load_explicit(&lane->poked, memory_order_relaxed) &&
	    atomic_exchange(&lane->poked, false))
		lane->look_at_ranges = true;
	if (!atomic_load(&disk->stop) && !atomic_load(&disk->broken)) {
		for (unsigned int i = 0; i < lane->nr_rings; i++)
			if (may_take(lane->rings[i]))
				guest_take(lane->rings[i]);
		if (has_clients(lane))
			take_clients(lane);
		hold_pump(lane);
		if (lane->look_at_ranges)
			look_at_ranges(lane);
		guest_retry_buffers(lane);
	}
	run_stack(lane);
	for (unsigned int i = 0; i < lane->nr_rings; i++)
		guest_publish(lane->rings[i]);
	if (has_clients(lane))
		lane->clients.ops->answer(lane);
	if (lane->wake)
		wake_others(lane);
	if (atomic_load(&disk->stop) || atomic_load(&disk->broken))
		return lane->copying.first != NULL;
	for (unsigned int i = 0; i < lane->nr_rings; i++) {
		struct io_ring *ring = lane->rings[i];

		if (ring->answers.first ||
		    (may_take(ring) && ring_pending(&ring->ring)))
			more = true;
	}
	return more || lane->again || lane->look_at_ranges ||
	       lane->copying.first || lane->clients.pieces.first ||
	       lane->unkicked;
}

bool io_pending(const struct io_lane *lane)
{
	/* Nothing is taken any more then, and a broken ring always has something. */
	bool broken =
		atomic_load_explicit(&lane->disk->broken, memory_order_relaxed);

	for (unsigned int i = 0; !broken && i < lane->nr_rings; i++) {
		const struct io_ring *ring = lane->rings[i];

		if (!ring->barrier && !ring->storm.look_at &&
		    ring_pending(&ring->ring))
			return true;
	}
	return atomic_load_explicit(&lane->poked, memory_order_relaxed);
}

bool io_arm(struct io_lane *lane)
{
	bool more = false;

	lane->look_at = UINT64_MAX;
	if (atomic_load(&lane->disk->stop) || atomic_load(&lane->disk->broken))
		return false;
	for (unsigned int i = 0; i < lane->nr_rings; i++) {
		struct io_ring *ring = lane->rings[i];

		if (may_take(ring) && ring_final_check(&ring->ring))
			more = true;
		/* Behind a barrier it is not looked at, whenever that would be; the
		 * barrier's answer brings another round. */
		if (ring->storm.look_at && !ring->barrier)
			lane->look_at = MIN(lane->look_at, ring->storm.look_at);
	}
	return more;
}

/* Until pages of the guest are to be given back.  Not beside what the stack is doing,
 * unless that seems to wait as well, as for a server that is away. */
static uint64_t give_back_ns(const struct io_lane *lane)
{
	uint64_t ns = grant_batch_idle_ns(lane->batch);

	return lane->submitted > 0 ? MAX(ns, WAIT_NS) : ns;
}

/* How long the lane may sleep when it has no pages to give back. */
static uint64_t sleep_ns(struct io_lane *lane)
{
	const struct io_disk *disk = lane->disk;
	uint64_t at = flush_next(lane);
	uint64_t now;

	/* At the end what is held is not tried any more. */
	if (!atomic_load(&disk->stop) && !atomic_load(&disk->broken))
		at = MIN(MIN(at, hold_next(lane)), lane->look_at);
	if (at == UINT64_MAX)
		return buffer_is_trimmed(lane->arena) ? UINT64_MAX : IDLE_NS;
	now = now_ns();
	return at > now ? at - now : 0;
}

uint64_t io_sleep_ns(struct io_lane *lane)
{
	uint64_t ns = sleep_ns(lane);
	uint64_t give_back = give_back_ns(lane);

	lane->gives_back = give_back < ns;
	return MIN(give_back, ns);
}

void io_idle(struct io_lane *lane)
{
	if (lane->gives_back)
		grant_batch_idle(lane->batch);
	else
		buffer_trim(lane->arena);
}
