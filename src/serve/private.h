/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* private.h - a served disk from inside; for disk.c and execute.c. */
#ifndef XENDISK_SERVE_PRIVATE_H
#define XENDISK_SERVE_PRIVATE_H

#include <stdatomic.h>

#include "common/util.h"
#include "serve/disk.h"
#include "worker/disk.h"
#include "worker/range.h"

/* Of one channel: that what is looked through for each write stays short. */
#define SERVE_MAX_WRITES 128u

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
	struct range_table *ranges; /* what is being written, by all channels */
	struct serve_channel *channels[SERVE_MAX_LANES];
};

struct serve_channel {
	struct serve_disk *disk;
	struct engine *engine;
	struct xd_channel *top;
	unsigned int lane;
	unsigned int nr_ops; /* under way */
	unsigned int nr_locked; /* that have their range */
	struct op *waiting; /* that have not */
	_Atomic(bool) look_again; /* a range was given back: said by any lane */
};

/* Those that wait for a range fail. */
void serve_end_waiting(struct serve_channel *channel);

#endif
