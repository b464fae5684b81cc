/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a worker does again that another has left, on a stack that does what the test
 * says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "io-fixture.h"
#include "worker/io-guest.h"

static void test_recovery(void **state)
{
	(void)state;
	fix_fill(10, 4, 0x21);
	fix_rw(WRITE, 1, 0, 10, 1);
	fix_rw(WRITE, 2, 80, 11, 1);
	fix_rw(FLUSH, 3, 0, 0, 0);
	fix_indirect(WRITE, 4, 160, 900, 12, 2);
	fix_run();
	fix_complete(1, 0); /* only 2 is answered */
	fix_rw(READ, 5, 80, 50, 1); /* nobody has taken it yet */
	fix_die_and_recover();
	assert_int_equal(fix.nr_queue, 4); /* 1, 3, 4 again; 5 */
	fix_complete_all();
	for (uint64_t id = 1; id <= 5; id++) {
		assert_int_equal(fix_responses(id), 1);
		assert_int_equal(fix_status(id), 0);
	}
	assert_int_equal(fix.guest[50 * 4096], 0x21);
	assert_int_equal(
		fix.events[fix_when(FIX_CONDITION, MSG_RECOVERING)].offset, 0);
}

/* A request that kills each worker is answered in the end, a flush never as if
 * it were needless. */
static void test_poison_request(void **state)
{
	(void)state;
	fix_rw(WRITE, 1, 0, 10, 1);
	fix_rw(FLUSH, 2, 0, 0, 0);
	fix_run();
	for (unsigned int i = 0; i < INFLIGHT_MAX_TRIES - 1; i++) {
		fix_die_and_recover();
		assert_int_equal(fix.nr_queue, 2);
	}
	fix_die_and_recover();
	assert_int_equal(fix_status(1), -1);
	assert_int_equal(fix_status(2), -3);
	assert_int_equal(fix_count(FIX_RESPONSE), 2);
}

/* Workers that die before they have got to it are not its fault. */
static void test_no_poison(void **state)
{
	(void)state;
	fix_rw(WRITE, 1, 0, 10, 1);
	fix_run();
	for (unsigned int i = 0; i < 2 * INFLIGHT_MAX_TRIES; i++)
		fix_die_and_adopt();
	for (unsigned int i = 0; i < INFLIGHT_MAX_TRIES - 1; i++) {
		fix_die_and_recover();
		assert_int_equal(fix.nr_queue, 1);
	}
	fix_complete_all();
	assert_int_equal(fix_status(1), 0);
}

/* No worker says that of a request without a range: nobody waits for one. */
static void test_begun_without_a_range(void **state)
{
	(void)state;
	fix_rw(FLUSH, 1, 0, 0, 0);
	fix_rw(READ, 2, 0, 10, 1);
	fix_run();
	inflight_ring(fix.log, 0).entries[0].begun = 1;
	inflight_ring(fix.log, 0).entries[1].begun = 1;
	fix_rw(WRITE, 3, 80, 11, 1); /* nobody has taken it yet */
	fix_die_and_recover();
	assert_int_equal(fix.nr_queue, 3);
	fix_complete_all();
	for (uint64_t id = 1; id <= 3; id++)
		assert_int_equal(fix_status(id), 0);
}

/* One with data, which has its range, and which the operator wants unanswered: it keeps
 * nobody else from being answered.  When the loss is accepted it is done as a whole. */
static void test_poison_flush_held(void **state)
{
	(void)state;
	fix.policy.flush_error = FLUSH_ERROR_HOLD;
	fix_fill(10, 1, 0x31);
	fix_rw(FLUSH, 1, 0, 10, 1);
	fix_run();
	for (unsigned int i = 0; i < INFLIGHT_MAX_TRIES; i++)
		fix_die_and_recover();
	assert_int_equal(fix.nr_queue, 0);
	assert_int_equal(fix_count(FIX_MARK), 1);
	fix_rw(WRITE, 2, 80, 10, 1);
	fix_run();
	assert_int_equal(fix_status(2), -1);
	assert_int_equal(fix_responses(1), 0);
	flush_forgive(&fix.disk);
	fix_fill(11, 1, 0x32);
	fix_rw(WRITE, 3, 0, 11, 1); /* where the flush is to write */
	fix_run();
	assert_int_equal(fix.nr_queue, 1);
	fix_complete_all();
	assert_int_equal(fix_status(1), 0);
	assert_int_equal(fix_status(3), 0);
	assert_int_equal(fix.store[0], 0x32);
}

static pthread_t other_lane;

static void *fail_another(void *arg)
{
	flush_untried(arg);
	return NULL;
}

static void other_lane_fails(void)
{
	static struct io io;

	io = (struct io){ .lane = &fix.lane, .client = true };
	assert_int_equal(pthread_create(&other_lane, NULL, fail_another, &io),
			 0);
	usleep(100000); /* it comes as far as it may */
}

/* A flush fails while the operator accepts what was lost before: that is not forgiven,
 * and the broker hears of it last. */
static void test_poison_beside_resume(void **state)
{
	unsigned int last = 0;

	(void)state;
	fix_rw(FLUSH, 1, 0, 0, 0);
	fix_run();
	fix_complete(0, -EIO);
	fix_forget_events();
	fix.before_telling = other_lane_fails;
	flush_hold_marks(&fix.disk);
	flush_forgive(&fix.disk);
	flush_let_marks(&fix.disk);
	assert_int_equal(pthread_join(other_lane, NULL), 0);
	assert_int_equal(atomic_load(&fix.disk.poison), IO_FAILED);
	assert_int_equal(fix_count(FIX_CONDITION), 2);
	for (unsigned int i = 0; i < fix.nr_events; i++)
		if (fix.events[i].kind == FIX_CONDITION)
			last = i;
	assert_int_equal(fix.events[last].offset, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IO_TEST(test_recovery),
		IO_TEST(test_poison_request),
		IO_TEST(test_no_poison),
		IO_TEST(test_begun_without_a_range),
		IO_TEST(test_poison_flush_held),
		IO_TEST(test_poison_beside_resume),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
