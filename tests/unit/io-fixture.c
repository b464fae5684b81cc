/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>

#include "io-fixture.h"
#include "worker/io-client.h"
#include "worker/services.h"

struct fix fix;

#define STORE_BYTES (64u << 20)

static void record(enum fix_event_kind kind, unsigned int op, uint64_t offset,
		   int64_t length)
{
	assert_true(fix.nr_events < ARRAY_SIZE(fix.events));
	fix.events[fix.nr_events++] =
		(struct fix_event){ kind, op, offset, length };
}

/* --- In place of the grant device --------------------------------------------------- */

struct grant_batch {
	unsigned int count;
	struct {
		enum grant_direction direction;
		uint32_t gref;
		uint16_t offset, length;
		void *local;
		int *err;
	} segments[65536];
};

static struct grant_batch the_batch;

bool grant_batch_add(struct grant_batch *batch, enum grant_direction direction,
		     uint32_t gref, uint16_t offset, uint16_t length,
		     void *local, int *err)
{
	assert_true(offset + length <= 4096 && length > 0);
	batch->segments[batch->count].direction = direction;
	batch->segments[batch->count].gref = gref;
	batch->segments[batch->count].offset = offset;
	batch->segments[batch->count].length = length;
	batch->segments[batch->count].local = local;
	batch->segments[batch->count++].err = err;
	return false;
}

void grant_batch_run(struct grant_batch *batch)
{
	record(FIX_COPY, 0, 0, batch->count);
	for (unsigned int i = 0; i < batch->count; i++) {
		uint32_t gref = batch->segments[i].gref;
		uint8_t *page = fix.guest + (size_t)gref * 4096 +
				batch->segments[i].offset;

		if (gref >= FIX_PAGES || gref == fix.bad_gref)
			*batch->segments[i].err = -EIO;
		else if (batch->segments[i].direction == GRANT_FROM_GUEST)
			memcpy(batch->segments[i].local, page,
			       batch->segments[i].length);
		else
			memcpy(page, batch->segments[i].local,
			       batch->segments[i].length);
	}
	batch->count = 0;
}

uint64_t grant_batch_idle_ns(const struct grant_batch *batch)
{
	(void)batch;
	return fix.idle_ns ? fix.idle_ns : UINT64_MAX;
}

void grant_batch_idle(struct grant_batch *batch)
{
	(void)batch;
	record(FIX_IDLE, 0, 0, 0);
}

/* --- In place of events, engine and broker -------------------------------------------- */

void evtchn_notify(struct evtchn *evtchn, uint32_t port)
{
	(void)evtchn;
	(void)port;
	record(FIX_NOTIFY, 0, 0, 0);
}

void engine_wake(struct engine *engine)
{
	(void)engine;
}

int engine_run(struct engine *engine, uint64_t wait_ns)
{
	(void)engine;
	(void)wait_ns;
	return 0;
}

int services_send(struct services *services, void *msg, size_t length,
		  enum msg_type type)
{
	(void)services;
	(void)msg;
	(void)length;
	assert_int_equal(type, MSG_BROKEN);
	record(FIX_BROKEN, 0, 0, 0);
	return 0;
}

int services_tell(struct services *services, struct msg_condition *condition)
{
	void (*before)(void) = TAKE_PTR(fix.before_telling);

	(void)services;
	if (before)
		before();
	record(FIX_CONDITION, condition->kind, condition->set, 0);
	return 0;
}

int services_call(struct services *services, struct msg_service *request,
		  struct msg_service_done *ret_done, int *ret_fd,
		  uint64_t timeout_ns)
{
	(void)services;
	(void)ret_done;
	(void)ret_fd;
	(void)timeout_ns;
	assert_int_equal(request->kind, MSG_SERVICE_POISON);
	assert_string_equal(request->name, "file:/x");
	record(FIX_MARK, 0, 0, 0);
	if (fix.while_marking)
		fix.while_marking();
	return fix.mark_result;
}

