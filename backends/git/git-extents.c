/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-extents.c - where a git disk has data.
 *
 * What a layer has is asked of its data file, by lseek(SEEK_DATA), then
 * (SEEK_HOLE), as raw-extents.c does it: where it has a hole there are zeroes.
 * Chunks of the base are zero or not; one of which that is not known yet is looked
 * up by a thread.  After MAX_STEPS of both the answer ends.
 *
 * No space is kept for zeroes anywhere, so all of them are holes.
 */
#include "config.h"

#include "common/util.h"
#include "git.h"

#define MAX_STEPS 64u
#define HOLE	  (XD_EXTENT_HOLE | XD_EXTENT_ZERO)

struct query {
	struct git_lane *lane;
	struct view *view;
	struct xd_request *req;
	uint64_t at, end;
	uint64_t run; /* where what we are in ends */
	unsigned int steps;
	union {
		struct xd_sys sys; /* in a layer */
		struct git_job job; /* in the base */
	};
};

static void next(struct query *q);

static void finish(struct query *q, int err)
{
	struct xd_request *req = q->req;

	view_put(q->view);
	free(q);
	xd_complete(req, err);
}

/* What lies from where we are up to there.  False: that is all. */
static bool tell(struct query *q, uint64_t to, uint32_t flags)
{
	uint64_t length = to - q->at;

	q->at = to;
	return (length == 0 || xd_extent(q->req, length, flags)) &&
	       q->at < q->end;
}

static void seek_done(struct xd_sys *sys, int64_t res)
{
	struct query *q = container_of(sys, struct query, sys);
	bool hole = sys->flags == SEEK_DATA; /* until the data that it found */
	uint64_t to = res < 0 ? q->run : MIN((uint64_t)res, q->run);

	/* No more data in the file; or it cannot tell, and all is data. */
	if (res < 0 && res != -ENXIO)
		hole = false;
	if (!tell(q, MAX(to, q->at), hole ? HOLE : 0) || res == -EIO) {
		finish(q, 0);
	} else if (res >= 0 && hole && q->at < q->run) {
		q->sys.flags = SEEK_HOLE;
		q->sys.offset = q->at;
		q->steps++;
		xd_sys(q->lane->ch, &q->sys);
	} else {
		next(q);
	}
}

static void in_layer(struct query *q, const struct layer *layer)
{
	q->sys = (struct xd_sys){ .op = XD_SYS_SEEK,
				  .fd = layer_data_fd(layer),
				  .flags = SEEK_DATA,
				  .offset = q->at,
				  .done = seek_done };
	xd_sys(q->lane->ch, &q->sys);
}

static void looked_up(struct git_job *job)
{
	struct query *q = container_of(job, struct query, job);

	/* A chunk that cannot be read is told of as data. */
	if (job->err == 0 || tell(q, q->run, 0))
		next(q);
	else
		finish(q, 0);
}

/* False: it goes on later, or has ended. */
static bool in_base(struct query *q)
{
	const struct git_disk *disk = base_disk(q->view->base);
	uint64_t chunk = q->at / disk->chunk;
	enum where_kind kind = WHERE_ZERO; /* behind the end it had then */
	uint64_t to = q->run;

	if (q->at < disk->size) {
		to = MIN(MIN(to, (chunk + 1) * disk->chunk), disk->size);
		kind = base_where(q->view->base, chunk).kind;
	}
	q->run = to;
	if (kind == WHERE_UNKNOWN) {
		q->job = (struct git_job){ .lane = q->lane,
					   .base = q->view->base,
					   .chunk = chunk,
					   .done = looked_up };
		git_job_start(&q->job);
		return false;
	}
	if (tell(q, to, kind == WHERE_ZERO ? HOLE : 0))
		return true;
	finish(q, 0);
	return false;
}

static void next(struct query *q)
{
	struct layer *layer;
	uint64_t n;

	do {
		if (q->steps++ >= MAX_STEPS) {
			finish(q, 0);
			return;
		}
		layer = git_find_run(q->view, q->at / LAYER_SECTOR,
				     q->end / LAYER_SECTOR, &n);
		q->run = q->at + n * LAYER_SECTOR;
		if (layer) {
			in_layer(q, layer);
			return;
		}
	} while (in_base(q));
}

void git_extents(struct xd_channel *ch, struct xd_request *req)
{
	struct git_lane *lane = ch->data;
	struct query *q = calloc(1, sizeof(*q));

	if (!q) {
		xd_complete(req, -ENOMEM);
		return;
	}
	git_look_at_view(lane);
	q->lane = lane;
	q->view = view_get(lane->view);
	q->req = req;
	q->at = req->offset;
	q->end = req->offset + req->length;
	next(q);
}
