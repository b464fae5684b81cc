/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The load verb: as many requests as the disk answers, measured.
 *
 * A thread per queue keeps `depth` requests in flight; a finished one is sent
 * again from its callback, and everything that a burst of answers made ready
 * is published with one push.  Data is not looked at.
 *
 * What is longer than the disk takes in one request goes in parts, as Linux
 * splits it; it is done when all of them are.
 *
 * A blkfront waits for its interrupt and sets no timer.  Here one for each sleep
 * would cost a tenth of a null disk's 4 KiB request at depth 1 with both ends on one
 * CPU, whoever serves it.  So the lanes sleep for ever, and the thread that waits for
 * their end looks now and then whether they get on.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "simguest.h"
#include "simio.h"

/*
 * Latencies in ns, in buckets of a 128th of their power of two, from 1 ns to over an
 * hour: off by less than 1 %, where goals of the benchmarks are a third of another's.
 */
#define SUB_BITS   7
#define NR_BUCKETS (42 << SUB_BITS)

struct load;

/* At least 11 segments in each, 256 in all. */
#define MAX_PARTS 24u

struct part {
	struct simqueue_request req; /* first: its done() finds the part */
	struct job *job;
};

struct job {
	struct part parts[MAX_PARTS];
	unsigned int unanswered; /* parts */
	struct lane *lane;
	struct simio_buffer buffer;
	int64_t sent;
};

struct lane {
	struct load *load;
	struct simqueue *queue;
	struct job *jobs;
	uint64_t random, next; /* next: of a sequential load, in requests */
	uint64_t completed, errors;
	uint64_t answered; /* parts */
	_Atomic uint64_t answers; /* the same, for whoever waits for the lane */
	_Atomic bool stuck; /* for --timeout seconds: give up */
	uint64_t *latencies; /* NR_BUCKETS */
	int failure; /* a negative errno */
	pthread_t thread;
};

struct load {
	struct simguest *guest;
	uint8_t operation;
	bool sequential;
	unsigned int sectors; /* of a job */
	unsigned int part_pages, nr_parts; /* what the disk takes at once */
	uint64_t places; /* on the disk, of that size */
	unsigned int depth, queues;
	int64_t begin, end;
};

static unsigned int bucket(uint64_t ns)
{
	unsigned int power;

	if (ns < 1u << SUB_BITS)
		return (unsigned int)ns;
	power = 63 - (unsigned int)__builtin_clzll(ns) - SUB_BITS;
	if (power > (NR_BUCKETS >> SUB_BITS) - 2)
		return NR_BUCKETS - 1;
	return (power << SUB_BITS) + (unsigned int)(ns >> power);
}

/* The middle of a bucket, in ns. */
static double bucket_value(unsigned int index)
{
	unsigned int power = index >> SUB_BITS;

	if (power == 0)
		return index;
	power--;
	return ((double)(index - (power << SUB_BITS)) + 0.5) *
	       (double)(1ull << power);
}

static double percentile(const uint64_t *latencies, uint64_t total,
			 double share)
{
	uint64_t rank = (uint64_t)((double)total * share), seen = 0;

	for (unsigned int i = 0; i < NR_BUCKETS; i++) {
		seen += latencies[i];
		if (seen > rank)
			return bucket_value(i) / 1000.0;
	}
	return 0;
}

static bool stopping(const struct load *load, int64_t now)
{
	return now >= load->end || simfront_closing(load->guest->front);
}

static void send_job(struct job *job, int64_t now)
{
	struct lane *lane = job->lane;
	const struct load *load = lane->load;
	uint64_t place = load->sequential ? lane->next++ :
					    simio_random(&lane->random);
	uint64_t sector = place % load->places * load->sectors;

	job->sent = now;
	job->unanswered = load->nr_parts;
	for (unsigned int i = 0; i < load->nr_parts; i++) {
		int r;

		job->parts[i].req.sector = sector;
		sector += load->part_pages * SIMABI_PAGE_SECTS;
		r = simqueue_submit(lane->queue, &job->parts[i].req);
		if (r < 0)
			lane->failure = r;
	}
}

static void done(struct simqueue_request *req)
{
	struct job *job = ((struct part *)req)->job;
	struct lane *lane = job->lane;
	int64_t now;

	atomic_store_explicit(&lane->answers, ++lane->answered,
			      memory_order_relaxed);
	if (req->status != BLKIF_RSP_OKAY)
		lane->errors++;
	if (--job->unanswered > 0)
		return;
	now = simio_now_ns();
	lane->completed++;
	lane->latencies[bucket((uint64_t)(now - job->sent))]++;
	if (!stopping(lane->load, now))
		send_job(job, now);
}

