/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What mem and cow remember, what they free, and what they do when the worker
 * dies or its kept state is not what it was.
 */
#include "config.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/util.h"
#include "rig.h"

#define KiB 1024u
#define MiB (1024 * KiB)

static unsigned char buf[4 * MiB] __attribute__((aligned(4096)));
static unsigned char expected[4 * MiB];

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

static uint64_t allocated(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void open_ok(struct rig *rig, unsigned int lanes, const char *expression)
{
	if (rig_open(rig, lanes, expression) < 0)
		fail_msg("%s: %s", expression, rig->why);
}

static void recover_ok(struct rig *rig, const char *expression)
{
	if (rig_recover(rig, 1, expression) < 0)
		fail_msg("%s: %s", expression, rig->why);
}

/* Must not open, for a reason that says so. */
static void refused(struct rig *rig, const char *expression, const char *why)
{
	assert_true(rig_recover(rig, 1, expression) < 0);
	if (!strstr(rig->why, why))
		fail_msg("\"%s\" does not say \"%s\"", rig->why, why);
}

static void io_ok(struct rig *rig, enum xd_op op, uint64_t offset,
		  uint64_t length)
{
	assert_int_equal(rig_io(rig, 0, op, 0, offset, length, buf), 0);
}

static void write_byte(struct rig *rig, int byte, uint64_t offset,
		       uint64_t length)
{
	memset(buf, byte, length);
	io_ok(rig, XD_WRITE, offset, length);
}

static void check_byte(struct rig *rig, int byte, uint64_t offset,
		       uint64_t length)
{
	memset(buf, ~byte, length);
	memset(expected, byte, length);
	io_ok(rig, XD_READ, offset, length);
	assert_memory_equal(buf, expected, length);
	memset(buf, ~byte, length);
	if (rig_map_io(rig, 0, XD_READ, offset, length, buf) == 0)
		assert_memory_equal(buf, expected, length);
}

static void poke(const char *path, uint64_t offset, unsigned char byte)
{
	cleanup_close int fd = open(path, O_RDWR);

	assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
}

static void fill_file(const char *path, int byte, size_t length)
{
	cleanup_close int fd = open(path, O_RDWR);

	memset(buf, byte, length);
	assert_int_equal(pwrite_all(fd, buf, length, 0), 0);
}

/* --- mem ----------------------------------------------------------------- */

static void mem_takes_what_is_written(void **state)
{
	struct rig *rig = *state;
	const char *pages = rig_kept(rig, 0, "pages");

	open_ok(rig, 1, "mem(4M)");
	check_byte(rig, 0, 0, 4 * MiB);
	assert_int_equal(allocated(pages), 0);
	assert_int_equal(rig_charge(rig), 0);
	write_byte(rig, 1, MiB + 512, 512);
	assert_int_equal(allocated(pages), 4 * KiB);
	write_byte(rig, 1, 2 * MiB, MiB);
	assert_int_equal(allocated(pages), MiB + 4 * KiB);
	assert_true(rig_charge(rig) >= MiB + 4 * KiB);
	check_byte(rig, 0, MiB, 512);
	assert_int_equal(rig_close(rig), 0);
}

static void mem_returns_what_is_discarded(void **state)
{
	struct rig *rig = *state;
	const char *pages = rig_kept(rig, 0, "pages");

	open_ok(rig, 1, "mem(4M)");
	write_byte(rig, 7, 0, 4 * MiB);
	io_ok(rig, XD_DISCARD, 512, MiB); /* rounds inwards */
	assert_int_equal(allocated(pages), 3 * MiB + 4 * KiB);
	check_byte(rig, 7, 0, 512);
	check_byte(rig, 7, MiB + 512, 512);
	io_ok(rig, XD_ZERO, 2 * MiB + 512, MiB);
	assert_int_equal(allocated(pages), 2 * MiB + 8 * KiB);
	check_byte(rig, 0, 2 * MiB + 512, MiB);
	check_byte(rig, 7, 2 * MiB, 512);
	check_byte(rig, 7, 3 * MiB + 512, 512);
	assert_int_equal(rig_io(rig, 0, XD_ZERO, XD_NO_HOLE, 0, 4 * MiB, NULL),
			 0);
	assert_int_equal(allocated(pages), 4 * MiB);
	check_byte(rig, 0, 0, 4 * MiB);
	io_ok(rig, XD_DISCARD, 0, 4 * MiB);
	assert_int_equal(allocated(pages), 0);
	assert_int_equal(rig_close(rig), 0);
}

static void mem_keeps_to_its_limit(void **state)
{
	struct rig *rig = *state;

	rig_limit(rig, MiB, 0);
	open_ok(rig, 1, "mem(4M)");
	write_byte(rig, 1, 0, MiB);
	assert_int_equal(rig_charge(rig), MiB);
	assert_int_equal(rig_io(rig, 0, XD_WRITE, 0, MiB, 4096, buf), -ENOSPC);
	assert_int_equal(rig_map_io(rig, 0, XD_WRITE, MiB, 4096, buf),
			 -EOPNOTSUPP);
	write_byte(rig, 2, 512 * KiB, 4096); /* has its place */
	io_ok(rig, XD_DISCARD, 0, 8192);
	write_byte(rig, 3, MiB, 4096);
	check_byte(rig, 3, MiB, 4096);
	assert_int_equal(rig_close(rig), 0);
}

static void mem_survives_its_worker(void **state)
{
	struct rig *rig = *state;

	open_ok(rig, 1, "mem(4M)");
	write_byte(rig, 5, 512, 512);
	write_byte(rig, 6, MiB, MiB);
	io_ok(rig, XD_DISCARD, MiB, 512 * KiB);
	rig_die(rig);
	rig_limit(rig, INT64_MAX, allocated(rig_kept(rig, 0, "pages")));
	recover_ok(rig, "mem(4M)");
	check_byte(rig, 0, 0, 512);
	check_byte(rig, 5, 512, 512);
	check_byte(rig, 6, MiB + 512 * KiB, 512 * KiB);
	check_byte(rig, 0, MiB, 512 * KiB);
	assert_true(rig_charge(rig) >= 516 * KiB);
	assert_int_equal(rig_close(rig), 0);
	rig_detach(rig);
	open_ok(rig, 1, "mem(4M)");
	check_byte(rig, 0, 0, 4 * MiB);
	assert_int_equal(rig_close(rig), 0);
}

/* Killed after it had marked the blocks as gone, before the pages went. */
static void mem_finishes_a_discard(void **state)
{
	struct rig *rig = *state;
	const char *pages = rig_kept(rig, 0, "pages");

	open_ok(rig, 1, "mem(4M)");
	write_byte(rig, 5, 0, 64 * KiB);
	rig_die(rig);
	poke(rig_kept(rig, 0, "map"), 4096, 0xf0); /* blocks 0 to 3 */
	rig_limit(rig, INT64_MAX, 64 * KiB);
	recover_ok(rig, "mem(4M)");
	assert_int_equal(allocated(pages), 48 * KiB);
	write_byte(rig, 6, 512, 512);
	check_byte(rig, 0, 0, 512);
	check_byte(rig, 6, 512, 512);
	check_byte(rig, 0, 1024, 15 * KiB);
	check_byte(rig, 5, 16 * KiB, 16 * KiB);
	assert_int_equal(rig_close(rig), 0);
}

static void mem_bears_a_forged_map(void **state)
{
	struct rig *rig = *state;

	open_ok(rig, 1, "mem(4M)");
	write_byte(rig, 5, 0, 4096);
	rig_die(rig);
	poke(rig_kept(rig, 0, "map"), 4096 + 64, 0xff);
	rig_limit(rig, INT64_MAX, 4096);
	recover_ok(rig, "mem(4M)");
	assert_int_equal(allocated(rig_kept(rig, 0, "pages")), 36 * KiB);
	check_byte(rig, 0, 512 * 4096, 32 * KiB);
	assert_int_equal(rig_close(rig), 0);
	/* More than the limit allows. */
	rig_limit(rig, 16 * KiB, 0);
	poke(rig_kept(rig, 0, "map"), 4096 + 65, 0xff);
	refused(rig, "mem(4M)", "memory");
}

static void strange_state_is_refused(void **state)
{
	static const struct {
		const char *expression;
		unsigned int layer;
		uint64_t offset; /* in the map */
	} cases[] = {
		{ "mem(4M)", 0, 0 }, /* name */
		{ "mem(4M)", 0, 9 }, /* version */
		{ "mem(4M)", 0, 17 }, /* blocks */
		{ "mem(4M)", 0, 29 }, /* checksum */
		{ "mem(4097K)", 0, 4096 + 135 }, /* beyond the last block */
		{ "cow(@/image, mem)", 0, 13 }, /* sector size */
	};
	struct rig *rig = *state;

	(void)rig_file(rig, "image", 4 * MiB);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		open_ok(rig, 1, cases[i].expression);
		write_byte(rig, 1, 0, 4096);
		rig_die(rig);
		poke(rig_kept(rig, cases[i].layer, "map"), cases[i].offset,
		     0x80);
		refused(rig, cases[i].expression,
			"not what this disk has kept");
		rig_detach(rig);
	}
}

