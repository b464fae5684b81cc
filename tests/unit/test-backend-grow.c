/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw, mem, cow and readonly become larger: what was there stays, what is new
 * can be used, and the next worker knows of it, whenever the last one died.
 */
#include "config.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "common/util.h"
#include "rig.h"

#define KiB 1024u
#define MiB (1024 * KiB)

static unsigned char buf[MiB] __attribute__((aligned(4096)));

static int setup(void **state)
{
	struct rig *rig = malloc(sizeof(*rig));

	rig_new(rig, true);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	rig_free(*state);
	free(*state);
	return 0;
}

static void open_ok(struct rig *rig, const char *expression)
{
	if (rig_open(rig, 1, expression) < 0)
		fail_msg("%s: %s", expression, rig->why);
}

static void recover_ok(struct rig *rig, const char *expression)
{
	if (rig_recover(rig, 1, expression) < 0)
		fail_msg("%s: %s", expression, rig->why);
}

static void resize_ok(struct rig *rig, uint64_t size, uint64_t becomes)
{
	if (rig_resize(rig, size) < 0)
		fail_msg("%s", rig->why);
	assert_int_equal(rig_size(rig), becomes);
}

static void refused(struct rig *rig, uint64_t size, int err, const char *why)
{
	uint64_t before = rig_size(rig);

	assert_int_equal(rig_resize(rig, size), err);
	if (!strstr(rig->why, why))
		fail_msg("\"%s\" does not say \"%s\"", rig->why, why);
	assert_int_equal(rig_size(rig), before);
}

static void put(struct rig *rig, uint64_t offset, int byte)
{
	memset(buf, byte, 8192);
	assert_int_equal(rig_io(rig, 0, XD_WRITE, 0, offset, 8192, buf), 0);
}

static void has(struct rig *rig, uint64_t offset, int byte)
{
	memset(buf, ~byte, 8192);
	assert_int_equal(rig_io(rig, 0, XD_READ, 0, offset, 8192, buf), 0);
	for (int i = 0; i < 8192; i++)
		assert_int_equal(buf[i], byte);
}

static uint64_t size_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

/* --- mem ----------------------------------------------------------------- */

static void mem_grows(void **state)
{
	struct rig *rig = *state;

	open_ok(rig, "mem(1M)");
	put(rig, MiB - 8192, 1);
	resize_ok(rig, 0, MiB);
	resize_ok(rig, 4 * MiB, 4 * MiB);
	has(rig, MiB - 8192, 1);
	has(rig, MiB, 0);
	put(rig, 4 * MiB - 8192, 2);
	/* Across the old end, in memory that it lends. */
	memset(buf, 3, 8192);
	assert_int_equal(rig_map_io(rig, 0, XD_WRITE, MiB - 4096, 8192, buf),
			 0);
	has(rig, MiB - 4096, 3);
	refused(rig, MiB, -EPERM, "would shrink");
	rig_die(rig);
	recover_ok(rig, "mem(1M)");
	assert_int_equal(rig_size(rig), 4 * MiB);
	has(rig, MiB - 4096, 3);
	has(rig, 4 * MiB - 8192, 2);
	resize_ok(rig, 8 * MiB, 8 * MiB);
	has(rig, 4 * MiB - 8192, 2);
	assert_int_equal(rig_close(rig), 0);
	/* What was attached anew is as large as it says. */
	rig_detach(rig);
	open_ok(rig, "mem(1M)");
	assert_int_equal(rig_size(rig), MiB);
}

/* Of sectors that are no whole pages: the map could not tell, so a page more. */
static void mem_of_half_a_page_grows(void **state)
{
	struct rig *rig = *state;

	open_ok(rig, "mem(1049088)"); /* 1 MiB and a sector */
	resize_ok(rig, MiB + 1024, MiB + 8192);
	put(rig, MiB, 7);
	rig_die(rig);
	recover_ok(rig, "mem(1049088)");
	assert_int_equal(rig_size(rig), MiB + 8192);
	has(rig, MiB, 7);
}

/* A request has memory of the disk while it grows. */
static void mem_keeps_what_it_lent(void **state)
{
	struct xd_request req = { .op = XD_WRITE,
				  .offset = MiB - 8192,
				  .length = 8192 };
	struct rig *rig = *state;
	struct iovec iov[8];
	unsigned int n = ARRAY_SIZE(iov);

	open_ok(rig, "mem(1M)");
	assert_int_equal(xd_map(rig->top[0], &req, iov, &n), 0);
	resize_ok(rig, 2 * MiB, 2 * MiB);
	resize_ok(rig, 4 * MiB, 4 * MiB);
	for (unsigned int i = 0; i < n; i++)
		memset(iov[i].iov_base, 9, iov[i].iov_len);
	xd_unmap(rig->top[0], &req, 0);
	has(rig, MiB - 8192, 9);
}

