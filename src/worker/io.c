/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io.c - one request's life, in the order in which it is lived.
 *
 * Theory of operation
 *
 * A request is taken off the ring into its entry of the in-flight log, judged,
 * and given the steps that it needs (io_steps).  A step either ends at once or
 * leaves the request in a list of those that wait for the same thing:
 *
 *   LIST       lane.copying      the batch of grant copies
 *   DRAIN      ring.draining     all others of this ring to be answered
 *   LOCK       lane.want_range   an overlapping write to be answered
 *   PREFLUSH   flush.*           see flush.c
 *   DATA       lane.want_buffer  memory
 *              lane.copying      data from or to the guest
 *              (the stack)       the I/O itself
 *              hold.list         an error to pass; then the step begins again
 *   POSTFLUSH  flush.*
 *   (answer)   ring.answers      the end of the round
 *
 * Nothing waits for a later list while it keeps others from leaving an earlier
 * one, so nothing waits for ever: who drains holds no range, who waits for
 * memory or a flush waits for none that waits for a range.
 *
 * Work is done in rounds (io_pump()) so that it comes in bursts: all of a ring
 * is taken, one batch of copies moves all their data, the stack is kicked once,
 * all answers are published together and the guest is notified once.
 *
 * Runs on the lane's thread.  Allocates nothing, blocks on nothing.
 */
#include "worker/io.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "common/crash.h"
#include "common/log.h"
#include "common/util.h"
#include "worker/services.h"

/* A discard is passed on in pieces of at most this, one after the other, so
 * that it does not keep the storage from everything else. */
#define DISCARD_PIECE (64ull << 20)

/* A lane that has had nothing to do for this long gives its memory back. */
#define IDLE_NS (2 * 1000000000ull)

#define STEP(step) IO_STEP(step)

/* Which steps each kind of request needs, if it has data. */
static const uint8_t io_steps[BLKIF_NR_ACTIONS] = {
	[BLKIF_READ] = STEP(IO_DATA),
	[BLKIF_WRITE] = STEP(IO_LOCK) | STEP(IO_DATA),
	[BLKIF_DISCARD] = STEP(IO_LOCK) | STEP(IO_DATA),
	[BLKIF_FLUSH] = STEP(IO_LOCK) | STEP(IO_PREFLUSH) | STEP(IO_DATA) |
			STEP(IO_POSTFLUSH),
	[BLKIF_BARRIER] = STEP(IO_DRAIN) | STEP(IO_LOCK) | STEP(IO_PREFLUSH) |
			  STEP(IO_DATA) | STEP(IO_POSTFLUSH),
};
/* Those that are left out when there is no data. */
#define DATA_STEPS (STEP(IO_LOCK) | STEP(IO_DATA) | STEP(IO_POSTFLUSH))

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

/* --- Taken off the ring --------------------------------------------------- */

void io_judge(struct io *io)
{
	struct io_ring *ring = io->ring;
	struct blkif_job *job = &io->job;

	blkif_judge(&ring->lane->disk->judge, ring->ring.layout,
		    ring->log.entries[io->entry].slot, job);
	io->status = job->status;
	io->steps = 0;
	io->refused = job->status != BLKIF_STATUS_OKAY;
	if (io->refused)
		return;
	io->steps = io_steps[job->action];
	if (job->indirect)
		io->steps |= STEP(IO_LIST);
	else if (job->length == 0)
		io->steps &= (uint8_t)~DATA_STEPS;
	if (job->action == BLKIF_BARRIER && !ring->barrier)
		ring->barrier = io;
}

struct io *io_prepare(struct io_ring *ring, uint16_t entry)
{
	struct io *io = &ring->ios[entry];

	io->ring = ring;
	io->entry = entry;
	io->segments = io->job.segments;
	io->held = false;
	io->recovered = false;
	io->copy_err = 0;
	return io;
}

