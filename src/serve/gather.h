/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gather.h - does it pay to let a client's writes gather for a moment?
 *
 * A client that has many small writes under way sends them one after the other.  A
 * lane that is as fast as the client finds the next one as soon as it has answered the
 * last, and receives, polls and sends for each alone, while both take turns at the
 * socket's locks.  If it sleeps for some microseconds in between, several come at once:
 * that takes a fifth less CPU a write, and delays nothing, since the client has others
 * under way.
 *
 * How many those are is guessed: the most that was seen at one time (the lane is late
 * now and then) counts for a while.  Not for reads: the client has to take in each
 * reply before it sends the next.
 *
 * Pure: the caller says what time it is.
 */
#ifndef XENDISK_SERVE_GATHER_H
#define XENDISK_SERVE_GATHER_H

#include <stdbool.h>
#include <stdint.h>

/* So many at one time are many, for so many rounds. */
#define GATHER_MANY   12u
#define GATHER_ROUNDS 4096u
/* A sleep, and the longest round that is worth one: in a longer one enough gather
 * meanwhile. */
#define GATHER_NS	     10000
#define GATHER_ROUND_MOST_NS 40000u

/* Of a lane; zeroed at first. */
struct gather {
	bool writes, others; /* requests of this round */
	unsigned int rounds; /* so many more count as of a client with many */
};

static inline void gather_request(struct gather *gather, bool writes)
{
	gather->writes |= writes;
	gather->others |= !writes;
}

/* So many requests of a client are under way at this time. */
static inline void gather_seen(struct gather *gather, unsigned int pending)
{
	if (pending >= GATHER_MANY)
		gather->rounds = GATHER_ROUNDS;
}

/* At the end of each round, which took so long: is it worth a sleep?  Only if there is
 * nothing to wait for but clients. */
static inline bool gather_wanted(struct gather *gather, uint64_t round_ns)
{
	bool only_writes = gather->writes && !gather->others;

	gather->writes = false;
	gather->others = false;
	if (gather->rounds == 0)
		return false;
	gather->rounds--;
	return only_writes && round_ns < GATHER_ROUND_MOST_NS;
}

#endif
