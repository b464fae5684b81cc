/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test-vbd.c - the life of a disk, told from the outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <xen/io/xenbus.h>

#include "vbd-fixture.h"

/* --- Attaching ------------------------------------------------------------ */

static void attach_by_script(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	assert_be(disk, 2); /* at once: libxl waits for it, then runs add */
	assert_key(disk, "max-ring-page-order", "4");
	assert_key(disk, "max-ring-pages", "16");
	assert_key(disk, "feature-max-indirect-segments", "256");
	assert_null(disk->worker);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_add(disk);
	assert_false(world.done);
	assert_asked(disk, ASK_OPEN);
	assert_int_equal(world.discards, 1); /* of a disk nobody saw go */
	assert_be(disk, 2);
	assert_string_equal(world_view(disk), "opening");
	world_answer(disk, 0);
	assert_true(world.done);
	assert_int_equal(world.done_err, 0);
	assert_key(disk, "hotplug-status", "connected");
	assert_asked(disk, ASK_CONNECT);
	assert_int_equal(disk->worker->connect.flags, 0);
	assert_int_equal(disk->worker->connect.discard, 1);
	assert_be(disk, 2);
	world_answer(disk, 0);
	assert_be(disk, 4);
	assert_string_equal(world_view(disk), "connected");
}

static void guest_cannot_read_params(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	assert_true(fake_is_hidden(world.store, "/local/domain/0/backend/vbd/"
						"5/51712/params"));
	assert_false(fake_is_hidden(world.store, "/local/domain/0/backend/vbd/"
						 "5/51712/mode"));
	(void)disk;
}

static void every_key_before_connected(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	/* What xen-blkback leaves behind. */
	fake_set(world.store,
		 "/local/domain/0/backend/vbd/5/51712/"
		 "feature-persistent",
		 "1");
	fake_set(world.store,
		 "/local/domain/0/backend/vbd/5/51712/feature-barrier", "1");
	fake_set(world.store,
		 "/local/domain/0/backend/vbd/5/51712/discard-secure", "1");
	world.limits.discard_granularity = 0;
	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_answer(disk, 0);
	assert_be(disk, 4);
	assert_key(disk, "sectors", "2048");
	assert_key(disk, "sector-size", "512");
	assert_key(disk, "physical-sector-size", "4096");
	assert_key(disk, "info", "0");
	assert_key(disk, "feature-flush-cache", "1");
	assert_key(disk, "feature-barrier", "0");
	assert_key(disk, "feature-persistent", "0");
	assert_key(disk, "feature-discard", "0");
	assert_key(disk, "discard-secure", "(none)");
}

static void discard_as_far_as_allowed(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	assert_key(disk, "feature-discard", "1");
	assert_key(disk, "discard-granularity", "4096");
	assert_key(disk, "discard-alignment", "0");
	assert_key(disk, "discard-secure", "0");
	world_frontend(disk, "state", "6");
	world_answer(disk, 0);
	/* The next one must not. */
	disk = world_attach(NODE_VBD, 6, "null");
	fake_set(world.store,
		 "/local/domain/0/backend/vbd/6/51712/"
		 "discard-enable",
		 "0");
	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	assert_int_equal(disk->worker->connect.discard, 0);
	world_answer(disk, 0);
	assert_key(disk, "feature-discard", "0");
}

static void read_only_and_cdrom(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	fake_set(world.store, "/local/domain/0/backend/vbd/5/51712/mode", "r");
	fake_set(world.store, "/local/domain/0/backend/vbd/5/51712/device-type",
		 "cdrom");
	fake_set(world.store, "/local/domain/0/backend/vbd/5/51712/removable",
		 "1");
	world_add(disk);
	assert_true(disk->worker->spec.read_only);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_answer(disk, 0);
	assert_key(disk, "info", "7");
	assert_key(disk, "feature-discard", "0");
}

