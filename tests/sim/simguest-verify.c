/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The verify verb: random requests from every queue at once, each read judged
 * by a model of the disk (simmodel.h).
 *
 * Theory of operation
 *
 * A thread per queue keeps a number of slots busy; a slot is one request with
 * its own guest pages and its entry in the model.  Half of the requests go to
 * a small part of the disk, so that they overlap each other.  The first fault
 * of any thread stops all of them.
 *
 * Before the first round everything is read once to learn it, unless a model
 * was loaded; after the last round everything is read and judged.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "simguest.h"
#include "simio.h"
#include "simmodel.h"

#define DEFAULT_SIZE (64u << 20)
#define MAX_SECTORS  (1u << 30)
#define NR_OPS	     4
/* A write with another operation; no feature tells whether it may be sent. */
#define BARRIER	   NR_OPS
#define NR_WEIGHTS (NR_OPS + 1)
#define GAP_NS	   10000000

struct verify;

struct slot {
	struct simqueue_request req; /* first: its done() finds the slot */
	struct worker *worker;
	struct simmodel_op op;
	struct simio_buffer buffer;
	bool busy;
	bool look_again; /* what it wrote last may be read next */
	bool barrier;
};

struct counts {
	uint64_t ops[NR_OPS]; /* by enum simmodel_kind */
	uint64_t errors;
};

struct worker {
	struct verify *verify;
	struct simqueue *queue;
	struct slot *slots;
	unsigned int depth, busy;
	uint64_t random;
	int64_t last_answer; /* ns */
	uint64_t started;
	struct counts counts;
	pthread_t thread;
};

struct verify {
	struct simguest *guest;
	struct simmodel *model;
	unsigned int unit; /* sectors of 512 bytes in one of the disk's */
	unsigned int max_segments, pages;
	unsigned int least, most; /* sectors of a request */
	unsigned int weights[NR_WEIGHTS];
	bool may_indirect;
	int64_t end; /* ns: no new requests after this */

	bool failed; /* atomic */
	pthread_mutex_t lock;
	char why[512];
	struct counts counts;

	FILE *gaps; /* --gaps; or NULL */
	int64_t last_answer; /* ns, on any queue; atomic */
};

static const char *const op_names[NR_WEIGHTS] = {
	[SIMMODEL_READ] = "read",	[SIMMODEL_WRITE] = "write",
	[SIMMODEL_DISCARD] = "discard", [SIMMODEL_FLUSH] = "flush",
	[BARRIER] = "barrier",
};

__attribute__((format(printf, 2, 3))) static void fail(struct verify *v,
						       const char *format, ...)
{
	va_list args;

	/* Much fails in a destroyed domain, and none of it is a fault. */
	if (!xensim_guest_alive(simfront_guest(v->guest->front)))
		return;
	pthread_mutex_lock(&v->lock);
	va_start(args, format);
	if (!v->failed)
		vsnprintf(v->why, sizeof(v->why), format, args);
	va_end(args);
	__atomic_store_n(&v->failed, true, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&v->lock);
}

static bool stopping(const struct worker *w)
{
	const struct verify *v = w->verify;
	uint64_t limit = v->guest->opt.requests;

	return (limit && w->started >= limit) ||
	       __atomic_load_n(&v->failed, __ATOMIC_ACQUIRE) ||
	       simfront_closing(v->guest->front) || simio_now_ns() >= v->end;
}

/* --- Answers --------------------------------------------------------------- */

static void judge_read(struct verify *v, const struct slot *slot)
{
	struct simio_cursor at = { 0 };
	uint32_t sector = slot->op.sector;
	const uint8_t *data;
	char why[400];

	while ((data = simio_next(&slot->buffer, &at))) {
		if (!simmodel_check(v->model, &slot->op, sector, data, why,
				    sizeof(why))) {
			fail(v, "wrong data: %s", why);
			return;
		}
		sector++;
	}
}

