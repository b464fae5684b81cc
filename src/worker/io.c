/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io.c - one request's life, from its first step to its last, whether a guest or
 * an NBD client sent it.
 *
 * Theory of operation
 *
 * A request has the steps that it needs.  A step either ends at once or leaves
 * the request in a list of those that wait for the same thing:
 *
 *   LIST       lane.copying      the batch of grant copies
 *   DRAIN      ring.draining     all others of this ring to be answered
 *   LOCK       the table         overlapping writes that came earlier to be
 *                                answered (range.h)
 *              lane.want_begun   those that had begun, in the life before
 *   PREFLUSH   flush.*           see flush.c
 *   DATA       lane.want_buffer  memory
 *              lane.copying      data from or to the guest
 *              (the stack)       the I/O itself
 *              hold.list         an error to pass; then the step begins again
 *              clients.pieces    the next round: an NBD client's next piece
 *   POSTFLUSH  flush.*
 *   (answer)   ring.answers, clients.answers   the end of the round
 *
 * No request waits in a later list while it keeps others from leaving an earlier
 * one, so none waits for ever: one that drains is not in the table, one in the
 * table waits only for those that came before it, and one that waits for memory or
 * a flush has its range already, and waits for none that lacks its own.
 *
 * What is done here is the same for all requests.  Where they come from, how their
 * data gets into this process and out of it, and how they are answered is for
 * io-guest.c (a guest's ring) or io-client.c (an NBD client, whose data has come
 * with the request).  All share one table of ranges and the same flushes.
 *
 * Runs on the lane's thread.  Allocates nothing, blocks on nothing.
 */
#include "worker/io.h"

#include <assert.h>
#include <stdarg.h>

#include "common/crash.h"
#include "common/log.h"
#include "common/util.h"
#include "worker/io-guest.h"
#include "worker/services.h"

/* Bytes.  A DISCARD or ZERO is passed on in pieces of at most this, one after the
 * other, so that it does not keep the storage from everything else. */
#define DATALESS_PIECE (64ull << 20)

/* --- Lists ---------------------------------------------------------------- */

void io_append(struct io_list *list, struct io *io)
{
	io->next = NULL;
	if (list->first)
		list->last->next = io;
	else
		list->first = io;
	list->last = io;
}

struct io *io_pop(struct io_list *list)
{
	struct io *io = list->first;

	if (io)
		list->first = io->next;
	return io;
}

struct io_list io_take_all(struct io_list *list)
{
	struct io_list all = *list;

	list->first = NULL;
	return all;
}

/* --- The steps ------------------------------------------------------------ */

/* After the last of those that had begun, all others may lock their ranges. */
void io_begun_again(struct io *io)
{
	struct io_disk *disk = io->lane->disk;

	CRASH_POINT(begun_again);
	io->begun = false;
	if (atomic_fetch_sub(&disk->nr_begun, 1) != 1)
		return;
	for (unsigned int i = 0; i < disk->nr_lanes; i++)
		io_poke(disk->lanes[i]);
}

static void locked(struct io *io)
{
	io->locked = true;
	CRASH_POINT(range_locked);
	if (!io->client)
		guest_begin(io);
	CRASH_POINT(begun);
	if (io->begun)
		io_begun_again(io);
}

static bool step_lock(struct io *io)
{
	struct io_lane *lane = io->lane;

	/* Requests that had begun go first: a read may have seen their data.  Then
	 * those that wait in want_begun, then this one. */
	if (!io->begun &&
	    (atomic_load(&lane->disk->nr_begun) || lane->want_begun.first)) {
		io_append(&lane->want_begun, io);
		return false;
	}
	io->range.start = io->offset;
	io->range.end = io->offset + io->length;
	io->entered = true;
	if (!range_lock(lane->disk->ranges, &io->range, lane->index))
		return false;
	locked(io);
	return true;
}

void io_has_range(struct io *io)
{
	locked(io);
	io_step_done(io);
}

static bool step_flush(struct io *io)
{
	if (!flush_needed(io->lane->disk))
		return true;
	flush_want(io);
	return false;
}

static void data_submitted(struct xd_request *req, int err);

/* Bytes: how much data one request to the stack may have. */
static uint64_t largest_piece(const struct io *io)
{
	uint64_t most = io->lane->disk->limits->max_transfer;

	if (!most)
		most = UINT64_MAX;
	return io->client ? MIN(most, IO_CLIENT_PIECE) : most;
}

