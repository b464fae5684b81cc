/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Objects on their way into packs.
 *
 * Theory of operation
 *
 * Objects stand in a ring in the order in which they were sent, and three numbers
 * go round it:
 *
 *     written <= taken <= sent <= written + size of the ring
 *
 * The user's thread sends, any worker takes the next one, and works on it beside
 * the others: zero test, hash, comparison, then compression.  What is ready and
 * first in the ring is written by the worker that comes by, one at a time
 * (`writing`); so packs have the order of sending, and there is no thread that only
 * waits to write.  Workers never wait for anybody but the user, so the user may
 * wait for them anywhere.
 *
 * What became of a chunk goes into a second ring, from which the user's thread
 * passes it on.  It has as much room as there may be chunks on their way: the
 * user gets no buffer before that is so.  pack_add() neither needs nor empties it,
 * and may therefore be called from within done().
 *
 * The first error stays.  From then on the ring is only emptied.
 */
#include "config.h"

#include "pack-write.h"

#include <pthread.h>
#include <string.h>

#include "common/util.h"
#include "pack-private.h"

#define SLOTS_MORE 8u /* than there are threads, times two */
#define LARGE	   (1u << 20) /* an object that is not copied */

struct buffer {
	uint8_t *data;
	size_t room;
};

struct slot {
	struct buffer in, out;
	size_t n, out_n;
	enum object_type type;
	bool ready; /* to be written, or passed over */
	bool is_chunk;
	bool has_same;
	uint64_t tag;
	uint8_t same[OID_BYTES];
	enum pack_fate fate;
	uint8_t oid[OID_BYTES];
	uint32_t crc;
};

struct outcome {
	uint64_t tag;
	enum pack_fate fate;
	uint8_t oid[OID_BYTES];
};

struct worker {
	struct pack_writer *writer;
	pthread_t thread;
	struct hasher *hasher;
	struct packer *packer;
};

struct pack_writer {
	struct pack_options options;
	struct worker *workers;
	unsigned int nr_workers; /* that run */
	/* The user's thread only */
	struct hasher *hasher;
	struct buffer spare; /* what pack_buffer() gives */
	uint64_t chunks_sent, chunks_done;
	bool finished;
	/* The worker's that is writing, in the end the user's */
	struct pack_set *packs;
	/* One at a time */
	pthread_mutex_t have_lock;
	/* All that follows */
	pthread_mutex_t lock;
	pthread_cond_t work; /* for workers */
	pthread_cond_t room; /* for the user */
	struct slot *slots;
	struct outcome *outcomes;
	unsigned int nr_slots; /* of both */
	uint64_t sent, taken, written;
	uint64_t chunks_out; /* outcomes, ever */
	bool writing, stopping;
	struct oid_set *ids;
	struct pack_totals totals;
	int err;
	char why[WHY_MAX];
};

/* --- Errors ---------------------------------------------------------------------- */

/* The first one counts. */
static void fail_locked(struct pack_writer *w, int err, const char *text)
{
	if (w->err == 0) {
		w->err = err;
		(void)snprintf(w->why, sizeof(w->why), "%s", text);
	}
	pthread_cond_broadcast(&w->room);
}

static int fail(struct pack_writer *w, int err, const char *text)
{
	pthread_mutex_lock(&w->lock);
	fail_locked(w, err, text);
	pthread_mutex_unlock(&w->lock);
	return err;
}

static int failed_locked(const struct pack_writer *w, char *ret_why)
{
	return w->err < 0 ? why(ret_why, w->err, "%s", w->why) : 0;
}

static int failed(struct pack_writer *w, char *ret_why)
{
	int r;

	pthread_mutex_lock(&w->lock);
	r = failed_locked(w, ret_why);
	pthread_mutex_unlock(&w->lock);
	return r;
}

/* --- Buffers --------------------------------------------------------------------- */

