/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When a lane looks at its rings before sleeping: spin.h. */
#include "config.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
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

/* Tries that are good, up to the next that was away too long; returns the sleeps
 * that go without after it. */
static unsigned int taken_after(struct spin *spin, unsigned int good)
{
	unsigned int skipped = 0;

	assert_int_equal(tries(spin, good, always), good);
	spin_taken(spin);
	while (!spin_wanted(spin))
		skipped++;
	return skipped;
}

static void test_taken(void **state)
{
	struct spin spin = { 0 };

	(void)state;
	/* A neighbour that is there again soon has the CPU for itself ... */
	for (unsigned int n = SPIN_SKIP; n < SPIN_SKIP_MOST; n *= 2)
		assert_int_equal(taken_after(&spin, 20), n);
	assert_int_equal(taken_after(&spin, 20), SPIN_SKIP_MOST);
	assert_int_equal(taken_after(&spin, SPIN_SELDOM - 1), SPIN_SKIP_MOST);
	/* ... and what comes once in a while costs little, however often. */
	assert_int_equal(taken_after(&spin, SPIN_SELDOM), SPIN_SKIP);
	assert_int_equal(taken_after(&spin, SPIN_SELDOM), SPIN_SKIP);
	assert_int_equal(taken_after(&spin, 0), 2 * SPIN_SKIP);
}

/* --- A try, on a clock of the test's ---------------------------------------- */

static struct {
	uint64_t now;
	uint64_t turn_ns; /* what an offer takes */
	uint64_t tick_ns; /* what asking for the time takes */
	unsigned int offers, looks;
	unsigned int good_after; /* so many offers */
	char order[64]; /* what was done: l, o */
} fake;

/* In place of the C library's. */
int clock_gettime(clockid_t id, struct timespec *ret)
{
	(void)id;
	fake.now += fake.tick_ns;
	ret->tv_sec = (time_t)(fake.now / 1000000000);
	ret->tv_nsec = (long)(fake.now % 1000000000);
	return 0;
}

static void note(char what)
{
	size_t n = strlen(fake.order);

	if (n < sizeof(fake.order) - 1)
		fake.order[n] = what;
}

int sched_yield(void)
{
	fake.offers++;
	fake.now += fake.turn_ns;
	note('o');
	return 0;
}

static bool look(void *ctx)
{
	(void)ctx;
	fake.looks++;
	fake.now += 30;
	note('l');
	return fake.offers >= fake.good_after;
}

static const struct spin_how how = { .most_ns = 20000,
				     .looks = 3,
				     .turn_ns = 20000 };

static bool try(struct spin *spin, uint64_t turn_ns, unsigned int good_after)
{
	memset(&fake, 0, sizeof(fake));
	fake.now = 1000000000;
	fake.turn_ns = turn_ns;
	fake.good_after = good_after;
	return spin_look(spin, &how, look, NULL);
}

static void test_offer(void **state)
{
	struct spin spin = { 0 };

	(void)state;
	/* On another CPU he needs no offer. */
	assert_true(try(&spin, 400, 0));
	assert_string_equal(fake.order, "l");
	assert_true(try(&spin, 400, 1));
	assert_string_equal(fake.order, "lllol");
	assert_true(try(&spin, 400, 2));
	assert_string_equal(fake.order, "lllollllol");
	/* Who took the offer gets one at once, as long as that helps. */
	assert_true(try(&spin, 4000, 1));
	assert_string_equal(fake.order, "lllol");
	assert_true(try(&spin, 4000, 1));
	assert_string_equal(fake.order, "ol");
	assert_true(try(&spin, 400, 1));
	assert_string_equal(fake.order, "ol");
	assert_true(try(&spin, 400, 1));
	assert_string_equal(fake.order, "lllol");
}

static void test_try_ends(void **state)
{
	struct spin spin = { 0 };

	(void)state;
	/* Nothing comes: it costs what was looked, not what others had. */
	assert_false(try(&spin, 400, UINT32_MAX));
	assert_in_range(fake.now - 1000000000, 20000, 21000);
	assert_int_equal(spin.skip, SPIN_SKIP);
	assert_in_range(-spin.allowed_ns, 20000, 21000);
	spin = (struct spin){ 0 };
	assert_false(try(&spin, 15000, UINT32_MAX));
	assert_int_equal(fake.offers, 2);
	assert_int_equal(spin.taken_skip, 0);
	assert_true(-spin.allowed_ns < 1000);
	/* What came meanwhile does not make it a good one. */
	spin = (struct spin){ .credit = SPIN_CREDIT };
	assert_true(try(&spin, 3000000, 1));
	assert_int_equal(spin.credit, 0);
	assert_int_equal(spin.skip, SPIN_SKIP);
}

/* As long as it is told to, and no longer. */
static void test_long_try(void **state)
{
	const struct spin_how longer = { .most_ns = 300000,
					 .looks = 3,
					 .turn_ns = 300000 };
	struct spin spin = { 0 };

	(void)state;
	memset(&fake, 0, sizeof(fake));
	fake.now = 1000000000;
	fake.turn_ns = 400;
	fake.good_after = 300;
	assert_true(spin_look(&spin, &longer, look, NULL));
	assert_in_range(fake.now - 1000000000, 100000, 200000);
	assert_int_equal(spin.credit, 1);
	fake.good_after = UINT32_MAX;
	fake.now = 1000000000;
	assert_false(spin_look(&spin, &longer, look, NULL));
	assert_in_range(fake.now - 1000000000, 300000, 301000);
}

/* A rest is time of ours, and none that somebody took. */
static void test_rest(void **state)
{
	const struct spin_how rests = { .most_ns = 20000,
					.rest_ns = 1700,
					.turn_ns = 20000 };
	struct spin spin = { 0 };

	(void)state;
	memset(&fake, 0, sizeof(fake));
	fake.now = 1000000000;
	fake.turn_ns = 400;
	fake.tick_ns = 10;
	fake.good_after = UINT32_MAX;
	assert_false(spin_look(&spin, &rests, look, NULL));
	assert_in_range(fake.offers, 8, 10);
	assert_int_equal(fake.offers, fake.looks);
	assert_in_range(-spin.allowed_ns, 20000, 23000);
	/* What came at the end of one was not brought by the offer. */
	fake.offers = 0;
	fake.good_after = 2;
	assert_true(spin_look(&spin, &rests, look, NULL));
	assert_false(spin.offer_first);
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

static void test_default(void **state)
{
	(void)state;
	assert_int_equal(spin_default_ns(0), SPIN_NS);
	assert_int_equal(spin_default_ns(300), SPIN_NS);
	assert_int_equal(spin_default_ns(1000), 50000);
	assert_int_equal(spin_default_ns(30000), 1500000);
	assert_int_equal(spin_default_ns(1000000), SPIN_MOST_NS);
	assert_int_equal(spin_default_ns(UINT64_MAX), SPIN_MOST_NS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pays),
		cmocka_unit_test(test_does_not_pay),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_taken),
		cmocka_unit_test(test_offer),
		cmocka_unit_test(test_try_ends),
		cmocka_unit_test(test_long_try),
		cmocka_unit_test(test_rest),
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_default),
	};

	return cmocka_run_group_tests_name("spin", tests, NULL, NULL);
}
