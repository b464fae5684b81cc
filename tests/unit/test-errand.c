/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

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
#include "broker/errand.h"
#include "broker/opener.h"
#include "common/util.h"

struct answer {
	bool come;
	struct errand_result results[3];
};

static void on_done(void *ctx, struct errand_result *results)
{
	struct answer *answer = ctx;

	answer->come = true;
	memcpy(answer->results, results, sizeof(answer->results));
	for (size_t i = 0; i < ARRAY_SIZE(answer->results); i++)
		(void)TAKE_FD(results[i].fd);
}

/* Of an errand with one result. */
static void on_first(void *ctx, struct errand_result *results)
{
	struct answer *answer = ctx;

	answer->come = true;
	answer->results[0] = results[0];
	(void)TAKE_FD(results[0].fd);
}

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

static struct errand *start(void **state, void (*work)(const void *arg), int fd,
			    struct answer *answer)
{
	struct fixture *fixture = *state;
	const struct errand_spec spec = { .work = work,
					  .arg = "argument",
					  .fd = fd,
					  .nr_results = 3,
					  .timeout_s = 1,
					  .done = on_done,
					  .ctx = answer };
	struct errand *errand;

	assert_int_equal(errand_start(&errand, &fixture->broker, &spec), 0);
	return errand;
}

/* Errors, descriptors, and that no other descriptor came along. */
static void work_well(const void *arg)
{
	errand_report(2, strcmp(arg, "argument") == 0 ? 0 : -EINVAL, -1);
	errand_report(1, fcntl(ERRAND_FD + 1, F_GETFD) < 0 ? -ENOENT : 0, -1);
	errand_report(0, 0, ERRAND_FD);
}

static void test_results(void **state)
{
	struct answer answer = { .come = false };
	struct stat here;
	struct stat there;
	int fd = open("/dev/null", O_RDONLY);
	int more = open("/dev/null", O_RDONLY);

	(void)start(state, work_well, fd, &answer);
	assert_true(fixture_run(*state, &answer.come));
	assert_int_equal(answer.results[0].err, 0);
	assert_int_equal(answer.results[1].err, -ENOENT);
	assert_int_equal(answer.results[2].err, 0);
	assert_int_equal(answer.results[1].fd, -1);
	assert_int_equal(fstat(fd, &here), 0);
	assert_int_equal(fstat(answer.results[0].fd, &there), 0);
	assert_int_equal(here.st_ino, there.st_ino);
	(void)close(answer.results[0].fd);
	(void)close(more);
	(void)close(fd);
}

static void work_for_ever(const void *arg)
{
	(void)arg;
	errand_report(1, 0, -1);
	for (;;)
		(void)pause();
}

static void test_timeout(void **state)
{
	struct answer answer = { .come = false };

	(void)start(state, work_for_ever, -1, &answer);
	assert_true(fixture_run(*state, &answer.come));
	assert_int_equal(answer.results[0].err, -ETIMEDOUT);
	assert_int_equal(answer.results[1].err, 0);
	assert_int_equal(answer.results[2].err, -ETIMEDOUT);
}

static void work_until_killed(const void *arg)
{
	(void)arg;
	errand_report(0, -EACCES, -1);
	(void)raise(SIGKILL);
}

static void test_crash(void **state)
{
	struct answer answer = { .come = false };

	(void)start(state, work_until_killed, -1, &answer);
	assert_true(fixture_run(*state, &answer.come));
	assert_int_equal(answer.results[0].err, -EACCES);
	assert_int_equal(answer.results[1].err, -EIO);
}

static void test_cancel(void **state)
{
	struct fixture *fixture = *state;
	struct timeval moment = { .tv_usec = 100000 };
	struct answer answer = { .come = false };

	errand_cancel(start(state, work_for_ever, -1, &answer));
	(void)event_base_loopexit(fixture->broker.base, &moment);
	(void)event_base_dispatch(fixture->broker.base);
	assert_false(answer.come);
}

/* Flags of open(2) that a worker may ask for, and others. */
static void test_flags(void **state)
{
	(void)state;
	assert_int_equal(opener_check_flags(O_RDONLY, true), 0);
	assert_int_equal(opener_check_flags(O_RDWR | O_DIRECT | O_DSYNC, false),
			 0);
	assert_int_equal(opener_check_flags(O_RDWR, true), -EROFS);
	assert_int_equal(opener_check_flags(O_WRONLY, false), -EINVAL);
	assert_int_equal(opener_check_flags(O_RDWR | O_CREAT, false), -EINVAL);
	assert_int_equal(opener_check_flags(O_RDONLY | O_TRUNC, false),
			 -EINVAL);
	assert_int_equal(opener_check_flags(O_RDWR | O_APPEND, false), -EINVAL);
	assert_int_equal(opener_check_flags(O_PATH, false), -EINVAL);
	assert_int_equal(opener_check_flags(O_TMPFILE | O_RDWR, false),
			 -EINVAL);
	assert_int_equal(opener_check_flags(3, false), -EINVAL);
	assert_int_equal(opener_check_flags(-1, false), -EINVAL);
}

static int reopened_as(struct fixture *fixture, const char *path, int flags)
{
	struct answer answer = { .come = false };
	int fd = open(path, O_PATH | O_CLOEXEC);
	struct errand *errand;

	assert_true(fd >= 0);
	assert_int_equal(opener_reopen(&errand, &fixture->broker, fd, flags,
				       on_first, &answer),
			 0);
	assert_true(fixture_run(fixture, &answer.come));
	if (answer.results[0].fd >= 0)
		(void)close(answer.results[0].fd);
	(void)close(fd);
	return answer.results[0].err;
}

/* What is no image is not even opened: nobody waits for a FIFO's other end. */
static void test_types(void **state)
{
	struct fixture *fixture = *state;
	char file[256], fifo[256];

	(void)snprintf(file, sizeof(file), "%s",
		       fixture_path(fixture, "image"));
	(void)snprintf(fifo, sizeof(fifo), "%s", fixture_path(fixture, "fifo"));
	assert_int_equal(mkfifo(fifo, 0600), 0);
	(void)close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	assert_int_equal(reopened_as(fixture, file, O_RDWR), 0);
	assert_int_equal(reopened_as(fixture, fifo, O_RDONLY), -ENOTBLK);
	assert_int_equal(reopened_as(fixture, "/dev/null", O_RDWR), -ENOTBLK);
	assert_int_equal(reopened_as(fixture, fixture->dir, O_RDONLY), -EISDIR);
	assert_int_equal(
		reopened_as(fixture, fixture->dir, O_RDONLY | O_DIRECTORY), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_results), TEST(test_timeout), TEST(test_crash),
		TEST(test_cancel),  TEST(test_flags),	TEST(test_types),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