static void break_ring(struct io_ring *ring)
{
	struct io_disk *disk = ring->lane->disk;
	struct msg_text msg = { .text = IO_BROKEN_TEXT };

	ring->broken = true;
	if (atomic_exchange(&disk->broken, true))
		return;
	log_guest(disk->who, LOG_LEVEL_ERROR, "%s", msg.text);
	(void)services_send(disk->services, &msg, sizeof(msg), MSG_BROKEN);
}

/* Takes what there is, up to a barrier; all of it is in the log before any of
 * it is begun. */
static void take_requests(struct io_ring *ring)
{
	struct io_list taken = { NULL, NULL };
	uint64_t now;
	uint32_t count;
	struct io *io;

	if (ring_look(&ring->ring, &count) < 0) {
		break_ring(ring);
		return;
	}
	while (count-- > 0 && !ring->barrier) {
		uint16_t entry;

		assert(ring->nr_free > 0);
		entry = ring->free[--ring->nr_free];
		io = io_prepare(ring, entry);
		ring_take(&ring->ring, ring->log.entries[entry].slot);
		CRASH_POINT(slot_copied);
		inflight_take(&ring->log, entry, ring->ring.req_cons - 1);
		CRASH_POINT(entry_taken);
		io_judge(io);
		CRASH_POINT(judged);
		io_append(&taken, io);
	}
	if (!taken.first)
		return;
	inflight_taken(&ring->log, ring->ring.req_cons);
	CRASH_POINT(cons_stored);
	meter_taken(ring->stats, ring->ring.nr_slots - ring->nr_free);
	now = now_ns();
	while ((io = io_pop(&taken))) {
		io->taken_ns = now;
		io_advance(io);
	}
}

/* --- The steps ------------------------------------------------------------ */

static bool step_list(struct io *io)
{
	struct io_lane *lane = io->ring->lane;

	io->segments = io->ring->lists + (size_t)io->entry * BLKIF_INDIRECT_MAX;
	grant_batch_add(
		lane->batch, GRANT_FROM_GUEST, io->job.list_gref, 0,
		(uint16_t)(io->job.nr_segments * sizeof(io->segments[0])),
		io->segments, &io->copy_err);
	io->ring->stats->grant_copies++;
	io_append(&lane->copying, io);
	return false;
}

static void list_copied(struct io *io)
{
	int err = io->copy_err;

	CRASH_POINT(list_copied);
	io->copy_err = 0;
	if (hold_wanted(io->ring->lane->disk, err)) {
		hold_add(io, err);
		return;
	}
	if (err)
		io->job.status = BLKIF_STATUS_ERROR;
	else
		blkif_judge_indirect(&io->ring->lane->disk->judge, &io->job,
				     io->segments, io->segments);
	io->refused = io->job.status != BLKIF_STATUS_OKAY;
	if (io->refused)
		io_finish(io, io->job.status);
	else
		io_step_done(io);
}

/* One that had begun when a worker died has its range again, or no need of it.
 * After the last one the others may lock theirs. */
static void begun_again(struct io *io)
{
	struct io_disk *disk = io->ring->lane->disk;

	CRASH_POINT(begun_again);
	io->begun = false;
	if (atomic_fetch_sub(&disk->nr_begun, 1) != 1)
		return;
	for (unsigned int i = 0; i < disk->nr_lanes; i++)
		io_poke(disk->lanes[i]);
}

/*
 * Are all others of this ring answered?  Nothing is taken behind a barrier, and
 * it begins when it is alone.  A log that says otherwise was tampered with: then
 * nobody may wait for who waits for him.
 */
static bool step_drain(struct io *io)
{
	struct io_ring *ring = io->ring;

	if (ring->nr_free == ring->ring.nr_slots - 1 || ring->barrier != io)
		return true;
	if (io->begun)
		begun_again(io);
	ring->draining = io;
	return false;
}

