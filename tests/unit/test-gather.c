/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When a lane lets writes gather: gather.h. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "serve/gather.h"

#define SHORT_NS 5000u

/* Rounds with so many writes each; how many are followed by a sleep. */
static unsigned int rounds(struct gather *gather, unsigned int n,
			   unsigned int writes, uint64_t ns)
{
	unsigned int slept = 0;

	while (n-- > 0) {
		for (unsigned int i = 0; i < writes; i++)
			gather_request(gather, true);
		gather_seen(gather, writes);
		slept += gather_wanted(gather, ns);
	}
	return slept;
}

static void test_few(void **state)
{
	struct gather gather = { 0 };

	(void)state;
	assert_int_equal(rounds(&gather, 10000, 1, SHORT_NS), 0);
	assert_int_equal(rounds(&gather, 10000, GATHER_MANY - 1, SHORT_NS), 0);
}

static void test_many(void **state)
{
	struct gather gather = { 0 };

	(void)state;
	assert_int_equal(rounds(&gather, 1, GATHER_MANY, SHORT_NS), 1);
	/* It counts for a while, and no longer. */
	assert_int_equal(rounds(&gather, 10000, 1, SHORT_NS),
			 GATHER_ROUNDS - 1);
	assert_int_equal(rounds(&gather, 10, GATHER_MANY, SHORT_NS), 10);
}

static void test_not_for_reads(void **state)
{
	struct gather gather = { 0 };

	(void)state;
	gather_seen(&gather, GATHER_MANY);
	gather_request(&gather, false);
	assert_false(gather_wanted(&gather, SHORT_NS));
	gather_request(&gather, true);
	gather_request(&gather, false);
	assert_false(gather_wanted(&gather, SHORT_NS));
	/* Of the last round nothing is left. */
	gather_request(&gather, true);
	assert_true(gather_wanted(&gather, SHORT_NS));
	assert_false(gather_wanted(&gather, SHORT_NS));
}

static void test_not_after_long_rounds(void **state)
{
	struct gather gather = { 0 };

	(void)state;
	assert_int_equal(rounds(&gather, 10, GATHER_MANY, GATHER_ROUND_MOST_NS),
			 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_few),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_not_for_reads),
		cmocka_unit_test(test_not_after_long_rounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