static int want_room(struct buffer *buffer, size_t n)
{
	if (n > buffer->room) {
		free(buffer->data);
		*buffer = (struct buffer){ .data = malloc(n), .room = n };
		if (!buffer->data)
			buffer->room = 0;
	}
	return n == 0 || buffer->data ? 0 : -ENOMEM;
}

static void let_go(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){ 0 };
}

static struct slot *slot_of(const struct pack_writer *w, uint64_t number)
{
	return &w->slots[number % w->nr_slots];
}

/* --- A worker on an object -------------------------------------------------------- */

static bool all_zero(const uint8_t *data, size_t n)
{
	return data[0] == 0 && memcmp(data, data + 1, n - 1) == 0;
}

/* 1: nobody has it; 0: it is there, or another one on its way is it. */
static int is_new(struct pack_writer *w, const uint8_t *oid)
{
	bool there = false;
	int r;

	pthread_mutex_lock(&w->lock);
	r = oid_set_add(w->ids, oid);
	pthread_mutex_unlock(&w->lock);
	if (r == 1 && w->options.have) {
		pthread_mutex_lock(&w->have_lock);
		there = w->options.have(w->options.ctx, oid);
		pthread_mutex_unlock(&w->have_lock);
	}
	return r == 1 ? !there : r;
}

/* PACK_DEFLATED: it is to be packed. */
static int judge(struct worker *worker, struct slot *slot)
{
	uint8_t *oid = slot->oid;
	int r;

	if (all_zero(slot->in.data, slot->n)) {
		slot->fate = PACK_ZERO;
		return 0;
	}
	r = hasher_oid(worker->hasher, slot->type, slot->in.data, slot->n, oid);
	if (r < 0)
		return r;
	if (slot->has_same && memcmp(oid, slot->same, OID_BYTES) == 0) {
		slot->fate = PACK_SAME;
		return 0;
	}
	r = is_new(worker->writer, oid);
	if (r == 0)
		slot->fate = PACK_THERE;
	return MIN(r, 0);
}

static int pack(struct worker *worker, struct slot *slot)
{
	bool stored;
	int r = want_room(&slot->out, pack_entry_max(slot->n));

	if (r < 0)
		return r;
	slot->out_n = pack_entry(worker->packer, slot->type, slot->in.data,
				 slot->n, slot->out.data, &stored);
	slot->crc = pack_crc(0, slot->out.data, slot->out_n);
	slot->fate = stored ? PACK_STORED : PACK_DEFLATED;
	return 0;
}

static int work_on(struct worker *worker, struct slot *slot)
{
	int r = 0;

	slot->fate = PACK_DEFLATED;
	if (slot->is_chunk)
		r = judge(worker, slot);
	if (r == 0 && slot->fate == PACK_DEFLATED)
		r = pack(worker, slot);
	return r;
}

/* --- The ring, from the workers' side -------------------------------------------- */

static int write_slot(struct pack_writer *w, const struct slot *slot,
		      char *ret_why)
{
	struct pack_file *file;
	int r;

	if (slot->fate < PACK_STORED)
		return 0;
	r = pack_set_room(w->packs, slot->out_n, &file, ret_why);
	if (r == 0)
		r = pack_file_begin(file, slot->oid, ret_why);
	if (r == 0)
		r = pack_file_append(file, slot->out.data, slot->out_n,
				     ret_why);
	if (r == 0)
		pack_file_end(file, slot->crc);
	return r;
}

static void count(struct pack_writer *w, const struct slot *slot)
{
	if (slot->is_chunk)
		w->totals.fates[slot->fate]++;
	if (slot->fate < PACK_STORED)
		return;
	w->totals.objects++;
	w->totals.bytes += slot->n;
	w->totals.packed += slot->out_n;
}

static void tell(struct pack_writer *w, const struct slot *slot)
{
	struct outcome *outcome = &w->outcomes[w->chunks_out++ % w->nr_slots];

	outcome->tag = slot->tag;
	outcome->fate = slot->fate;
	memcpy(outcome->oid, slot->oid, OID_BYTES);
}

static bool can_write(const struct pack_writer *w)
{
	return !w->writing && w->written < w->taken &&
	       slot_of(w, w->written)->ready;
}