static void lost_pages_are_noticed(void **state)
{
	struct rig *rig = *state;

	open_ok(rig, 1, "mem(4M)");
	write_byte(rig, 1, 0, 4096);
	rig_die(rig);
	assert_int_equal(unlink(rig_kept(rig, 0, "pages")), 0);
	refused(rig, "mem(4M)", "the memory of the disk is gone");
}

/* What a reader was lent stays until he gives it back. */
static void discard_waits_for_readers(void **state)
{
	struct rig *rig = *state;
	struct xd_request reader = { .op = XD_READ, .length = 4096 };
	struct iovec iov[1];
	unsigned int n = 1;
	struct rig_op op;

	open_ok(rig, 2, "mem(4M)");
	write_byte(rig, 9, 0, 4096);
	assert_int_equal(xd_map(rig->top[1], &reader, iov, &n), 0);
	rig_start(rig, 0, &op, XD_DISCARD, 0, 0, 4096, NULL);
	stack_kick(rig->top[0]);
	for (unsigned int i = 0; i < 20; i++) {
		assert_true(engine_run(rig->engine[0], 1000000) >= 0);
		(void)stack_reap(rig->top[0]);
	}
	assert_false(op.done);
	assert_int_equal(allocated(rig_kept(rig, 0, "pages")), 4096);
	assert_int_equal(*(unsigned char *)iov[0].iov_base, 9);
	xd_unmap(rig->top[1], &reader, 0);
	rig_wait(rig, 0, &op, 1);
	assert_int_equal(op.err, 0);
	assert_int_equal(allocated(rig_kept(rig, 0, "pages")), 0);
	assert_int_equal(rig_close(rig), 0);
}

