/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * flush.c - durability.
 *
 * Theory of operation
 *
 * A FLUSH is answered OKAY only if a flush of the stack that began after the
 * request was taken has succeeded: every write answered before is then on
 * stable storage.  What arrives while a flush runs waits for the next one, and
 * shares it with all others that wait.
 *
 * Only one flush runs at a time on a disk, on whichever lane (the gate).  The
 * kernel tells of a lost write once, to one fdatasync() of the file: with two at
 * a time, the one that succeeds might be answered before the one that failed is
 * known.  For the same reason a flush that has failed is never tried again and
 * believed.  Instead the disk is poisoned:
 *
 *   CLEAN     -> FAILED     a flush failed, and the in-flight log says so, for
 *                           the worker after this one.  From here on writes
 *                           are answered ERROR, and no flush succeeds
 *   FAILED    -> POISONED   the broker has the mark on stable storage.  Only now
 *                           the flushes are answered: not with ERROR or
 *                           EOPNOTSUPP, which Linux takes to mean that flushes
 *                           are not needed, but with FLUSH_FAILED; or not at
 *                           all (flush-error=hold)
 *   any       -> CLEAN      the operator accepts the loss
 *
 * FLUSH_FAILED makes fsync() in a Linux guest return EIO, but a Linux older than
 * 6.11 sends no flush after any answer but OKAY, until it connects anew (seen on
 * 6.1).  So from that answer on, every write is flushed before it is answered.
 *
 * -EAGAIN is no failure: nothing was tried.  Nor is -ECANCELED once the guest
 * goes: the flush is not answered, and the last one speaks for it.
 */
#include "worker/flush.h"

#include <string.h>

#include "common/crash.h"
#include "common/log.h"
#include "common/util.h"
#include "worker/io.h"
#include "worker/services.h"

#define MARK_TIMEOUT_NS (10 * 1000000000ull)
#define MARK_AGAIN_NS	1000000000ull

void flush_gate_init(struct flush_gate *gate)
{
	memset(gate, 0, sizeof(*gate));
	(void)pthread_mutex_init(&gate->mutex, NULL);
	(void)pthread_mutex_init(&gate->marking, NULL);
}

void flush_gate_destroy(struct flush_gate *gate)
{
	(void)pthread_mutex_destroy(&gate->mutex);
	(void)pthread_mutex_destroy(&gate->marking);
}

static bool gate_enter(struct io_lane *lane)
{
	struct flush_gate *gate = &lane->disk->gate;
	bool entered;

	if (lane->disk->nr_lanes > 1)
		(void)pthread_mutex_lock(&gate->mutex);
	entered = !gate->busy;
	gate->busy = true;
	if (!entered)
		gate->waiting |= 1u << lane->index;
	if (lane->disk->nr_lanes > 1)
		(void)pthread_mutex_unlock(&gate->mutex);
	return entered;
}

static void gate_leave(struct io_lane *lane)
{
	struct flush_gate *gate = &lane->disk->gate;

	if (lane->disk->nr_lanes > 1)
		(void)pthread_mutex_lock(&gate->mutex);
	gate->busy = false;
	lane->wake |= gate->waiting;
	gate->waiting = 0;
	if (lane->disk->nr_lanes > 1)
		(void)pthread_mutex_unlock(&gate->mutex);
}

bool flush_needed(const struct io_disk *disk)
{
	return disk->limits->flush;
}

void flush_want(struct io *io)
{
	io_append(&io->lane->flush.waiting, io);
}

/* --- Poison --------------------------------------------------------------- */

/* Asks the broker to remember it, for each piece of storage in the stack. */
static int make_mark(struct io_disk *disk)
{
	for (uint32_t i = 0; i < disk->opened->nr_identities; i++) {
		struct msg_service request = { .kind = MSG_SERVICE_POISON };
		struct msg_service_done done;
		int r;

		(void)snprintf(request.name, sizeof(request.name), "%s",
			       disk->opened->identity[i]);
		(void)snprintf(request.reason, sizeof(request.reason),
			       "a flush failed");
		r = services_call(disk->services, &request, &done, NULL,
				  MARK_TIMEOUT_NS);
		if (r)
			return r;
	}
	return 0;
}

