/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * inflight.h - the in-flight log: what was taken off the rings and is not
 * answered yet, in a file that outlives the worker.
 *
 * A disk has one log, with a part for each ring that belongs to the ring's
 * lane.  It is written through a mapping.  What a dead worker left is never believed
 * as it stands there: pread() copies it, the copy is checked like anybody's input, and
 * what has passed is written over it (inflight_adopt()).
 */
#ifndef XENDISK_INFLIGHT_H
#define XENDISK_INFLIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/msg.h"
#include "worker/blkif.h"

#define INFLIGHT_MAX_SLOTS 512u /* of a ring of 16 pages */
#define INFLIGHT_MAX_TRIES 5u /* workers that may die at a request */

#define INFLIGHT_HEAD_BYTES  4096u
#define INFLIGHT_ENTRY_BYTES 128u
#define INFLIGHT_BYTES         \
	(INFLIGHT_HEAD_BYTES + \
	 (uint64_t)XD_MAX_RINGS * INFLIGHT_MAX_SLOTS * INFLIGHT_ENTRY_BYTES)

enum inflight_state {
	INFLIGHT_FREE,
	INFLIGHT_TAKEN, /* off the ring, not executed or being executed */
	INFLIGHT_RESPONDING, /* executed; the answer is being published */
};

struct inflight_entry {
	uint32_t state; /* enum inflight_state */
	uint32_t req_index; /* which request of the ring it was */
	uint32_t rsp_index; /* RESPONDING: which response it becomes */
	int16_t status; /* RESPONDING */
	uint8_t tries; /* workers that have set about it */
	uint8_t begun; /* it holds its range: see range.h */
	/* The private copy of the request. */
	uint8_t slot[BLKIF_SLOT_MAX] __attribute__((aligned(8)));
};

/* How far a ring has got. */
struct inflight_cursor {
	uint32_t req_cons;
	uint32_t rsp_prod;
	uint32_t unused[14];
};

/* Whose requests they are.  The log of another connection is worth nothing.
 * No padding: it is compared byte by byte. */
struct inflight_id {
	uint32_t domid;
	uint32_t devid;
	char vm[40];
	uint32_t layout; /* enum blkif_layout */
	uint32_t nr_rings;
	uint32_t nr_slots; /* of each ring */
	struct msg_ring ring[XD_MAX_RINGS];
	/* A hash of the storage's identities; not part of the connection. */
	uint32_t storage;
};

/* A ring's part of the log. */
struct inflight_ring {
	struct inflight_entry *entries; /* in the mapping */
	struct inflight_cursor *cursor;
	uint32_t nr_slots;
};

struct inflight;

/* Maps a file of INFLIGHT_BYTES and takes over fd. */
int inflight_open(struct inflight **ret, int fd);
void inflight_free(struct inflight *log);
/* Room for that many rings of so many slots, before it is written to.  -ENOSPC: the
 * file system of kept state is full. */
int inflight_reserve(const struct inflight *log, unsigned int nr_rings,
		     uint32_t nr_slots);

/* A new connection: nothing is in flight.  A failed flush of this storage that
 * is noted and not marked yet stays noted. */
void inflight_start(struct inflight *log, const struct inflight_id *id,
		    const uint32_t *rsp_prod);
/* Of the connection before, whichever that was: is such a failure noted? */
bool inflight_left_failure(const struct inflight *log,
			   const struct inflight_id *id);
/* Does it hold a connection's rings? */
bool inflight_has_rings(const struct inflight *log);
/* The connection has ended; nothing is to be recovered. */
void inflight_clear(struct inflight *log);
/* The lanes have ended, and this worker does in good order: it was not killed by
 * what is in flight. */
void inflight_outlived(struct inflight *log, unsigned int nr_rings);
struct inflight_ring inflight_ring(struct inflight *log, unsigned int ring);

/* What the next worker has to know of flushes that failed: see flush.c. */
enum inflight_note {
	INFLIGHT_FLUSH_FAILED = 1, /* and the poison mark is not made yet */
	INFLIGHT_WRITE_THROUGH = 2, /* the guest was told */
};

/* Any lane. */
void inflight_note(struct inflight *log, enum inflight_note note, bool holds);

/*
 * The life of an entry, in this order; a worker may die between any two
 * stores.  The caller does what stands in brackets.
 *
 *   [copies the slot]  take(), any number  taken()   [begins the I/O]
 *   answer(), any number  [writes responses, stores rsp_prod: the commit]
 *   published()  done(), for each
 */
void inflight_take(struct inflight_ring *log, uint32_t entry,
		   uint32_t req_index);
void inflight_taken(struct inflight_ring *log, uint32_t req_cons);
/* A write, between taken() and answer(): what overlaps it waits for it, also
 * if this worker dies. */
void inflight_begin(struct inflight_ring *log, uint32_t entry);
void inflight_answer(struct inflight_ring *log, uint32_t entry,
		     uint32_t rsp_index, int16_t status);
void inflight_published(struct inflight_ring *log, uint32_t rsp_prod);
void inflight_done(struct inflight_ring *log, uint32_t entry);

/* --- After a worker has died --------------------------------------------- */

/* What it left, in private memory. */
struct inflight_image {
	uint32_t notes; /* of enum inflight_note */
	struct inflight_cursor cursor[XD_MAX_RINGS];
	struct inflight_entry entries[]; /* nr_slots of ring 0, of ring 1... */
};

/*
 * Reads and checks the header.  -ENOENT: nothing was in flight; -ESTALE: it
 * belongs to another connection; -EXDEV: to this one, but to other storage;
 * -EPROTO: it is none of ours, or of another version.  ret_why: MSG_TEXT_MAX
 * bytes.
 */
int inflight_load(const struct inflight *log, const struct inflight_id *id,
		  struct inflight_image **ret, char *ret_why);

/* What is to be done for a ring. */
struct inflight_plan {
	uint32_t req_cons; /* go on from here */
	uint32_t nr_publish; /* answered, but the guest has not seen it */
	uint32_t nr_replay; /* to be executed again, the oldest first */
	uint16_t publish[INFLIGHT_MAX_SLOTS]; /* entries, as they follow
						 * rsp_prod */
	uint16_t replay[INFLIGHT_MAX_SLOTS]; /* entries */
};

/*
 * Pure.  rsp_prod: as the guest sees it.  -EPROTO: entries, cursor and
 * rsp_prod do not fit together.
 */
int inflight_plan(const struct inflight_entry *entries, uint32_t nr_slots,
		  const struct inflight_cursor *cursor, uint32_t rsp_prod,
		  struct inflight_plan *ret);

/* Makes the log say what the plan says, no less at any moment. */
void inflight_adopt(struct inflight_ring *log,
		    const struct inflight_entry *entries,
		    const struct inflight_plan *plan, uint32_t rsp_prod);

/* Before a request is executed again.  false: as many workers as may have died of it.
 * One that died before it got here is not its fault, however many did. */
bool inflight_try(struct inflight_ring *log, uint32_t entry);

#endif
