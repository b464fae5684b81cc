/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the service manager hears, at a socket that takes its place. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <cmocka.h>

#include "broker/notify.h"
#include "common/util.h"

/* The socket takes 10 messages before its reader must come: two in this time
 * are due. */
#define ALLOWED_US 20000

/* An address that the kernel chooses, as "@HEX". */
static int listen_as_manager(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(addr);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(
		bind(fd, (struct sockaddr *)&addr, sizeof(addr.sun_family)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	addr.sun_path[0] = '@';
	addr.sun_path[len - offsetof(struct sockaddr_un, sun_path)] = '\0';
	assert_int_equal(setenv("NOTIFY_SOCKET", addr.sun_path, 1), 0);
	return fd;
}

/* How many messages have come, all of which must be this one. */
static unsigned int heard(int fd, const char *wanted)
{
	unsigned int nr = 0;
	char text[64];
	ssize_t n;

	while ((n = recv(fd, text, sizeof(text) - 1, 0)) >= 0) {
		text[n] = '\0';
		assert_string_equal(text, wanted);
		nr++;
	}
	return nr;
}

static void run_loop(struct event_base *base, unsigned int us)
{
	const struct timeval time = { .tv_usec = (suseconds_t)us };

	assert_int_equal(event_base_loopexit(base, &time), 0);
	assert_true(event_base_dispatch(base) >= 0);
}

static void allow(const char *us, pid_t pid)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%d", (int)pid);
	assert_int_equal(setenv("WATCHDOG_USEC", us, 1), 0);
	assert_int_equal(setenv("WATCHDOG_PID", text, 1), 0);
}

static void test_states(void **state)
{
	int fd = listen_as_manager();

	(void)state;
	notify_ready();
	assert_int_equal(heard(fd, "READY=1"), 1);
	notify_stopping();
	assert_int_equal(heard(fd, "STOPPING=1"), 1);
	close(fd);
}

/* Runs the loop until it has fed the watchdog so often; a busy machine takes its
 * time. */
static bool feeds(struct event_base *base, int fd, unsigned int times)
{
	unsigned int fed = 0;

	for (int i = 0; i < 500 && fed < times; i++) {
		run_loop(base, ALLOWED_US);
		fed += heard(fd, "WATCHDOG=1");
	}
	return fed >= times;
}

static void test_loop_feeds(void **state)
{
	struct event_base *base = event_base_new();
	int fd = listen_as_manager();
	struct event *watchdog;

	(void)state;
	allow("20000", getpid());
	assert_int_equal(notify_start(base, &watchdog), 0);
	assert_non_null(watchdog);
	assert_true(feeds(base, fd, 2));
	/* A loop that hangs feeds nothing. */
	(void)usleep(3 * ALLOWED_US);
	assert_int_equal(heard(fd, ""), 0);
	/* One that goes on does again; after its end nothing does. */
	assert_true(feeds(base, fd, 1));
	notify_stop(watchdog);
	run_loop(base, 3 * ALLOWED_US);
	assert_int_equal(heard(fd, ""), 0);
	event_base_free(base);
	close(fd);
}

/* None asked for, or one that is meant for another process. */
static void test_no_watchdog(void **state)
{
	struct event_base *base = event_base_new();
	struct event *watchdog;

	(void)state;
	allow("20000", getpid() + 1);
	assert_int_equal(notify_start(base, &watchdog), 0);
	assert_null(watchdog);
	assert_int_equal(unsetenv("WATCHDOG_USEC"), 0);
	assert_int_equal(notify_start(base, &watchdog), 0);
	assert_null(watchdog);
	notify_stop(watchdog);
	event_base_free(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_loop_feeds),
		cmocka_unit_test(test_no_watchdog),
	};

#ifndef HAVE_SYSTEMD
	puts("1..0 # SKIP built without systemd");
	return 0;
#endif
	return cmocka_run_group_tests(tests, NULL, NULL);
}
