/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The overlay of a git disk: its layers, its locks, several flushes at once.
 */
#include "config.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/util.h"
#include "overlay-fixture.h"

static struct ofix fix;

static int start(void **state)
{
	(void)state;
	ofix_new(&fix);
	assert_int_equal(ofix_start(&fix, false), 0);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	ofix_free(&fix);
	return 0;
}

static uint64_t blocks_of(const char *name)
{
	struct stat st;

	assert_int_equal(fstatat(fix.dir, name, &st, 0), 0);
	return (uint64_t)st.st_blocks;
}

/* --- A disk ------------------------------------------------------------------------- */

static void a_new_one(void **state)
{
	struct overlay_layer layers[OVERLAY_SLOTS];

	(void)state;
	assert_int_equal(overlay_layers(fix.overlay, layers), 1);
	assert_int_equal(layers[0].state, LAYER_ACTIVE);
	assert_int_equal(layers[0].generation, 1);
	assert_true(overlay_is_empty(fix.overlay));
	assert_int_equal(overlay_facts(fix.overlay)->size, OFIX_SIZE);
	for (unsigned int i = 0; i < OFIX_SECTORS; i++)
		assert_int_equal(ofix_read(&fix, i), 1000 + i);
}

/* What is not flushed may be gone when it is killed; here the page cache has it,
 * but the map does not. */
static void what_is_flushed_stays(void **state)
{
	(void)state;
	ofix_write(&fix, 3, 33);
	ofix_write(&fix, 14, 0);
	assert_int_equal(ofix_flush(&fix), 0);
	ofix_write(&fix, 5, 55);
	ofix_again(&fix);
	assert_int_equal(ofix_read(&fix, 3), 33);
	assert_int_equal(ofix_read(&fix, 14), 0);
	assert_int_equal(ofix_read(&fix, 5), 1005);
	assert_int_equal(layer_sectors(overlay_active(fix.overlay)), 2);
	ofix_write(&fix, 5, 55);
	assert_int_equal(ofix_end(&fix), 0);
	assert_int_equal(ofix_start(&fix, false), 0);
	assert_int_equal(ofix_read(&fix, 5), 55);
	assert_string_equal(overlay_repaired(fix.overlay), "");
}

static void the_way_of_a_layer(void **state)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	uint64_t gen;

	(void)state;
	ofix_write(&fix, 1, 11);
	ofix_write(&fix, 2, 22);
	gen = ofix_freeze(&fix);
	assert_int_equal(gen, 1);
	ofix_write(&fix, 2, 0);
	assert_int_equal(ofix_flush(&fix), 0);
	ofix_again(&fix);
	assert_int_equal(overlay_layers(fix.overlay, layers), 2);
	assert_int_equal(layers[1].state, LAYER_FROZEN);
	assert_int_equal(layers[1].generation, gen);
	assert_int_equal(layers[1].info.dirty, 1024);
	assert_int_equal(layers[1].info.kind, 1);
	assert_int_equal(layers[1].info.consistency, 2);
	assert_int_equal(layers[1].info.time, 1234567890);
	assert_string_equal(layers[1].info.message, "before the update");
	assert_string_equal(layers[1].info.domain, "a guest");
	assert_int_equal(ofix_read(&fix, 1), 11);
	assert_int_equal(ofix_read(&fix, 2), 0);
	ofix_committed(&fix, gen);
	assert_int_equal(overlay_facts(fix.overlay)->base_gen, gen);
	assert_memory_equal(overlay_facts(fix.overlay)->head,
			    overlay_facts(fix.overlay)->base, OID_BYTES);
	ofix_again(&fix);
	assert_int_equal(overlay_layers(fix.overlay, layers), 2);
	assert_int_equal(layers[1].state, LAYER_CLEAN);
	ofix_drop(&fix);
	ofix_again(&fix);
	assert_int_equal(overlay_layers(fix.overlay, layers), 1);
	assert_int_equal(ofix_read(&fix, 1), 11);
	assert_int_equal(ofix_read(&fix, 2), 0);
	assert_false(overlay_is_empty(fix.overlay));
}

