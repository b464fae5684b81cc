/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine-pool.h - threads that make the calls which the lane must not make.
 *
 * The lane owns everything but what stands behind `lock`, which it shares with
 * the threads: calls go in by todo, come back by done.  A thread that has done
 * something writes the engine's wake_fd only when the lane sleeps.
 *
 * Threads are started when there is work and nobody idle, up to a limit, by
 * the lane: so they have the lane's restrictions (isolate.c) and an idle disk
 * has none.  Where none can be started the lane makes the calls itself: slow,
 * but nothing is refused.
 */
#ifndef XENDISK_ENGINE_POOL_H
#define XENDISK_ENGINE_POOL_H

#include <pthread.h>

#include "worker/engine-ops.h"

#define POOL_MAX_THREADS 16

struct engine_pool {
	struct engine *engine;
	struct fifo fresh; /* started since the last pool_hand_out() */
	unsigned int nr_fresh;
	unsigned int under_way; /* started, and not reported */
	pthread_t thread[POOL_MAX_THREADS];
	unsigned int nr_threads, max_threads;

	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t more; /* todo is not empty, or stop */
	struct fifo todo;
	struct fifo done;
	unsigned int idle; /* threads that wait for more */
	unsigned int nr_todo;
	bool stop;
	bool asleep; /* the lane: wake it when something is done */
};

/* No thread yet. */
void pool_init(struct engine_pool *pool, struct engine *engine,
	       unsigned int max_threads);
/* Nothing is under way. */
void pool_destroy(struct engine_pool *pool);

/* Takes a call that is neither poll nor timer. */
void pool_start(struct engine_pool *pool, struct call *call);

/* In run(), in this order: gives the threads what was started; before the lane
 * sleeps, true if it may; reports what is done, and returns how many. */
void pool_hand_out(struct engine_pool *pool);
bool pool_fall_asleep(struct engine_pool *pool);
int pool_finish(struct engine_pool *pool);

#endif
