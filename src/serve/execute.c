/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * execute.c - one command of a client, on the stack.
 *
 * Theory of operation
 *
 * A command is one request of the stack, or several one after the other where
 * the stack limits their length; with FUA a flush follows, also on a stack that has
 * FUA (see below).  A flush covers what was answered before on any connection, since
 * all of them are on the same stack: so clients may use several
 * (NBD_FLAG_CAN_MULTI_CONN).
 *
 * Writes, discards and zeroes that overlap are kept apart, as xendisk-backend(3)
 * promises it: one is in the disk's table of ranges (worker/range.h) from before it
 * begins until it is answered, with all its pieces and its flush.  Another one that
 * overlaps it waits in the table, behind it and before all that come later.  A command
 * that leaves the table tells the channels, on whichever lane, of those that have got
 * their range by that.  None that has its range waits for one that lacks it.  When a
 * channel has as many in the table as it may, the next ones wait outside, in the order
 * in which they came.
 *
 * A lane first reads the commands of all its clients, then begins them together, except
 * those of a client that was found to be cut off meanwhile: it may be back already, on
 * any lane, and what it writes there must not be overwritten by a command that was
 * never answered.  For the same reason those that wait are dropped (serve_forget()).
 * Those that have begun are done to their end, in the table of ranges, where the
 * client's new writes wait for them.
 *
 * The kernel tells of lost writes once, to whoever makes something durable first: so
 * that is a flush, and one at a time.  Of two, one could be answered before it is known
 * that the other has failed.  All commands that come meanwhile share the next one.
 * After a flush that failed, writes and flushes fail until the server is started
 * anew: what the storage holds then is for a person to judge.
 */
#include "config.h"

#include "serve/private.h"

#include <assert.h>
#include <string.h>
#include <utlist.h>

#include "common/log.h"

/* Discards in pieces, so that they do not keep the storage from the rest. */
#define DISCARD_PIECE (64ull << 20)
/* Of one BLOCK_STATUS. */
#define MAX_EXTENTS 256u

struct op {
	struct nbd_command command; /* first: made by the session */
	struct serve_channel *channel;
	struct op *prev, *next; /* of those that have not begun */
	struct range range;
	/* In the channel; a read is in no list and in no table. */
	enum { READS, FRESH, OUTSIDE, WAITS, WRITES } place;
	uint64_t done; /* bytes */
	struct iovec iov;
	struct xd_extents extents;
	struct xd_request req;
};

const size_t serve_command_size = sizeof(struct op);

static void step(struct op *op);

/* --- Who writes where ------------------------------------------------------ */

/* There is room.  False: it waits. */
static bool enter(struct op *op)
{
	struct serve_channel *channel = op->channel;

	channel->nr_entered++;
	op->range.start = op->command.offset;
	op->range.end = op->command.offset + op->command.length;
	op->place = WRITES;
	if (range_lock(channel->disk->ranges, &op->range, channel->lane))
		return true;
	op->place = WAITS;
	DL_APPEND(channel->waiting, op);
	return false;
}

static bool lock(struct op *op)
{
	struct serve_channel *channel = op->channel;

	if (channel->nr_entered < SERVE_MAX_WRITES && !channel->outside)
		return enter(op);
	op->place = OUTSIDE;
	DL_APPEND(channel->outside, op);
	return false;
}

static void tell(struct serve_channel *own, uint32_t lanes)
{
	for (; lanes; lanes &= lanes - 1) {
		struct serve_channel *channel =
			own->disk->channels[__builtin_ctz(lanes)];

		atomic_store(&channel->granted, true);
		if (channel != own)
			engine_wake(channel->engine);
	}
}

static void unlock(struct op *op)
{
	struct serve_channel *channel = op->channel;

	switch (op->place) {
	case READS:
		return;
	case FRESH:
		DL_DELETE(channel->fresh, op);
		return;
	case OUTSIDE:
		DL_DELETE(channel->outside, op);
		return;
	case WAITS:
		DL_DELETE(channel->waiting, op);
		break;
	case WRITES:
		break;
	}
	channel->nr_entered--;
	tell(channel, range_unlock(channel->disk->ranges, &op->range));
}

static void finish(struct op *op, int err)
{
	unlock(op);
	err = nbd_command_error(&op->command, err);
	op->channel->nr_ops--;
	nbd_command_done(
		&op->command, err,
		err == -EIO && atomic_load(&op->channel->disk->failed) ?
			"a flush has failed before" :
			NULL);
}

static void on_done(struct xd_request *req, int err)
{
	struct op *op = req->owner;

	op->done += req->length;
	if (err)
		finish(op, err);
	else
		step(op);
}

