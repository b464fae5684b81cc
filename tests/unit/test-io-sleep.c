/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A time that is over, and that nobody looks at any more, keeps no lane awake. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io-fixture.h"

/* The mark cannot be made, and needs none any more. */
static void fail_to_mark(void (*meanwhile)(void))
{
	fix.mark_result = -ECONNRESET;
	fix.while_marking = meanwhile;
	fix_rw(FLUSH, 1, 0, 0, 0);
	fix_run();
	fix_complete(0, -EIO);
	assert_int_equal(fix_count(FIX_MARK), 1);
	assert_int_equal(fix.lane.flush.mark_at, 0);
}

static void forgive(void)
{
	atomic_store(&fix.disk.poison, IO_CLEAN);
}

static void test_forgiven_meanwhile(void **state)
{
	(void)state;
	fail_to_mark(forgive);
	assert_int_equal(fix.nr_queue, 1); /* it is tried again */
	fix_complete(0, 0);
	assert_int_equal(fix_status(1), 0);
}

static void mark(void)
{
	atomic_store(&fix.disk.poison, IO_POISONED);
}

static void test_marked_meanwhile(void **state)
{
	(void)state;
	fail_to_mark(mark);
	assert_int_equal(fix_status(1), -3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IO_TEST(test_forgiven_meanwhile),
		IO_TEST(test_marked_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
