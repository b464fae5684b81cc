/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test-vbd-faults.c - what may happen to a disk at the wrong moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <xen/io/xenbus.h>

#include "vbd-fixture.h"

/* --- The toolstack at the same time --------------------------------------- */

static void detach_in_between(void *ctx)
{
	struct disk *disk = ctx;
	char path[STORE_PATH_MAX];

	fake_interfere(world.store, NULL, NULL);
	(void)snprintf(path, sizeof(path), "%s/state", disk->be);
	fake_set(world.store, path, "5");
}

/* A detach that comes while we say Connected must not be lost. */
static void detach_while_connecting(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	fake_interfere(world.store, detach_in_between, disk);
	world_answer(disk, 0);
	assert_be(disk, 5);
	assert_true(disk->worker->connected);
	world_frontend(disk, "state", "6");
	world_answer(disk, 0);
	assert_be(disk, 6);
}

/* Storage that hangs in there must not keep the disk from being detached: to
 * disconnect has a time limit. */
static void frontend_leaves_while_connecting(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	assert_int_equal(disk->worker->ask, ASK_CONNECT);
	world_frontend(disk, "state", "6");
	assert_int_equal(disk->worker->ask, ASK_DISCONNECT);
	world_worker_dies(disk); /* the time is over */
	assert_be(disk, 6);
}

static void frontend_begins_anew(struct disk *disk)
{
	world_frontend(disk, "state", "1");
	world_frontend(disk, "ring-ref", "9");
	world_frontend(disk, "state", "3");
	if (disk->worker->ask == ASK_DISCONNECT)
		world_answer(disk, 0);
	world_wait_ask(disk, ASK_CONNECT);
	assert_int_equal(disk->worker->connect.ring[0].ref[0], 9);
	world_answer(disk, 0);
	assert_be(disk, 4);
}

/* Without having said Closed: before it was Connected, nobody has to.  Its rings are
 * others then. */
static void frontend_begins_anew_while_connecting(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	assert_asked(disk, ASK_CONNECT);
	frontend_begins_anew(disk);
}

static void frontend_begins_anew_while_it_waits(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_answer(disk, -EBUSY); /* another guest has it */
	assert_be(disk, 2);
	frontend_begins_anew(disk);
}

static void nothing(void *ctx)
{
	(void)ctx;
}

/* A xenstore that is never quiet holds us up no longer than 20 tries; the step
 * is taken when it is. */
static void transactions_are_bounded(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");
	unsigned int before = fake_transactions(world.store);

	(void)state;
	fake_interfere(world.store, nothing, NULL);
	world_detach(disk);
	assert_be(disk, 5);
	assert_int_equal(fake_transactions(world.store) - before, 20);
	fake_interfere(world.store, NULL, NULL);
	(void)event_base_loop(world.broker.base, EVLOOP_ONCE);
	world_settle();
	assert_be(disk, 6);
}

/* --- Deaths --------------------------------------------------------------- */

static void worker_dies_while_connected(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	world_worker_dies(disk);
	assert_be(disk, 4);
	world_wait_ask(disk, ASK_OPEN);
	world_answer(disk, 0);
	world_wait_ask(disk, ASK_CONNECT);
	assert_int_equal(disk->worker->connect.flags, MSG_CONNECT_RECOVER);
	assert_int_equal(disk->worker->connect.ring[0].ref[0], 8);
	world_answer(disk, 0);
	assert_be(disk, 4);
	assert_int_equal(world.discards, 1);
}

static void says(struct disk *disk, enum msg_condition_kind kind, bool set)
{
	struct worker *worker = disk->worker;

	worker->events.condition(worker->spec.ctx, kind, set, "it waits");
}

static void assert_conditions(struct disk *disk, bool paused, bool recovering)
{
	struct vbd_view view;

	vbd_view(disk->vbd, &view);
	assert_int_equal(view.condition[MSG_PAUSED] != NULL, paused);
	assert_int_equal(view.condition[MSG_RECOVERING] != NULL, recovering);
}

/* What a worker says of itself is true until it says otherwise, or dies; its lanes may
 * say it before the main thread says that they run. */
static void conditions_of_a_worker(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	says(disk, MSG_PAUSED, true);
	for (int tells = 1; tells >= 0; tells--) {
		world_worker_dies(disk);
		assert_conditions(disk, true, true);
		world_wait_ask(disk, ASK_OPEN);
		says(disk, MSG_PAUSED, true);
		world_answer(disk, -ECONNREFUSED);
		assert_conditions(disk, true, true);
		world_wait_ask(disk, ASK_OPEN);
		world_answer(disk, 0);
		world_wait_ask(disk, ASK_CONNECT);
		if (tells) {
			says(disk, MSG_RECOVERING, true);
			says(disk, MSG_PAUSED, true);
		}
		world_answer(disk, 0);
		assert_conditions(disk, tells, tells);
		if (tells)
			says(disk, MSG_RECOVERING, false);
		assert_conditions(disk, tells, false);
	}
}