static bool step_lock(struct io *io)
{
	struct io_lane *lane = io->ring->lane;

	/* What had begun goes first: a read may have seen it already. */
	if (!io->begun && atomic_load(&lane->disk->nr_begun)) {
		io_append(&lane->want_range, io);
		return false;
	}

	io->range.start = io->job.offset;
	io->range.end = io->job.offset + io->job.length;
	io->locked = range_lock(lane->disk->ranges, &io->range, lane->index);
	if (!io->locked) {
		io_append(&lane->want_range, io);
		return false;
	}
	CRASH_POINT(range_locked);
	inflight_begin(&io->ring->log, io->entry);
	CRASH_POINT(begun);
	if (io->begun)
		begun_again(io);
	return true;
}

static bool step_flush(struct io *io)
{
	if (!flush_needed(io->ring->lane->disk))
		return true;
	flush_want(io);
	return false;
}

static void data_end(struct io *io, int err);
static void data_submitted(struct xd_request *req, int err);

static enum grant_direction direction(const struct io *io)
{
	return io->job.action == BLKIF_READ ? GRANT_TO_GUEST : GRANT_FROM_GUEST;
}

/* Between the guest's segments and memory of ours, both in bytes. */
static void copy_data(struct io *io, const struct iovec *iov)
{
	struct grant_batch *batch = io->ring->lane->batch;
	uint8_t *local = iov->iov_base;
	size_t room = iov->iov_len;
	unsigned int copies = 0;

	for (unsigned int i = 0; i < io->job.nr_segments; i++) {
		struct blkif_segment s = io->segments[i];

		while (s.length > 0) {
			uint16_t n;

			if (room == 0) {
				iov++;
				local = iov->iov_base;
				room = iov->iov_len;
			}
			n = (uint16_t)MIN(s.length, room);
			grant_batch_add(batch, direction(io), s.gref, s.offset,
					n, local, &io->copy_err);
			copies++;
			s.offset += n;
			s.length -= n;
			local += n;
			room -= n;
		}
	}
	io->ring->stats->grant_copies += copies;
	io_append(&io->ring->lane->copying, io);
}

/* The next piece of what the stack has to do. */
static void submit_piece(struct io *io)
{
	static const enum xd_op ops[BLKIF_NR_ACTIONS] = {
		[BLKIF_READ] = XD_READ,	      [BLKIF_WRITE] = XD_WRITE,
		[BLKIF_FLUSH] = XD_WRITE,     [BLKIF_BARRIER] = XD_WRITE,
		[BLKIF_DISCARD] = XD_DISCARD,
	};
	struct io_lane *lane = io->ring->lane;
	const struct xd_limits *limits = lane->disk->limits;
	uint64_t left = io->job.length - io->done;
	struct xd_request *req = &io->req;

	req->op = ops[io->job.action];
	req->flags = 0;
	req->offset = io->job.offset + io->done;
	req->done = data_submitted;
	req->owner = io;
	req->iov = NULL;
	req->iovcnt = 0;
	if (req->op == XD_DISCARD) {
		uint64_t unit = limits->discard_granularity;
		uint64_t piece = MAX(DISCARD_PIECE / unit, 1) * unit;

		req->length = MIN(left, piece);
	} else {
		req->length = limits->max_transfer ?
				      MIN(left, limits->max_transfer) :
				      left;
		io->iov.iov_base = (uint8_t *)io->buffer + io->done;
		io->iov.iov_len = req->length;
		req->iov = &io->iov;
		req->iovcnt = 1;
	}
	io_submit(lane, req);
	CRASH_POINT(submitted);
}

/* Has memory: a write's data comes first, a read's comes last. */
static void begin_transfer(struct io *io)
{
	io->done = 0;
	if (io->job.action == BLKIF_READ || io->job.action == BLKIF_DISCARD) {
		submit_piece(io);
		return;
	}
	io->iov = (struct iovec){ io->buffer, io->job.length };
	copy_data(io, &io->iov);
}

/* The stack lends the disk's own memory: one copy in all.  -EOPNOTSUPP: it
 * does not. */
