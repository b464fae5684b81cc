/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>

#include "common/util.h"
#include "worker/range.h"

static struct range range(uint64_t start, uint64_t end)
{
	return (struct range){ .start = start, .end = end };
}

static void test_overlap(void **state)
{
	static const struct {
		uint64_t start, end;
		bool free;
	} cases[] = {
		{ 0, 100, true },    { 0, 101, false },
		{ 199, 300, false }, { 200, 300, true },
		{ 100, 200, false }, { 120, 130, false },
		{ 50, 250, false },  { 99, 100, true },
		{ 150, 151, false }, { 0, 1ull << 63, false },
	};
	struct range_table *table;
	struct range first = range(100, 200);

	(void)state;
	assert_int_equal(range_table_new(&table, 4, false), 0);
	assert_true(range_lock(table, &first, 0));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct range other = range(cases[i].start, cases[i].end);

		assert_int_equal(range_lock(table, &other, 0), cases[i].free);
		if (cases[i].free)
			(void)range_unlock(table, &other);
	}
	range_table_free(table);
}

static void test_waiting(void **state)
{
	struct range_table *table;
	struct range a = range(0, 10), b = range(20, 30), c = range(5, 25);

	(void)state;
	assert_int_equal(range_table_new(&table, 4, true), 0);
	assert_true(range_lock(table, &a, 0));
	assert_true(range_lock(table, &b, 1));
	assert_false(range_lock(table, &c, 3));
	assert_int_equal(range_unlock(table, &a), 1u << 3);
	assert_false(range_lock(table, &c, 3)); /* b is still there */
	assert_int_equal(range_unlock(table, &b), 1u << 3);
	assert_true(range_lock(table, &c, 3));
	assert_int_equal(range_unlock(table, &c), 0);
	range_table_free(table);
}

/* Against a map of bytes, in a random order of locks and unlocks. */
static void test_model(void **state)
{
	enum { NR = 64, BYTES = 512 };
	struct range_table *table;
	struct range ranges[NR];
	bool locked[NR] = { false }, taken[BYTES] = { false };
	unsigned int seed = 1;

	(void)state;
	assert_int_equal(range_table_new(&table, NR, false), 0);
	for (unsigned int step = 0; step < 200000; step++) {
		unsigned int i = (unsigned int)rand_r(&seed) % NR;
		bool busy = false;

		if (locked[i]) {
			for (uint64_t b = ranges[i].start; b < ranges[i].end;
			     b++)
				taken[b] = false;
			(void)range_unlock(table, &ranges[i]);
			locked[i] = false;
			continue;
		}
		ranges[i].start = (unsigned int)rand_r(&seed) % (BYTES - 40);
		ranges[i].end =
			ranges[i].start + 1 + (unsigned int)rand_r(&seed) % 40;
		for (uint64_t b = ranges[i].start; b < ranges[i].end; b++)
			busy |= taken[b];
		locked[i] = range_lock(table, &ranges[i], 0);
		assert_int_equal(locked[i], !busy);
		for (uint64_t b = ranges[i].start;
		     locked[i] && b < ranges[i].end; b++)
			taken[b] = true;
	}
	range_table_free(table);
}

/* Two threads in one table: at no time do both hold the same byte. */
enum { BYTES = 64, ROUNDS = 200000 };
static _Atomic(int) holders[BYTES];
static struct range_table *common;

static void *worker(void *arg)
{
	unsigned int seed = *(unsigned int *)arg;
	struct range held[8];
	bool locked[8] = { false };

	for (unsigned int n = 0; n < ROUNDS; n++) {
		unsigned int i = (unsigned int)rand_r(&seed) % 8;
		int delta = locked[i] ? -1 : 1;

		if (!locked[i]) {
			uint64_t at = (unsigned int)rand_r(&seed) % (BYTES - 4);

			held[i] = range(at, at + 4);
			if (!range_lock(common, &held[i], seed & 1))
				continue;
		}
		for (uint64_t b = held[i].start; b < held[i].end; b++)
			if (atomic_fetch_add(&holders[b], delta) != (delta < 0))
				return arg;
		locked[i] = !locked[i];
		if (delta < 0)
			(void)range_unlock(common, &held[i]);
	}
	return NULL;
}

static void test_threads(void **state)
{
	unsigned int seeds[] = { 1, 2 };
	pthread_t threads[2];
	void *failed;

	(void)state;
	assert_int_equal(range_table_new(&common, 16, true), 0);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, worker,
						&seeds[i]),
				 0);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	range_table_free(common);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_waiting),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