void io_next_piece(struct io *io)
{
	struct io_lane *lane = io->lane;
	const struct xd_limits *limits = lane->disk->limits;
	uint64_t left = io->length - io->done;
	struct xd_request *req = &io->req;

	req->op = (enum xd_op)io->op;
	req->flags = io->flags;
	req->offset = io->offset + io->done;
	req->done = data_submitted;
	req->owner = io;
	req->iov = NULL;
	req->iovcnt = 0;
	if (req->op == XD_DISCARD) {
		uint64_t unit = limits->discard_granularity;
		uint64_t piece = MAX(DATALESS_PIECE / unit, 1) * unit;

		req->length = MIN(left, piece);
	} else if (req->op == XD_ZERO) {
		req->length = MIN(left, DATALESS_PIECE);
	} else if (req->op == XD_EXTENTS) {
		req->length = left;
	} else {
		req->length = MIN(left, largest_piece(io));
		io->iov.iov_base = (uint8_t *)io->buffer + io->done;
		io->iov.iov_len = req->length;
		req->iov = &io->iov;
		req->iovcnt = 1;
	}
	io_submit(lane, req);
	CRASH_POINT(submitted);
}

void io_transfer(struct io *io)
{
	io->done = 0;
	io_next_piece(io);
}

static bool changes_data(const struct io *io)
{
	return io->op != XD_READ && io->op != XD_EXTENTS;
}

static bool step_data(struct io *io)
{
	const struct io_disk *disk = io->lane->disk;
	bool changes = changes_data(io);

	if (changes && atomic_load(&disk->poison) != IO_CLEAN) {
		io_finish(io, BLKIF_STATUS_ERROR, -EIO);
		return false;
	}
	if (changes &&
	    atomic_load_explicit(&disk->write_through, memory_order_relaxed))
		io->steps |= IO_STEP(IO_POSTFLUSH);
	if (io->client || io->op == XD_DISCARD)
		io_transfer(io);
	else
		guest_data(io);
	return false;
}

/* The stack has done a piece. */
static void data_submitted(struct xd_request *req, int err)
{
	struct io *io = req->owner;

	CRASH_POINT(completed);
	io_returned(io->lane);
	if (err) {
		io_data_end(io, err);
		return;
	}
	io->done += req->length;
	if (io->done < io->length) {
		CRASH_POINT(piece_done);
		if (io->client)
			io_append(&io->lane->clients.pieces, io);
		else
			io_next_piece(io);
	} else if (io->op == XD_READ && !io->client) {
		guest_data_read(io);
	} else {
		io_data_end(io, 0);
	}
}

void io_data_end(struct io *io, int err)
{
	CRASH_POINT(data_ended);
	if (!io->client)
		guest_data_end(io);
	if (!err)
		io_step_done(io);
	else if (hold_wanted(io->lane->disk, err))
		hold_add(io, err);
	else if (err == -EOPNOTSUPP && io->op == XD_DISCARD)
		io_finish(io, BLKIF_STATUS_UNSUPPORTED, err);
	else
		io_finish(io, BLKIF_STATUS_ERROR, err);
}

static bool (*const step_run[IO_NR_STEPS])(struct io *io) = {
	[IO_LIST] = guest_list, [IO_DRAIN] = guest_drain,
	[IO_LOCK] = step_lock,	[IO_PREFLUSH] = step_flush,
	[IO_DATA] = step_data,	[IO_POSTFLUSH] = step_flush,
};

static void answer(struct io *io)
{
	if (io->client)
		io_append(&io->lane->clients.answers, io);
	else
		guest_answer(io);
}

void io_advance(struct io *io)
{
	while (io->steps) {
		if (!step_run[__builtin_ctz(io->steps)](io))
			return;
		io->steps &= (uint8_t)(io->steps - 1);
	}
	answer(io);
}

void io_step_done(struct io *io)
{
	io->steps &= (uint8_t)(io->steps - 1);
	io_advance(io);
}

void io_finish(struct io *io, enum blkif_status status, int err)
{
	io->steps = 0;
	io->status = (int16_t)status;
	io->err = err;
	answer(io);
}

void io_submit(struct io_lane *lane, struct xd_request *req)
{
	lane->submitted++;
	lane->unkicked = true;
	xd_submit(lane->top, req);
}

void io_returned(struct io_lane *lane)
{
	assert(lane->submitted > 0);
	lane->submitted--;
}

/* --- From other threads --------------------------------------------------- */

void io_poke(struct io_lane *lane)
{
	atomic_store(&lane->poked, true);
	engine_wake(lane->engine);
}

void io_condition(struct io_disk *disk, enum msg_condition_kind kind, bool set,
		  const char *fmt, ...)
{
	struct msg_condition msg = { .kind = kind, .set = set };
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(msg.reason, sizeof(msg.reason), fmt, ap);
	va_end(ap);
	/* The broker logs it. */
	if (services_tell(disk->services, &msg))
		log_guest(disk->who, LOG_LEVEL_WARNING, "%s %s",
			  set ? "not well:" : "well again", msg.reason);
}
