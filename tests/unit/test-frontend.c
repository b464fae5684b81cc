/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test-frontend.c - what guests may and may not say in xenstore. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <xen/io/xenbus.h>

#include "broker/frontend.h"
#include "fake-store.h"

#define DIR "/local/domain/5/device/vbd/51728"

struct pair {
	const char *key;
	const char *value;
};

static int setup(void **state)
{
	struct store *store;

	assert_int_equal(store_open(&store), 0);
	*state = store;
	return 0;
}

static int teardown(void **state)
{
	store_close(*state);
	return 0;
}

static void put(struct store *store, const char *key, const char *value)
{
	char path[STORE_PATH_MAX];

	(void)snprintf(path, sizeof(path), DIR "/%s", key);
	fake_set(store, path, value);
}

static void put_simple(struct store *store)
{
	put(store, "ring-ref", "8");
	put(store, "event-channel", "3");
	put(store, "protocol", "x86_64-abi");
}

static struct msg_connect accepted(struct store *store)
{
	struct msg_connect connect = { .flags = 7, .discard = 9 };
	char why[MSG_TEXT_MAX] = "";
	int r = frontend_rings(store, DIR, &connect, why);

	if (r != 0)
		print_error("%s\n", why);
	assert_int_equal(r, 0);
	assert_int_equal(connect.flags, 7); /* not its business */
	assert_int_equal(connect.discard, 9);
	return connect;
}

static void refused(struct store *store, const char *part)
{
	struct msg_connect connect = { .nr_rings = 77 };
	char why[MSG_TEXT_MAX] = "";

	assert_int_equal(frontend_rings(store, DIR, &connect, why), -EINVAL);
	assert_int_equal(connect.nr_rings, 77);
	if (!strstr(why, part))
		print_error("\"%s\" is not in \"%s\"\n", part, why);
	assert_non_null(strstr(why, part));
}

static void one_page(void **state)
{
	struct msg_connect connect;

	put_simple(*state);
	connect = accepted(*state);
	assert_int_equal(connect.abi, MSG_ABI_X86_64);
	assert_int_equal(connect.nr_rings, 1);
	assert_int_equal(connect.ring[0].nr_refs, 1);
	assert_int_equal(connect.ring[0].ref[0], 8);
	assert_int_equal(connect.ring[0].event_channel, 3);
}

static void abis(void **state)
{
	static const struct {
		const char *name;
		enum msg_abi abi;
	} known[] = { { "x86_32-abi", MSG_ABI_X86_32 },
		      { "x86_64-abi", MSG_ABI_X86_64 },
		      { "arm-abi", MSG_ABI_NATIVE } };
	static const char *const unknown[] = { "",	     "x86_64",
					       "X86_64-ABI", "x86_64-abi ",
					       "native",     "x86_32-abi\n" };

	put_simple(*state);
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		put(*state, "protocol", known[i].name);
		assert_int_equal(accepted(*state).abi, known[i].abi);
	}
	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
		put(*state, "protocol", unknown[i]);
		refused(*state, "protocol");
	}
	fake_remove(*state, DIR "/protocol");
	assert_int_equal(accepted(*state).abi, MSG_ABI_NATIVE);
}

static void put_pages(struct store *store, const char *prefix, unsigned int nr)
{
	char key[64], value[16];

	for (unsigned int i = 0; i < nr; i++) {
		(void)snprintf(key, sizeof(key), "%sring-ref%u", prefix, i);
		(void)snprintf(value, sizeof(value), "%u", 100 + i);
		put(store, key, value);
	}
}

static void many_pages_in_both_spellings(void **state)
{
	static const char *const orders[] = { "0", "1", "2", "3", "4" };
	static const char *const pages[] = { "1", "2", "4", "8", "16" };

	put(*state, "event-channel", "3");
	put_pages(*state, "", 16);
	for (unsigned int i = 0; i < ARRAY_SIZE(orders); i++) {
		struct msg_connect connect;

		fake_remove(*state, DIR "/num-ring-pages");
		put(*state, "ring-page-order", orders[i]);
		connect = accepted(*state);
		assert_int_equal(connect.ring[0].nr_refs, 1u << i);
		assert_int_equal(connect.ring[0].ref[(1u << i) - 1],
				 100 + (1u << i) - 1);
		fake_remove(*state, DIR "/ring-page-order");
		put(*state, "num-ring-pages", pages[i]);
		connect = accepted(*state);
		assert_int_equal(connect.ring[0].nr_refs, 1u << i);
	}
	put(*state, "ring-page-order", "5");
	refused(*state, "ring-page-order");
	fake_remove(*state, DIR "/ring-page-order");
	put(*state, "num-ring-pages", "3");
	refused(*state, "num-ring-pages: not a power of two");
	put(*state, "num-ring-pages", "32");
	refused(*state, "num-ring-pages");
	put(*state, "num-ring-pages", "0");
	refused(*state, "num-ring-pages");
}

