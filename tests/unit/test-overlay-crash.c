/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The overlay after a power failure, at any moment.
 *
 * A random run of a disk (writes, discards, several flushes at once, snapshots,
 * commits, layers dropped, the disk grown, closed and opened again, killed in the
 * middle of any of it) is recorded:
 * every change of a file, and every fdatasync with the changes that it covers.
 * For each place in the record there are many states that a power failure may
 * leave: what was covered is there; of what came later each 512 bytes may be as
 * they were, or as they were written.  Each is made, opened, repaired and read:
 *
 *   it opens;
 *   a sector holds what was flushed last, or what was written after that: never
 *   older content, never zeroes that nobody wrote;
 *   a snapshot, a commit that was acknowledged is there.
 *
 * Negative controls: the same with something left out, which must be found.
 *
 * XENDISK_OVERLAY_RUNS: how many runs, 2 if it is not set.
 */
#include "config.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <cmocka.h>

#include "common/util.h"
#include "overlay-fixture.h"

/* A process that is killed frees nothing. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

/* --- Faults: what a careless overlay would do ----------------------------------- */

enum fault {
	NO_FAULT,
	MAP_BEFORE_DATA, /* the data is made durable last */
	MAP_NOT_SYNCED,
	META_NOT_SYNCED,
	COPY_AFTER_SYNC, /* bits are copied when the data is durable */
	ONE_PLACE, /* a page is written over its only copy */
	LEFT_UNSYNCED, /* what a killed worker left is believed as it is */
	NR_FAULTS
};

static const char *const fault_names[] = {
	[NO_FAULT] = "none",
	[MAP_BEFORE_DATA] = "map before data",
	[MAP_NOT_SYNCED] = "no fdatasync of the map",
	[META_NOT_SYNCED] = "no fdatasync of meta",
	[COPY_AFTER_SYNC] = "bits copied after the data's fdatasync",
	[ONE_PLACE] = "pages written over their only copy",
	[LEFT_UNSYNCED] = "what a dead worker left not made durable",
};

static enum fault fault;

/* --- The record ------------------------------------------------------------------ */

#define PIECE	 512u
#define NR_FILES (1 + 2 * OVERLAY_SLOTS)
#define MAX_OPS	 6000u
#define NEVER	 UINT32_MAX

enum op_kind { OP_WRITE, OP_PUNCH, OP_SIZE, OP_SYNC };

static struct op {
	enum op_kind kind;
	unsigned int file;
	uint64_t at, length;
	uint8_t *data;
	unsigned int covers; /* SYNC: the ops before this one */
	unsigned int durable; /* by itself, when so many ops had been; or 0 */
} ops[MAX_OPS];
static unsigned int nr_ops;
static bool recording;

static void file_name(unsigned int file, char ret[16])
{
	if (file == 0)
		(void)strcpy(ret, "meta");
	else
		(void)snprintf(ret, 16, "%s%u", file % 2 ? "data" : "map",
			       (file - 1) / 2);
}

/* -1: none of those that matter. */
static int file_of(int fd)
{
	char link[32], path[256], name[16];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return -1;
	path[n] = '\0';
	for (unsigned int i = 0; i < NR_FILES; i++) {
		file_name(i, name);
		if (strcmp(strrchr(path, '/') + 1, name) == 0)
			return (int)i;
	}
	return -1;
}

static void record(int fd, enum op_kind kind, uint64_t at, uint64_t length,
		   const void *data)
{
	int file = recording ? file_of(fd) : -1;
	struct op *op = &ops[nr_ops];

	if (file < 0)
		return;
	assert_true(nr_ops < MAX_OPS);
	*op =
		(struct op){ kind, (unsigned int)file, at, length, NULL, nr_ops,
			     0 };
	if (data) {
		op->data = malloc(length);
		assert_non_null(op->data);
		memcpy(op->data, data, length);
	}
	nr_ops++;
}

