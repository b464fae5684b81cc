/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker-fixture.h"
#include "broker/keep.h"
#include "common/util.h"

static const struct msg_identity disk = { 5, 51728, 0, "vm-one" };
static const struct msg_identity reborn = { 5, 51728, 0, "vm-two" };
static const struct msg_identity other = { 5, 51744, 0, "vm-one" };

static int setup(void **state)
{
	*state = fixture_new();
	return 0;
}

static int teardown(void **state)
{
	fixture_free(*state);
	return 0;
}

static struct keep *keep_of(void **state)
{
	const struct fixture *fixture = *state;

	return fixture->broker.keep;
}

/* Makes or finds a file and closes it again; returns 1 when it was kept. */
static int touch(struct keep *keep, const struct msg_identity *id,
		 const char *name, enum xd_keep_kind kind, uint64_t size)
{
	bool kept = false;
	int fd = keep_file(keep, id, 0, name, kind, size, 0, &kept);

	if (fd < 0)
		return fd;
	(void)close(fd);
	return kept;
}

static void test_kept(void **state)
{
	struct keep *keep = keep_of(state);
	bool kept = true;
	char byte = 0;
	struct stat st;
	int fd;

	assert_int_equal(keep_claim(keep, &disk, "mem(1M)", &kept), 0);
	assert_false(kept);
	fd = keep_file(keep, &disk, 0, "log", XD_KEEP_STATE, 4096, 0, &kept);
	assert_true(fd >= 0);
	assert_false(kept);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 4096);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(pwrite(fd, "x", 1, 100), 1);
	(void)close(fd);

	assert_int_equal(keep_claim(keep, &disk, "mem(1M)", &kept), 0);
	assert_true(kept);
	fd = keep_file(keep, &disk, 0, "log", XD_KEEP_STATE, 4096, 0, &kept);
	assert_true(kept);
	assert_int_equal(pread(fd, &byte, 1, 100), 1);
	assert_int_equal(byte, 'x');
	(void)close(fd);
}

/* A disk that has grown keeps more; what was kept must not be lost over that,
 * nor over a worker that does not know yet how large it was. */
static void test_grown(void **state)
{
	struct keep *keep = keep_of(state);
	char byte = 0;
	struct stat st;
	bool kept = false;
	int fd;

	fd = keep_file(keep, &disk, 0, "map", XD_KEEP_STATE, 512, 0, &kept);
	assert_int_equal(pwrite(fd, "x", 1, 100), 1);
	(void)close(fd);
	fd = keep_file(keep, &disk, 0, "map", XD_KEEP_STATE, 8192, 0, &kept);
	assert_true(kept);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 8192);
	assert_int_equal(pread(fd, &byte, 1, 100), 1);
	assert_int_equal(byte, 'x');
	assert_int_equal(pread(fd, &byte, 1, 8191), 1);
	assert_int_equal(byte, 0);
	(void)close(fd);
	fd = keep_file(keep, &disk, 0, "map", XD_KEEP_STATE, 512, 0, &kept);
	assert_true(kept);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 8192);
	(void)close(fd);
}

static void test_another_owner(void **state)
{
	struct keep *keep = keep_of(state);
	bool kept;

	assert_int_equal(keep_claim(keep, &disk, "a", &kept), 0);
	assert_int_equal(touch(keep, &disk, "log", XD_KEEP_STATE, 512), 0);
	/* The same numbers, another guest: nothing of the first is left. */
	assert_int_equal(keep_claim(keep, &reborn, "a", &kept), 0);
	assert_false(kept);
	assert_int_equal(touch(keep, &reborn, "log", XD_KEEP_STATE, 512), 0);
	/* Another expression, too. */
	assert_int_equal(keep_claim(keep, &reborn, "b", &kept), 0);
	assert_false(kept);
}

static void test_expression(void **state)
{
	struct keep *keep = keep_of(state);
	char *text;
	bool kept;

	assert_null(keep_expression(keep, &disk));
	assert_int_equal(keep_claim(keep, &disk, "cow(a, mem())", &kept), 0);
	text = keep_expression(keep, &disk);
	assert_string_equal(text, "cow(a, mem())");
	free(text);
	assert_null(keep_expression(keep, &reborn));
	assert_null(keep_expression(keep, &other));
	keep_discard(keep, disk.domid, disk.devid);
	assert_null(keep_expression(keep, &disk));
}

static void test_discard_and_sweep(void **state)
{
	struct keep *keep = keep_of(state);

	touch(keep, &disk, "a", XD_KEEP_STATE, 512);
	touch(keep, &disk, "a", XD_KEEP_PAGES, 512);
	touch(keep, &other, "a", XD_KEEP_STATE, 512);
	keep_discard(keep, 5, 51728);
	assert_int_equal(touch(keep, &disk, "a", XD_KEEP_STATE, 512), 0);
	assert_int_equal(touch(keep, &disk, "a", XD_KEEP_PAGES, 512), 0);
	assert_int_equal(touch(keep, &other, "a", XD_KEEP_STATE, 512), 1);
}

