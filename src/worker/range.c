/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * range.c - the overlap interlock.
 *
 * The table is an array without holes that is searched from end to end.  As
 * many writes are in flight as a guest's rings hold, some tens as a rule, and
 * comparing a few cache lines in a row costs less than keeping a tree.
 *
 * Who enters counts those that it overlaps; who leaves takes one off the count of
 * each later one that it overlaps.  At zero that one has its range, and goes to the
 * list of its lane, which is told: nobody tries again, and nobody is woken for
 * nothing.  Where nobody waits, to leave is to close the hole.
 */
#include "worker/range.h"

#include <assert.h>
#include <pthread.h>
#include <utlist.h>

#include "common/util.h"
#include "worker/sparse.h"

struct extent {
	uint64_t start, end;
};

struct range_table {
	pthread_mutex_t mutex;
	bool shared;
	uint32_t capacity;
	uint32_t count;
	uint32_t nr_waiting; /* of them, for their range */
	uint64_t next_ticket;
	struct range *granted[RANGE_MAX_LANES]; /* and not taken yet */
	struct range **owners; /* whose extent it is */
	struct extent extents[];
};

/* Extents, and behind them their owners. */
static size_t entries_bytes(uint32_t capacity)
{
	return capacity * (sizeof(struct extent) + sizeof(struct range *));
}

int range_table_new(struct range_table **ret, uint32_t capacity, bool shared)
{
	struct range_table *table =
		sparse_new(sizeof(*table) + entries_bytes(capacity));

	if (!table)
		return -ENOMEM;
	table->owners = (void *)(table->extents + capacity);
	(void)pthread_mutex_init(&table->mutex, NULL);
	table->shared = shared;
	table->capacity = capacity;
	*ret = table;
	return 0;
}

void range_table_free(struct range_table *table)
{
	if (!table)
		return;
	(void)pthread_mutex_destroy(&table->mutex);
	sparse_free(table, sizeof(*table) + entries_bytes(table->capacity));
}

static void enter(struct range_table *table)
{
	if (table->shared)
		(void)pthread_mutex_lock(&table->mutex);
}

static void leave(struct range_table *table)
{
	if (table->shared)
		(void)pthread_mutex_unlock(&table->mutex);
}

static bool overlaps(const struct extent *extent, const struct range *range)
{
	return range->start < extent->end && extent->start < range->end;
}

bool range_lock(struct range_table *table, struct range *range,
		unsigned int lane)
{
	uint32_t before = 0;

	assert(lane < RANGE_MAX_LANES);
	enter(table);
	assert(table->count < table->capacity);
	for (uint32_t i = 0; i < table->count; i++)
		before += overlaps(&table->extents[i], range);
	range->before = before;
	range->lane = lane;
	range->told = false;
	range->ticket = table->next_ticket++;
	range->index = table->count++;
	table->owners[range->index] = range;
	table->extents[range->index] =
		(struct extent){ range->start, range->end };
	table->nr_waiting += before > 0;
	leave(table);
	return before == 0;
}

struct range *range_granted(struct range_table *table, unsigned int lane)
{
	struct range *range;

	enter(table);
	range = table->granted[lane];
	if (range) {
		DL_DELETE(table->granted[lane], range);
		range->told = false;
	}
	leave(table);
	return range;
}

static void take_out(struct range_table *table, struct range *range)
{
	uint32_t index = range->index; /* others move it, as below */
	uint32_t last = --table->count;

	assert(index <= last && table->owners[index] == range);
	table->extents[index] = table->extents[last];
	table->owners[index] = table->owners[last];
	table->owners[index]->index = index;
	table->nr_waiting -= range->before > 0;
	if (range->told)
		DL_DELETE(table->granted[range->lane], range);
}

/* Those that waited for it have one less to wait for.  What it has overlapped and
 * is no later has not: one that gives up itself waits for those. */
static uint32_t grant(struct range_table *table, const struct range *gone)
{
	uint32_t lanes = 0;

	for (uint32_t i = 0; i < table->count; i++) {
		struct range *range = table->owners[i];

		if (!overlaps(&table->extents[i], gone) ||
		    range->ticket < gone->ticket || --range->before > 0)
			continue;
		table->nr_waiting--;
		range->told = true;
		DL_APPEND(table->granted[range->lane], range);
		lanes |= 1u << range->lane;
	}
	return lanes;
}

uint32_t range_unlock(struct range_table *table, struct range *range)
{
	uint32_t lanes = 0;

	enter(table);
	take_out(table, range);
	if (table->nr_waiting)
		lanes = grant(table, range);
	leave(table);
	return lanes;
}
