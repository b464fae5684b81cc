/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * A recursive descent over the text, one function per rule of the grammar in
 * xendisk-spec(7).  The tables of the backends steer it: they say which
 * positions hold disks (parsed as expressions) and which hold literals, so the
 * tree that comes out is checked as it grows.  "@name" starts a second parser
 * on the text behind the name; its errors are reported at the "@".
 *
 * Depth, layers and bytes are bounded, so no text makes it run for long.
 */
#include "config.h"

#include "common/expr.h"

#include <ctype.h>
#include <string.h>

#include "common/expr-check.h"
#include "common/suggest.h"
#include "common/util.h"

struct parser {
	const char *text; /* ends with a NUL */
	size_t at;
	unsigned int level; /* of parentheses, in this text */
	unsigned int names; /* how many @names led here */
	const char *name; /* the last of them */
	const struct parser *outer; /* of the text that has it */
	unsigned int *layers; /* shared with the parsers of named disks */
	const struct expr_env *env;
	struct expr_error *error;
};

/* Where a word without quotes ends. */
enum stop {
	STOP_AT_END, /* outermost: it runs to the end of the text */
	STOP_AT_ARG, /* inside parentheses: at , or ) */
	STOP_AT_TEXT, /* after "name:": at ? too */
	STOP_AT_PAIR, /* after "?": at & too */
};

static int parse_expr(struct parser *p, struct layer **ret);

static void skip_blanks(struct parser *p)
{
	while (p->text[p->at] == ' ' || p->text[p->at] == '\t')
		p->at++;
}

static bool is_name_byte(char c, bool first)
{
	return (c >= 'a' && c <= 'z') ||
	       (!first && ((c >= '0' && c <= '9') || c == '-'));
}

/* Length of the name at *p, 0 when there is none. */
static size_t name_length(const char *p)
{
	size_t n = 0;

	while (is_name_byte(p[n], n == 0))
		n++;
	return n;
}

/* Length of "scheme" when *p starts with "scheme://", else 0. */
static size_t scheme_length(const char *p)
{
	size_t n = 0;

	while (is_name_byte(p[n], n == 0) ||
	       (n > 0 && (p[n] == '+' || p[n] == '.')))
		n++;
	return n > 0 && strncmp(p + n, "://", 3) == 0 ? n : 0;
}

static int unexpected(struct parser *p, const char *expected)
{
	char c = p->text[p->at];

	if (c == '\0')
		return expr_fail(p->error, p->at,
				 "expected %s, but the text ends here",
				 expected);
	return expr_fail(p->error, p->at, "expected %s, found \"%c\"", expected,
			 c);
}

/* "..." with \" and \\; p->at is on the opening quote. */
static int quoted_word(struct parser *p, char **ret)
{
	size_t start = p->at++;
	cleanup_free char *word = malloc(strlen(p->text + start) + 1);
	size_t n = 0;

	if (!word)
		return -ENOMEM;
	for (;; p->at++) {
		char c = p->text[p->at];

		if (c == '\0')
			return expr_fail(p->error, start,
					 "this quote is never closed");
		if (c == '"')
			break;
		if (c == '\\') {
			c = p->text[++p->at];
			if (c != '"' && c != '\\')
				return expr_fail(
					p->error, p->at - 1,
					"only \\\" and \\\\ may follow "
					"a backslash");
		}
		word[n++] = c;
	}
	p->at++;
	word[n] = '\0';
	*ret = TAKE_PTR(word);
	return 0;
}

/* Bytes that end a word, and bytes that must not stand in one unquoted. */
static const char *const stop_bytes[] = { "", ",)", ",)?", ",)&" };
static const char *const quote_bytes[] = { "", "(\"?=& \t", "(\"=& \t",
					   "(\"?= \t" };

/*
 * A word up to where `stop` says.  A URI takes the bytes ? = & as they are;
 * anything else that needs quotes is an error at that byte.
 */
static int plain_word(struct parser *p, enum stop stop, bool uri, char **ret)
{
	const char *start = p->text + p->at;
	size_t n = stop == STOP_AT_END ? strlen(start) :
					 strcspn(start, stop_bytes[stop]);
	const char *forbidden = uri ? "(\" \t" : quote_bytes[stop];

	while (n > 0 && (start[n - 1] == ' ' || start[n - 1] == '\t'))
		n--;
	for (size_t i = 0; i < n; i++)
		if (stop != STOP_AT_END && strchr(forbidden, start[i]))
			return expr_fail(p->error, p->at + i,
					 "\"%c\" must stand in quotes%s",
					 start[i],
					 isblank((unsigned char)start[i]) ?
						 ", or a comma is missing" :
						 "");
	*ret = strndup(start, n);
	if (!*ret)
		return -ENOMEM;
	p->at += n;
	return 0;
}

