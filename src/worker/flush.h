/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * flush.h - what an answered flush promises, and what happens when it cannot.
 *
 * Lane's thread, unless it says otherwise.
 */
#ifndef XENDISK_FLUSH_H
#define XENDISK_FLUSH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/io-list.h"
#include "xendisk-backend.h"

struct io;
struct io_disk;
struct io_lane;

/* One flush at a time for the whole disk. */
struct flush_gate {
	pthread_mutex_t mutex; /* used when there is more than one lane */
	/* Held while a failure is noted, the broker makes a mark, or the operator
	 * accepts the loss. */
	pthread_mutex_t marking;
	bool busy;
	uint32_t waiting; /* mask of lanes */
};

/* A lane's part. */
struct flush_lane {
	struct io_list waiting; /* for a flush that begins after now */
	struct io_list running; /* for the one that runs */
	struct io_list failed; /* theirs has failed */
	bool busy; /* this lane's flush is the one that runs */
	uint64_t mark_at; /* when to try again to make the mark */
	struct xd_request req;
};

void flush_gate_init(struct flush_gate *gate);
void flush_gate_destroy(struct flush_gate *gate);

/* Is a flush needed at all? */
bool flush_needed(const struct io_disk *disk);

/* The request waits for a flush that begins from now on. */
void flush_want(struct io *io);

/* The request's flush must not be tried: the disk is poisoned as if it had failed.
 * The request goes on until it would wait for that flush. */
void flush_untried(struct io *io);

/* In each round: begins a flush for all that wait, settles those that failed. */
void flush_pump(struct io_lane *lane);

/* When flush_pump() has to be called at the latest; UINT64_MAX: never. */
uint64_t flush_next(const struct io_lane *lane);

/* Main thread, lane not running: one last flush.  0 or -errno; what fails
 * poisons the disk. */
int flush_last(struct io_lane *lane);

/* Main thread, lanes not running: what a dead worker noted of its flushes. */
void flush_recover(struct io_disk *disk, uint32_t notes);

/* Main thread, no lane runs.  Makes the mark of a failed flush, if it could not
 * be made yet; -errno: it still cannot. */
int flush_mark(struct io_disk *disk);

/* Main thread: the operator accepts what was lost.  Between flush_hold_marks() and
 * flush_let_marks() no mark is being made, and no failure is noted: what the broker
 * hears in between comes after the marks of all that is forgiven, and before any of
 * what is not. */
void flush_hold_marks(struct io_disk *disk);
void flush_let_marks(struct io_disk *disk);
void flush_forgive(struct io_disk *disk);

#endif
