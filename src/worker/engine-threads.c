/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine-threads.c - the engine where io_uring is forbidden: a pool of a few
 * threads makes the calls (engine-pool.h).  Polls stay with the lane, which
 * sleeps in ppoll() on them and on wake_fd.
 */
#include "config.h"

#include "worker/engine-pool.h"

struct threads {
	struct engine engine;
	struct engine_pool pool;
	struct engine_polls polls;
};

static struct threads *threads_of(struct engine *engine)
{
	return container_of(engine, struct threads, engine);
}

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
	pool_init(&threads->pool, &threads->engine, MAX(1, entries));
	*ret = &threads->engine;
	return 0;
}

static void threads_destroy(struct engine *engine)
{
	struct threads *threads = threads_of(engine);

	pool_destroy(&threads->pool);
	engine_polls_destroy(&threads->polls);
	free(threads);
}

static void threads_start(struct engine *engine, struct call *call)
{
	if (sys_of(call)->op != XD_SYS_POLL) /* that is in engine->polls */
		pool_start(&threads_of(engine)->pool, call);
}

static int threads_run(struct engine *engine, uint64_t wait_ns)
{
	struct threads *threads = threads_of(engine);
	int n;

	pool_hand_out(&threads->pool);
	if (wait_ns > 0 && !pool_fall_asleep(&threads->pool))
		wait_ns = 0;
	n = engine_polls_wait(engine, &threads->polls, wait_ns);
	return n < 0 ? n : n + pool_finish(&threads->pool);
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
