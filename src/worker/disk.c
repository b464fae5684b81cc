/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk.c - requests on their way through the stack.
 *
 * A request is one of:
 *
 *	IDLE	its owner's
 *	GIVEN	with the layer `at`, which may hand it one layer down
 *	LENT	mapped: the owner copies, then calls xd_unmap()
 *	DONE	completed, in its lane's queue
 *
 * Completing only puts it into the queue; stack_reap() makes it IDLE and calls
 * done().  So no layer is entered again from within its own submit(), however
 * fast the layers below are, and the stack is not as deep as a burst is long.
 *
 * What comes to a layer is checked here against its limits, with assert(): the
 * guest's requests were judged in blkif.c, so a bad one is our own bug (or a
 * filter's), and to go on would write to the wrong place.
 *
 * All of it runs on the lane.
 */
#include "config.h"

#include "worker/disk.h"

#include <assert.h>

#include "worker/stack.h"
#include "worker/written.h"

enum state { IDLE, GIVEN, LENT, DONE };

/* What xd_request.host holds; all 0 in a new request. */
struct progress {
	struct host_channel *at; /* the layer that has it */
	struct xd_request *next; /* in a queue */
	int err;
	enum state state;
	bool is_child; /* made by xd_child() */
};

_Static_assert(sizeof(struct progress) <=
		       sizeof(((struct xd_request *)0)->host),
	       "the host's part of a request must fit");

static struct progress *progress_of(struct xd_request *req)
{
	return (struct progress *)(void *)req->host;
}

/* --- The contract --------------------------------------------------------- */

static void check_range(const struct xd_limits *limits,
			const struct xd_request *req)
{
	assert(req->length > 0);
	assert(req->offset % limits->sector_size == 0);
	assert(req->length % limits->sector_size == 0);
	assert(req->offset <= limits->size);
	assert(req->length <= limits->size - req->offset);
}

/* The memory is known from the start, except where it is lent by map(). */
static void check_memory(const struct xd_limits *limits,
			 const struct xd_request *req, bool lent)
{
	uint64_t sum = 0;

	assert(!limits->max_transfer || req->length <= limits->max_transfer);
	if (lent)
		return;
	for (unsigned int i = 0; i < req->iovcnt; i++)
		sum += req->iov[i].iov_len;
	assert(sum == req->length);
}

static void check_flags(const struct xd_limits *limits,
			const struct xd_request *req)
{
	bool writes = req->op == XD_WRITE || req->op == XD_ZERO;

	assert(!(req->flags & ~(XD_FUA | XD_NO_HOLE | XD_FAST)));
	assert(!(req->flags & XD_FUA) || (writes && limits->fua));
	assert(!(req->flags & XD_NO_HOLE) || req->op == XD_ZERO);
	assert(!(req->flags & XD_FAST) ||
	       (req->op == XD_ZERO && limits->fast_zero));
}

static void check_request(const struct xd_limits *limits,
			  const struct xd_request *req, bool lent)
{
	check_flags(limits, req);
	switch (req->op) {
	case XD_READ:
		check_range(limits, req);
		check_memory(limits, req, lent);
		return;
	case XD_WRITE:
		assert(!limits->readonly);
		check_range(limits, req);
		check_memory(limits, req, lent);
		return;
	case XD_FLUSH:
		assert(req->offset == 0 && req->length == 0);
		return;
	case XD_DISCARD:
		assert(!limits->readonly && limits->discard_granularity);
		check_range(limits, req);
		return;
	case XD_ZERO:
		assert(!limits->readonly && limits->zero);
		check_range(limits, req);
		return;
	case XD_EXTENTS:
		assert(req->extents && req->extents->max > 0);
		check_range(limits, req);
		return;
	}
	assert(false);
}

/* --- Down ----------------------------------------------------------------- */

/* What a layer does not know is data. */
static void submit_extents(struct xd_channel *ch, struct xd_request *req)
{
	extents_begin(req);
	if (ch->disk->backend->extents)
		ch->disk->backend->extents(ch, req);
	else
		xd_complete(req, 0);
}

void xd_submit(struct xd_channel *ch, struct xd_request *req)
{
	struct host_channel *hc = host_channel_of(ch);
	struct progress *progress = progress_of(req);

	assert(progress->state == IDLE ||
	       (progress->state == GIVEN && progress->at == hc->above));
	check_request(&ch->disk->limits, req, false);
	progress->state = GIVEN;
	progress->at = hc;
	/* "needs no flush" is an answer too. */
	if (req->op == XD_FLUSH && !ch->disk->limits.flush) {
		xd_complete(req, 0);
		return;
	}
	hc->lane->unkicked = true;
	if (written_by(hc, req))
		written_begin(hc);
	if (req->op == XD_EXTENTS)
		submit_extents(ch, req);
	else
		ch->disk->backend->submit(ch, req);
}

bool xd_extent(struct xd_request *req, uint64_t length, uint32_t flags)
{
	const struct progress *progress = progress_of(req);

	assert(progress->state == GIVEN && req->op == XD_EXTENTS);
	return extents_add(req, progress->at->ch.disk->limits.sector_size,
			   length, flags);
}

