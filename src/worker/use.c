/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * use.c - the disk in use: from the first who needs it to the last.
 *
 * Theory of operation
 *
 * A disk is used by its guest, from CONNECT to DISCONNECT, and by NBD clients,
 * from one's coming (CLIENT) until the last has gone.  While it is used the stack
 * is active, which means that its locks are taken, and lanes run.
 *
 * Whenever a guest comes or goes the lanes are ended and started again, with other
 * rings, and perhaps another number of them: so nothing has to be changed beside
 * threads that run.  Clients that are there are parked for that moment, with what
 * they wait for, and see a short delay.  Between a guest and clients the stack
 * stays active: nobody else gets at the storage.
 *
 *	begin()		the disk as lanes see it, locks and fences, lanes, rings,
 *			log, clients, threads
 *	end()		the reverse
 *
 * Fences: a worker that dies may leave writes under way, its guest's or its
 * clients'.  The next one is told so when it opens (worker->fence), and the first
 * begin() activates the stack with recover set, which returns only when none of
 * them can reach the storage any more, whoever had asked for it.  Clients' requests
 * are not executed again: their clients have seen the connection close.
 *
 * With requests of a guest in the log no client is served before that guest is
 * connected again: it would be told of data that its guest's requests are about to
 * change back.
 */
#include "config.h"

#include "worker/use.h"

#include <assert.h>
#include <string.h>

#include "common/crash.h"
#include "common/log.h"
#include "common/util.h"
#include "worker/recover.h"
#include "worker/services.h"

/* --- Beginning ------------------------------------------------------------ */

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
		return msg_why(ret_why, -EINVAL, "a connection that cannot be");
	if (!is_power_of_2(pages) || pages > XD_MAX_RING_PAGES)
		return msg_why(ret_why, -EINVAL, "a ring of %u pages", pages);
	for (uint32_t i = 1; i < msg->nr_rings; i++)
		if (msg->ring[i].nr_refs != pages)
			return msg_why(ret_why, -EINVAL,
				       "rings of different sizes");
	return 0;
}

/* Which lanes: with a guest, no more than it has rings. */
static unsigned int lanes_wanted(const struct worker *worker, uint32_t nr_rings)
{
	return nr_rings ? MIN(nr_rings, worker->nr_lanes) : worker->nr_lanes;
}

/* msg NULL: no guest. */
static int set_up_disk(struct worker *worker, const struct msg_connect *msg,
		       char *ret_why)
{
	const struct xd_limits *limits = stack_limits(worker->stack);
	uint32_t nr_rings = msg ? msg->nr_rings : 0;
	unsigned int lanes = lanes_wanted(worker, nr_rings);
	uint32_t writers = lanes * CLIENT_IOS_MAX;
	struct io_disk *disk = &worker->disk;
	int poison = atomic_load(&disk->poison);
	int r;

	memset(disk, 0, sizeof(*disk));
	disk->services = worker->services;
	disk->grant = worker->grant;
	disk->persistent = msg && msg->flags & MSG_CONNECT_PERSISTENT;
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
			msg && msg->discard ? limits->discard_granularity : 0,
		.discard_alignment = limits->discard_alignment,
		.readonly = limits->readonly,
	};
	atomic_store(&disk->poison, poison);
	flush_gate_init(&disk->gate);
	standstill_init(&disk->still);
	if (msg)
		writers += nr_rings * ring_nr_slots(layout_of(msg->abi),
						    msg->ring[0].nr_refs);
	r = range_table_new(&disk->ranges, writers, lanes > 1);
	return r ? msg_why(ret_why, r, "no memory") : 0;
}

/* disk->nr_lanes counts those that are to be detached again. */
static int attach_lanes(struct worker *worker, uint32_t nr_rings, char *ret_why)
{
	struct io_disk *disk = &worker->disk;
	unsigned int wanted = lanes_wanted(worker, nr_rings);

	while (disk->nr_lanes < wanted) {
		struct lane *lane = worker->lanes[disk->nr_lanes];
		int r = lane_attach(lane, disk, worker->stack, ret_why);

		if (r)
			return r;
		disk->lanes[disk->nr_lanes++] = lane_io(lane);
	}
	return 0;
}

