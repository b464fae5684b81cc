/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * storm.h - a guest that rings and has nothing to say.
 *
 * The kernel throttles spurious events for its own backends, not for us: a port
 * is masked when it fires and fires again as soon as it is unmasked.  So that is
 * what is put off.  Pure: no time but what it is told.
 */
#ifndef XENDISK_STORM_H
#define XENDISK_STORM_H

#include <stdbool.h>
#include <stdint.h>

/* This many events in a row may be for nothing: some always are, since a
 * request may have been taken by the time its event comes. */
#define STORM_FREE     4
#define STORM_FIRST_NS 100000ull
#define STORM_MAX_NS   100000000ull

/* Of one ring; zeroed at first. */
struct storm {
	uint32_t seen; /* requests that had been taken at the last event */
	uint32_t idle; /* events since then that brought none */
	uint64_t unmask_at; /* its port stays masked until then; 0: it is not */
};

/*
 * An event has come, and its requests are not looked at yet.  taken counts the
 * ring's requests so far, and may wrap.  True: unmask the port now; false: at
 * unmask_at.
 */
static inline bool storm_event(struct storm *storm, uint32_t taken,
			       uint64_t now)
{
	unsigned int over;
	uint64_t wait;

	if (taken != storm->seen) {
		storm->seen = taken;
		storm->idle = 0;
		return true;
	}
	if (storm->idle < STORM_FREE) {
		storm->idle++;
		return true;
	}
	over = storm->idle - STORM_FREE;
	wait = over < 10 ? STORM_FIRST_NS << over : STORM_MAX_NS;
	if (over < 10)
		storm->idle++;
	storm->unmask_at = now + wait;
	return false;
}

/* The port is masked: may it be unmasked?  A request that was found meanwhile
 * ends the wait. */
static inline bool storm_over(struct storm *storm, uint32_t taken, uint64_t now)
{
	if (taken == storm->seen && now < storm->unmask_at)
		return false;
	storm->unmask_at = 0;
	return true;
}

#endif
