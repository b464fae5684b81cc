/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lane.c - a thread that serves rings, and NBD clients.
 *
 * Theory of operation
 *
 * The thread sleeps in one place, engine_run(): events of the guest come as the
 * completion of a poll on the event-channel handle, a client's bytes as that of
 * one on its socket, I/O as its own completion, the main thread and other lanes by
 * engine_wake().  Each time it wakes it does rounds (io_pump()) until nothing is left
 * to do.
 *
 * Before it sleeps it may look at the rings for some microseconds more, where that
 * has paid lately (spin.h).  How long is a setting of the disk, poll-max-us, or goes
 * by what the lane finds that a call of the kernel costs here.  But to look for longer
 * than SPIN_NS is for a guest that has one request at a time and waits for its answer.
 * One that has many is better served by a sleep, which lets them gather: it is told
 * less often that there are answers.  And an NBD client would have to wait until the
 * look is over.
 *
 * No event gets lost: a port is unmasked before the rings are looked at, and
 * before sleeping each ring is told to ring with the next request and looked at
 * once more.  An event only ever means "look": all rings of the lane are looked
 * at, whichever rang.  A guest that rings for nothing, again and again, finds
 * its port unmasked later and later (storm.h); until then its ring is looked at
 * only when something else has woken the lane.  At the start the rings are
 * looked at and the guest is notified without being asked, since either side's
 * event may have been lost with the worker that was here before.
 *
 * The end comes in two steps: disk->stop makes the lane take nothing more and
 * leave once the stack has nothing of it; then the main thread takes apart what
 * is left.  Requests that wait for something are abandoned, also by the stack
 * (stack_stop()).
 */
#include "config.h"

#include "worker/lane.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "common/log.h"
#include "worker/io-client.h"
#include "worker/spin.h"

/* Calls handed to the kernel at once. */
#define ENGINE_ENTRIES 64

/* That are measured at the start. */
#define CALLS 16

/* A look is a few reads of memory. */
#define LOOKS 16
/* A guest that had more than one request a ring under way is not waited for longer than
 * usual during so many tries: one that is found waiting, and answered, one at a time is
 * told of each, and would go on like that. */
#define DEEP_TRIES 256u

/* When the kernel could not unmask a port. */
#define UNMASK_AGAIN_NS 1000000ull

struct lane {
	struct io_lane io;
	struct engine *engine;
	struct evtchn *evtchn;
	struct xd_sys poll;
	bool polling;
	bool rang; /* the handle is readable */
	unsigned int nr_masked; /* rings whose port is to be unmasked later */
	struct spin spin;
	uint64_t look_ns; /* a try, at most */
	unsigned int deep; /* tries that are still as for a guest with many */
	bool stopping; /* the stack has been told */
	bool running;
	pthread_t thread;
};

int lane_new(struct lane **ret, uint32_t domid, unsigned int index)
{
	struct lane *lane = calloc(1, sizeof(*lane));
	int r;

	if (!lane)
		return -ENOMEM;
	lane->io.index = index;
	r = evtchn_open(&lane->evtchn, domid);
	if (!r)
		r = engine_new(&lane->engine, ENGINE_ENTRIES, true);
	if (r) {
		lane_free(lane);
		return r;
	}
	*ret = lane;
	return 0;
}

void lane_free(struct lane *lane)
{
	if (!lane)
		return;
	engine_free(lane->engine);
	evtchn_close(lane->evtchn);
	free(lane);
}

bool lane_uses_uring(const struct lane *lane)
{
	return engine_is_uring(lane->engine);
}

struct io_lane *lane_io(struct lane *lane)
{
	return &lane->io;
}

/* --- The thread ----------------------------------------------------------- */

static void polled(struct xd_sys *sys, int64_t res)
{
	struct lane *lane = container_of(sys, struct lane, poll);

	lane->polling = false;
	lane->rang = res > 0;
}

static void start_poll(struct lane *lane)
{
	if (lane->polling)
		return;
	lane->poll.op = XD_SYS_POLL;
	lane->poll.fd = evtchn_fd(lane->evtchn);
	lane->poll.flags = POLLIN;
	lane->poll.done = polled;
	lane->polling = true;
	engine_sys(lane->engine, &lane->poll);
}

