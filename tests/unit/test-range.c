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
		assert_int_equal(range_unlock(table, &other), 0);
	}
	range_table_free(table);
}

/* Only when the last of those in front has gone is a lane told, and only the one that
 * is meant. */
static void test_waiting(void **state)
{
	struct range_table *table;
	struct range a = range(0, 10), b = range(20, 30), c = range(5, 25),
		     d = range(40, 50);

	(void)state;
	assert_int_equal(range_table_new(&table, 4, true), 0);
	assert_true(range_lock(table, &a, 0));
	assert_true(range_lock(table, &b, 1));
	assert_false(range_lock(table, &c, 3));
	assert_true(range_lock(table, &d, 2));
	assert_int_equal(range_unlock(table, &a), 0); /* b is still there */
	assert_int_equal(range_unlock(table, &d), 0);
	assert_null(range_granted(table, 3));
	assert_int_equal(range_unlock(table, &b), 1u << 3);
	assert_null(range_granted(table, 1));
	assert_ptr_equal(range_granted(table, 3), &c);
	assert_null(range_granted(table, 3));
	assert_int_equal(range_unlock(table, &c), 0);
	range_table_free(table);
}

/* A long one waits, and writes go on: it gets its turn before those that came after
 * it.  Who does not overlap it does not wait. */
static void test_order(void **state)
{
	struct range_table *table;
	struct range first = range(0, 10), all = range(0, 1000),
		     next[] = { range(20, 30), range(0, 5), range(25, 40) },
		     beside = range(1000, 1010);

	(void)state;
	assert_int_equal(range_table_new(&table, 8, false), 0);
	assert_true(range_lock(table, &first, 0));
	assert_false(range_lock(table, &all, 1));
	for (size_t i = 0; i < ARRAY_SIZE(next); i++)
		assert_false(range_lock(table, &next[i], 2));
	assert_true(range_lock(table, &beside, 2));
	assert_int_equal(range_unlock(table, &first), 1u << 1);
	assert_ptr_equal(range_granted(table, 1), &all);
	assert_int_equal(range_unlock(table, &all), 1u << 2);
	assert_ptr_equal(range_granted(table, 2), &next[0]);
	assert_ptr_equal(range_granted(table, 2), &next[1]);
	assert_null(range_granted(table, 2)); /* behind next[0] */
	assert_int_equal(range_unlock(table, &next[0]), 1u << 2);
	assert_ptr_equal(range_granted(table, 2), &next[2]);
	range_table_free(table);
}

/* Who came later does not wait for it any more; who came earlier never has. */
static void test_giving_up(void **state)
{
	struct range_table *table;
	struct range a = range(0, 10), b = range(5, 15), c = range(0, 20),
		     d = range(12, 30);

	(void)state;
	assert_int_equal(range_table_new(&table, 4, false), 0);
	assert_true(range_lock(table, &a, 0));
	assert_false(range_lock(table, &b, 0));
	assert_false(range_lock(table, &c, 0));
	assert_false(range_lock(table, &d, 4)); /* behind b and c */
	assert_int_equal(range_unlock(table, &c), 0);
	assert_int_equal(range_unlock(table, &b), 1u << 4);
	assert_int_equal(range_unlock(table, &d), 0); /* was not taken yet */
	assert_null(range_granted(table, 4));
	assert_int_equal(range_unlock(table, &a), 0);
	range_table_free(table);
}

/* Against a list in the order of arrival, in a random order of locks and unlocks: at
 * any time those have their range that overlap nobody in front of them. */
enum { NR = 32, MODEL_BYTES = 512 };
struct model {
	struct range ranges[NR];
	bool has[NR]; /* as the table has said */
	unsigned int line[NR], length; /* those in it, the oldest first */
};

static bool model_has(const struct model *model, unsigned int place)
{
	const struct range *range = &model->ranges[model->line[place]];

	for (unsigned int i = 0; i < place; i++) {
		const struct range *other = &model->ranges[model->line[i]];

		if (range->start < other->end && other->start < range->end)
			return false;
	}
	return true;
}

