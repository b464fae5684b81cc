/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker-fixture.h"
#include "broker/poison.h"
#include "common/util.h"

#define IMAGE "file:/srv/a.img inode 12"

struct answer {
	bool come;
	int err;
};

static void on_done(void *ctx, int err)
{
	struct answer *answer = ctx;

	answer->come = true;
	answer->err = err;
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

static int mark(struct fixture *fixture, const char *identity)
{
	struct answer answer = { false, 0 };
	int r = poison_mark(&fixture->broker, identity, "5/51728", "no\nspace",
			    on_done, &answer);

	if (r < 0)
		return r;
	assert_true(fixture_run(fixture, &answer.come));
	return answer.err;
}

static int clear(struct fixture *fixture, const char *identity)
{
	struct answer answer = { false, 0 };
	int r = poison_clear(&fixture->broker, identity, on_done, &answer);

	if (r < 0)
		return r;
	assert_true(fixture_run(fixture, &answer.come));
	return answer.err;
}

/* As after a restart of the daemon. */
static unsigned int load_again(struct fixture *fixture)
{
	unsigned int bad = 0;

	poison_free(fixture->broker.poison);
	assert_int_equal(
		poison_new(&fixture->broker.poison, fixture->dir, &bad), 0);
	return bad;
}

static void test_survives(void **state)
{
	struct fixture *fixture = *state;
	const char *text;

	assert_null(poison_find(fixture->broker.poison, IMAGE));
	assert_int_equal(mark(fixture, IMAGE), 0);
	assert_int_equal(load_again(fixture), 0);
	text = poison_find(fixture->broker.poison, IMAGE);
	assert_non_null(text);
	assert_non_null(strstr(text, "guest 5/51728: no space"));
	assert_null(poison_find(fixture->broker.poison, IMAGE "3"));
}

static void test_cleared(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(clear(fixture, IMAGE), -ENOENT);
	assert_int_equal(mark(fixture, IMAGE), 0);
	assert_int_equal(mark(fixture, "block:8:0"), 0);
	assert_int_equal(clear(fixture, IMAGE), 0);
	assert_null(poison_find(fixture->broker.poison, IMAGE));
	assert_int_equal(load_again(fixture), 0);
	assert_null(poison_find(fixture->broker.poison, IMAGE));
	assert_non_null(poison_find(fixture->broker.poison, "block:8:0"));
}

/* One after the other, however fast they come: the last word counts. */
static void test_order(void **state)
{
	struct fixture *fixture = *state;
	struct answer answers[5] = { { false, 0 } };
	struct broker *broker = &fixture->broker;

	assert_int_equal(poison_mark(broker, IMAGE, "5/51728", "one", on_done,
				     &answers[0]),
			 0);
	assert_int_equal(poison_clear(broker, IMAGE, on_done, &answers[1]), 0);
	assert_int_equal(poison_mark(broker, IMAGE, "5/51728", "two", on_done,
				     &answers[2]),
			 0);
	assert_true(fixture_run(fixture, &answers[2].come));
	assert_true(answers[0].come && answers[1].come);
	assert_non_null(poison_find(broker->poison, IMAGE));
	assert_int_equal(load_again(fixture), 0);
	assert_non_null(
		strstr(poison_find(fixture->broker.poison, IMAGE), "two"));
	assert_int_equal(poison_mark(broker, IMAGE, "5/51728", "three", on_done,
				     &answers[3]),
			 0);
	assert_int_equal(poison_clear(broker, IMAGE, on_done, &answers[4]), 0);
	assert_true(fixture_run(fixture, &answers[4].come));
	assert_null(poison_find(broker->poison, IMAGE));
	assert_int_equal(load_again(fixture), 0);
	assert_null(poison_find(broker->poison, IMAGE));
}

static void test_bad_identities(void **state)
{
	assert_int_equal(mark(*state, ""), -EINVAL);
	assert_int_equal(mark(*state, "a\nb"), -EINVAL);
}

/* What is no mark is counted and left alone. */
static void test_strange_files(void **state)
{
	struct fixture *fixture = *state;

	fixture_write(fixture, "poison/README", "hello\n");
	fixture_write(fixture, "poison/empty", "");
	fixture_write(fixture, "poison/.half.new", "xendisk: a flush");
	assert_int_equal(load_again(fixture), 2);
	assert_int_equal(access(fixture_path(fixture, "poison/README"), F_OK),
			 0);
}

/* A directory that cannot be written must be told: the guest is not answered
 * then.  In memory the mark holds. */
static void test_failure_is_told(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(rmdir(fixture_path(fixture, "poison")), 0);
	assert_int_equal(mark(fixture, IMAGE), -ENOENT);
	assert_non_null(poison_find(fixture->broker.poison, IMAGE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_survives, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cleared, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_identities, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_strange_files, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_failure_is_told, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