/* What libxl gives QEMU and pygrub. */
static void where_qemu_finds_it(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "/srv/a.img");
	struct disk *tap = world_attach(NODE_VBD3, 6, "aio:/srv/b.img");
	struct disk *own = world_attach(NODE_XENDISK, 7, "null");

	(void)state;
	world_add(disk);
	assert_key(disk, "physical-device-path", "(none)");
	world_answer(disk, 0);
	assert_key(disk, "physical-device-path",
		   "nbd+unix:///?socket=/run/5-51712.sock");
	world_add(tap);
	world_answer(tap, 0);
	assert_key(tap, "physical-device-path", "/run/6-51712.sock");
	world_settle();
	world_answer(own, 0);
	assert_key(own, "hotplug-status", "connected");
	assert_key(own, "physical-device-path", "(none)");
	assert_int_equal(world.exports, 3);
	world_detach(disk);
	world_remove(disk);
	assert_int_equal(world.exports, 2);
}

/* libxl refuses a guest with a read-only IDE disk; QEMU's options end at a
 * comma. */
static void where_qemu_does_not(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "/srv/a.img");
	struct disk *odd = world_attach(NODE_VBD, 6, "/srv/b.img");

	(void)state;
	world.limits.readonly = true;
	world_add(disk);
	world_answer(disk, 0);
	assert_key(disk, "hotplug-status", "connected");
	assert_key(disk, "physical-device-path", "(none)");
	world.limits.readonly = false;
	world.comma = true;
	world_add(odd);
	world_answer(odd, 0);
	assert_key(odd, "hotplug-status", "connected");
	assert_key(odd, "physical-device-path", "(none)");
}

static void a_target_that_cannot_be_opened(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "/srv/a.img");

	(void)state;
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_add(disk);
	world_answer(disk, -ENOENT);
	assert_true(world.done);
	assert_int_equal(world.done_err, -ENOENT);
	assert_string_equal(world.done_why, "raw: /srv/a.img: No such file");
	assert_key(disk, "hotplug-status", "error");
	assert_key(disk, "hotplug-error", "raw: /srv/a.img: No such file");
	assert_true(fake_is_hidden(world.store,
				   "/local/domain/0/backend/vbd/5/51712/"
				   "hotplug-error"));
	assert_be(disk, 2);
	assert_string_equal(world_view(disk), "failed");
	world_detach(disk); /* works */
	assert_be(disk, 6);
	world_remove(disk);
	assert_true(world.done);
	fake_remove(world.store, disk->be);
	world_settle();
	assert_null(disk->vbd);
}

static void an_expression_that_is_wrong(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "nonsense(1)");

	(void)state;
	world_add(disk);
	assert_true(world.done);
	assert_int_equal(world.done_err, -EINVAL);
	assert_non_null(strstr(world.done_why, "nonsense"));
	assert_null(disk->worker);
}

static void a_second_try(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "/srv/a.img");

	(void)state;
	world_add(disk);
	world_answer(disk, -ENOENT);
	world_add(disk);
	world_answer(disk, 0);
	assert_int_equal(world.done_err, 0);
	assert_key(disk, "hotplug-error", "(none)");
	assert_key(disk, "hotplug-status", "connected");
	assert_string_equal(world_view(disk), "waiting");
}

static void vbd3_has_its_format_stripped(void **state)
{
	struct disk *disk = world_attach(NODE_VBD3, 5, "aio:/srv/a.img");

	(void)state;
	world.blkback = true; /* it does not know this kind */
	world_add(disk);
	assert_asked(disk, ASK_OPEN);
	assert_string_equal(disk->worker->spec.expression, "raw(/srv/a.img)");
}

static void others_are_left_alone(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	fake_set(world.store, "/local/domain/0/backend/vbd/7/51712/frontend",
		 "/local/domain/7/device/vbd/51712");
	fake_set(world.store, "/local/domain/0/backend/vbd/7/51712/script",
		 "/etc/xen/scripts/block");
	fake_set(world.store, "/local/domain/0/backend/vbd/7/51712/state", "1");
	bus_forget(NULL, disk->vbd);
	disk->at.domid = 7;
	(void)snprintf(disk->be, sizeof(disk->be), "%s",
		       "/local/domain/0/backend/vbd/7/51712");
	world_adopt(disk);
	assert_null(disk->vbd);
	assert_be(disk, 1);
}

static void a_frontend_of_somebody_else(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	fake_set(world.store, "/local/domain/0/backend/vbd/5/51712/frontend",
		 "/local/domain/6/device/vbd/51712");
	world_add(disk);
	assert_int_equal(world.done_err, -EINVAL);
	assert_string_equal(world.done_why, "frontend is not "
					    "/local/domain/5/device/vbd/51712");
}