static void write_next(struct pack_writer *w)
{
	struct slot *slot = slot_of(w, w->written);
	char text[WHY_MAX];
	int r = w->err;

	w->writing = true;
	if (r == 0) {
		pthread_mutex_unlock(&w->lock);
		r = write_slot(w, slot, text);
		pthread_mutex_lock(&w->lock);
		if (r < 0)
			fail_locked(w, r, text);
	}
	if (w->err == 0) {
		count(w, slot);
		if (slot->is_chunk)
			tell(w, slot);
	}
	slot->ready = false;
	w->writing = false;
	w->written++;
	pthread_cond_broadcast(&w->room);
}

static void take_next(struct worker *worker)
{
	struct pack_writer *w = worker->writer;
	struct slot *slot = slot_of(w, w->taken++);
	int r = w->err;

	if (r == 0) {
		pthread_mutex_unlock(&w->lock);
		r = work_on(worker, slot);
		pthread_mutex_lock(&w->lock);
		if (r < 0)
			fail_locked(w, r,
				    r == -ENOMEM ?
					    "no memory for an object" :
					    "an object cannot be hashed");
	}
	slot->ready = true;
}

static void *run(void *ctx)
{
	struct worker *worker = ctx;
	struct pack_writer *w = worker->writer;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		if (can_write(w))
			write_next(w);
		else if (w->taken < w->sent)
			take_next(worker);
		else if (w->stopping)
			break;
		else
			pthread_cond_wait(&w->work, &w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* --- The ring, from the user's side ----------------------------------------------- */

/* The next slot, once it is free. */
static int wait_slot(struct pack_writer *w, struct slot **ret, char *ret_why)
{
	int r;

	pthread_mutex_lock(&w->lock);
	while (w->err == 0 && w->sent - w->written == w->nr_slots)
		pthread_cond_wait(&w->room, &w->lock);
	r = failed_locked(w, ret_why);
	pthread_mutex_unlock(&w->lock);
	if (r == 0)
		*ret = slot_of(w, w->sent);
	return r;
}

static void send_slot(struct pack_writer *w)
{
	pthread_mutex_lock(&w->lock);
	w->sent++;
	pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->lock);
}

/* Waits until there is an outcome, if it must; 1: there was one. */
static int next_outcome(struct pack_writer *w, bool must, struct outcome *ret,
			char *ret_why)
{
	int r;

	pthread_mutex_lock(&w->lock);
	while (must && w->err == 0 && w->chunks_out == w->chunks_done)
		pthread_cond_wait(&w->room, &w->lock);
	r = failed_locked(w, ret_why);
	if (r == 0 && w->chunks_out > w->chunks_done) {
		*ret = w->outcomes[w->chunks_done % w->nr_slots];
		r = 1;
	}
	pthread_mutex_unlock(&w->lock);
	return r;
}

/* Passes on what has become of chunks until no more than `left` are on their way
 * and no outcome waits. */
static int deliver(struct pack_writer *w, uint64_t left, char *ret_why)
{
	for (;;) {
		struct outcome o;
		int r = next_outcome(w, w->chunks_sent - w->chunks_done > left,
				     &o, ret_why);

		if (r <= 0)
			return r;
		w->chunks_done++;
		if (!w->options.done)
			continue;
		r = w->options.done(w->options.ctx, o.tag,
				    o.fate == PACK_ZERO ? NULL : o.oid, o.fate,
				    ret_why);
		if (r < 0)
			return fail(w, r, ret_why);
	}
}

int pack_buffer(struct pack_writer *w, size_t n, void **ret, char *ret_why)
{
	int r = deliver(w, w->nr_slots - 1, ret_why);

	if (r < 0)
		return r;
	if (n == 0 || n > PACK_MAX_CHUNK)
		return why(ret_why, n ? -EFBIG : -EINVAL,
			   "a chunk of %zu bytes", n);
	r = want_room(&w->spare, n);
	if (r < 0)
		return why(ret_why, r, "no memory for a chunk of %zu bytes", n);
	*ret = w->spare.data;
	return 0;
}

int pack_add_chunk(struct pack_writer *w, void *buffer, size_t n, uint64_t tag,
		   const uint8_t *same_as, char *ret_why)
{
	struct buffer filled = w->spare;
	struct slot *slot;
	int r;

	if (buffer != filled.data || n == 0 || n > filled.room)
		return why(ret_why, -EINVAL, "not the buffer that was given");
	r = wait_slot(w, &slot, ret_why);
	if (r < 0)
		return r;
	w->spare = slot->in;
	slot->in = filled;
	slot->n = n;
	slot->type = OBJECT_BLOB;
	slot->is_chunk = true;
	slot->tag = tag;
	slot->has_same = same_as != NULL;
	if (same_as)
		memcpy(slot->same, same_as, OID_BYTES);
	w->chunks_sent++;
	send_slot(w);
	return 0;
}

int pack_chunks_drain(struct pack_writer *w, char *ret_why)
{
	return deliver(w, 0, ret_why);
}

static int send_object(struct pack_writer *w, enum object_type type,
		       const void *data, size_t n, const uint8_t *oid,
		       char *ret_why)
{
	struct slot *slot;
	int r = wait_slot(w, &slot, ret_why);

	if (r < 0)
		return r;
	r = want_room(&slot->in, n + 1);
	if (r < 0)
		return fail(w, why(ret_why, r, "no memory for an object"),
			    ret_why);
	if (n > 0)
		memcpy(slot->in.data, data, n);
	slot->n = n;
	slot->type = type;
	slot->is_chunk = false;
	memcpy(slot->oid, oid, OID_BYTES);
	send_slot(w);
	return 0;
}

/* A large object is written by the user's thread, when the ring is empty: workers
 * have nothing to write while it sends nothing. */
static int add_large(struct pack_writer *w, enum object_type type,
		     const void *data, size_t n, const uint8_t *oid,
		     char *ret_why)
{
	uint64_t packed;
	int r;

	pthread_mutex_lock(&w->lock);
	while (w->err == 0 && w->written < w->sent)
		pthread_cond_wait(&w->room, &w->lock);
	r = failed_locked(w, ret_why);
	pthread_mutex_unlock(&w->lock);
	if (r < 0)
		return r;
	r = pack_large(w->packs, w->options.store_only,
		       &(struct pack_large){ type, data, n, oid }, &packed,
		       ret_why);
	if (r < 0)
		return fail(w, r, ret_why);
	pthread_mutex_lock(&w->lock);
	w->totals.objects++;
	w->totals.bytes += n;
	w->totals.packed += packed;
	pthread_mutex_unlock(&w->lock);
	return 0;
}

int pack_add(struct pack_writer *w, enum object_type type, const void *data,
	     size_t n, uint8_t ret_oid[OID_BYTES], char *ret_why)
{
	uint8_t oid[OID_BYTES];
	int r = failed(w, ret_why);

	if (r < 0)
		return r;
	if (n > PACK_MAX_OBJECT)
		return why(ret_why, -EFBIG, "an object of %zu bytes", n);
	r = hasher_oid(w->hasher, type, data, n, oid);
	if (r == 0)
		r = is_new(w, oid);
	if (r < 0)
		return fail(w,
			    why(ret_why, r, "an object cannot be hashed: %s",
				strerror(-r)),
			    ret_why);
	if (r == 1)
		r = n > LARGE ? add_large(w, type, data, n, oid, ret_why) :
				send_object(w, type, data, n, oid, ret_why);
	if (r < 0)
		return r;
	memcpy(ret_oid, oid, OID_BYTES);
	return 0;
}

/* --- Begin and end ----------------------------------------------------------------- */

static int start_workers(struct pack_writer *w)
{
	unsigned int nr = w->options.threads;

	w->workers = calloc(nr, sizeof(*w->workers));
	if (!w->workers)
		return -ENOMEM;
	for (; w->nr_workers < nr; w->nr_workers++) {
		struct worker *worker = &w->workers[w->nr_workers];
		int r = hasher_new(&worker->hasher);

		worker->writer = w;
		if (r == 0)
			r = packer_new(&worker->packer, w->options.store_only);
		if (r == 0)
			r = pack_thread(&worker->thread, run, worker);
		if (r < 0) {
			packer_free(worker->packer);
			hasher_free(worker->hasher);
			return r;
		}
	}
	return 0;
}

/* They have written all that was sent. */
static void stop_workers(struct pack_writer *w)
{
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_broadcast(&w->work);
	pthread_mutex_unlock(&w->lock);
	for (unsigned int i = 0; i < w->nr_workers; i++) {
		(void)pthread_join(w->workers[i].thread, NULL);
		packer_free(w->workers[i].packer);
		hasher_free(w->workers[i].hasher);
	}
	w->nr_workers = 0;
}

static int make(struct pack_writer *w)
{
	int r;

	w->nr_slots = 2 * w->options.threads + SLOTS_MORE;
	w->slots = calloc(w->nr_slots, sizeof(*w->slots));
	w->outcomes = calloc(w->nr_slots, sizeof(*w->outcomes));
	if (!w->slots || !w->outcomes)
		return -ENOMEM;
	r = hasher_new(&w->hasher);
	if (r == 0)
		r = oid_set_new(&w->ids);
	if (r == 0)
		r = pack_set_new(&w->packs, w->options.dir, w->options.split);
	return r < 0 ? r : start_workers(w);
}

int pack_writer_new(struct pack_writer **ret,
		    const struct pack_options *options, char *ret_why)
{
	struct pack_writer *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return why(ret_why, -ENOMEM, "no memory for a pack");
	w->options = *options;
	w->options.threads = MIN(MAX(options->threads, 1u), PACK_MAX_THREADS);
	if (options->split == 0)
		w->options.split = PACK_SPLIT;
	pthread_mutex_init(&w->lock, NULL);
	pthread_mutex_init(&w->have_lock, NULL);
	pthread_cond_init(&w->work, NULL);
	pthread_cond_init(&w->room, NULL);
	r = make(w);
	if (r < 0) {
		pack_writer_free(w);
		return why(ret_why, r, "packs cannot be written: %s",
			   strerror(-r));
	}
	*ret = w;
	return 0;
}

void pack_writer_free(struct pack_writer *w)
{
	if (!w)
		return;
	/* What is still on its way need not be written. */
	(void)fail(w, -ECANCELED, "given up");
	stop_workers(w);
	for (unsigned int i = 0; w->slots && i < w->nr_slots; i++) {
		let_go(&w->slots[i].in);
		let_go(&w->slots[i].out);
	}
	let_go(&w->spare);
	pack_set_free(w->packs);
	oid_set_free(w->ids);
	hasher_free(w->hasher);
	pthread_cond_destroy(&w->work);
	pthread_cond_destroy(&w->room);
	pthread_mutex_destroy(&w->lock);
	pthread_mutex_destroy(&w->have_lock);
	free(w->workers);
	free(w->outcomes);
	free(w->slots);
	free(w);
}

int pack_writer_finish(struct pack_writer *w, struct pack_names *ret,
		       char *ret_why)
{
	int r = failed(w, ret_why);

	if (r < 0)
		return r;
	if (w->finished || w->chunks_sent > w->chunks_done)
		return why(ret_why, -EINVAL, "chunks are still on their way");
	w->finished = true;
	stop_workers(w);
	r = failed(w, ret_why);
	if (r < 0)
		return r;
	r = pack_set_publish(w->packs, w->options.keep_text, ret, ret_why);
	return r < 0 ? fail(w, r, ret_why) : 0;
}

void pack_totals(struct pack_writer *w, struct pack_totals *ret)
{
	pthread_mutex_lock(&w->lock);
	*ret = w->totals;
	pthread_mutex_unlock(&w->lock);
}
