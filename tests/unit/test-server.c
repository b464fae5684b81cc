/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * URIs of servers, and connecting to them: the child is this program itself,
 * started by the code under test as `/proc/self/exe --connect URI`.
 */
#include "config.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker-fixture.h"
#include "broker/connector.h"
#include "common/msg.h"
#include "common/server.h"
#include "common/tcp.h"
#include "common/util.h"

/* --- URIs ------------------------------------------------------------------- */

static void test_good(void **state)
{
	static const struct {
		const char *uri;
		enum server_transport transport;
		bool tls;
		const char *place, *user, *export_name;
	} good[] = {
		{ "nbd://h", SERVER_TCP, false, "h:10809", "", "" },
		{ "nbd://h/", SERVER_TCP, false, "h:10809", "", "" },
		{ "nbds://me@h:1/e/f", SERVER_TCP, true, "h:1", "me", "e/f" },
		{ "nbd://[::1]:65535/a%20b", SERVER_TCP, false, "[::1]:65535",
		  "", "a b" },
		{ "nbd://[::1]//e", SERVER_TCP, false, "[::1]:10809", "",
		  "/e" },
		{ "nbd+unix:///?socket=/run/x%3fy", SERVER_UNIX, false,
		  "/run/x?y", "", "" },
		{ "nbds+unix://u@/e?socket=/s", SERVER_UNIX, true, "/s", "u",
		  "e" },
		{ "nbd+vsock://2", SERVER_VSOCK, false, "vsock 2:10809", "",
		  "" },
		{ "nbds+vsock://2:70000/e", SERVER_VSOCK, true, "vsock 2:70000",
		  "", "e" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		char place[300], why[SERVER_TEXT_MAX];
		struct server server;

		assert_int_equal(server_parse(good[i].uri, &server, why), 0);
		server_print(&server, place, sizeof(place));
		assert_int_equal(server.transport, good[i].transport);
		assert_int_equal(server.tls, good[i].tls);
		assert_string_equal(place, good[i].place);
		assert_string_equal(server.user, good[i].user);
		assert_string_equal(server.export_name, good[i].export_name);
	}
}

/* A connection as the backend has them; *ret_peer is the server's end. */
static int connect_here(int *ret_peer)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	cleanup_close int listener = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t length = sizeof(address);
	char uri[64], why[SERVER_TEXT_MAX];
	struct server server;
	int fd;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, length),
			 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(
		getsockname(listener, (struct sockaddr *)&address, &length), 0);
	(void)snprintf(uri, sizeof(uri), "nbd://127.0.0.1:%u/",
		       ntohs(address.sin_port));
	assert_int_equal(server_parse(uri, &server, why), 0);
	fd = server_connect(&server, why);
	*ret_peer = accept(listener, NULL, NULL);
	assert_true(fd >= 0 && *ret_peer >= 0);
	return fd;
}

/* A host that is gone without a word is noticed: xendisk-nbd(7) says when. */
static void test_tcp_limits(void **state)
{
	static const struct {
		int level, name, value;
	} wanted[] = {
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, 10 },
		{ IPPROTO_TCP, TCP_KEEPINTVL, 5 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 4 },
		/* It would end one to a server that does not read. */
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, 0 },
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
	};
	cleanup_close int peer = -1;
	cleanup_close int fd = connect_here(&peer);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		int value = -1;
		socklen_t length = sizeof(value);

		assert_int_equal(getsockopt(fd, wanted[i].level, wanted[i].name,
					    &value, &length),
				 0);
		assert_int_equal(value, wanted[i].value);
	}
}

/* Until no more is taken; returns how much was. */
static ssize_t fill(int fd)
{
	static const char data[65536];
	ssize_t sent = 0, n;

	while ((n = send(fd, data, sizeof(data), MSG_DONTWAIT)) > 0)
		sent += n;
	return sent;
}

/* What a server had not received when its connection ended it does not get: it may be
 * slow, and others have written there by then. */
