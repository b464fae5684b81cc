/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which word may have been meant. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/suggest.h"
#include "common/util.h"

static void test_distance(void **state)
{
	static const struct {
		const char *a, *b;
		unsigned int distance;
	} cases[] = {
		{ "", "", 0 },
		{ "", "abc", 3 },
		{ "lst", "list", 1 },
		{ "lists", "list", 1 },
		{ "lost", "list", 1 },
		{ "lsit", "list", 1 },
		{ "LIST", "list", 0 },
		{ "cash", "cache", 2 },
		{ "abcd", "badc", 2 },
		{ "ca", "abc", 3 },
		{ "kitten", "sitting", 3 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(suggest_distance(cases[i].a, cases[i].b),
				 cases[i].distance);
		assert_int_equal(suggest_distance(cases[i].b, cases[i].a),
				 cases[i].distance);
	}
}

static void test_text(void **state)
{
	static const char *const words[] = { "cow", "list",	   "qcow2",
					     "raw", "sector-size", "size",
					     "vhd" };
	static const struct {
		const char *typed, *text;
	} cases[] = {
		{ "lst", "; did you mean \"list\"?" },
		{ "vdh", "; did you mean \"vhd\"?" },
		/* As near as cow, and the beginning of it. */
		{ "qcow", "; did you mean \"qcow2\"?" },
		{ "sector", "; did you mean \"sector-size\"?" },
		{ "raww", "; did you mean \"raw\"?" },
		/* What is wrong is something else then. */
		{ "raw", "; it has cow, list, qcow2, sector-size, size, vhd" },
		{ "colour", "; it has cow, list, qcow2, raw, sector-size, "
			    "size, vhd" },
		{ "x", "; it has cow, list, qcow2, raw, sector-size, size, "
		       "vhd" },
		{ "",
		  "; it has cow, list, qcow2, raw, sector-size, size, vhd" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct suggest s = { .typed = cases[i].typed };

		for (size_t k = 0; k < ARRAY_SIZE(words); k++)
			suggest_add(&s, words[k]);
		assert_string_equal(suggest_text(&s, "; it has "),
				    cases[i].text);
		if (!s.best[0])
			assert_string_equal(suggest_text(&s, NULL), "");
	}
}

/* Nothing is written past an end, and what is left out is said. */
static void test_long(void **state)
{
	char word[4 * SUGGEST_WORD_MAX];
	struct suggest s = { .typed = word };
	struct suggest many = { .typed = "a" };
	size_t length;

	(void)state;
	memset(word, 'x', sizeof(word) - 1);
	word[sizeof(word) - 1] = '\0';
	assert_int_equal(suggest_distance(word, "x"), SUGGEST_WORD_MAX - 1);
	assert_int_equal(suggest_distance(word, word), 0);
	suggest_add(&s, word + 1);
	assert_int_equal(strlen(s.best), SUGGEST_WORD_MAX);
	assert_non_null(strstr(suggest_text(&s, NULL), "\"xxxx"));
	assert_string_equal(suggest_text(&many, "; known: "), "");
	for (int i = 0; i < 100; i++)
		suggest_add(&many, "backend");
	length = strlen(suggest_text(&many, "; known: "));
	assert_true(length < sizeof(many.text) - 1);
	assert_string_equal(many.text + length - 12, "backend, ...");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_distance),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