static void judge(struct verify *v, struct worker *w, const struct slot *slot)
{
	enum simmodel_kind kind = slot->op.kind;
	int status = slot->req.status;

	w->counts.ops[kind]++;
	if (kind == SIMMODEL_READ && !simio_canaries_alive(&slot->buffer))
		fail(v,
		     "read of sector %u: bytes outside of the segments were "
		     "written",
		     slot->op.sector);
	if (status == BLKIF_RSP_OKAY && kind == SIMMODEL_READ)
		judge_read(v, slot);
	if (status != BLKIF_RSP_OKAY) {
		if (w->counts.errors++ == 0 && !v->guest->opt.expect_errors)
			simguest_complain("verify: %s of sector %u: status %d",
					  op_names[kind], slot->op.sector,
					  status);
	}
}

/* An outage is when no queue gets an answer. */
static void note_gap(struct verify *v, int64_t now)
{
	int64_t before =
		__atomic_exchange_n(&v->last_answer, now, __ATOMIC_RELAXED);

	if (v->gaps && before && now - before > GAP_NS)
		fprintf(v->gaps, "%.1f\n", (double)(now - before) / 1e6);
}

static void done(struct simqueue_request *req)
{
	struct slot *slot = (struct slot *)req;
	struct worker *w = slot->worker;

	judge(w->verify, w, slot);
	simmodel_end(w->verify->model, &slot->op,
		     req->status == BLKIF_RSP_OKAY);
	slot->busy = false;
	slot->look_again = slot->op.kind == SIMMODEL_WRITE;
	w->busy--;
	w->last_answer = simio_now_ns();
	note_gap(w->verify, w->last_answer);
}

/* --- Requests -------------------------------------------------------------- */

static uint64_t below(struct worker *w, uint64_t limit)
{
	return simio_random(&w->random) % limit;
}

/* Of enum simmodel_kind, or BARRIER. */
static int choose_kind(struct worker *w)
{
	const unsigned int *weights = w->verify->weights;
	unsigned int sum = 0, pick;

	for (int i = 0; i < NR_WEIGHTS; i++)
		sum += weights[i];
	pick = (unsigned int)below(w, sum);
	for (int i = 0; i < NR_WEIGHTS; i++) {
		if (pick < weights[i])
			return i;
		pick -= weights[i];
	}
	return SIMMODEL_READ;
}

/* Whole units; half of the time in the first 64th, to overlap others. */
static void choose_extent(struct worker *w, struct simmodel_op *op)
{
	const struct verify *v = w->verify;
	uint64_t units = simmodel_sectors(v->model) / v->unit;
	uint64_t least = v->least / v->unit, most = v->most / v->unit;
	uint64_t length = least + below(w, most - least + 1);
	uint64_t room = units - length + 1;

	if (below(w, 2) == 0 && room > 64)
		room /= 64;
	op->sector = (uint32_t)(below(w, room) * v->unit);
	op->sectors = (uint32_t)(length * v->unit);
}

/* A discard must begin and end on the backend's granularity. */
static bool align_discard(const struct verify *v, struct simmodel_op *op)
{
	const struct simfront_disk *disk = simfront_disk(v->guest->front);
	uint64_t grain = disk->discard_granularity / SIMABI_SECTOR;
	uint64_t shift = disk->discard_alignment / SIMABI_SECTOR;
	uint64_t first, end;

	if (grain == 0)
		grain = v->unit;
	if (op->sector < shift)
		return false;
	first = (op->sector - shift + grain - 1) / grain * grain + shift;
	end = (op->sector + op->sectors - shift) / grain * grain + shift;
	if (end <= first)
		return false;
	op->sector = (uint32_t)first;
	op->sectors = (uint32_t)(end - first);
	return true;
}

static void build_discard(struct slot *slot)
{
	slot->req = (struct simqueue_request){
		.operation = BLKIF_OP_DISCARD,
		.sector = slot->op.sector,
		.nr_sectors = slot->op.sectors,
	};
}