static void test_end_is_the_end(void **state)
{
	static char data[65536];
	ssize_t sent, got = 0, n;
	cleanup_close int peer = -1;
	int fd = connect_here(&peer);

	(void)state;
	sent = fill(fd);
	(void)shutdown(fd, SHUT_RDWR);
	(void)close(fd);
	while ((n = recv(peer, data, sizeof(data), 0)) > 0)
		got += n;
	assert_true(got < sent);
}

static void set_loopback(bool up)
{
	struct ifreq req = { .ifr_name = "lo" };
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM, 0);

	req.ifr_flags = up ? IFF_UP : 0;
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &req), 0);
}

static bool becomes_deaf(int fd)
{
	bool deaf = false;

	for (unsigned int ms = 0; ms < 1500 && !deaf; ms += 50) {
		(void)poll(NULL, 0, 50);
		deaf = tcp_look(fd, 200) == TCP_DEAF;
	}
	return deaf;
}

/* Who is there and does not read is not deaf; a host that is gone is. */
static void test_deaf(void **state)
{
	cleanup_close int full_peer = -1, gone_peer = -1, full = -1, gone = -1;

	(void)state;
	if (unshare(CLONE_NEWNET) < 0)
		skip();
	set_loopback(true);
	full = connect_here(&full_peer);
	(void)fill(full);
	assert_false(becomes_deaf(full));
	assert_int_equal(tcp_look(full, 200), TCP_WAITING);
	gone = connect_here(&gone_peer);
	(void)poll(NULL, 0, 300);
	assert_int_equal(tcp_look(gone, 200), TCP_IDLE); /* it was not asked */
	set_loopback(false);
	assert_int_equal(send(gone, "", 1, 0), 1);
	assert_true(becomes_deaf(gone));
}

/* Each with what the sentence must say. */
static void test_bad(void **state)
{
	static const char *const bad[][2] = {
		{ "nbd", "not a URI" },
		{ "http://h/", "\"http\" is no kind" },
		{ "nbd:///e", "no host" },
		{ "nbd://h:0/", "not a port" },
		{ "nbd://h:65536/", "not a port" },
		{ "nbd://h:x/", "not a port" },
		{ "nbd://[::1/", "not an address" },
		{ "nbd://[::1]x/", "not an address" },
		{ "nbd://h/%", "wrong %-escape" },
		{ "nbd://h/%1", "wrong %-escape" },
		{ "nbd://h/%00", "wrong %-escape" },
		{ "nbd://h/a%0ab", "control character" },
		{ "nbd://h/%zz", "wrong %-escape" },
		{ "nbd://h/?socket=/s", "\"socket\" means nothing" },
		{ "nbd://h/?tls-psk-file=/p", "configuration file" },
		{ "nbd+unix:///e", "?socket=" },
		{ "nbd+unix:///e?socket=s", "absolute" },
		{ "nbd+unix://h/e?socket=/s", "no host" },
		{ "nbd+vsock://x/", "not a vsock CID" },
	};
	char long_path[200] = "nbd+unix:///?socket=/";

	(void)state;
	memset(long_path + strlen(long_path), 'x', 120);
	for (size_t i = 0; i <= ARRAY_SIZE(bad); i++) {
		bool last = i == ARRAY_SIZE(bad);
		char why[SERVER_TEXT_MAX];
		struct server server;

		assert_int_equal(server_parse(last ? long_path : bad[i][0],
					      &server, why),
				 -EINVAL);
		if (!strstr(why, last ? "longer than 107" : bad[i][1]))
			fail_msg("%s: %s", last ? long_path : bad[i][0], why);
	}
}

/* --- Connections --------------------------------------------------------------- */

struct call {
	struct fixture *fixture;
	int pending;
	bool over; /* the errand is */
	struct errand *errand;
};

static void on_over(void *ctx, struct errand_result *results)
{
	struct call *call = ctx;

	(void)results;
	call->over = true;
}

static int setup(void **state)
{
	struct call *call = calloc(1, sizeof(*call));

	call->fixture = fixture_new();
	call->pending = -1;
	*state = call;
	return 0;
}

static int teardown(void **state)
{
	struct call *call = *state;

	if (call->pending >= 0)
		(void)close(call->pending);
	fixture_free(call->fixture);
	free(call);
	return 0;
}