/* The worker dies between the two steps: the disk has grown, or it has not. */
static void mem_survives_its_worker(void **state)
{
	struct rig *rig = *state;

	open_ok(rig, "mem(1M)");
	put(rig, 0, 1);
	assert_int_equal(stack_resize(rig->stack, 2 * MiB, rig->why), 0);
	rig_die(rig);
	recover_ok(rig, "mem(1M)");
	assert_int_equal(rig_size(rig), 2 * MiB);
	has(rig, 0, 1);
	has(rig, MiB, 0);
	/* A budget that is used up has nothing to do with it. */
	put(rig, MiB, 2);
	/* The pages had grown, the map had not. */
	assert_int_equal(rig_close(rig), 0);
	assert_int_equal(truncate(rig_kept(rig, 0, "pages"), 16 * MiB), 0);
	recover_ok(rig, "mem(1M)");
	assert_int_equal(rig_size(rig), 2 * MiB);
	has(rig, MiB, 2);
	resize_ok(rig, 8 * MiB, 8 * MiB);
	has(rig, 4 * MiB, 0);
}

/* --- cow, readonly ------------------------------------------------------- */

static void cow_follows_its_base(void **state)
{
	struct rig *rig = *state;
	cleanup_free char *image = strdup(rig_file(rig, "image", MiB));
	cleanup_free char *top = strdup(rig_file(rig, "top", MiB));

	open_ok(rig, "cow(@/image, @/top)");
	put(rig, MiB - 8192, 1);
	refused(rig, 2 * MiB, -EOPNOTSUPP, "its size is that of the base");
	assert_int_equal(size_of(image), MiB);
	assert_int_equal(truncate(image, 2 * MiB), 0);
	resize_ok(rig, 0, 2 * MiB);
	assert_int_equal(size_of(top), 2 * MiB);
	has(rig, MiB - 8192, 1);
	has(rig, MiB, 0);
	put(rig, 2 * MiB - 8192, 2);
	/* It grows again, and nobody sees it before the worker dies. */
	assert_int_equal(truncate(image, 3 * MiB), 0);
	rig_die(rig);
	assert_int_equal(truncate(top, 3 * MiB), 0);
	recover_ok(rig, "cow(@/image, @/top)");
	assert_int_equal(rig_size(rig), 3 * MiB);
	has(rig, MiB - 8192, 1);
	has(rig, 2 * MiB - 8192, 2);
	/* And once more, between the two steps. */
	assert_int_equal(truncate(image, 4 * MiB), 0);
	assert_int_equal(stack_resize(rig->stack, 0, rig->why), 0);
	rig_die(rig);
	recover_ok(rig, "cow(@/image, @/top)");
	assert_int_equal(rig_size(rig), 4 * MiB);
	has(rig, 2 * MiB - 8192, 2);
	put(rig, 4 * MiB - 8192, 3);
	has(rig, 4 * MiB - 8192, 3);
}

/* The base has grown alone: the disk stays as it was, and works. */
static void cow_top_may_be_fixed(void **state)
{
	struct rig *rig = *state;
	cleanup_free char *image = strdup(rig_file(rig, "image", MiB));

	open_ok(rig, "cow(@/image, null(1M))");
	assert_int_equal(truncate(image, 2 * MiB), 0);
	refused(rig, 0, -EOPNOTSUPP, "null: has the size that");
	put(rig, MiB - 8192, 1);
}

static void readonly_passes_it_on(void **state)
{
	struct rig *rig = *state;
	cleanup_free char *image = strdup(rig_file(rig, "image", MiB));

	open_ok(rig, "readonly(@/image)");
	refused(rig, 2 * MiB, -EROFS, "is read-only here");
	assert_int_equal(size_of(image), MiB);
	assert_int_equal(truncate(image, 2 * MiB), 0);
	resize_ok(rig, 0, 2 * MiB);
	has(rig, 2 * MiB - 8192, 0);
}

/* --- raw ----------------------------------------------------------------- */