static void submit(struct op *op, enum xd_op kind, uint32_t flags,
		   uint64_t length)
{
	struct xd_request *req = &op->req;

	req->op = kind;
	req->flags = flags;
	req->offset = op->command.offset + op->done;
	req->length = length;
	req->iov = NULL;
	req->iovcnt = 0;
	req->done = on_done;
	req->owner = op;
	if (kind == XD_READ || kind == XD_WRITE) {
		op->iov.iov_base = (uint8_t *)op->command.buffer + op->done;
		op->iov.iov_len = length;
		req->iov = &op->iov;
		req->iovcnt = 1;
	}
	xd_submit(op->channel->top, req);
}

/* --- Flushes --------------------------------------------------------------- */

/* False: another lane's runs, which will tell this one of its end. */
static bool gate_enter(struct serve_channel *channel)
{
	_Atomic(uint32_t) *gate = &channel->disk->gate;
	uint32_t before = atomic_load(gate), after;

	do
		after = before & SERVE_FLUSHES ? before | 1u << channel->lane :
						 SERVE_FLUSHES;
	while (!atomic_compare_exchange_weak(gate, &before, after));
	return !(before & SERVE_FLUSHES);
}

static void gate_leave(struct serve_channel *channel)
{
	uint32_t lanes = atomic_exchange(&channel->disk->gate, 0);

	tell(channel, lanes & ~SERVE_FLUSHES);
}

static void finish_all(struct op **list, int err)
{
	struct op *op;

	while ((op = *list)) {
		DL_DELETE(*list, op);
		finish(op, err);
	}
}

/* At the end there is none but the last: another lane's may run, and not go on. */
static void flush(struct op *op)
{
	if (op->channel->stopped)
		finish(op, -ESHUTDOWN);
	else
		DL_APPEND(op->channel->unflushed, op);
}

static void flushed(struct xd_request *req, int err)
{
	struct serve_channel *channel = req->owner;
	struct serve_disk *disk = channel->disk;

	if (err && !atomic_exchange(&disk->failed, true))
		log_error("%s: a flush failed (%s): what was written since the "
			  "last one may be lost",
			  disk->name, strerror(-err));
	gate_leave(channel);
	finish_all(&channel->flushing, err ? -EIO : 0);
}

/* For all that wait for one.  True: some have ended. */
static bool begin_flush(struct serve_channel *channel)
{
	struct xd_request *req = &channel->flush;

	if (!channel->unflushed || channel->flushing || !gate_enter(channel))
		return false;
	if (atomic_load(&channel->disk->failed)) {
		gate_leave(channel);
		finish_all(&channel->unflushed, -EIO);
		return true;
	}
	channel->flushing = TAKE_PTR(channel->unflushed);
	req->op = XD_FLUSH;
	req->done = flushed;
	req->owner = channel;
	xd_submit(channel->top, req);
	return false;
}

/* --- BLOCK_STATUS --------------------------------------------------------- */

/* In spite of an error: a client that reads there will get that error. */
static void on_extents(struct xd_request *req, int err)
{
	struct op *op = req->owner;
	bool more = err == 0;

	for (unsigned int i = 0; more && i < op->extents.nr; i++)
		more = nbd_command_extent(&op->command,
					  op->extents.extent[i].length,
					  op->extents.extent[i].flags);
	free(op->extents.extent);
	finish(op, 0);
}
_Static_assert(XD_EXTENT_HOLE == NBD_STATE_HOLE &&
		       XD_EXTENT_ZERO == NBD_STATE_ZERO,
	       "the same bits");

static void block_status(struct op *op)
{
	struct xd_request *req = &op->req;
	bool one = op->command.flags & NBD_CMD_FLAG_REQ_ONE;

	op->extents.max = one ? 1 : MAX_EXTENTS;
	op->extents.extent =
		calloc(op->extents.max, sizeof(*op->extents.extent));
	if (!op->extents.extent) {
		finish(op, -ENOMEM);
		return;
	}
	req->op = XD_EXTENTS;
	req->offset = op->command.offset;
	req->length = op->command.length;
	req->extents = &op->extents;
	req->done = on_extents;
	req->owner = op;
	xd_submit(op->channel->top, req);
}

/* --- All others ----------------------------------------------------------- */

/* The longest piece that the stack takes at once. */
static uint64_t piece(const struct op *op)
{
	const struct xd_limits *limits = op->channel->disk->limits;
	uint64_t left = op->command.length - op->done;
	uint64_t unit = limits->discard_granularity;

	switch (op->command.type) {
	case NBD_CMD_READ:
	case NBD_CMD_WRITE:
		return limits->max_transfer ? MIN(left, limits->max_transfer) :
					      left;
	case NBD_CMD_TRIM:
		return MIN(left, MAX(DISCARD_PIECE / unit, 1) * unit);
	default:
		return MIN(left, DISCARD_PIECE);
	}
}

