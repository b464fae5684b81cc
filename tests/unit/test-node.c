/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test-node.c - what the toolstack says: places, and keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "broker/node.h"
#include "common/msg.h"
#include "fake-store.h"

#define DIR "/local/domain/0/backend/vbd/5/51728"

static const struct node_address place = { NODE_VBD, 5, 51728 };

static int setup(void **state)
{
	struct store *store;

	(void)store_open(&store);
	fake_set(store, DIR "/frontend", "/local/domain/5/device/vbd/51728");
	fake_set(store, DIR "/frontend-id", "5");
	fake_set(store, DIR "/params", "/srv/a.img");
	fake_set(store, DIR "/mode", "w");
	fake_set(store, DIR "/dev", "xvdb");
	*state = store;
	return 0;
}

static int teardown(void **state)
{
	store_close(*state);
	return 0;
}

static void places(void **state)
{
	static const char *const bad[] = {
		"",
		"/",
		"backend",
		"backend/vbd",
		"backend/vbd/5",
		"backend/vbd/5/51728/",
		"backend/vbd/5/51728/state",
		"/backend/vbd/5/51728",
		"/local/domain/0/backend/vbd/5/51728",
		"backend/qdisk/5/51728",
		"backend/vbd/05/51728",
		"backend/vbd/-5/51728",
		"backend/vbd/5/4294967296",
		"backend//5/51728",
		"backend/vbd/5/../51728",
	};
	struct node_address at;

	(void)state;
	assert_int_equal(node_parse("backend/vbd3/5/51728", &at), 0);
	assert_int_equal(at.kind, NODE_VBD3);
	assert_int_equal(at.domid, 5);
	assert_int_equal(at.devid, 51728);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		at.domid = 77;
		assert_int_equal(node_parse(bad[i], &at), -EINVAL);
		assert_int_equal(at.domid, 77);
	}
}

static void paths(void **state)
{
	const struct node_address direct = { NODE_XENDISK, 7, 2048 };
	cleanup_free char *backend = node_backend_path(&direct, 3);
	cleanup_free char *frontend = node_frontend_path(&direct);

	(void)state;
	assert_string_equal(backend, "/local/domain/3/backend/xendisk/7/2048");
	assert_string_equal(frontend, "/local/domain/7/device/vbd/2048");
}

static bool is_ours(struct store *store, enum node_kind kind)
{
	struct node_address at = place;
	bool ours = false;

	at.kind = kind;
	assert_int_equal(node_is_ours(store, &at, DIR, &ours), 0);
	return ours;
}

static void whose(void **state)
{
	static const struct {
		const char *script; /* NULL: none */
		bool vbd, vbd3, xendisk;
	} cases[] = {
		{ NULL, false, true, true },
		{ "/etc/xen/scripts/block", false, false, false },
		{ "/etc/xen/scripts/block-tap", false, false, false },
		{ "/etc/xen/scripts/block-xendisk", true, true, true },
		{ "block-xendisk", true, true, true },
		{ "/block-xendisk/block", false, false, false },
		{ "/etc/xen/scripts/block-xendisk ", false, false, false },
		{ "", false, false, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (cases[i].script)
			fake_set(*state, DIR "/script", cases[i].script);
		assert_int_equal(is_ours(*state, NODE_VBD), cases[i].vbd);
		assert_int_equal(is_ours(*state, NODE_VBD3), cases[i].vbd3);
		assert_int_equal(is_ours(*state, NODE_XENDISK),
				 cases[i].xendisk);
	}
	fake_set(*state, DIR "/script", "block-xendisk");
	fake_remove(*state, DIR "/frontend");
	assert_false(is_ours(*state, NODE_VBD)); /* half made */
}

static void accepted(struct store *store, struct node *ret)
{
	char why[MSG_TEXT_MAX] = "";

	if (node_read(store, &place, DIR, ret, why) < 0)
		fail_msg("%s", why);
}

static void refused(struct store *store, const char *sentence)
{
	struct node node = { .vdev = "kept" };
	char why[MSG_TEXT_MAX] = "";

	assert_int_equal(node_read(store, &place, DIR, &node, why), -EINVAL);
	assert_string_equal(why, sentence);
	assert_string_equal(node.vdev, "kept");
}

static void what_is_asked_for(void **state)
{
	struct node node;

	accepted(*state, &node);
	assert_string_equal(node.target, "/srv/a.img");
	assert_string_equal(node.vdev, "xvdb");
	assert_false(node.read_only || node.cdrom || node.removable);
	assert_true(node.discard);
	node_clear(&node);
	fake_set(*state, DIR "/mode", "r");
	fake_set(*state, DIR "/device-type", "cdrom");
	fake_set(*state, DIR "/removable", "1");
	fake_set(*state, DIR "/discard-enable", "0");
	/* Only backend/vbd3 has formats in front. */
	fake_set(*state, DIR "/params", "aio:/srv/a.img");
	accepted(*state, &node);
	assert_true(node.read_only && node.cdrom && node.removable);
	assert_false(node.discard);
	assert_string_equal(node.target, "aio:/srv/a.img");
	node_clear(&node);
}

static void what_makes_no_sense(void **state)
{
	fake_set(*state, DIR "/mode", "x");
	refused(*state, "mode is neither r nor w");
	fake_set(*state, DIR "/mode", "w!");
	fake_set(*state, DIR "/params", "");
	refused(*state, "there is no target (params)");
	fake_remove(*state, DIR "/params");
	refused(*state, "there is no target (params)");
	fake_set(*state, DIR "/frontend-id", "6");
	refused(*state, "frontend-id is not 5");
	fake_set(*state, DIR "/frontend",
		 "/local/domain/5/device/vbd/51728/../../../../6");
	refused(*state, "frontend is not /local/domain/5/device/vbd/51728");
}

static const char *vm(struct store *store)
{
	static char uuid[40];

	node_vm(store, &place, uuid, sizeof(uuid));
	return uuid;
}

static void which_guest(void **state)
{
	static const char uuid[] = "12345678-9abc-def0-0123-456789abcdef";

	assert_string_equal(vm(*state), "");
	fake_set(*state, "/local/domain/5/vm",
		 "/vm/12345678-9abc-def0-0123-456789abcdef");
	assert_string_equal(vm(*state), uuid);
	fake_set(*state, "/local/domain/5/vm", "/vm/not a uuid");
	assert_string_equal(vm(*state), "");
	fake_set(*state, "/local/domain/5/vm",
		 "/vm/12345678-9abc-def0-0123-456789abcdef-and-more");
	assert_string_equal(vm(*state), "");
	/* A stub domain is its guest's. */
	fake_set(*state, "/local/domain/5/target", "4");
	fake_set(*state, "/local/domain/4/vm",
		 "/vm/12345678-9abc-def0-0123-456789abcdef");
	assert_string_equal(vm(*state), uuid);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(places),
		TEST(paths),
		TEST(whose),
		TEST(what_is_asked_for),
		TEST(what_makes_no_sense),
		TEST(which_guest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