int services_keep(struct services *services, const char *name, uint64_t size,
		  int *ret_fd)
{
	(void)services;
	(void)name;
	(void)size;
	(void)ret_fd;
	return -ENOTCONN;
}

/* --- In place of the stack ------------------------------------------------------------ */

void xd_submit(struct xd_channel *below, struct xd_request *req)
{
	(void)below;
	record(FIX_SUBMIT, req->op, req->offset, (int64_t)req->length);
	assert_true(fix.nr_queue < ARRAY_SIZE(fix.queue));
	fix.queue[fix.nr_queue++] = req;
}

int xd_map(struct xd_channel *below, struct xd_request *req,
	   struct iovec *ret_iov, unsigned int *io_iovcnt)
{
	uint64_t first = MIN(req->length, 3000u);

	(void)below;
	if (!fix.maps)
		return -EOPNOTSUPP;
	/* In two pieces, across the guest's segments. */
	ret_iov[0] = (struct iovec){ fix.store + req->offset, first };
	ret_iov[1] = (struct iovec){ fix.store + req->offset + first,
				     req->length - first };
	*io_iovcnt = first < req->length ? 2 : 1;
	return 0;
}

void xd_unmap(struct xd_channel *below, struct xd_request *req, int err)
{
	(void)below;
	(void)req;
	(void)err;
	assert_true(fix.maps);
}

void stack_kick(struct xd_channel *top)
{
	(void)top;
	record(FIX_KICK, 0, 0, 0);
}

unsigned int stack_reap(struct xd_channel *top)
{
	(void)top;
	return 0;
}

static void move_data(struct xd_request *req)
{
	uint8_t *at = fix.store + req->offset;

	for (unsigned int i = 0; i < req->iovcnt; i++) {
		const struct iovec *iov = &req->iov[i];

		assert_true(at + iov->iov_len <= fix.store + STORE_BYTES);
		if (req->op == XD_READ)
			memcpy(iov->iov_base, at, iov->iov_len);
		else
			memcpy(at, iov->iov_base, iov->iov_len);
		at += iov->iov_len;
	}
}

static void complete(unsigned int n, int err)
{
	struct xd_request *req = fix.queue[n];

	assert_true(n < fix.nr_queue);
	fix.nr_queue--;
	memmove(&fix.queue[n], &fix.queue[n + 1],
		(fix.nr_queue - n) * sizeof(fix.queue[0]));
	if (!err)
		move_data(req);
	req->done(req, err);
}

void fix_complete(unsigned int n, int err)
{
	complete(n, err);
	fix_run();
}

void fix_complete_at_once(void)
{
	for (unsigned int n = fix.nr_queue; n > 0; n--)
		complete(0, 0);
	fix_run();
}

/* --- The guest ------------------------------------------------------------------------- */

static uint32_t *word(unsigned int n)
{
	return (uint32_t *)(void *)fix.shared + n;
}

static enum blkif_layout layout(void)
{
	return fix.guest32 ? BLKIF_X86_32 : BLKIF_X86_64;
}

static uint8_t *slot(uint32_t index)
{
	return fix.shared + 64 + (index % 32) * blkif_slot_size(layout());
}

/* Where the id is; what follows it is the same in all layouts. */
static uint8_t *at_id(uint8_t *s)
{
	return s + (fix.guest32 ? 4 : 8);
}

static uint8_t *new_request(uint8_t op, uint8_t second, uint64_t id,
			    uint64_t sector)
{
	uint8_t *s = slot(fix.req_prod);

	assert_true(fix.req_prod - fix.rsp_cons < 32);
	memset(s, 0, blkif_slot_size(layout()));
	s[0] = op;
	s[1] = second;
	memcpy(at_id(s), &id, 8);
	memcpy(at_id(s) + 8, &sector, 8);
	return s;
}

static void put_segments(uint8_t *at, uint32_t gref, unsigned int segments)
{
	for (unsigned int i = 0; i < segments; i++, gref++) {
		memcpy(at + (size_t)i * 8, &gref, 4);
		at[i * 8 + 4] = 0;
		at[i * 8 + 5] = 7;
	}
}