static void too_many(void **state)
{
	struct snapshot_info info = { 0 };
	uint64_t gen[OVERLAY_MAX_FROZEN], other;

	(void)state;
	for (unsigned int i = 0; i < OVERLAY_MAX_FROZEN; i++) {
		ofix_write(&fix, i, 100 + i);
		gen[i] = ofix_freeze(&fix);
	}
	assert_int_equal(overlay_freeze(fix.overlay, &info, &other, fix.why),
			 -EBUSY);
	/* Not out of order. */
	assert_int_equal(overlay_committed(fix.overlay, gen[1], fix.facts.base,
					   OVERLAY_ON_BRANCH, fix.why),
			 -EINVAL);
	for (unsigned int i = 0; i < OVERLAY_MAX_FROZEN; i++)
		ofix_committed(&fix, gen[i]);
	for (unsigned int i = 0; i < OVERLAY_SLOTS - 1 - OVERLAY_MAX_FROZEN;
	     i++)
		(void)ofix_freeze(&fix);
	assert_int_equal(overlay_freeze(fix.overlay, &info, &other, fix.why),
			 -EAGAIN);
	ofix_drop(&fix);
	(void)ofix_freeze(&fix);
	assert_int_equal(ofix_read(&fix, 0), 100);
}

/* The crash between meta and the hole. */
static void no_space_is_left_over(void **state)
{
	uint64_t gen;

	(void)state;
	ofix_write(&fix, 1, 11);
	ofix_committed(&fix, ofix_freeze(&fix));
	assert_int_equal(overlay_drop(fix.overlay, &gen, fix.why), 0);
	assert_true(blocks_of("data0") > 0);
	ofix_again(&fix);
	assert_int_equal(blocks_of("data0"), 0);
	assert_int_equal(blocks_of("map0"), 0);
	/* And of the active one, when nothing was flushed. */
	ofix_write(&fix, 1, 11);
	assert_true(blocks_of("data1") > 0);
	ofix_again(&fix);
	assert_true(blocks_of("data1") > 0);
	assert_int_equal(overlay_tidy(fix.overlay, fix.why), 0);
	assert_int_equal(blocks_of("data1"), 0);
	ofix_write(&fix, 1, 11);
	assert_int_equal(overlay_tidy(fix.overlay, fix.why), 0);
	assert_int_equal(ofix_read(&fix, 1), 11);
}

/* Somebody else knows of writes that were answered, and not flushed. */
static void what_was_answered(void **state)
{
	uint64_t sector = ofix_sector(1);

	(void)state;
	ofix_write(&fix, 1, 11);
	ofix_again(&fix);
	assert_int_equal(ofix_read(&fix, 1), 1001);
	assert_int_equal(
		layer_mark(overlay_active(fix.overlay), sector, sector + 1), 0);
	assert_int_equal(ofix_read(&fix, 1), 11);
}

static void it_grows(void **state)
{
	uint64_t size = OFIX_SIZE + (200u << 20), end = size / LAYER_SECTOR;
	bool set;

	(void)state;
	ofix_write(&fix, 30, 30);
	assert_int_equal(overlay_grow(fix.overlay, size, fix.why), 0);
	assert_int_equal(overlay_facts(fix.overlay)->size, size);
	(void)layer_run(overlay_active(fix.overlay), 0, end, &set);
	overlay_grown(fix.overlay);
	assert_int_equal(layer_mark(overlay_active(fix.overlay), end - 5, end),
			 0);
	assert_int_equal(ofix_read(&fix, 30), 30);
	assert_int_equal(ofix_flush(&fix), 0);
	ofix_again(&fix);
	assert_int_equal(overlay_facts(fix.overlay)->size, size);
	assert_int_equal(overlay_facts(fix.overlay)->base_size, OFIX_SIZE);
	assert_int_equal(
		layer_run(overlay_active(fix.overlay), end - 5, end, &set), 5);
	assert_true(set);
	assert_int_equal(ofix_read(&fix, 30), 30);
}

static void begun_anew(void **state)
{
	struct overlay_facts facts;

	(void)state;
	ofix_write(&fix, 1, 11);
	(void)ofix_freeze(&fix);
	ofix_write(&fix, 2, 22);
	assert_int_equal(ofix_flush(&fix), 0);
	facts = *overlay_facts(fix.overlay);
	assert_int_equal(overlay_restart(fix.overlay, &facts, fix.why), 0);
	assert_memory_not_equal(facts.uuid, fix.facts.uuid, sizeof(facts.uuid));
	for (int i = 0; i < 2; i++) {
		assert_true(overlay_is_empty(fix.overlay));
		assert_int_equal(ofix_read(&fix, 1), 1001);
		assert_int_equal(ofix_read(&fix, 2), 1002);
		ofix_again(&fix);
	}
	assert_int_equal(blocks_of("data0"), 0);
	ofix_write(&fix, 3, 33);
	assert_int_equal(ofix_flush(&fix), 0);
	ofix_again(&fix);
	assert_int_equal(ofix_read(&fix, 3), 33);
}