static void mem_size_is_the_siblings(void **state)
{
	struct rig *rig = *state;

	(void)rig_file(rig, "image", 3 * MiB);
	open_ok(rig, 1, "cow(@/image, mem)");
	assert_int_equal(stack_limits(rig->stack)->size, 3 * MiB);
	assert_int_equal(rig_close(rig), 0);
}

/* --- cow ----------------------------------------------------------------- */

static void cow_hides_what_is_discarded(void **state)
{
	struct rig *rig = *state;

	fill_file(rig_file(rig, "image", MiB), 0xba, MiB);
	open_ok(rig, 1, "cow(@/image, mem)");
	check_byte(rig, 0xba, 0, MiB);
	io_ok(rig, XD_DISCARD, 512, 512);
	io_ok(rig, XD_DISCARD, 64 * KiB, 64 * KiB);
	check_byte(rig, 0xba, 0, 512);
	check_byte(rig, 0, 512, 512);
	check_byte(rig, 0xba, 1024, 512);
	check_byte(rig, 0, 64 * KiB, 64 * KiB);
	assert_int_equal(allocated(rig_kept(rig, 2, "pages")), 0);
	assert_int_equal(rig_close(rig), 0);
}

static void cow_survives_its_worker(void **state)
{
	static const char *const expressions[] = { "cow(@/image, mem)",
						   "cow(@/image, @/top)" };
	struct rig *rig = *state;

	fill_file(rig_file(rig, "image", MiB), 0xba, MiB);
	fill_file(rig_file(rig, "top", MiB), 0xee, MiB);
	for (unsigned int i = 0; i < ARRAY_SIZE(expressions); i++) {
		open_ok(rig, 1, expressions[i]);
		write_byte(rig, 1, 512, 512);
		memset(buf, 2, 4096);
		if (rig_map_io(rig, 0, XD_WRITE, 8192, 4096, buf) < 0)
			io_ok(rig, XD_WRITE, 8192, 4096);
		rig_die(rig);
		recover_ok(rig, expressions[i]);
		check_byte(rig, 0xba, 0, 512);
		check_byte(rig, 1, 512, 512);
		check_byte(rig, 0xba, 1024, 7168);
		check_byte(rig, 2, 8192, 4096);
		check_byte(rig, 0xba, 12288, 4096);
		assert_int_equal(rig_close(rig), 0);
		/* Detached, it begins anew. */
		rig_detach(rig);
		open_ok(rig, 1, expressions[i]);
		check_byte(rig, 0xba, 0, MiB);
		assert_int_equal(rig_close(rig), 0);
		rig_detach(rig);
	}
}