/* The server that the disk is on is away for a while: it is not given up. */
static void worker_cannot_open_again(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	world_worker_dies(disk);
	for (int i = 0; i < 3; i++) {
		world_wait_ask(disk, ASK_OPEN);
		world_answer(disk, -ECONNREFUSED);
		assert_be(disk, 4);
		assert_string_equal(world_view(disk), "connected");
	}
	world_wait_ask(disk, ASK_OPEN);
	world_answer(disk, 0);
	world_wait_ask(disk, ASK_CONNECT);
	world_answer(disk, 0);
	assert_true(disk->worker->connected);
}

static void worker_dies_while_opening(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	world_add(disk);
	world_worker_dies(disk);
	assert_true(world.done);
	assert_int_equal(world.done_err, -EIO);
	assert_be(disk, 2);
}

static void worker_dies_while_disconnecting(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	world_frontend(disk, "state", "6");
	world_worker_dies(disk);
	assert_be(disk, 6);
}

/* As a new broker finds it, when the old one was killed. */
static void broker_finds_it_connected(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	vbd_free(disk->vbd);
	world_adopt(disk);
	assert_be(disk, 4);
	assert_asked(disk, ASK_OPEN);
	world_answer(disk, 0);
	assert_asked(disk, ASK_CONNECT);
	assert_int_equal(disk->worker->connect.flags, MSG_CONNECT_RECOVER);
	world_answer(disk, 0);
	assert_be(disk, 4);
	assert_key(disk, "hotplug-status", "connected");
	assert_int_equal(world.discards, 1); /* only at the first attach */
}

static void broker_finds_it_closing_but_mounted(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	world_detach(disk);
	vbd_free(disk->vbd);
	world_adopt(disk);
	world_answer(disk, 0);
	assert_asked(disk, ASK_CONNECT);
	assert_int_equal(disk->worker->connect.flags, MSG_CONNECT_RECOVER);
	world_answer(disk, 0);
	assert_be(disk, 5);
	world_frontend(disk, "state", "6");
	world_answer(disk, 0);
	assert_be(disk, 6);
}

static void broker_finds_it_with_blkback(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	vbd_free(disk->vbd);
	world.blkback = true; /* but this device was taken from it */
	world_adopt(disk);
	world_answer(disk, 0);
	world_answer(disk, 0);
	assert_true(disk->worker->connected);
	vbd_free(disk->vbd);
	world.blkback_owns = true; /* somebody has given it back */
	world_adopt(disk);
	assert_null(disk->worker);
	assert_be(disk, 4);
}

/* It was not attached, and is not being opened either. */
static void broker_finds_it_failed(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "/srv/a.img");
	struct vbd_view view;

	(void)state;
	world_add(disk);
	world_answer(disk, -ENOENT);
	vbd_free(disk->vbd);
	world_adopt(disk);
	assert_null(disk->worker);
	vbd_view(disk->vbd, &view);
	assert_string_equal(view.state, "failed");
	assert_string_equal(view.failure, "raw: /srv/a.img: No such file");
	assert_string_equal(view.vdev, "xvda");
	world_add(disk);
	world_answer(disk, 0);
	assert_int_equal(world.done_err, 0);
	assert_string_equal(world_view(disk), "waiting");
}

/* --- Kind xendisk --------------------------------------------------------- */

static void direct(void **state)
{
	struct disk *disk = world_attach(NODE_XENDISK, 5, "null");

	(void)state;
	assert_asked(disk, ASK_OPEN); /* nobody runs a script */
	assert_be(disk, 1);
	world_answer(disk, 0);
	assert_be(disk, 2);
	assert_key(disk, "hotplug-status", "connected");
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_answer(disk, 0);
	assert_be(disk, 4);
	fake_end_domain(world.store, 5);
	vbd_touch(disk->vbd);
	world_settle();
	world_answer(disk, 0);
	assert_null(disk->vbd); /* the directory too: libxl does not know it */
	assert_key(disk, "state", "(none)");
}

static void direct_that_fails(void **state)
{
	struct disk *disk = world_attach(NODE_XENDISK, 5, "/srv/a.img");

	(void)state;
	world_answer(disk, -ENOENT);
	assert_be(disk, 6);
	assert_key(disk, "hotplug-status", "error");
	assert_key(disk, "hotplug-error", "raw: /srv/a.img: No such file");
}

/* --- One image, two guests ------------------------------------------------ */

static struct disk *second_user(const char *expression, const char *uuid)
{
	struct disk *disk;

	world.storage = "file:/srv/a.img inode 12";
	disk = world_attach(NODE_VBD, 5, expression);
	world_add(disk);
	world_answer(disk, 0);
	assert_int_equal(world.done_err, 0);
	disk = world_attach(NODE_VBD, 6, expression);
	vbd_free(disk->vbd);
	fake_set(world.store, "/local/domain/6/vm", uuid);
	world_adopt(disk);
	world_add(disk);
	world_answer(disk, 0);
	return disk;
}

static void an_image_in_use(void **state)
{
	struct disk *disk = second_user("/srv/a.img", "/vm/00000006");

	(void)state;
	assert_int_equal(world.done_err, -EBUSY);
	assert_string_equal(world.done_why,
			    "raw(/srv/a.img) is in use by domain 5 "
			    "(xvda)");
	assert_null(disk->worker);
}

