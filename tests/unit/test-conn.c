/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A client over TCP whose host vanishes, and one that only does not read: conn.c
 * with a real session, in a network of its own.
 */
#include "config.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/util.h"
#include "nbd/proto.h"
#include "worker/conn.h"

#define LONG_NS (600 * 1000000000ull)
#define MS	1000000ull

static struct engine *engine;
static struct conn *conn;
static int client = -1;

static const struct nbd_export *no_export(void *ctx, unsigned int index)
{
	(void)ctx;
	(void)index;
	return NULL;
}

static const struct nbd_session_events events = {
	.export = no_export,
	.command_size = sizeof(struct nbd_command),
};

static void set_loopback(bool up)
{
	struct ifreq req = { .ifr_name = "lo" };
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM, 0);

	req.ifr_flags = up ? IFF_UP : 0;
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &req), 0);
}

/* Returns the server's end; the client's is `client`. */
static int meet(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	cleanup_close int listener = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t length = sizeof(address);
	int fd;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, length),
			 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(
		getsockname(listener, (struct sockaddr *)&address, &length), 0);
	client = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(client, (struct sockaddr *)&address, length),
			 0);
	fd = accept(listener, NULL, NULL);
	assert_true(fd >= 0);
	return fd;
}

static int setup(void **state)
{
	(void)state;
	set_loopback(true);
	assert_int_equal(engine_new(&engine, 16, false), 0);
	assert_int_equal(conn_new(&conn, engine, meet(), NULL, &events, NULL,
				  LONG_NS),
			 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	conn_abandon(conn);
	engine_cancel(engine);
	conn_free(conn);
	engine_free(engine);
	(void)close(client);
	return 0;
}

/* As a lane does.  True: it has ended before that. */
static bool ends_within(unsigned int ms)
{
	uint64_t until = now_ns() + ms * MS;

	while (!conn_is_over(conn) && now_ns() < until) {
		(void)conn_pump(conn);
		(void)engine_run(engine, 10 * MS);
	}
	return conn_is_over(conn);
}

/* It asks for more than it takes: options, which need no export. */
static void ask_and_not_read(void)
{
	static uint8_t asks[4096 * NBD_OPTION_BYTES];
	const uint32_t flags = htonl(NBD_FLAG_FIXED_NEWSTYLE);
	size_t at = 0;

	for (size_t i = 0; i < sizeof(asks); i += NBD_OPTION_BYTES) {
		nbd_put64(asks + i, NBD_OPTION_MAGIC);
		nbd_put32(asks + i + 8, NBD_OPT_LIST);
	}
	assert_int_equal(send(client, &flags, sizeof(flags), 0), sizeof(flags));
	for (unsigned int idle = 0; idle < 20;) {
		ssize_t n = send(client, asks + at, sizeof(asks) - at,
				 MSG_DONTWAIT);

		at = (at + (size_t)MAX(n, 0)) % sizeof(asks);
		idle = n < 0 ? idle + 1 : 0;
		assert_false(ends_within(10));
	}
}

/* --- The tests -------------------------------------------------------------- */

static void test_gone(void **state)
{
	(void)state;
	set_loopback(false);
	/* The greeting is on its way. */
	assert_true(ends_within(10000));
}

static void test_silent(void **state)
{
	(void)state;
	/* It has the greeting, and nothing to say. */
	assert_false(ends_within(1000));
	/* Now neither of them has: keep-alive's business. */
	set_loopback(false);
	assert_false(ends_within(1000));
}

static void test_slow(void **state)
{
	(void)state;
	ask_and_not_read();
	assert_false(ends_within(1000));
	set_loopback(false);
	assert_true(ends_within(20000));
}

/* A lane that ends and begins again does not forget it. */
static void test_moved(void **state)
{
	(void)state;
	set_loopback(false);
	assert_false(ends_within(20));
	engine_cancel(engine);
	conn_move(conn, engine);
	assert_true(ends_within(10000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_silent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_moved, setup, teardown),
	};

	if (unshare(CLONE_NEWNET) < 0)
		return 77; /* needs root */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
