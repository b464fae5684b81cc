/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which commit a disk shows, in xenstore; and who waits for its worker's answer
 * when that dies or the disk goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "vbd-fixture.h"

#define ONE "1111111111111111111111111111111111111111"
#define TWO "2222222222222222222222222222222222222222"

#define assert_commit(disk, text) \
	assert_string_equal(world_backend(disk, "xendisk-commit"), text)

static void it_is_published(void **state)
{
	struct disk *disk = world_connected(5);
	unsigned int before;

	(void)state;
	assert_commit(disk, "(none)");
	world_changed(disk, ONE, "commit 1111111");
	world_settle();
	assert_commit(disk, ONE);
	before = fake_transactions(world.store);
	world_changed(disk, ONE, "commit 1111111, 1 pending");
	world_settle();
	assert_int_equal(fake_transactions(world.store), before);
	world_changed(disk, TWO, "commit 2222222");
	world_settle();
	assert_commit(disk, TWO);
	assert_int_equal(fake_transactions(world.store), before + 1);
	assert_int_equal(world_backend_state(disk), 4);
	world_changed(disk, "", "no commit");
	world_settle();
	assert_commit(disk, "(none)");
}

/* The next worker says it anew. */
static void it_outlives_the_worker(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	world_changed(disk, ONE, "");
	world_settle();
	world_worker_dies(disk);
	assert_commit(disk, ONE);
	world_wait_ask(disk, ASK_OPEN);
	world_changed(disk, TWO, "");
	world_answer(disk, 0);
	assert_commit(disk, TWO);
}

/* A directory that has gone is not made again. */
static void it_makes_no_directory(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	assert_int_equal(store_remove_branch(world.store, disk->be, 0), 0);
	world_changed(disk, ONE, "");
	world_settle();
	assert_commit(disk, "(none)");
}

static void it_is_shown(void **state)
{
	struct disk *disk = world_connected(5);
	struct vbd_view view;

	(void)state;
	world_changed(disk, ONE, "1 pending");
	vbd_view(disk->vbd, &view);
	assert_string_equal(view.notes, "0 now 1 pending\n");
	assert_string_equal(view.given, "null");
}

/* --- Questions ------------------------------------------------------------- */

static struct {
	unsigned int calls;
	int err;
	char text[128];
} answer;

static void on_answer(void *ctx, int err, const char *text)
{
	(void)ctx;
	answer.calls++;
	answer.err = err;
	(void)snprintf(answer.text, sizeof(answer.text), "%s", text);
}

static void ask(struct disk *disk)
{
	vbd_control(disk->vbd, "status", "", on_answer, NULL);
}

static void it_answers(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	memset(&answer, 0, sizeof(answer));
	ask(disk);
	ask(disk);
	assert_int_equal(answer.calls, 0);
	world_controlled(disk, 0, "id=7\n");
	assert_int_equal(answer.calls, 1);
	assert_int_equal(answer.err, 0);
	assert_string_equal(answer.text, "id=7\n");
	world_controlled(disk, -EBUSY, "not now");
	assert_int_equal(answer.calls, 2);
	assert_int_equal(answer.err, -EBUSY);
}

static void it_dies(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	memset(&answer, 0, sizeof(answer));
	ask(disk);
	ask(disk);
	world_worker_dies(disk);
	assert_int_equal(answer.calls, 2);
	assert_int_equal(answer.err, -EIO);
	assert_string_equal(answer.text, "the worker died");
	ask(disk);
	assert_int_equal(answer.calls, 3);
	assert_int_equal(answer.err, -ENOTCONN);
	assert_string_equal(answer.text, "no worker is serving it");
}

static void it_is_removed(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	memset(&answer, 0, sizeof(answer));
	ask(disk);
	world_detach(disk);
	world_frontend(disk, "state", "6");
	world_answer(disk, 0);
	world_remove(disk);
	world_settle();
	assert_int_equal(answer.calls, 1);
	assert_int_equal(answer.err, -ECANCELED);
	assert_string_equal(answer.text, "the disk was closed");
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(it_is_published),
		TEST(it_outlives_the_worker),
		TEST(it_makes_no_directory),
		TEST(it_is_shown),
		TEST(it_answers),
		TEST(it_dies),
		TEST(it_is_removed),
	};

	return cmocka_run_group_tests_name("vbd-commit", tests, NULL, NULL);
}
