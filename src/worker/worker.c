/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * worker.c - the life of a worker process.
 *
 * Theory of operation
 *
 * The main thread does what the broker says, one message after the other, and
 * may block; guests are served by the lanes.
 *
 *   OPEN        grant and event-channel devices, the stack, the engines; then
 *               isolate(): nothing can be opened any more
 *   CONNECT     the stack's locks and fences, the rings, the in-flight log of
 *               a dead worker, the lanes
 *   RESIZE      how large is the storage by now?  Asked by itself, too, every
 *               few seconds while a guest is connected
 *   DISCONNECT  the lanes end, a last flush, and all that CONNECT made is undone
 *   CLOSE       the end.  With a guest still connected, the log stays: the
 *               next worker goes on where this one stopped
 *
 * A broker that dies leaves its workers serving.  The main thread waits for the
 * next one and tells it what this worker is; nothing else changes.
 */
#include "config.h"

#include "worker/worker.h"

#include <assert.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>

#include "common/crash.h"
#include "common/log.h"
#include "common/util.h"
#include "worker/disk.h"
#include "worker/grow.h"
#include "worker/isolate.h"
#include "worker/lane.h"
#include "worker/recover.h"
#include "worker/services.h"

#define SERVICE_TIMEOUT_NS (10 * 1000000000ull)

struct worker {
	const struct worker_options *options;
	struct log_who who;
	struct services *services;
	struct grant *grant;
	struct stack *stack;
	struct inflight *log;
	struct stats_file *stats;
	struct msg_opened opened;
	struct lane *lanes[IO_MAX_LANES]; /* as many as could be needed */
	unsigned int nr_lanes;

	/* From CONNECT to DISCONNECT */
	bool connected;
	struct msg_connect connection; /* ... as it was told */
	bool activated;
	struct io_disk disk;
	struct io_ring *rings[XD_MAX_RINGS];
	unsigned int nr_rings;
	struct grow grow;
};

/* --- Answers -------------------------------------------------------------- */

static void answer_text(struct worker *worker, uint32_t seq, enum msg_type type,
			int result, const char *why)
{
	struct msg_text msg = { .h = { .seq = seq, .result = result } };

	(void)snprintf(msg.text, sizeof(msg.text), "%s", why);
	(void)services_send(worker->services, &msg, sizeof(msg), type);
}

static int say(char *ret_why, int err, const char *fmt, ...) PRINTF(3, 4);

/* Fills in a sentence and passes the error on. */
static int say(char *ret_why, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(ret_why, MSG_TEXT_MAX, fmt, ap);
	va_end(ap);
	return err;
}

/* --- OPEN ----------------------------------------------------------------- */

static unsigned int nr_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return 1;
	return (unsigned int)CPU_COUNT(&set);
}

/* One is needed; with fewer than could be used it is only slower. */
static int open_lanes(struct worker *worker, char *ret_why)
{
	uint32_t max = stack_limits(worker->stack)->max_channels;
	unsigned int wanted = MIN(nr_cpus(), IO_MAX_LANES);

	if (max)
		wanted = MIN(wanted, max);
	while (worker->nr_lanes < wanted) {
		int r = lane_new(&worker->lanes[worker->nr_lanes],
				 worker->options->domid, worker->nr_lanes);

		if (r && worker->nr_lanes == 0)
			return say(ret_why, r,
				   "event channels or I/O cannot be set up: %s",
				   strerror(-r));
		if (r)
			break;
		worker->nr_lanes++;
	}
	if (!lane_uses_uring(worker->lanes[0]))
		log_disk(&worker->who, LOG_LEVEL_INFO,
			 "without io_uring: threads make its calls");
	return 0;
}

