/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which interval snapshots stay (retention.h): the rules, and times as names. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "common/util.h"
#include "retention.h"

#define HOUR 3600
#define DAY  (24 * HOUR)
/* Monday, 23 November 2026, 00:00 UTC. */
#define MONDAY 1795392000

static void parses(void **state)
{
	struct keep keep;
	char reason[WHY_MAX] = "";

	(void)state;
	assert_int_equal(keep_parse("", &keep, reason), 0);
	assert_int_equal(keep.nr, 0);
	assert_int_equal(keep_parse("24h,7d,4w", &keep, reason), 0);
	assert_int_equal(keep.nr, 3);
	assert_int_equal(keep.rules[0].seconds, HOUR);
	assert_int_equal(keep.rules[0].count, 24);
	assert_int_equal(keep.rules[2].seconds, 7 * DAY);
	assert_int_equal(keep.rules[2].count, 4);
}

static void refuses(void **state)
{
	static const char *const wrong[] = {
		"h",	  "24",
		"0h",	  "24x",
		"-1h",	  "1h,",
		",1h",	  "1h,,1d",
		"10001h", "1 h",
		"24H",	  "1h1d",
		"01h",	  "1h,1h,1h,1h,1h",
	};
	struct keep keep = { .nr = 99 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		char reason[WHY_MAX] = "";

		assert_int_equal(keep_parse(wrong[i], &keep, reason), -EINVAL);
		assert_non_null(strstr(reason, wrong[i]));
		assert_int_equal(keep.nr, 99);
	}
}

/* Bit i of the result: times[i] stays. */
static unsigned int choose(const char *rules, const int64_t *times, size_t nr)
{
	struct keep keep;
	char reason[WHY_MAX];
	bool stays[32];
	unsigned int mask = 0;

	assert_int_equal(keep_parse(rules, &keep, reason), 0);
	keep_choose(&keep, times, nr, stays);
	for (size_t i = 0; i < nr; i++)
		mask |= (unsigned int)stays[i] << i;
	return mask;
}

static void keeps_the_newest_of_each(void **state)
{
	/* 12:50 12:10 | 11:59 | 9:00 8:59; yesterday 23:00 22:00 */
	static const int64_t times[] = {
		MONDAY + 12 * HOUR + 3000, MONDAY + 12 * HOUR + 600,
		MONDAY + 12 * HOUR - 60,   MONDAY + 9 * HOUR,
		MONDAY + 9 * HOUR - 60,	   MONDAY - HOUR,
		MONDAY - 2 * HOUR,
	};

	(void)state;
	assert_int_equal(choose("", times, 7), 0x7f);
	assert_int_equal(choose("1h", times, 7), 0x01);
	assert_int_equal(choose("2h", times, 7), 0x05);
	/* 10 o'clock has none, so it does not count. */
	assert_int_equal(choose("3h", times, 7), 0x0d);
	assert_int_equal(choose("4h", times, 7), 0x1d);
	assert_int_equal(choose("1d", times, 7), 0x01);
	assert_int_equal(choose("2d", times, 7), 0x21);
	/* Monday begins a week. */
	assert_int_equal(choose("2w", times, 7), 0x21);
	assert_int_equal(choose("2h,2d", times, 7), 0x25);
	assert_int_equal(choose("1h", times, 0), 0);
}

static void before_1970(void **state)
{
	static const int64_t times[] = { 10, -10, -3700 };

	(void)state;
	assert_int_equal(choose("3h", times, 3), 7);
	assert_int_equal(choose("2h", times, 3), 3);
}

static void times_as_names(void **state)
{
	static const char *const wrong[] = {
		"",
		"20261123T00000Z",
		"20261123T000000",
		"20261123t000000Z",
		"20260231T000000Z",
		"20261123T000000Zx",
		"x0261123T000000Z",
	};
	char text[UTC_TEXT];
	int64_t time = 5;

	(void)state;
	assert_string_equal(utc_print(MONDAY, text), "20261123T000000Z");
	assert_int_equal(utc_parse(text, &time), 0);
	assert_int_equal(time, MONDAY);
	assert_int_equal(utc_parse("20261123T000001Z-17", &time), 0);
	assert_int_equal(time, MONDAY + 1);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(utc_parse(wrong[i], &time), -EINVAL);
	assert_int_equal(time, MONDAY + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses),
		cmocka_unit_test(refuses),
		cmocka_unit_test(keeps_the_newest_of_each),
		cmocka_unit_test(before_1970),
		cmocka_unit_test(times_as_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