/* --- Runs --------------------------------------------------------------------------- */

#define BITS (OFIX_SIZE / LAYER_SECTOR)

static void runs_are_those_of_an_array(void **state)
{
	static uint8_t model[BITS];
	struct layer *layer = overlay_active(fix.overlay);
	uint64_t first, end, count = 0;
	unsigned int seed = 7;
	bool set;

	(void)state;
	memset(model, 0, sizeof(model));
	for (unsigned int i = 0; i < 300; i++) {
		uint64_t at = (unsigned int)rand_r(&seed) % (BITS - 5000);
		uint64_t n =
			1 + (unsigned int)rand_r(&seed) % (i % 4 ? 70 : 5000);

		n = MIN(n, OFIX_SIZE / LAYER_SECTOR - at);
		assert_int_equal(layer_mark(layer, at, at + n), 0);
		memset(model + at, 1, n);
	}
	end = OFIX_SIZE / LAYER_SECTOR;
	for (uint64_t at = 0, n; at < end; at += n) {
		n = 1;
		while (at + n < end && model[at + n] == model[at])
			n++;
		assert_int_equal(layer_run(layer, at, end, &set), n);
		assert_int_equal(set, model[at]);
		assert_int_equal(layer_run(layer, at, at + (n + 1) / 2, &set),
				 (n + 1) / 2);
		assert_int_equal(layer_next(layer, at, at + n, &first, &first),
				 model[at]);
		count += model[at] ? n : 0;
	}
	assert_int_equal(layer_sectors(layer), count);
	assert_int_equal(layer_run(layer, end, end + 9, &set), 9);
	assert_false(set);
}

/* --- Locks --------------------------------------------------------------------------- */

static void one_at_a_time(void **state)
{
	struct overlay_facts facts;
	struct overlay *other;
	bool found;

	(void)state;
	assert_int_equal(overlay_open(&other, fix.dir, &ofix_of, &found, &facts,
				      fix.why),
			 0);
	assert_true(found);
	assert_int_equal(overlay_lock(other, &facts, false, fix.why), -EBUSY);
	assert_non_null(strstr(fix.why, "a test"));
	assert_int_equal(overlay_unlock(fix.overlay, fix.why), 0);
	assert_int_equal(overlay_lock(other, &facts, false, fix.why), 0);
	overlay_close(other);
}

static void *close_later(void *fd)
{
	(void)usleep(50000);
	(void)close(*(int *)fd);
	return NULL;
}

/* A request that is still in the kernel holds on to the description. */
static void the_fence(void **state)
{
	int held = dup(layer_data_fd(overlay_active(fix.overlay)));
	pthread_t thread;

	(void)state;
	ofix_kill(&fix);
	assert_int_equal(ofix_start(&fix, false), -EBUSY);
	assert_non_null(strstr(fix.why, "data0"));
	assert_int_equal(pthread_create(&thread, NULL, close_later, &held), 0);
	assert_int_equal(ofix_start(&fix, true), 0);
	assert_int_equal(fcntl(held, F_GETFD), -1); /* it has waited */
	(void)pthread_join(thread, NULL);
}

/* Those for others hold nothing. */
static void what_others_get(void **state)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	struct layer *frozen;
	int data, map;
	bool set;

	(void)state;
	ofix_write(&fix, 20, 20);
	(void)ofix_freeze(&fix);
	assert_int_equal(overlay_layers(fix.overlay, layers), 2);
	data = dup(layers[1].data_fd);
	map = dup(layers[1].map_fd);
	assert_int_equal(layer_open_frozen(&frozen, data, map, fix.facts.uuid,
					   1, OFIX_SIZE, fix.why),
			 0);
	assert_int_equal(layer_sectors(frozen), 1);
	(void)layer_run(frozen, ofix_sector(20), ofix_sector(20) + 1, &set);
	assert_true(set);
	layer_close(frozen);
	assert_int_equal(write(data, "x", 1), -1);
	ofix_kill(&fix);
	assert_int_equal(ofix_start(&fix, false), 0);
	/* Another generation, another overlay: nothing of it. */
	assert_int_equal(layer_open_frozen(&frozen, data, map, fix.facts.uuid,
					   2, OFIX_SIZE, fix.why),
			 0);
	assert_int_equal(layer_sectors(frozen), 0);
	layer_close(frozen);
	(void)close(data);
	(void)close(map);
}

