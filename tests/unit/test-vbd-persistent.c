/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test-vbd-persistent.c - who gets persistent grants, and that nobody gets them who
 * may have read that they are not offered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "vbd-fixture.h"

#define assert_offers(disk, text) \
	assert_string_equal(world_backend(disk, "feature-persistent"), text)
#define assert_flags(disk, wanted) \
	assert_int_equal((disk)->worker->connect.flags, wanted)

/* Up to the worker's connect. */
static struct disk *begin(uint32_t domid, bool offered, const char *wanted)
{
	struct disk *disk;

	world.settings.persistent_grants = offered;
	disk = world_attach(NODE_VBD, domid, "null");
	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	if (wanted)
		world_frontend(disk, "feature-persistent", wanted);
	world_frontend(disk, "state", "3");
	return disk;
}

static void finish(struct disk *disk)
{
	world_answer(disk, 0);
	world_frontend(disk, "state", "4");
	assert_be(disk, 4);
}

static void both_have_to_want_it(void **state)
{
	static const struct {
		bool offered;
		const char *wanted;
		uint32_t flags;
	} cases[] = {
		{ true, "1", MSG_CONNECT_PERSISTENT },
		{ true, "0", 0 },
		{ true, NULL, 0 },
		{ false, "1", 0 },
	};

	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct disk *disk =
			begin(5 + i, cases[i].offered, cases[i].wanted);

		(void)state;
		/* What it could have read by now, and what it will read. */
		assert_offers(disk, cases[i].offered ? "1" : "0");
		assert_flags(disk, cases[i].flags);
		finish(disk);
		assert_offers(disk, cases[i].offered ? "1" : "0");
	}
}

static void a_word_that_is_no_number(void **state)
{
	struct disk *disk = begin(5, true, "yes");

	(void)state;
	assert_be(disk, 6);
	assert_string_equal(
		fake_get(world.store,
			 "/local/domain/0/error/backend/vbd/5/51712/error"),
		"22 frontend's feature-persistent: not a number from 0 to 1");
}

/* It served before there were persistent grants, and does now. */
static void a_word_that_nobody_wanted(void **state)
{
	struct disk *disk = begin(5, false, "yes");

	(void)state;
	assert_flags(disk, 0);
	finish(disk);
}

/* Another worker; another broker; the script once more. */
static void stays_as_it_is(struct disk *disk, bool was)
{
	uint32_t flags = MSG_CONNECT_RECOVER |
			 (was ? MSG_CONNECT_PERSISTENT : 0);
	const char *offered = was ? "1" : "0";

	world.settings.persistent_grants = !was;
	world_frontend(disk, "feature-persistent", "1");
	world_worker_dies(disk);
	world_wait_ask(disk, ASK_OPEN);
	world_answer(disk, 0);
	world_wait_ask(disk, ASK_CONNECT);
	assert_flags(disk, flags);
	world_answer(disk, 0);
	assert_offers(disk, offered);

	vbd_free(disk->vbd);
	world_adopt(disk);
	world_answer(disk, 0);
	assert_flags(disk, flags);
	world_add(disk);
	assert_offers(disk, offered);
	world_answer(disk, 0);
	assert_offers(disk, offered);
	assert_be(disk, 4);
}

static void stays_while_the_guest_does(void **state)
{
	for (uint32_t was = 0; was < 2; was++) {
		struct disk *disk = begin(5 + was, was, "1");

		(void)state;
		finish(disk);
		stays_as_it_is(disk, was);
		/* The next kernel is offered what holds now. */
		world_frontend(disk, "state", "6");
		world_answer(disk, 0);
		assert_null(fake_get(world.store,
				     was ? "/local/domain/6/device/vbd/51712/"
					   "feature-persistent" :
					   "/local/domain/5/device/vbd/51712/"
					   "feature-persistent"));
		world_frontend(disk, "state", "1");
		assert_be(disk, 2);
		assert_offers(disk, was ? "0" : "1");
	}
}

/* The configuration changes between the offer and the script's call: a guest may have
 * read the offer by then. */
static void not_offered_after_all(void **state)
{
	for (uint32_t was = 0; was < 2; was++) {
		struct disk *disk;

		(void)state;
		world.settings.persistent_grants = was;
		disk = world_attach(NODE_VBD, 5 + was, "null");
		assert_be(disk, 2);
		assert_offers(disk, was ? "1" : "0");
		world.settings.persistent_grants = !was;
		world_add(disk);
		world_answer(disk, 0);
		assert_offers(disk, "0");
		world_frontend_rings(disk, 1);
		world_frontend(disk, "feature-persistent", "1");
		world_frontend(disk, "state", "3");
		assert_flags(disk, 0);
		finish(disk);
		assert_offers(disk, "0");
	}
}

/* Taken from xen-blkback, which says nothing of it before it is connected. */
static void offered_by_nobody(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	assert_be(disk, 2);
	fake_remove(world.store,
		    "/local/domain/0/backend/vbd/5/51712/feature-persistent");
	world.settings.persistent_grants = true;
	world_add(disk);
	assert_offers(disk, "1");
	world_answer(disk, 0);
}

/* By a broker that died before it could write Connected. */
static void offered_by_another(void **state)
{
	struct disk *disk = begin(5, true, "1");

	(void)state;
	assert_flags(disk, MSG_CONNECT_PERSISTENT);
	vbd_free(disk->vbd);
	world.settings.persistent_grants = false;
	world_adopt(disk);
	world_answer(disk, 0);
	assert_flags(disk, MSG_CONNECT_PERSISTENT);
	/* The script comes late, and the worker has been told by now. */
	world_add(disk);
	assert_offers(disk, "1");
	finish(disk);
	assert_offers(disk, "1");
}

#define TEST(f) \
	cmocka_unit_test_setup_teardown(f, world_set_up, world_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(both_have_to_want_it),
		TEST(a_word_that_is_no_number),
		TEST(a_word_that_nobody_wanted),
		TEST(stays_while_the_guest_does),
		TEST(offered_by_another),
		TEST(not_offered_after_all),
		TEST(offered_by_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
