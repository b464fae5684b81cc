/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io-guest.h - the requests of a guest's ring, for the parts of the data path.
 *
 * Lane's thread.  A request is in at most one list, and only where the function
 * that put it there says so.
 */
#ifndef XENDISK_IO_GUEST_H
#define XENDISK_IO_GUEST_H

#include "worker/io.h"

/* A request between its two visits to the ring.  Made once per ring entry. */
struct guest_io {
	struct io io;
	struct io_ring *ring;
	uint16_t entry; /* of the in-flight log */
	bool mapped; /* the data goes to memory that the stack lent */
	bool recovered; /* was in flight when a worker died */
	bool refused; /* by the guest's fault */
	int copy_err; /* see grant_batch_add() */
	uint64_t taken_ns; /* when its burst was taken */
	struct blkif_segment *segments;
	struct blkif_job job;
};

static inline struct guest_io *guest_of(struct io *io)
{
	return container_of(io, struct guest_io, io);
}

/* A round takes no more requests from a ring once they have this much data: see
 * the top of io-guest.c. */
#define GUEST_ROUND_BYTES (512u << 10)

/* Takes what is on the ring and begins it: all, or as much as GUEST_ROUND_BYTES
 * allow. */
void guest_take(struct io_ring *ring);
/* Publishes all answers that are ready. */
void guest_publish(struct io_ring *ring);
/* Runs the batch of copies, and what follows, until none is wanted. */
void guest_copy(struct io_lane *lane);
/* Begins those that wait for memory, as far as there is some. */
void guest_retry_buffers(struct io_lane *lane);

/* Resets the request of a log entry that is about to be filled, or was found. */
struct guest_io *guest_prepare(struct io_ring *ring, uint16_t entry);
/* Judges the entry's slot, and gives the request its steps. */
void guest_judge(struct guest_io *guest);

/* --- For io.c ------------------------------------------------------------- */

/* Steps: see io_step.  False: it waits. */
bool guest_list(struct io *io);
bool guest_drain(struct io *io);
/* Notes in the log that its range is locked. */
static inline void guest_begin(struct io *io)
{
	struct guest_io *guest = guest_of(io);

	inflight_begin(&guest->ring->log, guest->entry);
}
/* The data step of a read or write: ends in io_data_end(). */
void guest_data(struct io *io);
/* The stack has read all of it: copies it to the guest. */
void guest_data_read(struct io *io);
/* The data step has ended: gives its memory back, if it has any. */
void guest_data_end(struct io *io);
/* All steps are done: the end of the round publishes the answer. */
static inline void guest_answer(struct io *io)
{
	io_append(&guest_of(io)->ring->answers, io);
}

#endif
