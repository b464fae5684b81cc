/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * range.c - the overlap interlock.
 *
 * The table is an array without holes that is searched from end to end.  As
 * many writes are in flight as a guest's rings hold, some tens as a rule, and
 * comparing a few cache lines in a row costs less than keeping a tree.
 */
#include "worker/range.h"

#include <assert.h>
#include <pthread.h>

#include "common/util.h"

struct extent {
	uint64_t start, end;
};

struct range_table {
	pthread_mutex_t mutex;
	bool shared;
	uint32_t capacity;
	uint32_t count;
	uint32_t waiting; /* mask of lanes */
	struct range **owners; /* whose extent it is */
	struct extent extents[];
};

int range_table_new(struct range_table **ret, uint32_t capacity, bool shared)
{
	cleanup_free struct range_table *table = calloc(
		1, sizeof(*table) + capacity * sizeof(table->extents[0]));

	if (!table)
		return -ENOMEM;
	table->owners = calloc(capacity, sizeof(*table->owners));
	if (!table->owners)
		return -ENOMEM;
	(void)pthread_mutex_init(&table->mutex, NULL);
	table->shared = shared;
	table->capacity = capacity;
	*ret = TAKE_PTR(table);
	return 0;
}

void range_table_free(struct range_table *table)
{
	if (!table)
		return;
	(void)pthread_mutex_destroy(&table->mutex);
	free(table->owners);
	free(table);
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

static bool overlaps(const struct range_table *table, const struct range *range)
{
	const struct extent *extent = table->extents;

	for (uint32_t i = 0; i < table->count; i++)
		if (range->start < extent[i].end &&
		    extent[i].start < range->end)
			return true;
	return false;
}

bool range_lock(struct range_table *table, struct range *range,
		unsigned int lane)
{
	bool locked = false;

	enter(table);
	if (overlaps(table, range)) {
		table->waiting |= 1u << lane;
	} else {
		assert(table->count < table->capacity);
		range->index = table->count++;
		table->owners[range->index] = range;
		table->extents[range->index] =
			(struct extent){ range->start, range->end };
		locked = true;
	}
	leave(table);
	return locked;
}

uint32_t range_unlock(struct range_table *table, struct range *range)
{
	uint32_t index, last, waiting;

	enter(table);
	index = range->index; /* others move it, as below */
	assert(index < table->count && table->owners[index] == range);
	last = --table->count;
	table->extents[index] = table->extents[last];
	table->owners[index] = table->owners[last];
	table->owners[index]->index = index;
	waiting = table->waiting;
	table->waiting = 0;
	leave(table);
	return waiting;
}