/* Returns what was said; *ret_fd is what came with it. */
static struct msg_text reach(struct call *call, const char *uri, int *ret_fd)
{
	static unsigned char buf[MSG_MAX] __attribute__((aligned(16)));
	size_t length;

	assert_int_equal(connector_start(&call->errand, &call->fixture->broker,
					 uri, &call->pending, on_over, call),
			 0);
	assert_true(fixture_run(call->fixture, &call->over));
	assert_int_equal(msg_receive(call->pending, buf, &length, ret_fd), 0);
	assert_int_equal(((struct msg_header *)(void *)buf)->type, MSG_REACHED);
	return *(struct msg_text *)(void *)buf;
}

static int listen_unix(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)),
			 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

/* Is the other end of fd whom the listener meets? */
static void assert_connected(int fd, int listener)
{
	cleanup_close int met = accept(listener, NULL, NULL);
	char c = 0;

	assert_true(met >= 0);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(read(met, &c, 1), 1);
	assert_int_equal(c, 'x');
}

static void test_unix(void **state)
{
	struct call *call = *state;
	cleanup_free char *path = strdup(fixture_path(call->fixture, "s"));
	cleanup_free char *uri = xasprintf("nbd+unix:///?socket=%s", path);
	cleanup_close int listener = listen_unix(path);
	cleanup_close int fd = -1;

	assert_int_equal(reach(call, uri, &fd).h.result, 0);
	assert_connected(fd, listener);
}

static void test_tcp_by_name(void **state)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	cleanup_close int listener =
		socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t length = sizeof(address);
	cleanup_free char *uri = NULL;
	cleanup_close int fd = -1;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, length),
			 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(
		getsockname(listener, (struct sockaddr *)&address, &length), 0);
	uri = xasprintf("nbd://localhost:%u/", ntohs(address.sin_port));
	assert_int_equal(reach(*state, uri, &fd).h.result, 0);
	assert_connected(fd, listener);
}

static void test_nobody_there(void **state)
{
	struct call *call = *state;
	cleanup_free char *uri = xasprintf("nbd+unix:///?socket=%s",
					   fixture_path(call->fixture, "s"));
	struct msg_text said;
	int fd;

	said = reach(call, uri, &fd);
	assert_int_equal(said.h.result, -ENOENT);
	assert_int_equal(fd, -1);
	assert_non_null(strstr(said.text, "No such file"));
}

/* The asker hears of it when the child is killed. */
static void test_cancel(void **state)
{
	struct call *call = *state;
	cleanup_free char *path = strdup(fixture_path(call->fixture, "s"));
	cleanup_free char *uri = xasprintf("nbd+unix:///?socket=%s", path);
	struct pollfd pfd = { .events = POLLIN };
	char why[SERVER_TEXT_MAX], c;
	struct server server;
	cleanup_close int listener = listen_unix(path);
	cleanup_close int first = -1;
	cleanup_close int second = -1;
	int nr;

	assert_true(listener >= 0);
	/* Nobody accepts: who comes when its queue is full has to wait. */
	assert_int_equal(server_parse(uri, &server, why), 0);
	first = server_connect(&server, why);
	second = server_connect(&server, why);
	assert_true(first >= 0 && second >= 0);
	assert_int_equal(connector_start(&call->errand, &call->fixture->broker,
					 uri, &call->pending, on_over, call),
			 0);
	errand_cancel(call->errand);
	pfd.fd = call->pending;
	do /* the errand's end is a signal */
		nr = poll(&pfd, 1, 5000);
	while (nr < 0 && errno == EINTR);
	assert_int_equal(nr, 1);
	assert_int_equal(read(call->pending, &c, 1), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_tcp_limits),
		cmocka_unit_test(test_end_is_the_end),
		cmocka_unit_test_setup_teardown(test_unix, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tcp_by_name, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_nobody_there, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
		/* In another network from here on. */
		cmocka_unit_test(test_deaf),
	};

	if (argc == 3 && strcmp(argv[1], "--connect") == 0)
		return connector_main(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
