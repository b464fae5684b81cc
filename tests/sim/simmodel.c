/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * Time is a counter that ticks at every begin and end.  A sector that is
 * settled has one generation, kept in place; otherwise a chain of candidates,
 * each with the tick at which its request began, was answered (0: not yet),
 * and at which a later request superseded it.  A read may return any candidate
 * that was not superseded before the read began, so superseded candidates stay
 * until every read that began earlier has ended; with volatile_cache also
 * until a flush that began later has ended, since a power cut may bring them
 * back.
 *
 * A read that returned one settled candidate settles the matter: others
 * answered before it began can never be seen again.  A read that returned a
 * candidate which is not answered yet shows that it has been carried out: a
 * write that begins after that supersedes it, whenever its answer comes.
 *
 * One mutex covers everything; simmodel_fill() needs none.
 */
#include "config.h"

#include "simmodel.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR	    512u
#define WORDS	    (SECTOR / sizeof(uint64_t))
#define MAGIC	    0x6b7369646e6578ull /* "xendisk" */
#define GEN_INITIAL 0u /* what the disk held at the start */
#define GEN_ZERO    1u /* discarded */
#define GEN_FIRST   2u
#define ANCIENT	    1u /* tick: answered before anything else began */
#define NEVER	    UINT64_MAX
#define FILE_MAGIC  "simmodl1"

struct candidate {
	uint32_t next; /* index in the pool, 0 ends the chain */
	uint32_t generation;
	uint64_t start, end; /* end 0: in flight */
	uint64_t seen; /* by a read, before it ended; 0: not */
	uint64_t superseded; /* NEVER: not */
};

struct sector {
	uint32_t generation; /* when there is no chain */
	uint32_t chain;
};

struct simmodel {
	struct simmodel_options options;
	pthread_mutex_t lock;
	uint64_t now;
	uint64_t flushed; /* writes answered before this tick are durable */
	uint64_t torn;
	uint32_t next_generation;
	struct simmodel_op *oldest, *newest; /* in flight, by start */
	struct sector *sectors;
	uint32_t *initial; /* hash of the first contents; 0: zeroes */
	struct candidate *pool;
	uint32_t pool_size, pool_free;
};

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static void fill(uint64_t seed, uint32_t sector, uint32_t generation,
		 uint8_t *ret_data)
{
	uint64_t words[WORDS];
	uint64_t state = mix(seed ^ mix((uint64_t)sector << 32 | generation));

	words[0] = MAGIC;
	words[1] = (uint64_t)sector << 32 | generation;
	for (size_t i = 2; i < WORDS; i++) {
		state += 0x9e3779b97f4a7c15ull;
		words[i] = state ^ state >> 29;
	}
	memcpy(ret_data, words, SECTOR);
}

static bool is_zero(const uint8_t *data)
{
	return data[0] == 0 && memcmp(data, data + 1, SECTOR - 1) == 0;
}

static uint32_t hash(const uint8_t *data)
{
	uint64_t sum = MAGIC, word;

	if (is_zero(data))
		return 0;
	for (size_t i = 0; i < WORDS; i++) {
		memcpy(&word, data + i * sizeof(word), sizeof(word));
		sum = mix(sum ^ word);
	}
	return (uint32_t)sum | 1;
}

int simmodel_new(const struct simmodel_options *options,
		 struct simmodel **ret_model)
{
	struct simmodel *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->options = *options;
	m->now = ANCIENT;
	m->next_generation = GEN_FIRST;
	pthread_mutex_init(&m->lock, NULL);
	m->sectors = calloc(options->sectors, sizeof(*m->sectors));
	m->initial = calloc(options->sectors, sizeof(*m->initial));
	if (!m->sectors || !m->initial) {
		simmodel_free(m);
		return -ENOMEM;
	}
	*ret_model = m;
	return 0;
}

void simmodel_free(struct simmodel *model)
{
	if (!model)
		return;
	pthread_mutex_destroy(&model->lock);
	free(model->sectors);
	free(model->initial);
	free(model->pool);
	free(model);
}