/* --- xen-blkback ---------------------------------------------------------- */

static void blkback_has_it_first(void **state)
{
	struct disk *disk;

	(void)state;
	world.blkback = world.blkback_owns = true;
	disk = world_attach(NODE_VBD, 5, "null");
	assert_be(disk, 1); /* it is for xen-blkback to say 2 */
	assert_key(disk, "max-ring-pages", "(none)");
	fake_set(world.store, "/local/domain/0/backend/vbd/5/51712/state", "2");
	fake_set(world.store,
		 "/local/domain/0/backend/vbd/5/51712/"
		 "max-ring-page-order",
		 "3");
	world_settle();
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	assert_be(disk, 2);
	assert_null(disk->worker);
	world_add(disk);
	assert_false(world.blkback_owns);
	assert_key(disk, "max-ring-page-order", "4");
	world_answer(disk, 0);
	world_answer(disk, 0);
	assert_be(disk, 4);
}

/* Its probe may fail: then libxl would wait for nobody. */
static void blkback_does_not_want_it(void **state)
{
	struct disk *disk;

	(void)state;
	world.blkback = true;
	disk = world_attach(NODE_VBD, 5, "null");
	assert_be(disk, 1);
	(void)event_base_loop(world.broker.base, EVLOOP_ONCE);
	assert_be(disk, 2);
}

/* --- Ends ----------------------------------------------------------------- */

static void detach_waits_while_mounted(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	world_detach(disk);
	assert_be(disk, 5);
	assert_asked(disk, ASK_NOTHING);
	assert_string_equal(world_view(disk), "closing");
	world_frontend(disk, "state", "5"); /* "in use" */
	assert_asked(disk, ASK_NOTHING);
	assert_true(disk->worker->connected);
	world_frontend(disk, "state", "6");
	assert_asked(disk, ASK_DISCONNECT);
	assert_be(disk, 5);
	world_answer(disk, 0);
	assert_be(disk, 6);
	assert_int_equal(world.discards, 1); /* that at attach */
	world_remove(disk);
	assert_true(world.done);
	assert_null(disk->worker);
	assert_int_equal(world.discards, 2);
}

static void frontend_vanishes(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	fake_remove(world.store, "/local/domain/5");
	world_settle();
	assert_asked(disk, ASK_DISCONNECT);
	world_answer(disk, 0);
	assert_be(disk, 6);
}

/* Its directory has gone, and a script adds the next disk of that number before the
 * worker has let go: what was exported by name is not that one. */
static void another_takes_its_number(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	fake_remove(world.store, disk->be);
	world_settle();
	assert_asked(disk, ASK_DISCONNECT);
	assert_true(vbd_is_gone(disk->vbd));
	assert_int_equal(world.forgotten, 0);
	disk->worker->connected = false; /* it is killed */
	bus_forget(NULL, disk->vbd);
	assert_int_equal(world.forgotten, 1);
	assert_int_equal(world.exports, 0);
}

static void domain_ends_and_leaves_its_keys(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	fake_end_domain(world.store, 5);
	vbd_touch(disk->vbd); /* @releaseDomain */
	world_settle();
	world_answer(disk, 0);
	assert_be(disk, 6);
	assert_null(disk->worker);
	assert_string_equal(world_view(disk), "closed");
	world_remove(disk);
	assert_true(world.done);
	assert_int_equal(world.done_err, 0);
}

/* Nobody has removed its directory yet, and the guest is started anew. */
static void storage_of_an_ended_domain(void **state)
{
	struct disk *disk, *next;

	(void)state;
	world.storage = "file 1";
	disk = world_connected(5);
	next = world_attach(NODE_VBD, 6, "null");
	world_add(next);
	world_answer(next, 0);
	assert_int_equal(world.done_err, -EBUSY);
	fake_end_domain(world.store, 5);
	vbd_touch(disk->vbd);
	world_settle();
	world_answer(disk, 0);
	world_add(next);
	world_answer(next, 0);
	assert_int_equal(world.done_err, 0);
}

static void put_backend(const struct disk *disk, const char *key,
			const char *value)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", disk->be, key);
	fake_set(world.store, path, value);
}

