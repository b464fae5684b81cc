/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Expressions printed or refused wrongly, for fuzz-expr to find. */
#include "config.h"

#include "fuzz.h"

#include <stdbool.h>

#include "common/expr.h"

enum { NO_QUOTES, LOST_OPTION, WRONG_PLACE };

const char *const fuzz_faults[] = {
	[NO_QUOTES] = "a word printed without its quotes is noticed",
	[LOST_OPTION] = "an option that is not printed is noticed",
	[WRONG_PLACE] = "an error beyond the text is noticed",
	NULL,
};

char *__real_expr_print(const struct layer *root);
char *__wrap_expr_print(const struct layer *root);
int __real_expr_parse(const char *text, bool read_only,
		      const struct expr_env *env, struct layer **ret_root,
		      struct expr_error *ret_error);
int __wrap_expr_parse(const char *text, bool read_only,
		      const struct expr_env *env, struct layer **ret_root,
		      struct expr_error *ret_error);

static void remove_quotes(char *text)
{
	char *to = text;

	for (; *text; text++)
		if (*text != '"')
			*to++ = *text;
	*to = '\0';
}

/* The last ", name=value" before a parenthesis. */
static void remove_option(char *text)
{
	char *equals = strrchr(text, '='), *end, *start;

	if (!equals || strchr(text, '"'))
		return;
	end = strpbrk(equals, ",)");
	for (start = equals; start > text && *start != ','; start--)
		;
	if (end && *start == ',')
		memmove(start, end, strlen(end) + 1);
}

char *__wrap_expr_print(const struct layer *root)
{
	char *text = __real_expr_print(root);

	if (fuzz_fault == NO_QUOTES)
		remove_quotes(text);
	if (fuzz_fault == LOST_OPTION)
		remove_option(text);
	return text;
}

int __wrap_expr_parse(const char *text, bool read_only,
		      const struct expr_env *env, struct layer **ret_root,
		      struct expr_error *ret_error)
{
	int r = __real_expr_parse(text, read_only, env, ret_root, ret_error);

	if (r < 0 && fuzz_fault == WRONG_PLACE)
		ret_error->position = strlen(text) + 1;
	return r;
}
