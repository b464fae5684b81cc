/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A child that is to be ended (watch.h). */
#include "config.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>

#include "watch.h"

static bool yes(void)
{
	return true;
}

/* It is to be ended already when it is looked at first: that signal is over. */
static void signal_before(void **state)
{
	const struct watch watch = { .fd = -1, .stop = yes };
	pid_t pid = fork();
	int status;

	(void)state;
	if (pid == 0) {
		(void)sleep(60);
		_exit(0);
	}
	assert_int_equal(watch_child(pid, &watch, &status), 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static bool ended;

static bool has_ended(void)
{
	return ended;
}

static void on_signal(int number)
{
	(void)number;
	ended = true;
}

/* One that comes while it is waited for is not kept for afterwards. */
static void signal_meanwhile(void **state)
{
	const struct watch watch = { .fd = -1, .stop = has_ended };
	const struct sigaction action = { .sa_handler = on_signal };
	pid_t parent = getpid(), pid;
	sigset_t mask;
	int status;

	(void)state;
	assert_int_equal(sigaction(SIGHUP, &action, NULL), 0);
	pid = fork();
	if (pid == 0) {
		(void)usleep(100000);
		(void)kill(parent, SIGHUP);
		(void)sleep(60);
		_exit(0);
	}
	assert_int_equal(watch_child(pid, &watch, &status), 0);
	assert_true(ended && WIFSIGNALED(status));
	/* And they are as they were. */
	assert_int_equal(sigprocmask(SIG_SETMASK, NULL, &mask), 0);
	assert_int_equal(sigismember(&mask, SIGHUP), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signal_before),
		cmocka_unit_test(signal_meanwhile),
	};

	return cmocka_run_group_tests_name("git-watch", tests, NULL, NULL);
}