static uint32_t flags_of(const struct op *op)
{
	const struct nbd_command *c = &op->command;
	uint32_t flags = 0;

	if (c->flags & NBD_CMD_FLAG_NO_HOLE)
		flags |= XD_NO_HOLE;
	if (c->flags & NBD_CMD_FLAG_FAST_ZERO)
		flags |= XD_FAST;
	return flags;
}

/* All is transferred.  A client may ask for FUA with every command. */
static void transferred(struct op *op)
{
	if (op->command.flags & NBD_CMD_FLAG_FUA &&
	    op->command.type != NBD_CMD_READ &&
	    op->channel->disk->limits->flush)
		flush(op);
	else
		finish(op, 0);
}

/* The next piece, or the end.  There may be thousands of pieces. */
static void step(struct op *op)
{
	static const enum xd_op kinds[NBD_NR_CMDS] = {
		[NBD_CMD_READ] = XD_READ,
		[NBD_CMD_WRITE] = XD_WRITE,
		[NBD_CMD_TRIM] = XD_DISCARD,
		[NBD_CMD_WRITE_ZEROES] = XD_ZERO,
	};

	if (op->done == op->command.length)
		transferred(op);
	else if (op->channel->stopped)
		finish(op, -ESHUTDOWN);
	else
		submit(op, kinds[op->command.type], flags_of(op), piece(op));
}

static void begin(struct op *op)
{
	if (atomic_load(&op->channel->disk->failed))
		finish(op, -EIO);
	else
		step(op);
}

static void begin_granted(struct serve_channel *channel)
{
	struct range *range;

	while ((range = range_granted(channel->disk->ranges, channel->lane))) {
		struct op *op = container_of(range, struct op, range);

		DL_DELETE(channel->waiting, op);
		op->place = WRITES;
		begin(op);
	}
}

/* Those that have their range now; true: some have. */
static bool begin_waiting(struct serve_channel *channel)
{
	bool any = false;

	while (atomic_load(&channel->granted)) {
		atomic_store(&channel->granted, false);
		begin_granted(channel);
		any = true;
	}
	while (channel->outside && channel->nr_entered < SERVE_MAX_WRITES) {
		struct op *op = channel->outside;

		DL_DELETE(channel->outside, op);
		if (enter(op))
			begin(op);
		any = true;
	}
	return any;
}

void serve_end_waiting(struct serve_channel *channel)
{
	channel->stopped = true;
	while (channel->fresh)
		finish(channel->fresh, -ESHUTDOWN);
	while (channel->outside)
		finish(channel->outside, -ESHUTDOWN);
	while (channel->waiting)
		finish(channel->waiting, -ESHUTDOWN);
	finish_all(&channel->unflushed, -ESHUTDOWN);
	atomic_fetch_and(&channel->disk->gate, ~(1u << channel->lane));
}

static void forget(struct op *list, const struct nbd_session *session)
{
	struct op *op, *next;

	DL_FOREACH_SAFE(list, op, next)
		if (op->command.session == session)
			finish(op, -ESHUTDOWN);
}

void serve_forget(struct serve_channel *channel,
		  const struct nbd_session *session)
{
	forget(channel->fresh, session);
	forget(channel->outside, session);
	forget(channel->waiting, session);
}

void serve_submit(struct serve_channel *channel, struct nbd_command *command)
{
	struct op *op = container_of(command, struct op, command);

	op->channel = channel;
	op->place = FRESH;
	DL_APPEND(channel->fresh, op);
	channel->nr_ops++;
}

static void begin_fresh(struct op *op)
{
	const struct nbd_command *command = &op->command;
	struct serve_channel *channel = op->channel;
	bool too_slow = command->flags & NBD_CMD_FLAG_FAST_ZERO &&
			!channel->disk->limits->fast_zero;
	bool reads = command->type == NBD_CMD_READ ||
		     command->type == NBD_CMD_CACHE ||
		     command->type == NBD_CMD_BLOCK_STATUS;

	DL_DELETE(channel->fresh, op);
	op->place = READS;
	if (!reads && atomic_load(&channel->disk->failed))
		finish(op, -EIO);
	else if (too_slow)
		finish(op, -EOPNOTSUPP);
	else if (command->type == NBD_CMD_FLUSH)
		flush(op);
	else if (command->type == NBD_CMD_CACHE)
		finish(op, 0); /* nothing is to be done */
	else if (command->type == NBD_CMD_BLOCK_STATUS)
		block_status(op);
	else if (reads || lock(op))
		step(op);
}

bool serve_work(struct serve_channel *channel)
{
	bool any = channel->fresh, moved;

	while (channel->fresh)
		begin_fresh(channel->fresh);
	do {
		moved = begin_waiting(channel);
		moved |= begin_flush(channel);
		stack_kick(channel->top);
		moved |= stack_reap(channel->top) > 0;
		any |= moved;
	} while (moved);
	return any;
}