static void cow_top_must_be_large_enough(void **state)
{
	struct rig *rig = *state;

	(void)rig_file(rig, "image", 2 * MiB);
	(void)rig_file(rig, "top", MiB);
	assert_int_equal(rig_open(rig, 1, "cow(@/image, @/top)"), -EINVAL);
	assert_non_null(strstr(rig->why, "smaller than the base"));
	rig_detach(rig);
	(void)rig_file(rig, "image", MiB - 512);
	assert_int_equal(rig_open(rig, 1,
				  "cow(@/image, raw(@/top, sector-size=4096))"),
			 -EINVAL);
	assert_non_null(strstr(rig->why, "multiple"));
}

/* The base's sectors may be larger than what the top can free. */
static void cow_discards_whole_sectors(void **state)
{
	struct rig *rig = *state;

	(void)rig_file(rig, "image", MiB);
	open_ok(rig, 1, "cow(raw(@/image, sector-size=4096), null(1M))");
	assert_int_equal(stack_limits(rig->stack)->discard_granularity, 4096);
	assert_int_equal(rig_io(rig, 0, XD_DISCARD, 0, 4096, 8192, NULL), 0);
	check_byte(rig, 0, 4096, 8192);
	assert_int_equal(rig_close(rig), 0);
}

/* A failed write leaves the base to be seen, and nothing half. */
static void cow_write_fails_whole(void **state)
{
	struct rig *rig = *state;

	fill_file(rig_file(rig, "image", MiB), 0xba, MiB);
	rig_limit(rig, 64 * KiB, 0);
	open_ok(rig, 1, "cow(@/image, mem)");
	write_byte(rig, 1, 0, 64 * KiB);
	memset(buf, 2, 8192);
	assert_int_equal(rig_io(rig, 0, XD_WRITE, 0, 60 * KiB, 8192, buf),
			 -ENOSPC);
	check_byte(rig, 0xba, 64 * KiB, 4096);
	assert_int_equal(rig_close(rig), 0);
}

/* --- kill -9 ------------------------------------------------------------- */

#define KILL_SIZE   MiB
#define KILL_WRITES 16

/* Writes at random for ever: every sector is of one byte value, 1 to 100. */
static void write_until_killed(struct rig *rig, unsigned int seed)
{
	static unsigned char data[KILL_WRITES][16 * KiB]
		__attribute__((aligned(4096)));
	struct rig_op ops[KILL_WRITES];

	srandom(seed);
	for (;;) {
		for (unsigned int i = 0; i < KILL_WRITES; i++) {
			/* No two overlap: each has its own part. */
			uint64_t part = KILL_SIZE / KILL_WRITES;
			uint64_t n = 512u * (1 + (unsigned int)random() % 32);
			uint64_t at = 512u * ((unsigned int)random() %
					      (unsigned int)((part - n) / 512));

			memset(data[i], 1 + (int)(random() % 100), n);
			rig_start(rig, 0, &ops[i], XD_WRITE, 0, i * part + at,
				  n, data[i]);
		}
		rig_wait(rig, 0, ops, KILL_WRITES);
	}
}

