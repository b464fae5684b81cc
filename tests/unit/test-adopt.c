/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Taking over the worker of a broker that died: one that says what is true, and
 * those that do not.  The first broker is a child of this program which ends;
 * what its worker does then is said by its expression, fake(BEHAVIOUR).
 */
#include "config.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "broker/keep.h"
#include "broker/orphans.h"
#include "supervise-fixture.h"

/* --- The fake worker --------------------------------------------------------- */

static char behaviour[32];
static struct msg_opened opened = {
	.limits = { .size = 1 << 20,
		    .sector_size = 512,
		    .physical_sector_size = 4096 },
	.max_rings = 4,
	.max_ring_order = 4,
	.nr_identities = 1,
	.identity = { STORAGE },
};
static struct msg_serving serving;

static bool is(const char *what)
{
	return strcmp(behaviour, what) == 0;
}

static void say_hello(void)
{
	struct msg_hello hello = { .id = { 5, 51728, 0, "vm" },
				   .pid = (uint32_t)getpid() };

	fake_say(&hello, sizeof(hello), MSG_HELLO, 0);
}

static void lie_hello(void)
{
	struct msg_hello hello = { .id = { 5, 51728, 0, "vm" },
				   .pid = (uint32_t)getpid() };

	if (is("hello-pid"))
		hello.pid++;
	else if (is("hello-domid"))
		hello.id.domid++;
	else if (is("hello-devid"))
		hello.id.devid++;
	else if (is("hello-backend"))
		hello.id.backend_domid++;
	else if (is("hello-vm"))
		hello.id.vm[0] = 'V';
	fake_say(&hello, sizeof(hello), MSG_HELLO, 0);
	if (is("hello-twice"))
		fake_say(&hello, sizeof(hello), MSG_HELLO, 0);
}

static void lie_opened(void)
{
	uint32_t seq = is("opened-seq") ? 7 : 0;

	if (is("opened-identity"))
		opened.identity[0][0] = 'F';
	else if (is("opened-more"))
		opened.nr_identities = 2;
	else if (is("opened-size"))
		opened.limits.size *= 2;
	if (!is("opened-never"))
		fake_say(&opened, sizeof(opened), MSG_OPENED, seq);
	if (is("opened-twice"))
		fake_say(&opened, sizeof(opened), MSG_OPENED, 0);
}

static void lie_serving(void)
{
	struct msg_service service = { .kind = MSG_SERVICE_POISON };

	if (is("serving-rings"))
		serving.connect.nr_rings = XD_MAX_RINGS + 1;
	else if (is("serving-refs"))
		serving.connect.ring[0].nr_refs = XD_MAX_RING_PAGES + 1;
	else if (is("serving-unused"))
		serving.connect.nr_rings = 1;
	else if (is("budget-huge"))
		serving.budget = UINT64_MAX;
	else if (is("budget"))
		serving.budget = 1 << 19;
	if (is("service-early"))
		fake_say(&service, sizeof(service), MSG_SERVICE, 1);
	fake_say(&serving, sizeof(serving), MSG_SERVING, 0);
	if (is("serving-twice"))
		fake_say(&serving, sizeof(serving), MSG_SERVING, 0);
}

static void lie_raw(void)
{
	struct msg_hello hello = { .h = { .type = MSG_HELLO,
					  .version = MSG_VERSION + 1,
					  .length = sizeof(hello) },
				   .id = { 5, 51728, 0, "vm" },
				   .pid = (uint32_t)getpid() };

	if (is("raw-version"))
		(void)!write(fake_sock, &hello, sizeof(hello));
	else if (is("raw-bytes"))
		(void)!write(fake_sock, "rubbish", 7);
	else if (is("raw-descriptor"))
		(void)msg_send(fake_sock, &hello, sizeof(hello), MSG_HELLO, 2);
}

static void tell_conditions(void)
{
	struct msg_condition paused = { .kind = MSG_PAUSED, .set = 1 };
	struct msg_text broken = { .text = "broken" };

	if (is("paused"))
		fake_say(&paused, sizeof(paused), MSG_CONDITION, 0);
	if (is("broken"))
		fake_say(&broken, sizeof(broken), MSG_BROKEN, 0);
}

static void meet_next_broker(void)
{
	int listener = atoi(getenv("XENDISK_WORKER_LISTENER"));
	struct pollfd pfd = { .fd = listener, .events = POLLIN };

	(void)poll(&pfd, 1, -1);
	(void)close(fake_sock);
	fake_sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fake_sock < 0)
		_exit(20);
	if (is("exits"))
		_exit(0);
	if (is("stopped"))
		(void)raise(SIGSTOP);
	if (is("silent"))
		(void)pause();
	if (is("hangs-up"))
		(void)close(fake_sock);
	lie_raw();
	lie_hello();
	lie_opened();
	lie_serving();
	tell_conditions();
}