static int open_log(struct worker *worker, char *ret_why)
{
	struct msg_service request = {
		.kind = MSG_SERVICE_KEEP,
		.layer = MSG_LAYER_NONE,
		.keep = XD_KEEP_STATE,
		.size = INFLIGHT_BYTES,
		.name = "inflight",
	};
	struct msg_service_done done;
	int fd, r;

	r = services_call(worker->services, &request, &done, &fd,
			  SERVICE_TIMEOUT_NS);
	if (r)
		return say(ret_why, r, "the in-flight log: %s", strerror(-r));
	r = inflight_open(&worker->log, fd);
	if (r)
		return say(ret_why, r, "the in-flight log: %s", strerror(-r));
	return 0;
}

static int open_all(struct worker *worker, const struct msg_open *msg,
		    char *ret_why)
{
	const struct worker_options *options = worker->options;
	int r;

	r = grant_open(&worker->grant, options->domid);
	if (r)
		return say(ret_why, r, "the grant device: %s", strerror(-r));
	r = stack_open(&worker->stack, msg->expression,
		       msg->flags & MSG_OPEN_READONLY, options->backend_dir,
		       worker->services, ret_why);
	if (r)
		return r;
	CRASH_POINT(stack_opened);
	r = open_lanes(worker, ret_why);
	if (r)
		return r;
	r = isolate(options->uid, ret_why);
	if (r)
		return r;
	CRASH_POINT(isolated);
	r = open_log(worker, ret_why);
	if (r)
		return r;
	CRASH_POINT(log_opened);
	r = meter_open(&worker->stats, worker->services);
	return r ? say(ret_why, r, "the counters: %s", strerror(-r)) : 0;
}

static void close_all(struct worker *worker)
{
	meter_close(worker->stats);
	worker->stats = NULL;
	inflight_free(worker->log);
	worker->log = NULL;
	while (worker->nr_lanes > 0) {
		lane_free(worker->lanes[--worker->nr_lanes]);
		worker->lanes[worker->nr_lanes] = NULL;
	}
	if (worker->stack)
		stack_close(worker->stack);
	worker->stack = NULL;
	grant_close(worker->grant);
	worker->grant = NULL;
}

/* What fails here is final: the process may be isolated already. */
static int handle_open(struct worker *worker, const struct msg_open *msg)
{
	struct msg_opened *opened = &worker->opened;
	char why[MSG_TEXT_MAX] = "";
	int r;

	if (worker->stack)
		return -EPROTO;
	r = open_all(worker, msg, why);
	if (r) {
		answer_text(worker, msg->h.seq, MSG_FAILED, r, why);
		close_all(worker);
		return -ECANCELED; /* the broker says why */
	}
	stack_describe(worker->stack, opened);
	worker->grow = (struct grow){ .stack = worker->stack,
				      .disk = &worker->disk,
				      .services = worker->services,
				      .opened = opened,
				      .who = &worker->who };
	opened->h.seq = msg->h.seq;
	opened->max_rings = XD_MAX_RINGS;
	opened->max_ring_order = XD_MAX_RING_ORDER;
	CRASH_POINT(opened);
	return services_send(worker->services, opened, sizeof(*opened),
			     MSG_OPENED);
}

/* --- CONNECT -------------------------------------------------------------- */

static enum blkif_layout layout_of(uint32_t abi)
{
	switch (abi) {
	case MSG_ABI_X86_32:
		return BLKIF_X86_32;
	case MSG_ABI_X86_64:
		return BLKIF_X86_64;
	default:
		return BLKIF_NATIVE;
	}
}

static int check_connect(const struct msg_connect *msg, char *ret_why)
{
	uint32_t pages = msg->ring[0].nr_refs;

	if (msg->nr_rings == 0 || msg->nr_rings > XD_MAX_RINGS ||
	    msg->abi > MSG_ABI_X86_64)
		return say(ret_why, -EINVAL, "a connection that cannot be");
	if (pages == 0 || pages > XD_MAX_RING_PAGES || pages & (pages - 1))
		return say(ret_why, -EINVAL, "a ring of %u pages", pages);
	for (uint32_t i = 1; i < msg->nr_rings; i++)
		if (msg->ring[i].nr_refs != pages)
			return say(ret_why, -EINVAL,
				   "rings of different sizes");
	return 0;
}

