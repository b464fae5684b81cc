/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the main thread changes while lanes stand still, plain memory, they see
 * whole or not at all.  (Also for ThreadSanitizer.)
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/util.h"
#include "worker/standstill.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RACES_ARE_TOLD 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define RACES_ARE_TOLD 1
#endif

#define LANES  3
#define ROUNDS 300

/* One value, in far too many words to be read at once. */
struct world {
	struct standstill still;
	volatile uint64_t words[64];
	_Atomic(bool) stop;
	_Atomic(uint64_t) torn, looks;
};

static bool is_whole(const struct world *world)
{
	for (size_t i = 1; i < ARRAY_SIZE(world->words); i++)
		if (world->words[i] != world->words[0])
			return false;
	return true;
}

static void *lane(void *arg)
{
	struct world *world = arg;

	while (!atomic_load(&world->stop)) {
		if (standstill_wanted(&world->still))
			standstill_stand(&world->still);
		if (!is_whole(world))
			atomic_fetch_add(&world->torn, 1);
		atomic_fetch_add(&world->looks, 1);
	}
	return NULL;
}

/* Slowly enough for all others to have a turn. */
static void change(struct world *world)
{
	for (size_t i = 0; i < ARRAY_SIZE(world->words); i++) {
		world->words[i]++;
		if (i == ARRAY_SIZE(world->words) / 2)
			(void)usleep(100);
	}
}

static void run(struct world *world, void (*round)(struct world *world))
{
	pthread_t lanes[LANES];

	standstill_init(&world->still);
	for (size_t i = 0; i < LANES; i++)
		assert_int_equal(pthread_create(&lanes[i], NULL, lane, world),
				 0);
	round(world);
	atomic_store(&world->stop, true);
	for (size_t i = 0; i < LANES; i++)
		assert_int_equal(pthread_join(lanes[i], NULL), 0);
	standstill_destroy(&world->still);
}

static void change_in_standstill(struct world *world)
{
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t before;

		standstill_want(&world->still);
		standstill_wait(&world->still, LANES);
		before = atomic_load(&world->looks);
		change(world);
		/* Nobody has moved. */
		assert_int_equal(atomic_load(&world->looks), before);
		standstill_end(&world->still);
	}
}

static void test_whole(void **state)
{
	struct world world = { .stop = false };

	(void)state;
	run(&world, change_in_standstill);
	assert_int_equal(world.torn, 0);
	assert_true(world.looks > 0);
	assert_int_equal(world.words[0], ROUNDS);
}

#ifndef RACES_ARE_TOLD
/* Without it, what is changed is seen in pieces: the test would notice. */
static void change_at_once(struct world *world)
{
	uint64_t end = now_ns() + 20 * 1000000000ull;

	while (!atomic_load(&world->torn) && now_ns() < end)
		change(world);
}

static void test_control(void **state)
{
	struct world world = { .stop = false };

	(void)state;
	run(&world, change_at_once);
	assert_true(world.torn > 0);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
#ifndef RACES_ARE_TOLD
		cmocka_unit_test(test_control),
#endif
	};

	return cmocka_run_group_tests_name("standstill", tests, NULL, NULL);
}