static void build_transfer(struct slot *slot)
{
	struct worker *w = slot->worker;
	struct verify *v = w->verify;
	bool reading = slot->op.kind == SIMMODEL_READ;

	if (below(w, 2) == 0)
		simio_linear(&slot->buffer, slot->op.sectors);
	else
		simio_scatter(&slot->buffer, slot->op.sectors, v->unit,
			      v->max_segments, &w->random);
	if (reading)
		simio_set_canaries(&slot->buffer);
	slot->req = simio_request(reading ? BLKIF_OP_READ : BLKIF_OP_WRITE,
				  slot->op.sector, &slot->buffer);
	slot->req.indirect = v->may_indirect && below(w, 4) == 0;
	if (slot->barrier &&
	    slot->buffer.nr_segments <= BLKIF_MAX_SEGMENTS_PER_REQUEST) {
		slot->req.operation = BLKIF_OP_WRITE_BARRIER;
		slot->req.indirect = false;
	}
}

static void fill_write(struct slot *slot)
{
	struct simio_cursor at = { 0 };
	uint32_t sector = slot->op.sector;
	uint8_t *data;

	while ((data = simio_next(&slot->buffer, &at)))
		simmodel_fill(slot->worker->verify->model, &slot->op, sector++,
			      data);
}

/* Decides what this slot asks for next. */
static void choose(struct slot *slot)
{
	struct worker *w = slot->worker;
	int kind;

	slot->barrier = false;
	if (slot->look_again && below(w, 3) == 0) {
		slot->op.kind = SIMMODEL_READ;
		return;
	}
	kind = choose_kind(w);
	slot->barrier = kind == BARRIER;
	slot->op = (struct simmodel_op){
		.kind = slot->barrier ? SIMMODEL_WRITE :
					(enum simmodel_kind)kind,
	};
	if (slot->op.kind == SIMMODEL_FLUSH)
		return;
	choose_extent(w, &slot->op);
	if (slot->op.kind == SIMMODEL_DISCARD &&
	    !align_discard(w->verify, &slot->op))
		slot->op.kind = SIMMODEL_READ;
}

static void build(struct slot *slot)
{
	if (slot->op.kind == SIMMODEL_FLUSH)
		slot->req = (struct simqueue_request){
			.operation = BLKIF_OP_FLUSH_DISKCACHE
		};
	else if (slot->op.kind == SIMMODEL_DISCARD)
		build_discard(slot);
	else
		build_transfer(slot);
	slot->req.done = done;
}

static int start(struct slot *slot)
{
	struct worker *w = slot->worker;
	struct verify *v = w->verify;

	choose(slot);
	build(slot);
	simmodel_begin(v->model, &slot->op);
	if (slot->op.kind == SIMMODEL_WRITE)
		fill_write(slot);
	slot->busy = true;
	w->busy++;
	w->started++;
	return simqueue_submit(w->queue, &slot->req);
}

/* --- One queue's thread ---------------------------------------------------- */

static int start_some(struct worker *w)
{
	int r = 0;

	for (unsigned int i = 0; r == 0 && i < w->depth; i++)
		if (!w->slots[i].busy && simqueue_room(w->queue) > 0)
			r = start(&w->slots[i]);
	simqueue_push(w->queue);
	return r;
}

static int reap_some(struct worker *w)
{
	int64_t patience = (int64_t)w->verify->guest->opt.timeout * 1000000000;
	int r = simqueue_reap(w->queue, 200);

	if (r == 0 && simio_now_ns() - w->last_answer > patience)
		return -ETIMEDOUT;
	return r == -EINTR ? 0 : r;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct verify *v = w->verify;
	int r = 0;

	w->last_answer = simio_now_ns();
	while (r >= 0 && (!stopping(w) || w->busy > 0)) {
		if (!stopping(w))
			r = start_some(w);
		if (r >= 0 && w->busy > 0)
			r = reap_some(w);
	}
	if (r == -EPROTO)
		fail(v, "disk disabled: %s", simqueue_fault(w->queue));
	else if (r < 0)
		fail(v, "%s",
		     r == -ETIMEDOUT ? "no answer from the backend" :
				       strerror(-r));
	return NULL;
}

static void free_worker(struct worker *w)
{
	/* What is not answered keeps its pages and its entry in the model. */
	for (unsigned int i = 0; w->slots && i < w->depth && !w->busy; i++)
		simio_free(w->verify->guest->front, &w->slots[i].buffer);
	if (!w->busy)
		free(w->slots);
}

