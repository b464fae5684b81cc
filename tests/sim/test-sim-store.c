/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Xenstore as dom0 and as a guest, through the guest's own ring. */
#include "config.h"

#include <xenstore.h>

#include "test-sim.h"

struct store {
	struct xensim *machine;
	struct xensim_guest *guest;
	uint32_t domid;
	struct xs_handle *dom0;
	struct xs_handle *domu;
};

static int setup(void **state)
{
	const struct xensim_domain_config config = {
		.name = "guest", .uuid = "12345678-9abc-def0-0123-456789abcdef"
	};
	struct store *s = calloc(1, sizeof(*s));

	assert_int_equal(xensim_open(NULL, &s->machine), 0);
	assert_int_equal(xensim_domain_create(s->machine, &config, &s->domid),
			 0);
	assert_int_equal(xensim_guest_open(s->machine, s->domid, &s->guest), 0);
	s->dom0 = xensim_xs_open(s->machine);
	s->domu = xensim_guest_xs_open(s->guest);
	assert_non_null(s->dom0);
	assert_non_null(s->domu);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct store *s = *state;

	xs_close(s->domu);
	xensim_guest_close(s->guest);
	xensim_domain_destroy(s->machine, s->domid);
	xensim_domain_forget(s->machine, s->domid);
	xs_close(s->dom0);
	xensim_close(s->machine);
	free(s);
	return 0;
}

static bool put(struct xs_handle *xs, xs_transaction_t tx, const char *path,
		const char *value)
{
	return xs_write(xs, tx, path, value, (unsigned)strlen(value));
}

static void check_key(struct xs_handle *xs, const char *path, const char *want)
{
	unsigned len;
	char *got = xs_read(xs, XBT_NULL, path, &len);

	assert_non_null(got);
	assert_string_equal(got, want);
	free(got);
}

static char *path_of(struct store *s, const char *rest)
{
	static char path[128];

	snprintf(path, sizeof(path), "/local/domain/%u/%s", s->domid, rest);
	return path;
}

static void test_keys(void **state)
{
	struct store *s = *state;
	unsigned len;
	char *vm = xs_read(s->domu, XBT_NULL, "vm", &len);

	assert_string_equal(vm, "/vm/12345678-9abc-def0-0123-456789abcdef");
	free(vm);
	check_key(s->domu, "name", "guest");
	check_key(s->dom0, "/local/domain/0/name", "Domain-0");
	assert_true(xs_is_domain_introduced(s->dom0, s->domid));
}

static void test_permissions(void **state)
{
	struct store *s = *state;
	unsigned len;

	assert_true(put(s->domu, XBT_NULL, "data/mine", "1"));
	check_key(s->dom0, path_of(s, "data/mine"), "1");
	assert_false(put(s->domu, XBT_NULL, "name", "other"));
	assert_int_equal(errno, EACCES);
	assert_false(put(s->domu, XBT_NULL, "/local/domain/0/x", "1"));
	assert_int_equal(errno, EACCES);
	assert_true(put(s->dom0, XBT_NULL, "/private", "1"));
	assert_null(xs_read(s->domu, XBT_NULL, "/private", &len));
	assert_int_equal(errno, EACCES);
}

static void test_transaction_conflict(void **state)
{
	struct store *s = *state;
	xs_transaction_t tx = xs_transaction_start(s->domu);

	assert_true(put(s->domu, tx, "data/a", "guest"));
	assert_true(put(s->dom0, XBT_NULL, path_of(s, "data/a"), "dom0"));
	assert_false(xs_transaction_end(s->domu, tx, false));
	assert_int_equal(errno, EAGAIN);
	check_key(s->domu, "data/a", "dom0");
}

static void wait_watch(struct xs_handle *xs, const char *path,
		       const char *token)
{
	unsigned n;
	char **event = xs_read_watch(xs, &n);

	assert_non_null(event);
	assert_string_equal(event[XS_WATCH_PATH], path);
	assert_string_equal(event[XS_WATCH_TOKEN], token);
	free(event);
}

/* Two programs of one guest, the same token: each gets its own events. */
static void test_two_clients(void **state)
{
	struct store *s = *state;
	struct xs_handle *other = xensim_guest_xs_open(s->guest);

	assert_true(xs_watch(s->domu, "data", "token"));
	assert_true(xs_watch(other, "data/b", "token"));
	wait_watch(s->domu, "data", "token");
	wait_watch(other, "data/b", "token");
	put(s->dom0, XBT_NULL, path_of(s, "data/b"), "1");
	wait_watch(s->domu, "data/b", "token");
	wait_watch(other, "data/b", "token");
	assert_true(xs_unwatch(s->domu, "data", "token"));
	put(s->dom0, XBT_NULL, path_of(s, "data/b"), "2");
	wait_watch(other, "data/b", "token");
	assert_null(xs_check_watch(s->domu));
	xs_close(other);

	/* Its watch went with it, so the path can be watched afresh. */
	check_key(s->domu, "data/b", "2");
	assert_true(xs_watch(s->domu, "data/b", "token"));
	wait_watch(s->domu, "data/b", "token");
}

/* More than the ring holds, in both directions. */
static void test_large_values(void **state)
{
	struct store *s = *state;
	char value[2001];

	memset(value, 'v', 2000);
	value[2000] = '\0';
	for (int i = 0; i < 20; i++) {
		value[0] = (char)('a' + i);
		assert_true(put(s->domu, XBT_NULL, "data/large", value));
		check_key(s->domu, "data/large", value);
	}
}

static void test_release_domain(void **state)
{
	struct store *s = *state;
	const struct xensim_domain_config config = { .domid = 500 };
	struct xensim_domain_info info;
	uint32_t domid;

	assert_int_equal(xensim_domain_create(s->machine, &config, &domid), 0);
	assert_int_equal(xensim_domain_create(s->machine, &config, &domid),
			 -EEXIST);
	assert_true(xs_watch(s->dom0, "@releaseDomain", "gone"));
	wait_watch(s->dom0, "@releaseDomain", "gone");
	assert_int_equal(xensim_domain_destroy(s->machine, 500), 0);
	wait_watch(s->dom0, "@releaseDomain", "gone");
	assert_false(xs_is_domain_introduced(s->dom0, 500));
	assert_int_equal(xensim_domain_info(s->machine, 500, &info), -ESRCH);
	check_key(s->dom0, "/local/domain/500/domid", "500");
	assert_int_equal(xensim_domain_forget(s->machine, 500), 0);
}

static void test_shutdown(void **state)
{
	struct store *s = *state;
	struct xensim_domain_info info;

	assert_true(xs_watch(s->dom0, "@releaseDomain", "gone"));
	wait_watch(s->dom0, "@releaseDomain", "gone");
	assert_int_equal(xensim_domain_shutdown(s->machine, s->domid, 3), 0);
	wait_watch(s->dom0, "@releaseDomain", "gone");
	assert_int_equal(xensim_domain_info(s->machine, s->domid, &info), 0);
	assert_true(info.shutdown && !info.dying);
	assert_int_equal(info.shutdown_reason, 3);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_keys),
		TEST(test_permissions),
		TEST(test_transaction_conflict),
		TEST(test_two_clients),
		TEST(test_large_values),
		TEST(test_release_domain),
		TEST(test_shutdown),
	};

	(void)argc;
	need_machine(argv);
	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
