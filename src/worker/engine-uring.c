/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine-uring.c - the engine on io_uring.
 *
 * A call goes straight into the submission queue; when that is full it waits
 * in a list, which engine_run() moves over as room appears, so that no call is
 * ever refused.  One io_uring_enter() per engine_run() submits and waits.  The
 * completion queue cannot lose anything either: the kernel keeps what does not
 * fit (IORING_FEAT_NODROP, demanded).
 *
 * seccomp does not see what a ring does: an isolated worker could still open
 * files through it.  So the ring is born disabled, gets a list of what it may
 * do (restrictions), and only then is enabled; after that nothing can be
 * registered with it either.  Every operation in the list works on descriptors
 * that the worker has anyway.
 *
 * The ring is not bound to one thread (IORING_SETUP_SINGLE_ISSUER,
 * DEFER_TASKRUN): a lane's thread ends with its guest's connection and the
 * next one takes the engine over, while a new ring could not be had any more.
 *
 * While nothing but polls is under way, no kernel ring is needed for them: they
 * stay here, and the lane sleeps in ppoll().  That takes 0.7 us less than to arm
 * a poll, to wait for it and to complete it, and a guest whose requests come
 * one by one pays that for each.  As soon as a call is under way, or the lane
 * does not wait, the polls go into the ring, and stay there until they end.
 *
 * What io_uring has no operation for (lseek) is made by a thread of a pool,
 * which wakes the lane as anybody does.
 *
 * Waking is an eventfd under POLL_ADD and not under READ: a read that loses
 * the race against the ring's end could write into freed memory.
 */
#include "config.h"

#include <assert.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <utlist.h>

#include "worker/engine-pool.h"

/* call->res of a poll */
enum { POLL_HERE, POLL_IN_RING };

/* Polls and timers may be many, and nearly idle: room for their bursts. */
#define CQ_PER_SQ 4

struct uring {
	struct engine engine;
	struct io_uring ring;
	struct fifo waiting; /* no room in the submission queue yet */
	unsigned int in_ring; /* calls, those that wait for room too */
	bool polls_here; /* some polls may not be in the ring */
	bool wake_armed;
	struct engine_polls polls;
	struct engine_pool pool; /* for XD_SYS_SEEK */
};

static struct uring *uring_of(struct engine *engine)
{
	return container_of(engine, struct uring, engine);
}

/* --- Making one ----------------------------------------------------------- */

static const uint8_t allowed_ops[] = {
	IORING_OP_NOP,	    IORING_OP_READV,	 IORING_OP_WRITEV,
	IORING_OP_READ,	    IORING_OP_WRITE,	 IORING_OP_FSYNC,
	IORING_OP_POLL_ADD, IORING_OP_FALLOCATE, IORING_OP_ASYNC_CANCEL,
};

/* By the system call: liburing 2.3 declares io_uring_register_restrictions()
 * and io_uring_enable_rings(), but its shared library lacks them. */
static int ring_register(struct io_uring *ring, unsigned int opcode, void *arg,
			 unsigned int nr)
{
	if (syscall(__NR_io_uring_register, ring->ring_fd, opcode, arg, nr) < 0)
		return -errno;
	return 0;
}

static int restrict_ring(struct io_uring *ring)
{
	struct io_uring_restriction res[ARRAY_SIZE(allowed_ops)];
	int r;

	memset(res, 0, sizeof(res));
	for (size_t i = 0; i < ARRAY_SIZE(allowed_ops); i++) {
		res[i].opcode = IORING_RESTRICTION_SQE_OP;
		res[i].sqe_op = allowed_ops[i];
	}
	r = ring_register(ring, IORING_REGISTER_RESTRICTIONS, res,
			  ARRAY_SIZE(res));
	if (r < 0)
		return r;
	return ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

/* The kernel refuses flags that it is too old for: Linux 5.19, then 5.11. */
static const unsigned int setup_flags[] = {
	IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
		IORING_SETUP_SUBMIT_ALL,
	0,
};

static int setup_ring(struct io_uring *ring, unsigned int entries)
{
	int r = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(setup_flags); i++) {
		struct io_uring_params params = {
			.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP |
				 IORING_SETUP_CQSIZE | setup_flags[i],
			.cq_entries = entries * CQ_PER_SQ,
		};

		r = io_uring_queue_init_params(entries, ring, &params);
		if (r != -EINVAL)
			return r;
	}
	return r;
}

