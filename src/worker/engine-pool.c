/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "worker/engine-pool.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/uio.h>

/* --- The threads ---------------------------------------------------------- */

static int64_t make_call(const struct xd_sys *sys)
{
	int64_t res;

	switch (sys->op) {
	case XD_SYS_READV:
		res = preadv2(sys->fd, sys->iov, (int)sys->iovcnt,
			      (off_t)sys->offset, sys->flags);
		break;
	case XD_SYS_WRITEV:
		res = pwritev2(sys->fd, sys->iov, (int)sys->iovcnt,
			       (off_t)sys->offset, sys->flags);
		break;
	case XD_SYS_FDATASYNC:
		res = fdatasync(sys->fd);
		break;
	case XD_SYS_FALLOCATE:
		res = fallocate(sys->fd, sys->flags, (off_t)sys->offset,
				(off_t)sys->length);
		break;
	case XD_SYS_SEEK:
		res = lseek(sys->fd, (off_t)sys->offset, sys->flags);
		break;
	default: /* polls and timers are the lane's */
		abort();
	}
	return res < 0 ? -errno : res;
}

static void hand_back(struct engine_pool *pool, struct call *call)
{
	fifo_push(&pool->done, call);
	if (pool->asleep)
		engine_wake(pool->engine);
	pool->asleep = false;
}

static void *pool_thread(void *arg)
{
	struct engine_pool *pool = arg;
	struct call *call;

	pthread_mutex_lock(&pool->lock);
	while (!pool->stop) {
		call = fifo_pop(&pool->todo);
		if (!call) {
			pool->idle++;
			pthread_cond_wait(&pool->more, &pool->lock);
			pool->idle--;
			continue;
		}
		pool->nr_todo--;
		pthread_mutex_unlock(&pool->lock);
		call->res = make_call(sys_of(call));
		pthread_mutex_lock(&pool->lock);
		hand_back(pool, call);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Signals are the main thread's. */
static bool start_thread(struct engine_pool *pool)
{
	sigset_t all, saved;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	r = pthread_create(&pool->thread[pool->nr_threads], NULL, pool_thread,
			   pool);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (r == 0)
		pool->nr_threads++;
	return r == 0;
}

/* --- The lane ------------------------------------------------------------- */

void pool_init(struct engine_pool *pool, struct engine *engine,
	       unsigned int max_threads)
{
	pool->engine = engine;
	pool->max_threads = MIN(max_threads, POOL_MAX_THREADS);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->more, NULL);
}

void pool_destroy(struct engine_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->more);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned int i = 0; i < pool->nr_threads; i++)
		pthread_join(pool->thread[i], NULL);
	pthread_cond_destroy(&pool->more);
	pthread_mutex_destroy(&pool->lock);
}

void pool_start(struct engine_pool *pool, struct call *call)
{
	fifo_push(&pool->fresh, call);
	pool->nr_fresh++;
	pool->under_way++;
}

static void make_calls_here(struct engine_pool *pool)
{
	struct call *call;

	while ((call = fifo_pop(&pool->fresh))) {
		call->res = make_call(sys_of(call));
		fifo_push(&pool->done, call);
	}
	pool->nr_fresh = 0;
}

void pool_hand_out(struct engine_pool *pool)
{
	unsigned int wanted;

	if (pool->nr_fresh == 0)
		return;
	if (pool->nr_threads == 0 && !start_thread(pool)) {
		make_calls_here(pool);
		return;
	}
	pthread_mutex_lock(&pool->lock);
	fifo_append(&pool->todo, &pool->fresh);
	pool->nr_todo += pool->nr_fresh;
	wanted = pool->nr_todo > pool->idle ? pool->nr_todo - pool->idle : 0;
	pthread_cond_broadcast(&pool->more);
	pthread_mutex_unlock(&pool->lock);
	pool->nr_fresh = 0;
	while (wanted-- > 0 && pool->nr_threads < pool->max_threads &&
	       start_thread(pool))
		;
}

bool pool_fall_asleep(struct engine_pool *pool)
{
	bool done;

	pthread_mutex_lock(&pool->lock);
	done = pool->done.head;
	pool->asleep = !done;
	pthread_mutex_unlock(&pool->lock);
	return !done;
}

int pool_finish(struct engine_pool *pool)
{
	struct fifo done;
	struct call *call;
	int n = 0;

	pthread_mutex_lock(&pool->lock);
	done = pool->done;
	pool->done.head = NULL;
	pool->asleep = false;
	pthread_mutex_unlock(&pool->lock);
	for (; (call = fifo_pop(&done)); n++) {
		pool->under_way--;
		engine_done(pool->engine, call, call->res);
	}
	return n;
}
