/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io.h - one request's life, and what the requests of a lane share.
 *
 * Used by the parts of the data path that know what a request is: io.c (its
 * life), io-guest.c (from and to a ring), io-client.c (from and to an NBD
 * client), io-begin.c (a ring's beginning), io-round.c (a lane's rounds), flush.c
 * (durability), hold.c (errors that pass), lane.c (the thread).
 *
 * A request, a ring and a lane belong to the lane's thread, or to the main thread
 * while that does not run.
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

/* The most data of its guest that a lane holds at a time. */
#define IO_ARENA_BYTES (8u << 20)
_Static_assert(IO_ARENA_BYTES >= BLKIF_LENGTH_MAX, "the longest request fits");
/* An NBD client's request is carried out in pieces of at most this, and the
 * guest's rings are looked at between two of them. */
#define IO_CLIENT_PIECE (1u << 20)
/* The most lanes of one disk, however many CPUs there are: all are opened before
 * it is known how many rings the guest has. */
#define IO_MAX_LANES 8

/* The text of MSG_BROKEN. */
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
	IO_LOCK, /* wait until no write before it overlaps its range */
	IO_PREFLUSH,
	IO_DATA,
	IO_POSTFLUSH,
	IO_NR_STEPS
};

#define IO_STEP(step) ((uint8_t)(1u << (step)))

/*
 * A request under way: what is the same for guests and NBD clients.  Embedded in
 * struct guest_io (io-guest.h) or struct client_io (io-client.c).
 */
struct io {
	struct io *next; /* in whatever list it waits */
	struct io_lane *lane;
	uint64_t offset, length; /* bytes: what the data step moves */
	uint64_t done; /* of them, by the data step */
	void *buffer; /* of the lane's arena; a client's: of its command */
	uint8_t steps; /* mask of IO_STEP() */
	uint8_t op; /* enum xd_op of the data step */
	uint8_t flags; /* of the data step, XD_...: a client's, else 0 */
	bool client; /* an NBD client's, not a guest's */
	bool entered; /* range is in the table */
	bool locked; /* ... and none that overlaps it is before it */
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
	struct io_list waiting; /* not begun: as many as may be have begun */
	unsigned int nr_begun; /* and not answered */
	uint64_t bytes; /* of data that those have under way */
	struct io_list pieces; /* a piece is done, the next one is to begin */
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
	struct io_list want_begun; /* for disk->nr_begun to become 0 */
	struct io_list want_buffer; /* for memory of the arena */
	bool look_at_ranges; /* a range may have been granted */
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
	/* For map_data() only.  On its stack each call would zero it
	 * (-ftrivial-auto-var-init). */
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

/* Is there a request to take, or has io_poke() been called? */
bool io_pending(const struct io_lane *lane);

/* Before sleeping: each ring is to ring with its next request.  True: there is
 * one already. */
bool io_arm(struct io_lane *lane);

/* When there is nothing to do: how long the lane may sleep; UINT64_MAX: for ever. */
uint64_t io_sleep_ns(struct io_lane *lane);
/* The lane has slept that long and nothing came: gives memory back. */
void io_idle(struct io_lane *lane);

/* Any thread.  Wakes the lane, which then looks at everything that waits. */
void io_poke(struct io_lane *lane);

/* --- Between the parts of the data path ----------------------------------- */

/* Tries the current step (again). */
void io_advance(struct io *io);
/* The current step is done. */
void io_step_done(struct io *io);
/* No further step: this is the answer.  err: 0, or why it is not OKAY. */
void io_finish(struct io *io, enum blkif_status status, int err);

/* Begins what the stack has to do in the data step; io->buffer holds a write's
 * data. */
void io_transfer(struct io *io);
/* Goes on with it: io->done is less than io->length. */
void io_next_piece(struct io *io);
/* The data step has ended; err: 0 or -errno. */
void io_data_end(struct io *io, int err);

/* A request that waited for its range has got it. */
void io_has_range(struct io *io);
/* A request whose io.begun is set has its range again, or needs none. */
void io_begun_again(struct io *io);

/* Once the answer is out: first io_settle(), after which nothing is held or waited
 * for because of this request; then io_unlock(), which lets others write there. */
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
/* Each done() of such a request calls this first. */
void io_returned(struct io_lane *lane);

/* Any thread.  Tells the broker, or logs it while there is none. */
void io_condition(struct io_disk *disk, enum msg_condition_kind kind, bool set,
		  const char *fmt, ...) PRINTF(4, 5);

#endif
