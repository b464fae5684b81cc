/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * Rounds, until nothing moves any more: each client's requests are read, the
 * stacks work on all of them together, the replies are sent.  Then the thread,
 * perhaps after some microseconds in which it looks for the next request (spin.h) or
 * lets writes gather (gather.h), sleeps in engine_run(), where sockets, completions and
 * engine_wake() (a new client, the end) all come together.
 */
#include "config.h"

#include "serve/lane.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <utlist.h>

#include "common/log.h"
#include "common/util.h"
#include "serve/gather.h"
#include "worker/conn.h"
#include "worker/spin.h"

#define ENGINE_ENTRIES 64
/* A client that has sent more than one request at a time is not looked for during so
 * many rounds: it has others to wait for, and they gather while we sleep. */
#define DEEP_ROUNDS	     256u
#define HANDSHAKE_TIMEOUT_NS (10 * 1000000000ull)
/* At the end: how long a client's replies are worth waiting for. */
#define STOP_TIMEOUT_NS (5 * 1000000000ull)

struct client {
	struct client *prev, *next;
	struct conn *conn;
};

struct newcomer {
	struct newcomer *next;
	int fd;
};

struct serve_lane {
	struct engine *engine;
	struct nbd_session_events events;
	struct serve_disk **disks;
	struct serve_channel **channels;
	unsigned int nr_disks;
	const struct nbd_credentials *credentials;
	struct client *clients;
	_Atomic(unsigned int) nr_clients;
	_Atomic(bool) stop;
	struct spin spin;
	unsigned int deep; /* rounds until clients count as patient no more */
	struct gather gather;
	bool exact; /* it may sleep for microseconds */
	pthread_mutex_t lock; /* of newcomers */
	struct newcomer *newcomers;
	_Atomic(bool) has_newcomers; /* asked in each round, without the lock */
	pthread_t thread;
	bool running;
};

/* --- What sessions ask ---------------------------------------------------- */

static const struct nbd_export *get_export(void *ctx, unsigned int index)
{
	const struct serve_lane *lane = ctx;

	return index < lane->nr_disks ? serve_disk_export(lane->disks[index]) :
					NULL;
}

static void submit(void *ctx, struct nbd_command *command)
{
	struct serve_lane *lane = ctx;
	unsigned int i = 0;

	gather_request(&lane->gather, command->type == NBD_CMD_WRITE);
	while (command->export != serve_disk_export(lane->disks[i]))
		i++;
	serve_submit(lane->channels[i], command);
}

/* --- Clients -------------------------------------------------------------- */

static void drop_client(struct serve_lane *lane, struct client *client)
{
	DL_DELETE(lane->clients, client);
	conn_free(client->conn);
	free(client);
	atomic_fetch_sub(&lane->nr_clients, 1);
}

static void add_client(struct serve_lane *lane, int fd)
{
	struct client *client = calloc(1, sizeof(*client));
	int r = -ENOMEM;

	if (client)
		r = conn_new(&client->conn, lane->engine, fd, lane->credentials,
			     &lane->events, lane, HANDSHAKE_TIMEOUT_NS);
	if (r < 0) {
		log_error("a client cannot be served: %s", strerror(-r));
		(void)close(fd);
		free(client);
		atomic_fetch_sub(&lane->nr_clients, 1);
		return;
	}
	DL_APPEND(lane->clients, client);
}

static struct newcomer *take_newcomers(struct serve_lane *lane)
{
	struct newcomer *first;

	if (!atomic_load(&lane->has_newcomers))
		return NULL;
	(void)pthread_mutex_lock(&lane->lock);
	first = TAKE_PTR(lane->newcomers);
	atomic_store(&lane->has_newcomers, false);
	(void)pthread_mutex_unlock(&lane->lock);
	return first;
}

static void welcome(struct serve_lane *lane)
{
	struct newcomer *first = take_newcomers(lane), *next;

	for (; first; first = next) {
		next = first->next;
		add_client(lane, first->fd);
		free(first);
	}
}