/* -ESRCH where that is why: "invalid" is all that Linux says of a page that it cannot
 * map.  The broker must not try again for ever. */
static int say_unmapped(const struct worker *worker, struct lane *lane,
			const struct msg_ring *at, int r, char *ret_why)
{
	if (!lane_has_guest(lane, at->event_channel))
		return msg_why(ret_why, -ESRCH, "domain %u is gone",
			       worker->options->domid);
	return msg_why(ret_why, r, "ring %u cannot be mapped: %s",
		       worker->nr_rings, strerror(-r));
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
		return say_unmapped(worker, lane, at, r, ret_why);
	r = io_ring_new(&ring, lane_io(lane), pages, at->nr_refs,
			layout_of(msg->abi), &worker->stats->queue[index]);
	if (r) {
		grant_unmap(worker->grant, pages, at->nr_refs);
		return msg_why(ret_why, r, "no memory for ring %u", index);
	}
	CRASH_POINT(ring_mapped);
	worker->rings[worker->nr_rings++] = ring;
	r = lane_add_ring(lane, ring, at->event_channel);
	if (r)
		return msg_why(
			ret_why, r,
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

/* msg NULL: no guest's. */
static struct inflight_id identify(const struct worker *worker,
				   const struct msg_connect *msg)
{
	struct inflight_id id = {
		.domid = worker->options->domid,
		.devid = worker->options->devid,
		.storage = hash_storage(&worker->opened),
	};

	(void)snprintf(id.vm, sizeof(id.vm), "%s", worker->options->vm);
	if (!msg)
		return id;
	id.layout = layout_of(msg->abi);
	id.nr_rings = msg->nr_rings;
	id.nr_slots = worker->rings[0]->ring.nr_slots;
	for (uint32_t i = 0; i < msg->nr_rings; i++) {
		id.ring[i].event_channel = msg->ring[i].event_channel;
		id.ring[i].nr_refs = msg->ring[i].nr_refs;
		for (uint32_t p = 0; p < msg->ring[i].nr_refs; p++)
			id.ring[i].ref[p] = msg->ring[i].ref[p];
	}
	return id;
}

/* --- begin() -------------------------------------------------------------- */

static int activate(struct worker *worker, bool recovers, char *ret_why)
{
	int r;

	if (worker->activated)
		return 0;
	r = stack_activate(worker->stack, recovers || worker->fence, ret_why);
	if (r)
		return r;
	worker->activated = true;
	worker->fence = false;
	grow_look(&worker->grow);
	CRASH_POINT(activated);
	return 0;
}

/* Both are mapped, on a file system of memory that others fill as well. */
static int reserve(struct worker *worker, char *ret_why)
{
	unsigned int nr_rings = worker->nr_rings;
	uint32_t nr_slots = nr_rings ? worker->rings[0]->ring.nr_slots : 0;
	int r = inflight_reserve(worker->log, nr_rings, nr_slots);

	if (!r)
		r = meter_begin(worker->stats, worker->stats_fd, nr_rings);
	return r ? msg_why(ret_why, r, "the in-flight log and the counters: %s",
			   strerror(-r)) :
		   0;
}

/* Those that are parked, from lane to lane. */
static void unpark(struct worker *worker)
{
	struct io_disk *disk = &worker->disk;
	struct client *client;

	for (unsigned int i = 0; (client = clients_pop(&worker->parked)); i++)
		clients_unpark(disk->lanes[i % disk->nr_lanes], client);
}

static int start_lanes(struct worker *worker, char *ret_why)
{
	unpark(worker);
	for (unsigned int i = 0; i < worker->disk.nr_lanes; i++) {
		int r = lane_start(worker->lanes[i]);

		if (r)
			return msg_why(ret_why, r,
				       "a thread cannot be started: %s",
				       strerror(-r));
	}
	CRASH_POINT(lanes_started);
	worker->running = true;
	return 0;
}

/* msg NULL: no guest.  What fails is undone by end(). */
static int begin(struct worker *worker, const struct msg_connect *msg,
		 char *ret_why)
{
	bool again = msg && msg->flags & MSG_CONNECT_RECOVER;
	uint32_t nr_rings = msg ? msg->nr_rings : 0;
	struct inflight_id id;
	int r;

	r = set_up_disk(worker, msg, ret_why);
	if (!r)
		r = activate(worker, again, ret_why);
	if (r)
		return r;
	r = attach_lanes(worker, nr_rings, ret_why);
	CRASH_POINT(lanes_attached);
	while (!r && worker->nr_rings < nr_rings)
		r = attach_ring(worker, msg, ret_why);
	if (!r)
		r = reserve(worker, ret_why);
	if (r)
		return r;
	id = identify(worker, msg);
	if (again)
		r = recover(&worker->disk, worker->rings, worker->nr_rings, &id,
			    ret_why);
	else
		recover_nothing(&worker->disk, worker->rings, worker->nr_rings,
				&id);
	return r ? r : start_lanes(worker, ret_why);
}

/* --- end() ---------------------------------------------------------------- */

static void stop_lanes(struct worker *worker)
{
	struct io_disk *disk = &worker->disk;

	atomic_store(&disk->stop, true);
	for (unsigned int i = 0; i < disk->nr_lanes; i++)
		io_poke(disk->lanes[i]);
	for (unsigned int i = 0; i < disk->nr_lanes; i++)
		lane_join(worker->lanes[i]);
	CRASH_POINT(lanes_joined);
	for (unsigned int i = 0; i < disk->nr_lanes; i++)
		clients_park(disk->lanes[i], &worker->parked);
}

static void free_rings(struct worker *worker)
{
	while (worker->nr_rings > 0) {
		struct io_ring *ring = worker->rings[--worker->nr_rings];

		grant_unmap(worker->grant, ring->pages, ring->nr_pages);
		io_ring_free(ring);
	}
	CRASH_POINT(rings_unmapped);
}

static int deactivate(struct worker *worker, char *ret_why)
{
	int r = 0;

	if (worker->activated)
		r = stack_deactivate(worker->stack, ret_why);
	CRASH_POINT(deactivated);
	worker->activated = false;
	return r;
}

static void end_conditions(struct io_disk *disk)
{
	if (atomic_load(&disk->nr_held))
		pause_end(disk->pause);
	if (atomic_load(&disk->nr_recovered))
		io_condition(disk, MSG_RECOVERING, false, "%s", "");
}

/* Undoes begin(), as far as it came.  Clients are parked then, and with any of
 * them the stack stays active if keep is set. */
static int end(struct worker *worker, bool last_flush, bool keep, char *ret_why)
{
	struct io_disk *disk = &worker->disk;
	char why[MSG_TEXT_MAX] = "";
	int r = 0, r2 = 0;

	stop_lanes(worker);
	if (last_flush)
		r = flush_last(lane_io(worker->lanes[0]));
	CRASH_POINT(last_flushed);
	if (r)
		(void)msg_why(ret_why, r, "the last flush failed: %s",
			      strerror(-r));
	for (unsigned int i = 0; i < disk->nr_lanes; i++)
		lane_detach(worker->lanes[i]);
	free_rings(worker);
	if (!keep || !worker->parked)
		r2 = deactivate(worker, why);
	if (r2 && !r)
		r = msg_why(ret_why, r2, "%s", why);
	range_table_free(disk->ranges);
	disk->ranges = NULL;
	standstill_destroy(&disk->still);
	flush_gate_destroy(&disk->gate);
	disk->nr_lanes = 0;
	worker->running = false;
	end_conditions(disk);
	return r;
}

/* The guest has gone, or did not come: the clients go on. */
static void serve_parked(struct worker *worker)
{
	char why[MSG_TEXT_MAX] = "", ignored[MSG_TEXT_MAX];

	if (!worker->parked)
		return;
	if (inflight_has_rings(worker->log))
		(void)msg_why(why, -EAGAIN, "the log is the guest's");
	else if (begin(worker, NULL, why) == 0)
		return;
	log_disk(&worker->who, LOG_LEVEL_ERROR,
		 "its NBD clients cannot be served on: %s", why);
	(void)end(worker, false, false, ignored);
	clients_end(&worker->parked);
}

/* --- The guest ------------------------------------------------------------ */

int use_connect(struct worker *worker, const struct msg_connect *msg,
		char *ret_why)
{
	char ignored[MSG_TEXT_MAX];
	int r = check_connect(msg, ret_why);

	if (r)
		return r;
	if (worker->running)
		(void)end(worker, false, true, ignored);
	if (msg->flags & MSG_CONNECT_POISONED)
		atomic_store(&worker->disk.poison, IO_POISONED);
	r = begin(worker, msg, ret_why);
	if (r) {
		(void)end(worker, false, true, ignored);
		serve_parked(worker);
		return r;
	}
	worker->connected = true;
	worker->connection = *msg;
	CRASH_POINT(connected);
	return 0;
}

int use_disconnect(struct worker *worker, char *ret_why)
{
	struct io_disk *disk = &worker->disk;
	bool clean = atomic_load(&disk->poison) == IO_CLEAN;
	int r = end(worker, clean, true, ret_why);

	if (!r && !clean)
		r = msg_why(ret_why, -EIO, "the disk is poisoned");
	/* The log is what remembers a failure without a mark. */
	if (flush_mark(disk) == 0)
		inflight_clear(worker->log);
	CRASH_POINT(log_cleared);
	worker->connected = false;
	serve_parked(worker);
	return r;
}

int use_end(struct worker *worker, char *ret_why)
{
	unsigned int nr_rings = worker->nr_rings;
	int r = worker->running ? end(worker, false, false, ret_why) : 0;

	inflight_outlived(worker->log, nr_rings);
	clients_end(&worker->parked);
	return r;
}

/* --- NBD clients ---------------------------------------------------------- */

static int begin_for_clients(struct worker *worker,
			     const struct msg_client *msg, char *ret_why)
{
	char ignored[MSG_TEXT_MAX];
	int r;

	if (worker->running)
		return 0;
	if (inflight_has_rings(worker->log))
		return msg_why(
			ret_why, -EAGAIN,
			"its guest's requests come first: a worker died");
	if (msg->flags & MSG_CLIENT_POISONED)
		atomic_store(&worker->disk.poison, IO_POISONED);
	r = begin(worker, NULL, ret_why);
	if (r)
		(void)end(worker, false, false, ignored);
	return r;
}

static struct io_lane *idlest_lane(const struct io_disk *disk)
{
	struct io_lane *best = disk->lanes[0];

	for (unsigned int i = 1; i < disk->nr_lanes; i++)
		if (atomic_load(&disk->lanes[i]->clients.nr) <
		    atomic_load(&best->clients.nr))
			best = disk->lanes[i];
	return best;
}

/* What a guest is using is not written beside it, unless somebody insists. */
static bool is_readonly(const struct worker *worker,
			const struct msg_client *msg)
{
	return msg->flags & MSG_CLIENT_READONLY ||
	       (worker->connected && !(msg->flags & MSG_CLIENT_FORCE));
}

int use_client(struct worker *worker, const struct msg_client *msg, int fd,
	       char *ret_why)
{
	const struct client_spec spec = {
		.fd = fd,
		.name = msg->name,
		.readonly = is_readonly(worker, msg),
	};
	struct client *client;
	int r;

	if (atomic_load(&worker->nr_clients) >= CLIENTS_MAX)
		return msg_why(ret_why, -EUSERS,
			       "it has %u NBD clients already", CLIENTS_MAX);
	r = begin_for_clients(worker, msg, ret_why);
	if (r)
		return r;
	r = client_new(&client, &spec, stack_limits(worker->stack),
		       &worker->nr_clients);
	if (r)
		return msg_why(ret_why, r, "no memory");
	client_give(idlest_lane(&worker->disk), client);
	return 0;
}

bool use_is_of_clients(const struct worker *worker)
{
	return worker->running && !worker->connected;
}

void use_look(struct worker *worker)
{
	struct io_disk *disk = &worker->disk;
	char why[MSG_TEXT_MAX] = "";

	if (!use_is_of_clients(worker) || atomic_load(&worker->nr_clients) > 0)
		return;
	if (end(worker, atomic_load(&disk->poison) == IO_CLEAN, false, why))
		log_disk(&worker->who, LOG_LEVEL_ERROR,
			 "after its last NBD client: %s", why);
	if (flush_mark(disk) == 0)
		inflight_clear(worker->log);
}
