/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-change.c - writing to a git disk, and making it durable.
 *
 * Theory of operation
 *
 * What is written goes to the active layer, where it stands at its own offset, and
 * is marked when it is there, before the guest has its answer: for the next worker
 * first (live.h), then for whoever reads.  A worker that is killed in between
 * leaves the old content to be seen, and the write to be repeated.  What is
 * discarded must not come to light again from below, so it is a hole that is
 * marked, and zeroing is the same.
 *
 * A flush makes data, then map durable, in the steps of overlay-map.h.  Nothing
 * of it waits on the lane: another lane's flush that is saving the map wakes us
 * through the eventfd.
 *
 * The gate: a snapshot takes what is there when nothing is being written.  While
 * it is closed, requests that change something wait in their lanes, and those that
 * are under way are waited for.  Reads go on.
 */
#include "config.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <time.h>

#include "common/crash.h"
#include "common/util.h"
#include "git.h"

#define HOLE_BYTES (256u << 20)

/* --- Beginning and ending ----------------------------------------------------------- */

/* One less is under way. */
static void leave(struct git_lane *lane)
{
	struct git_gate *gate = &lane->git->gate;

	if (atomic_fetch_sub(&lane->changing, 1) != 1 ||
	    !atomic_load(&gate->closed))
		return;
	pthread_mutex_lock(&gate->lock);
	pthread_cond_broadcast(&gate->news);
	pthread_mutex_unlock(&gate->lock);
}

/*
 * One more is, if the gate is open.  Counted first, asked then, while whoever
 * closes it does the reverse: one of the two sees the other.  Only then the view
 * is the right one.
 */
static bool enter(struct git_lane *lane)
{
	atomic_fetch_add(&lane->changing, 1);
	if (!atomic_load(&lane->git->gate.closed)) {
		git_look_at_view(lane);
		return true;
	}
	leave(lane);
	return false;
}

static void end_change(struct git_io *io, int err)
{
	struct git_lane *lane = io->xfer.lane;

	view_put(io->view);
	leave(lane);
	xd_complete(git_request_of(io), err);
}

static const struct xd_request *asked(const struct git_io *io)
{
	return git_request_of((struct git_io *)(uintptr_t)io);
}

static struct layer *layer_of(const struct git_io *io)
{
	return io->view->layers[0];
}

/* --- FLUSH ------------------------------------------------------------------------------ */

struct git_flush {
	struct layer_flush flush;
	struct xd_sys sys;
	struct git_io *io;
	/* jobs.lock */
	struct git_flush *next; /* in lane->awake */
	bool awake; /* it is there */
};

static void next_step(struct git_flush *f, enum layer_step step);

static void step_done(struct xd_sys *sys, int64_t res)
{
	struct git_flush *f = container_of(sys, struct git_flush, sys);

	next_step(f, layer_flush_next(&f->flush, res));
}

/* By any thread, and more than once before it goes on. */
static void wake_up(struct layer_flush *flush)
{
	struct git_flush *f = flush->owner;
	struct git_lane *lane = f->io->xfer.lane;
	const uint64_t one = 1;

	pthread_mutex_lock(&lane->git->jobs.lock);
	if (!f->awake) {
		f->next = lane->awake;
		lane->awake = f;
		f->awake = true;
	}
	(void)!write(lane->wake, &one, sizeof(one));
	pthread_mutex_unlock(&lane->git->jobs.lock);
}

/* It goes on, so that nobody wakes it any more; somebody just may have. */
static void wakes_no_more(struct git_flush *f)
{
	struct git_lane *lane = f->io->xfer.lane;
	struct git_flush **p = &lane->awake;

	pthread_mutex_lock(&lane->git->jobs.lock);
	while (f->awake && *p != f)
		p = &(*p)->next;
	if (f->awake)
		*p = f->next;
	f->awake = false;
	pthread_mutex_unlock(&lane->git->jobs.lock);
}

static void go_on(struct git_flush *f)
{
	enum layer_step step = layer_flush_next(&f->flush, 0);

	if (step == LAYER_WAIT)
		return;
	wakes_no_more(f);
	next_step(f, step);
}

/* No space for the map passes: the flush waits for it (-EAGAIN), as a write does.
 * After a failed fdatasync() nothing is tried again. */
static int flush_result(const struct git_flush *f)
{
	int err = f->flush.err;

	if ((err == -ENOSPC || err == -EDQUOT || err == -ENOMEM) &&
	    git_request_of(f->io)->op == XD_FLUSH &&
	    layer_flush_may_retry(&f->flush))
		return -EAGAIN;
	return err;
}