int serve_lane_give(struct serve_lane *lane, int fd)
{
	struct newcomer *newcomer = calloc(1, sizeof(*newcomer));

	if (!newcomer)
		return -ENOMEM;
	newcomer->fd = fd;
	atomic_fetch_add(&lane->nr_clients, 1);
	(void)pthread_mutex_lock(&lane->lock);
	newcomer->next = lane->newcomers;
	lane->newcomers = newcomer;
	atomic_store(&lane->has_newcomers, true);
	(void)pthread_mutex_unlock(&lane->lock);
	engine_wake(lane->engine);
	return 0;
}

unsigned int serve_lane_clients(const struct serve_lane *lane)
{
	return atomic_load(&lane->nr_clients);
}

/* --- The thread ----------------------------------------------------------- */

/* Moves a client's bytes. */
static bool pump(struct serve_lane *lane, struct client *client)
{
	bool moved = conn_pump(client->conn);
	const struct nbd_session *lost = conn_lost(client->conn);

	for (unsigned int i = 0; lost && i < lane->nr_disks; i++)
		serve_forget(lane->channels[i], lost);
	return moved;
}

static bool round_of_work(struct serve_lane *lane)
{
	struct client *client, *next;
	unsigned int pending;
	bool moved = false;

	if (lane->deep > 0)
		lane->deep--;
	DL_FOREACH_SAFE(lane->clients, client, next) {
		if (pump(lane, client))
			moved = true;
		pending = conn_pending(client->conn);
		gather_seen(&lane->gather, pending);
		if (pending > 1)
			lane->deep = DEEP_ROUNDS;
		if (conn_is_over(client->conn))
			drop_client(lane, client);
	}
	for (unsigned int i = 0; i < lane->nr_disks; i++)
		if (serve_work(lane->channels[i]))
			moved = true;
	return moved;
}

static void stop_clients(struct serve_lane *lane)
{
	struct client *client;

	DL_FOREACH(lane->clients, client)
		conn_stop(client->conn);
}

static bool is_busy(const struct serve_lane *lane)
{
	const struct client *client;

	DL_FOREACH(lane->clients, client)
		if (!conn_is_idle(client->conn))
			return true;
	return false;
}

static bool is_pending(const struct serve_lane *lane)
{
	const struct client *client;

	DL_FOREACH(lane->clients, client)
		if (conn_pending(client->conn) > 0)
			return true;
	return false;
}

/* With more clients there is hardly a moment without anything to do. */
#define SPIN_CLIENTS	      2u
#define ROUNDS_WITHOUT_ENGINE 256u

/* Of a lane's time, for looking: with a client on another CPU it buys requests a
 * second for CPU that others may want.  The first tenth buys most (HACKING.md). */
#define SPIN_PERCENT 10u

/* The kernel likes to put a client on the CPU of who answers it: so that is offered
 * first.  A look is a system call, and takes locks that the client needs to send
 * from another one. */
static const struct spin_how how_to_spin = {
	.most_ns = SPIN_NS, .looks = 0, .rest_ns = 500, .turn_ns = 50000
};

static bool is_more(void *ctx)
{
	struct serve_lane *lane = ctx;
	struct client *client;
	bool more = false;

	DL_FOREACH(lane->clients, client)
		more |= conn_look(client->conn);
	return more;
}

/* Instead of going to sleep at once: true when there is more to do after all. */
static bool last_look(struct serve_lane *lane)
{
	unsigned int n = serve_lane_clients(lane);

	return n > 0 && n <= SPIN_CLIENTS && lane->deep == 0 &&
	       !is_pending(lane) &&
	       spin_allowed(&lane->spin, now_ns(), SPIN_PERCENT) &&
	       spin_wanted(&lane->spin) &&
	       spin_look(&lane->spin, &how_to_spin, is_more, lane);
}

/* A sleep that is late by the usual 50 us would be too long. */
static void let_gather(const struct serve_lane *lane)
{
	if (lane->exact && !is_pending(lane))
		(void)nanosleep(&(struct timespec){ .tv_nsec = GATHER_NS },
				NULL);
}