/* The daemon starts, or starts again, before anybody removes the directory. */
static void ended_before_the_daemon_starts(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	fake_end_domain(world.store, 5);
	vbd_touch(disk->vbd);
	world_settle();
	world_answer(disk, 0);
	assert_be(disk, 6);
	assert_key(disk, "online", "1");
	vbd_free(disk->vbd);
	world_adopt(disk);
	assert_int_equal(world.processes, 1); /* nobody needs another */
	assert_string_equal(world_view(disk), "closed");
	assert_true(world.swept > 0); /* what a crash may have left */
}

static void ended_before_the_daemon_starts_direct(void **state)
{
	struct disk *disk = world_attach(NODE_XENDISK, 5, "null");

	(void)state;
	world_answer(disk, 0);
	assert_be(disk, 2);
	vbd_free(disk->vbd);
	put_backend(disk, "state", "6");
	fake_end_domain(world.store, 5);
	world_adopt(disk);
	assert_int_equal(world.processes, 1);
	assert_null(disk->vbd);
	assert_key(disk, "state", "(none)");
}

static void directory_is_torn_out(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	fake_remove(world.store, disk->be);
	world_settle();
	assert_non_null(disk->vbd); /* until the worker has flushed */
	assert_asked(disk, ASK_DISCONNECT);
	world_answer(disk, 0);
	assert_null(disk->vbd);
	assert_null(fake_get(world.store,
			     "/local/domain/0/backend/vbd/5/51712/state"));
}

/* A look came in the middle: it has found the directory without a state. */
static void made_anew_while_it_was_read(void **state)
{
	struct disk *disk = world_attach(NODE_XENDISK, 5, "null");
	char path[128];

	(void)state;
	world_answer(disk, 0);
	assert_be(disk, 2);
	(void)snprintf(path, sizeof(path), "%s/hotplug-status", disk->be);
	fake_remove(world.store, path);
	(void)snprintf(path, sizeof(path), "%s/state", disk->be);
	fake_remove(world.store, path);
	world_settle();
	assert_non_null(disk->vbd);
	put_backend(disk, "params", "null()");
	put_backend(disk, "state", "1");
	world_settle();
	assert_null(disk->vbd); /* nor has it offered its own target */
	assert_be(disk, 1);
	world_adopt(disk);
	assert_asked(disk, ASK_OPEN);
}

/* Before it was offered. */
static void made_anew_while_it_opens(void **state)
{
	struct disk *disk = world_attach(NODE_XENDISK, 5, "null");

	(void)state;
	assert_asked(disk, ASK_OPEN);
	put_backend(disk, "state", "1");
	world_settle();
	assert_asked(disk, ASK_OPEN); /* nothing else has changed */
	put_backend(disk, "params", "null()");
	put_backend(disk, "state", "1");
	world_settle();
	assert_null(disk->vbd);
}

/* --- The frontend begins anew --------------------------------------------- */

static void reconnect_with_less(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 4);
	world_frontend(disk, "state", "3");
	assert_int_equal(disk->worker->connect.nr_rings, 4);
	world_answer(disk, 0);
	world_frontend(disk, "state", "4");
	world_frontend(disk, "state", "5");
	assert_be(disk, 5);
	world_frontend(disk, "state", "6");
	world_answer(disk, 0);
	assert_be(disk, 6);
	world_frontend(disk, "state", "1");
	assert_be(disk, 2);
	/* The old kernel's keys are gone, or this one would have 4. */
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	assert_int_equal(disk->worker->connect.nr_rings, 1);
	world_answer(disk, 0);
	assert_be(disk, 4);
}

static void crash_without_closing(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	world_frontend(disk, "state", "1");
	assert_asked(disk, ASK_DISCONNECT);
	world_answer(disk, 0);
	assert_be(disk, 2);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_answer(disk, 0);
	assert_be(disk, 4);
}

/* So quickly that Initialising was never seen: the rings are others. */
static void crash_unseen(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	world_frontend(disk, "ring-ref", "77");
	world_frontend(disk, "state", "3");
	assert_asked(disk, ASK_DISCONNECT);
	world_answer(disk, 0);
	assert_asked(disk, ASK_CONNECT);
	assert_int_equal(disk->worker->connect.ring[0].ref[0], 77);
	world_answer(disk, 0);
	assert_be(disk, 4);
}

