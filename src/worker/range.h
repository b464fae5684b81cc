/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * range.h - the overlap interlock: who is writing where?
 *
 * One table for a disk, all its writers in it.  A write or discard is in the
 * table from before it starts until its answer is published, and no two that
 * have their range overlap.  So what a dead worker left in flight can be executed
 * again in any order: none of it can undo a later write that was acknowledged.
 *
 * Who finds another one where it wants to write waits in the table, and is served
 * in the order of arrival: it has its range when all that came before it and
 * overlap it have gone, those that waited themselves too.  So however much others
 * write, a discard of the whole disk gets its turn.  Each one waits only for those
 * that came before it, so nobody waits for ever as long as who has its range waits
 * for nobody that is in the table without one.  What overlaps nobody never waits.
 */
#ifndef XENDISK_RANGE_H
#define XENDISK_RANGE_H

#include <stdbool.h>
#include <stdint.h>

#define RANGE_MAX_LANES 32u

struct range_table;

/* Embedded in whoever locks, who sets start and end. */
struct range {
	uint64_t start, end; /* bytes, end exclusive */
	/* The table's: */
	uint64_t ticket; /* the order of arrival */
	uint32_t index;
	uint32_t before; /* came earlier, overlap it, and are still there */
	uint32_t lane;
	bool told; /* it is in the list of those that have waited: */
	struct range *prev, *next;
};

/* capacity: how many can be in it at a time, waiting ones too.  shared: several
 * threads use it, so take a lock. */
int range_table_new(struct range_table **ret, uint32_t capacity, bool shared);
void range_table_free(struct range_table *table);

/*
 * Enters start..end.  False: it waits, until a range_unlock() names its lane, whose
 * range_granted() then returns it.
 */
bool range_lock(struct range_table *table, struct range *range,
		unsigned int lane);

/* One that has waited and has its range now; NULL: no more of this lane. */
struct range *range_granted(struct range_table *table, unsigned int lane);

/* It leaves, whether it has its range or waits.  Returns the mask of lanes that
 * have some to be taken by range_granted() now. */
uint32_t range_unlock(struct range_table *table, struct range *range);

#endif
