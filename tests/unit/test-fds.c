/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descriptors beside messages: they arrive, and none is left open by a message that
 * is refused.
 */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "common/fds.h"
#include "common/util.h"

static int pair[2];

static unsigned int count_open(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

static int start(void **state)
{
	(void)state;
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

static int stop(void **state)
{
	(void)state;
	fds_close(pair, 2);
	return 0;
}

/* That many of /dev/null. */
static int send_some(const void *msg, size_t n, unsigned int nr)
{
	int fds[FDS_MAX], r;

	for (unsigned int i = 0; i < nr; i++) {
		fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
		assert_true(fds[i] >= 0);
	}
	r = fds_send(pair[0], msg, n, fds, nr, 0);
	fds_close(fds, nr);
	return r;
}

static void all_arrive(void **state)
{
	unsigned int before = count_open(), nr = 99;
	int fds[FDS_MAX];
	char buf[8] = "";

	(void)state;
	for (unsigned int n = 0; n <= FDS_MAX; n++) {
		assert_int_equal(send_some("hello", 6, n), 0);
		assert_int_equal(fds_receive(pair[1], buf, sizeof(buf), fds,
					     FDS_MAX, &nr, 0),
				 6);
		assert_string_equal(buf, "hello");
		assert_int_equal(nr, n);
		assert_int_equal(count_open(), before + n);
		for (unsigned int i = 0; i < n; i++)
			assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
		fds_close(fds, n);
	}
	assert_int_equal(count_open(), before);
}

/* Returns what the receiver says, which has room for 8 bytes and max. */
static ssize_t refused(size_t n, unsigned int nr, unsigned int max)
{
	unsigned int before = count_open(), got = 99;
	int fds[FDS_MAX];
	char buf[8];
	ssize_t r;

	assert_int_equal(send_some("more than that", n, nr), 0);
	r = fds_receive(pair[1], buf, sizeof(buf), fds, max, &got, 0);
	assert_int_equal(count_open(), before);
	assert_int_equal(got, 99);
	return r;
}

static void none_is_left_open(void **state)
{
	(void)state;
	assert_int_equal(refused(9, 0, 4), -EPROTO);
	assert_int_equal(refused(9, 4, 4), -EPROTO);
	for (unsigned int max = 0; max < 5; max++)
		assert_int_equal(refused(4, max + 1, max), -EPROTO);
	assert_int_equal(refused(4, FDS_MAX, 1), -EPROTO);
	/* Nothing but descriptors: not the end of the socket. */
	assert_int_equal(refused(0, 1, 4), -EPROTO);
}

static void the_end(void **state)
{
	unsigned int nr;
	int fds[1];
	char buf[8];

	(void)state;
	assert_int_equal(fds_receive(pair[1], buf, sizeof(buf), fds, 1, &nr,
				     MSG_DONTWAIT),
			 -EAGAIN);
	(void)close(TAKE_FD(pair[0]));
	assert_int_equal(fds_receive(pair[1], buf, sizeof(buf), fds, 1, &nr, 0),
			 -ECONNRESET);
	assert_int_equal(fds_send(pair[1], buf, 1, NULL, 0, 0), -ECONNRESET);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(all_arrive),
		TEST(none_is_left_open),
		TEST(the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
