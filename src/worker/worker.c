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
 *   CLIENT      an NBD client, with a guest or without: use.c
 *   CONTROL     the operator wants something of a backend
 *   CLOSE       the end.  With a guest still connected, the log stays: the
 *               next worker goes on where this one stopped
 *
 * A broker that dies leaves its workers serving.  The main thread waits for the
 * next one and tells it what this worker is; nothing else changes.
 */
#include "config.h"

#include "worker/worker.h"

#include <poll.h>
#include <sched.h>
#include <string.h>

#include "common/crash.h"
#include "common/log.h"
#include "common/util.h"
#include "worker/disk.h"
#include "worker/isolate.h"
#include "worker/services.h"
#include "worker/use.h"
#include "worker/written.h"

/* How often a disk is looked at that only NBD clients use: have they gone? */
#define CLIENTS_LOOK_NS 1000000000ull

/* --- Answers -------------------------------------------------------------- */

static void answer_text(struct worker *worker, uint32_t seq, enum msg_type type,
			int result, const char *why)
{
	struct msg_text msg = { .h = { .seq = seq, .result = result } };

	(void)snprintf(msg.text, sizeof(msg.text), "%s", why);
	(void)services_send(worker->services, &msg, sizeof(msg), type);
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
			return msg_why(
				ret_why, r,
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
	int fd, r = services_keep(worker->services, "inflight", INFLIGHT_BYTES,
				  &fd);

	if (!r)
		r = inflight_open(&worker->log, fd);
	return r ? msg_why(ret_why, r, "the in-flight log: %s", strerror(-r)) :
		   0;
}

static int open_all(struct worker *worker, const struct msg_open *msg,
		    char *ret_why)
{
	const struct worker_options *options = worker->options;
	const struct stack_spec spec = {
		.expression = msg->expression,
		.read_only = msg->flags & MSG_OPEN_READONLY,
		.backend_dir = options->backend_dir,
		.state_dir = options->state_dir,
	};
	int r;

	r = grant_open(&worker->grant, options->domid);
	if (r)
		return msg_why(ret_why, r, "the grant device: %s",
			       strerror(-r));
	r = stack_open(&worker->stack, &spec, worker->services, ret_why);
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
	written_open(worker->stack);
	r = meter_open(&worker->stats, &worker->stats_fd, worker->services);
	return r ? msg_why(ret_why, r, "the counters: %s", strerror(-r)) : 0;
}

static void close_all(struct worker *worker)
{
	if (worker->stats)
		(void)close(worker->stats_fd);
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
	worker->fence = msg->flags & MSG_OPEN_FENCE;
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

/* --- CONNECT, DISCONNECT, CLIENT ------------------------------------------ */

static int handle_connect(struct worker *worker, const struct msg_connect *msg)
{
	struct msg_header done = { .seq = msg->h.seq };
	char why[MSG_TEXT_MAX] = "";
	int r;

	if (!worker->stack || worker->connected)
		return -EPROTO;
	r = use_connect(worker, msg, why);
	if (r) {
		answer_text(worker, msg->h.seq, MSG_FAILED, r, why);
		return 0;
	}
	return services_send(worker->services, &done, sizeof(done),
			     MSG_CONNECTED);
}

static int handle_disconnect(struct worker *worker,
			     const struct msg_header *msg)
{
	char why[MSG_TEXT_MAX] = "";
	int r = 0;

	if (worker->connected)
		r = use_disconnect(worker, why);
	answer_text(worker, msg->seq, MSG_DISCONNECTED, r, why);
	return 0;
}

/* The client hears nothing if it cannot be served, but that it is over. */
static int handle_client(struct worker *worker, const struct msg_client *msg,
			 int fd)
{
	cleanup_close int client = fd;
	char why[MSG_TEXT_MAX] = "";
	int r;

	if (!worker->stack || fd < 0)
		return -EPROTO;
	r = use_client(worker, msg, fd, why);
	if (!r)
		(void)TAKE_FD(client);
	answer_text(worker, msg->h.seq, MSG_CLIENT_TAKEN, r, why);
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

/* Nothing else is done meanwhile: see xendisk-backend.h. */
static int handle_control(struct worker *worker, const struct msg_control *msg)
{
	struct msg_controlled answer = { .h.seq = msg->h.seq };
	char why[MSG_TEXT_MAX] = "";
	int r;

	if (!worker->stack)
		return -EPROTO;
	r = stack_control(worker->stack, msg->verb, msg->text, answer.text,
			  sizeof(answer.text), why);
	answer.h.result = r;
	if (r < 0)
		(void)snprintf(answer.text, sizeof(answer.text), "%s", why);
	return services_send(worker->services, &answer, sizeof(answer),
			     MSG_CONTROLLED);
}

static void handle_close(struct worker *worker)
{
	char why[MSG_TEXT_MAX] = "";

	if (use_end(worker, why))
		log_disk(&worker->who, LOG_LEVEL_ERROR, "%s", why);
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

/* Takes over fd. */
static int handle(struct worker *worker, const void *msg, int fd)
{
	const struct msg_header *header = msg;
	cleanup_close int not_wanted = fd;

	switch (header->type) {
	case MSG_CLIENT:
		return handle_client(worker, msg, TAKE_FD(not_wanted));
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
	case MSG_CONTROL:
		return handle_control(worker, msg);
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
	stack_tell_changed(worker->stack);
	/* Lanes that run look after it themselves, those of NBD clients too. */
	if (!worker->running) {
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

/* What is to be looked at now and then. */
static void look(struct worker *worker)
{
	if (worker->running && now_ns() >= worker->grow.look_at)
		grow_look(&worker->grow);
	use_look(worker);
}

static uint64_t next_look(const struct worker *worker)
{
	uint64_t at = worker->running ? worker->grow.look_at : UINT64_MAX;

	if (use_is_of_clients(worker))
		at = MIN(at, now_ns() + CLIENTS_LOOK_NS);
	return at;
}

static int live(struct worker *worker)
{
	static _Alignas(16) unsigned char buf[MSG_MAX];
	size_t length;
	int fd, r = say_hello(worker);

	while (!r) {
		const struct msg_header *header = (const void *)buf;

		r = services_next(worker->services, buf, &length, &fd,
				  next_look(worker));
		if (r == -ETIMEDOUT) {
			look(worker);
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
		r = handle(worker, buf, fd);
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