static void publish_request(void)
{
	*word(0) = ++fix.req_prod;
}

void fix_rw(uint8_t op, uint64_t id, uint64_t sector, uint32_t gref,
	    unsigned int segments)
{
	uint8_t *s = new_request(op, (uint8_t)segments, id, sector);

	put_segments(at_id(s) + 16, gref, segments);
	publish_request();
}

void fix_indirect(uint8_t op, uint64_t id, uint64_t sector, uint32_t list_gref,
		  uint32_t gref, unsigned int segments)
{
	uint8_t *s = new_request(6, op, id, sector);
	uint16_t n = (uint16_t)segments;

	memcpy(s + 2, &n, 2);
	memcpy(at_id(s) + 20, &list_gref, 4);
	put_segments(fix.guest + (size_t)list_gref * 4096, gref, segments);
	publish_request();
}

void fix_discard(uint64_t id, uint64_t sector, uint64_t sectors)
{
	uint8_t *s = new_request(5, 0, id, sector);

	memcpy(at_id(s) + 16, &sectors, 8);
	publish_request();
}

static void take_responses(void)
{
	while (fix.rsp_cons != *word(2)) {
		uint8_t *s = slot(fix.rsp_cons++);
		uint64_t id;
		int16_t status;

		memcpy(&id, s, 8);
		memcpy(&status, s + 10, 2);
		record(FIX_RESPONSE, s[8], id, status);
	}
	*word(3) = fix.rsp_cons + 1;
}

void fix_run(void)
{
	do
		while (io_pump(&fix.lane))
			take_responses();
	while (io_arm(&fix.lane));
	take_responses();
}

/* --- What happened ----------------------------------------------------------------------- */

unsigned int fix_count(enum fix_event_kind kind)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < fix.nr_events; i++)
		n += fix.events[i].kind == kind;
	return n;
}

unsigned int fix_responses(uint64_t id)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < fix.nr_events; i++)
		n += fix.events[i].kind == FIX_RESPONSE &&
		     fix.events[i].offset == id;
	return n;
}

int fix_status(uint64_t id)
{
	for (unsigned int i = 0; i < fix.nr_events; i++)
		if (fix.events[i].kind == FIX_RESPONSE &&
		    fix.events[i].offset == id)
			return (int)fix.events[i].length;
	return 99;
}

void fix_forget_events(void)
{
	fix.nr_events = 0;
}

/* --- Beginning and end ------------------------------------------------------------------- */

static void attach(void)
{
	struct io_disk *disk = &fix.disk;

	memset(disk, 0, sizeof(*disk));
	memset(&fix.lane, 0, sizeof(fix.lane));
	the_batch.count = 0;
	fix.nr_queue = 0;
	disk->limits = &fix.limits;
	disk->policy = &fix.policy;
	disk->pause = &fix.pause;
	pause_init(disk->pause, NULL);
	disk->opened = &fix.opened;
	disk->who = &fix.who;
	disk->judge = (struct blkif_limits){
		.size = fix.limits.size,
		.sector_size = fix.limits.sector_size,
		.discard_granularity = fix.limits.discard_granularity,
		.readonly = fix.limits.readonly,
	};
	flush_gate_init(&disk->gate);
	standstill_init(&disk->still);
	assert_int_equal(
		range_table_new(&disk->ranges, 32 + CLIENT_IOS_MAX, false), 0);
	disk->nr_lanes = 1;
	disk->lanes[0] = &fix.lane;
	fix.lane.disk = disk;
	fix.lane.batch = &the_batch;
	assert_int_equal(buffer_arena_new(&fix.lane.arena, IO_ARENA_BYTES), 0);
	assert_int_equal(io_ring_new(&fix.ring, &fix.lane,
				     fix.view ? fix.view : fix.shared, 1,
				     layout(), &fix.stats),
			 0);
	fix.lane.rings[0] = fix.ring;
	fix.lane.nr_rings = 1;
}