uint32_t simmodel_sectors(const struct simmodel *model)
{
	return model->options.sectors;
}

uint64_t simmodel_torn(const struct simmodel *model)
{
	return model->torn;
}

void simmodel_learn(struct simmodel *model, uint32_t sector,
		    const uint8_t *data)
{
	model->initial[sector] = hash(data);
}

/* --- The pool of candidates ---------------------------------------------- */

static void grow_pool(struct simmodel *m)
{
	uint32_t old = m->pool_size ? m->pool_size : 1;
	uint32_t size = old * 2 + 1024;

	m->pool = realloc(m->pool, size * sizeof(*m->pool));
	if (!m->pool)
		abort(); /* a test tool: no way to go on without the model */
	for (uint32_t i = old; i < size; i++)
		m->pool[i].next = i + 1 < size ? i + 1 : 0;
	m->pool_free = old;
	m->pool_size = size;
}

static void add_candidate(struct simmodel *m, uint32_t sector,
			  struct candidate c)
{
	uint32_t index;

	if (!m->pool_free)
		grow_pool(m);
	index = m->pool_free;
	m->pool_free = m->pool[index].next;
	c.next = m->sectors[sector].chain;
	m->pool[index] = c;
	m->sectors[sector].chain = index;
}

/* Makes sure that what the sector holds is a candidate in its chain. */
static void open_chain(struct simmodel *m, uint32_t sector)
{
	if (m->sectors[sector].chain)
		return;
	add_candidate(m, sector,
		      (struct candidate){ .generation =
						  m->sectors[sector].generation,
					  .end = ANCIENT,
					  .superseded = NEVER });
}

static void drop_superseded(struct simmodel *m, uint32_t sector)
{
	uint32_t *link = &m->sectors[sector].chain;
	uint64_t limit = m->oldest ? m->oldest->start : m->now;

	if (m->options.volatile_cache && m->flushed < limit)
		limit = m->flushed;
	while (*link) {
		uint32_t index = *link;

		if (m->pool[index].superseded < limit) {
			*link = m->pool[index].next;
			m->pool[index].next = m->pool_free;
			m->pool_free = index;
		} else {
			link = &m->pool[index].next;
		}
	}
}

/* One settled candidate needs no chain. */
static void close_chain(struct simmodel *m, uint32_t sector)
{
	uint32_t index;
	struct candidate *c;

	drop_superseded(m, sector);
	index = m->sectors[sector].chain;
	c = &m->pool[index];
	if (!index || c->next || !c->end || c->superseded != NEVER)
		return;
	m->sectors[sector].generation = c->generation;
	m->sectors[sector].chain = 0;
	c->next = m->pool_free;
	m->pool_free = index;
}

/* --- Requests ------------------------------------------------------------ */

static void link_op(struct simmodel *m, struct simmodel_op *op)
{
	op->next = NULL;
	op->prev = m->newest;
	if (m->newest)
		m->newest->next = op;
	else
		m->oldest = op;
	m->newest = op;
}

static void unlink_op(struct simmodel *m, struct simmodel_op *op)
{
	if (op->prev)
		op->prev->next = op->next;
	else
		m->oldest = op->next;
	if (op->next)
		op->next->prev = op->prev;
	else
		m->newest = op->prev;
}

static bool changes_data(const struct simmodel_op *op)
{
	return op->kind == SIMMODEL_WRITE || op->kind == SIMMODEL_DISCARD;
}

void simmodel_begin(struct simmodel *model, struct simmodel_op *op)
{
	pthread_mutex_lock(&model->lock);
	op->start = ++model->now;
	op->generation = GEN_ZERO;
	if (op->kind == SIMMODEL_WRITE)
		op->generation = model->next_generation++;
	link_op(model, op);
	for (uint32_t i = 0; changes_data(op) && i < op->sectors; i++) {
		open_chain(model, op->sector + i);
		add_candidate(model, op->sector + i,
			      (struct candidate){ .generation = op->generation,
						  .start = op->start,
						  .superseded = NEVER });
	}
	pthread_mutex_unlock(&model->lock);
}