/* Not while the operator accepts a loss that came before: what is noted and told of
 * that one would come after this, and this one would pass for forgiven. */
static void poison(struct io_disk *disk, int err)
{
	int clean = IO_CLEAN;

	/* Then a mark may be being made, which takes long. */
	if (atomic_load(&disk->poison) != IO_CLEAN)
		return;
	(void)pthread_mutex_lock(&disk->gate.marking);
	if (atomic_compare_exchange_strong(&disk->poison, &clean, IO_FAILED)) {
		/* The kernel will not tell the next worker. */
		inflight_note(disk->log, INFLIGHT_FLUSH_FAILED, true);
		CRASH_POINT(failure_noted);
		io_condition(disk, MSG_POISONED, true,
			     "a flush failed (%s): what was written since the "
			     "last flush may be lost",
			     strerror(-err));
	}
	(void)pthread_mutex_unlock(&disk->gate.marking);
}

/* FAILED becomes POISONED, unless somebody was faster. */
static int mark_if_failed(struct io_disk *disk)
{
	int failed = IO_FAILED;
	int r = 0;

	(void)pthread_mutex_lock(&disk->gate.marking);
	if (atomic_load(&disk->poison) == IO_FAILED)
		r = make_mark(disk);
	CRASH_POINT(mark_made);
	if (r == 0 &&
	    atomic_compare_exchange_strong(&disk->poison, &failed, IO_POISONED))
		inflight_note(disk->log, INFLIGHT_FLUSH_FAILED, false);
	CRASH_POINT(mark_noted);
	(void)pthread_mutex_unlock(&disk->gate.marking);
	return r;
}

/* Or it is tried again in a second. */
static void try_to_mark(struct io_lane *lane)
{
	struct io_disk *disk = lane->disk;
	int r;

	if (lane->flush.mark_at && now_ns() < lane->flush.mark_at)
		return;
	lane->flush.mark_at = 0;
	r = mark_if_failed(disk);
	if (r) {
		lane->flush.mark_at = now_ns() + MARK_AGAIN_NS;
		log_guest(disk->who, LOG_LEVEL_ERROR,
			  "the poison mark cannot be made (%s): the flush is "
			  "not answered yet",
			  strerror(-r));
	}
}

/* Those whose flush failed get the answer that their policy says, once it is
 * certain that the failure is not forgotten. */
static void settle_failed(struct io_lane *lane)
{
	struct flush_lane *flush = &lane->flush;
	struct io_list failed;
	struct io *io;
	int poison;

	if (atomic_load(&lane->disk->poison) == IO_FAILED)
		try_to_mark(lane);
	/* Another lane may have made it by now, or somebody accepted the loss. */
	poison = atomic_load(&lane->disk->poison);
	if (poison != IO_FAILED)
		flush->mark_at = 0;
	switch (poison) {
	case IO_FAILED:
		return;
	case IO_POISONED:
		if (lane->disk->policy->flush_error == FLUSH_ERROR_HOLD)
			return;
		inflight_note(lane->disk->log, INFLIGHT_WRITE_THROUGH, true);
		atomic_store(&lane->disk->write_through, true);
		failed = io_take_all(&flush->failed);
		while ((io = io_pop(&failed)))
			io_finish(io, BLKIF_STATUS_FLUSH_FAILED, -EIO);
		return;
	default: /* forgiven: begin again */
		failed = io_take_all(&flush->failed);
		while ((io = io_pop(&failed)))
			io_append(&flush->waiting, io);
		return;
	}
}

void flush_untried(struct io *io)
{
	poison(io->lane->disk, -EIO);
	io_advance(io);
}

/* --- The flush itself ----------------------------------------------------- */