static int word(struct parser *p, enum stop stop, char **ret)
{
	if (p->text[p->at] == '"')
		return quoted_word(p, ret);
	return plain_word(p, stop, false, ret);
}

/* --- Layers ------------------------------------------------------------- */

static int new_layer(struct parser *p, const struct backend_info *info,
		     size_t position, struct layer **ret)
{
	struct layer *layer;

	if (++*p->layers > EXPR_MAX_LAYERS)
		return expr_fail(p->error, position, "more than %d layers",
				 EXPR_MAX_LAYERS);
	layer = calloc(1, sizeof(*layer));
	if (!layer)
		return -ENOMEM;
	layer->info = info;
	layer->position = position;
	layer->values = calloc(info->nr_params + 1, sizeof(*layer->values));
	layer->below = calloc(info->nr_params + 1, sizeof(*layer->below));
	if (!layer->values || !layer->below) {
		expr_free(layer);
		return -ENOMEM;
	}
	*ret = layer;
	return 0;
}

void expr_free(struct layer *root)
{
	if (!root)
		return;
	for (unsigned int i = 0; i < root->nr_below; i++)
		expr_free(root->below[i]);
	for (unsigned int i = 0; root->values && i < root->info->nr_params; i++)
		free(root->values[i].text);
	free(root->values);
	free(root->below);
	free(root);
}

static int literal(struct parser *p, struct layer *layer, unsigned int param,
		   enum stop stop)
{
	cleanup_free char *text = NULL;
	size_t position = p->at;
	int r = word(p, stop, &text);

	if (r < 0)
		return r;
	r = expr_check_literal(layer, param, text, position, p->error);
	if (r == 0)
		layer->values[param].given = true;
	return r;
}

/* A single literal argument that is given as a whole: a path or a URI. */
static int layer_of_word(struct parser *p, const struct backend_info *info,
			 size_t position, const char *text, struct layer **ret)
{
	struct layer *layer;
	int r;

	if (info->nr_params == 0)
		return expr_fail(p->error, position, "%s takes no parameter",
				 info->name);
	r = new_layer(p, info, position, &layer);
	if (r < 0)
		return r;
	r = expr_check_literal(layer, 0, text, position, p->error);
	if (r == 0) {
		layer->values[0].given = true;
		r = expr_check_complete(layer, p->at, p->error);
	}
	if (r < 0) {
		expr_free(layer);
		return r;
	}
	*ret = layer;
	return 0;
}

/* --- name(arg, ..., option=value) ---------------------------------------- */

/* Is "key=value" in quotes a parameter of its? */
static bool takes_words(const struct backend_info *info)
{
	for (unsigned int i = 0; i < info->nr_params; i++)
		if ((info->params[i].flags & XD_REPEATED) &&
		    (info->params[i].flags & XD_POSITIONAL))
			return true;
	return false;
}

static int no_option(struct parser *p, const struct backend_info *info,
		     const char *name, size_t name_len)
{
	int len = (int)MIN(name_len, (size_t)60);
	char typed[SUGGEST_WORD_MAX];
	struct suggest s = { .typed = typed };

	(void)snprintf(typed, sizeof(typed), "%.*s", len, name);
	for (unsigned int i = 0; i < info->nr_params; i++)
		if (info->params[i].type != XD_DISK)
			suggest_add(&s, info->params[i].name);
	return expr_fail(
		p->error, p->at, "%s has no option \"%s\"%s%s", info->name,
		typed, suggest_text(&s, takes_words(info) ? NULL : "; it has "),
		takes_words(info) ? "; what is no option stands in quotes" :
				    "");
}

static int option(struct parser *p, struct layer *layer, size_t name_len,
		  enum stop stop)
{
	const struct backend_info *info = layer->info;
	const char *name = p->text + p->at;
	size_t position = p->at;

	for (unsigned int i = 0; i < info->nr_params; i++) {
		if (strncmp(info->params[i].name, name, name_len) != 0 ||
		    info->params[i].name[name_len] != '\0')
			continue;
		if (layer->values[i].given &&
		    !(info->params[i].flags & XD_REPEATED))
			return expr_fail(p->error, position,
					 "%s: %s is given twice", info->name,
					 info->params[i].name);
		p->at += name_len + 1;
		return literal(p, layer, i, stop);
	}
	return no_option(p, info, name, name_len);
}

