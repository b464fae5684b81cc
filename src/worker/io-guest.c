/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io-guest.c - the requests of a guest's ring: how they come, how their data is
 * copied, how they are answered.  The life in between is in io.c.
 *
 * Theory of operation
 *
 * A request is taken off the ring into its entry of the in-flight log, judged,
 * and given the steps that it needs (guest_steps).  All of a ring is taken at
 * once, one batch of copies moves the data of all, and at the end of the round
 * all answers are published together and the guest is notified once.
 *
 * Of large requests a round takes no more than GUEST_ROUND_BYTES.  Otherwise a
 * guest that sends eight of 128 KiB, and eight more when it has the answers, would
 * idle while we copy, and we would idle while it wakes up, which takes as long as
 * copying two of them.  It also gets writes to the storage sooner.  With less in a
 * round the guest is woken more often, which costs more than it gains.
 *
 * Runs on the lane's thread.  Allocates nothing, blocks on nothing.
 */
#include "worker/io-guest.h"

#include <assert.h>

#include "common/crash.h"
#include "common/log.h"
#include "common/util.h"
#include "worker/services.h"

_Static_assert(BLKIF_INDIRECT_MAX == XD_MAX_SEGMENTS,
	       "what is judged is what the broker offers");

#define STEP(step) IO_STEP(step)