static void flush_done(struct xd_request *req, int err)
{
	struct io_lane *lane = req->owner;
	struct flush_lane *flush = &lane->flush;
	struct io_list ended = io_take_all(&flush->running);
	bool untried = err == -EAGAIN ||
		       (err == -ECANCELED && hold_wanted(lane->disk, err));
	struct io *io;

	CRASH_POINT(flush_completed);
	io_returned(lane);
	flush->busy = false;
	if (err && !untried)
		poison(lane->disk, err);
	gate_leave(lane);
	while ((io = io_pop(&ended))) {
		if (untried)
			hold_add(io, err);
		else if (err)
			io_append(&flush->failed, io);
		else
			io_step_done(io);
	}
}

static void begin(struct io_lane *lane)
{
	struct flush_lane *flush = &lane->flush;
	struct xd_request *req = &flush->req;

	if (!gate_enter(lane))
		return;
	/* A flush of another lane may have failed since flush_pump() looked;
	 * the kernel would not tell this one. */
	if (atomic_load(&lane->disk->poison) != IO_CLEAN) {
		gate_leave(lane);
		lane->again = true;
		return;
	}
	flush->busy = true;
	flush->running = io_take_all(&flush->waiting);
	req->op = XD_FLUSH;
	req->flags = 0;
	req->offset = 0;
	req->length = 0;
	req->iov = NULL;
	req->iovcnt = 0;
	req->done = flush_done;
	req->owner = lane;
	io_submit(lane, req);
	CRASH_POINT(flush_submitted);
}

void flush_pump(struct io_lane *lane)
{
	struct flush_lane *flush = &lane->flush;
	struct io *io;

	if (atomic_load_explicit(&lane->disk->poison, memory_order_relaxed) !=
	    IO_CLEAN)
		while ((io = io_pop(&flush->waiting)))
			io_append(&flush->failed, io);
	if (flush->failed.first)
		settle_failed(lane);
	if (flush->waiting.first && !flush->busy &&
	    !atomic_load(&lane->disk->stop))
		begin(lane);
}

uint64_t flush_next(const struct io_lane *lane)
{
	return lane->flush.mark_at ? lane->flush.mark_at : UINT64_MAX;
}

/* --- Main thread ---------------------------------------------------------- */

struct last_flush {
	bool done;
	int err;
};

static void last_done(struct xd_request *req, int err)
{
	struct last_flush *last = req->owner;

	last->err = err;
	last->done = true;
}

int flush_last(struct io_lane *lane)
{
	struct io_disk *disk = lane->disk;
	struct last_flush last = { .done = false };
	struct xd_request *req = &lane->flush.req;

	if (!flush_needed(disk) || disk->limits->readonly)
		return 0;
	memset(req, 0, sizeof(*req));
	req->op = XD_FLUSH;
	req->done = last_done;
	req->owner = &last;
	xd_submit(lane->top, req);
	stack_kick(lane->top);
	while (!last.done) {
		if (stack_reap(lane->top))
			continue;
		(void)engine_run(lane->engine, UINT64_MAX);
	}
	if (last.err) {
		poison(disk, last.err);
		(void)make_mark(disk);
	}
	return last.err;
}

int flush_mark(struct io_disk *disk)
{
	int r;

	if (atomic_load(&disk->poison) != IO_FAILED)
		return 0;
	r = make_mark(disk);
	if (!r)
		atomic_store(&disk->poison, IO_POISONED);
	return r;
}

void flush_recover(struct io_disk *disk, uint32_t notes)
{
	if (notes & INFLIGHT_FLUSH_FAILED)
		poison(disk, -EIO);
	if (notes & INFLIGHT_WRITE_THROUGH)
		atomic_store(&disk->write_through, true);
}

void flush_hold_marks(struct io_disk *disk)
{
	if (disk->nr_lanes)
		(void)pthread_mutex_lock(&disk->gate.marking);
}

void flush_let_marks(struct io_disk *disk)
{
	if (disk->nr_lanes)
		(void)pthread_mutex_unlock(&disk->gate.marking);
}

void flush_forgive(struct io_disk *disk)
{
	if (atomic_exchange(&disk->poison, IO_CLEAN) == IO_CLEAN)
		return;
	inflight_note(disk->log, INFLIGHT_FLUSH_FAILED, false);
	io_condition(disk, MSG_POISONED, false, "%s", "");
}
