/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When the thread that takes watch events rests: pace.h. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "broker/pace.h"

#define MS 1000000ull

/* Events one by one, for so long; a rest takes its time.  Returns how often the
 * thread was awake and had none left. */
static unsigned int awake(struct pace *pace, uint64_t *now, uint64_t every,
			  uint64_t length, uint64_t rest,
			  unsigned int *ret_rests)
{
	uint64_t end = *now + length, next = *now;
	unsigned int times = 0;

	*ret_rests = 0;
	while (next < end) {
		for (; next <= *now; next += every)
			pace->events++;
		times++;
		if (pace_is_stormy(pace, *now)) {
			++*ret_rests;
			*now += rest;
			pace_rested(pace, *now);
		} else {
			*now = next;
		}
	}
	return times;
}

static void test_a_storm(void **state)
{
	struct pace pace = { 0 };
	uint64_t now = 5000 * MS;
	unsigned int rests;

	(void)state;
	/* 10,000 events in a second. */
	assert_in_range(awake(&pace, &now, MS / 10, 1000 * MS, PACE_REST_NS,
			      &rests),
			200, 300);
	assert_in_range(rests, 190, 201);
	/* Where the CPU is short a rest takes longer, the first one after some
	 * events. */
	assert_in_range(awake(&pace, &now, MS / 10, 1000 * MS, 50 * MS, &rests),
			30, 45);
	assert_in_range(rests, 19, 21);
}

static void test_an_attach(void **state)
{
	struct pace pace = { 0 };
	uint64_t now = 5000 * MS;
	unsigned int rests;

	(void)state;
	for (int i = 0; i < 100; i++) {
		assert_int_equal(awake(&pace, &now, 1000,
				       PACE_EVENTS / 2 * 1000, PACE_REST_NS,
				       &rests),
				 PACE_EVENTS / 2);
		assert_int_equal(rests, 0);
		now += PACE_NS;
	}
	/* 500 events in a second are no storm either. */
	assert_int_equal(awake(&pace, &now, 2 * MS, 1000 * MS, PACE_REST_NS,
			       &rests),
			 500);
	assert_int_equal(rests, 0);
}

static void test_the_end(void **state)
{
	struct pace pace = { 0 };
	uint64_t now = 5000 * MS;
	unsigned int rests;

	(void)state;
	(void)awake(&pace, &now, MS / 10, 100 * MS, PACE_REST_NS, &rests);
	assert_true(pace.stormy);
	/* The next event is long after it. */
	now += 1000 * MS;
	pace.events++;
	assert_false(pace_is_stormy(&pace, now));
	assert_false(pace.stormy);
	/* So it takes many again. */
	pace.events += PACE_STILL_EVENTS;
	assert_false(pace_is_stormy(&pace, now + MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_storm),
		cmocka_unit_test(test_an_attach),
		cmocka_unit_test(test_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
