/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a worker's backends are asked, and what it says of them: answers, late
 * ones, none at all, and those that nobody should believe. */
#include "config.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "common/pairs.h"
#include "supervise-fixture.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

/* --- The fake worker: fake(BEHAVIOUR) ------------------------------------------ */

static char behaviour[32];

static void fake_opened(uint32_t seq)
{
	struct msg_opened msg = {
		.limits = { .size = 1 << 20,
			    .sector_size = 512,
			    .physical_sector_size = 512 },
		.max_rings = 1,
	};

	fake_say(&msg, sizeof(msg), MSG_OPENED, seq);
}

static void fake_changed(const char *commit, const char *text, uint32_t layer)
{
	struct msg_changed msg = { .layer = layer };

	snprintf(msg.commit, sizeof(msg.commit), "%s", commit);
	snprintf(msg.text, sizeof(msg.text), "%s", text);
	fake_say(&msg, sizeof(msg), MSG_CHANGED, 0);
}

/* Of an xd_changed(): wrong ones, as an honest worker never sends them. */
static void fake_wrong_change(const char *which)
{
	static const struct {
		const char *which, *commit, *text;
		uint32_t layer;
	} wrong[] = {
		{ "layer", COMMIT, "x", 64 },
		{ "short", "0123", "x", 0 },
		{ "capitals", "0123456789ABCDEF0123456789ABCDEF01234567", "x",
		  0 },
		{ "path", "../../../../local/domain/0/domid/////////", "x", 0 },
		{ "lines", COMMIT, "a\nb", 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		if (strcmp(which, wrong[i].which) == 0)
			fake_changed(wrong[i].commit, wrong[i].text,
				     wrong[i].layer);
}

/* Blocked since the start, so that none is missed. */
static void wait_for_signal(void)
{
	sigset_t set;
	int seen;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGUSR1);
	(void)sigwait(&set, &seen);
}

static void block_signal(void)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGUSR1);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
}

static void fake_control(const struct msg_control *msg)
{
	struct msg_controlled answer = { .h.result = 0 };
	uint32_t seq = msg->h.seq;

	if (strcmp(behaviour, "die") == 0)
		_exit(3);
	if (strcmp(behaviour, "mute") == 0)
		return;
	if (strcmp(behaviour, "late") == 0)
		wait_for_signal();
	if (strcmp(behaviour, "seq") == 0)
		seq++;
	if (strcmp(behaviour, "refuse") == 0) {
		answer.h.result = -EBUSY;
		snprintf(answer.text, sizeof(answer.text), "not \033[1mnow\n");
	} else if (strcmp(behaviour, "positive") == 0) {
		answer.h.result = 7;
		snprintf(answer.text, sizeof(answer.text), "no pair");
	} else if (strcmp(behaviour, "rubbish") == 0) {
		snprintf(answer.text, sizeof(answer.text), "id=7\nno pair\n");
	} else {
		(void)pairs_add(answer.text, sizeof(answer.text), "verb",
				msg->verb);
		(void)pairs_add(answer.text, sizeof(answer.text), "text",
				msg->text);
	}
	fake_say(&answer, sizeof(answer), MSG_CONTROLLED, seq);
	if (strcmp(behaviour, "twice") == 0)
		fake_say(&answer, sizeof(answer), MSG_CONTROLLED, seq);
}

static void fake_answer(const struct msg_header *header)
{
	switch (header->type) {
	case MSG_OPEN:
		sscanf(((const struct msg_open *)header)->expression,
		       "fake(%31[a-z0-9-]", behaviour);
		fake_changed("", "early", 3);
		fake_opened(header->seq);
		if (strncmp(behaviour, "change-", 7) == 0)
			fake_wrong_change(behaviour + 7);
		if (strcmp(behaviour, "unasked") == 0)
			fake_control(&(struct msg_control){ .h.seq = 1 });
		if (strcmp(behaviour, "good") == 0)
			fake_changed(COMMIT, "2 pending", 0);
		break;
	case MSG_CONTROL:
		fake_control((const struct msg_control *)header);
		break;
	case MSG_CLOSE:
		_exit(0);
	default:
		_exit(14);
	}
}

