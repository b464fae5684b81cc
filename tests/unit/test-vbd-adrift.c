/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test-vbd-adrift.c - what a guest was connected to, and xenstored or the kept log
 * does not know any more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "vbd-fixture.h"

static void put_backend(const struct disk *disk, const char *key,
			const char *value)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", disk->be, key);
	fake_set(world.store, path, value);
}

/* Neither directory is there any more, and another worker is about to serve the rings
 * that it had. */
static void set_adrift(struct disk *disk)
{
	vbd_set_adrift(disk->vbd);
	fake_remove(world.store, disk->be);
	fake_remove(world.store, disk->fe);
	world_settle();
	assert_asked(disk, ASK_NOTHING);
	world_worker_dies(disk);
	world_wait_ask(disk, ASK_OPEN);
	world_answer(disk, 0);
	world_settle();
	assert_asked(disk, ASK_CONNECT); /* the rings that it had */
}

/* A xenstored that has begun anew knows no directory. */
static void directory_is_forgotten(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	set_adrift(disk);
	world_answer(disk, 0);
	assert_true(disk->worker->connected);
	/* It is there again: from now on its end counts. */
	put_backend(disk, "state", "4");
	put_backend(disk, "frontend", disk->fe);
	world_frontend(disk, "state", "4");
	world_settle();
	fake_remove(world.store, disk->be);
	world_settle();
	assert_asked(disk, ASK_DISCONNECT);
	world_answer(disk, 0);
	assert_null(disk->vbd);
}

/* Nor which domains there are: the worker finds out that its guest has gone. */
static void directory_is_forgotten_and_guest_gone(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	set_adrift(disk);
	world_answer(disk, -EINVAL); /* the domain is dying, maybe */
	world_wait_ask(disk, ASK_CONNECT);
	world_answer(disk, -ESRCH);
	assert_null(disk->vbd);
	assert_null(disk->worker);
}

/* By a daemon that has not connected the guest itself, whose worker is gone. */
static struct disk *found_lost(void)
{
	struct disk *disk = world_connected(5);

	vbd_free(disk->vbd);
	world_adopt(disk);
	assert_asked(disk, ASK_OPEN);
	vbd_set_adrift(disk->vbd);
	fake_remove(world.store, disk->be);
	fake_remove(world.store, disk->fe);
	world_settle();
	world_answer(disk, 0);
	return disk;
}

static const char *failure(struct disk *disk)
{
	struct vbd_view view;

	vbd_view(disk->vbd, &view);
	return view.failure ? view.failure : "(none)";
}

static void rings_are_forgotten(void **state)
{
	struct disk *disk = found_lost();

	(void)state;
	assert_asked(disk, ASK_NOTHING);
	assert_string_equal(world_view(disk), "failed");
	assert_non_null(strstr(failure(disk), "has forgotten where"));
	vbd_touch(disk->vbd);
	world_settle();
	assert_asked(disk, ASK_NOTHING);
	/* They are there again. */
	put_backend(disk, "state", "4");
	put_backend(disk, "online", "1");
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "4");
	put_backend(disk, "frontend", disk->fe);
	vbd_touch(disk->vbd);
	world_settle();
	assert_asked(disk, ASK_CONNECT);
	assert_int_equal(disk->worker->connect.flags, MSG_CONNECT_RECOVER);
	world_answer(disk, 0);
	assert_string_equal(world_view(disk), "connected");
}

/* Its worker has outlived the daemon, and is being taken over just then. */
static void rings_are_forgotten_but_served(void **state)
{
	struct disk *disk;

	(void)state;
	world.held = true;
	disk = found_lost();
	assert_asked(disk, ASK_NOTHING);
	assert_string_equal(failure(disk), "(none)");
	world.held = false;
	world_worker_dies(disk);
	assert_string_equal(failure(disk), "(none)"); /* not yet */
	world_wait_ask(disk, ASK_OPEN);
	world_answer(disk, 0);
	assert_non_null(strstr(failure(disk), "has forgotten where"));
}

static void removed_while_forgotten(void **state)
{
	struct disk *disk = found_lost();

	(void)state;
	world_remove(disk);
	assert_true(world.done);
	assert_int_equal(world.done_err, 0);
	assert_null(disk->vbd);
	disk = world_connected(6);
	vbd_set_adrift(disk->vbd);
	fake_remove(world.store, disk->be);
	world_settle();
	world_remove(disk);
	assert_asked(disk, ASK_DISCONNECT);
	world_answer(disk, 0);
	assert_true(world.done);
	assert_null(disk->vbd);
}

/* --- A log that cannot be true -------------------------------------------- */

static void be_hopeless(struct disk *disk)
{
	world_worker_dies(disk);
	world_wait_ask(disk, ASK_OPEN);
	world_answer(disk, 0);
	world_wait_ask(disk, ASK_CONNECT);
	world_answer(disk, -ENOTRECOVERABLE);
}

static struct disk *hopeless(void)
{
	struct disk *disk = world_connected(5);

	be_hopeless(disk);
	return disk;
}

static void a_log_that_cannot_be_true(void **state)
{
	struct disk *disk = hopeless();

	(void)state;
	vbd_touch(disk->vbd);
	world_settle();
	assert_asked(disk, ASK_NOTHING);
	assert_be(disk, 4); /* the guest waits, as it does for any worker */
	assert_string_equal(world_view(disk), "failed");
	assert_non_null(strstr(failure(disk), "no such page; end the guest"));
	assert_int_equal(world_resume(disk, true), -EIO);
	assert_non_null(
		strstr(world.resume_why, "no such page; end the guest"));
	/* It is started anew. */
	world_frontend(disk, "state", "1");
	assert_be(disk, 2);
	assert_string_equal(world_view(disk), "waiting");
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	assert_asked(disk, ASK_CONNECT);
	assert_int_equal(disk->worker->connect.flags, 0);
	world_answer(disk, 0);
	assert_be(disk, 4);
}

/* What the dead worker waited for is nothing that could be resumed. */
static void it_was_paused(void **state)
{
	struct disk *disk = world_connected(5);
	struct worker *worker = disk->worker;

	(void)state;
	worker->events.condition(worker->spec.ctx, MSG_PAUSED, true, "ENOSPC");
	be_hopeless(disk);
	assert_int_equal(world_resume(disk, false), -EIO);
	assert_non_null(
		strstr(world.resume_why, "no such page; end the guest"));
}

/* Another worker may find something else, for instance one of another version. */
static void another_worker_tries_again(void **state)
{
	struct disk *disk = hopeless();

	(void)state;
	world_worker_dies(disk);
	world_wait_ask(disk, ASK_OPEN);
	world_answer(disk, 0);
	world_wait_ask(disk, ASK_CONNECT);
	world_answer(disk, 0);
	assert_string_equal(world_view(disk), "connected");
}

static void its_guest_ends(void **state)
{
	struct disk *disk = hopeless();

	(void)state;
	fake_end_domain(world.store, 5);
	vbd_touch(disk->vbd);
	world_settle();
	assert_be(disk, 6);
	assert_string_equal(world_view(disk), "closed");
	assert_null(disk->worker);
}

#define TEST(f) \
	cmocka_unit_test_setup_teardown(f, world_set_up, world_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(directory_is_forgotten),
		TEST(directory_is_forgotten_and_guest_gone),
		TEST(rings_are_forgotten),
		TEST(rings_are_forgotten_but_served),
		TEST(removed_while_forgotten),
		TEST(a_log_that_cannot_be_true),
		TEST(it_was_paused),
		TEST(another_worker_tries_again),
		TEST(its_guest_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