static int init_worker(struct verify *v, unsigned int index, uint64_t round,
		       struct worker *w)
{
	*w = (struct worker){
		.verify = v,
		.queue = simfront_queue(v->guest->front, index),
		.depth = (unsigned int)v->guest->opt.depth,
		.random = (v->guest->opt.seed * 1000003 + round) * 1000003 +
			  index + 1,
	};
	w->slots = calloc(w->depth, sizeof(*w->slots));
	if (!w->slots)
		return -ENOMEM;
	for (unsigned int i = 0; i < w->depth; i++) {
		int r = simio_alloc(v->guest->front, v->pages,
				    &w->slots[i].buffer);

		if (r < 0)
			return r;
		w->slots[i].worker = w;
	}
	return 0;
}

static void add_counts(struct counts *sum, const struct counts *part)
{
	for (int i = 0; i < NR_OPS; i++)
		sum->ops[i] += part->ops[i];
	sum->errors += part->errors;
}

/* All queues until v->end. */
static void run_round(struct verify *v, uint64_t round)
{
	unsigned int queues = simfront_shape(v->guest->front)->queues;
	struct worker *workers = calloc(queues, sizeof(*workers));
	unsigned int started = 0;

	if (!workers)
		abort();
	for (unsigned int i = 0; i < queues; i++)
		if (init_worker(v, i, round, &workers[i]) < 0)
			fail(v, "guest memory is used up");
	while (!v->failed && started < queues &&
	       pthread_create(&workers[started].thread, NULL, worker_main,
			      &workers[started]) == 0)
		started++;
	if (started < queues)
		fail(v, "cannot start a thread");
	for (unsigned int i = 0; i < started; i++)
		pthread_join(workers[i].thread, NULL);
	for (unsigned int i = 0; i < queues; i++) {
		add_counts(&v->counts, &workers[i].counts);
		free_worker(&workers[i]);
	}
	free(workers);
}

/* --- Reading everything ------------------------------------------------------ */

static void visit(struct verify *v, struct slot *slot, bool learn)
{
	struct simio_cursor at = { 0 };
	uint32_t sector = slot->op.sector;
	const uint8_t *data;

	if (!learn)
		judge_read(v, slot);
	while (learn && (data = simio_next(&slot->buffer, &at)))
		simmodel_learn(v->model, sector++, data);
}

/* Where errors are expected a read is tried again. */
static int read_patiently(struct verify *v, struct slot *slot)
{
	int tries = v->guest->opt.expect_errors ? 20 : 1;
	int r = -EIO;

	while (tries-- > 0) {
		r = simio_sync(simfront_queue(v->guest->front, 0), &slot->req,
			       (int)v->guest->opt.timeout);
		if (r < 0 || slot->req.status == BLKIF_RSP_OKAY)
			return r;
		v->counts.errors++;
	}
	return -EIO;
}

/* One part; how many sectors, or an error. */
static int read_part(struct verify *v, struct slot *slot, uint32_t sector)
{
	uint32_t left = simmodel_sectors(v->model) - sector;
	uint32_t part = v->pages * SIMABI_PAGE_SECTS;
	int r;

	if (part > left)
		part = left;
	slot->op = (struct simmodel_op){ .kind = SIMMODEL_READ,
					 .sector = sector,
					 .sectors = part };
	simio_linear(&slot->buffer, part);
	slot->req = simio_request(BLKIF_OP_READ, sector, &slot->buffer);
	simmodel_begin(v->model, &slot->op);
	r = read_patiently(v, slot);
	if (r < 0 && r != -EIO) {
		simguest_queue_failed(simfront_queue(v->guest->front, 0), r);
		return r;
	}
	return r < 0 ? r : (int)part;
}