static void record_sync(int fd, unsigned int covers)
{
	record(fd, OP_SYNC, 0, 0, NULL);
	if (nr_ops > 0 && ops[nr_ops - 1].kind == OP_SYNC)
		ops[nr_ops - 1].covers = covers;
}

/* What was written since `first`, and nothing else; it takes its time, too. */
static void record_dsync(int fd, unsigned int first)
{
	unsigned int end = nr_ops;

	record_sync(fd, 0);
	for (unsigned int i = first; i < end; i++)
		ops[i].durable = nr_ops;
}

static void forget_record(void)
{
	for (unsigned int i = 0; i < nr_ops; i++)
		free(ops[i].data);
	nr_ops = 0;
}

static bool taking_over; /* the next one begins */
/* Calls until the process is killed; 0: it is not. */
static unsigned int kill_in;
static jmp_buf killed;

static void maybe_killed(void)
{
	if (recording && kill_in > 0 && --kill_in == 0)
		longjmp(killed, 1);
}

/* Called by the product in place of the C library's. */
ssize_t __real_pwrite(int fd, const void *data, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t at);
ssize_t __real_pwritev(int fd, const struct iovec *iov, int nr, off_t at);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int nr, off_t at);
int __real_fallocate(int fd, int mode, off_t at, off_t n);
int __wrap_fallocate(int fd, int mode, off_t at, off_t n);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
uint64_t __real_map_page_offset(uint32_t page, unsigned int place);
uint64_t __wrap_map_page_offset(uint32_t page, unsigned int place);

ssize_t __wrap_pwrite(int fd, const void *data, size_t n, off_t at)
{
	maybe_killed();
	record(fd, OP_WRITE, (uint64_t)at, n, data);
	return __real_pwrite(fd, data, n, at);
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int nr, off_t at)
{
	off_t end = at;

	maybe_killed();
	for (int i = 0; i < nr; end += (off_t)iov[i++].iov_len)
		record(fd, OP_WRITE, (uint64_t)end, iov[i].iov_len,
		       iov[i].iov_base);
	return __real_pwritev(fd, iov, nr, at);
}

int __wrap_fallocate(int fd, int mode, off_t at, off_t n)
{
	maybe_killed();
	record(fd, mode ? OP_PUNCH : OP_SIZE, (uint64_t)at, (uint64_t)n, NULL);
	return __real_fallocate(fd, mode, at, n);
}

int __wrap_fdatasync(int fd)
{
	maybe_killed();
	if ((fault != META_NOT_SYNCED || file_of(fd) != 0) &&
	    (fault != LEFT_UNSYNCED || !taking_over))
		record_sync(fd, nr_ops);
	return 0;
}

uint64_t __wrap_map_page_offset(uint32_t page, unsigned int place)
{
	return __real_map_page_offset(page,
				      fault == ONE_PLACE ? PLACE_A : place);
}

/* --- Chance ---------------------------------------------------------------------- */

static uint64_t chance_state;

static unsigned int chance(unsigned int n)
{
	chance_state = chance_state * 6364136223846793005ull + 1;
	return (unsigned int)(chance_state >> 33) % n;
}

/* --- What must be there ------------------------------------------------------------ */

#define MAX_VERSIONS 400u
#define MAX_ACKS     100u

/* Of a sector; the first one is that of the first commit. */
static struct version {
	uint64_t stamp;
	unsigned int from; /* the op that wrote it */
	unsigned int flushed; /* so many ops had been when it was */
} versions[OFIX_SECTORS][MAX_VERSIONS];
static unsigned int nr_versions[OFIX_SECTORS];

static struct ack {
	unsigned int after; /* so many ops */
	uint64_t gen;
	bool committed; /* or only frozen */
	uint64_t size; /* not 0: the disk has grown */
} acks[MAX_ACKS];
static unsigned int nr_acks;

static void add_version(unsigned int index, uint64_t stamp)
{
	struct version *v = &versions[index][nr_versions[index]++];

	assert_true(nr_versions[index] <= MAX_VERSIONS);
	*v = (struct version){ stamp, nr_ops, NEVER };
}