static bool only_other(void *ctx, uint32_t domid, uint32_t devid)
{
	(void)ctx;
	return domid == other.domid && devid == other.devid;
}

static void test_sweep(void **state)
{
	struct keep *keep = keep_of(state);

	touch(keep, &disk, "a", XD_KEEP_STATE, 512);
	touch(keep, &other, "a", XD_KEEP_PAGES, 512);
	keep_sweep(keep, only_other, NULL);
	assert_int_equal(touch(keep, &disk, "a", XD_KEEP_STATE, 512), 0);
	assert_int_equal(touch(keep, &other, "a", XD_KEEP_PAGES, 512), 1);
}

static void test_refusals(void **state)
{
	static const char *const names[] = { "",
					     "../x",
					     "a/b",
					     "a.b",
					     "A",
					     "a b",
					     "\n",
					     ".",
					     "0123456789012345678901234567890"
					     "12345678901234567890123456789012"
					     "34" };
	struct keep *keep = keep_of(state);
	bool kept;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_int_equal(touch(keep, &disk, names[i], XD_KEEP_STATE,
				       512),
				 -EINVAL);
	assert_int_equal(touch(keep, &disk, "a", XD_KEEP_STATE, 0), -EINVAL);
	assert_int_equal(touch(keep, &disk, "a", XD_KEEP_STATE,
			       KEEP_STATE_MAX + 1),
			 -EINVAL);
	assert_int_equal(touch(keep, &disk, "a", (enum xd_keep_kind)2, 512),
			 -EINVAL);
	assert_int_equal(keep_file(keep, &disk, EXPR_MAX_LAYERS, "a",
				   XD_KEEP_STATE, 512, 0, &kept),
			 -EINVAL);
}

static void test_number_of_files(void **state)
{
	struct keep *keep = keep_of(state);
	char name[16];
	int r = 0;
	int i;

	for (i = 0; i <= KEEP_MAX_FILES && r >= 0; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		r = touch(keep, &disk, name, XD_KEEP_STATE, 512);
	}
	assert_int_equal(r, -EDQUOT);
	/* A neighbour has its own number. */
	assert_int_equal(touch(keep, &other, "a", XD_KEEP_STATE, 512), 0);
}

static void test_budget(void **state)
{
	struct keep *keep = keep_of(state); /* limit: 1 MiB */
	uint64_t a = 0;
	uint64_t b = 0;

	assert_int_equal(keep_charge(keep, &a, 1 << 19), 0);
	assert_int_equal(keep_charge(keep, &b, (1 << 19) + 1), -ENOSPC);
	assert_int_equal(b, 0);
	assert_int_equal(keep_charge(keep, &b, 1 << 19), 0);
	assert_int_equal(keep_charge(keep, &b, 1), -ENOSPC);
	assert_int_equal(keep_charge(keep, &a, -((1 << 19) + 1)), -EINVAL);
	assert_int_equal(keep_charge(keep, &a, INT64_MIN), -EINVAL);
	assert_int_equal(keep_charge(keep, &a, INT64_MAX), -ENOSPC);
	assert_int_equal(keep_charge(keep, &a, -4096), 0);
	assert_int_equal(keep_charge(keep, &b, 4096), 0);
	keep_recharge(keep, &a, 0);
	assert_int_equal(keep_charge(keep, &b, (1 << 19) - 4096), 0);
	assert_int_equal(keep_charge(keep, &b, 1), -ENOSPC);
}

static void test_pages(void **state)
{
	struct keep *keep = keep_of(state);
	char page[4096] = "x";
	bool kept;
	int fd = keep_file(keep, &disk, 0, "pages", XD_KEEP_PAGES, 1ull << 40,
			   0, &kept);

	assert_true(fd >= 0);
	assert_int_equal(keep_pages(keep, 5, 51728), 0);
	assert_int_equal(pwrite(fd, page, sizeof(page), 1ull << 39), 4096);
	assert_int_equal(keep_pages(keep, 5, 51728), 4096);
	assert_int_equal(keep_pages(keep, 5, 51744), 0);
	(void)close(fd);
}

/* Somebody made the folder before us, with a link in it. */
static void test_strangers_folder(void **state)
{
	struct fixture *fixture = *state;
	struct keep *keep;
	char keep_dir[80];

	snprintf(keep_dir, sizeof(keep_dir), "%s/run/keep", fixture->dir);
	assert_int_equal(make_dirs(keep_dir, 0755), 0);
	*strrchr(keep_dir, '/') = '\0';
	assert_int_equal(keep_new(&keep, keep_dir, 0), -EPERM);
	assert_int_equal(rmdir(fixture_path(fixture, "run/keep")), 0);
	assert_int_equal(symlink("/tmp", fixture_path(fixture, "run/keep")), 0);
	assert_int_equal(keep_new(&keep, keep_dir, 0), -EPERM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_grown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_owner, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_expression, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_discard_and_sweep, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_sweep, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_number_of_files, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_strangers_folder, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