/* Which steps each kind of request needs, if it has data. */
static const uint8_t guest_steps[BLKIF_NR_ACTIONS] = {
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

static const uint8_t guest_ops[BLKIF_NR_ACTIONS] = {
	[BLKIF_READ] = XD_READ,	      [BLKIF_WRITE] = XD_WRITE,
	[BLKIF_FLUSH] = XD_WRITE,     [BLKIF_BARRIER] = XD_WRITE,
	[BLKIF_DISCARD] = XD_DISCARD,
};

/* --- Taken off the ring --------------------------------------------------- */

void guest_judge(struct guest_io *guest)
{
	struct io_ring *ring = guest->ring;
	struct blkif_job *job = &guest->job;
	struct io *io = &guest->io;

	blkif_judge(&ring->lane->disk->judge, ring->ring.layout,
		    ring->log.entries[guest->entry].slot, job);
	io->status = job->status;
	io->steps = 0;
	guest->refused = job->status != BLKIF_STATUS_OKAY;
	if (guest->refused)
		return;
	io->op = guest_ops[job->action];
	io->offset = job->offset;
	io->length = job->length;
	io->steps = guest_steps[job->action];
	if (job->indirect)
		io->steps |= STEP(IO_LIST);
	else if (job->length == 0)
		io->steps &= (uint8_t)~DATA_STEPS;
	if (job->action == BLKIF_BARRIER && !ring->barrier)
		ring->barrier = io;
}

struct guest_io *guest_prepare(struct io_ring *ring, uint16_t entry)
{
	struct guest_io *guest = &ring->ios[entry];

	guest->entry = entry;
	guest->segments = guest->job.segments;
	guest->io.held = false;
	guest->recovered = false;
	guest->copy_err = 0;
	return guest;
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

/* Bytes, at most: the lengths in a list of segments are not known before it is
 * fetched. */
static uint64_t data_of(const struct guest_io *guest)
{
	return guest->refused ? 0 :
				guest->job.nr_segments * (uint64_t)BLKIF_PAGE;
}

/* Takes what there is, up to a barrier or a round's data; all of it is in the log
 * before any of it is begun. */
void guest_take(struct io_ring *ring)
{
	struct io_list taken = { NULL, NULL };
	struct guest_io *guest;
	uint64_t now, bytes = 0;
	uint32_t count;
	struct io *io;

	if (ring_look(&ring->ring, &count) < 0) {
		break_ring(ring);
		return;
	}
	for (; count > 0 && !ring->barrier && bytes < GUEST_ROUND_BYTES;
	     count--) {
		uint16_t entry;

		assert(ring->nr_free > 0);
		entry = ring->free[--ring->nr_free];
		guest = guest_prepare(ring, entry);
		ring_take(&ring->ring, ring->log.entries[entry].slot);
		CRASH_POINT(slot_copied);
		inflight_take(&ring->log, entry, ring->ring.req_cons - 1);
		CRASH_POINT(entry_taken);
		guest_judge(guest);
		CRASH_POINT(judged);
		bytes += data_of(guest);
		io_append(&taken, &guest->io);
	}
	if (!taken.first)
		return;
	inflight_taken(&ring->log, ring->ring.req_cons);
	CRASH_POINT(cons_stored);
	meter_taken(ring->stats, ring->ring.nr_slots - ring->nr_free, count);
	now = now_ns();
	while ((io = io_pop(&taken))) {
		guest_of(io)->taken_ns = now;
		io_advance(io);
	}
}

/* --- The steps that only a ring's requests have --------------------------- */

bool guest_list(struct io *io)
{
	struct guest_io *guest = guest_of(io);
	struct io_ring *ring = guest->ring;
	struct io_lane *lane = io->lane;
	bool kept;

	guest->segments =
		ring->lists + (size_t)guest->entry * BLKIF_INDIRECT_MAX;
	kept = grant_batch_add(
		lane->batch, GRANT_FROM_GUEST, guest->job.list_gref, 0,
		(uint16_t)(guest->job.nr_segments * sizeof(guest->segments[0])),
		guest->segments, &guest->copy_err);
	meter_copied(ring->stats, 1, kept);
	io_append(&lane->copying, io);
	return false;
}

static void list_copied(struct guest_io *guest)
{
	struct io *io = &guest->io;
	int err = guest->copy_err;

	CRASH_POINT(list_copied);
	guest->copy_err = 0;
	if (hold_wanted(io->lane->disk, err)) {
		hold_add(io, err);
		return;
	}
	if (err)
		guest->job.status = BLKIF_STATUS_ERROR;
	else
		blkif_judge_indirect(&io->lane->disk->judge, &guest->job,
				     guest->segments, guest->segments);
	io->length = guest->job.length;
	guest->refused = guest->job.status != BLKIF_STATUS_OKAY;
	if (guest->refused)
		io_finish(io, guest->job.status, err ? err : -EINVAL);
	else
		io_step_done(io);
}

/*
 * Are all others of this ring answered?  Nothing is taken behind a barrier, and
 * it begins when it is alone, so one that has begun never gets here.  A log that
 * says otherwise was tampered with: then the others must not wait for this
 * request while it waits for them.
 */
bool guest_drain(struct io *io)
{
	struct io_ring *ring = guest_of(io)->ring;

	if (ring->nr_free == ring->ring.nr_slots - 1 || ring->barrier != io)
		return true;
	if (io->begun)
		io_begun_again(io);
	ring->draining = io;
	return false;
}

/* --- Data ----------------------------------------------------------------- */

static enum grant_direction direction(const struct guest_io *guest)
{
	return guest->io.op == XD_READ ? GRANT_TO_GUEST : GRANT_FROM_GUEST;
}

/* Between the guest's segments and memory of ours, both in bytes. */
static void copy_data(struct guest_io *guest, const struct iovec *iov)
{
	struct io_lane *lane = guest->io.lane;
	uint8_t *local = iov->iov_base;
	size_t room = iov->iov_len;
	unsigned int copies = 0, kept = 0;

	for (unsigned int i = 0; i < guest->job.nr_segments; i++) {
		struct blkif_segment s = guest->segments[i];

		while (s.length > 0) {
			uint16_t n;

			if (room == 0) {
				iov++;
				local = iov->iov_base;
				room = iov->iov_len;
			}
			n = (uint16_t)MIN(s.length, room);
			kept += grant_batch_add(lane->batch, direction(guest),
						s.gref, s.offset, n, local,
						&guest->copy_err);
			copies++;
			s.offset += n;
			s.length -= n;
			local += n;
			room -= n;
		}
	}
	meter_copied(guest->ring->stats, copies, kept);
	io_append(&lane->copying, &guest->io);
}

static void copy_buffer(struct guest_io *guest)
{
	struct io *io = &guest->io;

	io->iov = (struct iovec){ io->buffer, io->length };
	copy_data(guest, &io->iov);
}

/* Has memory: a write's data comes first, a read's comes last. */
static void begin_transfer(struct io *io)
{
	if (io->op == XD_READ)
		io_transfer(io);
	else
		copy_buffer(guest_of(io));
}

/* The stack lends the disk's own memory: one copy in all.  -EOPNOTSUPP: it
 * does not. */
static int map_data(struct io *io)
{
	struct io_lane *lane = io->lane;
	uint32_t max = lane->disk->limits->max_transfer;
	unsigned int iovcnt = ARRAY_SIZE(lane->lent);
	struct xd_request *req = &io->req;
	int r;

	if (max && io->length > max)
		return -EOPNOTSUPP;
	req->op = (enum xd_op)io->op;
	req->flags = 0;
	req->offset = io->offset;
	req->length = io->length;
	req->iov = NULL;
	req->iovcnt = 0;
	req->owner = io;
	r = xd_map(lane->top, req, lane->lent, &iovcnt);
	if (r)
		return r;
	guest_of(io)->mapped = true;
	copy_data(guest_of(io), lane->lent);
	return 0;
}

void guest_data(struct io *io)
{
	struct io_lane *lane = io->lane;
	int r = map_data(io);

	if (r != -EOPNOTSUPP) {
		if (r)
			io_data_end(io, r);
		return;
	}
	/* Requests that wait already come first. */
	if (!lane->want_buffer.first)
		io->buffer = buffer_get(lane->arena, io->length);
	if (io->buffer)
		begin_transfer(io);
	else
		io_append(&lane->want_buffer, io);
}

void guest_retry_buffers(struct io_lane *lane)
{
	struct io *io;

	while ((io = lane->want_buffer.first)) {
		io->buffer = buffer_get(lane->arena, io->length);
		if (!io->buffer)
			return;
		(void)io_pop(&lane->want_buffer);
		begin_transfer(io);
	}
}

void guest_data_read(struct io *io)
{
	copy_buffer(guest_of(io));
}

void guest_data_end(struct io *io)
{
	if (!io->buffer)
		return;
	buffer_put(io->lane->arena, io->buffer, io->length);
	io->buffer = NULL;
	/* Requests that wait for memory are tried once a round, and this round's try
	 * is over. */
	if (io->lane->want_buffer.first)
		io->lane->again = true;
}

/* The batch has run with this request's data in it. */
static void data_copied(struct guest_io *guest)
{
	struct io *io = &guest->io;
	int err = guest->copy_err;

	CRASH_POINT(data_copied);
	guest->copy_err = 0;
	guest->refused = err == -EIO; /* a bad grant */
	if (guest->mapped) {
		guest->mapped = false;
		xd_unmap(io->lane->top, &io->req, err);
		io_data_end(io, err);
	} else if (err || io->op == XD_READ) {
		io_data_end(io, err);
	} else {
		io_transfer(io);
	}
}

/* All copies that are wanted, in one call; what follows may want more. */
void guest_copy(struct io_lane *lane)
{
	while (lane->copying.first) {
		struct io_list copied = io_take_all(&lane->copying);
		struct io *io;

		grant_batch_run(lane->batch);
		while ((io = io_pop(&copied))) {
			if (io->steps & STEP(IO_LIST))
				list_copied(guest_of(io));
			else
				data_copied(guest_of(io));
		}
	}
}

/* --- Answered ------------------------------------------------------------- */

/* Its answer is published: the request is over. */
static void release(struct guest_io *guest)
{
	struct io_ring *ring = guest->ring;

	io_unlock(&guest->io);
	if (ring->barrier == &guest->io)
		ring->barrier = NULL;
	ring->free[ring->nr_free++] = guest->entry;
}

static void settle(struct guest_io *guest)
{
	struct io_disk *disk = guest->io.lane->disk;

	io_settle(&guest->io);
	if (guest->recovered && atomic_fetch_sub(&disk->nr_recovered, 1) == 1)
		io_condition(disk, MSG_RECOVERING, false, "%s", "");
}

/* True: all of them were refusals. */
static bool put_answers(struct io_ring *ring, const struct io_list *answers)
{
	bool refused = true;

	for (struct io *io = answers->first; io; io = io->next) {
		const struct guest_io *guest = guest_of(io);

		refused &= guest->refused;
		inflight_answer(&ring->log, guest->entry, ring->ring.rsp_prod,
				io->status);
		CRASH_POINT(answer_noted);
		ring_put(&ring->ring, guest->job.id, guest->job.op, io->status);
		CRASH_POINT(response_written);
	}
	return refused;
}

static void end_answered(struct io_ring *ring, struct io_list *answers,
			 uint64_t now)
{
	struct io *io;

	while ((io = io_pop(answers))) {
		struct guest_io *guest = guest_of(io);

		ring->lane->answered++;
		meter_answered(ring->stats, &guest->job, io->status,
			       now - guest->taken_ns);
		settle(guest);
		CRASH_POINT(settled);
		inflight_done(&ring->log, guest->entry);
		CRASH_POINT(entry_freed);
		release(guest);
	}
}

void guest_publish(struct io_ring *ring)
{
	struct io_list answers = io_take_all(&ring->answers);
	bool refused, wanted;
	uint64_t now;
	struct io *io;

	if (!answers.first || ring->broken)
		return;
	refused = put_answers(ring, &answers);
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
	end_answered(ring, &answers, now);
	ring->stats->in_flight = ring->ring.nr_slots - ring->nr_free;
	io = ring->draining;
	if (io && ring->nr_free == ring->ring.nr_slots - 1) {
		ring->draining = NULL;
		ring->lane->again = true;
		io_advance(io);
	}
}
