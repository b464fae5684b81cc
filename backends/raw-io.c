/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw-io.c - the data path of raw.
 *
 * A burst's adjacent reads, or writes, are gathered into a run: one system
 * call with the iovecs of all of them.  One run is open at a time; a request
 * that does not continue it, and the end of the burst, start it.  A guest that
 * reads ahead or writes out sends its requests in order, so more is not needed.
 *
 *   submit -> run_append ... run_start -> (page cache at once, or xd_sys)
 *          -> run_done -> xd_complete of each
 *
 * What does not go through whole is taken apart: each request of the run is
 * started again alone, so that an error meets only the request it belongs to.
 * Alone, a short count is continued.  Starting again is safe: reads and writes
 * of the same bytes may be repeated until they are answered.
 *
 * DISCARD and ZERO go piece by piece, since punching a hole holds up the
 * other writes to the file.
 *
 * With cache=writethrough a change that has been made waits for a sync that begins
 * after it, and shares that with all others that wait.  O_DSYNC would not do: the
 * kernel tells once that it has lost writes, however many, and whoever syncs first is
 * told.  Of two writes that are lost at a time one would be answered as if it were
 * durable.  So one sync runs at a time, and if it fails, no change that has been begun
 * by then is believed: each fails like it, and is its owner's to try again.  For this
 * such a disk has one lane.
 *
 * All of it belongs to the lane.  State lives in the scratch of the request
 * (of a run: of its first request).
 */
#include "config.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>

#include "at-once.h"
#include "common/util.h"
#include "raw.h"

/* The longest run: a few requests of a guest with indirect segments. */
#define RUN_BYTES    (4u << 20)
#define RUN_IOVECS   1024u /* UIO_MAXIOV */
#define HOLE_BYTES   (256u << 20)
#define ZEROES_BYTES (1u << 20)

/* How XD_ZERO is done; each falls back on the next. */
enum zero_way { ZERO_PUNCH, ZERO_RANGE, ZERO_WRITE };

/* Changes of a disk that is written through. */
struct through {
	struct xd_sys sync;
	struct xd_channel *ch;
	struct xd_request *made; /* wait for a sync that begins from now on */
	struct xd_request *syncing; /* for the one that runs; NULL: none does */
	unsigned int making; /* begun, and not made yet */
	int lost; /* why a sync failed, until none of those that were being made
		   * then is left; no other begins before that */
	bool burst; /* the sync is to begin at its end */
};

/* ch->data */
struct raw_lane {
	struct xd_request *first, *last; /* the open run */
	unsigned int iovcnt;
	uint64_t length;
	/* The page cache can be asked without blocking; by enum xd_op. */
	bool nowait[2];
	enum zero_way way; /* the best that was not refused */
	bool looked; /* in this burst: at the end of the file */
	void *zeroes; /* ZEROES_BYTES of the kernel's zero page */
	struct through through;
};

/* req->scratch */
struct raw_io {
	struct xd_sys sys;
	struct xd_channel *ch;
	struct xd_request *next; /* READ, WRITE: in the run; made, syncing */
	union {
		struct iovec *iov; /* READ, WRITE: ours; NULL: the request's */
		struct iovec zeroes; /* ZERO_WRITE */
	};
	uint64_t end; /* DISCARD, ZERO: where the last piece ends */
	enum zero_way way;
};
_Static_assert(sizeof(struct raw_io) <= XD_SCRATCH, "scratch is too small");
_Static_assert(XD_READ == 0 && XD_WRITE == 1, "they index nowait[]");

static struct raw_io *io_of(struct xd_request *req)
{
	return (struct raw_io *)(void *)req->scratch;
}

static struct raw_io *io_of_sys(struct xd_sys *sys)
{
	return container_of(sys, struct raw_io, sys);
}

static struct xd_request *request_of(struct raw_io *io)
{
	return container_of((unsigned char *)io, struct xd_request, scratch[0]);
}

static struct raw *raw_of(const struct xd_channel *ch)
{
	return ch->disk->data;
}

static void io_prepare(struct xd_request *req, struct xd_channel *ch)
{
	struct raw_io *io = io_of(req);

	*io = (struct raw_io){
		.sys.fd = raw_of(ch)->fd,
		.ch = ch,
	};
}

/* --- Written through ------------------------------------------------------ */

static void through_end(struct xd_request *made, int err)
{
	struct xd_request *next;

	for (; made; made = next) {
		next = io_of(made)->next;
		xd_complete(made, err);
	}
}

static void through_synced(struct xd_sys *sys, int64_t res);