/* --- Several at once ------------------------------------------------------------------------ */

#define THREADS 4u
#define ROUNDS	60u

static void *mark_and_flush(void *arg)
{
	unsigned int number = *(unsigned int *)arg;
	struct layer *layer = overlay_active(fix.overlay);

	for (unsigned int i = 0; i < ROUNDS; i++) {
		/* Neighbours in a word, on two pages. */
		uint64_t at = i % 2 * MAP_PAGE_SECTORS + i * THREADS + number;

		if (layer_mark(layer, at, at + 1) < 0 || layer_flush(layer) < 0)
			return arg;
	}
	return NULL;
}

static void threads_lose_nothing(void **state)
{
	unsigned int number[THREADS];
	pthread_t threads[THREADS];
	void *failed;
	bool set;

	(void)state;
	for (unsigned int i = 0; i < THREADS; i++) {
		number[i] = i;
		assert_int_equal(pthread_create(&threads[i], NULL,
						mark_and_flush, &number[i]),
				 0);
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		(void)pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	ofix_again(&fix);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		uint64_t at = i % 2 * MAP_PAGE_SECTORS + i * THREADS;

		assert_true(layer_run(overlay_active(fix.overlay), at,
				      at + THREADS, &set) == THREADS &&
			    set);
	}
	assert_int_equal(layer_sectors(overlay_active(fix.overlay)),
			 ROUNDS * THREADS);
}

static unsigned int woken;

static void count_wake(struct layer_flush *f)
{
	(void)f;
	woken++;
}

/* Until it wants to write to the map. */
static enum layer_step until_write(struct layer_flush *f)
{
	enum layer_step step =
		layer_flush_begin(f, overlay_active(fix.overlay));

	assert_int_equal(step, LAYER_SYNC);
	return layer_flush_next(f, 0);
}

/* The first one fails; then one of those that wait writes for both. */
static void two_wait(struct layer_flush *b, struct layer_flush *c)
{
	struct layer_flush a = { .wake = count_wake };

	*b = *c = a;
	woken = 0;
	ofix_write(&fix, 1, 11);
	assert_int_equal(until_write(&a), LAYER_WRITE);
	ofix_write(&fix, 2, 22);
	assert_int_equal(until_write(b), LAYER_WAIT);
	ofix_write(&fix, 3, 33);
	assert_int_equal(until_write(c), LAYER_WAIT);
	assert_int_equal(layer_flush_next(b, 0), LAYER_WAIT);
	assert_int_equal(layer_flush_next(&a, -EIO), LAYER_DONE);
	assert_int_equal(a.err, -EIO);
	assert_int_equal(woken, 2);
	assert_int_equal(layer_flush_next(b, 0), LAYER_WRITE);
	assert_int_equal(layer_flush_next(c, 0), LAYER_WAIT);
	woken = 0;
}

static void they_share_the_work(void **state)
{
	struct layer_flush b, c;
	ssize_t n;

	(void)state;
	two_wait(&b, &c);
	n = pwritev(b.fd, b.iov, (int)b.iovcnt, (off_t)b.offset);
	assert_int_equal(layer_flush_next(&b, n), LAYER_SYNC);
	assert_int_equal(layer_flush_next(&b, 0), LAYER_DONE);
	assert_int_equal(woken, 1);
	assert_int_equal(layer_flush_next(&c, 0), LAYER_DONE);
	assert_int_equal(b.err, 0);
	assert_int_equal(c.err, 0);
	ofix_again(&fix);
	assert_int_equal(ofix_read(&fix, 3), 33);
}

/* Until it is at the write that is to be durable at once. */
static void until_dsync(struct layer_flush *f)
{
	*f = (struct layer_flush){ .can_dsync = true };
	assert_int_equal(until_write(f), LAYER_WRITE);
	assert_true(f->dsync);
}

