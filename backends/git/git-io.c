/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-io.c - reading, and what all requests of a git disk have in common.
 *
 * Theory of operation
 *
 * A request holds the view that its lane knew when it began.  A read goes through
 * it from the front: the next bytes are in the newest layer that has them, else
 * in the base: all zero, stored in a pack, or neither, and then a job for a
 * thread.  What lies behind each other in one file becomes one piece, which is one
 * system call; in a pack also with a few bytes in between that nobody wants,
 * the headers of blocks and objects.  Most reads are a single piece out of one
 * layer, and these need no memory.
 *
 *   git_submit -> plan -> piece ... piece -> piece_done -> read_put
 *		        `-> job ... job_done -> plan of that chunk
 *
 * What is marked in a layer stays there, so that it does not matter if a lane
 * writes while another one makes its plan.
 *
 * All of it belongs to the lane; state lives in the request's scratch.
 */
#include "config.h"

#include <assert.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#include "at-once.h"
#include "common/util.h"
#include "git.h"

#define PIECE_IOVS 64u

struct piece {
	struct git_xfer xfer;
	struct xd_request *req;
	uint64_t end; /* in the file */
	unsigned int nr;
	struct iovec iov[PIECE_IOVS];
};

/* While a request is taken apart. */
struct plan {
	struct git_lane *lane;
	struct xd_request *req;
	const struct view *view;
	struct git_cursor to;
	struct piece *piece; /* that is not started yet; or NULL */
	int fd; /* its file */
	uint64_t from; /* its first byte there */
};

struct xd_request *git_request_of(struct git_io *io)
{
	return container_of((unsigned char *)io, struct xd_request, scratch[0]);
}

/* --- One system call ------------------------------------------------------------ */

static void end_xfer(struct git_xfer *xfer, int err)
{
	free(TAKE_PTR(xfer->rest));
	xfer->done(xfer, err);
}

/* Leaves out the first n bytes, which are done.  False: no memory. */
static bool advance(struct git_xfer *xfer, size_t n)
{
	struct xd_sys *sys = &xfer->sys;
	struct iovec *iov;

	if (!xfer->rest) {
		xfer->rest = malloc(sys->iovcnt * sizeof(*iov));
		if (!xfer->rest)
			return false;
		memcpy(xfer->rest, sys->iov, sys->iovcnt * sizeof(*iov));
		sys->iov = xfer->rest;
	}
	sys->offset += n;
	sys->length -= n;
	while (n >= sys->iov->iov_len && sys->iovcnt > 1) {
		n -= sys->iov->iov_len;
		sys->iov++;
		sys->iovcnt--;
	}
	iov = xfer->rest + (sys->iov - xfer->rest); /* sys->iov, writable */
	iov->iov_base = (char *)iov->iov_base + n;
	iov->iov_len -= n;
	return true;
}

/* Nothing ends early, unless a file was cut. */
static void xfer_done(struct xd_sys *sys, int64_t res)
{
	struct git_xfer *xfer = container_of(sys, struct git_xfer, sys);

	if (res >= 0 && (uint64_t)res == sys->length)
		end_xfer(xfer, 0);
	else if (res <= 0 && res != -EINTR)
		end_xfer(xfer, res ? (int)res : -EIO);
	else if (res > 0 && !advance(xfer, (size_t)res))
		end_xfer(xfer, -ENOMEM);
	else
		xd_sys(xfer->lane->ch, sys);
}

void git_xfer_start(struct git_xfer *xfer, struct git_lane *lane,
		    enum xd_sys_op op, int fd, uint64_t offset,
		    const struct iovec *iov, unsigned int iovcnt,
		    uint64_t length, struct iovec *own)
{
	size_t n;

	xfer->lane = lane;
	xfer->rest = own;
	xfer->sys = (struct xd_sys){ .op = op,
				     .fd = fd,
				     .offset = offset,
				     .iov = iov,
				     .iovcnt = iovcnt,
				     .length = length,
				     .done = xfer_done };
	/* Packs may be elsewhere, and then it is only slower. */
	n = at_once(&xfer->sys, lane->git->in_memory,
		    &lane->nowait[op == XD_SYS_WRITEV ? XD_WRITE : XD_READ]);
	if (n > 0)
		xfer_done(&xfer->sys, (int64_t)n);
	else
		xd_sys(lane->ch, &xfer->sys);
}

/* --- Pieces ---------------------------------------------------------------------- */

static void read_put(struct xd_request *req, int err)
{
	struct git_io *io = git_io_of(req);

	if (io->err == 0)
		io->err = err;
	if (--io->pending > 0)
		return;
	err = io->err;
	view_put(io->view);
	xd_complete(req, err);
}

static void piece_done(struct git_xfer *xfer, int err)
{
	struct piece *piece = container_of(xfer, struct piece, xfer);
	struct xd_request *req = piece->req;

	free(piece);
	read_put(req, err);
}

static void start_piece(struct plan *plan)
{
	struct piece *piece = TAKE_PTR(plan->piece);

	if (!piece)
		return;
	git_io_of(piece->req)->pending++;
	piece->xfer.done = piece_done;
	git_xfer_start(&piece->xfer, plan->lane, XD_SYS_READV, plan->fd,
		       plan->from, piece->iov, piece->nr,
		       piece->end - plan->from, NULL);
}

/* Room for an iovec of what comes from there, with what is to be left out before
 * it.  -ENOMEM. */
static int continue_piece(struct plan *plan, int fd, uint64_t at)
{
	struct piece *piece = plan->piece;

	if (piece && plan->fd == fd && at >= piece->end &&
	    at - piece->end <= GIT_GAP && piece->nr + 2 <= PIECE_IOVS) {
		if (at > piece->end)
			piece->iov[piece->nr++] =
				(struct iovec){ plan->lane->gap,
						at - piece->end };
		piece->end = at;
		return 0;
	}
	start_piece(plan);
	piece = malloc(sizeof(*piece));
	if (!piece)
		return -ENOMEM;
	piece->req = plan->req;
	piece->nr = 0;
	piece->end = at;
	plan->piece = piece;
	plan->fd = fd;
	plan->from = at;
	return 0;
}

/* The request's next n bytes are there in a file. */
static int add_bytes(struct plan *plan, int fd, uint64_t at, uint64_t n)
{
	struct git_cursor *to = &plan->to;
	int r = 0;

	while (n > 0 && r == 0) {
		struct piece *piece;
		size_t part;

		r = continue_piece(plan, fd, at);
		if (r < 0)
			break;
		piece = plan->piece;
		part = (size_t)MIN(n, to->iov->iov_len - to->skip);
		piece->iov[piece->nr++] =
			(struct iovec){ (char *)to->iov->iov_base + to->skip,
					part };
		to->skip += part;
		if (to->skip == to->iov->iov_len) {
			to->iov++;
			to->skip = 0;
		}
		piece->end += part;
		at += part;
		n -= part;
	}
	return r;
}

/* --- The base ----------------------------------------------------------------------- */

struct read_job {
	struct git_job job;
	struct xd_request *req;
	uint64_t offset; /* of the disk */
};

static int plan_base(struct plan *plan, uint64_t offset, uint64_t n);

static void job_done(struct git_job *job)
{
	struct read_job *read = container_of(job, struct read_job, job);
	struct xd_request *req = read->req;
	struct plan plan = { .lane = job->lane,
			     .req = req,
			     .view = git_io_of(req)->view,
			     .to = job->to };
	int err = job->err;

	/* Where it is, is known now. */
	if (err == 0 && !job->put)
		err = plan_base(&plan, read->offset, job->length);
	start_piece(&plan);
	free(read);
	read_put(req, err);
}

static void skip_bytes(struct git_cursor *cursor, uint64_t n)
{
	while (n > 0) {
		uint64_t part = MIN(n, cursor->iov->iov_len - cursor->skip);

		n -= part;
		cursor->skip += part;
		if (cursor->skip == cursor->iov->iov_len) {
			cursor->iov++;
			cursor->skip = 0;
		}
	}
}

static int start_job(struct plan *plan, uint64_t offset, uint64_t n)
{
	struct read_job *read = malloc(sizeof(*read));
	uint32_t chunk = base_disk(plan->view->base)->chunk;

	if (!read)
		return -ENOMEM;
	*read = (struct read_job){
		.job = { .lane = plan->lane,
			 .base = plan->view->base,
			 .chunk = offset / chunk,
			 .from = (uint32_t)(offset % chunk),
			 .length = (uint32_t)n,
			 .to = plan->to,
			 .done = job_done },
		.req = plan->req,
		.offset = offset,
	};
	skip_bytes(&plan->to, n);
	git_io_of(plan->req)->pending++;
	git_job_start(&read->job);
	return 0;
}

/* Over the headers of blocks. */
static int add_stored(struct plan *plan, const struct where *where,
		      uint32_t from, uint64_t n)
{
	int r = 0;

	while (n > 0 && r == 0) {
		uint32_t block = from / STORED_BLOCK;
		uint64_t part =
			MIN(n, (uint64_t)(block + 1) * STORED_BLOCK - from);

		r = add_bytes(plan, where->fd,
			      where->at + from + (uint64_t)block * STORED_HEAD,
			      part);
		from += (uint32_t)part;
		n -= part;
	}
	return r;
}

/* n bytes, all of one chunk. */
static int plan_chunk(struct plan *plan, uint64_t offset, uint64_t n)
{
	struct base *base = plan->view->base;
	uint32_t size = base_disk(base)->chunk;
	uint32_t from = (uint32_t)(offset % size);
	const struct object *object;
	struct where where = base_where(base, offset / size);

	switch (where.kind) {
	case WHERE_ZERO:
		git_cursor_put(&plan->to, NULL, n);
		return 0;
	case WHERE_STORED:
		return add_stored(plan, &where, from, n);
	case WHERE_CACHED:
		object = base_cached(base, offset / size);
		if (!object)
			break;
		git_cursor_put(&plan->to, object->data + from, n);
		base_uncache(base, object);
		return 0;
	case WHERE_UNKNOWN:
		break;
	}
	return start_job(plan, offset, n);
}

/* Behind the end that the disk had in the commit there are zeroes. */
static int plan_base(struct plan *plan, uint64_t offset, uint64_t n)
{
	const struct git_disk *disk = base_disk(plan->view->base);
	uint64_t end = offset + n;
	uint64_t known = MAX(offset, MIN(end, disk->size));
	int r = 0;

	while (offset < known && r == 0) {
		uint64_t part =
			MIN(known - offset, disk->chunk - offset % disk->chunk);

		r = plan_chunk(plan, offset, part);
		offset += part;
	}
	if (r == 0 && end > known)
		git_cursor_put(&plan->to, NULL, end - known);
	return r;
}

/* --- Layers over it ------------------------------------------------------------------- */

struct layer *git_find_run(const struct view *view, uint64_t first,
			   uint64_t end, uint64_t *ret_n)
{
	for (unsigned int i = 0; i < view->nr; i++) {
		bool set;
		uint64_t n = layer_run(view->layers[i], first, end, &set);

		end = first + n;
		if (set) {
			*ret_n = n;
			return view->layers[i];
		}
	}
	*ret_n = end - first;
	return NULL;
}

static void read_done(struct git_xfer *xfer, int err)
{
	struct git_io *io = container_of(xfer, struct git_io, xfer);

	view_put(io->view);
	xd_complete(git_request_of(io), err);
}

static void plan_read(struct git_lane *lane, struct xd_request *req)
{
	struct git_io *io = git_io_of(req);
	struct plan plan = { .lane = lane,
			     .req = req,
			     .view = io->view,
			     .to = { .iov = req->iov } };
	uint64_t end = (req->offset + req->length) / LAYER_SECTOR;
	uint64_t n;
	int r = 0;

	io->pending = 1;
	io->err = 0;
	for (uint64_t at = req->offset / LAYER_SECTOR; at < end && r == 0;
	     at += n) {
		struct layer *layer = git_find_run(io->view, at, end, &n);

		if (layer)
			r = add_bytes(&plan, layer_data_fd(layer),
				      at * LAYER_SECTOR, n * LAYER_SECTOR);
		else
			r = plan_base(&plan, at * LAYER_SECTOR,
				      n * LAYER_SECTOR);
	}
	start_piece(&plan);
	read_put(req, r);
}

static void git_read(struct git_lane *lane, struct xd_request *req)
{
	struct git_io *io = git_io_of(req);
	uint64_t first = req->offset / LAYER_SECTOR, n;
	struct layer *layer;

	io->view = view_get(lane->view);
	layer = git_find_run(io->view, first,
			     first + req->length / LAYER_SECTOR, &n);
	if (!layer || n * LAYER_SECTOR < req->length) {
		plan_read(lane, req);
		return;
	}
	io->xfer.done = read_done;
	git_xfer_start(&io->xfer, lane, XD_SYS_READV, layer_data_fd(layer),
		       req->offset, req->iov, req->iovcnt, req->length, NULL);
}

/* --- The lane ---------------------------------------------------------------------------- */

void git_look_at_view(struct git_lane *lane)
{
	struct view_slot *slot = &lane->git->views;

	if (atomic_load(&slot->sequence) == lane->sequence)
		return;
	view_put(lane->view);
	lane->view = view_slot_get(slot, &lane->sequence);
}

void git_submit(struct xd_channel *ch, struct xd_request *req)
{
	struct git_lane *lane = ch->data;

	git_look_at_view(lane);
	if (req->op == XD_READ)
		git_read(lane, req);
	else
		git_change(lane, req);
}

static void on_wake(struct xd_sys *sys, int64_t res);

static void arm(struct git_lane *lane)
{
	lane->poll = (struct xd_sys){ .op = XD_SYS_POLL,
				      .fd = lane->wake,
				      .flags = POLLIN,
				      .done = on_wake };
	xd_sys(lane->ch, &lane->poll);
}

static void on_wake(struct xd_sys *sys, int64_t res)
{
	struct git_lane *lane = container_of(sys, struct git_lane, poll);
	uint64_t count;

	if (res == -ECANCELED) /* the channel closes */
		return;
	(void)!read(lane->wake, &count, sizeof(count));
	git_look_at_view(lane);
	git_jobs_finish(lane);
	git_change_go_on(lane);
	arm(lane);
}

static struct git_lane *new_lane(struct xd_channel *ch)
{
	struct git *git = git_of(ch);
	struct git_lane *lane = calloc(1, sizeof(*lane));

	if (!lane)
		return NULL;
	lane->zeroes = mmap(NULL, GIT_ZEROES, PROT_READ,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (lane->zeroes == MAP_FAILED) {
		free(lane);
		return NULL;
	}
	lane->ch = ch;
	lane->git = git;
	lane->wake = git->wake[ch->lane];
	lane->nowait[XD_READ] = lane->nowait[XD_WRITE] = true;
	return lane;
}

int git_channel_open(struct xd_channel *ch)
{
	struct git *git = git_of(ch);
	struct git_lane *lane;
	int r = git->channels == 0 ? git_jobs_run(git) : 0;

	if (r < 0)
		return r;
	lane = new_lane(ch);
	if (!lane) {
		if (git->channels == 0)
			git_jobs_stop(git);
		return -ENOMEM;
	}
	git->channels++;
	ch->data = lane;
	pthread_mutex_lock(&git->gate.lock);
	git->gate.lanes[ch->lane] = lane;
	pthread_mutex_unlock(&git->gate.lock);
	arm(lane);
	return 0;
}

/* No request is there any more. */
void git_channel_close(struct xd_channel *ch)
{
	struct git *git = git_of(ch);
	struct git_lane *lane = ch->data;

	assert(!lane->held && lane->changing == 0);
	pthread_mutex_lock(&git->gate.lock);
	git->gate.lanes[ch->lane] = NULL;
	pthread_cond_broadcast(&git->gate.news);
	pthread_mutex_unlock(&git->gate.lock);
	if (--git->channels == 0)
		git_jobs_stop(git);
	view_put(lane->view);
	(void)munmap(lane->zeroes, GIT_ZEROES);
	free(lane);
}
