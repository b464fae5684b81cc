/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git.h - a disk in a git repository: git.c opens it, git-io.c and git-change.c
 * serve it, jobs.c does what may wait, client.c talks with the committer.
 */
#ifndef XENDISK_GIT_GIT_H
#define XENDISK_GIT_GIT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base.h"
#include "live.h"
#include "overlay-map.h"
#include "view.h"
#include "xendisk-backend.h"

#define GIT_LANES   8u
#define GIT_THREADS 3u
/* Bytes of inflated chunks in memory. */
#define GIT_CACHE (32u << 20)
/* What is in a pack between the contents of two chunks: never more. */
#define GIT_GAP 64u

struct client;
struct git_job;
struct git_lane;

/* Threads that may wait, and what they are to do. */
struct git_jobs {
	pthread_t threads[GIT_THREADS];
	unsigned int nr;
	pthread_mutex_t lock; /* of all below, and of finished jobs */
	pthread_cond_t news;
	struct git_job *first, *last;
	bool stop;
	struct asker asker;
	char bad[WHY_MAX]; /* the first chunk that could not be read, or "" */
};

/* Writes wait in their lanes while it is closed. */
struct git_gate {
	pthread_mutex_t lock;
	pthread_cond_t news;
	atomic_bool closed; /* changed with the lock */
	struct git_lane *lanes[GIT_LANES]; /* those that are open */
};

/* disk->data */
struct git {
	struct xd_disk *disk;
	struct view_slot views;
	struct git_jobs jobs;
	struct git_gate gate;
	struct client *client;
	struct live live; /* of one that is written to */
	bool in_memory; /* the layers: a file system without anything below */
	int wake[GIT_LANES]; /* eventfds: an isolated worker makes none */
	uint64_t charged; /* bytes taken by xd_budget() */
	unsigned int channels;
};

/* ch->data */
struct git_lane {
	struct xd_channel *ch;
	struct git *git;
	int wake; /* borrowed */
	struct xd_sys poll;
	struct view *view; /* the current one, as far as this lane knows */
	unsigned int sequence;
	bool nowait[2]; /* by enum xd_op: the page cache can be asked */
	atomic_uint changing; /* requests under way that are no reads */
	struct xd_request *held, *held_last; /* what waits for the gate */
	struct git_job *finished; /* jobs.lock */
	struct git_flush *awake; /* jobs.lock: flushes that go on */
	uint8_t gap[GIT_GAP]; /* what nobody wants to have read */
	unsigned int way; /* to make zeroes: the best that was not refused */
	void *zeroes; /* GIT_ZEROES bytes of the kernel's zero page */
};
#define GIT_ZEROES (1u << 20)

/* --- A system call, until all of it is done: git-io.c -------------------------- */

struct git_xfer {
	struct xd_sys sys;
	struct git_lane *lane;
	struct iovec *rest; /* ours to change and to free, or NULL */
	void (*done)(struct git_xfer *xfer, int err);
};

/* READV or WRITEV of length bytes; at once, if that is possible without waiting.
 * own: iov, if it was allocated and is to be freed; or NULL. */
void git_xfer_start(struct git_xfer *xfer, struct git_lane *lane,
		    enum xd_sys_op op, int fd, uint64_t offset,
		    const struct iovec *iov, unsigned int iovcnt,
		    uint64_t length, struct iovec *own);

/* req->scratch */
struct git_io {
	struct git_xfer xfer;
	struct view *view; /* counted */
	union {
		struct xd_request *next; /* held */
		struct { /* READ */
			unsigned int pending;
			int err;
		};
		uint64_t end; /* DISCARD, ZERO: of the last piece */
	};
};
_Static_assert(sizeof(struct git_io) <= XD_SCRATCH, "scratch is too small");

static inline struct git_io *git_io_of(struct xd_request *req)
{
	return (struct git_io *)(void *)req->scratch;
}

struct xd_request *git_request_of(struct git_io *io);
static inline struct git *git_of(const struct xd_channel *ch)
{
	return ch->disk->data;
}

/* From which layer the next sectors come, NULL: the base; and how many. */
struct layer *git_find_run(const struct view *view, uint64_t first,
			   uint64_t end, uint64_t *ret_n);
/* Is there another view now? */
void git_look_at_view(struct git_lane *lane);
void git_submit(struct xd_channel *ch, struct xd_request *req);
int git_channel_open(struct xd_channel *ch);
void git_channel_close(struct xd_channel *ch);

/* --- git-change.c: WRITE, DISCARD, ZERO, FLUSH ---------------------------------- */

void git_change(struct git_lane *lane, struct xd_request *req);
/* The lane has been woken. */
void git_change_go_on(struct git_lane *lane);
/* Another thread's.  From close to open no write is under way and none begins;
 * within this time, or it is opened again: -ETIMEDOUT. */
int git_gate_close(struct git *git, unsigned int ms);
void git_gate_open(struct git *git);

/* --- git-extents.c ---------------------------------------------------------------- */

void git_extents(struct xd_channel *ch, struct xd_request *req);

/* --- jobs.c ------------------------------------------------------------------------ */

/* Where bytes of a request go. */
struct git_cursor {
	const struct iovec *iov;
	size_t skip;
};
/* bytes NULL: zeroes. */
void git_cursor_put(struct git_cursor *cursor, const uint8_t *bytes,
		    uint64_t n);

/* Something that has to be found out about a chunk, and to be read. */
struct git_job {
	struct git_job *next;
	struct git_lane *lane;
	struct base *base; /* borrowed */
	uint64_t chunk;
	uint32_t from; /* in the chunk */
	uint32_t length; /* bytes; 0: only where it is */
	struct git_cursor to;
	int err;
	bool put; /* it was read; else where it is, is known now */
	void (*done)(struct git_job *job); /* on the lane */
};

void git_job_start(struct git_job *job);
void git_jobs_init(struct git_jobs *jobs);
void git_jobs_destroy(struct git_jobs *jobs);
/* Main thread, isolated already. */
int git_jobs_run(struct git *git);
void git_jobs_stop(struct git *git);
void git_jobs_finish(struct git_lane *lane); /* calls done() of what is */

#endif