static void durable_at_once(void **state)
{
	struct layer_flush f;
	ssize_t n;

	(void)state;
	ofix_write(&fix, 1, 11);
	until_dsync(&f);
	n = pwritev(f.fd, f.iov, (int)f.iovcnt, (off_t)f.offset);
	assert_int_equal(layer_flush_next(&f, n), LAYER_DONE);
	assert_int_equal(f.err, 0);
	ofix_again(&fix);
	assert_int_equal(ofix_read(&fix, 1), 11);
	/* Who cannot do that is not asked to. */
	f = (struct layer_flush){ .wake = NULL };
	ofix_write(&fix, 2, 22);
	assert_int_equal(until_write(&f), LAYER_WRITE);
	assert_false(f.dsync);
	n = pwritev(f.fd, f.iov, (int)f.iovcnt, (off_t)f.offset);
	assert_int_equal(layer_flush_next(&f, n), LAYER_SYNC);
	assert_int_equal(layer_flush_next(&f, 0), LAYER_DONE);
}

/* No space is no more than that; an error may be one of fdatasync. */
static void not_durable_at_once(void **state)
{
	struct layer_flush f;

	(void)state;
	ofix_write(&fix, 1, 11);
	until_dsync(&f);
	assert_int_equal(layer_flush_next(&f, -ENOSPC), LAYER_DONE);
	assert_int_equal(f.err, -ENOSPC);
	assert_true(layer_flush_may_retry(&f));
	until_dsync(&f);
	assert_int_equal(layer_flush_next(&f, -EIO), LAYER_DONE);
	assert_int_equal(f.err, -EIO);
	assert_false(layer_flush_may_retry(&f));
	assert_int_equal(ofix_flush(&fix), -EIO);
}

static void they_share_a_failure(void **state)
{
	struct layer_flush b, c;

	(void)state;
	two_wait(&b, &c);
	assert_int_equal(layer_flush_next(&b, -ENOSPC), LAYER_DONE);
	assert_int_equal(layer_flush_next(&c, 0), LAYER_DONE);
	assert_int_equal(b.err, -ENOSPC);
	assert_int_equal(c.err, -ENOSPC);
	assert_int_equal(ofix_flush(&fix), 0);
	ofix_again(&fix);
	assert_int_equal(ofix_read(&fix, 3), 33);
}

/* What a lane asks before it tries a flush again. */
static void what_may_be_tried_again(void **state)
{
	struct layer_flush written = { .wake = count_wake }, b, c;
	struct layer_flush good = written, late = written;

	(void)state;
	ofix_write(&fix, 1, 11);
	assert_int_equal(until_write(&written), LAYER_WRITE);
	assert_int_equal(layer_flush_next(&written, -ENOSPC), LAYER_DONE);
	assert_true(layer_flush_may_retry(&written));
	/* Also that of which another one had the copies. */
	two_wait(&b, &c);
	assert_int_equal(layer_flush_next(&b, -ENOSPC), LAYER_DONE);
	assert_int_equal(layer_flush_next(&c, 0), LAYER_DONE);
	assert_true(layer_flush_may_retry(&b));
	assert_true(layer_flush_may_retry(&c));
	assert_int_equal(ofix_flush(&fix), 0);
	assert_int_equal(layer_flush_begin(&good, overlay_active(fix.overlay)),
			 LAYER_SYNC);
	assert_int_equal(layer_flush_next(&good, 0), LAYER_DONE);
	assert_false(layer_flush_may_retry(&good));
	/* Somebody else's fdatasync() fails, and it is too late for all. */
	assert_int_equal(layer_flush_begin(&late, overlay_active(fix.overlay)),
			 LAYER_SYNC);
	assert_int_equal(layer_flush_next(&late, -EIO), LAYER_DONE);
	assert_false(layer_flush_may_retry(&late));
	assert_false(layer_flush_may_retry(&written));
	assert_false(layer_flush_may_retry(&good));
}