static int uring_create(unsigned int entries, struct engine **ret)
{
	const unsigned int needed = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG |
				    IORING_FEAT_SUBMIT_STABLE;
	cleanup_free struct uring *uring = calloc(1, sizeof(*uring));
	int r;

	if (!uring)
		return -ENOMEM;
	r = setup_ring(&uring->ring, entries);
	if (r < 0)
		return r;
	r = (uring->ring.features & needed) == needed ?
		    restrict_ring(&uring->ring) :
		    -EOPNOTSUPP;
	if (r == 0)
		r = engine_polls_init(&uring->polls);
	if (r < 0) {
		io_uring_queue_exit(&uring->ring);
		return r;
	}
	uring->engine.ops = &engine_uring_ops;
	pool_init(&uring->pool, &uring->engine, 1);
	*ret = &TAKE_PTR(uring)->engine;
	return 0;
}

static void uring_destroy(struct engine *engine)
{
	struct uring *uring = uring_of(engine);

	pool_destroy(&uring->pool);
	io_uring_queue_exit(&uring->ring);
	engine_polls_destroy(&uring->polls);
	free(uring);
}

/* --- Calls into the queue ------------------------------------------------- */

static void prepare(struct io_uring_sqe *sqe, const struct xd_sys *sys)
{
	switch (sys->op) {
	case XD_SYS_READV:
		io_uring_prep_readv2(sqe, sys->fd, sys->iov, sys->iovcnt,
				     sys->offset, sys->flags);
		break;
	case XD_SYS_WRITEV:
		io_uring_prep_writev2(sqe, sys->fd, sys->iov, sys->iovcnt,
				      sys->offset, sys->flags);
		break;
	case XD_SYS_FDATASYNC:
		io_uring_prep_fsync(sqe, sys->fd, IORING_FSYNC_DATASYNC);
		break;
	case XD_SYS_FALLOCATE:
		io_uring_prep_fallocate(sqe, sys->fd, sys->flags,
					(off_t)sys->offset, (off_t)sys->length);
		break;
	case XD_SYS_POLL:
		io_uring_prep_poll_add(sqe, sys->fd, (unsigned int)sys->flags);
		break;
	case XD_SYS_TIMER: /* kept by engine.c */
	case XD_SYS_SEEK: /* the pool's */
		assert(false);
	}
}

static bool push(struct uring *uring, struct call *call)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	if (!sqe)
		return false;
	prepare(sqe, sys_of(call));
	io_uring_sqe_set_data(sqe, call);
	return true;
}

static void into_ring(struct uring *uring, struct call *call)
{
	uring->in_ring++;
	if (uring->waiting.head || !push(uring, call))
		fifo_push(&uring->waiting, call);
}

static void uring_start(struct engine *engine, struct call *call)
{
	struct uring *uring = uring_of(engine);

	if (sys_of(call)->op == XD_SYS_SEEK) {
		pool_start(&uring->pool, call);
		return;
	}
	if (sys_of(call)->op != XD_SYS_POLL) {
		into_ring(uring, call);
		return;
	}
	call->res = POLL_HERE;
	uring->polls_here = true;
}

static void polls_into_ring(struct uring *uring)
{
	struct call *call;

	uring->polls_here = false;
	DL_FOREACH(uring->engine.polls, call) {
		if (call->res == POLL_IN_RING)
			continue;
		call->res = POLL_IN_RING;
		into_ring(uring, call);
	}
}

static bool arm_wake(struct uring *uring)
{
	struct io_uring_sqe *sqe;

	if (uring->wake_armed)
		return true;
	sqe = io_uring_get_sqe(&uring->ring);
	if (!sqe)
		return false;
	io_uring_prep_poll_add(sqe, uring->engine.wake_fd, POLLIN);
	io_uring_sqe_set_data(sqe, uring);
	uring->wake_armed = true;
	return true;
}

/* Fills the queue; true when all that waited is in it now. */
static bool refill(struct uring *uring)
{
	while (uring->waiting.head) {
		if (!push(uring, uring->waiting.head))
			return false;
		(void)fifo_pop(&uring->waiting);
	}
	return arm_wake(uring);
}