static void *run(void *arg)
{
	struct serve_lane *lane = arg;
	uint64_t deadline = UINT64_MAX, begin;
	unsigned int rounds = 0;
	bool gather;

	lane->exact = prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul) == 0;
	for (;;) {
		uint64_t now;

		begin = now_ns();
		welcome(lane);
		if (atomic_load(&lane->stop) && deadline == UINT64_MAX) {
			deadline = now_ns() + STOP_TIMEOUT_NS;
			stop_clients(lane);
		}
		while (round_of_work(lane))
			;
		gather = gather_wanted(&lane->gather, now_ns() - begin);
		if (deadline == UINT64_MAX && last_look(lane)) {
			/* Timers are the engine's. */
			if (++rounds % ROUNDS_WITHOUT_ENGINE == 0)
				(void)engine_run(lane->engine, 0);
			continue;
		}
		if (deadline == UINT64_MAX) {
			if (gather)
				let_gather(lane);
			(void)engine_run(lane->engine, UINT64_MAX);
			continue;
		}
		now = now_ns();
		if (!is_busy(lane) || now >= deadline)
			return NULL;
		(void)engine_run(lane->engine, deadline - now);
	}
}

/* --- Main thread ---------------------------------------------------------- */

int serve_lane_new(struct serve_lane **ret, unsigned int index,
		   struct serve_disk **disks, unsigned int nr_disks,
		   const struct nbd_credentials *credentials)
{
	struct serve_lane *lane = calloc(1, sizeof(*lane));
	int r = -ENOMEM;

	if (!lane)
		return -ENOMEM;
	(void)pthread_mutex_init(&lane->lock, NULL);
	lane->events = (struct nbd_session_events){
		.export = get_export,
		.submit = submit,
		.command_size = serve_command_size,
	};
	lane->disks = disks;
	lane->credentials = credentials;
	lane->channels = calloc(nr_disks, sizeof(struct serve_channel *));
	if (lane->channels)
		r = engine_new(&lane->engine, ENGINE_ENTRIES, true);
	while (r == 0 && lane->nr_disks < nr_disks) {
		r = serve_channel_open(&lane->channels[lane->nr_disks],
				       disks[lane->nr_disks], lane->engine,
				       index);
		lane->nr_disks += r == 0;
	}
	if (r < 0) {
		(void)serve_lane_stop(lane, false);
		return r;
	}
	*ret = lane;
	return 0;
}

int serve_lane_start(struct serve_lane *lane)
{
	int r = -pthread_create(&lane->thread, NULL, run, lane);

	lane->running = r == 0;
	return r;
}

/* Commands of a client that does not read must have ended as well before what
 * they refer to goes.  Those that wait for a server that is away would never. */
static void end_clients(struct serve_lane *lane)
{
	struct client *client, *next;

	DL_FOREACH(lane->clients, client)
		conn_abandon(client->conn);
	for (unsigned int i = 0; i < lane->nr_disks; i++)
		serve_channel_stop(lane->channels[i]);
	while (is_pending(lane)) {
		for (unsigned int i = 0; i < lane->nr_disks; i++)
			(void)serve_work(lane->channels[i]);
		if (is_pending(lane))
			(void)engine_run(lane->engine, UINT64_MAX);
	}
	engine_cancel(lane->engine);
	DL_FOREACH_SAFE(lane->clients, client, next)
		drop_client(lane, client);
}

void serve_lane_end(struct serve_lane *lane)
{
	atomic_store(&lane->stop, true);
	if (lane->running)
		engine_wake(lane->engine);
}

void serve_lane_wait(struct serve_lane *lane)
{
	if (lane->running)
		(void)pthread_join(lane->thread, NULL);
	lane->running = false;
}

int serve_lane_stop(struct serve_lane *lane, bool last)
{
	struct newcomer *first, *next;
	int r = 0, r2;

	if (!lane)
		return 0;
	if (lane->engine)
		end_clients(lane);
	for (first = take_newcomers(lane); first; first = next) {
		next = first->next;
		(void)close(first->fd);
		free(first);
	}
	while (lane->nr_disks > 0) {
		r2 = serve_channel_close(lane->channels[--lane->nr_disks],
					 last);
		r = r ? r : r2;
	}
	engine_free(lane->engine);
	free(lane->channels);
	(void)pthread_mutex_destroy(&lane->lock);
	free(lane);
	return r;
}