static void through_sync(struct through *through)
{
	if (through->syncing || through->burst || !through->made)
		return;
	through->syncing = TAKE_PTR(through->made);
	through->sync.op = XD_SYS_FDATASYNC;
	through->sync.fd = raw_of(through->ch)->fd;
	through->sync.done = through_synced;
	xd_sys(through->ch, &through->sync);
}

static void through_synced(struct xd_sys *sys, int64_t res)
{
	struct through *through = container_of(sys, struct through, sync);

	if (res == -EINTR) {
		xd_sys(through->ch, sys);
		return;
	}
	through_end(TAKE_PTR(through->syncing), (int)res);
	if (res < 0) {
		through_end(TAKE_PTR(through->made), (int)res);
		through->lost = through->making > 0 ? (int)res : 0;
	}
	through_sync(through);
}

static bool is_through(const struct xd_channel *ch,
		       const struct xd_request *req)
{
	return raw_of(ch)->sync && (req->op == XD_WRITE || req->op == XD_ZERO);
}

/* 0, or why it cannot begin. */
static int through_begin(struct through *through)
{
	if (through->lost)
		return through->lost;
	through->making++;
	through->burst = true;
	return 0;
}

/* What was asked for has been done, or has failed. */
static void io_complete(struct xd_request *req, int err)
{
	struct raw_io *io = io_of(req);
	struct raw_lane *lane = io->ch->data;
	struct through *through = &lane->through;

	if (is_through(io->ch, req)) {
		err = err ? err : through->lost;
		if (--through->making == 0)
			through->lost = 0;
		if (err == 0) {
			io->next = through->made;
			through->made = req;
			through_sync(through);
			return;
		}
	}
	xd_complete(req, err);
}

/* --- READ and WRITE ------------------------------------------------------ */

static void run_complete(struct xd_request *first, int err)
{
	struct xd_request *next;

	free(io_of(first)->iov);
	for (struct xd_request *req = first; req; req = next) {
		next = io_of(req)->next;
		io_complete(req, err);
	}
}

/* All iovecs of a run, one after the other. */
static struct iovec *run_gather(struct xd_request *first, unsigned int iovcnt)
{
	struct iovec *iov = malloc(iovcnt * sizeof(*iov));
	unsigned int n = 0;

	if (!iov)
		return NULL;
	for (struct xd_request *req = first; req; req = io_of(req)->next) {
		memcpy(iov + n, req->iov, req->iovcnt * sizeof(*iov));
		n += req->iovcnt;
	}
	return iov;
}

/* Leaves out the first n bytes, which are done.  False: no memory. */
static bool io_advance(struct xd_request *req, size_t n)
{
	struct raw_io *io = io_of(req);
	struct xd_sys *sys = &io->sys;
	struct iovec *iov;

	if (!io->iov) {
		io->iov = run_gather(req, sys->iovcnt);
		if (!io->iov)
			return false;
		sys->iov = io->iov;
	}
	sys->offset += n;
	sys->length -= n;
	while (n >= sys->iov->iov_len && sys->iovcnt > 1) {
		n -= sys->iov->iov_len;
		sys->iov++;
		sys->iovcnt--;
	}
	iov = io->iov + (sys->iov - io->iov); /* sys->iov, writable */
	iov->iov_base = (char *)iov->iov_base + n;
	iov->iov_len -= n;
	return true;
}

static void run_start(struct xd_request *first, unsigned int iovcnt,
		      uint64_t length);

/* Each request of the run again, alone. */
static void run_split(struct xd_request *first)
{
	struct xd_request *next;

	free(io_of(first)->iov);
	for (struct xd_request *req = first; req; req = next) {
		next = io_of(req)->next;
		io_prepare(req, io_of(req)->ch);
		run_start(req, req->iovcnt, req->length);
	}
}

/* Within the capacity nothing may end early: the file has been cut. */
static void run_done(struct xd_sys *sys, int64_t res)
{
	struct raw_io *io = io_of_sys(sys);
	struct xd_request *first = request_of(io);

	if (res >= 0 && (uint64_t)res == sys->length)
		run_complete(first, 0);
	else if (io->next)
		run_split(first);
	else if (res <= 0 && res != -EINTR)
		run_complete(first, res ? (int)res : -EIO);
	else if (res > 0 && !io_advance(first, (size_t)res))
		run_complete(first, -ENOMEM);
	else
		xd_sys(io->ch, sys);
}