static void all_flushed(const unsigned int upto[OFIX_SECTORS])
{
	for (unsigned int i = 0; i < OFIX_SECTORS; i++)
		for (unsigned int v = 0; v < upto[i]; v++)
			versions[i][v].flushed =
				MIN(versions[i][v].flushed, nr_ops);
}

static void acknowledge(uint64_t gen, bool committed, uint64_t size)
{
	assert_true(nr_acks < MAX_ACKS);
	acks[nr_acks++] = (struct ack){ nr_ops, gen, committed, size };
}

static bool may_be(unsigned int index, uint64_t stamp, unsigned int cut)
{
	unsigned int v = nr_versions[index];

	while (v-- > 0) {
		const struct version *version = &versions[index][v];

		if (version->stamp == stamp && version->from <= cut)
			return true;
		if (version->flushed <= cut)
			break;
	}
	return false;
}

/* --- A run --------------------------------------------------------------------------- */

#define MACHINES 3u

/* A flush of a lane, whose fdatasync takes its time. */
static struct machine {
	struct layer_flush flush;
	enum layer_step step;
	bool used, syncing;
	unsigned int covers;
	unsigned int upto[OFIX_SECTORS];
} machines[MACHINES];

static void machine_begin(struct machine *m, const struct ofix *f)
{
	memset(m, 0, sizeof(*m));
	m->used = true;
	memcpy(m->upto, nr_versions, sizeof(m->upto));
	m->flush.can_dsync = chance(2);
	m->step = layer_flush_begin(&m->flush, overlay_active(f->overlay));
}

static enum layer_step machine_sync(struct machine *m)
{
	bool map = file_of(m->flush.fd) % 2 == 0;

	if (!m->syncing) {
		m->syncing = true;
		m->covers = nr_ops;
		return LAYER_SYNC;
	}
	m->syncing = false;
	if (!(fault == MAP_BEFORE_DATA && !map) &&
	    !(fault == MAP_NOT_SYNCED && map))
		record_sync(m->flush.fd, m->covers);
	if (fault == COPY_AFTER_SYNC && !map) {
		layer_flush_cancel(&m->flush);
		(void)layer_flush_begin(&m->flush, m->flush.layer);
	}
	return layer_flush_next(&m->flush, 0);
}

/* Now and then only a part of it. */
static int64_t machine_write(const struct layer_flush *flush)
{
	size_t part = flush->iov->iov_len / PIECE / 2 * PIECE;
	unsigned int first = nr_ops;
	ssize_t n;

	if (part == 0 || chance(4) > 0)
		n = pwritev(flush->fd, flush->iov, (int)flush->iovcnt,
			    (off_t)flush->offset);
	else
		n = pwrite(flush->fd, flush->iov->iov_base, part,
			   (off_t)flush->offset);
	if (flush->dsync && fault != MAP_NOT_SYNCED)
		record_dsync(flush->fd, first);
	return n;
}

static void machine_go(struct machine *m)
{
	struct layer_flush *flush = &m->flush;

	if (m->step == LAYER_SYNC)
		m->step = machine_sync(m);
	else if (m->step == LAYER_WRITE)
		m->step = layer_flush_next(flush, machine_write(flush));
	else if (m->step == LAYER_WAIT)
		m->step = layer_flush_next(flush, 0);
	if (m->step != LAYER_DONE)
		return;
	assert_int_equal(flush->err, 0);
	if (fault == MAP_BEFORE_DATA)
		record_sync(layer_data_fd(flush->layer), nr_ops);
	m->used = false;
	all_flushed(m->upto);
}

static void finish_machines(void)
{
	bool busy = true;

	while (busy) {
		busy = false;
		for (unsigned int i = 0; i < MACHINES; i++)
			if (machines[i].used) {
				machine_go(&machines[i]);
				busy = true;
			}
	}
}