/* 0: all is in the queue or with the kernel; else the kernel took no more. */
static int submit_waiting(struct uring *uring)
{
	int r;

	while (!refill(uring)) {
		r = io_uring_submit(&uring->ring);
		if (r <= 0)
			return r < 0 ? r : -EAGAIN;
	}
	return 0;
}

/* A completion without data is that of the cancellation itself. */
static void uring_cancel(struct engine *engine, struct call *poll)
{
	struct uring *uring = uring_of(engine);
	struct io_uring_sqe *sqe;

	if (poll->res == POLL_HERE) {
		engine_done(engine, poll, -ECANCELED);
		return;
	}
	if (submit_waiting(uring) < 0)
		return;
	sqe = io_uring_get_sqe(&uring->ring);
	if (!sqe)
		return;
	io_uring_prep_cancel(sqe, poll, 0);
	io_uring_sqe_set_data(sqe, NULL);
}

/* --- Waiting and completing ----------------------------------------------- */

static int submit_and_wait(struct uring *uring, uint64_t wait_ns)
{
	struct __kernel_timespec ts = {
		.tv_sec = (long long)(wait_ns / 1000000000),
		.tv_nsec = (long long)(wait_ns % 1000000000),
	};
	struct io_uring_cqe *cqe;
	int r;

	r = submit_waiting(uring);
	if (r < 0)
		return r;
	if (wait_ns == 0 || io_uring_cq_ready(&uring->ring) > 0)
		return io_uring_submit(&uring->ring);
	r = io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1,
					     wait_ns == UINT64_MAX ? NULL : &ts,
					     NULL);
	return r == -ETIME ? 0 : r;
}

/* Takes one batch out of the queue before any done() runs. */
static unsigned int complete_batch(struct uring *uring, int *io_n)
{
	struct io_uring_cqe *cqe[32];
	struct call *call[ARRAY_SIZE(cqe)];
	int res[ARRAY_SIZE(cqe)];
	unsigned int nr;

	nr = io_uring_peek_batch_cqe(&uring->ring, cqe, ARRAY_SIZE(cqe));
	for (unsigned int i = 0; i < nr; i++) {
		call[i] = io_uring_cqe_get_data(cqe[i]);
		res[i] = cqe[i]->res;
	}
	io_uring_cq_advance(&uring->ring, nr);
	for (unsigned int i = 0; i < nr; i++) {
		if ((void *)call[i] == uring) {
			uring->wake_armed = false;
			engine_drain_wake(&uring->engine);
		} else if (call[i]) {
			uring->in_ring--;
			engine_done(&uring->engine, call[i], res[i]);
			++*io_n;
		}
	}
	return nr;
}

static int run_ring(struct uring *uring, uint64_t wait_ns)
{
	struct engine *engine = &uring->engine;
	int r, n = 0;

	if (uring->in_ring == 0 && wait_ns > 0)
		return engine_polls_wait(engine, &uring->polls, wait_ns);
	if (uring->polls_here)
		polls_into_ring(uring);
	else if (uring->in_ring == 0)
		return 0;
	r = submit_and_wait(uring, wait_ns);
	while (complete_batch(uring, &n) > 0)
		;
	if (r >= 0 || r == -EINTR || n > 0)
		return n;
	/* The kernel is short of memory: what is under way will end, and what
	 * is queued is tried again by the next run. */
	return r == -EBUSY ? -EAGAIN : r;
}

static int uring_run(struct engine *engine, uint64_t wait_ns)
{
	struct uring *uring = uring_of(engine);
	int n, done;

	if (uring->pool.under_way == 0)
		return run_ring(uring, wait_ns);
	pool_hand_out(&uring->pool);
	if (wait_ns > 0 && !pool_fall_asleep(&uring->pool))
		wait_ns = 0;
	n = run_ring(uring, wait_ns);
	done = pool_finish(&uring->pool);
	return n < 0 && done == 0 ? n : MAX(n, 0) + done;
}

const struct engine_ops engine_uring_ops = {
	.create = uring_create,
	.destroy = uring_destroy,
	.start = uring_start,
	.run = uring_run,
	.cancel = uring_cancel,
};
