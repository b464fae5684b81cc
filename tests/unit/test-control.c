/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control socket, spoken to as a client would, over a bus with two disks
 * that are made up here.
 */
#include "config.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "broker-fixture.h"
#include "broker/control.h"
#include "broker/io.xendisk.varlink.h"
#include "broker/methods.h"
#include "broker/registry.h"
#include "broker/store.h"
#include "common/log.h"
#include "common/util.h"
#include "fake-bus.h"

/* --- A client --------------------------------------------------------------------- */

static int setup(void **state)
{
	struct fixture *fixture = fixture_new();

	assert_int_equal(registry_load(&fixture->broker.registry, fixture->dir),
			 0);
	assert_int_equal(
		control_start(&fixture->broker.control, &fixture->broker), 0);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	control_free(fixture->broker.control);
	registry_free(fixture->broker.registry);
	fixture_free(fixture);
	return 0;
}

static int connect_to(const struct fixture *fixture)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(address.sun_path, fixture_path(fixture, "control.sock"));
	assert_int_equal(
		connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* Lets the daemon work for a moment. */
static void turn(struct fixture *fixture)
{
	struct timeval tick = { .tv_usec = 20000 };

	(void)event_base_loopexit(fixture->broker.base, &tick);
	(void)event_base_dispatch(fixture->broker.base);
}

static void send_text(int fd, const char *text, size_t length)
{
	assert_int_equal(send(fd, text, length, MSG_NOSIGNAL), length);
}

/* The next answer; NULL when the daemon hung up. */
static json_t *receive(struct fixture *fixture, int fd)
{
	static char buf[1 << 17];
	size_t length = 0;

	for (int i = 0; i < 200; i++) {
		ssize_t n = recv(fd, buf + length, 1, 0);

		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return NULL;
		if (n < 0) {
			turn(fixture);
			continue;
		}
		i = 0;
		if (buf[length++] == '\0')
			return json_loads(buf, 0, NULL);
	}
	fail_msg("no answer");
	return NULL;
}

/* Sends text with its NUL on a connection of its own. */
static json_t *call(struct fixture *fixture, const char *text)
{
	int fd = connect_to(fixture);
	json_t *answer;

	send_text(fd, text, strlen(text) + 1);
	answer = receive(fixture, fd);
	(void)close(fd);
	turn(fixture);
	return answer;
}

static void expect_error(struct fixture *fixture, const char *text,
			 const char *error, const char *member,
			 const char *value)
{
	json_t *answer = call(fixture, text);
	const char *found_error = NULL;
	const char *found = NULL;

	assert_non_null(answer);
	assert_int_equal(json_unpack(answer, "{s:s, s:{s:s}}", "error",
				     &found_error, "parameters", member,
				     &found),
			 0);
	assert_string_equal(found_error, error);
	assert_string_equal(found, value);
	json_decref(answer);
}

/* --- The tests ---------------------------------------------------------------------- */

static void test_list(void **state)
{
	json_t *answer = call(*state, "{\"method\":\"io.xendisk.List\"}");
	const char *domain;
	const char *condition;
	const char *reason;
	json_int_t size;
	json_t *list;

	assert_int_equal(json_unpack(answer, "{s:{s:o}}", "parameters", "disks",
				     &list),
			 0);
	assert_int_equal(json_array_size(list), 2);
	assert_int_equal(json_unpack(json_array_get(list, 0),
				     "{s:s, s:[s], s:s, s:I}", "domain",
				     &domain, "conditions", &condition,
				     "reason", &reason, "size", &size),
			 0);
	assert_string_equal(domain, "web1");
	assert_string_equal(condition, "paused");
	assert_string_equal(reason, "(not UTF-8)");
	assert_int_equal(size, 1 << 30);
	json_decref(answer);

	answer = call(*state, "{\"method\":\"io.xendisk.List\","
			      "\"parameters\":{\"domid\":7}}");
	assert_int_equal(
		json_array_size(json_object_get(
			json_object_get(answer, "parameters"), "disks")),
		1);
	json_decref(answer);
}

static void test_show(void **state)
{
	json_t *answer = call(*state,
			      "{\"method\":\"io.xendisk.Show\","
			      "\"parameters\":{\"domid\":5,\"devid\":51728}}");
	const char *backend;

	assert_int_equal(json_unpack(answer, "{s:{s:n, s:{s:s}}}", "parameters",
				     "tree", "backend", "state", &backend),
			 0);
	assert_string_equal(backend, "4");
	json_decref(answer);
}

/* Numbers are numbers where the key says so, and where it is one. */
static void test_snapshot(void **state)
{
	static const char *const places[] = { "\"domid\":5,\"devid\":51728",
					      "\"name\":\"@web\"",
					      "\"name\":\"web1\"" };
	json_t *answer;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		cleanup_free char *take = xasprintf(
			"{\"method\":\"io.xendisk.Snapshot\",\"parameters\":"
			"{%s,\"message\":\"a\\nb\"}}",
			places[i]);
		cleanup_free char *look =
			xasprintf("{\"method\":\"io.xendisk.Status\","
				  "\"parameters\":{%s,\"id\":7}}",
				  places[i]);
		cleanup_free char *text = NULL;

		answer = call(*state, take);
		text = json_dumps(answer, JSON_COMPACT);
		assert_string_equal(text, "{\"parameters\":{\"id\":7}}");
		json_decref(answer);
		/* An export is nobody's, for all that is asked here. */
		assert_string_equal(fake_asked,
				    i == 2 ? "snapshot: message=a\\nb\n" :
					     "snapshot: message=a\\nb\n"
					     "domain=web1\n");
		free(text);
		answer = call(*state, look);
		text = json_dumps(answer, JSON_COMPACT);
		assert_string_equal(text,
				    "{\"parameters\":{\"status\":{"
				    "\"branch\":\"main\",\"dirty\":4096,"
				    "\"head\":\"1234\",\"space\":\"much\","
				    "\"odd\":\"(not UTF-8)\"}}}");
		json_decref(answer);
		assert_non_null(strstr(fake_asked, "status: id=7\n"));
	}
}