static void keys_are_read_once(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	world_frontend(disk, "ring-ref", "77");
	world_frontend(disk, "event-channel", "78");
	assert_asked(disk, ASK_NOTHING);
	assert_int_equal(disk->worker->connect.ring[0].ref[0], 8);
}

/* --- Frontends that are refused ------------------------------------------- */

static void a_key_that_is_wrong(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "event-channel", "-1");
	world_frontend(disk, "state", "3");
	assert_be(disk, 6);
	assert_asked(disk, ASK_NOTHING);
	assert_string_equal(world_view(disk), "failed");
	assert_string_equal(
		fake_get(world.store,
			 "/local/domain/0/error/backend/vbd/5/51712/error"),
		"22 frontend's event-channel: not a number from 1 to 131071");
	world_frontend(disk, "state", "4"); /* does not count */
	assert_be(disk, 6);
	world_frontend(disk, "state", "1");
	assert_be(disk, 2);
	assert_null(fake_get(world.store, "/local/domain/0/error/backend/vbd/5/"
					  "51712/error"));
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_answer(disk, 0);
	assert_be(disk, 4);
}

static void a_ring_that_cannot_be_mapped(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_answer(disk, -EINVAL);
	assert_be(disk, 6);
	assert_string_equal(world_view(disk), "failed");
}

static void a_ring_that_is_broken(void **state)
{
	struct disk *disk = world_connected(5);

	(void)state;
	disk->worker->events.broken(disk->worker->spec.ctx, "40 requests");
	world_settle();
	assert_be(disk, 5);
	assert_asked(disk, ASK_DISCONNECT);
	world_answer(disk, 0);
	assert_be(disk, 6);
	world_frontend(disk, "state", "6");
	world_frontend(disk, "state", "1");
	assert_be(disk, 2);
}

static void a_disk_still_locked_elsewhere(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");

	(void)state;
	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_answer(disk, -EBUSY);
	assert_be(disk, 2);
	assert_asked(disk, ASK_NOTHING);
	world_wait_ask(disk, ASK_CONNECT);
	world_answer(disk, 0);
	assert_be(disk, 4);
}

/* A guest that has gone waits for nothing: its disk is closed, not paused as well. */
static void gone_while_locked_elsewhere(void **state)
{
	struct disk *disk = world_attach(NODE_VBD, 5, "null");
	struct vbd_view view;

	(void)state;
	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_answer(disk, -EBUSY);
	vbd_view(disk->vbd, &view);
	assert_non_null(view.condition[MSG_PAUSED]);
	fake_end_domain(world.store, 5);
	vbd_touch(disk->vbd);
	world_settle();
	assert_be(disk, 6);
	assert_string_equal(world_view(disk), "closed");
	vbd_view(disk->vbd, &view);
	assert_null(view.condition[MSG_PAUSED]);
}

#define TEST(f) \
	cmocka_unit_test_setup_teardown(f, world_set_up, world_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(attach_by_script),
		TEST(guest_cannot_read_params),
		TEST(every_key_before_connected),
		TEST(discard_as_far_as_allowed),
		TEST(read_only_and_cdrom),
		TEST(where_qemu_finds_it),
		TEST(where_qemu_does_not),
		TEST(a_target_that_cannot_be_opened),
		TEST(an_expression_that_is_wrong),
		TEST(a_second_try),
		TEST(vbd3_has_its_format_stripped),
		TEST(others_are_left_alone),
		TEST(a_frontend_of_somebody_else),
		TEST(blkback_has_it_first),
		TEST(blkback_does_not_want_it),
		TEST(detach_waits_while_mounted),
		TEST(frontend_vanishes),
		TEST(another_takes_its_number),
		TEST(domain_ends_and_leaves_its_keys),
		TEST(storage_of_an_ended_domain),
		TEST(ended_before_the_daemon_starts),
		TEST(ended_before_the_daemon_starts_direct),
		TEST(directory_is_torn_out),
		TEST(made_anew_while_it_was_read),
		TEST(made_anew_while_it_opens),
		TEST(reconnect_with_less),
		TEST(crash_without_closing),
		TEST(crash_unseen),
		TEST(keys_are_read_once),
		TEST(a_key_that_is_wrong),
		TEST(a_ring_that_cannot_be_mapped),
		TEST(a_ring_that_is_broken),
		TEST(a_disk_still_locked_elsewhere),
		TEST(gone_while_locked_elsewhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