static void detach(void)
{
	io_ring_free(fix.ring);
	buffer_arena_free(fix.lane.arena);
	range_table_free(fix.disk.ranges);
	standstill_destroy(&fix.disk.still);
	flush_gate_destroy(&fix.disk.gate);
	pause_destroy(&fix.pause);
	inflight_free(fix.log);
}

static void open_log(void)
{
	assert_int_equal(inflight_open(&fix.log, dup(fix.log_fd)), 0);
	fix.disk.log = fix.log;
}

static const struct inflight_id the_id = { .nr_rings = 1, .nr_slots = 32 };

void fix_start(void)
{
	fix_start_at(0, 0);
}

void fix_start_at(uint32_t index, uint32_t req_prod)
{
	if (!fix.limits.size)
		fix.limits = (struct xd_limits){
			.size = FIX_DISK_BYTES,
			.sector_size = 512,
			.physical_sector_size = 4096,
			.discard_granularity = 4096,
			.flush = true,
		};
	fix.opened.nr_identities = 1;
	(void)snprintf(fix.opened.identity[0], MSG_IDENTITY_MAX, "file:/x");
	if (!fix.view)
		fix.shared = aligned_alloc(4096, 4096);
	memset(fix.shared, 0, 4096);
	*word(0) = fix.req_prod = req_prod;
	*word(2) = fix.rsp_cons = index;
	*word(3) = index + 1;
	fix.guest = calloc(FIX_PAGES, 4096);
	fix.store = calloc(1, STORE_BYTES);
	fix.bad_gref = UINT32_MAX;
	fix.log_fd = memfd_create("inflight", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fix.log_fd, INFLIGHT_BYTES), 0);
	attach();
	open_log();
	inflight_start(fix.log, &the_id, &index);
	io_ring_begin(fix.ring, inflight_ring(fix.log, 0), NULL);
}

void fix_stop(void)
{
	detach();
	if (!fix.view)
		free(fix.shared);
	free(fix.guest);
	free(fix.store);
	(void)close(fix.log_fd);
	memset(&fix, 0, sizeof(fix));
}

void fix_die_and_adopt(void)
{
	struct inflight_plan *plan = calloc(1, sizeof(*plan));
	struct inflight_image *image;
	struct inflight_ring log;
	char why[MSG_TEXT_MAX];

	detach();
	attach();
	open_log();
	assert_int_equal(inflight_load(fix.log, &the_id, &image, why), 0);
	assert_int_equal(inflight_plan(image->entries, 32, image->cursor,
				       fix.ring->ring.rsp_prod, plan),
			 0);
	flush_recover(&fix.disk, image->notes);
	log = inflight_ring(fix.log, 0);
	inflight_adopt(&log, image->entries, plan, fix.ring->ring.rsp_prod);
	atomic_store(&fix.disk.nr_recovered, plan->nr_replay);
	io_ring_begin(fix.ring, log, plan);
	free(image);
}

void fix_die_and_begin(void)
{
	fix_die_and_adopt();
	io_ring_recover(fix.ring);
}

void fix_die_and_recover(void)
{
	fix_die_and_begin();
	fix_run();
}

void fix_fill(uint32_t gref, unsigned int pages, uint8_t value)
{
	memset(fix.guest + (size_t)gref * 4096, value, (size_t)pages * 4096);
}

void fix_complete_all(void)
{
	while (fix.nr_queue > 0)
		fix_complete(0, 0);
}

unsigned int fix_when(enum fix_event_kind kind, unsigned int op)
{
	for (unsigned int i = 0; i < fix.nr_events; i++)
		if (fix.events[i].kind == kind && fix.events[i].op == op)
			return i;
	fail_msg("no event %u/%u", kind, op);
	return 0;
}

int fix_setup(void **state)
{
	(void)state;
	fix_start();
	return 0;
}

int fix_teardown(void **state)
{
	(void)state;
	fix_stop();
	return 0;
}
