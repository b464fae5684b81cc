/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io.h - one request's life, and what the requests of a lane share.
 *
 * Used by the parts of the data path that know what a request is: io.c (its
 * life), io-guest.c (from and to a ring), io-client.c (from and to an NBD
 * client), io-round.c (all of a lane),
 * flush.c (durability), hold.c (errors that pass), lane.c (the thread).
 */
#ifndef XENDISK_IO_H
#define XENDISK_IO_H

#include <stdatomic.h>

#include "common/util.h"

#include "worker/blkif.h"
#include "worker/buffer.h"
#include "worker/disk.h"
#include "worker/evtchn.h"
#include "worker/flush.h"
#include "worker/grant.h"
#include "worker/hold.h"
#include "worker/inflight.h"
#include "worker/io-list.h"
#include "worker/meter.h"
#include "worker/pause.h"
#include "worker/range.h"
#include "worker/ring.h"
#include "worker/standstill.h"
#include "worker/storm.h"

/* Data on its way in a lane at any time.  At least one request of
 * BLKIF_LENGTH_MAX fits. */
#define IO_ARENA_BYTES (8u << 20)
/* Of an NBD client's data, however much it asks for at once: the guest's ring is
 * looked at between two of them. */
#define IO_CLIENT_PIECE (1u << 20)
/* Threads of one disk, however many CPUs there are: each is opened before it is
 * known whether the guest has rings for it. */
#define IO_MAX_LANES 8

/* What MSG_BROKEN says. */
#define IO_BROKEN_TEXT \
	"the guest broke its ring: more requests than it has room for"

struct client;
struct guest_io;
struct io_lane;
struct io_ring;

/*
 * What is still to be done for a request, in this order; a mask of bits.  When
 * none is left it is answered.
 */
enum io_step {
	IO_LIST, /* indirect: fetch and judge the list of segments */
	IO_DRAIN, /* wait until all before it on this ring is answered */
	IO_LOCK, /* wait until nobody else is writing there */
	IO_PREFLUSH,
	IO_DATA,
	IO_POSTFLUSH,
	IO_NR_STEPS
};

#define IO_STEP(step) (uint8_t)(1u << (step))

/*
 * A request under way.  What is here is the same for all who ask; it stands
 * within the asker's own struct: struct guest_io of io-guest.h, or that of an NBD
 * client (io-client.c).
 */
struct io {
	struct io *next; /* in whatever list it waits */
	struct io_lane *lane;
	uint64_t offset, length; /* bytes: what the data step moves */
	uint64_t done; /* of them, by the data step */
	void *buffer; /* a client's is its own */
	uint8_t steps; /* mask of 1 << enum io_step */
	uint8_t op; /* enum xd_op of the data step */
	uint8_t flags; /* of the data step, XD_...: a client's, else 0 */
	bool client; /* an NBD client's, not a guest's */
	bool entered; /* range is in the table */
	bool locked; /* ... and is its own */
	bool held; /* waits for an error to pass, or is being tried again */
	bool begun; /* had its range when a worker died; has not got it back
		     * yet */
	int16_t status; /* the answer */
	int err; /* why it is not OKAY: -errno */
	struct iovec iov;
	struct range range;
	struct xd_request req;
};

/* One of the guest's rings; belongs to a lane. */
struct io_ring {
	struct io_lane *lane;
	struct ring ring;
	struct inflight_ring log;
	void *pages;
	unsigned int nr_pages;
	uint32_t port; /* ours */
	struct storm storm;
	struct guest_io *ios; /* one per entry */
	struct blkif_segment *lists; /* BLKIF_INDIRECT_MAX per entry */
	uint16_t *free; /* stack of entries, the hottest on top */
	uint32_t nr_free;
	bool broken; /* by the guest: it is not touched any more */
	struct io *barrier; /* nothing is taken until it is answered */
	struct io *draining; /* the barrier, while it waits for others */
	struct io_list answers; /* to be published */
	struct stats_queue *stats; /* borrowed */
	struct inflight_plan *plan; /* until the lane has begun; or NULL */
};

/* Poison: a flush has failed (flush.c). */
enum io_poison { IO_CLEAN, IO_FAILED, IO_POISONED };

/* The disk as its lanes see it.  Set up by the main thread while none runs;
 * what changes later is atomic or has its own lock. */
struct io_disk {
	struct services *services;
	struct grant *grant;
	bool persistent; /* the guest's pages may stay mapped */
	const struct xd_limits *limits;
	const struct stack_policy *policy;
	struct pause *pause;
	const struct msg_opened *opened; /* the identities */
	struct log_who *who;
	struct blkif_limits judge;
	struct range_table *ranges;
	struct inflight *log;
	struct flush_gate gate;
	struct standstill still; /* while the size changes */
	struct io_lane *lanes[IO_MAX_LANES];
	unsigned int nr_lanes;
	_Atomic(bool) stop; /* finish what the stack has, then end */
	_Atomic(bool) broken; /* the guest broke a ring: take nothing more */
	_Atomic(int) poison; /* enum io_poison */
	_Atomic(bool) write_through; /* flush after every write (flush.c) */
	_Atomic(uint32_t) nr_held; /* requests that wait for an error to pass */
	_Atomic(uint32_t) nr_begun; /* of io.begun */
	_Atomic(uint32_t) nr_recovered; /* recovered and not answered yet */
};

