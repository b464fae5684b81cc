/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lines KEY=VALUE: what control() is asked and answers. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/pairs.h"
#include "common/util.h"

static void test_there_and_back(void **state)
{
	char text[256] = "", value[64];

	(void)state;
	assert_int_equal(pairs_add(text, sizeof(text), "message",
				   "before\nthe \\n upgrade\n"),
			 0);
	assert_int_equal(pairs_add(text, sizeof(text), "id", "7"), 0);
	assert_int_equal(pairs_add(text, sizeof(text), "none", ""), 0);
	assert_string_equal(text, "message=before\\nthe \\\\n upgrade\\n\n"
				  "id=7\nnone=\n");
	assert_true(pairs_valid(text));
	assert_int_equal(pairs_get(text, "message", value, sizeof(value)), 0);
	assert_string_equal(value, "before\nthe \\n upgrade\n");
	assert_int_equal(pairs_get(text, "id", value, sizeof(value)), 0);
	assert_string_equal(value, "7");
	assert_int_equal(pairs_get(text, "none", value, sizeof(value)), 0);
	assert_string_equal(value, "");
	assert_int_equal(pairs_get(text, "i", value, sizeof(value)), -ENODATA);
	assert_int_equal(pairs_get("", "id", value, sizeof(value)), -ENODATA);
}

static void test_room(void **state)
{
	char text[16] = "", value[4];

	(void)state;
	assert_int_equal(pairs_add(text, sizeof(text), "a", "0123456789a\n"),
			 -ENOSPC); /* 16 bytes, and the NUL */
	assert_string_equal(text, "");
	assert_int_equal(pairs_add(text, sizeof(text), "a", "0123456789ab"), 0);
	assert_int_equal(strlen(text), 15);
	assert_int_equal(pairs_add(text, sizeof(text), "b", ""), -ENOSPC);
	assert_int_equal(pairs_get(text, "a", value, sizeof(value)),
			 -ENAMETOOLONG);
	assert_int_equal(pairs_get("a=012\n", "a", value, sizeof(value)), 0);
	assert_int_equal(pairs_get("a=0123\n", "a", value, sizeof(value)),
			 -ENAMETOOLONG);
	/* What is escaped counts as what it is. */
	assert_int_equal(pairs_get("a=\\n\\\\1\n", "a", value, sizeof(value)),
			 0);
	assert_string_equal(value, "\n\\1");
}

static void test_keys(void **state)
{
	static const char *const wrong[] = {
		"",
		"A",
		"a b",
		"a=",
		"a\n",
		"a_b",
		"a23456789012345678901234567890123",
	};
	char text[256] = "";

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(pairs_add(text, sizeof(text), wrong[i], "v"),
				 -EINVAL);
	assert_string_equal(text, "");
	assert_int_equal(pairs_add(text, sizeof(text),
				   "a2-4567890123456789012345678901", "v"),
			 0);
}

static void test_wrong_text(void **state)
{
	static const char *const wrong[] = {
		"a",
		"a=",
		"a=b",
		"=b\n",
		"a=b\n\n",
		"a=b\nc",
		"A=b\n",
		"a=\\x\n",
		"a=\\\n",
		"a=b\\",
		"a=b\nc d=e\n",
		"a23456789012345678901234567890123=b\n",
	};
	char key[PAIRS_KEY_MAX + 1], value[64];

	(void)state;
	assert_true(pairs_valid(""));
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		const char *at = wrong[i];

		assert_false(pairs_valid(wrong[i]));
		while (pairs_next(&at, key, value))
			;
		assert_true(*at != '\0');
	}
}

/* Whatever bytes a value has, they come back; and any bytes at all are read to
 * an end. */
static void test_random(void **state)
{
	(void)state;
	srand(1);
	for (int round = 0; round < 20000; round++) {
		char text[256] = "", value[64], back[64];
		size_t n = (size_t)rand() % (sizeof(value) - 1);

		for (size_t i = 0; i < n; i++)
			value[i] = (char)(rand() % 4 ? 1 + rand() % 255 :
						       "\\\nn=a"[rand() % 5]);
		value[n] = '\0';
		assert_int_equal(pairs_add(text, sizeof(text), "x", "y"), 0);
		assert_int_equal(pairs_add(text, sizeof(text), "v", value), 0);
		assert_true(pairs_valid(text));
		assert_int_equal(pairs_get(text, "v", back, sizeof(back)), 0);
		assert_string_equal(back, value);
		(void)pairs_valid(value);
		(void)pairs_get(value, "a", back, sizeof(back));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_wrong_text),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests_name("pairs", tests, NULL, NULL);
}