static void run_snapshot(struct ofix *f)
{
	struct snapshot_info info = { .message = "a snapshot" };
	uint64_t gen;
	int err;

	finish_machines();
	err = overlay_freeze(f->overlay, &info, &gen, f->why);
	if (err == -EBUSY || err == -EAGAIN)
		return;
	assert_int_equal(err, 0);
	all_flushed(nr_versions);
	acknowledge(gen, false, 0);
}

static void run_commit(struct ofix *f)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	unsigned int nr = overlay_layers(f->overlay, layers);
	uint8_t commit[OID_BYTES];

	while (nr > 0 && layers[nr - 1].state != LAYER_FROZEN)
		nr--;
	if (nr == 0)
		return;
	ofix_commit(f, layers[nr - 1].generation, commit);
	assert_int_equal(
		overlay_committed(f->overlay, layers[nr - 1].generation, commit,
				  chance(2) ? OVERLAY_ON_BRANCH : OVERLAY_LEAF,
				  f->why),
		0);
	acknowledge(layers[nr - 1].generation, true, 0);
}

static void run_drop(struct ofix *f)
{
	uint64_t gen;

	if (overlay_drop(f->overlay, &gen, f->why) == 0)
		assert_int_equal(overlay_empty(f->overlay, gen, f->why), 0);
}

/* What was not flushed may be gone, and then it is for good. */
static void look_what_is_left(const struct ofix *f)
{
	for (unsigned int i = 0; i < OFIX_SECTORS; i++) {
		uint64_t stamp = ofix_read(f, i);

		assert_true(fault || may_be(i, stamp, nr_ops));
		if (versions[i][nr_versions[i] - 1].stamp != stamp)
			add_version(i, stamp);
	}
}

static void run_reopen(struct ofix *f)
{
	finish_machines();
	if (chance(2)) {
		assert_int_equal(ofix_end(f), 0);
		all_flushed(nr_versions);
	} else {
		ofix_kill(f);
	}
	assert_int_equal(ofix_start(f, true), 0);
	look_what_is_left(f);
}

static void run_grow(struct ofix *f)
{
	uint64_t size = overlay_facts(f->overlay)->size + 4096 * 40;

	assert_int_equal(overlay_grow(f->overlay, size, f->why), 0);
	overlay_grown(f->overlay);
	acknowledge(0, false, size);
}

static void run_step(struct ofix *f)
{
	struct machine *m = &machines[chance(MACHINES)];
	unsigned int what = chance(100), index = chance(OFIX_SECTORS);

	if (what < 40) {
		add_version(index, chance(4) ? 5000 + nr_ops : 0);
		ofix_write(f, index,
			   versions[index][nr_versions[index] - 1].stamp);
	} else if (what < 88) {
		if (m->used)
			machine_go(m);
		else
			machine_begin(m, f);
	} else if (what < 91) {
		run_snapshot(f);
	} else if (what < 93) {
		run_commit(f);
	} else if (what < 95) {
		run_drop(f);
	} else if (what < 96) {
		run_reopen(f);
	} else if (what < 99) {
		kill_in = kill_in ? kill_in : 1 + chance(15);
	} else {
		run_grow(f);
	}
}

/* What the page cache has is there for the next one, durable or not. */
static void run_after_death(struct ofix *f)
{
	memset(machines, 0, sizeof(machines));
	kill_in = 0;
	ofix_kill(f);
	taking_over = true;
	assert_int_equal(ofix_start(f, true), 0);
	taking_over = false;
	look_what_is_left(f);
}

static void run_steps(struct ofix *f, unsigned int steps)
{
	/* Not on the stack: it is changed before the longjmp(). */
	static unsigned int left;

	left = steps;
	if (setjmp(killed))
		run_after_death(f);
	while (left-- > 0)
		run_step(f);
	kill_in = 0;
	finish_machines();
}