static _Noreturn void fake_worker(void)
{
	struct msg_hello hello = { .id = { 5, 51728, 0, "vm" },
				   .pid = (uint32_t)getpid() };
	int fd;

	fake_sock = atoi(getenv("XENDISK_WORKER_SOCKET"));
	if (!getenv("XENDISK_WORKER_STATE_DIR"))
		_exit(17);
	block_signal();
	fake_say(&hello, sizeof(hello), MSG_HELLO, 0);
	for (;;)
		fake_answer(fake_hear(&fd));
}

/* --- The tests ------------------------------------------------------------------ */

static void test_answer(void **state)
{
	struct seen *seen = start(state, "fake(good)");
	char value[64];

	assert_int_equal(worker_control(seen->worker, "status", ""), -ENOTCONN);
	expect(seen, "opened", 0);
	assert_int_equal(worker_control(seen->worker, "status", "id=7\n"), 0);
	/* One at a time. */
	assert_int_equal(worker_control(seen->worker, "status", ""), -EBUSY);
	expect(seen, "controlled", 0);
	assert_int_equal(pairs_get(seen->text, "verb", value, sizeof(value)),
			 0);
	assert_string_equal(value, "status");
	assert_int_equal(pairs_get(seen->text, "text", value, sizeof(value)),
			 0);
	assert_string_equal(value, "id=7\n");
	assert_int_equal(worker_control(seen->worker, "snapshot", ""), 0);
	expect(seen, "controlled", 0);
}

static void test_too_long(void **state)
{
	struct seen *seen = start(state, "fake(good)");
	static char text[MSG_CONTROL_MAX + 1];

	expect(seen, "opened", 0);
	memset(text, 'x', MSG_CONTROL_MAX);
	assert_int_equal(worker_control(seen->worker, "status", text), -E2BIG);
	assert_int_equal(worker_control(seen->worker, text, ""), -E2BIG);
	assert_int_equal(worker_control(seen->worker, "status", ""), 0);
	expect(seen, "controlled", 0);
}

/* The sentence goes to a terminal. */
static void test_refusal(void **state)
{
	struct seen *seen = start(state, "fake(refuse)");

	expect(seen, "opened", 0);
	assert_int_equal(worker_control(seen->worker, "snapshot", ""), 0);
	expect(seen, "controlled", -EBUSY);
	assert_string_equal(seen->text, "not ?[1mnow?");
}

static void test_rubbish(void **state)
{
	static const char *const kinds[] = { "rubbish", "seq", "positive" };
	struct seen *seen = *state;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		start(state, "fake(%s)", kinds[i]);
		expect(seen, "opened", 0);
		assert_int_equal(worker_control(seen->worker, "snapshot", ""),
				 0);
		expect(seen, "died", 0);
		assert_string_equal(seen->text,
				    "the worker sent a wrong CONTROLLED");
		worker_free(TAKE_PTR(seen->worker));
	}
	start(state, "fake(unasked)");
	expect(seen, "opened", 0);
	expect(seen, "died", 0);
	worker_free(TAKE_PTR(seen->worker));
	start(state, "fake(twice)");
	expect(seen, "opened", 0);
	assert_int_equal(worker_control(seen->worker, "snapshot", ""), 0);
	expect(seen, "controlled", 0);
	expect(seen, "died", 0);
}

