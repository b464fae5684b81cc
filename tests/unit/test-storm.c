/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When a port is unmasked: honest guests at once, idle ringers later and later. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/storm.h"

#define MS 1000000ull

/* As a lane does. */
static bool event(struct storm *storm, uint32_t taken, uint64_t now)
{
	if (storm_event(storm, taken))
		return true;
	storm_put_off(storm, now);
	return false;
}

/* Rings at `now` for nothing until the port is put off. */
static void provoke(struct storm *storm, uint32_t taken, uint64_t now)
{
	unsigned int events = 1;

	while (event(storm, taken, now))
		events++;
	assert_in_range(events, STORM_FREE, STORM_FREE + 2);
}

static void work_is_never_put_off(void **state)
{
	struct storm storm = { 0 };
	uint32_t taken = UINT32_MAX - 500; /* which may wrap */

	(void)state;
	for (int i = 0; i < 1000; i++)
		assert_true(event(&storm, taken += 1, 1));
	assert_int_equal(storm.unmask_at, 0);
}

/* Every request brings some events too many: as when it was found already. */
static void a_few_are_free(void **state)
{
	struct storm storm = { 0 };
	uint32_t taken = 7;

	(void)state;
	for (int i = 0; i < 100; i++) {
		taken++;
		for (int n = 0; n <= STORM_FREE; n++)
			assert_true(event(&storm, taken, 1));
	}
	assert_false(event(&storm, taken, 1));
}

static void waits_grow_to_a_limit(void **state)
{
	struct storm storm = { 0 };
	uint64_t now = 1, waited = STORM_FIRST_NS;

	(void)state;
	provoke(&storm, 7, now);
	assert_int_equal(storm.unmask_at - now, STORM_FIRST_NS);
	for (int i = 0; i < 1000; i++) {
		now = storm.unmask_at;
		assert_false(storm_over(&storm, 7, now - 1));
		assert_true(storm_over(&storm, 7, now));
		assert_int_equal(storm.unmask_at, 0);
		assert_false(event(&storm, 7, now));
		assert_in_range(storm.unmask_at - now, waited, waited * 2);
		waited = storm.unmask_at - now;
	}
	assert_int_equal(waited, STORM_MAX_NS);
}

/* A storm of 10 s, an event as soon as the port is unmasked. */
static void a_storm_is_few_wakes(void **state)
{
	struct storm storm = { 0 };
	unsigned int wakes = 0;
	uint64_t now = 1;

	(void)state;
	while (now < 10000 * MS) {
		wakes++;
		if (!event(&storm, 7, now)) {
			now = storm.unmask_at;
			assert_true(storm_over(&storm, 7, now));
		}
	}
	assert_in_range(wakes, 100, 125);
}

static void work_ends_it(void **state)
{
	struct storm storm = { 0 };

	(void)state;
	provoke(&storm, 7, 1);
	assert_false(storm_over(&storm, 7, 2));
	assert_true(storm_over(&storm, 8, 2)); /* found on the ring meanwhile */
	assert_true(event(&storm, 8, 2));
	provoke(&storm, 8, 2);
	assert_int_equal(storm.unmask_at - 2, STORM_FIRST_NS);
}

/* Refusals among other answers never matter, a few alone do not either. */
static void some_refusals_are_free(void **state)
{
	struct storm storm = { 0 };

	(void)state;
	for (int i = 0; i < 10000; i++) {
		storm_answered(&storm, i % (STORM_REFUSALS + 1) != 0, 1);
		assert_int_equal(storm.look_at, 0);
	}
}

/* A ring that is kept full of nonsense for 10 s. */
static void a_flood_is_few_looks(void **state)
{
	struct storm storm = { 0 };
	unsigned int looks = 0;
	uint64_t now = 1;

	(void)state;
	for (; now < 10000 * MS; looks++) {
		storm_answered(&storm, true, now);
		if (!storm.look_at)
			continue;
		assert_false(storm_may_look(&storm, storm.look_at - 1));
		now = storm.look_at;
		assert_true(storm_may_look(&storm, now));
	}
	assert_in_range(looks, 100, 125 + STORM_REFUSALS);
	storm_answered(&storm, false, now); /* one in order */
	storm_answered(&storm, true, now);
	assert_int_equal(storm.look_at, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(work_is_never_put_off),
		cmocka_unit_test(a_few_are_free),
		cmocka_unit_test(waits_grow_to_a_limit),
		cmocka_unit_test(a_storm_is_few_wakes),
		cmocka_unit_test(work_ends_it),
		cmocka_unit_test(some_refusals_are_free),
		cmocka_unit_test(a_flood_is_few_looks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