/* Two end before one has looked. */
static void woken_once(void **state)
{
	struct layer_flush b, c, d = { .wake = count_wake };

	(void)state;
	two_wait(&b, &c);
	assert_int_equal(layer_flush_next(&b, -EIO), LAYER_DONE);
	assert_int_equal(woken, 1);
	ofix_write(&fix, 4, 44);
	assert_int_equal(until_write(&d), LAYER_WRITE);
	assert_int_equal(layer_flush_next(&d, -EIO), LAYER_DONE);
	assert_int_equal(woken, 1);
	assert_int_equal(layer_flush_next(&c, 0), LAYER_DONE);
	assert_int_equal(c.err, -EIO);
	assert_int_equal(ofix_flush(&fix), 0);
}

/* A lane ends while its flush waits. */
static void one_is_given_up(void **state)
{
	struct layer_flush b, c;

	(void)state;
	two_wait(&b, &c);
	layer_flush_cancel(&c);
	assert_int_equal(layer_flush_next(&b, -EIO), LAYER_DONE);
	assert_int_equal(ofix_flush(&fix), 0);
}

/* --- Killed ---------------------------------------------------------------------- */

struct done {
	unsigned int index;
	uint64_t stamp;
};

/* Writes, and says what is durable, until it is killed. */
static _Noreturn void live(int pipe, unsigned int seed)
{
	struct snapshot_info info = { .message = "killed" };
	uint64_t gen;

	for (uint64_t stamp = seed * 100000ull + 5000;; stamp++) {
		struct done done = { (unsigned int)rand_r(&seed) % OFIX_SECTORS,
				     stamp };

		ofix_write(&fix, done.index, stamp);
		if (stamp % 7 == 0)
			(void)overlay_freeze(fix.overlay, &info, &gen, fix.why);
		if (ofix_flush(&fix) < 0 ||
		    write(pipe, &done, sizeof(done)) != sizeof(done))
			_exit(1);
	}
}

/* What it had said, when it was killed; how much that was. */
static unsigned int hear(int pipe, uint64_t stamps[OFIX_SECTORS])
{
	unsigned int n = 0;
	struct done done;

	for (; read(pipe, &done, sizeof(done)) == sizeof(done); n++)
		stamps[done.index] = done.stamp;
	return n;
}

/* The last one may have been durable, and not said. */
static void killed_at_any_time(void **state)
{
	uint64_t stamps[OFIX_SECTORS], read;
	unsigned int heard = 0;

	(void)state;
	for (unsigned int i = 0; i < OFIX_SECTORS; i++)
		stamps[i] = 1000 + i;
	for (unsigned int seed = 1; seed <= 20; seed++) {
		int pipes[2];
		pid_t pid;

		assert_int_equal(pipe(pipes), 0);
		pid = fork();
		if (pid == 0)
			live(pipes[1], seed);
		assert_true(pid > 0);
		(void)close(pipes[1]);
		ofix_kill(&fix);
		/* Not before it has begun, on a busy machine. */
		(void)poll(&(struct pollfd){ pipes[0], POLLIN, 0 }, 1, 30000);
		(void)usleep(seed * 997 % 20000);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(ofix_start(&fix, true), 0);
		heard += hear(pipes[0], stamps);
		(void)close(pipes[0]);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		for (unsigned int i = 0; i < OFIX_SECTORS; i++) {
			read = ofix_read(&fix, i);
			assert_true(read == stamps[i] ||
				    read > seed * 100000ull);
			stamps[i] = read;
		}
		while (overlay_layers(fix.overlay,
				      (struct overlay_layer[OVERLAY_SLOTS]){
					      0 }) > 3) {
			ofix_committed(
				&fix, overlay_facts(fix.overlay)->base_gen + 1);
			ofix_drop(&fix);
		}
	}
	print_message("%u flushes\n", heard);
	assert_true(heard > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_new_one),
		TEST(what_is_flushed_stays),
		TEST(the_way_of_a_layer),
		TEST(too_many),
		TEST(no_space_is_left_over),
		TEST(what_was_answered),
		TEST(it_grows),
		TEST(begun_anew),
		TEST(runs_are_those_of_an_array),
		TEST(one_at_a_time),
		TEST(the_fence),
		TEST(what_others_get),
		TEST(threads_lose_nothing),
		TEST(they_share_the_work),
		TEST(they_share_a_failure),
		TEST(what_may_be_tried_again),
		TEST(durable_at_once),
		TEST(not_durable_at_once),
		TEST(woken_once),
		TEST(one_is_given_up),
		TEST(killed_at_any_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