static void run(struct ofix *f, uint64_t seed, unsigned int steps)
{
	chance_state = seed * 77777 + 12345;
	forget_record();
	nr_acks = 0;
	memset(machines, 0, sizeof(machines));
	ofix_new(f);
	for (unsigned int i = 0; i < OFIX_SECTORS; i++) {
		nr_versions[i] = 1;
		versions[i][0] = (struct version){ f->commit[0][i], 0, 0 };
	}
	recording = true;
	assert_int_equal(ofix_start(f, false), 0);
	run_steps(f, steps);
	recording = false;
}

/* --- A state after a power failure ----------------------------------------------------- */

enum lost { ALL_LOST, NONE_LOST, SOME_LOST, WRITES_LOST, FILES_LOST, NR_LOST };

static bool is_lost(enum lost lost, bool by_write, bool by_file)
{
	switch (lost) {
	case ALL_LOST:
		return true;
	case NONE_LOST:
		return false;
	case WRITES_LOST:
		return by_write;
	case FILES_LOST:
		return by_file;
	default:
		return chance(2);
	}
}

static void put_pieces(int fd, const struct op *op, enum lost lost,
		       bool by_file)
{
	static const uint8_t zeroes[PIECE];
	bool by_write = chance(2);

	for (uint64_t at = 0; at < op->length; at += PIECE) {
		size_t n = (size_t)MIN(op->length - at, PIECE);

		if (!is_lost(lost, by_write, by_file))
			assert_int_equal(
				__real_pwrite(fd,
					      op->data ? op->data + at : zeroes,
					      n, (off_t)(op->at + at)),
				n);
	}
}

static void put_punch(int fd, const struct op *op)
{
	(void)__real_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       (off_t)op->at, (off_t)op->length);
}

static void put(int fd, const struct op *op, enum lost lost, bool by_file)
{
	uint64_t end = op->at + op->length;
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	switch (op->kind) {
	case OP_SIZE:
		if ((uint64_t)st.st_size < end &&
		    !is_lost(lost, chance(2), by_file))
			assert_int_equal(ftruncate(fd, (off_t)end), 0);
		break;
	case OP_PUNCH:
		if (op->length <= 64 * PIECE && end <= (uint64_t)st.st_size)
			put_pieces(fd, op, lost, by_file);
		else if (!is_lost(lost, chance(2), by_file))
			put_punch(fd, op);
		break;
	case OP_WRITE:
		put_pieces(fd, op, lost, by_file);
		break;
	case OP_SYNC:
		break;
	}
}

static void make_file(int dir, unsigned int file, unsigned int cut,
		      enum lost lost)
{
	unsigned int covered = 0;
	bool by_file = chance(2);
	char name[16];
	int fd;

	file_name(file, name);
	fd = openat(dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	for (unsigned int i = 0; i < cut; i++)
		if (ops[i].file == file && ops[i].kind == OP_SYNC)
			covered = MAX(covered, ops[i].covers);
	for (unsigned int i = 0; i < cut; i++)
		if (ops[i].file == file)
			put(fd, &ops[i],
			    i < covered || (ops[i].durable > 0 &&
					    ops[i].durable <= cut) ?
				    NONE_LOST :
				    lost,
			    by_file);
	(void)close(fd);
}

/* --- What is there -------------------------------------------------------------------- */

static char problem[700];

static void find_problem(const char *fmt, ...) PRINTF(1, 2);
static void find_problem(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (!*problem)
		(void)vsnprintf(problem, sizeof(problem), fmt, ap);
	va_end(ap);
}

static void look_at_sectors(const struct ofix *f, unsigned int cut)
{
	for (unsigned int i = 0; i < OFIX_SECTORS; i++) {
		uint64_t stamp = ofix_read(f, i);

		if (!may_be(i, stamp, cut))
			find_problem("sector %u holds %llu", i,
				     (unsigned long long)stamp);
	}
}

static void look_at_acks(const struct ofix *f, unsigned int cut)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	unsigned int nr = overlay_layers(f->overlay, layers);
	const struct overlay_facts *facts = overlay_facts(f->overlay);