void simmodel_fill(const struct simmodel *model, const struct simmodel_op *op,
		   uint32_t sector, uint8_t *ret_data)
{
	fill(model->options.seed, sector, op->generation, ret_data);
}

static bool settled(const struct candidate *c, uint64_t before)
{
	return (c->end && c->end < before) || (c->seen && c->seen < before);
}

/* Supersedes what was settled before tick `before`, except `keep`. */
static void supersede(struct simmodel *m, uint32_t sector, uint64_t before,
		      uint64_t keep, bool zeroes_too)
{
	for (uint32_t i = m->sectors[sector].chain; i; i = m->pool[i].next) {
		struct candidate *c = &m->pool[i];

		if (c->generation == GEN_ZERO && !zeroes_too)
			continue;
		if (settled(c, before) && c->start != keep &&
		    c->superseded == NEVER)
			c->superseded = m->now;
	}
}

static void end_change(struct simmodel *m, const struct simmodel_op *op,
		       uint32_t sector, bool ok)
{
	bool replaces = op->kind == SIMMODEL_WRITE || m->options.discard_zeroes;

	for (uint32_t i = m->sectors[sector].chain; i; i = m->pool[i].next)
		if (m->pool[i].start == op->start)
			m->pool[i].end = m->now;
	if (ok && replaces)
		supersede(m, sector, op->start, op->start, true);
	close_chain(m, sector);
}

void simmodel_end(struct simmodel *model, struct simmodel_op *op, bool ok)
{
	pthread_mutex_lock(&model->lock);
	model->now++;
	unlink_op(model, op);
	for (uint32_t i = 0; changes_data(op) && i < op->sectors; i++)
		end_change(model, op, op->sector + i, ok);
	if (op->kind == SIMMODEL_FLUSH && ok && op->start > model->flushed)
		model->flushed = op->start;
	pthread_mutex_unlock(&model->lock);
}

/* --- Judging a read ------------------------------------------------------ */

static bool holds(const struct simmodel *m, uint32_t sector,
		  uint32_t generation, const uint8_t *data)
{
	uint8_t expected[SECTOR];

	if (generation == GEN_ZERO)
		return is_zero(data);
	if (generation == GEN_INITIAL)
		return hash(data) == m->initial[sector];
	fill(m->options.seed, sector, generation, expected);
	return memcmp(expected, data, SECTOR) == 0;
}

/*
 * The bytes of one candidate; false when they are not known (the sector's
 * first contents, of which only a hash is kept).
 */
static bool contents(const struct simmodel *m, uint32_t sector,
		     uint32_t generation, uint8_t *ret_data)
{
	if (generation == GEN_INITIAL && m->initial[sector] != 0)
		return false;
	if (generation < GEN_FIRST)
		memset(ret_data, 0, SECTOR);
	else
		fill(m->options.seed, sector, generation, ret_data);
	return true;
}

/* May this candidate be what the read returned? */
static bool visible(const struct candidate *c, const struct simmodel_op *read)
{
	return c->superseded > read->start;
}

/* Did two requests meet in this sector, so that it may be a mix of both? */
static bool racing(const struct simmodel *m, const struct simmodel_op *read,
		   uint32_t sector)
{
	unsigned int writes = 0;

	for (uint32_t i = m->sectors[sector].chain; i; i = m->pool[i].next) {
		const struct candidate *c = &m->pool[i];

		if (!visible(c, read))
			continue;
		if (!c->end || c->end > read->start)
			return true;
		writes += c->generation >= GEN_FIRST;
	}
	return writes > 1;
}

