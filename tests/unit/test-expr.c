/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expressions: what is accepted and printed back, what is refused and where. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/expr.h"
#include "common/program.h"
#include "common/util.h"
#include "expr-env.h"

static int make_infos(void **state)
{
	(void)state;
	return expr_env_make();
}

static int free_infos(void **state)
{
	(void)state;
	expr_env_free();
	return 0;
}

static const struct {
	const char *text;
	const char *canonical;
} good[] = {
	{ "/srv/a.img", "raw(/srv/a.img)" },
	{ " /srv/a b.img ", "raw(\"/srv/a b.img\")" },
	{ "/srv/a,b(c)?d=e&f", "raw(\"/srv/a,b(c)?d=e&f\")" },
	{ "\"/srv/a b\"", "raw(\"/srv/a b\")" },
	{ "raw(/srv/a.img)", "raw(/srv/a.img)" },
	{ "raw( /srv/a.img ,cache=none )", "raw(/srv/a.img, cache=none)" },
	{ "raw:/srv/a.img?cache=writeback&lock=off",
	  "raw(/srv/a.img, cache=writeback, lock=no)" },
	{ "raw(\"/srv/q\\\"\\\\.img\")", "raw(\"/srv/q\\\"\\\\.img\")" },
	{ "mem(64M)", "mem(64M)" },
	{ "mem:65536K", "mem(64M)" },
	{ "null", "null()" },
	{ "null()", "null()" },
	{ "null(1G)", "null(1G)" },
	{ "cow(/srv/gold.img, mem)", "cow(raw(/srv/gold.img), mem())" },
	{ "cow(cow(/a, mem), mem(2G))", "cow(cow(raw(/a), mem()), mem(2G))" },
	{ "readonly(/srv/a)", "readonly(raw(/srv/a))" },
	{ "throttle(nbd://h/e?x=1&y=2, iops=500)",
	  "throttle(nbd(\"nbd://h/e?x=1&y=2\"), iops=500)" },
	{ "nbd+unix:///e?socket=/run/x",
	  "nbd(\"nbd+unix:///e?socket=/run/x\")" },
	{ "throttle(mem(1M), wait=1500ms)", "throttle(mem(1M), wait=1500ms)" },
	{ "throttle(mem(1M), wait=60s)", "throttle(mem(1M), wait=1m)" },
	{ "@web1", "disk(raw(/srv/web1.img), on-error=report)" },
	{ "@alias", "disk(raw(/srv/web1.img), on-error=report)" },
	{ "cow(@web1, mem)", "cow(raw(/srv/web1.img), mem())" },
	{ "kit(m)", "kit(m)" },
	{ "kit(m, \"a=b\", 1G, filter=x, \"c\", filter=y)",
	  "kit(m, \"a=b\", 1G, c, filter=x, filter=y)" },
	{ "kit:m?filter=x&filter=y", "kit(m, filter=x, filter=y)" },
	{ "disk(/srv/a, poll-max-us=10000)",
	  "disk(raw(/srv/a), poll-max-us=10000)" },
	{ "disk(@web1, flush-error=hold)",
	  "disk(raw(/srv/web1.img), flush-error=hold)" },
};

/* What is printed back is read back as the same. */
static void assert_same_again(const struct layer *root)
{
	cleanup_free char *printed = expr_print(root);
	cleanup_free char *again = NULL;
	struct expr_error error;
	struct layer *copy;

	assert_int_equal(expr_parse(printed, false, &expr_env, &copy, &error),
			 0);
	again = expr_print(copy);
	assert_string_equal(again, printed);
	expr_free(copy);
}

static void test_good(void **state)
{
	struct expr_error error;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct layer *root = NULL;
		cleanup_free char *printed = NULL;

		if (expr_parse(good[i].text, false, &expr_env, &root, &error) <
		    0)
			fail_msg("%s: at %zu: %s", good[i].text, error.position,
				 error.message);
		printed = expr_print(root);
		assert_string_equal(printed, good[i].canonical);
		assert_same_again(root);
		expr_free(root);
	}
}