/* The broker's end may be the first or the next one's. */
static const struct msg_header *hear(void)
{
	size_t length;
	int fd;

	for (;;) {
		int r = msg_receive(fake_sock, fake_buf, &length, &fd);

		if (r == 0)
			return (const struct msg_header *)fake_buf;
		if (r != -ECONNRESET)
			_exit(21);
		meet_next_broker();
	}
}

static _Noreturn void fake_worker(void)
{
	struct msg_header done = { .type = 0 };
	int null = open("/dev/null", O_RDWR);

	/* Should a test fail, nobody waits for the end of an orphan's output. */
	(void)dup2(null, STDOUT_FILENO);
	(void)dup2(null, STDERR_FILENO);
	fake_sock = atoi(getenv("XENDISK_WORKER_SOCKET"));
	(void)snprintf(opened.notes, sizeof(opened.notes), "%s",
		       getenv("XENDISK_WORKER_UID"));
	say_hello();
	for (;;) {
		const struct msg_header *header = hear();

		switch (header->type) {
		case MSG_OPEN:
			sscanf(((const struct msg_open *)header)->expression,
			       "fake(%31[a-z0-9-]", behaviour);
			fake_say(&opened, sizeof(opened), MSG_OPENED,
				 header->seq);
			break;
		case MSG_CONNECT:
			memcpy(&serving.connect, header,
			       sizeof(serving.connect));
			fake_say(&done, sizeof(done), MSG_CONNECTED,
				 header->seq);
			break;
		case MSG_DISCONNECT:
			fake_say_text(MSG_DISCONNECTED, header->seq, 0, "");
			break;
		default:
			_exit(0);
		}
	}
}

/* --- The broker that dies ------------------------------------------------------ */

static const struct msg_connect connection = {
	.abi = MSG_ABI_X86_64,
	.nr_rings = 2,
	.ring = { { 7, 2, { 100, 101 } }, { 8, 2, { 102, 103 } } },
};

/* An assertion would go on with the other tests, in this process too. */
static void must(bool true_here)
{
	if (!true_here)
		_exit(1);
}

static void must_see(struct seen *seen, const char *event)
{
	must(fixture_run(seen->fixture, &seen->any) &&
	     strcmp(seen->event, event) == 0 && seen->err == 0);
	seen->any = false;
}

/* In the child: has a worker open, and perhaps connect, and dies. */
static _Noreturn void live_and_die(void **state, const char *what, bool connect,
				   int out)
{
	struct seen *seen = *state;
	pid_t pid;

	must(event_reinit(seen->fixture->broker.base) == 0);
	start(state, "fake(%s)", what);
	must_see(seen, "opened");
	if (connect) {
		must(worker_connect(seen->worker, &connection) == 0);
		must_see(seen, "connected");
	}
	pid = worker_pid(seen->worker);
	must(write(out, &pid, sizeof(pid)) == sizeof(pid));
	_exit(0);
}

static pid_t leave_orphan(void **state, const char *what, bool connect)
{
	pid_t child, pid = 0;
	int pair[2];

	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	child = fork();
	if (child == 0)
		live_and_die(state, what, connect, pair[1]);
	(void)close(pair[1]);
	assert_int_equal(read(pair[0], &pid, sizeof(pid)), sizeof(pid));
	(void)close(pair[0]);
	assert_int_equal(waitpid(child, NULL, 0), child);
	return pid;
}

static void next_broker(void **state)
{
	struct seen *seen = *state;
	struct broker *broker = &seen->fixture->broker;

	supervisor_free(broker->supervisor);
	keep_free(broker->keep); /* it knows what there was when it began */
	assert_int_equal(keep_new(&broker->keep, seen->fixture->dir, 1 << 20),
			 0);
	assert_int_equal(supervisor_new(&broker->supervisor, broker), 0);
}

/* Returns the orphan, and is the next broker. */
static pid_t inherit_orphan(void **state, const char *what, bool connect)
{
	pid_t pid = leave_orphan(state, what, connect);

	next_broker(state);
	return pid;
}

/* --- The tests ------------------------------------------------------------------ */

static struct seen *adopt_good(void **state, const char *what, bool connect)
{
	pid_t pid = inherit_orphan(state, what, connect);
	struct seen *seen = start(state, "fake(%s)", what);

