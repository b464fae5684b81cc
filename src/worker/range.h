/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * range.h - the overlap interlock: who is writing where?
 *
 * One table for a disk, all its writers in it.  A write or discard is in the
 * table from before it starts until its answer is published, and no two in it
 * overlap.  So what a dead worker left in flight can be executed again in any
 * order: none of it can undo a later write that was acknowledged.
 */
#ifndef XENDISK_RANGE_H
#define XENDISK_RANGE_H

#include <stdbool.h>
#include <stdint.h>

struct range_table;

/* Embedded in whoever locks; index is the table's. */
struct range {
	uint64_t start, end; /* bytes, end exclusive */
	uint32_t index;
};

/* capacity: how many can be locked at a time.  shared: several threads use it,
 * so take a lock. */
int range_table_new(struct range_table **ret, uint32_t capacity, bool shared);
void range_table_free(struct range_table *table);

/*
 * Enters start..end, or returns false when that overlaps what is there: then
 * `lane` (0 to 31) will be in the mask that a later range_unlock() returns, and
 * has to try again.
 */
bool range_lock(struct range_table *table, struct range *range,
		unsigned int lane);

/* Returns the mask of lanes that wait, and forgets it. */
uint32_t range_unlock(struct range_table *table, struct range *range);

#endif