static void next_step(struct git_flush *f, enum layer_step step)
{
	const struct layer_flush *flush = &f->flush;

	f->sys = (struct xd_sys){ .fd = flush->fd, .done = step_done };
	switch (step) {
	case LAYER_DONE:
		end_change(f->io, flush_result(f));
		free(f);
		return;
	case LAYER_SYNC:
		f->sys.op = XD_SYS_FDATASYNC;
		break;
	case LAYER_WRITE:
		f->sys.op = XD_SYS_WRITEV;
		f->sys.iov = flush->iov;
		f->sys.iovcnt = flush->iovcnt;
		f->sys.offset = flush->offset;
		f->sys.length = flush->length;
		f->sys.flags = flush->dsync ? RWF_DSYNC : 0;
		break;
	case LAYER_WAIT:
		return;
	}
	xd_sys(f->io->xfer.lane->ch, &f->sys);
}

static void flush_start(struct git_io *io)
{
	struct git_flush *f = calloc(1, sizeof(*f));

	if (!f) {
		end_change(io, -ENOMEM);
		return;
	}
	f->io = io;
	f->flush.wake = wake_up;
	f->flush.owner = f;
	f->flush.can_dsync = true;
	next_step(f, layer_flush_begin(&f->flush, layer_of(io)));
}

/* --- WRITE -------------------------------------------------------------------------------- */

/* Is all of it in the active layer already? */
static bool is_marked(const struct git_io *io, uint64_t first, uint64_t end)
{
	bool set;

	return layer_run(layer_of(io), first, end, &set) == end - first && set;
}

/* It is in the data file. */
static void mark(struct git_io *io)
{
	struct xd_request *req = git_request_of(io);
	uint64_t first = req->offset / LAYER_SECTOR;
	uint64_t end = first + req->length / LAYER_SECTOR;
	int r = 0;

	CRASH_POINT(git_written);
	if (!is_marked(io, first, end)) {
		r = live_mark(&io->xfer.lane->git->live, first, end);
		CRASH_POINT(git_kept);
		if (r == 0)
			r = layer_mark(layer_of(io), first, end);
	}
	CRASH_POINT(git_marked);
	if (r == 0 && req->flags & XD_FUA)
		flush_start(io);
	else
		end_change(io, r);
}

static void write_done(struct git_xfer *xfer, int err)
{
	struct git_io *io = container_of(xfer, struct git_io, xfer);

	if (err)
		end_change(io, err);
	else
		mark(io);
}

static void write_start(struct git_lane *lane, struct git_io *io)
{
	const struct xd_request *req = git_request_of(io);

	io->xfer.done = write_done;
	git_xfer_start(&io->xfer, lane, XD_SYS_WRITEV,
		       layer_data_fd(layer_of(io)), req->offset, req->iov,
		       req->iovcnt, req->length, NULL);
}

/* --- DISCARD and ZERO ------------------------------------------------------------------- */

/* How it is done; each falls back on the next. */
enum zero_way { ZERO_PUNCH, ZERO_RANGE, ZERO_WRITE };

static void zero_next(struct git_io *io);

static enum zero_way way_of(const struct git_io *io)
{
	const struct xd_request *req = asked(io);
	enum zero_way least = req->flags & XD_NO_HOLE ? ZERO_RANGE : ZERO_PUNCH;

	return MAX(least, (enum zero_way)io->xfer.lane->way);
}

static void zero_end(struct git_io *io, int err)
{
	if (err)
		end_change(io, err);
	else
		mark(io);
}

static void zeroes_written(struct git_xfer *xfer, int err)
{
	struct git_io *io = container_of(xfer, struct git_io, xfer);

	/* After a short count this is of the rest. */
	xfer->sys.offset += xfer->sys.length;
	if (err)
		zero_end(io, err);
	else
		zero_next(io);
}

/* What no file system refuses. */
static void write_zeroes(struct git_io *io)
{
	struct git_lane *lane = io->xfer.lane;
	uint64_t at = io->xfer.sys.offset;
	struct iovec *iov = malloc(sizeof(*iov));

	if (!iov) {
		zero_end(io, -ENOMEM);
		return;
	}
	*iov = (struct iovec){ lane->zeroes, MIN(io->end - at, GIT_ZEROES) };
	io->xfer.done = zeroes_written;
	git_xfer_start(&io->xfer, lane, XD_SYS_WRITEV,
		       layer_data_fd(layer_of(io)), at, iov, 1, iov->iov_len,
		       iov);
}

/* The way was refused: for good, or for this range. */
static bool next_way(struct git_io *io, int64_t res)
{
	const struct xd_request *req = git_request_of(io);
	struct git_lane *lane = io->xfer.lane;

	if (res != -EOPNOTSUPP && res != -ENOSYS)
		return false;
	lane->way = way_of(io) + 1;
	return !(req->flags & XD_FAST && lane->way == ZERO_WRITE);
}

