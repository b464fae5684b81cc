/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The sockets of xendisk serve: nobody waits for others there. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <cmocka.h>

#include "common/util.h"
#include "serve/listen.h"

#define PASSED 3 /* as sd_listen_fds(3) has it */

static void has_nobody(const struct listeners *listeners)
{
	assert_int_equal(listeners->nr, 1);
	(void)alarm(20);
	assert_int_equal(accept(listeners->fd[0], NULL, NULL), -1);
	assert_int_equal(errno, EAGAIN);
	(void)alarm(0);
}

/* One that is another process's as well, which was quicker. */
static void a_passed_one(void **state)
{
	struct sockaddr_un any = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct listeners listeners = { .nr = 0 };
	char pid[16];

	(void)state;
	/* No name: the kernel makes one. */
	assert_int_equal(bind(fd, (struct sockaddr *)&any, sizeof(sa_family_t)),
			 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(dup2(fd, PASSED), PASSED);
	if (fd != PASSED)
		(void)close(fd);
	(void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
	assert_int_equal(setenv("LISTEN_FDS", "1", 1), 0);
	assert_int_equal(setenv("LISTEN_PID", pid, 1), 0);
	assert_int_equal(listen_passed(&listeners), 0);
	has_nobody(&listeners);
	listen_close(&listeners);
}

static void our_own(void **state)
{
	struct listeners listeners = { .nr = 0 };

	(void)state;
	assert_int_equal(listen_tcp(&listeners, "0"), 0);
	has_nobody(&listeners);
	listen_close(&listeners);
}

/* Somebody has it, and takes nobody: that is told, and not waited for. */
static void one_whose_queue_is_full(void **state)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct listeners listeners = { .nr = 0 };
	char dir[] = "/tmp/xendisk-listen-XXXXXX";
	int waiting[2];

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(at.sun_path, sizeof(at.sun_path), "%s/sock", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 0), 0);
	for (size_t i = 0; i < ARRAY_SIZE(waiting); i++) {
		waiting[i] = socket(
			AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)connect(waiting[i], (struct sockaddr *)&at, sizeof(at));
	}
	assert_int_equal(errno, EAGAIN);
	(void)alarm(20);
	assert_int_equal(listen_unix(&listeners, at.sun_path), -EADDRINUSE);
	(void)alarm(0);
	for (size_t i = 0; i < ARRAY_SIZE(waiting); i++)
		(void)close(waiting[i]);
	(void)close(fd);
	(void)unlink(at.sun_path);
	(void)rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_passed_one),
		cmocka_unit_test(our_own),
		cmocka_unit_test(one_whose_queue_is_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