static unsigned int written; /* sectors that were not the base's, in all */

static bool is_strange(const unsigned char *sector)
{
	if (*sector == 0xba)
		return memcmp(sector, sector + 1, 511) != 0;
	for (unsigned int i = 0; i < 512; i++)
		if (sector[i] < 1 || sector[i] > 100)
			return true;
	return false;
}

/* Every sector is the base's, or was written: it is not the top's garbage, not
 * zeroes, and not partly the base's.  (One that was being written again may
 * have something of both writes; it is written once more by who replays.) */
static unsigned int count_strange_sectors(struct rig *rig)
{
	unsigned int strange = 0;

	io_ok(rig, XD_READ, 0, KILL_SIZE);
	for (unsigned int s = 0; s < KILL_SIZE / 512; s++) {
		strange += is_strange(buf + s * 512);
		written += buf[s * 512] != 0xba;
	}
	return strange;
}

static void kill_a_writer(struct rig *rig, const char *expression,
			  unsigned int seed)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		if (rig_recover(rig, 1, expression) == 0)
			write_until_killed(rig, seed);
		_exit(1);
	}
	usleep(20000 + 3000 * (seed % 10));
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static void cow_shows_no_sector_before_its_data(void **state)
{
	static const char *const expressions[] = {
		"cow(@/image, mem)",
		"cow(@/image, @/top)",
		"cow(@/image, raw(@/top, cache=writeback))",
	};
	struct rig *rig = *state;

	fill_file(rig_file(rig, "image", KILL_SIZE), 0xba, KILL_SIZE);
	fill_file(rig_file(rig, "top", KILL_SIZE), 0xee, KILL_SIZE);
	for (unsigned int i = 0; i < 30; i++) {
		const char *expression = expressions[i % 3];

		rig_detach(rig);
		kill_a_writer(rig, expression, i);
		if (access(rig_kept(rig, 2, "pages"), F_OK) == 0)
			rig_limit(
				rig, INT64_MAX,
				(int64_t)allocated(rig_kept(rig, 2, "pages")));
		recover_ok(rig, expression);
		assert_int_equal(count_strange_sectors(rig), 0);
		assert_int_equal(rig_close(rig), 0);
	}
	assert_true(written > 1000);
	/* The check can fail: bits whose sectors were never written. */
	rig_detach(rig);
	fill_file(rig_file(rig, "top", KILL_SIZE), 0xee, KILL_SIZE);
	open_ok(rig, 1, "cow(@/image, @/top)");
	rig_die(rig);
	poke(rig_kept(rig, 0, "map"), 4096 + 3, 0xff);
	recover_ok(rig, "cow(@/image, @/top)");
	assert_int_equal(count_strange_sectors(rig), 8);
	assert_int_equal(rig_close(rig), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(mem_takes_what_is_written),
		TEST(mem_returns_what_is_discarded),
		TEST(mem_keeps_to_its_limit),
		TEST(mem_survives_its_worker),
		TEST(mem_finishes_a_discard),
		TEST(mem_bears_a_forged_map),
		TEST(strange_state_is_refused),
		TEST(lost_pages_are_noticed),
		TEST(discard_waits_for_readers),
		TEST(mem_size_is_the_siblings),
		TEST(cow_hides_what_is_discarded),
		TEST(cow_survives_its_worker),
		TEST(cow_top_must_be_large_enough),
		TEST(cow_discards_whole_sectors),
		TEST(cow_write_fails_whole),
		TEST(cow_shows_no_sector_before_its_data),
	};

	return cmocka_run_group_tests_name("backend state", tests, NULL, NULL);
}