static void hole_done(struct xd_sys *sys, int64_t res)
{
	struct git_xfer *xfer = container_of(sys, struct git_xfer, sys);
	struct git_io *io = container_of(xfer, struct git_io, xfer);

	if (res == 0)
		sys->offset += sys->length;
	if (res == 0 || res == -EINTR || next_way(io, res))
		zero_next(io);
	else
		zero_end(io, (int)res);
}

/* Piece by piece, for it holds up the other writes to the file. */
static void zero_next(struct git_io *io)
{
	struct xd_sys *sys = &io->xfer.sys;
	enum zero_way way = way_of(io);

	if (sys->offset == io->end) {
		zero_end(io, 0);
		return;
	}
	if (way == ZERO_WRITE) {
		write_zeroes(io);
		return;
	}
	sys->op = XD_SYS_FALLOCATE;
	sys->fd = layer_data_fd(layer_of(io));
	sys->flags = FALLOC_FL_KEEP_SIZE |
		     (way == ZERO_RANGE ? FALLOC_FL_ZERO_RANGE :
					  FALLOC_FL_PUNCH_HOLE);
	sys->length = MIN(io->end - sys->offset, HOLE_BYTES);
	sys->done = hole_done;
	xd_sys(io->xfer.lane->ch, sys);
}

static void zero_start(struct git_io *io)
{
	const struct xd_request *req = git_request_of(io);

	io->xfer.sys.offset = req->offset;
	io->end = req->offset + req->length;
	if (req->flags & XD_FAST && way_of(io) == ZERO_WRITE)
		end_change(io, -EOPNOTSUPP);
	else
		zero_next(io);
}

/* --- The gate ------------------------------------------------------------------------------ */

/* It has entered. */
static void start(struct git_lane *lane, struct xd_request *req)
{
	struct git_io *io = git_io_of(req);

	*io = (struct git_io){ .xfer.lane = lane };
	io->view = view_get(lane->view);
	switch (req->op) {
	case XD_WRITE:
		write_start(lane, io);
		break;
	case XD_DISCARD:
	case XD_ZERO:
		zero_start(io);
		break;
	case XD_FLUSH:
		flush_start(io);
		break;
	case XD_READ: /* git-io.c, git-extents.c */
	case XD_EXTENTS:
		break;
	}
}

void git_change(struct git_lane *lane, struct xd_request *req)
{
	struct git_io *io = git_io_of(req);

	/* Those that are held go first, so that each gets its turn. */
	if (!lane->held && enter(lane)) {
		start(lane, req);
		return;
	}
	io->next = NULL;
	if (lane->held)
		git_io_of(lane->held_last)->next = req;
	else
		lane->held = req;
	lane->held_last = req;
}

static struct git_flush *next_awake(struct git_lane *lane)
{
	struct git_flush *f;

	pthread_mutex_lock(&lane->git->jobs.lock);
	f = lane->awake;
	if (f) {
		lane->awake = f->next;
		f->awake = false;
	}
	pthread_mutex_unlock(&lane->git->jobs.lock);
	return f;
}

void git_change_go_on(struct git_lane *lane)
{
	struct git_flush *f;

	while ((f = next_awake(lane)))
		go_on(f);
	while (lane->held && enter(lane)) {
		struct xd_request *req = lane->held;

		lane->held = git_io_of(req)->next;
		start(lane, req);
	}
}

static void wake_lanes(struct git *git)
{
	const uint64_t one = 1;

	for (unsigned int i = 0; i < GIT_LANES; i++)
		if (git->gate.lanes[i])
			(void)!write(git->wake[i], &one, sizeof(one));
}

/* With the lock. */
static bool all_drained(const struct git_gate *gate)
{
	for (unsigned int i = 0; i < GIT_LANES; i++)
		if (gate->lanes[i] && atomic_load(&gate->lanes[i]->changing))
			return false;
	return true;
}

int git_gate_close(struct git *git, unsigned int ms)
{
	struct git_gate *gate = &git->gate;
	struct timespec until;
	int r = 0;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	pthread_mutex_lock(&gate->lock);
	atomic_store(&gate->closed, true);
	while (r == 0 && !all_drained(gate))
		r = -pthread_cond_timedwait(&gate->news, &gate->lock, &until);
	pthread_mutex_unlock(&gate->lock);
	if (r < 0)
		git_gate_open(git);
	return r;
}

void git_gate_open(struct git *git)
{
	pthread_mutex_lock(&git->gate.lock);
	atomic_store(&git->gate.closed, false);
	wake_lanes(git);
	pthread_mutex_unlock(&git->gate.lock);
}