static const struct {
	const char *text;
	size_t position;
	const char *message; /* a part of it */
} bad[] = {
	{ "", 0, "the text ends here" },
	{ "disk(/a, poll-max-us=10001)", 21,
	  "disk: poll-max-us: \"10001\" is not a number up to 10000" },
	{ "disk(/a, poll-max-us=-1)", 21, "not a number up to 10000" },
	{ "  ", 2, "expected a disk" },
	{ "kit(m, size=1)", 7, "no option \"size\"; what is no option" },
	{ "kit(m, \"--run=x\")", 7, "does not begin with -" },
	{ "kit(-m)", 4, "does not begin with -" },
	{ "kit(m, \"\")", 7, "parameters is empty" },
	{ "kit(m, image=/a, image=/b)", 17, "given twice" },
	{ "foo(1)", 0,
	  "no backend \"foo\"; known: kit, raw, mem, null, cow, throttle, "
	  "readonly, nbd" },
	{ "foo", 0, "no backend \"foo\"; known: kit" },
	{ "memm(1G)", 0, "no backend \"memm\"; did you mean \"mem\"?" },
	{ "phy:/dev/a", 0, "\"phy\"; a file or device is its path alone" },
	{ "tap:aio:/a", 0, "\"tap\"; a file or device is its path alone" },
	{ "raw()", 5, "path is missing" },
	{ "raw", 3, "path is missing" },
	{ "raw(srv/a)", 4, "not an absolute path" },
	{ "raw(/a", 6, "expected \",\" or \")\"" },
	{ "raw(/a, chace=none)", 8,
	  "no option \"chace\"; did you mean \"cache\"?" },
	{ "raw(/a, cash=none)", 8, "\"cash\"; did you mean \"cache\"?" },
	{ "raw(/a, colour=red)", 8, "\"colour\"; it has path, cache, lock" },
	{ "cow(/a, /b, size=1)", 12, "cow has no option \"size\"" },
	{ "kit(m, filtre=1)", 7,
	  "\"filtre\"; did you mean \"filter\"?; what is no option" },
	{ "raw(/a, cache=fast)", 14, "none|writeback|writethrough" },
	{ "raw(/a, cache=none, cache=none)", 20, "given twice" },
	{ "raw(/a, /b)", 8, "no further argument" },
	{ "raw(/a) x", 8, "expected the end" },
	{ "raw(/a=b)", 6, "must stand in quotes" },
	{ "raw(\"/a)", 4, "never closed" },
	{ "raw(\"/a\\n\")", 7, "backslash" },
	{ "mem", 0, "size is missing" },
	{ "mem(1000)", 4, "whole sectors" },
	{ "mem(0)", 4, "whole sectors" },
	{ "mem(1X)", 4, "whole sectors" },
	{ "mem(99999999999999999999)", 4, "whole sectors" },
	{ "mem:64M?x=1", 8, "no option \"x\"" },
	{ "mem:64M?", 8, "name=value" },
	{ "mem:64M, x", 7,
	  "expected the end, found \",\"; an option is written mem:...?NAME=" },
	{ "./a.img", 0, "expected a disk, whose path begins with /" },
	{ "cow(~/a, mem)", 4, "whose path begins with /" },
	{ "raw(/a cache=none)", 6,
	  "\" \" must stand in quotes, or a comma is missing" },
	{ "cow(/a)", 7, "top is missing" },
	{ "cow(/a, readonly(/b))", 8, "cow writes to its top" },
	{ "cow(/a, throttle(readonly(/b)))", 8, "cow writes to its top" },
	{ "cow(/a, mem, mem)", 13, "no further argument" },
	{ "cow(base=/a, mem)", 9,
	  "base is a disk, which is written without \"base=\"" },
	{ "cow:/a", 4, "write cow(...)" },
	{ "throttle(mem, iops=5)", 9, "size is missing" },
	{ "throttle(/a, iops=-5)", 18, "not a number" },
	{ "throttle(/a, wait=5)", 18, "not a time" },
	{ "ftp://x", 0, "no backend takes \"ftp://\"; known: nbd, nbd+unix" },
	{ "ndb://x", 0, "takes \"ndb://\"; did you mean \"nbd\"?" },
	{ "@nobody", 0, "no disk \"nobody\" is configured; known: web1, " },
	{ "@wbe1", 0, "is configured; did you mean \"web1\"?" },
	{ "@", 1, "expected the name" },
	{ "cow(@bad, mem)", 4, "@bad: at byte 4" },
	{ "@loop", 0, "@loop: at byte 9: @loop is a part of itself" },
	{ "cow(disk(/a), mem)", 4, "outermost" },
	{ "raw(/a\n)", 6, "control characters" },
	{ "cow(@control, mem)", 4, "@control: at byte 6: control characters" },
	{ "throttle(throttle(throttle(throttle(throttle(throttle(throttle("
	  "throttle(@deep))))))))",
	  72, "levels deep" },
};

static void test_bad(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct layer *root = NULL;
		struct expr_error error = { 0, "" };

		if (expr_parse(bad[i].text, false, &expr_env, &root, &error) !=
		    -EINVAL)
			fail_msg("%s: was accepted", bad[i].text);
		assert_null(root);
		if (!strstr(error.message, bad[i].message) ||
		    error.position != bad[i].position)
			fail_msg("%s: at %zu: %s", bad[i].text, error.position,
				 error.message);
	}
}