static int set_up_disk(struct worker *worker, const struct msg_connect *msg,
		       char *ret_why)
{
	const struct xd_limits *limits = stack_limits(worker->stack);
	uint32_t slots =
		ring_nr_slots(layout_of(msg->abi), msg->ring[0].nr_refs);
	struct io_disk *disk = &worker->disk;
	int poison = atomic_load(&disk->poison);
	int r;

	memset(disk, 0, sizeof(*disk));
	disk->services = worker->services;
	disk->grant = worker->grant;
	disk->log = worker->log;
	disk->limits = limits;
	disk->policy = stack_policy(worker->stack);
	disk->pause = stack_pause(worker->stack);
	disk->opened = &worker->opened;
	disk->who = &worker->who;
	disk->judge = (struct blkif_limits){
		.size = limits->size,
		.sector_size = limits->sector_size,
		.discard_granularity =
			msg->discard ? limits->discard_granularity : 0,
		.discard_alignment = limits->discard_alignment,
		.readonly = limits->readonly,
	};
	if (msg->flags & MSG_CONNECT_POISONED)
		poison = IO_POISONED;
	atomic_store(&disk->poison, poison);
	flush_gate_init(&disk->gate);
	standstill_init(&disk->still);
	r = range_table_new(&disk->ranges, msg->nr_rings * slots,
			    MIN(msg->nr_rings, worker->nr_lanes) > 1);
	return r ? say(ret_why, r, "no memory") : 0;
}

/* disk->nr_lanes counts those that are to be detached again. */
static int attach_lanes(struct worker *worker, uint32_t nr_rings, char *ret_why)
{
	struct io_disk *disk = &worker->disk;
	unsigned int wanted = MIN(nr_rings, worker->nr_lanes);

	while (disk->nr_lanes < wanted) {
		struct lane *lane = worker->lanes[disk->nr_lanes];
		int r = lane_attach(lane, disk, worker->stack, ret_why);

		if (r)
			return r;
		disk->lanes[disk->nr_lanes++] = lane_io(lane);
	}
	return 0;
}

static int attach_ring(struct worker *worker, const struct msg_connect *msg,
		       char *ret_why)
{
	unsigned int index = worker->nr_rings;
	const struct msg_ring *at = &msg->ring[index];
	struct lane *lane = worker->lanes[index % worker->disk.nr_lanes];
	struct io_ring *ring;
	void *pages;
	int r;

	r = grant_map(worker->grant, at->ref, at->nr_refs, &pages);
	if (r)
		return say(ret_why, r, "ring %u cannot be mapped: %s", index,
			   strerror(-r));
	r = io_ring_new(&ring, lane_io(lane), pages, at->nr_refs,
			layout_of(msg->abi), &worker->stats->queue[index]);
	if (r) {
		grant_unmap(worker->grant, pages, at->nr_refs);
		return say(ret_why, r, "no memory for ring %u", index);
	}
	CRASH_POINT(ring_mapped);
	worker->rings[worker->nr_rings++] = ring;
	r = lane_add_ring(lane, ring, at->event_channel);
	if (r)
		return say(ret_why, r,
			   "event channel %u of ring %u cannot be bound: %s",
			   at->event_channel, index, strerror(-r));
	CRASH_POINT(ring_bound);
	return 0;
}

/* --- Whose log it is ------------------------------------------------------ */

/* FNV-1a over the identities of all storage in the stack. */
static uint32_t hash_storage(const struct msg_opened *opened)
{
	uint32_t hash = 0x811c9dc5u;

	for (uint32_t i = 0; i < opened->nr_identities; i++)
		for (const char *p = opened->identity[i];; p++) {
			hash = (hash ^ (unsigned char)*p) * 0x01000193u;
			if (!*p)
				break;
		}
	return hash;
}