static struct io_ring *ring_of_port(struct lane *lane, uint32_t port)
{
	for (unsigned int i = 0; i < lane->io.nr_rings; i++)
		if (lane->io.rings[i]->port == port)
			return lane->io.rings[i];
	return NULL;
}

/* A port that stayed masked would be a guest that is not heard any more. */
static void unmask(struct lane *lane, struct io_ring *ring)
{
	if (evtchn_unmask(lane->evtchn, ring->port) == 0)
		return;
	ring->storm.unmask_at = now_ns() + UNMASK_AGAIN_NS;
	lane->nr_masked++;
}

/* One event at a time: more than one port has fired only where rings share a
 * lane, and the poll comes back at once for the others. */
static void take_event(struct lane *lane)
{
	struct io_ring *ring;
	uint32_t port;

	if (!lane->rang)
		return;
	lane->rang = false;
	if (evtchn_take(lane->evtchn, &port) < 0)
		return;
	ring = ring_of_port(lane, port);
	if (!ring)
		return;
	ring->stats->events_in++;
	if (storm_event(&ring->storm, ring->ring.req_cons)) {
		unmask(lane, ring);
		return;
	}
	storm_put_off(&ring->storm, now_ns());
	lane->nr_masked++;
}

/* Before the rings are looked at, as always. */
static void unmask_late(struct lane *lane)
{
	uint64_t now = now_ns();

	for (unsigned int i = 0; i < lane->io.nr_rings; i++) {
		struct io_ring *ring = lane->io.rings[i];

		if (ring->storm.unmask_at &&
		    storm_over(&ring->storm, ring->ring.req_cons, now)) {
			lane->nr_masked--;
			unmask(lane, ring);
		}
	}
}

static uint64_t until_unmask(const struct lane *lane)
{
	uint64_t at = UINT64_MAX, now;

	if (lane->nr_masked == 0)
		return UINT64_MAX;
	for (unsigned int i = 0; i < lane->io.nr_rings; i++)
		if (lane->io.rings[i]->storm.unmask_at)
			at = MIN(at, lane->io.rings[i]->storm.unmask_at);
	now = now_ns();
	return at > now ? at - now : 0;
}

static void begin(struct lane *lane)
{
	struct io_lane *io = &lane->io;

	for (unsigned int i = 0; i < io->nr_rings; i++) {
		if (io->rings[i]->plan)
			io_ring_recover(io->rings[i]);
		evtchn_notify(lane->evtchn, io->rings[i]->port);
	}
}

static bool ended(const struct io_lane *io)
{
	return atomic_load(&io->disk->stop) && io->submitted == 0;
}

static bool is_pending(void *ctx)
{
	return io_pending(ctx);
}

/* The guest is on another CPU, or quick: two switches between processes and what it
 * does in between take 4 us or so.  A tick of the kernel in the middle of that is
 * nobody who wants the CPU; who has it for as long as a whole try takes is. */
static bool look_longer(struct lane *lane)
{
	struct io_lane *io = &lane->io;
	uint64_t most_ns = lane->look_ns;
	struct spin_how how = { .looks = LOOKS };

	if (most_ns == 0 || io->nr_rings == 0 || io->submitted > 0 ||
	    atomic_load(&io->disk->stop) || !spin_wanted(&lane->spin))
		return false;
	/* An NBD client is not heard while we look at the rings, and what it was
	 * answered has still to be sent. */
	if (lane->deep > 0 || atomic_load(&io->clients.nr) > 0)
		most_ns = MIN(most_ns, SPIN_NS);
	how.most_ns = most_ns;
	how.turn_ns = MAX(most_ns, SPIN_NS);
	return spin_look(&lane->spin, &how, is_pending, io);
}

/* All is done, except what the stack has: true when there is more after all. */
static bool last_look(struct lane *lane)
{
	struct io_lane *io = &lane->io;
	bool was_deep = lane->deep > 0;

	if (io->answered > io->nr_rings)
		lane->deep = DEEP_TRIES;
	else if (lane->deep > 0)
		lane->deep--;
	io->answered = 0;
	/* What short tries have brought says nothing of long ones. */
	if (lane->look_ns > SPIN_NS && was_deep != (lane->deep > 0))
		lane->spin = (struct spin){ 0 };
	return look_longer(lane) || io_arm(io);
}