static void a_page_that_is_missing(void **state)
{
	put(*state, "event-channel", "3");
	put(*state, "ring-page-order", "2");
	put_pages(*state, "", 4);
	(void)accepted(*state);
	fake_remove(*state, DIR "/ring-ref2");
	refused(*state, "ring-ref2: is missing");
}

static void put_queue(struct store *store, unsigned int queue)
{
	char key[64], value[16];

	(void)snprintf(key, sizeof(key), "queue-%u/ring-ref", queue);
	(void)snprintf(value, sizeof(value), "%u", 8 + queue);
	put(store, key, value);
	(void)snprintf(key, sizeof(key), "queue-%u/event-channel", queue);
	(void)snprintf(value, sizeof(value), "%u", 20 + queue);
	put(store, key, value);
}

static void many_queues(void **state)
{
	char value[8];

	for (unsigned int i = 0; i < XD_MAX_RINGS; i++)
		put_queue(*state, i);
	for (unsigned int nr = 2; nr <= XD_MAX_RINGS; nr++) {
		struct msg_connect connect;

		(void)snprintf(value, sizeof(value), "%u", nr);
		put(*state, "multi-queue-num-queues", value);
		connect = accepted(*state);
		assert_int_equal(connect.nr_rings, nr);
		assert_int_equal(connect.ring[nr - 1].ref[0], 8 + nr - 1);
		assert_int_equal(connect.ring[nr - 1].event_channel,
				 20 + nr - 1);
	}
	put(*state, "multi-queue-num-queues", "17");
	refused(*state, "multi-queue-num-queues");
	put(*state, "multi-queue-num-queues", "0");
	refused(*state, "multi-queue-num-queues");
	put(*state, "multi-queue-num-queues", "3");
	fake_remove(*state, DIR "/queue-1/event-channel");
	refused(*state, "queue-1/event-channel: is missing");
}

/* Windows says so, and leaves the keys where one queue has them. */
static void one_queue_said_aloud(void **state)
{
	put_simple(*state);
	put(*state, "multi-queue-num-queues", "1");
	assert_int_equal(accepted(*state).ring[0].ref[0], 8);
}

static void numbers_are_strict(void **state)
{
	static const char *const bad[] = {
		"",	 " 8",	  "8 ",		"+8",
		"-1",	 "08",	  "0x8",	"8.0",
		"8,",	 "eight", "8\n",	"1e3",
		"\3778", "%s%n",  "4294967296", "99999999999999999999999999",
	};
	static const char *const keys[] = { "ring-ref", "event-channel" };

	put_simple(*state);
	for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
		for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
			put(*state, keys[k], bad[i]);
			refused(*state, keys[k]);
		}
		put(*state, keys[k], "9");
		(void)accepted(*state);
		fake_set_bytes(*state,
			       k ? DIR "/event-channel" : DIR "/ring-ref",
			       "9\0", 2);
		refused(*state, keys[k]);
		put(*state, keys[k], "9");
	}
	put(*state, "ring-ref", "4294967295");
	assert_int_equal(accepted(*state).ring[0].ref[0], UINT32_MAX);
	put(*state, "event-channel", "131071");
	(void)accepted(*state);
	put(*state, "event-channel", "131072");
	refused(*state, "event-channel");
	put(*state, "event-channel", "0");
	refused(*state, "event-channel");
}

