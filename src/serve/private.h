/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* private.h - a served disk from inside; for disk.c and execute.c. */
#ifndef XENDISK_SERVE_PRIVATE_H
#define XENDISK_SERVE_PRIVATE_H

#include <stdatomic.h>

#include "common/util.h"
#include "serve/disk.h"
#include "worker/disk.h"
#include "worker/range.h"

/* How many commands of one channel are in the table of ranges at most, since each
 * write looks through the table.  No fewer than a client may have at a time, so that
 * one whose writes all wait for each other does not keep its neighbours out for long. */
#define SERVE_MAX_WRITES 256u
_Static_assert(SERVE_MAX_WRITES >= NBD_MAX_COMMANDS, "one client's fit");

/* A flush runs: one at a time. */
#define SERVE_FLUSHES (1u << 31)
_Static_assert(SERVE_MAX_LANES < 31, "a bit for each lane");

struct op;

struct serve_disk {
	char *name;
	char *canonical;
	char *description; /* for clients */
	struct local_host *host;
	struct services *services;
	struct stack *stack;
	const struct xd_limits *limits;
	struct nbd_export export;
	_Atomic(bool) failed; /* a flush has */
	_Atomic(uint32_t) gate; /* SERVE_FLUSHES, and a mask of lanes that wait */
	struct range_table *ranges; /* what is being written, by all channels */
	struct serve_channel *channels[SERVE_MAX_LANES];
};

struct serve_channel {
	struct serve_disk *disk;
	struct engine *engine;
	struct xd_channel *top;
	unsigned int lane;
	unsigned int nr_ops; /* under way */
	struct op *fresh; /* of them, of this round: not begun yet */
	unsigned int nr_entered; /* in the table of ranges */
	struct op *waiting; /* in it, for their range */
	struct op *outside; /* for room in it */
	struct op *unflushed; /* wait for a flush that begins from now on */
	struct op *flushing; /* ... for the one that runs */
	struct xd_request flush;
	_Atomic(bool) granted; /* some have theirs: said by any lane */
	bool stopped; /* no piece and no flush begins any more */
};

/* Those that have not begun fail; those that have, do before the next piece, or the
 * flush that they need. */
void serve_end_waiting(struct serve_channel *channel);

#endif
