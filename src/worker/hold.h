/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hold.h - errors that pass: a full file system, a lost server.
 *
 * With on-error=hold the guest does not hear of them: the request waits and is
 * tried again, after 100 ms at first, then less and less often, at least every
 * 30 s.
 */
#ifndef XENDISK_HOLD_H
#define XENDISK_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/io-list.h"

struct io;
struct io_disk;
struct io_lane;

struct hold_lane {
	struct io_list list;
	uint64_t at; /* when to try again; 0: nothing is held */
	uint64_t delay; /* the last one, ns; 0: it worked since */
};

/* Is the request to wait and be tried again, rather than answered with err? */
bool hold_wanted(const struct io_disk *disk, int err);
/* The request's current step is tried again later. */
void hold_add(struct io *io, int err);
/* A request that was held is about to be answered. */
void hold_done(struct io *io);

/* In each round: tries again when it is time. */
void hold_pump(struct io_lane *lane);
/* When hold_pump() has to be called at the latest; UINT64_MAX: never. */
uint64_t hold_next(const struct io_lane *lane);

#endif