/* The next positional parameter that has not been given; -ENOENT: none. */
static int next_positional(const struct layer *layer)
{
	unsigned int disk = 0;

	for (unsigned int i = 0; i < layer->info->nr_params; i++) {
		const struct xd_param *param = &layer->info->params[i];

		if (!(param->flags & XD_POSITIONAL))
			break;
		if (param->type == XD_DISK ?
			    disk++ >= layer->nr_below :
			    !layer->values[i].given ||
				    (param->flags & XD_REPEATED))
			return (int)i;
	}
	return -ENOENT;
}

static int argument(struct parser *p, struct layer *layer)
{
	size_t n = name_length(p->text + p->at);
	int param;
	int r;

	if (n > 0 && p->text[p->at + n] == '=')
		return option(p, layer, n, STOP_AT_ARG);
	param = next_positional(layer);
	if (param < 0)
		return expr_fail(p->error, p->at,
				 "%s takes no further argument here",
				 layer->info->name);
	if (layer->info->params[param].type != XD_DISK)
		return literal(p, layer, (unsigned int)param, STOP_AT_ARG);
	p->level++;
	r = parse_expr(p, &layer->below[layer->nr_below]);
	p->level--;
	if (r == 0)
		layer->nr_below++;
	return r;
}

/* p->at is behind the opening parenthesis. */
static int arguments(struct parser *p, struct layer *layer)
{
	int r;

	skip_blanks(p);
	if (p->text[p->at] == ')') {
		p->at++;
		return 0;
	}
	for (;;) {
		skip_blanks(p);
		r = argument(p, layer);
		if (r < 0)
			return r;
		skip_blanks(p);
		if (p->text[p->at] == ')') {
			p->at++;
			return 0;
		}
		if (p->text[p->at] != ',')
			return unexpected(p, "\",\" or \")\"");
		p->at++;
	}
}

/* --- name:text?option=value&option=value ---------------------------------- */

/* p->at is behind the colon. */
static int short_form(struct parser *p, struct layer *layer)
{
	const struct backend_info *info = layer->info;
	size_t n;
	int r;

	if (info->nr_params == 0 || !(info->params[0].flags & XD_POSITIONAL))
		return expr_fail(p->error, p->at, "%s takes no \":\"",
				 info->name);
	if (info->params[0].type == XD_DISK)
		return expr_fail(p->error, p->at, "write %s(...) around a disk",
				 info->name);
	r = literal(p, layer, 0, STOP_AT_TEXT);
	/* As the long form has it. */
	if (r == 0 && p->level == 0 && p->text[p->at] == ',')
		return expr_fail(p->error, p->at,
				 "expected the end, found \",\"; an option is "
				 "written %s:...?NAME=VALUE&NAME=VALUE",
				 info->name);
	if (r < 0 || p->text[p->at] != '?')
		return r;
	do {
		p->at++;
		n = name_length(p->text + p->at);
		if (n == 0 || p->text[p->at + n] != '=')
			return unexpected(p, "an option as name=value");
		r = option(p, layer, n, STOP_AT_PAIR);
		if (r < 0)
			return r;
	} while (p->text[p->at] == '&');
	return 0;
}

/* --- expr ----------------------------------------------------------------- */

/* What may have been meant by a name that is none; rest is what is behind it. */
static const char *hint(const char *name, const char *rest)
{
	/* Of xl, QEMU and blktap. */
	static const char *const words[] = { "aio", "file", "phy", "tap",
					     "tap2" };

	/* Somebody has forgotten the folder. */
	if (*rest == '.' || *rest == '/')
		return "; a path begins with /";
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(name, words[i]) == 0)
			return "; a file or device is its path alone";
	return "";
}

/* All backends, or all schemes of theirs. */
static void suggest_backends(struct suggest *s, const struct expr_env *env,
			     bool schemes)
{
	const char *name;

	for (size_t i = 0;
	     env->nth_backend && (name = env->nth_backend(env->ctx, i)); i++) {
		const struct backend_info *info =
			schemes ? env->backend(env->ctx, name) : NULL;
		const char *scheme = info ? info->schemes : NULL;

		if (!schemes)
			suggest_add(s, name);
		for (; scheme && *scheme; scheme += strlen(scheme) + 1)
			suggest_add(s, scheme);
	}
}