static struct inflight_id identify(const struct worker *worker,
				   const struct msg_connect *msg)
{
	struct inflight_id id = {
		.domid = worker->options->domid,
		.devid = worker->options->devid,
		.layout = layout_of(msg->abi),
		.nr_rings = msg->nr_rings,
		.nr_slots = worker->rings[0]->ring.nr_slots,
		.storage = hash_storage(&worker->opened),
	};

	(void)snprintf(id.vm, sizeof(id.vm), "%s", worker->options->vm);
	for (uint32_t i = 0; i < msg->nr_rings; i++) {
		id.ring[i].event_channel = msg->ring[i].event_channel;
		id.ring[i].nr_refs = msg->ring[i].nr_refs;
		for (uint32_t p = 0; p < msg->ring[i].nr_refs; p++)
			id.ring[i].ref[p] = msg->ring[i].ref[p];
	}
	return id;
}

/* --- CONNECT, DISCONNECT -------------------------------------------------- */

static int connect_all(struct worker *worker, const struct msg_connect *msg,
		       char *ret_why)
{
	bool again = msg->flags & MSG_CONNECT_RECOVER;
	struct inflight_id id;
	int r;

	r = check_connect(msg, ret_why);
	if (r)
		return r;
	r = set_up_disk(worker, msg, ret_why);
	if (r)
		return r;
	r = stack_activate(worker->stack, again, ret_why);
	if (r)
		return r;
	worker->activated = true;
	grow_look(&worker->grow);
	CRASH_POINT(activated);
	r = attach_lanes(worker, msg->nr_rings, ret_why);
	CRASH_POINT(lanes_attached);
	while (!r && worker->nr_rings < msg->nr_rings)
		r = attach_ring(worker, msg, ret_why);
	if (r)
		return r;
	meter_begin(worker->stats, worker->nr_rings);
	id = identify(worker, msg);
	if (again)
		r = recover(&worker->disk, worker->rings, worker->nr_rings, &id,
			    ret_why);
	else
		recover_nothing(&worker->disk, worker->rings, worker->nr_rings,
				&id);
	for (unsigned int i = 0; !r && i < worker->disk.nr_lanes; i++) {
		r = lane_start(worker->lanes[i]);
		if (r)
			(void)say(ret_why, r, "a thread cannot be started: %s",
				  strerror(-r));
	}
	CRASH_POINT(lanes_started);
	return r;
}

/* Undoes connect_all(), as far as it came. */
static int disconnect_all(struct worker *worker, bool last_flush, char *ret_why)
{
	struct io_disk *disk = &worker->disk;
	int r = 0, r2;

	for (unsigned int i = 0; i < disk->nr_lanes; i++)
		io_poke(disk->lanes[i]);
	for (unsigned int i = 0; i < disk->nr_lanes; i++)
		lane_join(worker->lanes[i]);
	CRASH_POINT(lanes_joined);
	if (last_flush)
		r = flush_last(lane_io(worker->lanes[0]));
	CRASH_POINT(last_flushed);
	if (r)
		(void)say(ret_why, r, "the last flush failed: %s",
			  strerror(-r));
	for (unsigned int i = 0; i < disk->nr_lanes; i++)
		lane_detach(worker->lanes[i]);
	while (worker->nr_rings > 0) {
		struct io_ring *ring = worker->rings[--worker->nr_rings];

		grant_unmap(worker->grant, ring->pages, ring->nr_pages);
		io_ring_free(ring);
	}
	CRASH_POINT(rings_unmapped);
	if (worker->activated) {
		char why[MSG_TEXT_MAX] = "";

		r2 = stack_deactivate(worker->stack, why);
		if (r2 && !r)
			r = say(ret_why, r2, "%s", why);
	}
	CRASH_POINT(deactivated);
	worker->activated = false;
	range_table_free(disk->ranges);
	disk->ranges = NULL;
	standstill_destroy(&disk->still);
	flush_gate_destroy(&disk->gate);
	disk->nr_lanes = 0;
	return r;
}

static void end_conditions(struct io_disk *disk)
{
	if (atomic_load(&disk->nr_held))
		pause_end(disk->pause);
	if (atomic_load(&disk->nr_recovered))
		io_condition(disk, MSG_RECOVERING, false, "%s", "");
}