/* Reads the whole extent, to learn it or to judge it. */
static void read_all(struct verify *v, bool learn)
{
	struct slot slot = { 0 };
	uint32_t sector = 0;

	if (simio_alloc(v->guest->front, v->pages, &slot.buffer) < 0) {
		fail(v, "guest memory is used up");
		return;
	}
	while (!v->failed && sector < simmodel_sectors(v->model)) {
		int part = read_part(v, &slot, sector);

		if (part < 0) {
			simmodel_end(v->model, &slot.op, false);
			fail(v, "cannot read sector %u: %s", sector,
			     strerror(-part));
			return;
		}
		visit(v, &slot, learn);
		simmodel_end(v->model, &slot.op, true);
		sector += (uint32_t)part;
	}
	simio_free(v->guest->front, &slot.buffer);
}

/* --- The verb ---------------------------------------------------------------- */

static bool parse_ops(struct verify *v)
{
	char text[128], *save = NULL;

	if (strlen(v->guest->opt.ops) >= sizeof(text))
		return false;
	strcpy(text, v->guest->opt.ops);
	for (char *word = strtok_r(text, ",", &save); word;
	     word = strtok_r(NULL, ",", &save)) {
		char *equals = strchr(word, '=');
		uint64_t weight;
		int i = 0;

		if (!equals || !simguest_parse_size(equals + 1, &weight) ||
		    weight > 1000)
			return false;
		*equals = '\0';
		while (i < NR_WEIGHTS && strcmp(op_names[i], word) != 0)
			i++;
		if (i == NR_WEIGHTS)
			return false;
		v->weights[i] = (unsigned int)weight;
	}
	return true;
}

/* What the disk cannot do is not asked of it; at least reads remain. */
static void limit_ops(struct verify *v)
{
	const struct simfront_disk *disk = simfront_disk(v->guest->front);
	unsigned int sum = 0;

	if (!disk->flush)
		v->weights[SIMMODEL_FLUSH] = 0;
	if (!disk->discard || disk->info & VDISK_READONLY)
		v->weights[SIMMODEL_DISCARD] = 0;
	if (disk->info & VDISK_READONLY)
		v->weights[SIMMODEL_WRITE] = v->weights[BARRIER] = 0;
	for (int i = 0; i < NR_WEIGHTS; i++)
		sum += v->weights[i];
	if (sum == 0)
		v->weights[SIMMODEL_READ] = 1;
}

/* The limits of this connection; they may change with each one. */
static void take_limits(struct verify *v)
{
	const struct simguest *g = v->guest;
	uint64_t room;

	v->unit = simfront_disk(g->front)->sector_size / SIMABI_SECTOR;
	v->max_segments = simguest_max_segments(g);
	v->may_indirect = simguest_may_indirect(g);
	room = (uint64_t)v->max_segments * SIMABI_PAGE_SECTS;
	if (room > simmodel_sectors(v->model))
		room = simmodel_sectors(v->model);
	v->most = (unsigned int)(g->opt.bs.most / SIMABI_SECTOR);
	v->least = (unsigned int)(g->opt.bs.least / SIMABI_SECTOR);
	if (v->most > room)
		v->most = (unsigned int)room;
	v->most -= v->most % v->unit;
	if (v->most == 0)
		v->most = v->unit;
	v->least -= v->least % v->unit;
	if (v->least > v->most || v->least == 0)
		v->least = v->least ? v->most : v->unit;
	/* Room to scatter in, and to read everything in large parts. */
	v->pages = v->max_segments;
	if (v->pages > v->most)
		v->pages = v->most;
	limit_ops(v);
}

static int make_model(struct verify *v)
{
	const struct simguest_options *o = &v->guest->opt;
	uint64_t sectors = simfront_sectors(v->guest->front);
	uint64_t wanted = (o->size ? o->size : DEFAULT_SIZE) / SIMABI_SECTOR;
	struct simmodel_options options = {
		.seed = o->seed,
		.discard_zeroes = o->discard_zeroes,
		.atomic_sectors = o->atomic_sectors,
		.volatile_cache = o->volatile_cache,
	};
	int r;

	if (wanted > sectors)
		wanted = sectors;
	if (wanted > MAX_SECTORS)
		wanted = MAX_SECTORS;
	wanted -= wanted %
		  (simfront_disk(v->guest->front)->sector_size / SIMABI_SECTOR);
	options.sectors = (uint32_t)wanted;
	if (!o->persist || access(o->persist, F_OK) != 0)
		return simmodel_new(&options, &v->model);
	r = simmodel_load(o->persist, &options, o->power_cut, &v->model);
	if (r == 0 && simmodel_sectors(v->model) > sectors)
		return -EFBIG;
	return r;
}