static void *lane_main(void *arg)
{
	struct lane *lane = arg;
	const struct load *load = lane->load;
	int64_t now = simio_now_ns();

	for (unsigned int i = 0; i < load->depth && lane->failure == 0; i++)
		if (simqueue_room(lane->queue) >= load->nr_parts)
			send_job(&lane->jobs[i], now);
	simqueue_push(lane->queue);
	while (lane->failure == 0 && simqueue_pending(lane->queue) > 0) {
		int r = simqueue_reap(lane->queue,
				      load->guest->opt.poll ? 0 : -1);

		if ((r == 0 || r == -EINTR) && lane->stuck)
			r = -ETIMEDOUT;
		if (r < 0 && r != -EINTR)
			lane->failure = r;
		simqueue_push(lane->queue);
	}
	return NULL;
}

static void init_parts(const struct load *load, struct job *job)
{
	unsigned int first = 0, left = job->buffer.nr_segments;

	for (unsigned int i = 0; i < load->nr_parts; i++) {
		struct simqueue_request *req = &job->parts[i].req;
		unsigned int n = left < load->part_pages ? left :
							   load->part_pages;

		*req = simio_request(load->operation, 0, &job->buffer);
		req->segments += first;
		req->nr_segments = (uint16_t)n;
		req->done = done;
		job->parts[i].job = job;
		first += n;
		left -= n;
	}
}

static int init_lane(struct load *load, unsigned int index, struct lane *lane)
{
	*lane = (struct lane){
		.load = load,
		.queue = simfront_queue(load->guest->front, index),
		.random = load->guest->opt.seed * 1000003 + index + 1,
		.next = load->places / load->queues * index,
	};
	lane->jobs = calloc(load->depth, sizeof(*lane->jobs));
	lane->latencies = calloc(NR_BUCKETS, sizeof(*lane->latencies));
	if (!lane->jobs || !lane->latencies)
		return -ENOMEM;
	for (unsigned int i = 0; i < load->depth; i++) {
		struct job *job = &lane->jobs[i];
		unsigned int pages = (load->sectors + SIMABI_PAGE_SECTS - 1) /
				     SIMABI_PAGE_SECTS;
		int r = simio_alloc(load->guest->front, pages, &job->buffer);

		if (r < 0)
			return r;
		simio_linear(&job->buffer, load->sectors);
		init_parts(load, job);
		job->lane = lane;
	}
	return 0;
}

static void free_lane(struct lane *lane)
{
	struct simfront *front = lane->load->guest->front;

	for (unsigned int i = 0; lane->jobs && i < lane->load->depth; i++)
		if (simqueue_pending(lane->queue) == 0)
			simio_free(front, &lane->jobs[i].buffer);
	free(lane->latencies);
	free(lane->jobs);
}

/* --- The result -------------------------------------------------------------- */

struct result {
	uint64_t completed, errors;
	struct simqueue_counters counters;
	uint64_t latencies[NR_BUCKETS];
};

static void add_lane(struct result *sum, const struct lane *lane)
{
	struct simqueue_counters counters;

	simqueue_counters(lane->queue, &counters);
	sum->completed += lane->completed;
	sum->errors += lane->errors;
	sum->counters.requests += counters.requests;
	sum->counters.notifies += counters.notifies;
	sum->counters.events += counters.events;
	for (unsigned int i = 0; i < NR_BUCKETS; i++)
		sum->latencies[i] += lane->latencies[i];
}

/* What is printed. */
struct figures {
	double iops, bytes; /* per second */
	double p50, p99, p999; /* latency, us */
	double notifies, events; /* per request */
	uint64_t requests, errors;
};

static struct figures figures_of(const struct load *load,
				 const struct result *sum, double seconds)
{
	double iops = (double)sum->completed / seconds;
	double requests = sum->completed ? (double)sum->completed : 1;

	return (struct figures){
		.iops = iops,
		.bytes = iops * load->sectors * SIMABI_SECTOR,
		.p50 = percentile(sum->latencies, sum->completed, 0.5),
		.p99 = percentile(sum->latencies, sum->completed, 0.99),
		.p999 = percentile(sum->latencies, sum->completed, 0.999),
		.notifies = (double)sum->counters.notifies / requests,
		.events = (double)sum->counters.events / requests,
		.requests = sum->completed,
		.errors = sum->errors,
	};
}

static void print_json(const struct figures *f)
{
	printf("{\"iops\":%.0f,\"bytes_per_second\":%.0f,\"latency_us\":"
	       "{\"p50\":%.2f,\"p99\":%.2f,\"p999\":%.2f},\"requests\":%" PRIu64
	       ",\"errors\":%" PRIu64 ",\"notifies_per_request\":%.3f,"
	       "\"events_per_request\":%.3f}\n",
	       f->iops, f->bytes, f->p50, f->p99, f->p999, f->requests,
	       f->errors, f->notifies, f->events);
}

static void print_text(const struct figures *f)
{
	printf("load: %.0f IOPS, %.1f MiB/s, p50 %.1f us, p99 %.1f us, "
	       "p99.9 %.1f us, %" PRIu64 " requests, %" PRIu64
	       " errors, %.3f notifies and %.3f events per request\n",
	       f->iops, f->bytes / (1 << 20), f->p50, f->p99, f->p999,
	       f->requests, f->errors, f->notifies, f->events);
}

/* --- The verb ---------------------------------------------------------------- */