static int handle_connect(struct worker *worker, const struct msg_connect *msg)
{
	struct msg_header done = { .seq = msg->h.seq };
	char why[MSG_TEXT_MAX] = "", ignored[MSG_TEXT_MAX];
	int r;

	if (!worker->stack || worker->connected)
		return -EPROTO;
	r = connect_all(worker, msg, why);
	if (r) {
		atomic_store(&worker->disk.stop, true);
		(void)disconnect_all(worker, false, ignored);
		end_conditions(&worker->disk);
		answer_text(worker, msg->h.seq, MSG_FAILED, r, why);
		return 0;
	}
	worker->connected = true;
	worker->connection = *msg;
	CRASH_POINT(connected);
	return services_send(worker->services, &done, sizeof(done),
			     MSG_CONNECTED);
}

static int handle_disconnect(struct worker *worker,
			     const struct msg_header *msg)
{
	struct io_disk *disk = &worker->disk;
	char why[MSG_TEXT_MAX] = "";
	int r = 0;

	if (worker->connected) {
		bool clean = atomic_load(&disk->poison) == IO_CLEAN;

		atomic_store(&disk->stop, true);
		r = disconnect_all(worker, clean, why);
		if (!r && !clean)
			r = say(why, -EIO, "the disk is poisoned");
		/* The log is what remembers a failure without a mark. */
		if (flush_mark(disk) == 0)
			inflight_clear(worker->log);
		CRASH_POINT(log_cleared);
		end_conditions(disk);
		worker->connected = false;
	}
	answer_text(worker, msg->seq, MSG_DISCONNECTED, r, why);
	return 0;
}

/* What waits for an error to pass is tried at once. */
static void wake_held(struct io_disk *disk)
{
	for (unsigned int i = 0; i < disk->nr_lanes; i++) {
		atomic_store(&disk->lanes[i]->resume, true);
		io_poke(disk->lanes[i]);
	}
}

static int handle_resume(struct worker *worker, const struct msg_resume *msg)
{
	struct io_disk *disk = &worker->disk;
	bool poisoned = atomic_load(&disk->poison) != IO_CLEAN;

	if (poisoned && !msg->accept_loss) {
		answer_text(worker, msg->h.seq, MSG_RESUMED, -EBUSY,
			    "the disk is poisoned: a flush has failed");
		return 0;
	}
	disk->services = worker->services;
	flush_hold_marks(disk);
	flush_forgive(disk);
	answer_text(worker, msg->h.seq, MSG_RESUMED, 0, "");
	flush_let_marks(disk);
	wake_held(disk);
	return 0;
}

static int handle_resize(struct worker *worker, const struct msg_resize *msg)
{
	char why[MSG_TEXT_MAX] = "";
	int r;

	if (!worker->stack)
		return -EPROTO;
	r = grow_resize(&worker->grow, msg->size, why);
	answer_text(worker, msg->h.seq, MSG_RESIZED, r, why);
	return 0;
}

/* The guest may be connected still: what it is owed stays in the log. */
static void handle_close(struct worker *worker)
{
	char why[MSG_TEXT_MAX] = "";

	if (worker->connected) {
		atomic_store(&worker->disk.stop, true);
		if (disconnect_all(worker, false, why))
			log_disk(&worker->who, LOG_LEVEL_ERROR, "%s", why);
	}
	close_all(worker);
}

/* --- The life ------------------------------------------------------------- */

static int say_hello(struct worker *worker)
{
	const struct worker_options *options = worker->options;
	struct msg_hello msg = {
		.id = { .domid = options->domid,
			.devid = options->devid,
			.backend_domid = options->backend_domid },
		.pid = (uint32_t)getpid(),
	};

	(void)snprintf(msg.id.vm, sizeof(msg.id.vm), "%s", options->vm);
	return services_introduce(worker->services, &msg, sizeof(msg),
				  MSG_HELLO);
}