static void raw_grows(void **state)
{
	struct rig *rig = *state;
	cleanup_free char *image = strdup(rig_file(rig, "image", MiB));
	struct stat st;

	open_ok(rig, "@/image");
	put(rig, MiB - 8192, 1);
	resize_ok(rig, 64 * MiB, 64 * MiB);
	assert_int_equal(size_of(image), 64 * MiB);
	assert_int_equal(stat(image, &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 < 2 * MiB); /* sparse */
	put(rig, 64 * MiB - 8192, 2);
	has(rig, MiB - 8192, 1);
	has(rig, 32 * MiB, 0);
	/* Not what is no whole sector; and such an image can be reopened. */
	assert_int_equal(truncate(image, 65 * MiB + 100), 0);
	resize_ok(rig, 0, 65 * MiB);
	rig_die(rig);
	recover_ok(rig, "@/image");
	assert_int_equal(rig_size(rig), 65 * MiB);
	has(rig, 64 * MiB - 8192, 2);
	assert_int_equal(rig_close(rig), 0);
	/* But not be attached. */
	rig_detach(rig);
	assert_int_equal(rig_open(rig, 1, "@/image"), -EINVAL);
	assert_non_null(strstr(rig->why, "no multiple of the sector size"));
}

/* discard=no: the image has all its space. */
static void raw_grows_with_its_space(void **state)
{
	struct rig *rig = *state;
	cleanup_free char *image = strdup(rig_file(rig, "image", MiB));
	struct stat st;

	open_ok(rig, "raw(@/image, discard=no)");
	resize_ok(rig, 4 * MiB, 4 * MiB);
	assert_int_equal(stat(image, &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 >= 3 * MiB);
}

/* Before a guest is there; and somebody else's image is left alone. */
static void raw_grows_unconnected(void **state)
{
	struct rig *rig = *state;
	cleanup_free char *image = strdup(rig_file(rig, "image", MiB));
	struct flock lock = { .l_type = F_WRLCK,
			      .l_start = 203, /* no resizing, says QEMU */
			      .l_len = 1 };
	cleanup_close int fd = open(image, O_RDWR);

	open_ok(rig, "@/image");
	assert_int_equal(stack_deactivate(rig->stack, rig->why), 0);
	resize_ok(rig, 2 * MiB, 2 * MiB);
	assert_int_equal(size_of(image), 2 * MiB);
	lock.l_start = 103;
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	refused(rig, 4 * MiB, -EBUSY, "in use");
	assert_int_equal(size_of(image), 2 * MiB);
}

static int error_at(struct rig *rig, enum xd_op op, uint64_t offset)
{
	return rig_io(rig, 0, op, 0, offset, 8192, buf);
}

static void raw_does_not_shrink(void **state)
{
	static const enum xd_op ops[] = { XD_READ, XD_WRITE, XD_DISCARD,
					  XD_ZERO };
	struct rig *rig = *state;
	cleanup_free char *image = strdup(rig_file(rig, "image", MiB));

	open_ok(rig, "@/image");
	put(rig, 0, 1);
	put(rig, MiB - 8192, 2);
	assert_int_equal(truncate(image, MiB / 2), 0);
	/* The first to notice is a write; nothing it does makes it longer. */
	assert_int_equal(error_at(rig, XD_WRITE, MiB - 8192), -EIO);
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		assert_int_equal(error_at(rig, ops[i], MiB - 8192), -EIO);
		assert_int_equal(error_at(rig, ops[i], MiB / 2 - 4096), -EIO);
		assert_int_equal(size_of(image), MiB / 2);
	}
	has(rig, 0, 1);
	refused(rig, 0, -EPERM, "has shrunk to 524288 bytes");
	refused(rig, 2 * MiB, -EPERM, "has shrunk");
	assert_int_equal(size_of(image), MiB / 2);
	/* The next worker goes on so. */
	rig_die(rig);
	recover_ok(rig, "@/image");
	assert_int_equal(rig_size(rig), MiB);
	has(rig, 0, 1);
	assert_int_equal(error_at(rig, XD_READ, MiB - 8192), -EIO);
	assert_int_equal(error_at(rig, XD_WRITE, MiB - 8192), -EIO);
	/* A guest that comes anew is told. */
	assert_int_equal(rig_close(rig), 0);
	assert_int_equal(rig_open(rig, 1, "@/image"), -EIO);
	assert_non_null(strstr(rig->why, "has shrunk"));
	/* Long again, it is as good as ever. */
	assert_int_equal(truncate(image, MiB), 0);
	recover_ok(rig, "@/image");
	put(rig, MiB - 8192, 3);
	has(rig, MiB - 8192, 3);
}

/* What it has kept is no more trustworthy than a stranger's. */
static void raw_does_not_believe_all(void **state)
{
	static const uint64_t wrong[][2] = {
		{ 0, 0 },
		{ 1, 1 },
		{ MiB, MiB },
		{ UINT64_MAX, 0 },
		{ 1ull << 63, ~(1ull << 63) },
	};
	struct rig *rig = *state;

	(void)rig_file(rig, "image", MiB);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		cleanup_close int fd = -1;

		open_ok(rig, "@/image");
		rig_die(rig);
		fd = open(rig_kept(rig, 0, "size"), O_RDWR);
		assert_int_equal(pwrite(fd, wrong[i], sizeof(wrong[i]), 0),
				 sizeof(wrong[i]));
		recover_ok(rig, "@/image");
		assert_int_equal(rig_size(rig), MiB);
		rig_die(rig);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(mem_grows),
		TEST(mem_of_half_a_page_grows),
		TEST(mem_keeps_what_it_lent),
		TEST(mem_survives_its_worker),
		TEST(cow_follows_its_base),
		TEST(cow_top_may_be_fixed),
		TEST(readonly_passes_it_on),
		TEST(raw_grows),
		TEST(raw_grows_with_its_space),
		TEST(raw_grows_unconnected),
		TEST(raw_does_not_shrink),
		TEST(raw_does_not_believe_all),
	};

	return cmocka_run_group_tests_name("backend grow", tests, NULL, NULL);
}