static int map_data(struct io *io)
{
	struct io_lane *lane = io->ring->lane;
	uint32_t max = lane->disk->limits->max_transfer;
	unsigned int iovcnt = ARRAY_SIZE(lane->lent);
	struct xd_request *req = &io->req;
	int r;

	if (max && io->job.length > max)
		return -EOPNOTSUPP;
	req->op = io->job.action == BLKIF_READ ? XD_READ : XD_WRITE;
	req->flags = 0;
	req->offset = io->job.offset;
	req->length = io->job.length;
	req->iov = NULL;
	req->iovcnt = 0;
	req->owner = io;
	r = xd_map(lane->top, req, lane->lent, &iovcnt);
	if (r)
		return r;
	io->mapped = true;
	copy_data(io, lane->lent);
	return 0;
}

static bool step_data(struct io *io)
{
	struct io_lane *lane = io->ring->lane;
	int r;

	if (io->job.action != BLKIF_READ &&
	    atomic_load(&lane->disk->poison) != IO_CLEAN) {
		io_finish(io, BLKIF_STATUS_ERROR);
		return false;
	}
	if (io->job.action != BLKIF_READ &&
	    atomic_load_explicit(&lane->disk->write_through,
				 memory_order_relaxed))
		io->steps |= STEP(IO_POSTFLUSH);
	if (io->job.action == BLKIF_DISCARD) {
		begin_transfer(io);
		return false;
	}
	r = map_data(io);
	if (r != -EOPNOTSUPP) {
		if (r)
			data_end(io, r);
		return false;
	}
	/* Not past those that wait already. */
	if (!lane->want_buffer.first)
		io->buffer = buffer_get(lane->arena, io->job.length);
	if (io->buffer)
		begin_transfer(io);
	else
		io_append(&lane->want_buffer, io);
	return false;
}

/* The batch has run with this request's data in it. */
static void data_copied(struct io *io)
{
	int err = io->copy_err;

	CRASH_POINT(data_copied);
	io->copy_err = 0;
	io->refused = err == -EIO; /* a bad grant */
	if (io->mapped) {
		io->mapped = false;
		xd_unmap(io->ring->lane->top, &io->req, err);
		data_end(io, err);
	} else if (err || io->job.action == BLKIF_READ) {
		data_end(io, err);
	} else {
		submit_piece(io);
	}
}

/* The stack has done a piece. */
static void data_submitted(struct xd_request *req, int err)
{
	struct io *io = req->owner;

	CRASH_POINT(completed);
	io_returned(io->ring->lane);
	if (err) {
		data_end(io, err);
		return;
	}
	io->done += req->length;
	if (io->done < io->job.length) {
		CRASH_POINT(piece_done);
		submit_piece(io);
	} else if (io->job.action == BLKIF_READ) {
		io->iov = (struct iovec){ io->buffer, io->job.length };
		copy_data(io, &io->iov);
	} else {
		data_end(io, 0);
	}
}

static void data_end(struct io *io, int err)
{
	struct io_lane *lane = io->ring->lane;

	CRASH_POINT(data_ended);
	if (io->buffer) {
		buffer_put(lane->arena, io->buffer, io->job.length);
		io->buffer = NULL;
	}
	if (!err)
		io_step_done(io);
	else if (hold_wanted(lane->disk, err))
		hold_add(io, err);
	else if (err == -EOPNOTSUPP && io->job.action == BLKIF_DISCARD)
		io_finish(io, BLKIF_STATUS_UNSUPPORTED);
	else
		io_finish(io, BLKIF_STATUS_ERROR);
}

static bool (*const step_run[IO_NR_STEPS])(struct io *io) = {
	[IO_LIST] = step_list, [IO_DRAIN] = step_drain,
	[IO_LOCK] = step_lock, [IO_PREFLUSH] = step_flush,
	[IO_DATA] = step_data, [IO_POSTFLUSH] = step_flush,
};

void io_advance(struct io *io)
{
	while (io->steps) {
		if (!step_run[__builtin_ctz(io->steps)](io))
			return;
		io->steps &= (uint8_t)(io->steps - 1);
	}
	io_append(&io->ring->answers, io);
}