int xd_map(struct xd_channel *ch, struct xd_request *req, struct iovec *ret_iov,
	   unsigned int *io_iovcnt)
{
	struct host_channel *hc = host_channel_of(ch);
	struct progress *progress = progress_of(req);
	struct progress before = *progress;
	unsigned int nr = *io_iovcnt;
	uint64_t sum = 0;
	int r;

	if (!ch->disk->backend->map)
		return -EOPNOTSUPP;
	assert(before.state == IDLE ||
	       (before.state == LENT && before.at == hc->above));
	assert(req->op == XD_READ || req->op == XD_WRITE);
	check_request(&ch->disk->limits, req, true);
	progress->state = LENT;
	progress->at = hc;
	r = ch->disk->backend->map(ch, req, ret_iov, &nr);
	if (r != 0) {
		assert(r < 0);
		*progress = before;
		return r;
	}
	assert(nr <= *io_iovcnt);
	for (unsigned int i = 0; i < nr; i++)
		sum += ret_iov[i].iov_len;
	assert(sum == req->length);
	*io_iovcnt = nr;
	return 0;
}

void xd_unmap(struct xd_channel *ch, struct xd_request *req, int err)
{
	const struct host_channel *hc = host_channel_of(ch);
	struct progress *progress = progress_of(req);

	assert(progress->state == LENT && err <= 0);
	ch->disk->backend->unmap(ch, req, err);
	if (!hc->above)
		progress->state = IDLE;
}

void xd_sys(struct xd_channel *ch, struct xd_sys *sys)
{
	engine_sys(host_channel_of(ch)->lane->engine, sys);
}

/* --- Children ------------------------------------------------------------- */

#define CHILDREN_PER_BLOCK 32

struct child_block {
	struct child_block *next;
	struct xd_request child[CHILDREN_PER_BLOCK];
};

static void put_child(struct stack_lane *lane, struct xd_request *child)
{
	progress_of(child)->next = lane->spare;
	lane->spare = child;
}

static bool more_children(struct stack_lane *lane)
{
	struct child_block *block = calloc(1, sizeof(*block));

	if (!block)
		return false;
	block->next = lane->blocks;
	lane->blocks = block;
	for (unsigned int i = 0; i < CHILDREN_PER_BLOCK; i++)
		put_child(lane, &block->child[i]);
	return true;
}

void disk_free_children(struct stack_lane *lane)
{
	struct child_block *block;

	while ((block = lane->blocks)) {
		lane->blocks = block->next;
		free(block);
	}
	lane->spare = NULL;
}

struct xd_request *xd_child(struct xd_channel *ch, struct xd_request *parent)
{
	struct stack_lane *lane = host_channel_of(ch)->lane;
	struct xd_request *child;

	if (!lane->spare && !more_children(lane))
		return NULL;
	child = lane->spare;
	lane->spare = progress_of(child)->next;
	child->flags = 0;
	child->offset = 0;
	child->length = 0;
	child->iov = NULL;
	child->iovcnt = 0;
	child->extents = NULL;
	child->owner = parent;
	*progress_of(child) = (struct progress){ .is_child = true };
	return child;
}

/* --- Up ------------------------------------------------------------------- */

void xd_complete(struct xd_request *req, int err)
{
	struct progress *progress = progress_of(req);
	struct stack_lane *lane = progress->at->lane;

	assert(progress->state == GIVEN && err <= 0);
	if (req->op == XD_EXTENTS && err == 0)
		extents_end(req);
	lane->has_written |= written_by(progress->at, req);
	progress->state = DONE;
	progress->err = err;
	progress->next = NULL;
	if (lane->done_first)
		progress_of(lane->done_last)->next = req;
	else
		lane->done_first = req;
	lane->done_last = req;
}

static void run_done(struct stack_lane *lane, struct xd_request *req)
{
	struct progress *progress = progress_of(req);
	bool is_child = progress->is_child;

	progress->state = IDLE;
	req->done(req, progress->err);
	/* Anybody else's request may be gone by now. */
	if (is_child) {
		assert(progress->state == IDLE);
		put_child(lane, req);
	}
}

void stack_kick(struct xd_channel *top)
{
	struct stack_lane *lane = host_channel_of(top)->lane;

	for (unsigned int i = lane->stack->nr_disks; i-- > 0;) {
		struct xd_channel *ch = &lane->channels[i].ch;

		if (ch->disk->backend->kick)
			ch->disk->backend->kick(ch);
	}
	/* What a kick has submitted went downwards, where the kick came
	 * after it. */
	lane->unkicked = false;
}

void stack_stop(struct xd_channel *top)
{
	struct stack_lane *lane = host_channel_of(top)->lane;

	for (unsigned int i = lane->stack->nr_disks; i-- > 0;) {
		struct xd_channel *ch = &lane->channels[i].ch;

		if (ch->disk->backend->stop)
			ch->disk->backend->stop(ch);
	}
}

unsigned int stack_reap(struct xd_channel *top)
{
	struct stack_lane *lane = host_channel_of(top)->lane;
	struct xd_request *req, *next;
	unsigned int n = 0;

	/* First of all: 0 must mean that nothing is left to do here. */
	if (lane->unkicked)
		stack_kick(top);
	if (lane->has_written)
		written_end(lane);
	/* Only what is there now: what done() completes waits its turn. */
	req = lane->done_first;
	lane->done_first = NULL;
	for (; req; req = next, n++) {
		next = progress_of(req)->next;
		run_done(lane, req);
	}
	return n;
}