static bool take_mode(struct load *load)
{
	static const struct {
		const char *name;
		uint8_t operation;
		bool sequential;
	} modes[] = {
		{ "read", BLKIF_OP_READ, true },
		{ "write", BLKIF_OP_WRITE, true },
		{ "randread", BLKIF_OP_READ, false },
		{ "randwrite", BLKIF_OP_WRITE, false },
	};

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (strcmp(modes[i].name, load->guest->opt.rw) == 0) {
			load->operation = modes[i].operation;
			load->sequential = modes[i].sequential;
			return true;
		}
	simguest_complain("--rw %s: read, write, randread or randwrite",
			  load->guest->opt.rw);
	return false;
}

static bool take_size(struct load *load)
{
	const struct simguest *g = load->guest;
	uint64_t disk = simfront_sectors(g->front);
	unsigned int most = simguest_max_segments(g);
	/* Not the default range of verify: one size. */
	uint64_t bytes = g->opt.bs.least == g->opt.bs.most ? g->opt.bs.least :
							     SIMABI_PAGE;

	if (g->opt.size && g->opt.size / SIMABI_SECTOR < disk)
		disk = g->opt.size / SIMABI_SECTOR;
	load->sectors = (unsigned int)(bytes / SIMABI_SECTOR);
	load->places = load->sectors ? disk / load->sectors : 0;
	load->part_pages = most;
	load->nr_parts = (unsigned int)((bytes + most * SIMABI_PAGE - 1) /
					(most * SIMABI_PAGE));
	if (bytes <= SIMQUEUE_MAX_SEGMENTS * SIMABI_PAGE && load->places > 0 &&
	    load->nr_parts <= MAX_PARTS &&
	    load->nr_parts <= simqueue_size(simfront_queue(g->front, 0)) &&
	    bytes % simfront_disk(g->front)->sector_size == 0)
		return true;
	simguest_complain("--bs %" PRIu64 ": not possible on this disk", bytes);
	return false;
}

/* Guests that are to be at work at the same time are let go together. */
static void await_gate(void)
{
	char byte;

	printf("ready\n");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
}

/* For its end, or until nothing has come for --timeout seconds; at the latest after
 * twice as long. */
static void await_lane(const struct load *load, struct lane *lane)
{
	uint64_t seen = 0, answers;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	for (;;) {
		until.tv_sec += (time_t)load->guest->opt.timeout;
		if (pthread_timedjoin_np(lane->thread, NULL, &until) !=
		    ETIMEDOUT)
			return;
		answers = lane->answers;
		if (answers == seen) {
			lane->stuck = true;
			simqueue_kick(lane->queue);
		}
		seen = answers;
	}
}

static int run_lanes(struct load *load, struct lane *lanes)
{
	unsigned int started = 0;
	int r = 0;

	for (unsigned int i = 0; r == 0 && i < load->queues; i++)
		r = init_lane(load, i, &lanes[i]);
	if (load->guest->opt.gate)
		await_gate();
	load->begin = simio_now_ns();
	load->end =
		load->begin + (int64_t)load->guest->opt.seconds * 1000000000;
	while (r == 0 && started < load->queues) {
		r = -pthread_create(&lanes[started].thread, NULL, lane_main,
				    &lanes[started]);
		started += r == 0;
	}
	for (unsigned int i = 0; i < started; i++)
		await_lane(load, &lanes[i]);
	return r;
}

static int sum_up(struct load *load, struct lane *lanes, double seconds)
{
	static struct result sum;
	struct figures figures;
	int code = SIMGUEST_OK;

	for (unsigned int i = 0; i < load->queues; i++) {
		add_lane(&sum, &lanes[i]);
		if (lanes[i].failure < 0)
			code = simguest_queue_failed(lanes[i].queue,
						     lanes[i].failure);
	}
	figures = figures_of(load, &sum, seconds);
	if (load->guest->opt.json)
		print_json(&figures);
	else
		print_text(&figures);
	if (code == SIMGUEST_OK && sum.errors > 0) {
		simguest_complain("load: %" PRIu64 " requests failed",
				  sum.errors);
		code = SIMGUEST_IO_ERROR;
	}
	return code;
}

int simguest_load(struct simguest *guest, int argc, char **argv)
{
	struct load load = {
		.guest = guest,
		.depth = (unsigned int)guest->opt.depth,
		.queues = simfront_shape(guest->front)->queues,
	};
	struct lane lanes[SIMFRONT_MAX_QUEUES] = { 0 };
	int code, r;

	(void)argc;
	(void)argv;
	if (!take_mode(&load) || !take_size(&load))
		return SIMGUEST_USAGE;
	r = run_lanes(&load, lanes);
	if (r < 0) {
		simguest_complain("load: %s", strerror(-r));
		return SIMGUEST_FAULT;
	}
	code = sum_up(&load, lanes,
		      (double)(simio_now_ns() - load.begin) / 1e9);
	for (unsigned int i = 0; i < load.queues; i++)
		free_lane(&lanes[i]);
	return code;
}