static bool is_mixture(const struct simmodel *m, const struct simmodel_op *read,
		       uint32_t sector, const uint8_t *data)
{
	uint8_t explained[SECTOR] = { 0 };
	uint8_t bytes[SECTOR];

	for (uint32_t i = m->sectors[sector].chain; i; i = m->pool[i].next) {
		const struct candidate *c = &m->pool[i];

		if (!visible(c, read))
			continue;
		if (!contents(m, sector, c->generation, bytes))
			return true; /* cannot be told */
		for (unsigned int b = 0; b < SECTOR; b++)
			explained[b] |= bytes[b] == data[b];
	}
	return memchr(explained, 0, SECTOR) == NULL;
}

/* Index of the one candidate that matches; 0 none; several: *ret_many. */
static uint32_t match(const struct simmodel *m, const struct simmodel_op *read,
		      uint32_t sector, const uint8_t *data, bool *ret_many)
{
	uint32_t found = 0;

	*ret_many = false;
	for (uint32_t i = m->sectors[sector].chain; i; i = m->pool[i].next) {
		if (!visible(&m->pool[i], read) ||
		    !holds(m, sector, m->pool[i].generation, data))
			continue;
		if (found)
			*ret_many = true;
		found = i;
	}
	return found;
}

static void describe_contents(const struct simmodel *m, const uint8_t *data,
			      uint32_t sector, char *text, size_t size)
{
	uint64_t words[2];
	uint8_t expected[SECTOR];
	uint32_t of, generation;

	memcpy(words, data, sizeof(words));
	of = (uint32_t)(words[1] >> 32);
	generation = (uint32_t)words[1];
	if (is_zero(data)) {
		snprintf(text, size, "zeroes");
	} else if (words[0] == MAGIC) {
		fill(m->options.seed, of, generation, expected);
		snprintf(text, size, "%s generation %u of %s%u",
			 memcmp(expected, data, SECTOR) == 0 ? "the" : "a torn",
			 generation, of == sector ? "this sector, " : "sector ",
			 of);
	} else {
		snprintf(text, size, "%s (starts %#llx)",
			 hash(data) == m->initial[sector] ?
				 "what it held before the test" :
				 "bytes that were never written",
			 (unsigned long long)words[0]);
	}
}

static void describe(const struct simmodel *m, const struct simmodel_op *read,
		     uint32_t sector, const uint8_t *data, char *why,
		     size_t size)
{
	char found[96];
	int at;

	describe_contents(m, data, sector, found, sizeof(found));
	at = snprintf(why, size, "sector %u holds %s; it may hold:", sector,
		      found);
	if (!m->sectors[sector].chain && at > 0 && (size_t)at < size)
		snprintf(why + at, size - (size_t)at, " %u",
			 m->sectors[sector].generation);
	for (uint32_t i = m->sectors[sector].chain; i; i = m->pool[i].next) {
		const struct candidate *c = &m->pool[i];

		if (at < 0 || (size_t)at >= size || !visible(c, read))
			continue;
		at += snprintf(why + at, size - (size_t)at, " %u%s",
			       c->generation, c->end ? "" : "?");
	}
}

static bool check_chain(struct simmodel *m, const struct simmodel_op *read,
			uint32_t sector, const uint8_t *data)
{
	bool many;
	uint32_t found = match(m, read, sector, data, &many);

	if (found) {
		struct candidate *c = &m->pool[found];

		if (!many && !c->end && !c->seen && c->generation != GEN_ZERO)
			c->seen = m->now;
		if (!many && c->end && c->end < read->start)
			supersede(m, sector, read->start, c->start,
				  m->options.discard_zeroes);
		return true;
	}
	if (m->options.atomic_sectors || !racing(m, read, sector) ||
	    !is_mixture(m, read, sector, data))
		return false;
	m->torn++;
	return true;
}

bool simmodel_check(struct simmodel *model, const struct simmodel_op *op,
		    uint32_t sector, const uint8_t *data, char *ret_why,
		    size_t why_size)
{
	const struct sector *s = &model->sectors[sector];
	bool ok;

	pthread_mutex_lock(&model->lock);
	if (s->chain)
		ok = check_chain(model, op, sector, data);
	else
		ok = holds(model, sector, s->generation, data);
	if (!ok)
		describe(model, op, sector, data, ret_why, why_size);
	pthread_mutex_unlock(&model->lock);
	return ok;
}

