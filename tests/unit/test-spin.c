/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When a lane looks at its rings before sleeping: spin.h. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "worker/spin.h"

/* Goes to sleep n times; good says for each try whether something came. */
static unsigned int tries(struct spin *spin, unsigned int n,
			  bool (*good)(unsigned int try))
{
	unsigned int tried = 0;

	while (n-- > 0)
		if (spin_wanted(spin))
			spin_tried(spin, good(tried++));
	return tried;
}

static bool always(unsigned int try)
{
	(void)try;
	return true;
}

static bool never(unsigned int try)
{
	(void)try;
	return false;
}

static bool every_other(unsigned int try)
{
	return try % 2 == 0;
}

static bool three_of_four(unsigned int try)
{
	return try % 4 != 0;
}

static void test_pays(void **state)
{
	struct spin spin = { 0 };

	(void)state;
	assert_int_equal(tries(&spin, 1000, always), 1000);
	assert_int_equal(tries(&spin, 1000, three_of_four), 1000);
}

static void test_does_not_pay(void **state)
{
	struct spin spin = { 0 };

	(void)state;
	/* 16 + 32 + ... + 1024 sleeps without, and a try after each. */
	assert_int_equal(tries(&spin, 1 + 2032 + 7, never), 8);
	assert_int_equal(tries(&spin, 10 * (SPIN_SKIP_MOST + 1), never), 10);
	/* Half of them are too few as well: each two then cost 16 sleeps. */
	spin = (struct spin){ 0 };
	assert_in_range(tries(&spin, 1800, every_other), 150, 250);
}

static void test_changes(void **state)
{
	struct spin spin = { 0 };

	(void)state;
	(void)tries(&spin, 100000, never);
	/* At most so long it is not noticed that it pays again ... */
	assert_in_range(tries(&spin, 2 * SPIN_SKIP_MOST, always),
			SPIN_SKIP_MOST, 2 * SPIN_SKIP_MOST);
	/* ... and a good time is not forgotten for one bad try. */
	assert_int_equal(tries(&spin, 4, never), 4);
	assert_int_equal(tries(&spin, SPIN_SKIP, never), 0);
	assert_int_equal(tries(&spin, 1, never), 1);
}

/* One that was away too long is none too many: the next comes much later. */
static void test_taken(void **state)
{
	struct spin spin = { 0 };

	(void)state;
	(void)tries(&spin, 100, always);
	spin_taken(&spin);
	assert_int_equal(tries(&spin, SPIN_SKIP_MOST, always), 0);
	assert_int_equal(tries(&spin, 100, always), 100);
}

/* Turns of work and a try each; a turn that may have no try sleeps instead.  Returns
 * the tries' share of the time, in percent. */
static unsigned int share(struct spin *spin, unsigned int percent,
			  unsigned int work_ns, unsigned int try_ns)
{
	uint64_t now = 1000000000, begin = now, in_tries = 0;

	for (unsigned int i = 0; i < 10000; i++) {
		now += work_ns;
		if (spin_allowed(spin, now, percent)) {
			spin_used(spin, try_ns);
			in_tries += try_ns;
		}
		now += try_ns;
	}
	return (unsigned int)(in_tries * 100 / (now - begin));
}

static void test_allowed(void **state)
{
	struct spin spin = { 0 };

	(void)state;
	assert_in_range(share(&spin, 30, 5000, 15000), 28, 32);
	/* Nobody is kept from what is less. */
	spin = (struct spin){ 0 };
	assert_in_range(share(&spin, 30, 9000, 1000), 10, 10);
	spin = (struct spin){ 0 };
	assert_int_equal(share(&spin, 0, 5000, 15000), 0);
	/* What was not used long ago is not saved up. */
	(void)spin_allowed(&spin, UINT64_C(3600000000000), 30);
	spin_used(&spin, SPIN_ALLOWED_MOST_NS);
	assert_false(spin_allowed(&spin, UINT64_C(3600000000001), 30));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pays),
		cmocka_unit_test(test_does_not_pay),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_taken),
		cmocka_unit_test(test_allowed),
	};

	return cmocka_run_group_tests_name("spin", tests, NULL, NULL);
}