static void test_bounds(void **state)
{
	struct layer *root = NULL;
	struct expr_error error;
	char text[EXPR_MAX_BYTES + 64];
	size_t n = 0;

	(void)state;
	memset(text, 'a', sizeof(text));
	text[0] = '/';
	text[EXPR_MAX_BYTES + 1] = '\0';
	assert_int_equal(expr_parse(text, false, &expr_env, &root, &error),
			 -EINVAL);
	/* It is kept, and given to workers, as raw(PATH). */
	n = EXPR_MAX_BYTES - strlen("raw()");
	text[n + 1] = '\0';
	assert_int_equal(expr_parse(text, false, &expr_env, &root, &error),
			 -EINVAL);
	assert_non_null(strstr(error.message, "written out"));
	text[n] = '\0';
	assert_int_equal(expr_parse(text, false, &expr_env, &root, &error), 0);
	expr_free(root);

	/* 16 levels pass, 17 do not. */
	for (int levels = EXPR_MAX_LEVELS; levels <= EXPR_MAX_LEVELS + 1;
	     levels++) {
		n = 0;
		for (int i = 0; i < levels - 1; i++)
			n += (size_t)sprintf(text + n, "throttle(");
		n += (size_t)sprintf(text + n, "/a");
		for (int i = 0; i < levels - 1; i++)
			text[n++] = ')';
		text[n] = '\0';
		assert_int_equal(expr_parse(text, false, &expr_env, &root,
					    &error),
				 levels <= EXPR_MAX_LEVELS ? 0 : -EINVAL);
		if (levels <= EXPR_MAX_LEVELS)
			expr_free(root);
	}
}

/* Understood, or refused at a place in it for a reason. */
static void assert_settled(const char *text)
{
	struct expr_error error = { .position = SIZE_MAX };
	struct layer *root = NULL;
	int r = expr_parse(text, false, &expr_env, &root, &error);

	if (r == 0) {
		assert_same_again(root);
		expr_free(root);
		return;
	}
	assert_int_equal(r, -EINVAL);
	assert_true(error.position <= strlen(text));
	assert_true(error.message[0]);
}

/* Random edits of good texts: no crash, no leak (under the sanitizers), either. */
static void test_mutations(void **state)
{
	static const char bytes[] = "()\",=?&@:/ rawmecow1M\\\x01\xff";
	unsigned int seed = 1;

	(void)state;
	for (int round = 0; round < 200000; round++) {
		char text[256];
		size_t len;

		strcpy(text, good[(size_t)round % ARRAY_SIZE(good)].text);
		len = strlen(text);
		for (int edits = 0; edits < 3; edits++) {
			seed = seed * 1103515245u + 12345u;
			text[(seed >> 8) % (len + 1)] =
				bytes[(seed >> 20) % (sizeof(bytes) - 1)];
		}
		text[len + 1] = '\0';
		assert_settled(text);
	}
}

/* The command line that kit declares, joined with blanks. */
static void assert_program(const char *text, bool read_only,
			   const char *expected)
{
	char line[256] = "";
	struct program program;
	struct expr_error error;
	struct layer *root;

	assert_int_equal(expr_parse(text, read_only, &expr_env, &root, &error),
			 0);
	assert_int_equal(program_new(&program, root), 0);
	for (size_t i = 0; i < program.nr_words; i++) {
		strcat(line, i ? " " : "");
		strcat(line, program.argv[i]);
	}
	assert_null(program.argv[program.nr_words]);
	assert_string_equal(line, expected);
	assert_int_equal(program.nr_files, strstr(line, "/dev/fd/4") ? 1 : 0);
	if (program.nr_files)
		assert_string_equal(root->info->params[program.file[0]].name,
				    "image");
	program_free(&program);
	expr_free(root);
}

static void test_program(void **state)
{
	struct program program;
	struct expr_error error;
	struct layer *root;

	(void)state;
	assert_program("kit(m)", false, "kit -w m");
	assert_program("kit(m)", true, "kit -r m");
	assert_program("kit(m, \"a={plugin}\", b, filter=x, filter=y)", false,
		       "kit -w --filter=x --filter=y m a={plugin} b");
	assert_program("kit(m, image=/secret)", false,
		       "kit -w m json:{\"file\":\"/dev/fd/4\"}");
	/* Who declares none has none. */
	assert_int_equal(expr_parse("null", false, &expr_env, &root, &error),
			 0);
	assert_int_equal(program_new(&program, root), -EINVAL);
	expr_free(root);
}

static void test_tree(void **state)
{
	struct layer *root = NULL;
	struct expr_error error;

	(void)state;
	assert_int_equal(expr_parse("cow(/gold, mem)", false, &expr_env, &root,
				    &error),
			 0);
	assert_int_equal(root->nr_below, 2);
	assert_int_equal(root->below[1]->index, 2);
	assert_true(root->below[0]->read_only);
	assert_false(root->below[1]->read_only);
	assert_string_equal(expr_value(root->below[0], "path")->text, "/gold");
	assert_true(expr_value(root->below[0], "lock")->set);
	assert_false(expr_value(root->below[0], "lock")->given);
	assert_int_equal(expr_value(root->below[0], "lock")->number, 1);
	assert_false(expr_always_read_only(root));
	expr_free(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_tree),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_program),
	};

	return cmocka_run_group_tests(tests, make_infos, free_infos);
}