	expect(seen, "opened", 0);
	assert_int_equal(worker_pid(seen->worker), pid);
	assert_int_equal(worker_restarts(seen->worker), 0);
	assert_int_equal(worker_is_held(seen->worker), connect);
	return seen;
}

static void test_open(void **state)
{
	struct seen *seen = adopt_good(state, "good", false);

	assert_int_equal(worker_connect(seen->worker, &connection), 0);
	expect(seen, "connected", 0);
	assert_int_equal(worker_disconnect(seen->worker), 0);
	expect(seen, "disconnected", 0);
}

static void test_connected(void **state)
{
	struct seen *seen = adopt_good(state, "good", true);

	assert_int_equal(worker_connect(seen->worker, &connection), 0);
	expect(seen, "connected", 0);
	assert_false(worker_is_held(seen->worker));
	assert_int_equal(worker_disconnect(seen->worker), 0);
	expect(seen, "disconnected", 0);
	assert_int_equal(worker_restarts(seen->worker), 0);
}

static void test_disconnect_at_once(void **state)
{
	struct seen *seen = adopt_good(state, "good", true);

	assert_int_equal(worker_disconnect(seen->worker), 0);
	expect(seen, "disconnected", 0);
}

/* It is not our child: its death is noticed all the same. */
static void test_death(void **state)
{
	struct seen *seen = adopt_good(state, "good", true);

	assert_int_equal(kill(worker_pid(seen->worker), SIGKILL), 0);
	expect(seen, "died", 0);
	assert_string_equal(seen->text, "the worker ended");
	assert_int_equal(worker_open(seen->worker), 0);
	expect(seen, "opened", 0);
	assert_int_equal(worker_restarts(seen->worker), 1);
}

static void test_conditions(void **state)
{
	struct seen *seen = adopt_good(state, "paused", true);

	assert_true(fixture_run(seen->fixture, &seen->paused));
	assert_false(seen->poisoned);
}

static void test_broken(void **state)
{
	struct seen *seen = adopt_good(state, "broken", true);

	expect(seen, "broken", 0);
}

static void test_stop(void **state)
{
	struct seen *seen = adopt_good(state, "good", true);
	pid_t pid = worker_pid(seen->worker);

	worker_free(TAKE_PTR(seen->worker));
	supervisor_free(TAKE_PTR(seen->fixture->broker.supervisor));
	while (kill(pid, 0) == 0) /* until init has reaped it */
		assert_int_equal(usleep(1000), 0);
}

/* The guest has made new rings while there was no broker. */
static void other_rings(void **state, struct msg_connect *other)
{
	struct seen *seen = adopt_good(state, "good", true);

	assert_int_equal(worker_connect(seen->worker, other), 0);
	expect(seen, "died", 0);
	assert_non_null(strstr(seen->text, "rings"));
	worker_free(TAKE_PTR(seen->worker));
}

static void test_other_rings(void **state)
{
	struct msg_connect other = connection;

	other.ring[1].event_channel = 9;
	other_rings(state, &other);
	other = connection;
	other.ring[1].ref[1] = 104;
	other_rings(state, &other);
	other = connection;
	other.nr_rings = 1;
	other_rings(state, &other);
	other = connection;
	other.abi = MSG_ABI_X86_32;
	other_rings(state, &other);
	other = connection;
	other.discard = 1;
	other_rings(state, &other);
	other = connection;
	other.flags = MSG_CONNECT_PERSISTENT;
	other_rings(state, &other);
}

static bool is_dead(pid_t pid)
{
	char path[64];
	char text[512] = "";
	cleanup_close int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY);
	if (fd >= 0)
		(void)!read(fd, text, sizeof(text) - 1);
	return fd < 0 || strstr(text, ") Z ") || strstr(text, ") X ");
}

/* Another process serves the disk, and that one is no more. */
static void expect_replaced(struct seen *seen, pid_t orphan)
{
	expect(seen, "opened", 0);
	assert_true(is_dead(orphan));
	assert_int_not_equal(worker_pid(seen->worker), orphan);
	assert_false(worker_is_held(seen->worker));
}

static void test_lies(void **state)
{
	static const char *const lies[] = {
		"exits",	  "stopped",	     "silent",
		"hangs-up",	  "raw-version",     "raw-bytes",
		"raw-descriptor", "hello-pid",	     "hello-domid",
		"hello-devid",	  "hello-backend",   "hello-vm",
		"hello-twice",	  "opened-identity", "opened-more",
		"opened-size",	  "opened-seq",	     "opened-never",
		"opened-twice",	  "service-early",   "serving-rings",
		"serving-refs",
	};
	struct seen *seen = *state;

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		pid_t orphan = inherit_orphan(state, lies[i], true);

		start(state, "fake(%s)", lies[i]);
		expect_replaced(seen, orphan);
		worker_free(TAKE_PTR(seen->worker));
	}
}

