/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several clients ask one worker, which answers one question at a time; and what
 * layers show is kept. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "broker/changes.h"
#include "broker/inquiry.h"
#include "broker/supervise.h"
#include "common/util.h"

/* --- The worker ------------------------------------------------------------ */

static struct inquiries inquiries;
static char asked[32]; /* "": nothing */
static int refusal;

int worker_control(struct worker *worker, const char *verb, const char *text)
{
	(void)worker;
	if (refusal)
		return refusal;
	assert_string_equal(asked, ""); /* one at a time */
	(void)snprintf(asked, sizeof(asked), "%s %s", verb, text);
	return 0;
}

static void answers(int err, const char *text)
{
	asked[0] = '\0';
	inquiries_answered(&inquiries, NULL, err, text);
}

/* --- The clients ------------------------------------------------------------ */

static char told[256];
static bool insists; /* asks again, from within */

static void on_told(void *ctx, int err, const char *text);

static int ask(const char *who)
{
	return inquiries_add(&inquiries, NULL, "status", who, on_told,
			     (void *)(uintptr_t)who);
}

static void on_told(void *ctx, int err, const char *text)
{
	size_t n = strlen(told);

	(void)snprintf(told + n, sizeof(told) - n, "%s:%d:%s ",
		       (const char *)ctx, err, text);
	if (insists) {
		insists = false;
		(void)ask("again");
	}
}

static int setup(void **state)
{
	(void)state;
	memset(&inquiries, 0, sizeof(inquiries));
	asked[0] = told[0] = '\0';
	refusal = 0;
	insists = false;
	return 0;
}

/* --- The tests -------------------------------------------------------------- */

static void test_order(void **state)
{
	(void)state;
	assert_int_equal(ask("a"), 0);
	assert_string_equal(asked, "status a");
	assert_int_equal(ask("b"), 0);
	assert_int_equal(ask("c"), 0);
	assert_string_equal(told, "");
	answers(0, "1");
	assert_string_equal(asked, "status b");
	answers(-EBUSY, "2");
	answers(0, "3");
	assert_string_equal(told, "a:0:1 b:-16:2 c:0:3 ");
	assert_string_equal(asked, "");
	assert_int_equal(ask("d"), 0);
	assert_string_equal(asked, "status d");
	answers(0, "4");
}

static void test_full(void **state)
{
	unsigned int n = 0;

	(void)state;
	while (n < 100 && ask("x") == 0)
		n++;
	assert_int_equal(n, 16);
	assert_int_equal(ask("x"), -EBUSY);
	answers(0, "");
	assert_int_equal(ask("x"), 0);
	inquiries_fail(&inquiries, -EIO, "");
}

/* Who is told may ask again, and is not told twice. */
static void test_again(void **state)
{
	(void)state;
	assert_int_equal(ask("a"), 0);
	insists = true;
	answers(0, "1");
	assert_string_equal(told, "a:0:1 ");
	assert_string_equal(asked, "status again");
	assert_int_equal(ask("b"), 0);
	insists = true;
	answers(0, "2");
	assert_string_equal(asked, "status b");
	answers(0, "3");
	answers(0, "4");
	assert_string_equal(told, "a:0:1 again:0:2 b:0:3 again:0:4 ");
}

static void test_death(void **state)
{
	(void)state;
	assert_int_equal(ask("a"), 0);
	assert_int_equal(ask("b"), 0);
	refusal = -ENOTCONN;
	insists = true;
	inquiries_fail(&inquiries, -EIO, "it died");
	assert_string_equal(told, "a:-5:it died b:-5:it died ");
	assert_int_equal(ask("c"), -ENOTCONN);
	/* The next process. */
	refusal = 0;
	asked[0] = '\0';
	assert_int_equal(ask("d"), 0);
	answers(0, "1");
	assert_string_equal(told, "a:-5:it died b:-5:it died d:0:1 ");
}

/* It hangs: those who wait are told, and nobody is left. */
static void test_hang(void **state)
{
	(void)state;
	assert_int_equal(ask("a"), 0);
	assert_int_equal(ask("b"), 0);
	refusal = -EBUSY;
	answers(-ETIMEDOUT, "late");
	assert_string_equal(told, "b:-16:Device or resource busy a:-110:late ");
	assert_int_equal(ask("c"), -EBUSY);
	refusal = 0;
	assert_int_equal(ask("d"), 0);
	answers(0, "1");
}

static void test_changes(void **state)
{
	struct changes changes = { NULL };
	cleanup_free char *none = changes_notes(&changes, "0 raw x\n");
	cleanup_free char *some = NULL;

	(void)state;
	assert_string_equal(none, "0 raw x\n");
	assert_string_equal(changes_commit(&changes), "");
	changes_set(&changes, 4, "444", "four");
	changes_set(&changes, 1, "", "one");
	changes_set(&changes, 2, "222", "two");
	changes_set(&changes, 4, "555", "five");
	some = changes_notes(&changes, "0 raw x\n");
	assert_string_equal(some,
			    "0 raw x\n1 now one\n2 now two\n4 now five\n");
	assert_string_equal(changes_commit(&changes), "222");
	changes_set(&changes, 2, "", "");
	assert_string_equal(changes_commit(&changes), "555");
	changes_clear(&changes);
	assert_string_equal(changes_commit(&changes), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_order, setup),
		cmocka_unit_test_setup(test_full, setup),
		cmocka_unit_test_setup(test_again, setup),
		cmocka_unit_test_setup(test_death, setup),
		cmocka_unit_test_setup(test_hang, setup),
		cmocka_unit_test(test_changes),
	};

	return cmocka_run_group_tests_name("inquiry", tests, NULL, NULL);
}