	for (unsigned int i = 0; i < nr_acks && acks[i].after <= cut; i++) {
		bool there = acks[i].gen <= facts->base_gen;

		for (unsigned int k = 0; k < nr && !acks[i].committed; k++)
			there |= layers[k].generation == acks[i].gen &&
				 layers[k].state != LAYER_ACTIVE;
		if (!there)
			find_problem("layer %llu was acknowledged",
				     (unsigned long long)acks[i].gen);
		if (acks[i].size > facts->size)
			find_problem("the disk had grown");
	}
}

/* It goes on from there. */
static void look_again(struct ofix *f)
{
	unsigned int index = chance(OFIX_SECTORS);
	uint64_t all[OFIX_SECTORS];

	ofix_write(f, index, 777);
	if (layer_flush(overlay_active(f->overlay)) < 0)
		find_problem("cannot flush");
	for (unsigned int i = 0; i < OFIX_SECTORS; i++)
		all[i] = ofix_read(f, i);
	ofix_kill(f);
	if (ofix_start(f, true) < 0) {
		find_problem("cannot open again: %s", f->why);
		return;
	}
	for (unsigned int i = 0; i < OFIX_SECTORS; i++)
		if (ofix_read(f, i) != all[i])
			find_problem("sector %u is another one then", i);
}

/* Is it as it should be?  Else problem says what is not. */
static bool is_good(struct ofix *g, const struct ofix *f, unsigned int cut,
		    enum lost lost)
{
	problem[0] = '\0';
	memcpy(g->commit, f->commit, sizeof(g->commit));
	g->nr_commits = f->nr_commits;
	for (unsigned int i = 0; i < NR_FILES; i++)
		make_file(g->dir, i, cut, lost);
	if (ofix_start(g, true) < 0) {
		find_problem("it does not open: %s", g->why);
		return false;
	}
	look_at_sectors(g, cut);
	look_at_acks(g, cut);
	if (chance(4) == 0)
		look_again(g);
	ofix_kill(g);
	return !*problem;
}

/* --- Tests ------------------------------------------------------------------------------ */

#define STEPS 160u

static unsigned long states;

/* All cuts, or up to the first problem.  True: there was none. */
static bool all_cuts(uint64_t seed)
{
	struct ofix f, g;
	bool good = true;

	run(&f, seed, STEPS);
	ofix_new(&g);
	for (unsigned int cut = 0; good && cut <= nr_ops; cut++)
		for (unsigned int lost = 0; good && lost < NR_LOST; lost++) {
			good = is_good(&g, &f, cut, (enum lost)lost);
			states++;
			if (!good && fault == NO_FAULT)
				print_error("seed %llu, cut %u of %u, lost %u: "
					    "%s\n",
					    (unsigned long long)seed, cut,
					    nr_ops, lost, problem);
		}
	ofix_free(&g);
	ofix_free(&f);
	return good;
}

static void after_a_power_failure(void **state)
{
	const char *runs = getenv("XENDISK_OVERLAY_RUNS");
	uint64_t nr = runs ? strtoull(runs, NULL, 10) : 2;

	(void)state;
	fault = NO_FAULT;
	for (uint64_t seed = 1; seed <= nr; seed++)
		assert_true(all_cuts(seed));
	print_message("%lu states\n", states);
}

/* Each is found in one of a few runs. */
static void what_is_left_out_is_found(void **state)
{
	(void)state;
	for (fault = NO_FAULT + 1; fault < NR_FAULTS; fault++) {
		uint64_t seed = 1;

		while (seed < 20 && all_cuts(seed))
			seed++;
		print_message("%s: %s\n", fault_names[fault],
			      seed < 20 ? problem : "NOT FOUND");
		assert_true(seed < 20);
	}
	fault = NO_FAULT;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(after_a_power_failure),
		cmocka_unit_test(what_is_left_out_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
