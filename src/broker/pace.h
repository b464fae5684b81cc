/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pace.h - is there a storm of watch events, so that it pays to rest before looking
 * for more?
 *
 * An attach is some dozen events, a guest that writes in a loop ten thousand a second.
 * After a rest of some milliseconds many are taken at once, and what a wake-up costs is
 * paid once for all of them.  A storm begins with many events in little time
 * (PACE_EVENTS), and lasts until they are few (PACE_STILL_EVENTS).
 *
 * Pure: the caller says what time it is.
 */
#ifndef XENDISK_PACE_H
#define XENDISK_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_EVENTS	  64u /* in PACE_NS: a storm */
#define PACE_STILL_EVENTS 16u /* the same, when there was one before */
#define PACE_NS		  20000000u
#define PACE_REST_NS	  5000000u /* what xenstored sends in it is kept in memory */

/* Zeroed at first. */
struct pace {
	unsigned int events; /* the caller counts them */
	uint64_t since; /* ns */
	bool stormy;
};

/* All events are taken.  True: it is time to rest. */
static inline bool pace_is_stormy(struct pace *pace, uint64_t now)
{
	unsigned int many = pace->stormy ? PACE_STILL_EVENTS : PACE_EVENTS;
	bool in_time = now - pace->since < PACE_NS;

	if (in_time && pace->events < many)
		return false;
	pace->stormy = in_time;
	pace->events = 0;
	pace->since = now;
	return pace->stormy;
}

/* A rest may take longer than was asked for: what counts begins behind it. */
static inline void pace_rested(struct pace *pace, uint64_t now)
{
	pace->since = now;
}

#endif