static void model_enter(struct model *model, struct range_table *table,
			unsigned int i, unsigned int *seed)
{
	uint64_t start = (unsigned int)rand_r(seed) % (MODEL_BYTES - 40);

	model->ranges[i] =
		range(start, start + 1 + (unsigned int)rand_r(seed) % 40);
	model->has[i] = range_lock(table, &model->ranges[i], i % 3);
	model->line[model->length++] = i;
}

static void model_leave(struct model *model, struct range_table *table,
			unsigned int place)
{
	uint32_t lanes =
		range_unlock(table, &model->ranges[model->line[place]]);

	model->has[model->line[place]] = false;
	model->length--;
	for (unsigned int i = place; i < model->length; i++)
		model->line[i] = model->line[i + 1];
	for (unsigned int lane = 0; lane < 3; lane++) {
		struct range *got = range_granted(table, lane);

		assert_int_equal(got != NULL, lanes >> lane & 1);
		for (; got; got = range_granted(table, lane)) {
			unsigned int i = (unsigned int)(got - model->ranges);

			assert_int_equal(i % 3, lane);
			assert_false(model->has[i]);
			model->has[i] = true;
		}
	}
}

static void test_model(void **state)
{
	struct model model = { .length = 0 };
	struct range_table *table;
	unsigned int seed = 1;

	(void)state;
	assert_int_equal(range_table_new(&table, NR, false), 0);
	for (unsigned int step = 0; step < 50000; step++) {
		unsigned int i = (unsigned int)rand_r(&seed) % NR, place = 0;

		while (place < model.length && model.line[place] != i)
			place++;
		if (place == model.length)
			model_enter(&model, table, i, &seed);
		else
			model_leave(&model, table, place);
		for (place = 0; place < model.length; place++)
			assert_int_equal(model.has[model.line[place]],
					 model_has(&model, place));
	}
	range_table_free(table);
}

/* Two threads in one table: at no time do both hold the same byte. */
enum { BYTES = 64, ROUNDS = 200000 };
static _Atomic(int) holders[BYTES];
static struct range_table *common;

enum place { OUT, WAITS, HAS };

/* It has just got it, or has it no more: true if it was the only one. */
static bool count(const struct range *range, int delta)
{
	for (uint64_t b = range->start; b < range->end; b++)
		if (atomic_fetch_add(&holders[b], delta) != (delta < 0))
			return false;
	return true;
}

static bool take_granted(struct range *ranges, enum place *places,
			 unsigned int lane)
{
	struct range *range;

	while ((range = range_granted(common, lane))) {
		places[range - ranges] = HAS;
		if (!count(range, 1))
			return false;
	}
	return true;
}

/* Those that wait give up now and then. */
static void *worker(void *arg)
{
	unsigned int seed = *(unsigned int *)arg, lane = seed & 1;
	enum place places[8] = { OUT };
	struct range ranges[8];

	for (unsigned int n = 0; n < ROUNDS; n++) {
		unsigned int i = (unsigned int)rand_r(&seed) % 8;
		uint64_t at = (unsigned int)rand_r(&seed) % (BYTES - 4);

		if (!take_granted(ranges, places, lane))
			return arg;
		if (places[i] == OUT) {
			ranges[i] = range(at, at + 4);
			places[i] = range_lock(common, &ranges[i], lane) ?
					    HAS :
					    WAITS;
			if (places[i] == HAS && !count(&ranges[i], 1))
				return arg;
		} else if (places[i] == HAS || at < 4) {
			if (places[i] == HAS && !count(&ranges[i], -1))
				return arg;
			places[i] = OUT;
			(void)range_unlock(common, &ranges[i]);
		}
	}
	/* What is left must not keep the other one waiting. */
	for (unsigned int i = 0; i < 8; i++) {
		if (places[i] == HAS && !count(&ranges[i], -1))
			return arg;
		if (places[i] != OUT)
			(void)range_unlock(common, &ranges[i]);
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
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_giving_up),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
