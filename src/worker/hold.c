/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hold.c - requests that wait for an error to pass.
 *
 * A request that is held keeps its range (range.h) and gives its memory back; it
 * begins its current step again.  So writes that overlap it wait as long, and so
 * do later ones that overlap those.  All requests that a lane holds are tried
 * together.  The disk shows as paused from the first request held until the last
 * of them is answered.
 */
#include "worker/hold.h"

#include "common/util.h"
#include "worker/io.h"

#define FIRST_DELAY_NS 100000000ull
#define MAX_DELAY_NS   (30 * 1000000000ull)

#define WAIT "requests wait until it works"

static const struct {
	int err;
	const char *reason;
} passing[] = {
	{ -ENOSPC, "no space is left on the storage (ENOSPC); " WAIT },
	{ -EDQUOT, "the quota of the storage is used up (EDQUOT); " WAIT },
	{ -ENOMEM, "there is no memory (ENOMEM); " WAIT },
	{ -EAGAIN, "the storage cannot be reached now (EAGAIN); " WAIT },
};

static const char *reason(int err)
{
	for (size_t i = 0; i < ARRAY_SIZE(passing); i++)
		if (passing[i].err == err)
			return passing[i].reason;
	return "";
}

bool hold_wanted(const struct io_disk *disk, int err)
{
	/* Given up by the stack: not tried again, and not answered either. */
	if (err == -ECANCELED)
		return atomic_load(&disk->stop);
	return err && disk->policy->on_error == ON_ERROR_HOLD && *reason(err);
}

void hold_add(struct io *io, int err)
{
	struct hold_lane *hold = &io->lane->hold;
	struct io_disk *disk = io->lane->disk;

	if (err == -ECANCELED) {
		io_append(&hold->list, io);
		return;
	}
	if (!io->held) {
		io->held = true;
		if (atomic_fetch_add(&disk->nr_held, 1) == 0)
			pause_begin(disk->pause, reason(err));
	}
	io_append(&hold->list, io);
	if (hold->at)
		return;
	hold->delay = hold->delay ? MIN(2 * hold->delay, MAX_DELAY_NS) :
				    FIRST_DELAY_NS;
	hold->at = now_ns() + hold->delay;
}

void hold_done(struct io *io)
{
	struct hold_lane *hold = &io->lane->hold;
	struct io_disk *disk = io->lane->disk;

	io->held = false;
	hold->delay = 0;
	if (hold->at)
		hold->at = 1; /* it works: try the others now */
	if (atomic_fetch_sub(&disk->nr_held, 1) == 1)
		pause_end(disk->pause);
}

void hold_pump(struct io_lane *lane)
{
	struct hold_lane *hold = &lane->hold;
	struct io_list list;
	struct io *io;

	if (!hold->at)
		return;
	if (!atomic_exchange(&lane->resume, false) && now_ns() < hold->at)
		return;
	hold->at = 0;
	list = io_take_all(&hold->list);
	while ((io = io_pop(&list)))
		io_advance(io);
}

uint64_t hold_next(const struct io_lane *lane)
{
	return lane->hold.at ? lane->hold.at : UINT64_MAX;
}