/* What waits for a server that is away is not waited for. */
static void tell_stack(struct lane *lane)
{
	if (lane->stopping || !atomic_load(&lane->io.disk->stop))
		return;
	lane->stopping = true;
	stack_stop(lane->io.top);
}

/* What a call that does not sleep costs: the least of some, since others may have had
 * the CPU in between. */
static uint64_t call_ns(const struct lane *lane)
{
	struct pollfd fd = { .fd = evtchn_fd(lane->evtchn), .events = POLLIN };
	uint64_t least = UINT64_MAX, begin, end = now_ns();

	for (unsigned int i = 0; i < CALLS; i++) {
		begin = end;
		(void)ppoll(&fd, 1, &(struct timespec){ 0 }, NULL);
		end = now_ns();
		least = MIN(least, end - begin);
	}
	return least;
}

static void *run(void *arg)
{
	struct lane *lane = arg;
	struct io_lane *io = &lane->io;

	lane->look_ns = io->disk->policy->poll_ns;
	if (lane->look_ns == POLL_AUTO)
		lane->look_ns = spin_default_ns(call_ns(lane));
	begin(lane);
	for (;;) {
		uint64_t wait, unmask;
		bool more;
		int n;

		if (standstill_wanted(&io->disk->still))
			standstill_stand(&io->disk->still);
		tell_stack(lane);
		if (lane->nr_masked)
			unmask_late(lane);
		more = io_pump(io);
		if (ended(io) && !more)
			break;
		more = more || last_look(lane);
		wait = more ? 0 : io_sleep_ns(io);
		unmask = until_unmask(lane);
		/* While there is work, events say nothing that is new. */
		if (wait > 0)
			start_poll(lane);
		n = engine_run(lane->engine, MIN(wait, unmask));
		if (n == 0 && wait > 0 && wait <= unmask)
			io_idle(io);
		take_event(lane);
	}
	return NULL;
}

/* --- Main thread ---------------------------------------------------------- */

int lane_attach(struct lane *lane, struct io_disk *disk, struct stack *stack,
		char *ret_why)
{
	struct io_lane *io = &lane->io;
	unsigned int index = io->index;
	int r;

	memset(io, 0, sizeof(*io));
	lane->nr_masked = 0;
	lane->stopping = false;
	lane->spin = (struct spin){ 0 };
	lane->deep = 0;
	io->disk = disk;
	io->index = index;
	io->engine = lane->engine;
	io->evtchn = lane->evtchn;
	clients_init(io);
	r = buffer_arena_new(&io->arena, IO_ARENA_BYTES);
	if (!r)
		r = grant_batch_new(&io->batch, disk->grant, disk->persistent);
	if (r) {
		(void)snprintf(ret_why, MSG_TEXT_MAX, "no memory for a lane");
		lane_detach(lane);
		return r;
	}
	r = stack_channel_open(stack, lane->engine, index, &io->top, ret_why);
	if (r)
		lane_detach(lane);
	return r;
}

int lane_add_ring(struct lane *lane, struct io_ring *ring, uint32_t remote_port)
{
	int r = evtchn_bind(lane->evtchn, remote_port, &ring->port);

	if (r)
		return r;
	lane->io.rings[lane->io.nr_rings++] = ring;
	return 0;
}

bool lane_has_guest(struct lane *lane, uint32_t remote_port)
{
	uint32_t port;
	int r = evtchn_bind(lane->evtchn, remote_port, &port);

	if (r == 0)
		evtchn_unbind(lane->evtchn, port);
	return r != -ESRCH;
}

int lane_start(struct lane *lane)
{
	int r = -pthread_create(&lane->thread, NULL, run, lane);

	lane->running = r == 0;
	return r;
}

void lane_join(struct lane *lane)
{
	if (!lane->running)
		return;
	io_poke(&lane->io);
	(void)pthread_join(lane->thread, NULL);
	lane->running = false;
}

void lane_detach(struct lane *lane)
{
	struct io_lane *io = &lane->io;

	engine_cancel(lane->engine);
	for (unsigned int i = 0; i < io->nr_rings; i++)
		evtchn_unbind(lane->evtchn, io->rings[i]->port);
	io->nr_rings = 0;
	if (io->top)
		stack_channel_close(io->top);
	io->top = NULL;
	grant_batch_free(io->batch);
	io->batch = NULL;
	buffer_arena_free(io->arena);
	io->arena = NULL;
}
