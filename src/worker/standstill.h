/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * standstill.h - the main thread stops all lanes for a moment.
 *
 * For what lanes read without a lock and what hardly ever changes: the size of
 * the disk.  A lane stands still between two of its rounds, so nothing that it
 * does is cut in two; requests may be in flight.
 */
#ifndef XENDISK_STANDSTILL_H
#define XENDISK_STANDSTILL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct standstill {
	_Atomic(bool) wanted;
	pthread_mutex_t lock; /* of the rest */
	pthread_cond_t news;
	unsigned int standing;
};

void standstill_init(struct standstill *still);
void standstill_destroy(struct standstill *still);

/* Main thread: wanted; the caller then wakes the lanes; all nr stand. */
void standstill_want(struct standstill *still);
void standstill_wait(struct standstill *still, unsigned int nr);
void standstill_end(struct standstill *still);

/* Lane: stands still as long as that is wanted. */
void standstill_stand(struct standstill *still);

static inline bool standstill_wanted(const struct standstill *still)
{
	return atomic_load_explicit(&still->wanted, memory_order_relaxed);
}

#endif