static void run_start(struct xd_request *first, unsigned int iovcnt,
		      uint64_t length)
{
	struct raw_io *io = io_of(first);
	struct raw_lane *lane = io->ch->data;
	size_t n;

	if (io->next) {
		io->iov = run_gather(first, iovcnt);
		if (!io->iov) {
			run_split(first);
			return;
		}
	}
	io->sys.op = first->op == XD_READ ? XD_SYS_READV : XD_SYS_WRITEV;
	io->sys.flags =
		first->flags & XD_FUA && !raw_of(io->ch)->sync ? RWF_DSYNC : 0;
	io->sys.offset = first->offset;
	io->sys.length = length;
	io->sys.iov = io->iov ? io->iov : first->iov;
	io->sys.iovcnt = iovcnt;
	io->sys.done = run_done;
	n = at_once(&io->sys, raw_of(io->ch)->in_memory,
		    &lane->nowait[first->op]);
	if (n > 0)
		run_done(&io->sys, (int64_t)n);
	else
		xd_sys(io->ch, &io->sys);
}

/* Starts the open run, if there is one. */
static void run_end(struct raw_lane *lane)
{
	struct xd_request *first = TAKE_PTR(lane->first);

	if (first)
		run_start(first, lane->iovcnt, lane->length);
}

static bool run_continues(const struct raw_lane *lane,
			  const struct xd_request *req)
{
	const struct xd_request *last = lane->last;

	return lane->first && last->op == req->op &&
	       last->flags == req->flags &&
	       last->offset + last->length == req->offset &&
	       lane->length + req->length <= RUN_BYTES &&
	       lane->iovcnt + req->iovcnt <= RUN_IOVECS;
}

static void run_append(struct raw_lane *lane, struct xd_request *req)
{
	if (run_continues(lane, req)) {
		io_of(lane->last)->next = req;
	} else {
		run_end(lane);
		lane->first = req;
		lane->iovcnt = 0;
		lane->length = 0;
	}
	lane->last = req;
	lane->iovcnt += req->iovcnt;
	lane->length += req->length;
}

/* --- FLUSH --------------------------------------------------------------- */

static void sync_done(struct xd_sys *sys, int64_t res)
{
	struct raw_io *io = io_of_sys(sys);

	if (res == -EINTR)
		xd_sys(io->ch, sys);
	else
		xd_complete(request_of(io), (int)res);
}

static void sync_start(struct raw_io *io)
{
	io->sys.op = XD_SYS_FDATASYNC;
	io->sys.done = sync_done;
	xd_sys(io->ch, &io->sys);
}

/* --- DISCARD and ZERO ---------------------------------------------------- */

static void hole_done(struct xd_sys *sys, int64_t res);

static int hole_flags(const struct xd_request *req, enum zero_way way)
{
	if (req->op == XD_ZERO && way == ZERO_RANGE)
		return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
}

/* Nothing is left to do. */
static void hole_end(struct raw_io *io)
{
	struct xd_request *req = request_of(io);

	if (req->flags & XD_FUA && !raw_of(io->ch)->sync)
		sync_start(io);
	else
		io_complete(req, 0);
}

static void write_zeroes(struct raw_io *io, uint64_t left)
{
	const struct raw_lane *lane = io->ch->data;

	io->zeroes.iov_base = lane->zeroes;
	io->zeroes.iov_len = MIN(left, ZEROES_BYTES);
	io->sys.op = XD_SYS_WRITEV;
	io->sys.flags = 0;
	io->sys.iov = &io->zeroes;
	io->sys.iovcnt = 1;
	io->sys.length = io->zeroes.iov_len;
}

/* The piece at io->sys.offset. */
static void hole_next(struct raw_io *io)
{
	uint64_t left = io->end - io->sys.offset;

	if (left == 0) {
		hole_end(io);
		return;
	}
	if (io->way == ZERO_WRITE) {
		write_zeroes(io, left);
	} else {
		io->sys.op = XD_SYS_FALLOCATE;
		io->sys.flags = hole_flags(request_of(io), io->way);
		io->sys.length = MIN(left, HOLE_BYTES);
	}
	io->sys.done = hole_done;
	xd_sys(io->ch, &io->sys);
}

/* To write is the way that is left, and is not wanted. */
static bool is_too_slow(struct raw_io *io)
{
	return io->way == ZERO_WRITE && request_of(io)->flags & XD_FAST;
}

/* The way was refused: for good, or for this range, which may be unaligned. */
static bool next_way(struct raw_io *io, int64_t res)
{
	struct raw_lane *lane = io->ch->data;

	if (request_of(io)->op != XD_ZERO || io->way == ZERO_WRITE)
		return false;
	if (res != -EOPNOTSUPP && res != -ENOSYS && res != -EINVAL)
		return false;
	io->way++;
	if (res != -EINVAL)
		lane->way = MAX(lane->way, io->way);
	return !is_too_slow(io);
}