static int handle(struct worker *worker, const void *msg)
{
	const struct msg_header *header = msg;

	switch (header->type) {
	case MSG_OPEN:
		return handle_open(worker, msg);
	case MSG_CONNECT:
		return handle_connect(worker, msg);
	case MSG_DISCONNECT:
		return handle_disconnect(worker, msg);
	case MSG_RESUME:
		return handle_resume(worker, msg);
	case MSG_RESIZE:
		return handle_resize(worker, msg);
	default:
		return -EPROTO;
	}
}

/* --- Another broker ------------------------------------------------------- */

static int introduce(void *ctx)
{
	struct worker *worker = ctx;
	struct msg_serving serving = {
		.budget = services_budget(worker->services),
	};
	int r = say_hello(worker);

	worker->opened.h.seq = 0;
	if (!r)
		r = services_introduce(worker->services, &worker->opened,
				       sizeof(worker->opened), MSG_OPENED);
	if (worker->connected)
		serving.connect = worker->connection;
	if (!r)
		r = services_introduce(worker->services, &serving,
				       sizeof(serving), MSG_SERVING);
	return r;
}

/* What could not be done or told without a broker, and will not be tried again
 * by itself, or only after a while. */
static void catch_up(struct worker *worker)
{
	struct io_disk *disk = &worker->disk;
	struct msg_text broken = { .text = IO_BROKEN_TEXT };

	grow_tell(&worker->grow);
	if (!worker->connected) {
		if (atomic_load(&disk->poison) == IO_FAILED &&
		    flush_mark(disk) == 0)
			inflight_clear(worker->log);
		return;
	}
	if (atomic_load(&disk->broken))
		(void)services_send(worker->services, &broken, sizeof(broken),
				    MSG_BROKEN);
	wake_held(disk);
}

/* Without a broker nothing can be opened or closed, but the guest does not have
 * to know. */
static int find_broker(struct worker *worker)
{
	int r;

	log_disk(&worker->who, LOG_LEVEL_WARNING, "the broker is gone%s",
		 worker->connected ? ": the guest is served on" : "");
	r = services_await(worker->services, introduce, worker);
	if (r) {
		log_disk(&worker->who, LOG_LEVEL_ERROR,
			 "cannot wait for another broker: %s", strerror(-r));
		/* Not pause(): isolate() forbids it, and this would spin. */
		for (;;)
			(void)poll(NULL, 0, -1);
	}
	catch_up(worker);
	return 0;
}

static int live(struct worker *worker)
{
	static _Alignas(16) unsigned char buf[MSG_MAX];
	size_t length;
	int r = say_hello(worker);

	while (!r) {
		const struct msg_header *header = (const void *)buf;

		r = services_next(worker->services, buf, &length,
				  worker->connected ? worker->grow.look_at :
						      UINT64_MAX);
		if (r == -ETIMEDOUT) {
			grow_look(&worker->grow);
			r = 0;
			continue;
		}
		if (r == -ECONNRESET && worker->stack) {
			r = find_broker(worker);
			continue;
		}
		if (r)
			break;
		if (header->type == MSG_CLOSE) {
			handle_close(worker);
			return 0;
		}
		r = handle(worker, buf);
		if (r == -ECONNRESET)
			r = 0; /* the next message says so */
	}
	/* Without a broker a disk cannot be opened. */
	return r == -ECONNRESET ? 0 : r;
}

int worker_main(const struct worker_options *options)
{
	static struct worker worker;
	int r;

	worker.options = options;
	worker.who.domid = options->domid;
	worker.who.devid = options->devid;
	r = services_new(&worker.services, options->sock, options->listener);
	if (r) {
		log_error("no connection to the broker: %s", strerror(-r));
		return 1;
	}
	r = live(&worker);
	if (r && r != -ECANCELED)
		log_disk(&worker.who, LOG_LEVEL_ERROR, "the worker ends: %s",
			 strerror(-r));
	return r ? 1 : 0;
}
