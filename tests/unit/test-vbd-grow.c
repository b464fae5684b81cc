/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test-vbd-grow.c - what a guest is told of a disk that has become larger. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "vbd-fixture.h"

#define MiB (1ull << 20)

#define assert_sectors(disk, n) \
	assert_string_equal(world_backend(disk, "sectors"), n)

/* What vbd_resize() has said, and what the guest could see by then. */
static struct {
	unsigned int calls;
	int err;
	char why[128];
	char sectors[24];
} answer;

static void on_resized(void *ctx, int err, const char *why)
{
	answer.calls++;
	answer.err = err;
	(void)snprintf(answer.why, sizeof(answer.why), "%s", why ? why : "");
	(void)snprintf(answer.sectors, sizeof(answer.sectors), "%s",
		       world_backend(ctx, "sectors"));
}

static void ask(struct disk *disk, uint64_t size)
{
	memset(&answer, 0, sizeof(answer));
	vbd_resize(disk->vbd, size, on_resized, disk);
}

/* Sectors and state are written together: else a guest that looks in between
 * would read the old size, and hear of no other. */
static void it_grows_by_itself(void **state)
{
	struct disk *disk = world_connected(5);
	unsigned int before = fake_transactions(world.store);

	(void)state;
	assert_sectors(disk, "2048");
	world_grow(disk, 4 * MiB);
	world_settle();
	assert_sectors(disk, "8192");
	assert_be(disk, 4);
	assert_int_equal(fake_transactions(world.store), before + 1);
	/* And that is all. */
	world_frontend(disk, "state", "4");
	assert_int_equal(fake_transactions(world.store), before + 1);
	world_grow(disk, 8 * MiB);
	world_settle();
	assert_sectors(disk, "16384");
}

static void it_is_told_before_the_answer(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	ask(disk, 2 * MiB);
	assert_int_equal(world.resize, 2 * MiB);
	assert_int_equal(answer.calls, 0);
	world_grow(disk, 2 * MiB);
	world_resized(disk, 0);
	assert_int_equal(answer.calls, 1);
	assert_int_equal(answer.err, 0);
	assert_string_equal(answer.sectors, "4096");
	ask(disk, 0);
	world_resized(disk, -EPERM);
	assert_int_equal(answer.err, -EPERM);
	assert_string_equal(answer.why, "no room");
	world_settle();
	assert_sectors(disk, "4096");
}

static void one_at_a_time(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	ask(disk, 2 * MiB);
	ask(disk, 3 * MiB);
	assert_int_equal(answer.calls, 1);
	assert_int_equal(answer.err, -EBUSY);
	assert_int_equal(world.resize, 2 * MiB);
	/* The first one is still to be answered. */
	world_worker_dies(disk);
	assert_int_equal(answer.calls, 2);
	assert_int_equal(answer.err, -EIO);
	ask(disk, 0);
	assert_int_equal(answer.err, -ENOTCONN);
	assert_string_equal(answer.why, "no worker is serving it");
}

static void without_a_guest(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	ask(disk, 0);
	assert_int_equal(answer.err, -ENOTCONN);
	world_add(disk);
	world_answer(disk, 0);
	world_grow(disk, 2 * MiB);
	world_settle();
	assert_be(disk, 2);
	assert_sectors(disk, "(none)");
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_answer(disk, 0);
	assert_sectors(disk, "4096");
}

/* The toolstack has begun to close it: its state is not ours to write. */
static void not_while_it_closes(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	world_detach(disk);
	assert_be(disk, 5);
	world_grow(disk, 2 * MiB);
	world_settle();
	assert_be(disk, 5);
	assert_sectors(disk, "2048");
	ask(disk, 0);
	world_resized(disk, 0);
	assert_int_equal(answer.err, 0);
	assert_be(disk, 5);
}

static void close_it(void *ctx)
{
	struct disk *disk = ctx;
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/state", disk->be);
	fake_set(world.store, path, "5");
	fake_interfere(world.store, NULL, NULL);
}

/* Nor if it begins just then. */
static void not_over_a_close(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	fake_interfere(world.store, close_it, disk);
	world_grow(disk, 2 * MiB);
	world_settle();
	assert_be(disk, 5);
	assert_sectors(disk, "2048");
}

static void recovered(struct disk *disk, uint64_t size)
{
	world.limits.size = size;
	world_worker_dies(disk);
	world_wait_ask(disk, ASK_OPEN);
	world_answer(disk, 0);
	world_wait_ask(disk, ASK_CONNECT);
	world_answer(disk, 0);
}

/* The next worker finds another size. */
static void after_a_worker_died(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	recovered(disk, 2 * MiB);
	assert_sectors(disk, "4096");
	assert_be(disk, 4);
	/* A smaller one is never told. */
	recovered(disk, MiB);
	assert_sectors(disk, "4096");
	recovered(disk, 3 * MiB);
	assert_sectors(disk, "6144");
}

/* And so does the next broker, which knows from xenstore what was told. */
static void after_a_broker_died(void **state)
{
	struct disk *disk = world_connected(5);
	unsigned int before;

	(void)state;
	bus_forget(NULL, disk->vbd);
	world.limits.size = 2 * MiB;
	world_adopt(disk);
	world_answer(disk, 0);
	world_answer(disk, 0);
	assert_sectors(disk, "4096");
	bus_forget(NULL, disk->vbd);
	world_adopt(disk);
	world_answer(disk, 0);
	before = fake_transactions(world.store);
	world_answer(disk, 0);
	assert_sectors(disk, "4096");
	assert_int_equal(fake_transactions(world.store), before);
}

#define TEST(f) \
	cmocka_unit_test_setup_teardown(f, world_set_up, world_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(it_grows_by_itself),  TEST(it_is_told_before_the_answer),
		TEST(one_at_a_time),	   TEST(without_a_guest),
		TEST(not_while_it_closes), TEST(not_over_a_close),
		TEST(after_a_worker_died), TEST(after_a_broker_died),
	};

	return cmocka_run_group_tests_name("vbd grow", tests, NULL, NULL);
}