static int no_backend(struct parser *p, const char *name, size_t n)
{
	struct suggest s = { .typed = name };
	const char *what;
	const char *why = p->env->why_not ? p->env->why_not(p->env->ctx, name) :
					    NULL;

	if (why)
		return expr_fail(
			p->error, p->at,
			"the backend \"%.60s\" cannot be loaded: %.160s", name,
			why);
	suggest_backends(&s, p->env, false);
	what = hint(name, p->text + p->at + n);
	if (!*what)
		what = suggest_text(&s, "; known: ");
	return expr_fail(p->error, p->at, "there is no backend \"%.60s\"%s",
			 name, what);
}

static int by_name(struct parser *p, size_t n, struct layer **ret)
{
	cleanup_free char *name = strndup(p->text + p->at, n);
	const struct backend_info *info;
	size_t position = p->at;
	struct layer *layer;
	int r;

	if (!name)
		return -ENOMEM;
	if (strcmp(name, "disk") == 0)
		info = expr_disk_info();
	else
		info = p->env->backend(p->env->ctx, name);
	if (!info)
		return no_backend(p, name, n);
	if (info == expr_disk_info() && p->level > 0)
		return expr_fail(p->error, position,
				 "disk(...) may only stand outermost");
	r = new_layer(p, info, position, &layer);
	if (r < 0)
		return r;
	p->at += n;
	if (p->text[p->at] == ':') {
		p->at++;
		r = short_form(p, layer);
	} else {
		skip_blanks(p);
		if (p->text[p->at] == '(') {
			p->at++;
			r = arguments(p, layer);
		}
	}
	if (r == 0)
		r = expr_check_complete(layer, p->at, p->error);
	if (r < 0) {
		expr_free(layer);
		return r;
	}
	*ret = layer;
	return 0;
}

static int no_raw(struct parser *p)
{
	const char *why =
		p->env->why_not ? p->env->why_not(p->env->ctx, "raw") : NULL;

	return expr_fail(p->error, p->at,
			 "a path needs the backend \"raw\", which %s%.160s",
			 why ? "cannot be loaded: " : "is not installed",
			 why ? why : "");
}

static int by_path(struct parser *p, struct layer **ret)
{
	const struct backend_info *raw = p->env->backend(p->env->ctx, "raw");
	cleanup_free char *path = NULL;
	size_t position = p->at;
	int r;

	if (!raw)
		return no_raw(p);
	if (p->text[p->at] == '"')
		r = quoted_word(p, &path);
	else
		r = plain_word(p, p->level ? STOP_AT_ARG : STOP_AT_END, false,
			       &path);
	if (r < 0)
		return r;
	return layer_of_word(p, raw, position, path, ret);
}

static int no_scheme(struct parser *p, const char *scheme)
{
	struct suggest s = { .typed = scheme };

	suggest_backends(&s, p->env, true);
	return expr_fail(p->error, p->at, "no backend takes \"%.60s://\"%s",
			 scheme, suggest_text(&s, "; known: "));
}

static int by_uri(struct parser *p, size_t n, struct layer **ret)
{
	cleanup_free char *scheme = strndup(p->text + p->at, n);
	const struct backend_info *info;
	cleanup_free char *uri = NULL;
	size_t position = p->at;
	int r;

	if (!scheme)
		return -ENOMEM;
	info = p->env->scheme(p->env->ctx, scheme);
	if (!info)
		return no_scheme(p, scheme);
	r = plain_word(p, p->level ? STOP_AT_ARG : STOP_AT_END, true, &uri);
	if (r < 0)
		return r;
	return layer_of_word(p, info, position, uri, ret);
}

static void set_positions(struct layer *layer, size_t position)
{
	layer->position = position;
	for (unsigned int i = 0; i < layer->nr_below; i++)
		set_positions(layer->below[i], position);
}

/* Inside another disk, the settings of a named one do not count. */
static struct layer *unwrap(struct layer *layer)
{
	struct layer *inner;

	if (layer->info != expr_disk_info())
		return layer;
	inner = layer->below[0];
	layer->nr_below = 0;
	expr_free(layer);
	return inner;
}