/* Its death is the answer, and the next process may be asked. */
static void test_death(void **state)
{
	struct seen *seen = start(state, "fake(die)");

	expect(seen, "opened", 0);
	assert_int_equal(worker_control(seen->worker, "snapshot", ""), 0);
	expect(seen, "died", 0);
	assert_int_equal(worker_control(seen->worker, "snapshot", ""),
			 -ENOTCONN);
	assert_int_equal(worker_open(seen->worker), 0);
	expect(seen, "opened", 0);
	assert_int_equal(worker_control(seen->worker, "snapshot", ""), 0);
	expect(seen, "died", 0);
}

static void turn(struct fixture *fixture)
{
	struct timeval tick = { .tv_usec = 50000 };

	(void)event_base_loopexit(fixture->broker.base, &tick);
	(void)event_base_dispatch(fixture->broker.base);
}

/* After 20 s nobody waits any more; what it says then is not the answer to anything,
 * but after that it may be asked again. */
static void test_late(void **state)
{
	struct seen *seen = start(state, "fake(late)");
	uint64_t begin;

	expect(seen, "opened", 0);
	begin = now_ns();
	assert_int_equal(worker_control(seen->worker, "snapshot", ""), 0);
	for (int i = 0; i < 12 && !seen->any; i++)
		(void)fixture_run(seen->fixture, &seen->any);
	expect(seen, "controlled", -ETIMEDOUT);
	assert_true(now_ns() - begin >= 19000000000ull);
	assert_non_null(strstr(seen->text, "it may hang on its storage"));
	assert_int_equal(worker_control(seen->worker, "status", ""), -EBUSY);
	assert_int_equal(kill(worker_pid(seen->worker), SIGUSR1), 0);
	for (int i = 0; i < 100 && worker_control(seen->worker, "status", "");
	     i++)
		turn(seen->fixture);
	assert_false(seen->any);
	assert_int_equal(kill(worker_pid(seen->worker), SIGUSR1), 0);
	expect(seen, "controlled", 0);
	assert_non_null(strstr(seen->text, "verb=status\n"));
}

/* One that hangs is not asked again and again. */
static void test_hang(void **state)
{
	struct seen *seen = start(state, "fake(mute)");

	expect(seen, "opened", 0);
	assert_int_equal(worker_control(seen->worker, "snapshot", ""), 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(worker_control(seen->worker, "status", ""),
				 -EBUSY);
	assert_int_equal(kill(worker_pid(seen->worker), SIGKILL), 0);
	expect(seen, "died", 0);
	assert_non_null(strstr(seen->text, "signal 9"));
}

static void test_changed(void **state)
{
	struct seen *seen = start(state, "fake(good)");

	expect(seen, "opened", 0);
	assert_int_equal(worker_control(seen->worker, "status", ""), 0);
	expect(seen, "controlled", 0); /* what came before it has come */
	assert_int_equal(seen->changes, 2);
	assert_int_equal(seen->layer, 0);
	assert_string_equal(seen->now, "2 pending");
	assert_string_equal(seen->commit, COMMIT);
}

/* A commit goes to the guest, a line to the operator. */
static void test_wrong_changes(void **state)
{
	static const char *const kinds[] = { "layer", "short", "capitals",
					     "path", "lines" };
	struct seen *seen = *state;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		start(state, "fake(change-%s)", kinds[i]);
		expect(seen, "opened", 0);
		expect(seen, "died", 0);
		assert_string_equal(seen->text,
				    "the worker sent a wrong CHANGED");
		assert_string_equal(seen->now, "early");
		worker_free(TAKE_PTR(seen->worker));
	}
}

#define TEST(name)                                             \
	cmocka_unit_test_setup_teardown(name, supervise_setup, \
					supervise_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_answer),  TEST(test_too_long),
		TEST(test_refusal), TEST(test_rubbish),
		TEST(test_death),   TEST(test_hang),
		TEST(test_changed), TEST(test_wrong_changes),
		TEST(test_late),
	};

	if (argc > 1 && strcmp(argv[1], "--worker") == 0)
		fake_worker();
	log_init("test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests_name("supervise-control", tests, NULL,
					   NULL);
}