/* Random bytes in every key: never a crash, never a number out of range. */
static void hostile_values(void **state)
{
	static const char *const keys[] = {
		"ring-ref",	    "ring-ref0",
		"ring-ref1",	    "ring-page-order",
		"num-ring-pages",   "multi-queue-num-queues",
		"event-channel",    "protocol",
		"queue-0/ring-ref", "queue-1/event-channel",
	};
	static const char bytes[] = "0123456789 -+x\0\n%/ab";
	uint64_t seed = 1;

	for (int i = 0; i < 100000; i++) {
		struct msg_connect connect = { 0 };
		char why[MSG_TEXT_MAX] = "";
		char path[STORE_PATH_MAX], value[6];
		size_t length;
		int r;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		length = (seed >> 60) % sizeof(value);
		for (size_t b = 0; b < length; b++)
			value[b] = bytes[(seed >> (16 + 5 * b)) %
					 (sizeof(bytes) - 1)];
		(void)snprintf(path, sizeof(path), DIR "/%s",
			       keys[(seed >> 48) % ARRAY_SIZE(keys)]);
		fake_set_bytes(*state, path, value, length);
		r = frontend_rings(*state, DIR, &connect, why);
		assert_true(r == 0 || r == -EINVAL);
		assert_int_equal(r != 0, why[0] != '\0');
		assert_true(connect.nr_rings <= XD_MAX_RINGS);
		assert_true(connect.ring[0].nr_refs <= XD_MAX_RING_PAGES);
	}
}

static void persistent(void **state)
{
	static const char *const wrong[] = { "", "2", "-1", "01", "1 ", "y" };
	char why[MSG_TEXT_MAX] = "";
	bool got = true;

	assert_int_equal(frontend_persistent(*state, DIR, &got, why), 0);
	assert_false(got);
	put(*state, "feature-persistent", "1");
	assert_int_equal(frontend_persistent(*state, DIR, &got, why), 0);
	assert_true(got);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		put(*state, "feature-persistent", wrong[i]);
		assert_int_equal(frontend_persistent(*state, DIR, &got, why),
				 -EINVAL);
		assert_string_equal(why, "frontend's feature-persistent: "
					 "not a number from 0 to 1");
		assert_true(got);
	}
	put(*state, "feature-persistent", "0");
	assert_int_equal(frontend_persistent(*state, DIR, &got, why), 0);
	assert_false(got);
}

static void states(void **state)
{
	static const struct {
		const char *text;
		int state;
	} known[] = { { "1", 1 },  { "4", 4 }, { "6", 6 },  { "8", 8 },
		      { "9", 0 },  { "", 0 },  { "-1", 0 }, { "4 ", 0 },
		      { "04", 0 }, { "x", 0 } };
	int got = 77;

	assert_int_equal(frontend_state(*state, DIR, &got), 0);
	assert_int_equal(got, XenbusStateClosed); /* it is not there */
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		put(*state, "state", known[i].text);
		assert_int_equal(frontend_state(*state, DIR, &got), 0);
		assert_int_equal(got, known[i].state);
	}
}

static void nothing_is_left_to_the_next_kernel(void **state)
{
	put_simple(*state);
	put(*state, "state", "6");
	put(*state, "backend", "/local/domain/0/backend/vbd/5/51728");
	put(*state, "multi-queue-num-queues", "4");
	put(*state, "ring-page-order", "4");
	put(*state, "num-ring-pages", "16");
	put(*state, "feature-persistent", "1");
	put_pages(*state, "", 16);
	for (unsigned int i = 0; i < XD_MAX_RINGS; i++)
		put_queue(*state, i);
	frontend_forget_rings(*state, DIR);
	refused(*state, "is missing");
	put_simple(*state);
	assert_int_equal(accepted(*state).nr_rings, 1);
	assert_int_equal(accepted(*state).ring[0].nr_refs, 1);
	assert_null(fake_get(*state, DIR "/queue-15/ring-ref"));
	assert_null(fake_get(*state, DIR "/feature-persistent"));
	assert_non_null(fake_get(*state, DIR "/backend"));
	assert_non_null(fake_get(*state, DIR "/state"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_page),
		TEST(abis),
		TEST(many_pages_in_both_spellings),
		TEST(a_page_that_is_missing),
		TEST(many_queues),
		TEST(one_queue_said_aloud),
		TEST(numbers_are_strict),
		TEST(hostile_values),
		TEST(persistent),
		TEST(states),
		TEST(nothing_is_left_to_the_next_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