/* What io-client.c does for a lane that has clients.  By pointer, so that the
 * rings can be tested without sockets. */
struct client_ops {
	/* Begins what they ask for. */
	void (*take)(struct io_lane *lane);
	/* Answers what is done. */
	void (*answer)(struct io_lane *lane);
};

/* The NBD clients of a lane: io-client.c. */
struct client_lane {
	const struct client_ops *ops;
	_Atomic(unsigned int) nr; /* clients, those that are new too */
	pthread_mutex_t lock; /* of newcomers */
	struct client *newcomers;
	struct client *list;
	struct io_list waiting; /* others are being executed, enough of them */
	unsigned int nr_begun;
	uint64_t bytes; /* of data that those have under way */
	struct io_list pieces; /* have done one; the next one is to begin */
	struct io_list answers; /* to be sent */
};

/* One thread's share. */
struct io_lane {
	struct io_disk *disk;
	struct engine *engine;
	struct evtchn *evtchn;
	struct xd_channel *top;
	unsigned int index;
	struct io_ring *rings[XD_MAX_RINGS];
	unsigned int nr_rings;
	struct buffer_arena *arena;
	struct grant_batch *batch;
	struct io_list copying; /* in the batch */
	struct io_list want_begun;
	struct io_list want_buffer;
	bool look_at_ranges;
	bool again; /* the end of this round has made work for another one */
	bool gives_back; /* pages of the guest, if this sleep is not disturbed */
	bool unkicked; /* submitted since the last stack_kick() */
	uint32_t submitted; /* requests that the stack has */
	uint32_t answered; /* of the guest's, since lane.c set it to 0 */
	uint32_t wake; /* mask of other lanes to wake */
	uint64_t look_at; /* when a ring is to be looked at again: storm.h */
	struct flush_lane flush;
	struct hold_lane hold;
	struct client_lane clients;
	_Atomic(bool) poked; /* look at everything that waits */
	_Atomic(bool) resume; /* try what is held at once */
	/* map_data()'s alone.  Not on its stack, where each call would zero
	 * it (-ftrivial-auto-var-init). */
	struct iovec lent[BLKIF_INDIRECT_MAX + 1];
};

/* --- Main thread, while the lane does not run ----------------------------- */

int io_ring_new(struct io_ring **ret, struct io_lane *lane, void *pages,
		unsigned int nr_pages, enum blkif_layout layout,
		struct stats_queue *stats);
void io_ring_free(struct io_ring *ring);
/* The log is ready.  plan: what a dead worker left, for io_ring_recover();
 * taken over; NULL: nothing. */
void io_ring_begin(struct io_ring *ring, struct inflight_ring log,
		   struct inflight_plan *plan);

/* --- Lane ----------------------------------------------------------------- */

/* What a dead worker left: publishes, and begins again. */
void io_ring_recover(struct io_ring *ring);

/* One round: takes what is on the rings, moves everything on as far as it
 * goes, answers.  True: there is more to do at once. */
bool io_pump(struct io_lane *lane);

/* Has something come since then: a request, or somebody who pokes? */
bool io_pending(const struct io_lane *lane);

/* Before sleeping: each ring is to ring with its next request.  True: there is
 * one already. */
bool io_arm(struct io_lane *lane);

/* Nothing to wait for: how long the lane may sleep. */
uint64_t io_sleep_ns(struct io_lane *lane);
/* It has slept that long and nothing came. */
void io_idle(struct io_lane *lane);

/* Any thread. */
void io_poke(struct io_lane *lane);

/* --- Between the parts of the data path ----------------------------------- */

/* Tries the current step (again). */
void io_advance(struct io *io);
/* The current step is done. */
void io_step_done(struct io *io);
/* No further step: this is the answer.  err: 0, or why it is not OKAY. */
void io_finish(struct io *io, enum blkif_status status, int err);

/* The data step: what the stack has to do, from the beginning; io->buffer holds
 * a write's data. */
void io_transfer(struct io *io);
/* What it has done is not all. */
void io_next_piece(struct io *io);
/* The data step has ended; err: 0 or -errno. */
void io_data_end(struct io *io, int err);

/* It has waited for its range, and has it. */
void io_has_range(struct io *io);
/* Of io.begun: it has its range again, or no need of it. */
void io_begun_again(struct io *io);

/* The answer is out: first nothing is held or waited for any more, then others
 * may write there. */
static inline void io_settle(struct io *io)
{
	if (io->held)
		hold_done(io);
	if (io->begun)
		io_begun_again(io);
}

static inline void io_unlock(struct io *io)
{
	if (!io->entered)
		return;
	io->entered = io->locked = false;
	io->lane->wake |= range_unlock(io->lane->disk->ranges, &io->range);
}

/* Hands a request to the stack; it ends in done(). */
void io_submit(struct io_lane *lane, struct xd_request *req);
/* To be called first in each done(). */
void io_returned(struct io_lane *lane);

/* Any thread.  Tells the broker. */
void io_condition(struct io_disk *disk, enum msg_condition_kind kind, bool set,
		  const char *fmt, ...) PRINTF(4, 5);

#endif