/* A whole text: what was given, or what stands behind a name. */
static int parse_text(struct parser *p, struct layer **ret)
{
	size_t length = strlen(p->text);
	int r;

	if (length > EXPR_MAX_BYTES)
		return expr_fail(p->error, EXPR_MAX_BYTES,
				 "longer than %d bytes", EXPR_MAX_BYTES);
	for (size_t i = 0; i < length; i++)
		if (iscntrl((unsigned char)p->text[i]))
			return expr_fail(p->error, i,
					 "control characters are not allowed");
	r = parse_expr(p, ret);
	if (r < 0)
		return r;
	skip_blanks(p);
	return p->text[p->at] == '\0' ? 0 : unexpected(p, "the end");
}

static bool leads_here(const struct parser *p, const char *name)
{
	while (p && p->name && strcmp(p->name, name) != 0)
		p = p->outer;
	return p && p->name;
}

/* The text behind "@name", by a parser of its own. */
static int named_text(struct parser *p, const char *name, const char *text,
		      size_t position, struct layer **ret)
{
	struct expr_error inner = { 0, "" };
	struct parser q = { .text = text,
			    .names = p->names + 1,
			    .name = name,
			    .outer = p,
			    .layers = p->layers,
			    .env = p->env,
			    .error = &inner };
	struct layer *layer = NULL;
	int r;

	if (leads_here(p, name))
		return expr_fail(p->error, position,
				 "@%.60s is a part of itself", name);
	/* A named disk may name another, but not without end. */
	if (q.names > EXPR_MAX_LEVELS)
		return expr_fail(p->error, position,
				 "@%.60s: more than %d names lead here", name,
				 EXPR_MAX_LEVELS);
	r = parse_text(&q, &layer);
	if (r == -EINVAL)
		(void)expr_fail(p->error, position,
				"@%.60s: at byte %zu: %.120s", name,
				inner.position, inner.message);
	if (r < 0) {
		expr_free(layer);
		return r;
	}
	*ret = p->level > 0 ? unwrap(layer) : layer;
	set_positions(*ret, position);
	return 0;
}

static int no_name(struct parser *p, const char *name, size_t position)
{
	const struct expr_env *env = p->env;
	struct suggest s = { .typed = name };
	const char *other;

	for (size_t i = 0;
	     env->nth_named && (other = env->nth_named(env->ctx, i)); i++)
		suggest_add(&s, other);
	return expr_fail(p->error, position,
			 "no disk \"%.60s\" is configured%s", name,
			 suggest_text(&s, "; known: "));
}

static int by_at(struct parser *p, struct layer **ret)
{
	size_t position = p->at++;
	size_t n = strcspn(p->text + p->at, ",() \t");
	cleanup_free char *name = strndup(p->text + p->at, n);
	const char *text;

	if (!name)
		return -ENOMEM;
	if (n == 0)
		return unexpected(p, "the name of a configured disk");
	text = p->env->named ? p->env->named(p->env->ctx, name) : NULL;
	if (!text)
		return no_name(p, name, position);
	p->at += n;
	return named_text(p, name, text, position, ret);
}

static int parse_expr(struct parser *p, struct layer **ret)
{
	const char *here;
	size_t n;

	skip_blanks(p);
	here = p->text + p->at;
	if (p->level >= EXPR_MAX_LEVELS)
		return expr_fail(p->error, p->at, "more than %d levels deep",
				 EXPR_MAX_LEVELS);
	if (*here == '/' || (*here == '"' && here[1] == '/'))
		return by_path(p, ret);
	if (*here == '@')
		return by_at(p, ret);
	n = scheme_length(here);
	if (n > 0)
		return by_uri(p, n, ret);
	n = name_length(here);
	if (n > 0)
		return by_name(p, n, ret);
	if (*here == '.' || *here == '~')
		return unexpected(p, "a disk, whose path begins with /");
	return unexpected(p, "a disk: a path, a URI, @name or name(...)");
}

int expr_parse(const char *text, bool read_only, const struct expr_env *env,
	       struct layer **ret_root, struct expr_error *ret_error)
{
	unsigned int layers = 0;
	struct parser p = {
		.text = text, .layers = &layers, .env = env, .error = ret_error
	};
	struct layer *root = NULL;
	int r = parse_text(&p, &root);

	if (r == 0)
		r = expr_check_tree(root, read_only, ret_error);
	if (r < 0) {
		expr_free(root);
		return r;
	}
	*ret_root = root;
	return 0;
}

const struct expr_value *expr_value(const struct layer *layer, const char *name)
{
	for (unsigned int i = 0; i < layer->info->nr_params; i++)
		if (strcmp(layer->info->params[i].name, name) == 0)
			return &layer->values[i];
	return NULL;
}