/* --- The file ------------------------------------------------------------ */

struct file_header {
	char magic[8];
	uint64_t seed;
	uint32_t sectors;
	uint32_t next_generation;
};

struct file_candidate {
	uint32_t sector;
	uint32_t generation;
	uint32_t superseded; /* only a power cut can bring it back */
};

static void save_sector(struct simmodel *m, uint32_t sector, FILE *file)
{
	struct file_candidate out = { .sector = sector };

	close_chain(m, sector);
	out.generation = m->sectors[sector].generation;
	if (!m->sectors[sector].chain && out.generation != GEN_INITIAL)
		fwrite(&out, sizeof(out), 1, file);
	for (uint32_t i = m->sectors[sector].chain; i; i = m->pool[i].next) {
		out.generation = m->pool[i].generation;
		out.superseded = m->pool[i].superseded != NEVER;
		fwrite(&out, sizeof(out), 1, file);
	}
}

int simmodel_save(struct simmodel *model, const char *path)
{
	struct file_header header = {
		.magic = FILE_MAGIC,
		.seed = model->options.seed,
		.sectors = model->options.sectors,
		.next_generation = model->next_generation,
	};
	FILE *file = fopen(path, "wb");
	int r = 0;

	if (!file)
		return -errno;
	pthread_mutex_lock(&model->lock);
	fwrite(&header, sizeof(header), 1, file);
	fwrite(model->initial, sizeof(*model->initial), header.sectors, file);
	for (uint32_t i = 0; i < header.sectors; i++)
		save_sector(model, i, file);
	pthread_mutex_unlock(&model->lock);
	if (ferror(file))
		r = -EIO;
	if (fclose(file) != 0 && r == 0)
		r = -errno;
	return r;
}

static int load_candidates(struct simmodel *m, bool power_cut, FILE *file)
{
	struct file_candidate in;
	uint8_t *seen = calloc(m->options.sectors, 1);

	if (!seen)
		return -ENOMEM;
	while (fread(&in, sizeof(in), 1, file) == 1) {
		if (in.sector >= m->options.sectors) {
			free(seen);
			return -EINVAL;
		}
		if (in.superseded && !power_cut)
			continue;
		if (!seen[in.sector]) {
			m->sectors[in.sector].generation = in.generation;
			seen[in.sector] = 1;
			continue;
		}
		open_chain(m, in.sector);
		add_candidate(m, in.sector,
			      (struct candidate){ .generation = in.generation,
						  .start = ++m->now,
						  .end = m->now,
						  .superseded = NEVER });
	}
	free(seen);
	return 0;
}

static int load_from(FILE *file, const struct simmodel_options *options,
		     bool power_cut, struct simmodel **ret_model)
{
	struct simmodel_options from_file = *options;
	struct file_header header;
	struct simmodel *m;
	int r;

	if (fread(&header, sizeof(header), 1, file) != 1 ||
	    memcmp(header.magic, FILE_MAGIC, sizeof(header.magic)) != 0)
		return -EINVAL;
	from_file.seed = header.seed;
	from_file.sectors = header.sectors;
	r = simmodel_new(&from_file, &m);
	if (r < 0)
		return r;
	m->next_generation = header.next_generation;
	if (fread(m->initial, sizeof(*m->initial), header.sectors, file) !=
	    header.sectors)
		r = -EINVAL;
	else
		r = load_candidates(m, power_cut, file);
	if (r < 0)
		simmodel_free(m);
	else
		*ret_model = m;
	return r;
}

int simmodel_load(const char *path, const struct simmodel_options *options,
		  bool power_cut, struct simmodel **ret_model)
{
	FILE *file = fopen(path, "rb");
	int r;

	if (!file)
		return -errno;
	r = load_from(file, options, power_cut, ret_model);
	fclose(file);
	return r;
}
