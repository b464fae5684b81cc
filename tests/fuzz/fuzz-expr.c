/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-expr.c - any text as a disk expression.
 *
 * Input: the expression and, after a NUL, the text of the configured disk @n.
 * It begins with "!" when the disk is only read.  Refused: the position is
 * in the text, and there is a message.  Accepted: what is printed back is read
 * back as the same tree, by a parser that knows no names, and printed the same.
 */
#include "config.h"

#include "fuzz.h"

#include <stdbool.h>

#include "common/expr.h"
#include "common/util.h"
#include "expr-env.h"

static char *named_text;

static const char *find_named(void *ctx, const char *name)
{
	if (strcmp(name, "n") == 0)
		return named_text;
	return expr_env.named(ctx, name);
}

static char *take_text(struct input *in)
{
	size_t n = strnlen((const char *)in->at, in->left);
	char *text = calloc(1, n + 1);

	input_bytes(in, text, n);
	(void)input_u8(in); /* the NUL */
	return text;
}

static void check_error(const char *text, int err,
			const struct expr_error *error)
{
	HOLDS(err == -EINVAL, "error %d", err);
	HOLDS(error->position <= strlen(text), "at %zu of %zu", error->position,
	      strlen(text));
	HOLDS(error->message[0] && strnlen(error->message, 256) < 256,
	      "a message");
}

/* Bounds, and numbers in pre-order; returns how many layers there are. */
static unsigned int check_tree(const struct layer *layer, size_t length,
			       unsigned int index, unsigned int level)
{
	unsigned int nr = 1;

	HOLDS(level < EXPR_MAX_LEVELS, "levels");
	HOLDS(layer->position < length, "at %zu of %zu", layer->position,
	      length);
	HOLDS(layer->index == index, "layer %u is %u", index, layer->index);
	for (unsigned int i = 0; i < layer->info->nr_params; i++) {
		const struct xd_param *param = &layer->info->params[i];

		HOLDS(layer->values[i].set || !(param->flags & XD_REQUIRED),
		      "%s of %s", param->name, layer->info->name);
	}
	for (unsigned int i = 0; i < layer->nr_below; i++)
		nr += check_tree(layer->below[i], length, index + nr,
				 level + 1);
	HOLDS(nr <= EXPR_MAX_LAYERS, "layers");
	return nr;
}

static void check_same(const struct layer *a, const struct layer *b)
{
	HOLDS(a->info == b->info, "%s and %s", a->info->name, b->info->name);
	HOLDS(a->nr_below == b->nr_below, "%s", a->info->name);
	HOLDS(a->read_only == b->read_only && a->temporary == b->temporary,
	      "%s", a->info->name);
	for (unsigned int i = 0; i < a->info->nr_params; i++) {
		const struct expr_value *v = &a->values[i], *w = &b->values[i];
		const char *name = a->info->params[i].name;

		HOLDS(v->given == w->given && v->set == w->set, "%s", name);
		HOLDS(v->number == w->number, "%s", name);
		HOLDS(!v->text == !w->text, "%s", name);
		HOLDS(!v->text || strcmp(v->text, w->text) == 0, "%s", name);
	}
	for (unsigned int i = 0; i < a->nr_below; i++)
		check_same(a->below[i], b->below[i]);
}

static void check_printed(const struct layer *root, bool read_only)
{
	struct expr_env env = expr_env;
	cleanup_free char *printed = expr_print(root);
	cleanup_free char *again = NULL;
	struct expr_error error;
	struct layer *copy;
	int r;

	env.named = NULL;
	r = expr_parse(printed, read_only, &env, &copy, &error);
	HOLDS(r == 0, "%s: at %zu: %s", printed, error.position, error.message);
	check_same(root, copy);
	again = expr_print(copy);
	HOLDS(strcmp(printed, again) == 0, "%s\n%s", printed, again);
	expr_free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct expr_env env = expr_env;
	bool read_only = size > 0 && data[0] == '!';
	struct expr_error error;
	struct layer *root;
	char *text;
	int r;

	if (!expr_env.backend(NULL, "raw") && expr_env_make() < 0)
		return 0;
	if (read_only)
		(void)input_u8(&in);
	text = take_text(&in);
	named_text = take_text(&in);
	env.named = find_named;
	/* So that a position or message that is not set shows. */
	memset(&error, 0x7f, sizeof(error));
	r = expr_parse(text, read_only, &env, &root, &error);
	if (r < 0) {
		check_error(text, r, &error);
	} else {
		(void)check_tree(root, strlen(text), 0, 0);
		check_printed(root, read_only);
		expr_free(root);
	}
	free(text);
	free(named_text);
	return 0;
}
