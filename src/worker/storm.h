/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * storm.h - a guest that rings and has nothing to say, or nothing but nonsense.
 *
 * The kernel throttles spurious events for its own backends, not for us: a port
 * is masked when it fires and fires again as soon as it is unmasked.  So that is
 * what is put off.  And a guest that keeps its ring full of requests which are
 * refused would have the lane busy all the time, at no cost to the guest: after
 * many of them its ring is not looked at for a while.  One request in order ends
 * either.  Pure: no time but what it is told.
 */
#ifndef XENDISK_STORM_H
#define XENDISK_STORM_H

#include <stdbool.h>
#include <stdint.h>

/* This many events in a row may be for nothing: some always are, since a
 * request may have been taken by the time its event comes. */
#define STORM_FREE 4
/* So many answers in a row, published together, may all be refusals. */
#define STORM_REFUSALS 64
#define STORM_FIRST_NS 100000ull
#define STORM_MAX_NS   100000000ull

/* Of one ring; zeroed at first. */
struct storm {
	uint32_t seen; /* requests that had been taken at the last event */
	uint32_t idle; /* events since then that brought none */
	uint64_t unmask_at; /* its port stays masked until then; 0: it is not */
	uint32_t refused; /* bursts of answers since one was no refusal */
	uint64_t look_at; /* the ring is left alone until then; 0: it is not */
};

/* The n-th time: doubles up to the limit. */
static inline uint64_t storm_wait(uint32_t n)
{
	return n < 10 ? STORM_FIRST_NS << n : STORM_MAX_NS;
}

/*
 * An event has come, and its requests are not looked at yet.  taken counts the
 * ring's requests so far, and may wrap.  True: unmask the port now; false: put it
 * off.  Needs no time, which dom0's kernel may have to be asked for.
 */
static inline bool storm_event(struct storm *storm, uint32_t taken)
{
	if (taken != storm->seen) {
		storm->seen = taken;
		storm->idle = 0;
		return true;
	}
	if (storm->idle < UINT32_MAX)
		storm->idle++;
	return storm->idle <= STORM_FREE;
}

/* That event came now: the port stays masked until unmask_at. */
static inline void storm_put_off(struct storm *storm, uint64_t now)
{
	storm->unmask_at = now + storm_wait(storm->idle - STORM_FREE - 1);
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

/* A burst of answers was published: were all of them refusals? */
static inline void storm_answered(struct storm *storm, bool refused,
				  uint64_t now)
{
	if (!refused) {
		storm->refused = 0;
		return;
	}
	if (storm->refused >= STORM_REFUSALS)
		storm->look_at =
			now + storm_wait(storm->refused - STORM_REFUSALS);
	if (storm->refused < UINT32_MAX)
		storm->refused++;
}

/* The ring is left alone: may it be looked at again? */
static inline bool storm_may_look(struct storm *storm, uint64_t now)
{
	if (now < storm->look_at)
		return false;
	storm->look_at = 0;
	return true;
}

#endif