/* It has never been connected, says the old broker. */
static void test_unused(void **state)
{
	pid_t orphan = inherit_orphan(state, "serving-unused", false);

	expect_replaced(start(state, "fake(serving-unused)"), orphan);
}

/* The second time it says what is illegal once it is taken over. */
static void test_serving_twice(void **state)
{
	struct seen *seen = adopt_good(state, "serving-twice", true);

	expect(seen, "died", 0);
	assert_non_null(strstr(seen->text, "unexpected SERVING"));
}

static void test_other_disk(void **state)
{
	pid_t orphan = inherit_orphan(state, "good", true);
	struct seen *seen = start(state, "fake(other)");

	expect_replaced(seen, orphan);
	worker_free(TAKE_PTR(seen->worker));
	orphan = inherit_orphan(state, "good", true);
	seen = start_as(state, true, "fake(good)");
	expect_replaced(seen, orphan);
}

/* A note that this version does not understand: ended before all else. */
static void test_other_version(void **state)
{
	struct seen *seen = *state;
	pid_t orphan = leave_orphan(state, "good", true);
	struct orphan_note note;
	char name[96];

	assert_int_equal(orphans_read(seen->fixture->dir, orphan, &note), 0);
	snprintf(name, sizeof(name), "%s/workers/%d", seen->fixture->dir,
		 (int)orphan);
	assert_int_equal(truncate(name, 4000), 0);
	assert_int_equal(orphans_read(seen->fixture->dir, orphan, &note),
			 -EPROTO);
	next_broker(state);
	assert_true(is_dead(orphan));
}

static bool never(void *ctx, uint32_t domid, uint32_t devid)
{
	*(bool *)ctx = domid == 5 && devid == 51728;
	return false;
}

static void test_sweep(void **state)
{
	struct seen *seen = *state;
	pid_t orphan = inherit_orphan(state, "good", true);
	bool asked = false;

	supervisor_sweep(seen->fixture->broker.supervisor, never, &asked);
	assert_true(asked);
	while (!is_dead(orphan))
		assert_int_equal(usleep(1000), 0);
	/* Started anew, as if it had never been there. */
	expect_replaced(start(state, "fake(good)"), orphan);
}

/* A user id is not given twice. */
static void test_user_ids(void **state)
{
	struct seen *seen = adopt_good(state, "good", true);
	struct worker *first = TAKE_PTR(seen->worker);
	char uid[MSG_CONTROL_MAX];

	snprintf(uid, sizeof(uid), "%s", seen->text);
	start(state, "fake(other)");
	expect(seen, "opened", 0);
	if (geteuid() == 0)
		assert_string_not_equal(seen->text, uid);
	worker_free(first);
}

static void test_budget(void **state)
{
	struct seen *seen = adopt_good(state, "budget", true);
	struct keep *keep = seen->fixture->broker.keep;
	uint64_t mine = 0;

	/* The limit of all is 1 MiB; it says that it has half of that. */
	assert_int_equal(keep_charge(keep, &mine, 1 << 19), 0);
	assert_int_equal(keep_charge(keep, &mine, 1), -ENOSPC);
	worker_free(TAKE_PTR(seen->worker));
	assert_int_equal(keep_charge(keep, &mine, 1 << 19), 0);
	keep_recharge(keep, &mine, 0);

	seen = adopt_good(state, "budget-huge", true);
	keep = seen->fixture->broker.keep; /* another broker's */
	assert_int_equal(keep_charge(keep, &mine, 1 << 20), 0);
	keep_recharge(keep, &mine, 0);
}

#define TEST(name)                                             \
	cmocka_unit_test_setup_teardown(name, supervise_setup, \
					supervise_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_open),
		TEST(test_connected),
		TEST(test_disconnect_at_once),
		TEST(test_death),
		TEST(test_conditions),
		TEST(test_broken),
		TEST(test_stop),
		TEST(test_other_rings),
		TEST(test_lies),
		TEST(test_unused),
		TEST(test_serving_twice),
		TEST(test_other_disk),
		TEST(test_other_version),
		TEST(test_sweep),
		TEST(test_user_ids),
		TEST(test_budget),
	};

	if (argc > 1 && strcmp(argv[1], "--worker") == 0)
		fake_worker();
	log_init("test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
