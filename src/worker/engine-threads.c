/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine-threads.c - the engine where io_uring is forbidden: a few threads
 * that make the calls.
 *
 * The lane owns everything but struct pool, which it shares with the threads
 * under one lock: calls go in by todo, come back by done.  Polls stay with the
 * lane, which sleeps in ppoll() on them and on wake_fd.  A thread that has
 * done something writes wake_fd only when the lane sleeps.
 *
 * Threads are started when there is work and nobody idle, up to a limit, by
 * the lane: so they have the lane's restrictions (isolate.c) and an idle disk
 * has none.  Where none can be started the lane makes the calls itself: slow,
 * but nothing is refused.
 */
#include "config.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/uio.h>
#include <utlist.h>

#include "worker/engine-ops.h"

#define MAX_THREADS 16

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t more; /* todo is not empty, or stop */
	struct fifo todo;
	struct fifo done;
	unsigned int idle; /* threads that wait for more */
	unsigned int nr_todo;
	bool stop;
	bool asleep; /* the lane: wake it when something is done */
};

struct threads {
	struct engine engine;
	struct pool pool;
	struct fifo fresh; /* started since the last run */
	unsigned int nr_fresh;
	pthread_t thread[MAX_THREADS];
	unsigned int nr_threads, max_threads;
	struct engine_polls polls;
};

static struct threads *threads_of(struct engine *engine)
{
	return container_of(engine, struct threads, engine);
}

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
	default: /* polls and timers are the lane's */
		abort();
	}
	return res < 0 ? -errno : res;
}

static void hand_back(struct threads *threads, struct call *call)
{
	fifo_push(&threads->pool.done, call);
	if (threads->pool.asleep)
		engine_wake(&threads->engine);
	threads->pool.asleep = false;
}

static void *pool_thread(void *arg)
{
	struct threads *threads = arg;
	struct pool *pool = &threads->pool;
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
		hand_back(threads, call);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Signals are the main thread's. */
static bool start_thread(struct threads *threads)
{
	sigset_t all, saved;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	r = pthread_create(&threads->thread[threads->nr_threads], NULL,
			   pool_thread, threads);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (r == 0)
		threads->nr_threads++;
	return r == 0;
}

/* --- Making one ----------------------------------------------------------- */

static int threads_create(unsigned int entries, struct engine **ret)
{
	struct threads *threads = calloc(1, sizeof(*threads));

	if (!threads)
		return -ENOMEM;
	if (engine_polls_init(&threads->polls) < 0) {
		free(threads);
		return -ENOMEM;
	}
	threads->engine.ops = &engine_threads_ops;
	threads->max_threads = MAX(1, MIN(entries, MAX_THREADS));
	pthread_mutex_init(&threads->pool.lock, NULL);
	pthread_cond_init(&threads->pool.more, NULL);
	*ret = &threads->engine;
	return 0;
}

static void threads_destroy(struct engine *engine)
{
	struct threads *threads = threads_of(engine);

	pthread_mutex_lock(&threads->pool.lock);
	threads->pool.stop = true;
	pthread_cond_broadcast(&threads->pool.more);
	pthread_mutex_unlock(&threads->pool.lock);
	for (unsigned int i = 0; i < threads->nr_threads; i++)
		pthread_join(threads->thread[i], NULL);
	pthread_cond_destroy(&threads->pool.more);
	pthread_mutex_destroy(&threads->pool.lock);
	engine_polls_destroy(&threads->polls);
	free(threads);
}

/* --- The lane ------------------------------------------------------------- */

static void threads_start(struct engine *engine, struct call *call)
{
	struct threads *threads = threads_of(engine);

	if (sys_of(call)->op == XD_SYS_POLL)
		return; /* it is in engine->polls */
	fifo_push(&threads->fresh, call);
	threads->nr_fresh++;
}

static void make_calls_here(struct threads *threads)
{
	struct call *call;

	while ((call = fifo_pop(&threads->fresh))) {
		call->res = make_call(sys_of(call));
		fifo_push(&threads->pool.done, call);
	}
	threads->nr_fresh = 0;
}

static void hand_out(struct threads *threads)
{
	struct pool *pool = &threads->pool;
	unsigned int wanted;

	if (threads->nr_fresh == 0)
		return;
	if (threads->nr_threads == 0 && !start_thread(threads)) {
		make_calls_here(threads);
		return;
	}
	pthread_mutex_lock(&pool->lock);
	fifo_append(&pool->todo, &threads->fresh);
	pool->nr_todo += threads->nr_fresh;
	wanted = pool->nr_todo > pool->idle ? pool->nr_todo - pool->idle : 0;
	pthread_cond_broadcast(&pool->more);
	pthread_mutex_unlock(&pool->lock);
	threads->nr_fresh = 0;
	while (wanted-- > 0 && threads->nr_threads < threads->max_threads &&
	       start_thread(threads))
		;
}

/* False when something is done already; else the threads will wake us. */
static bool fall_asleep(struct pool *pool)
{
	bool done;

	pthread_mutex_lock(&pool->lock);
	done = pool->done.head;
	pool->asleep = !done;
	pthread_mutex_unlock(&pool->lock);
	return !done;
}

static int finish_calls(struct threads *threads)
{
	struct pool *pool = &threads->pool;
	struct fifo done;
	struct call *call;
	int n = 0;

	pthread_mutex_lock(&pool->lock);
	done = pool->done;
	pool->done.head = NULL;
	pool->asleep = false;
	pthread_mutex_unlock(&pool->lock);
	for (; (call = fifo_pop(&done)); n++)
		engine_done(&threads->engine, call, call->res);
	return n;
}

static int threads_run(struct engine *engine, uint64_t wait_ns)
{
	struct threads *threads = threads_of(engine);
	int n;

	hand_out(threads);
	if (wait_ns > 0 && !fall_asleep(&threads->pool))
		wait_ns = 0;
	n = engine_polls_wait(engine, &threads->polls, wait_ns);
	return n < 0 ? n : n + finish_calls(threads);
}

static void threads_cancel(struct engine *engine, struct call *poll)
{
	engine_done(engine, poll, -ECANCELED);
}

const struct engine_ops engine_threads_ops = {
	.create = threads_create,
	.destroy = threads_destroy,
	.start = threads_start,
	.run = threads_run,
	.cancel = threads_cancel,
};