static void test_message_too_long(void **state)
{
	cleanup_free char *text = NULL;
	char message[MSG_CONTROL_MAX];

	memset(message, 'x', sizeof(message) - 1);
	message[sizeof(message) - 1] = '\0';
	text = xasprintf("{\"method\":\"io.xendisk.Snapshot\",\"parameters\":"
			 "{\"name\":\"@web\",\"message\":\"%s\"}}",
			 message);
	expect_error(*state, text, "io.xendisk.Failed", "message",
		     "the message is too long");
}

/* What may have been meant is named. */
static void test_wrong_names(void **state)
{
	expect_error(*state,
		     "{\"method\":\"io.xendisk.Show\","
		     "\"parameters\":{\"domid\":5,\"devid\":51712}}",
		     "io.xendisk.NoSuchDisk", "message",
		     "domain 5 (web1) has no disk xvda of xendiskd's; it has "
		     "xvdb");
	expect_error(*state,
		     "{\"method\":\"io.xendisk.Unexport\","
		     "\"parameters\":{\"name\":\"wbe1\"}}",
		     "io.xendisk.NoSuchExport", "message",
		     "there is no export \"wbe1\"; did you mean \"web1\"?");
}

static void test_errors(void **state)
{
#define SERVICE	 "org.varlink.service."
#define SNAPSHOT "{\"method\":\"io.xendisk.Snapshot\",\"parameters\":"
#define STATUS	 "{\"method\":\"io.xendisk.Status\",\"parameters\":"
	static const struct {
		const char *request;
		const char *error;
		const char *member;
		const char *value;
	} cases[] = {
		{ "{\"method\":\"io.xendisk.Lost\"}", SERVICE "MethodNotFound",
		  "method", "io.xendisk.Lost" },
		{ "{\"method\":\"io.other.List\"}", SERVICE "InterfaceNotFound",
		  "interface", "io.other" },
		{ "{\"method\":\"List\"}", SERVICE "InterfaceNotFound",
		  "interface", "" },
		{ "{\"method\":\"io.xendisk.Show\","
		  "\"parameters\":{\"domid\":5}}",
		  SERVICE "InvalidParameter", "parameter", "devid" },
		{ "{\"method\":\"io.xendisk.Show\","
		  "\"parameters\":{\"domid\":\"5\",\"devid\":1}}",
		  SERVICE "InvalidParameter", "parameter", "domid" },
		{ "{\"method\":\"io.xendisk.Show\","
		  "\"parameters\":{\"domid\":-1,\"devid\":1}}",
		  SERVICE "InvalidParameter", "parameter", "domid" },
		{ "{\"method\":\"io.xendisk.List\","
		  "\"parameters\":{\"colour\":1}}",
		  SERVICE "InvalidParameter", "parameter", "colour" },
		{ "{\"method\":\"io.xendisk.List\",\"upgrade\":true}",
		  SERVICE "InvalidParameter", "parameter", "upgrade" },
		{ "{\"method\":\"io.xendisk.Show\","
		  "\"parameters\":{\"domid\":9,\"devid\":1}}",
		  "io.xendisk.NoSuchDisk", "message",
		  "domain 9 (web1) has no disk 1 of xendiskd's" },
		{ "{\"method\":\"io.xendisk.HotplugAdd\","
		  "\"parameters\":{\"path\":\"now\"}}",
		  "io.xendisk.Refused", "message", "in use" },
		{ "{\"method\":\"io.xendisk.HotplugRemove\","
		  "\"parameters\":{\"path\":\"x\"}}",
		  "io.xendisk.Failed", "message", "the last flush failed" },
		{ SNAPSHOT "{\"domid\":7,\"devid\":51712}}",
		  "io.xendisk.Refused", "message",
		  "this disk cannot make snapshots; one of git can, see "
		  "xendisk-git(7)" },
		{ STATUS "{\"domid\":7,\"devid\":51712}}", "io.xendisk.Refused",
		  "message",
		  "this disk has no status, \"xendisk show\" tells what there "
		  "is; one of git has, see xendisk-git(7)" },
		{ SNAPSHOT "{\"name\":\"@web\",\"message\":\"refuse\"}}",
		  "io.xendisk.Refused", "message",
		  "git: 4 snapshots are pending" },
		{ SNAPSHOT "{\"name\":\"@web\",\"message\":\"unnumbered\"}}",
		  "io.xendisk.Failed", "message",
		  "the backend gave the snapshot no number" },
		{ SNAPSHOT "{\"name\":\"@wob\"}}", "io.xendisk.NoSuchDisk",
		  "message",
		  "no domain has a disk \"@wob\"; did you mean \"@web\"?" },
		{ SNAPSHOT "{\"name\":\"@other\"}}", "io.xendisk.NoSuchDisk",
		  "message", "no domain has a disk \"@other\"" },
		{ SNAPSHOT "{\"name\":\"wob\"}}", "io.xendisk.NoSuchExport",
		  "message",
		  "there is no export \"wob\"; known: web1; a guest's disk is "
		  "DOM VDEV, or @NAME" },
		{ SNAPSHOT "{\"name\":\"@web\",\"domid\":5}}",
		  SERVICE "InvalidParameter", "parameter", "name" },
		{ SNAPSHOT "{\"name\":\"@web\",\"consistency\":\"good\"}}",
		  SERVICE "InvalidParameter", "parameter", "consistency" },
		{ SNAPSHOT "{}}", SERVICE "InvalidParameter", "parameter",
		  "domid" },
		{ SNAPSHOT "{\"domid\":5}}", SERVICE "InvalidParameter",
		  "parameter", "devid" },
		{ "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
		  "\"parameters\":{\"interface\":\"a.b\"}}",
		  SERVICE "InterfaceNotFound", "interface", "a.b" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		expect_error(*state, cases[i].request, cases[i].error,
			     cases[i].member, cases[i].value);
}

/* What is no call at all: the client goes, the daemon stays. */
static void test_malformed(void **state)
{
	static const char *const texts[] = {
		"",
		"{",
		"[]",
		"null",
		"{}",
		"{\"method\":1}",
		"{\"method\":\"io.xendisk.List\",\"parameters\":[]}",
		"{\"method\":\"a\",\"method\":\"b\"}",
		"{\"method\":\"io.xendisk.List\"} x",
		"\xff\xfe",
	};
	json_t *answer;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		assert_null(call(*state, texts[i]));
	answer = call(*state, "{\"method\":\"io.xendisk.Version\"}");
	assert_non_null(answer);
	json_decref(answer);
}

static void test_too_long(void **state)
{
	static char text[70000];
	struct fixture *fixture = *state;
	json_t *answer;
	int fd = connect_to(fixture);
	int size = 1 << 18;

	/* 65536 bytes are in order ... */
	memset(text, ' ', sizeof(text));
	memcpy(text, "{\"method\":\"io.xendisk.Version\"}", 31);
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	text[65536] = '\0';
	send_text(fd, text, 65537);
	answer = receive(fixture, fd);
	assert_non_null(answer);
	json_decref(answer);
	/* ... one more is not, ended or not. */
	text[65536] = ' ';
	send_text(fd, text, 65537);
	assert_null(receive(fixture, fd));
	(void)close(fd);
}

static void test_byte_by_byte_and_pipelined(void **state)
{
	const char one[] = "{\"method\":\"io.xendisk.Version\"}";
	struct fixture *fixture = *state;
	int fd = connect_to(fixture);
	json_t *answer;

	for (size_t i = 0; i < sizeof(one); i++) {
		send_text(fd, one + i, 1);
		if (i % 8 == 0)
			turn(fixture);
	}
	send_text(fd, one, sizeof(one));
	send_text(fd, one, sizeof(one));
	(void)shutdown(fd, SHUT_WR);
	for (int i = 0; i < 3; i++) {
		answer = receive(fixture, fd);
		assert_non_null(answer);
		json_decref(answer);
	}
	assert_null(receive(fixture, fd));
	(void)close(fd);
}

/* A request that does not end in time. */
static void test_slow_request(void **state)
{
	struct fixture *fixture = *state;
	uint64_t begin = now_ns();
	int fd = connect_to(fixture);

	send_text(fd, "{", 1);
	while (now_ns() - begin < 4500000000ull) {
		char byte;

		turn(fixture);
		/* Going on sending does not give it more time. */
		if (send(fd, " ", 1, MSG_NOSIGNAL) < 0)
			break;
		assert_int_equal(recv(fd, &byte, 1, 0), -1);
	}
	assert_true(now_ns() - begin >= 4500000000ull);
	assert_null(receive(fixture, fd));
	assert_true(now_ns() - begin < 6500000000ull);
	(void)close(fd);
}

/* One who asks and never reads the answers. */
static void test_slow_reader(void **state)
{
	const char one[] = "{\"method\":\"org.varlink.service."
			   "GetInterfaceDescription\",\"parameters\":"
			   "{\"interface\":\"io.xendisk\"}}";
	struct fixture *fixture = *state;
	uint64_t begin = now_ns();
	int fd = connect_to(fixture);
	struct pollfd p = { .fd = fd };

	do {
		while (send(fd, one, sizeof(one), MSG_NOSIGNAL) > 0)
			;
		turn(fixture);
		(void)poll(&p, 1, 0);
	} while (!(p.revents & POLLHUP) && now_ns() - begin < 9000000000ull);
	assert_true(p.revents & POLLHUP);
	(void)close(fd);
}

/* Deferred answers, and clients that do not wait for them. */
static void test_deferred(void **state)
{
	const char add[] = "{\"method\":\"io.xendisk.HotplugAdd\","
			   "\"parameters\":{\"path\":\"later\"}}";
	struct fixture *fixture = *state;
	int fd = connect_to(fixture);
	json_t *answer;

	fake_pending_done = NULL;
	send_text(fd, add, sizeof(add));
	turn(fixture);
	assert_non_null(fake_pending_done);
	fake_pending_done(fake_pending_ctx, 0, NULL);
	answer = receive(fixture, fd);
	assert_non_null(json_object_get(answer, "parameters"));
	json_decref(answer);

	fake_pending_done = NULL;
	send_text(fd, add, sizeof(add));
	turn(fixture);
	assert_non_null(fake_pending_done);
	(void)close(fd);
	turn(fixture);
	fake_pending_done(fake_pending_ctx, 0, NULL);
	turn(fixture);
}

/* Who ends a call may still be at it: the next one waits until that is over, also
 * behind one that has no answer to be sent. */
static void test_next_call(void **state)
{
	const char add[] = "{\"method\":\"io.xendisk.HotplugAdd\",\"oneway\":"
			   "true,\"parameters\":{\"path\":\"later\"}}";
	struct fixture *fixture = *state;
	int fd = connect_to(fixture);
	vbd_done_fn done;

	fake_pending_done = NULL;
	send_text(fd, add, sizeof(add));
	send_text(fd, add, sizeof(add));
	turn(fixture);
	done = fake_pending_done;
	assert_non_null(done);
	fake_pending_done = NULL;
	done(fake_pending_ctx, 0, NULL);
	assert_null(fake_pending_done);
	turn(fixture);
	assert_non_null(fake_pending_done);
	fake_pending_done(fake_pending_ctx, 0, NULL);
	turn(fixture);
	(void)close(fd);
}

static bool answered(struct fixture *fixture, int fd)
{
	char byte;

	for (int i = 0; i < 5; i++)
		turn(fixture);
	return recv(fd, &byte, 1, MSG_PEEK) == 1;
}

/* Has the daemon hung up? */
static bool dropped(struct fixture *fixture, int fd)
{
	char byte;

	turn(fixture);
	return recv(fd, &byte, 1, 0) == 0;
}

/* Clients that are in the middle of something fill the table; one that waits
 * for a disk has no part in it. */
static void test_many_clients(void **state)
{
	const char add[] = "{\"method\":\"io.xendisk.HotplugAdd\","
			   "\"parameters\":{\"path\":\"later\"}}";
	const char one[] = "{\"method\":\"io.xendisk.Version\"}";
	struct fixture *fixture = *state;
	int waiting = connect_to(fixture);
	int slow[16];
	int late;

	fake_pending_done = NULL;
	send_text(waiting, add, sizeof(add));
	turn(fixture);
	assert_non_null(fake_pending_done);
	for (size_t i = 0; i < ARRAY_SIZE(slow); i++) {
		slow[i] = connect_to(fixture);
		send_text(slow[i], one, 3);
	}
	turn(fixture);
	late = connect_to(fixture);
	send_text(late, one, sizeof(one));
	assert_false(answered(fixture, late));
	(void)close(slow[0]);
	assert_true(answered(fixture, late));
	for (size_t i = 1; i < ARRAY_SIZE(slow); i++)
		(void)close(slow[i]);
	(void)close(late);
	fake_pending_done(fake_pending_ctx, 0, NULL);
	assert_true(answered(fixture, waiting));
	(void)close(waiting);
}

/* Silent ones make room, the one that has been silent for longest first. */
static void test_silent_clients(void **state)
{
	const char one[] = "{\"method\":\"io.xendisk.Version\"}";
	struct fixture *fixture = *state;
	int silent[16];
	int late;

	for (size_t i = 0; i < ARRAY_SIZE(silent); i++) {
		silent[i] = connect_to(fixture);
		turn(fixture);
	}
	send_text(silent[0], one, sizeof(one));
	json_decref(receive(fixture, silent[0]));
	late = connect_to(fixture);
	send_text(late, one, sizeof(one));
	assert_true(answered(fixture, late));
	assert_true(dropped(fixture, silent[1]));
	send_text(silent[0], one, sizeof(one));
	assert_true(answered(fixture, silent[0]));
	for (size_t i = 0; i < ARRAY_SIZE(silent); i++)
		(void)close(silent[i]);
	(void)close(late);
}

static void test_socket_mode(void **state)
{
	struct stat st;

	assert_int_equal(stat(fixture_path(*state, "control.sock"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

/* Every method of the interface is there, and no other. */
static void test_interface_is_complete(void **state)
{
	const char *p = io_xendisk_description;
	size_t described = 0;
	size_t present = 0;

	(void)state;
	while ((p = strstr(p, "\nmethod "))) {
		char name[64];
		bool found = false;

		assert_int_equal(sscanf(p, "\nmethod %40[A-Za-z]", name), 1);
		described++;
		p += 8;
		for (const struct method *m = methods; m->name; m++)
			found = found ||
				(strncmp(m->name, "io.xendisk.", 11) == 0 &&
				 strcmp(m->name + 11, name) == 0);
		if (!found)
			fail_msg("method %s is missing", name);
	}
	for (const struct method *m = methods; m->name; m++)
		present += strncmp(m->name, "io.xendisk.", 11) == 0;
	assert_int_equal(described, present);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_list),
		TEST(test_show),
		TEST(test_snapshot),
		TEST(test_message_too_long),
		TEST(test_errors),
		TEST(test_wrong_names),
		TEST(test_malformed),
		TEST(test_too_long),
		TEST(test_byte_by_byte_and_pipelined),
		TEST(test_slow_request),
		TEST(test_slow_reader),
		TEST(test_deferred),
		TEST(test_next_call),
		TEST(test_many_clients),
		TEST(test_silent_clients),
		TEST(test_socket_mode),
		TEST(test_interface_is_complete),
	};

	(void)signal(SIGPIPE, SIG_IGN); /* as main() does */
	log_init("test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