static void hole_done(struct xd_sys *sys, int64_t res)
{
	struct raw_io *io = io_of_sys(sys);

	if (sys->op == XD_SYS_FALLOCATE && res == 0)
		res = (int64_t)sys->length;
	if (res > 0)
		sys->offset += (uint64_t)res;
	else if (res == 0)
		res = -EIO; /* a write that writes nothing */
	if (res > 0 || res == -EINTR || next_way(io, res))
		hole_next(io);
	else
		io_complete(request_of(io),
			    is_too_slow(io) ? -EOPNOTSUPP : (int)res);
}

/* Rounds inwards: a partial block would be written, not freed. */
static void discard_start(struct raw_io *io, const struct xd_limits *limits)
{
	struct xd_request *req = request_of(io);
	uint64_t unit = limits->discard_granularity;
	uint64_t phase = limits->discard_alignment % unit;
	uint64_t end = req->offset + req->length;
	uint64_t from =
		ALIGN_UP(req->offset + unit - phase, unit) + phase - unit;

	/* The last block of a file may be a partial one. */
	if (end < limits->size)
		end = end < phase ? 0 : (end - phase) / unit * unit + phase;
	if (from >= end) {
		xd_complete(req, 0);
		return;
	}
	io->sys.offset = from;
	io->end = end;
	hole_next(io);
}

static void zero_start(struct raw_io *io)
{
	struct xd_request *req = request_of(io);
	struct raw_lane *lane = io->ch->data;

	io->way = lane->way;
	if ((req->flags & XD_NO_HOLE) || raw_of(io->ch)->keep_space)
		io->way = MAX(io->way, ZERO_RANGE);
	io->sys.offset = req->offset;
	io->end = req->offset + req->length;
	if (is_too_slow(io))
		io_complete(req, -EOPNOTSUPP);
	else
		hole_next(io);
}

/* --- A file that has shrunk ---------------------------------------------- */

/*
 * Beyond its end a read gives nothing, which is an error anyway; but a write
 * would make it longer again, and leave zeroes in between that nobody has
 * written.  So the file is asked before the first change of each burst, where
 * that costs next to nothing; elsewhere resize() looks every few seconds.
 */
static bool is_cut_off(struct xd_channel *ch, const struct xd_request *req)
{
	struct raw_lane *lane = ch->data;
	struct raw *raw = raw_of(ch);
	struct stat st;

	if (raw->is_local && req->op != XD_READ && !lane->looked) {
		lane->looked = true;
		if (fstat(raw->fd, &st) == 0)
			raw_set_end(raw, (uint64_t)st.st_size);
	}
	return req->offset + req->length >
	       __atomic_load_n(&raw->end, __ATOMIC_RELAXED);
}

/* --- What the host calls ------------------------------------------------- */

void raw_submit(struct xd_channel *ch, struct xd_request *req)
{
	struct raw_lane *lane = ch->data;
	int err = 0;

	io_prepare(req, ch);
	if (req->op != XD_FLUSH && is_cut_off(ch, req))
		err = -EIO;
	else if (is_through(ch, req))
		err = through_begin(&lane->through);
	if (err) {
		xd_complete(req, err);
		return;
	}
	switch (req->op) {
	case XD_READ:
	case XD_WRITE:
		run_append(lane, req);
		break;
	case XD_FLUSH:
		sync_start(io_of(req));
		break;
	case XD_DISCARD:
		discard_start(io_of(req), &ch->disk->limits);
		break;
	case XD_ZERO:
		zero_start(io_of(req));
		break;
	case XD_EXTENTS: /* raw_extents() */
		break;
	}
}

void raw_kick(struct xd_channel *ch)
{
	struct raw_lane *lane = ch->data;

	run_end(lane);
	lane->looked = false;
	lane->through.burst = false;
	through_sync(&lane->through);
}

int raw_channel_open(struct xd_channel *ch)
{
	const struct raw *raw = raw_of(ch);
	struct raw_lane *lane = calloc(1, sizeof(*lane));

	if (!lane)
		return -ENOMEM;
	lane->zeroes = mmap(NULL, ZEROES_BYTES, PROT_READ,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (lane->zeroes == MAP_FAILED) {
		free(lane);
		return -ENOMEM;
	}
	lane->nowait[XD_READ] = !raw->direct;
	lane->nowait[XD_WRITE] = !raw->direct;
	lane->through.ch = ch;
	ch->data = lane;
	return 0;
}

void raw_channel_close(struct xd_channel *ch)
{
	struct raw_lane *lane = ch->data;

	assert(!lane->first && !lane->through.syncing);
	(void)munmap(lane->zeroes, ZEROES_BYTES);
	free(lane);
}
