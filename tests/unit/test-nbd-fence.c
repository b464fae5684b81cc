/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a broken connection may still do: who waits, for how long, and how much is
 * remembered of a server that breaks its connections for ever.
 */
#include "config.h"

#include "../../backends/nbd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "common/util.h"

#define HOUR 3600000000000ull

static struct nbd_disk nbd;

static void begin(uint64_t fence_ns)
{
	nbd = (struct nbd_disk){ .fence_ns = fence_ns };
	assert_int_equal(pthread_mutex_init(&nbd.lock, NULL), 0);
}

static void end(void)
{
	nbd_fence_clear(&nbd);
	assert_int_equal(nbd.nr_fences, 0);
	(void)pthread_mutex_destroy(&nbd.lock);
}

static void who_waits(void **state)
{
	uint64_t before = now_ns();

	(void)state;
	begin(HOUR);
	assert_true(nbd_fence_check(&nbd, 0, 4096) == 0);
	nbd_fence_add(&nbd, 4096, 8192);
	nbd_fence_add(&nbd, 16384, 20480);
	assert_true(nbd_fence_check(&nbd, 0, 4096) == 0);
	assert_true(nbd_fence_check(&nbd, 8192, 16384) == 0);
	assert_true(nbd_fence_check(&nbd, 7680, 8704) >= before + HOUR);
	assert_true(nbd_fence_check(&nbd, 0, 32768) <= now_ns() + HOUR);
	end();
}

static void without_fence(void **state)
{
	(void)state;
	begin(0);
	nbd_fence_add(&nbd, 0, 4096);
	assert_true(nbd_fence_check(&nbd, 0, 4096) == 0);
	end();
}

/* The same writes are lost again and again: what counts is the last time. */
static void the_same_again(void **state)
{
	uint64_t before;

	(void)state;
	begin(HOUR);
	for (unsigned int i = 0; i < 1000; i++)
		nbd_fence_add(&nbd, 4096 * (i % 8), 4096 * (i % 8 + 1));
	assert_int_equal(nbd.nr_fences, 8);
	before = now_ns();
	nbd_fence_add(&nbd, 0, 4096);
	assert_true(nbd_fence_check(&nbd, 0, 512) >= before + HOUR);
	end();
}

/* Of those whose time is over nothing is left, though nobody has asked. */
static void others_each_time(void **state)
{
	(void)state;
	begin(1000000);
	for (unsigned int i = 0; i < 20; i++) {
		nbd_fence_add(&nbd, 4096 * i, 4096 * (i + 1));
		(void)usleep(2000);
	}
	assert_int_equal(nbd.nr_fences, 1);
	assert_true(nbd_fence_check(&nbd, 0, 20 * 4096) == 0);
	assert_int_equal(nbd.nr_fences, 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_waits),
		cmocka_unit_test(without_fence),
		cmocka_unit_test(the_same_again),
		cmocka_unit_test(others_each_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