static void an_image_of_the_same_guest(void **state)
{
	(void)state;
	(void)second_user("/srv/a.img", "/vm/00000005");
	assert_int_equal(world.done_err, 0);
}

static void an_image_that_is_shared(void **state)
{
	(void)state;
	(void)second_user("raw(/srv/a.img, shared=yes)", "/vm/00000006");
	assert_int_equal(world.done_err, 0);
}

/* --- Anything, in any order ----------------------------------------------- */

static uint32_t draw(uint64_t *seed, uint32_t below)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*seed >> 33) % below;
}

static void check_invariants(struct disk *disk)
{
	bool serving = disk->worker && disk->worker->connected;
	int be = world_backend_state(disk);

	/* Only a disk that has its rings is Connected, unless it is lost. */
	assert_false(be == XenbusStateClosed && serving);
	assert_false(be == XenbusStateInitialising && serving);
	if (!disk->vbd)
		assert_false(serving);
}

static void random_step(struct disk *disk, uint64_t *seed)
{
	static const char *const states[] = { "0", "1", "2", "3", "4",
					      "5", "6", "7", "8", "x" };

	switch (draw(seed, 8)) {
	case 0:
	case 1:
	case 2:
		world_frontend(disk, "state",
			       states[draw(seed, ARRAY_SIZE(states))]);
		break;
	case 3:
		world_frontend_rings(disk, 1 + draw(seed, 3));
		break;
	case 4:
		world_frontend(disk, "event-channel",
			       draw(seed, 4) ? "3" : "junk");
		break;
	default:
		if (disk->worker && disk->worker->ask != ASK_NOTHING)
			world_answer(disk, draw(seed, 8) ? 0 : -EINVAL);
		break;
	}
	check_invariants(disk);
}

/* Lets everything that was asked end well. */
static void run_out(struct disk *disk)
{
	while (disk->worker && disk->worker->ask != ASK_NOTHING)
		world_answer(disk, 0);
}

static void random_walks(void **state)
{
	uint64_t seed = 7;

	(void)state;
	for (int walk = 0; walk < 300; walk++) {
		struct disk *disk;

		world_end();
		world_start();
		disk = world_attach(NODE_VBD, 5, "null");
		world_add(disk);
		world_answer(disk, 0);
		for (int i = 0; i < 300; i++)
			random_step(disk, &seed);
		/* Whatever it did, a guest that closes can be detached... */
		run_out(disk);
		world_detach(disk);
		world_frontend(disk, "state", "6");
		run_out(disk);
		assert_be(disk, 6);
		assert_false(disk->worker && disk->worker->connected);
		/* ... and nothing of it is left. */
		fake_remove(world.store, disk->be);
		world_settle();
		assert_null(disk->vbd);
		assert_int_equal(world.workers, 0);
	}
}

/* --- Resume --------------------------------------------------------------- */

/* There is nothing that would be tried again. */
static void resume_of_a_target_that_failed(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	world_add(disk);
	world_answer(disk, -ENOENT);
	for (int accept = 0; accept < 2; accept++) {
		assert_int_equal(world_resume(disk, accept), -EIO);
		assert_string_equal(
			world.resume_why,
			"the disk has failed, which resume does not mend "
			"(replug starts it anew): "
			"raw: /srv/a.img: No such file");
	}
}

static void resume_of_a_guest_that_is_refused(void **state)
{
	struct disk *disk = world_connected(5);
	struct worker *worker = disk->worker;

	(void)state;
	worker->events.condition(worker->spec.ctx, MSG_POISONED, true, "EIO");
	worker->events.broken(worker->spec.ctx, "40 requests");
	world_settle();
	assert_string_equal(world_view(disk), "failed");
	/* The loss can be accepted: the worker has been asked. */
	assert_int_equal(world_resume(disk, true), -EOPNOTSUPP);
	worker->events.condition(worker->spec.ctx, MSG_POISONED, false, "");
	assert_int_equal(world_resume(disk, true), -EIO);
	assert_non_null(strstr(world.resume_why, "40 requests"));
}

#define TEST(f) \
	cmocka_unit_test_setup_teardown(f, world_set_up, world_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(detach_while_connecting),
		TEST(frontend_leaves_while_connecting),
		TEST(frontend_begins_anew_while_connecting),
		TEST(frontend_begins_anew_while_it_waits),
		TEST(transactions_are_bounded),
		TEST(worker_dies_while_connected),
		TEST(conditions_of_a_worker),
		TEST(worker_cannot_open_again),
		TEST(worker_dies_while_opening),
		TEST(worker_dies_while_disconnecting),
		TEST(broker_finds_it_connected),
		TEST(broker_finds_it_closing_but_mounted),
		TEST(broker_finds_it_with_blkback),
		TEST(broker_finds_it_failed),
		TEST(direct),
		TEST(direct_that_fails),
		TEST(an_image_in_use),
		TEST(an_image_of_the_same_guest),
		TEST(an_image_that_is_shared),
		TEST(random_walks),
		TEST(resume_of_a_target_that_failed),
		TEST(resume_of_a_guest_that_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