void io_step_done(struct io *io)
{
	io->steps &= (uint8_t)(io->steps - 1);
	io_advance(io);
}

void io_finish(struct io *io, enum blkif_status status)
{
	io->steps = 0;
	io->status = (int16_t)status;
	io_append(&io->ring->answers, io);
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

/* --- Answered ------------------------------------------------------------- */

/* Its answer is published: the request is over. */
static void release(struct io *io)
{
	struct io_ring *ring = io->ring;
	struct io_lane *lane = ring->lane;

	if (io->locked) {
		io->locked = false;
		lane->wake |= range_unlock(lane->disk->ranges, &io->range);
	}
	if (ring->barrier == io)
		ring->barrier = NULL;
	ring->free[ring->nr_free++] = io->entry;
}

static void settle(struct io *io)
{
	struct io_disk *disk = io->ring->lane->disk;

	if (io->held)
		hold_done(io);
	if (io->begun)
		begun_again(io);
	if (io->recovered && atomic_fetch_sub(&disk->nr_recovered, 1) == 1)
		io_condition(disk, MSG_RECOVERING, false, "%s", "");
}

static void publish(struct io_ring *ring)
{
	struct io_list answers = io_take_all(&ring->answers);
	bool refused = true;
	bool wanted;
	uint64_t now;
	struct io *io;

	if (!answers.first || ring->broken)
		return;
	for (io = answers.first; io; io = io->next) {
		refused &= io->refused;
		inflight_answer(&ring->log, io->entry, ring->ring.rsp_prod,
				io->status);
		CRASH_POINT(answer_noted);
		ring_put(&ring->ring, io->job.id, io->job.op, io->status);
		CRASH_POINT(response_written);
	}
	wanted = ring_push(&ring->ring);
	CRASH_POINT(rsp_prod_stored);
	if (wanted) {
		evtchn_notify(ring->lane->evtchn, ring->port);
		ring->stats->events_out++;
	}
	CRASH_POINT(notified);
	inflight_published(&ring->log, ring->ring.rsp_prod);
	CRASH_POINT(publish_noted);
	now = now_ns();
	storm_answered(&ring->storm, refused, now);
	while ((io = io_pop(&answers))) {
		meter_answered(ring->stats, &io->job, io->status,
			       now - io->taken_ns);
		settle(io);
		CRASH_POINT(settled);
		inflight_done(&ring->log, io->entry);
		CRASH_POINT(entry_freed);
		release(io);
	}
	ring->stats->in_flight = ring->ring.nr_slots - ring->nr_free;
	io = ring->draining;
	if (io && ring->nr_free == ring->ring.nr_slots - 1) {
		ring->draining = NULL;
		ring->lane->again = true;
		io_advance(io);
	}
}

/* --- A round -------------------------------------------------------------- */

/* All copies that are wanted, in one call; what follows may want more. */
static void run_copies(struct io_lane *lane)
{
	while (lane->copying.first) {
		struct io_list copied = io_take_all(&lane->copying);
		struct io *io;

		grant_batch_run(lane->batch);
		while ((io = io_pop(&copied))) {
			if (io->steps & STEP(IO_LIST))
				list_copied(io);
			else
				data_copied(io);
		}
	}
}

/* The stack works until it has nothing to do at once. */
static void run_stack(struct io_lane *lane)
{
	do {
		run_copies(lane);
		flush_pump(lane);
		if (lane->unkicked) {
			lane->unkicked = false;
			stack_kick(lane->top);
			CRASH_POINT(kicked);
		}
	} while (stack_reap(lane->top) || lane->copying.first ||
		 lane->unkicked);
}

static void retry_ranges(struct io_lane *lane)
{
	struct io_list waiting = io_take_all(&lane->want_range);
	struct io *io;

	lane->retry_ranges = false;
	while ((io = io_pop(&waiting)))
		io_advance(io);
}

static void retry_buffers(struct io_lane *lane)
{
	struct io *io;

	while ((io = lane->want_buffer.first)) {
		io->buffer = buffer_get(lane->arena, io->job.length);
		if (!io->buffer)
			return;
		(void)io_pop(&lane->want_buffer);
		begin_transfer(io);
	}
}

static void wake_others(struct io_lane *lane)
{
	uint32_t mask = lane->wake;

	lane->wake = 0;
	for (unsigned int i = 0; mask; i++, mask >>= 1) {
		if (!(mask & 1))
			continue;
		if (i == lane->index)
			lane->retry_ranges = true;
		else
			io_poke(lane->disk->lanes[i]);
	}
}

void io_poke(struct io_lane *lane)
{
	atomic_store(&lane->poked, true);
	engine_wake(lane->engine);
}

static bool may_take(struct io_ring *ring)
{
	if (ring->barrier)
		return false;
	return !ring->storm.look_at || storm_may_look(&ring->storm, now_ns());
}

bool io_pump(struct io_lane *lane)
{
	struct io_disk *disk = lane->disk;
	bool more = false;

	lane->again = false;
	/* Looked at before the flag's cost: a locked exchange. */
	if (atomic_load_explicit(&lane->poked, memory_order_relaxed) &&
	    atomic_exchange(&lane->poked, false))
		lane->retry_ranges = true;
	if (!atomic_load(&disk->stop) && !atomic_load(&disk->broken)) {
		for (unsigned int i = 0; i < lane->nr_rings; i++)
			if (may_take(lane->rings[i]))
				take_requests(lane->rings[i]);
		hold_pump(lane);
		if (lane->retry_ranges)
			retry_ranges(lane);
		retry_buffers(lane);
	}
	run_stack(lane);
	for (unsigned int i = 0; i < lane->nr_rings; i++)
		publish(lane->rings[i]);
	if (lane->wake)
		wake_others(lane);
	if (atomic_load(&disk->stop) || atomic_load(&disk->broken))
		return lane->copying.first != NULL;
	for (unsigned int i = 0; i < lane->nr_rings; i++) {
		struct io_ring *ring = lane->rings[i];

		if (ring->answers.first ||
		    (may_take(ring) && ring_pending(&ring->ring)))
			more = true;
	}
	return more || lane->again || lane->retry_ranges ||
	       lane->copying.first || lane->unkicked;
}

bool io_pending(const struct io_lane *lane)
{
	for (unsigned int i = 0; i < lane->nr_rings; i++) {
		const struct io_ring *ring = lane->rings[i];

		if (!ring->barrier && !ring->storm.look_at &&
		    ring_pending(&ring->ring))
			return true;
	}
	return atomic_load_explicit(&lane->poked, memory_order_relaxed);
}

bool io_arm(struct io_lane *lane)
{
	bool more = false;

	lane->look_at = UINT64_MAX;
	if (atomic_load(&lane->disk->stop) || atomic_load(&lane->disk->broken))
		return false;
	for (unsigned int i = 0; i < lane->nr_rings; i++) {
		struct io_ring *ring = lane->rings[i];

		if (may_take(ring) && ring_final_check(&ring->ring))
			more = true;
		if (ring->storm.look_at)
			lane->look_at = MIN(lane->look_at, ring->storm.look_at);
	}
	return more;
}

uint64_t io_sleep_ns(struct io_lane *lane)
{
	const struct io_disk *disk = lane->disk;
	uint64_t at = flush_next(lane);
	uint64_t now;

	/* At the end what is held is not tried any more. */
	if (!atomic_load(&disk->stop) && !atomic_load(&disk->broken))
		at = MIN(MIN(at, hold_next(lane)), lane->look_at);
	if (at == UINT64_MAX)
		return buffer_is_trimmed(lane->arena) ? UINT64_MAX : IDLE_NS;
	now = now_ns();
	return at > now ? at - now : 0;
}

void io_idle(struct io_lane *lane)
{
	buffer_trim(lane->arena);
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
