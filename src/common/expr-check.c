/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/expr-check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "common/server.h"

int expr_fail(struct expr_error *error, size_t position, const char *fmt, ...)
{
	va_list ap;

	error->position = position;
	va_start(ap, fmt);
	(void)vsnprintf(error->message, sizeof(error->message), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* Is word one of "a|b|c"? */
static bool is_choice(const char *choices, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = choices; p; p = strchr(p, '|')) {
		if (*p == '|')
			p++;
		if (strncmp(p, word, len) == 0 &&
		    (p[len] == '|' || p[len] == '\0') && len > 0)
			return true;
	}
	return false;
}

static int bad_value(const struct layer *layer, const struct xd_param *param,
		     const char *text, size_t position,
		     struct expr_error *error, const char *expected)
{
	return expr_fail(error, position, "%s: %s: \"%.100s\" is not %s",
			 layer->info->name, param->name, text, expected);
}

/* A number of the parameter's type; expected says what was asked for. */
static int parse_number(const struct xd_param *param, const char *text,
			uint64_t *ret, const char **ret_expected)
{
	bool yes = false;
	int r;

	switch (param->type) {
	case XD_SIZE:
		*ret_expected = param->flags & XD_WHOLE_SECTORS ?
					"a size in whole sectors of 512 bytes "
					"(digits with K, M, G or T)" :
					"a size (digits with K, M, G or T)";
		r = parse_size(text, ret);
		if (r == 0 && (param->flags & XD_WHOLE_SECTORS) &&
		    (*ret == 0 || *ret % 512 != 0))
			r = -EINVAL;
		return r;
	case XD_TIME:
		*ret_expected = "a time (digits with ms, s, m or h)";
		return parse_time(text, ret);
	default:
		*ret_expected = "yes or no";
		r = parse_bool(text, &yes);
		*ret = yes;
		return r;
	}
}

/* The canonical spelling of a number. */
static char *print_number(const struct xd_param *param, uint64_t number)
{
	char text[32];

	switch (param->type) {
	case XD_SIZE:
		print_size(text, sizeof(text), number);
		break;
	case XD_TIME:
		print_time(text, sizeof(text), number);
		break;
	case XD_UINT:
		(void)snprintf(text, sizeof(text), "%" PRIu64, number);
		break;
	default:
		(void)snprintf(text, sizeof(text), "%s", number ? "yes" : "no");
	}
	return strdup(text);
}

static int set_value(struct expr_value *value, char *text, uint64_t number)
{
	if (!text)
		return -ENOMEM;
	free(value->text);
	value->text = text;
	value->number = number;
	value->set = true;
	return 0;
}

/* Behind those that are there already: "a\0b\0\0". */
static int add_value(struct expr_value *value, const char *text)
{
	size_t before = 0;
	char *list;

	while (value->set && value->text[before])
		before += strlen(value->text + before) + 1;
	list = realloc(value->text, before + strlen(text) + 2);
	if (!list)
		return -ENOMEM;
	memcpy(list + before, text, strlen(text) + 1);
	list[before + strlen(text) + 1] = '\0';
	value->text = list;
	value->set = true;
	return 0;
}

static int check_string(const struct layer *layer, unsigned int number,
			const char *text, size_t position,
			struct expr_error *error)
{
	const struct xd_param *param = &layer->info->params[number];
	struct expr_value *value = &layer->values[number];

	if ((param->flags & XD_WORD) && text[0] == '-')
		return bad_value(layer, param, text, position, error,
				 "a word that does not begin with -");
	if ((param->flags & (XD_WORD | XD_REPEATED)) && !text[0])
		return expr_fail(error, position, "%s: %s is empty",
				 layer->info->name, param->name);
	if (param->flags & XD_REPEATED)
		return add_value(value, text);
	return set_value(value, strdup(text), 0);
}

/* Up to the largest one, where the table names it. */
static int check_uint(const struct layer *layer, unsigned int number,
		      const char *text, size_t position,
		      struct expr_error *error)
{
	const struct xd_param *param = &layer->info->params[number];
	uint64_t most = UINT64_MAX, n;

	if (param->choices)
		(void)parse_u64(param->choices, UINT64_MAX, &most);
	if (parse_u64(text, most, &n) == 0)
		return set_value(&layer->values[number], print_number(param, n),
				 n);
	if (!param->choices)
		return bad_value(layer, param, text, position, error,
				 "a number");
	return expr_fail(error, position,
			 "%s: %s: \"%.100s\" is not a number up to %s",
			 layer->info->name, param->name, text, param->choices);
}

int expr_check_literal(const struct layer *layer, unsigned int number,
		       const char *text, size_t position,
		       struct expr_error *error)
{
	const struct xd_param *param = &layer->info->params[number];
	struct expr_value *value = &layer->values[number];
	char why[SERVER_TEXT_MAX];
	struct server server;
	const char *expected;
	uint64_t n;

	switch (param->type) {
	case XD_PATH:
		if (text[0] != '/')
			return bad_value(layer, param, text, position, error,
					 "an absolute path");
		return set_value(value, strdup(text), 0);
	case XD_STRING:
		return check_string(layer, number, text, position, error);
	case XD_CREDENTIALS:
		return set_value(value, strdup(text), 0);
	case XD_UINT:
		return check_uint(layer, number, text, position, error);
	case XD_ENUM:
		if (!is_choice(param->choices, text))
			return bad_value(layer, param, text, position, error,
					 param->choices);
		return set_value(value, strdup(text), 0);
	case XD_SERVER:
		if (server_parse(text, &server, why) < 0)
			return expr_fail(error, position, "%s: %s: %s",
					 layer->info->name, param->name, why);
		return set_value(value, strdup(text), 0);
	case XD_DISK:
	case XD_END:
		return expr_fail(error, position,
				 "%s: %s is a disk, which is written without "
				 "\"%s=\"",
				 layer->info->name, param->name, param->name);
	default:
		if (parse_number(param, text, &n, &expected) < 0)
			return bad_value(layer, param, text, position, error,
					 expected);
		return set_value(value, print_number(param, n), n);
	}
}

static bool has_disk_before(const struct layer *parent,
			    const struct layer *layer)
{
	return parent && parent->nr_below > 0 && parent->below[0] != layer;
}

int expr_check_complete(struct layer *layer, size_t end,
			struct expr_error *error)
{
	unsigned int disk = 0;
	int r;

	for (unsigned int i = 0; i < layer->info->nr_params; i++) {
		const struct xd_param *param = &layer->info->params[i];
		struct expr_value *value = &layer->values[i];

		if (param->type == XD_DISK)
			value->set = disk++ < layer->nr_below;
		if (!value->set && param->preset) {
			r = expr_check_literal(layer, i, param->preset, end,
					       error);
			if (r < 0)
				return r;
		}
		if (!value->set && (param->flags & XD_REQUIRED))
			return expr_fail(error, end, "%s: %s is missing (%s)",
					 layer->info->name, param->name,
					 param->help ? param->help : "");
	}
	return 0;
}

bool expr_always_read_only(const struct layer *layer)
{
	unsigned int disk = 0;

	if (layer->info->flags & XD_ALWAYS_READ_ONLY)
		return true;
	for (unsigned int i = 0; i < layer->info->nr_params; i++) {
		const struct xd_param *param = &layer->info->params[i];

		if (param->type != XD_DISK || disk >= layer->nr_below)
			continue;
		/* What is only read, or has to be writable, says nothing. */
		if (!(param->flags & (XD_READ_ONLY | XD_WRITTEN)) &&
		    expr_always_read_only(layer->below[disk]))
			return true;
		disk++;
	}
	return false;
}

/* A size may be left to the disk on the left, but then there must be one. */
static int check_sibling_size(const struct layer *layer,
			      const struct layer *parent,
			      struct expr_error *error)
{
	for (unsigned int i = 0; i < layer->info->nr_params; i++) {
		const struct xd_param *param = &layer->info->params[i];

		if (!(param->flags & XD_SIZE_OF_SIBLING) ||
		    layer->values[i].set || has_disk_before(parent, layer))
			continue;
		return expr_fail(error, layer->position,
				 "%s: %s is missing: %s(SIZE)",
				 layer->info->name, param->name,
				 layer->info->name);
	}
	return 0;
}

static int check_layer(struct layer *layer, const struct layer *parent,
		       bool read_only, unsigned int *index,
		       struct expr_error *error)
{
	unsigned int disk = 0;
	int r;

	layer->index = (*index)++;
	layer->read_only = read_only || expr_always_read_only(layer);
	r = check_sibling_size(layer, parent, error);
	for (unsigned int i = 0; r == 0 && i < layer->info->nr_params; i++) {
		const struct xd_param *param = &layer->info->params[i];
		struct layer *below;

		if (param->type != XD_DISK || disk >= layer->nr_below)
			continue;
		below = layer->below[disk++];
		if ((param->flags & XD_WRITTEN) && expr_always_read_only(below))
			return expr_fail(error, below->position,
					 "%s writes to its %s, but %s is "
					 "read-only",
					 layer->info->name, param->name,
					 below->info->name);
		below->temporary = layer->temporary ||
				   (param->flags & XD_TEMPORARY);
		r = check_layer(below, layer,
				read_only || (param->flags & XD_READ_ONLY),
				index, error);
	}
	return r;
}

/* Names can lead deeper than any text does. */
static int check_depth(const struct layer *layer, unsigned int level,
		       struct expr_error *error)
{
	int r = 0;

	if (level >= EXPR_MAX_LEVELS)
		return expr_fail(error, layer->position,
				 "more than %d levels deep", EXPR_MAX_LEVELS);
	for (unsigned int i = 0; r == 0 && i < layer->nr_below; i++)
		r = check_depth(layer->below[i], level + 1, error);
	return r;
}

/* Workers, and the next broker, get the canonical form. */
static int check_length(const struct layer *root, struct expr_error *error)
{
	cleanup_free char *text = expr_print(root);

	if (!text)
		return -ENOMEM;
	if (strlen(text) <= EXPR_MAX_BYTES)
		return 0;
	return expr_fail(error, root->position,
			 "longer than %d bytes when names and short forms are "
			 "written out",
			 EXPR_MAX_BYTES);
}

int expr_check_tree(struct layer *root, bool read_only,
		    struct expr_error *error)
{
	unsigned int index = 0;
	int r = check_depth(root, 0, error);

	if (r == 0)
		r = check_layer(root, NULL, read_only, &index, error);
	return r < 0 ? r : check_length(root, error);
}
