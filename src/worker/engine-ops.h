/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine-ops.h - what engine.c, its two implementations (engine-uring.c,
 * engine-threads.c) and what these have in common (engine-poll.c, engine-pool.c)
 * share.  For them only.
 */
#ifndef XENDISK_ENGINE_OPS_H
#define XENDISK_ENGINE_OPS_H

#include <poll.h>

#include "common/util.h"
#include "worker/engine.h"

/* A call under way: what an engine keeps in xd_sys.host. */
struct call {
	struct call *prev, *next; /* of polls and timers, for utlist.h */
	struct call *behind; /* in a fifo */
	union {
		uint64_t deadline; /* a timer's, by now_ns() */
		int64_t res; /* the implementation's */
	};
};

_Static_assert(sizeof(struct call) == sizeof(((struct xd_sys *)0)->host),
	       "a call must fit into what xd_sys sets aside for it");

struct engine_ops {
	/* -errno: this engine cannot be had here. */
	int (*create)(unsigned int entries, struct engine **ret);
	/* Nothing is under way. */
	void (*destroy)(struct engine *engine);

	/* Takes a call that is no timer.  Cannot fail. */
	void (*start)(struct engine *engine, struct call *call);

	/* Waits at most wait_ns for something to have completed or for
	 * wake_fd to be written; reports by engine_done().  Returns how many
	 * were reported, or -errno; -EAGAIN: the kernel is short of memory. */
	int (*run)(struct engine *engine, uint64_t wait_ns);

	/* Sees to it that a poll ends soon, by engine_done() in run().  Is
	 * called again for one that does not. */
	void (*cancel)(struct engine *engine, struct call *poll);
};

/* Each implementation's own struct begins with it. */
struct engine {
	const struct engine_ops *ops;
	int wake_fd; /* eventfd, not blocking */
	struct call *timers; /* the first to fire in front */
	struct call *polls; /* in any order */
	unsigned int started; /* calls that ops->start() has and that are not
			       * done */
	bool ending; /* engine_cancel() runs */
	bool in_cancelled; /* in the done() of a call that it cancelled */
};

extern const struct engine_ops engine_uring_ops;
extern const struct engine_ops engine_threads_ops;

/* Calls in the order they came. */
struct fifo {
	struct call *head, *tail;
};

static inline void fifo_push(struct fifo *fifo, struct call *call)
{
	call->behind = NULL;
	if (fifo->head)
		fifo->tail->behind = call;
	else
		fifo->head = call;
	fifo->tail = call;
}

static inline struct call *fifo_pop(struct fifo *fifo)
{
	struct call *call = fifo->head;

	if (call)
		fifo->head = call->behind;
	return call;
}

/* All of `more` goes behind what is there. */
static inline void fifo_append(struct fifo *fifo, struct fifo *more)
{
	if (!more->head)
		return;
	if (fifo->head)
		fifo->tail->behind = more->head;
	else
		fifo->head = more->head;
	fifo->tail = more->tail;
	more->head = NULL;
}

static inline struct call *call_of(struct xd_sys *sys)
{
	return (struct call *)(void *)sys->host;
}

static inline struct xd_sys *sys_of(struct call *call)
{
	return container_of(call, struct xd_sys, host);
}

/* Implementations: a call that was started is over.  The caller has taken it
 * off its own lists, since the call may start again right away. */
void engine_done(struct engine *engine, struct call *call, int64_t res);

/* Implementations: wake_fd was readable. */
void engine_drain_wake(struct engine *engine);

/* Implementations: a list of descriptors for ppoll(). */
struct engine_polls {
	struct pollfd *fds; /* wake_fd, then engine->polls in their order */
	unsigned int nr_fds; /* room */
};

int engine_polls_init(struct engine_polls *polls);
void engine_polls_destroy(struct engine_polls *polls);
/* Waits for wake_fd and all of engine->polls, and reports these.  Returns how
 * many were reported, or -errno. */
int engine_polls_wait(struct engine *engine, struct engine_polls *polls,
		      uint64_t wait_ns);

#endif
