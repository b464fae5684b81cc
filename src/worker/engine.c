/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine.c - what both engines have in common: choosing one, timers, waking,
 * and the end.
 *
 * A call belongs to the engine from engine_sys() until its done() runs.  Calls
 * are told apart by where they wait:
 *   - timers never reach the kernel: they wait in a sorted list here, and
 *     engine_run() waits no longer than the first of them;
 *   - polls are handed to the implementation and listed here as well, since
 *     they may wait for ever and engine_cancel() has to find them;
 *   - all others are with the implementation, and end by themselves.
 *
 * done() runs in engine_run() (or engine_cancel()) and nowhere else, never in
 * engine_sys(): whoever starts a call may finish what it was doing first.
 */
#include "config.h"

#include <assert.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <utlist.h>

#include "worker/engine-ops.h"

/* When calls cannot be handed to the kernel, or it cannot be asked for their ends. */
#define RETRY_NS 1000000

/* A cancellation may get lost when the kernel is short of memory. */
#define CANCEL_RETRY_NS 100000000

/* XENDISK_ENGINE=threads or uring: for tests, and for those who must. */
static int engine_create(struct engine **ret, unsigned int entries, bool uring)
{
	const char *wish = getenv("XENDISK_ENGINE");
	int r;

	if (wish && strcmp(wish, "uring") == 0)
		return engine_uring_ops.create(entries, ret);
	if (wish && strcmp(wish, "threads") == 0)
		uring = false;
	if (uring) {
		/* Forbidden by sysctl or by a container's filter, or too old:
		 * the threads do as well, only slower. */
		r = engine_uring_ops.create(entries, ret);
		if (r == 0)
			return 0;
	}
	return engine_threads_ops.create(entries, ret);
}

int engine_new(struct engine **ret, unsigned int entries, bool uring)
{
	cleanup_close int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct engine *engine = NULL;
	int r;

	if (wake_fd < 0)
		return -errno;
	r = engine_create(&engine, entries, uring);
	if (r < 0)
		return r;
	engine->wake_fd = TAKE_FD(wake_fd);
	*ret = engine;
	return 0;
}

void engine_free(struct engine *engine)
{
	if (!engine)
		return;
	/* The kernel would go on writing where the callers' memory was. */
	assert(engine->started == 0 && !engine->timers);
	(void)close(engine->wake_fd);
	engine->ops->destroy(engine);
}

bool engine_is_uring(const struct engine *engine)
{
	return engine->ops == &engine_uring_ops;
}

static int compare_deadlines(const struct call *a, const struct call *b)
{
	return a->deadline < b->deadline ? -1 : a->deadline > b->deadline;
}

static void start_timer(struct engine *engine, struct xd_sys *sys)
{
	struct call *call = call_of(sys);
	uint64_t now = now_ns();

	*call = (struct call){ 0 };
	call->deadline = sys->length < UINT64_MAX - now ? now + sys->length :
							  UINT64_MAX;
	DL_INSERT_INORDER(engine->timers, call, compare_deadlines);
}

static void hand_over(struct engine *engine, struct call *call)
{
	*call = (struct call){ 0 };
	if (sys_of(call)->op == XD_SYS_POLL)
		DL_APPEND(engine->polls, call);
	engine->started++;
	engine->ops->start(engine, call);
}

void engine_sys(struct engine *engine, struct xd_sys *sys)
{
	/* What was just cancelled must not wait for ever again. */
	assert(!engine->in_cancelled ||
	       (sys->op != XD_SYS_TIMER && sys->op != XD_SYS_POLL));
	if (sys->op == XD_SYS_TIMER)
		start_timer(engine, sys);
	else
		hand_over(engine, call_of(sys));
}

void engine_drop_timer(struct engine *engine, struct xd_sys *sys)
{
	struct call *call = call_of(sys);

	DL_DELETE(engine->timers, call);
}

void engine_done(struct engine *engine, struct call *call, int64_t res)
{
	struct xd_sys *sys = sys_of(call);

	assert(engine->started > 0);
	engine->started--;
	if (sys->op == XD_SYS_POLL && res == -ECANCELED && !engine->ending) {
		/* The kernel ends the polls of a thread that exits; the main
		 * thread goes on with those of a lane that has ended. */
		DL_DELETE(engine->polls, call);
		hand_over(engine, call);
		return;
	}
	if (sys->op == XD_SYS_POLL)
		DL_DELETE(engine->polls, call);
	engine->in_cancelled = engine->ending && res == -ECANCELED;
	sys->done(sys, res);
	engine->in_cancelled = false;
}

/* Those that a done() starts now wait for the next round, even when they are
 * due already: a timer of 0 ns must not keep us here. */
static int run_timers(struct engine *engine)
{
	struct call *call;
	uint64_t now;
	int n = 0;

	if (!engine->timers)
		return 0;
	for (now = now_ns(); engine->timers; n++) {
		call = engine->timers;
		if (call->deadline > now)
			break;
		DL_DELETE(engine->timers, call);
		sys_of(call)->done(sys_of(call), 0);
	}
	return n;
}

static uint64_t until_timer(const struct engine *engine, uint64_t wait_ns)
{
	uint64_t now;

	if (!engine->timers || wait_ns == 0)
		return wait_ns;
	now = now_ns();
	if (engine->timers->deadline <= now)
		return 0;
	return MIN(wait_ns, engine->timers->deadline - now);
}

static void rest(void)
{
	(void)nanosleep(&(struct timespec){ .tv_nsec = RETRY_NS }, NULL);
}

int engine_run(struct engine *engine, uint64_t wait_ns)
{
	int n, timers;

	n = engine->ops->run(engine, until_timer(engine, wait_ns));
	/* Whoever calls this comes again at once, and it may fail for good. */
	if (n < 0 && wait_ns > 0)
		rest();
	timers = run_timers(engine);
	if (n == -EAGAIN)
		n = 0;
	return n < 0 ? n : n + timers;
}

void engine_wake(struct engine *engine)
{
	uint64_t one = 1;
	ssize_t n;

	/* EAGAIN: the counter is full, so it is awake enough. */
	do
		n = write(engine->wake_fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
}

void engine_drain_wake(struct engine *engine)
{
	uint64_t count;
	ssize_t n;

	do
		n = read(engine->wake_fd, &count, sizeof(count));
	while (n < 0 && errno == EINTR);
}

static void cancel_timers(struct engine *engine)
{
	struct call *call;

	while ((call = engine->timers)) {
		DL_DELETE(engine->timers, call);
		engine->in_cancelled = true;
		sys_of(call)->done(sys_of(call), -ECANCELED);
		engine->in_cancelled = false;
	}
}

/* A poll that has seen something just now may go on once more: its owner does
 * not know yet. */
void engine_cancel(struct engine *engine)
{
	struct call *call, *next;

	engine->ending = true;
	cancel_timers(engine);
	while (engine->started > 0) {
		DL_FOREACH_SAFE(engine->polls, call, next)
			engine->ops->cancel(engine, call);
		/* Most polls have ended already, and nothing would wake us. */
		if (engine->started > 0)
			(void)engine->ops->run(engine, CANCEL_RETRY_NS);
		cancel_timers(engine);
	}
	engine->ending = false;
}
