/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A file whose disk has gone without a broker: is it emptied? */
#include "config.h"

#include <event2/event.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker-fixture.h"
#include "broker/keep.h"
#include "broker/scratch.h"
#include "common/stamp.h"
#include "common/util.h"

#define FILE_SIZE 65536

static const struct msg_identity disk = { 5, 51728, 0, "vm-one" };

/* In the errand's process. */
static bool dies;
int __real_fallocate(int fd, int mode, off_t offset, off_t length);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length);

int __wrap_fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (dies)
		(void)raise(SIGKILL);
	if (fcntl(fd, F_GETLEASE) != F_WRLCK) {
		errno = ENOLCK;
		return -1;
	}
	(void)raise(SIGIO); /* somebody opens it */
	return __real_fallocate(fd, mode, offset, length);
}

static bool none_exists(void *ctx, uint32_t domid, uint32_t devid)
{
	(void)ctx;
	(void)domid;
	(void)devid;
	return false;
}

static bool is_there(const struct fixture *fixture, const char *name)
{
	return access(fixture_path(fixture, name), F_OK) == 0;
}

static bool is_empty(const struct fixture *fixture)
{
	struct stat st;

	assert_int_equal(stat(fixture_path(fixture, "top"), &st), 0);
	assert_int_equal(st.st_size, FILE_SIZE);
	return st.st_blocks == 0;
}

static void write_top(const struct fixture *fixture)
{
	static const char text[FILE_SIZE] = "somebody's";
	int fd = open(fixture_path(fixture, "top"), O_RDWR | O_CREAT, 0600);

	assert_int_equal(pwrite(fd, text, sizeof(text), 0), sizeof(text));
	(void)close(fd);
}

static int setup(void **state)
{
	struct fixture *fixture = fixture_new();
	struct keep *keep = fixture->broker.keep;
	int path_fd;
	char *line;
	bool kept;

	dies = false;
	keep_on_left(keep, scratch_left, &fixture->broker);
	assert_int_equal(keep_claim(keep, &disk, "cow", &kept), 0);
	write_top(fixture);
	path_fd = open(fixture_path(fixture, "top"), O_PATH);
	line = scratch_describe(path_fd, fixture_path(fixture, "top"));
	assert_non_null(line);
	keep_note_scratch(keep, &disk, 0, line);
	free(line);
	(void)close(path_fd);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	keep_on_left(fixture->broker.keep, NULL, NULL);
	fixture_free(fixture);
	return 0;
}

/* The disk goes; true: nothing is left of its note. */
static bool sweep(struct fixture *fixture)
{
	const struct timeval tick = { .tv_usec = 100000 };

	keep_sweep(fixture->broker.keep, none_exists, NULL);
	for (int i = 0; i < 20 && is_there(fixture, "keep/left.0"); i++) {
		(void)event_base_loopexit(fixture->broker.base, &tick);
		(void)event_base_dispatch(fixture->broker.base);
	}
	return !is_there(fixture, "keep/left.0");
}

/* What the worker would have noted. */
static void note_times(struct fixture *fixture, uint64_t begun, uint64_t ended)
{
	struct stamp_file stamps = { 0 };
	bool kept;
	int fd = keep_file(fixture->broker.keep, &disk, MSG_LAYER_NONE,
			   STAMP_NAME, XD_KEEP_STATE, sizeof(stamps), 0, &kept);

	stamps.lane[1].begun = begun;
	stamps.lane[3].ended = ended;
	assert_int_equal(pwrite(fd, &stamps, sizeof(stamps), 0),
			 sizeof(stamps));
	(void)close(fd);
}

static void test_unchanged(void **state)
{
	assert_true(sweep(*state));
	assert_true(is_empty(*state));
}

static void test_open_elsewhere(void **state)
{
	int fd = open(fixture_path(*state, "top"), O_RDONLY);

	assert_true(sweep(*state));
	assert_false(is_empty(*state));
	(void)close(fd);
}

/* An errand that dies leaves the note to the next broker. */
static void test_killed(void **state)
{
	dies = true;
	assert_false(sweep(*state));
	assert_false(is_empty(*state));
	dies = false;
	assert_true(sweep(*state));
	assert_true(is_empty(*state));
}

static void write_later(struct fixture *fixture)
{
	(void)usleep(20000); /* more than a tick of the clock of files */
	write_top(fixture);
}

static void test_written_by_guest(void **state)
{
	uint64_t begun = stamp_now(CLOCK_REALTIME_COARSE);

	write_later(*state);
	note_times(*state, begun, stamp_now(CLOCK_REALTIME));
	assert_true(sweep(*state));
	assert_true(is_empty(*state));
}

static void test_written_since(void **state)
{
	uint64_t now = stamp_now(CLOCK_REALTIME);

	note_times(*state, now, now);
	write_later(*state);
	assert_true(sweep(*state));
	assert_false(is_empty(*state));
}

/* A write that has begun, and nobody has seen its end. */
static void test_under_way(void **state)
{
	uint64_t begun = stamp_now(CLOCK_REALTIME_COARSE);

	write_later(*state);
	note_times(*state, begun, begun - 1);
	assert_true(sweep(*state));
	assert_false(is_empty(*state));
}

static void test_incredible_times(void **state)
{
	write_later(*state);
	note_times(*state, 1, UINT64_MAX);
	assert_true(sweep(*state));
	assert_false(is_empty(*state));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(unchanged),	TEST(open_elsewhere), TEST(killed),
		TEST(written_by_guest), TEST(written_since),  TEST(under_way),
		TEST(incredible_times),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