static int reconnect(struct verify *v, uint64_t round)
{
	struct simfront_shape shape = simguest_shape(&v->guest->opt);
	int r = simfront_disconnect(v->guest->front);

	shape.queues = 1 + (unsigned int)(round * 7 % shape.queues);
	shape.order = (unsigned int)(round * 3 % (shape.order + 1));
	if (r == 0)
		r = simfront_connect(v->guest->front, &shape);
	if (r < 0)
		fail(v, "reconnect %" PRIu64 ": %s", round,
		     simfront_error(v->guest->front));
	return r;
}

static void run_rounds(struct verify *v)
{
	const struct simguest_options *o = &v->guest->opt;
	int64_t step =
		(int64_t)o->seconds * 1000000000 / (int64_t)(o->reconnect + 1);

	for (uint64_t round = 0; round <= o->reconnect && !v->failed; round++) {
		if (simfront_closing(v->guest->front))
			return;
		if (round > 0 && reconnect(v, round) < 0)
			return;
		take_limits(v);
		v->end = simio_now_ns() + step;
		run_round(v, round);
	}
}

static int report(struct verify *v)
{
	const uint64_t *ops = v->counts.ops;

	printf("verify: %s: %" PRIu64 " reads, %" PRIu64 " writes, %" PRIu64
	       " flushes, %" PRIu64 " discards, %" PRIu64 " errors, %" PRIu64
	       " torn%s\n",
	       v->failed ? "FAILED" : "ok", ops[SIMMODEL_READ],
	       ops[SIMMODEL_WRITE], ops[SIMMODEL_FLUSH], ops[SIMMODEL_DISCARD],
	       v->counts.errors, simmodel_torn(v->model),
	       simfront_closing(v->guest->front) ? ", closed by the backend" :
						   "");
	if (v->failed) {
		simguest_complain("verify: %s", v->why);
		return SIMGUEST_FAULT;
	}
	if (v->counts.errors > 0 && !v->guest->opt.expect_errors)
		return SIMGUEST_IO_ERROR;
	return SIMGUEST_OK;
}

static int save_model(struct verify *v)
{
	const char *path = v->guest->opt.persist;
	int r = path ? simmodel_save(v->model, path) : 0;

	if (r < 0)
		simguest_complain("verify: %s: %s", path, strerror(-r));
	return r;
}

int simguest_verify(struct simguest *guest, int argc, char **argv)
{
	struct verify v = { .guest = guest, .lock = PTHREAD_MUTEX_INITIALIZER };
	bool known = guest->opt.persist &&
		     access(guest->opt.persist, F_OK) == 0;
	int code, r;

	(void)argc;
	(void)argv;
	if (!parse_ops(&v)) {
		simguest_complain("--ops %s: not a list of weights",
				  guest->opt.ops);
		return SIMGUEST_USAGE;
	}
	r = make_model(&v);
	if (r < 0) {
		simguest_complain("verify: model: %s", strerror(-r));
		return SIMGUEST_USAGE;
	}
	if (guest->opt.gaps && !(v.gaps = fopen(guest->opt.gaps, "a"))) {
		simguest_complain("verify: %s: %s", guest->opt.gaps,
				  strerror(errno));
		return SIMGUEST_USAGE;
	}
	take_limits(&v);
	if (!known)
		read_all(&v, true);
	else if (guest->opt.power_cut)
		read_all(&v, false);
	run_rounds(&v);
	if (!v.failed && !guest->opt.no_final_check &&
	    !simfront_closing(guest->front))
		read_all(&v, false);
	code = report(&v);
	if (save_model(&v) < 0)
		code = SIMGUEST_FAULT;
	if (v.gaps)
		fclose(v.gaps);
	simmodel_free(v.model);
	return code;
}
