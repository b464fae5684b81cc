/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check, backends and version: verbs that touch no disk. */
#include "config.h"

#include <string.h>

#include "command/client.h"
#include "command/tables.h"
#include "common/suggest.h"

#define TIMEOUT_S 10

/* Under the byte, for who looks at characters. */
static void point_at(const char *expr, int position)
{
	int column = 0;

	for (int i = 0; i < position && expr[i]; i++)
		column += ((unsigned char)expr[i] & 0xc0) != 0x80;
	fputs("  ", stderr);
	print_clean(stderr, expr);
	fprintf(stderr, "\n  %*s^\n", column, "");
}

/* reply is {"ok":true,"tree":...} or {"ok":false,"position":,"message":}. */
enum status verb_check(const struct invocation *call)
{
	const char *text;
	json_t *reply = NULL;
	enum status status = client_check(
		call, call->args[0], option(call, "readonly") != NULL, &reply);
	bool ok;

	if (status != STATUS_DONE)
		return status;
	ok = json_is_true(json_object_get(reply, "ok"));
	if (call->json) {
		status = print_json(reply);
		return ok ? status : STATUS_FAILED;
	}
	if (ok) {
		text = json_string_value(json_object_get(reply, "canonical"));
		printf("%s\n", text ? text : "");
		status = print_tree(json_object_get(reply, "tree"));
	} else {
		int position = (int)json_integer_value(
			json_object_get(reply, "position"));

		text = json_string_value(json_object_get(reply, "message"));
		status = fail(STATUS_FAILED, "check: at byte %d: %s", position,
			      text ? text : "?");
		point_at(call->args[0], position);
	}
	json_decref(reply);
	return status;
}

static enum status print_names(json_t *backends)
{
	static const struct column columns[] = {
		{ .title = "NAME" }, { .title = "SUMMARY", .wrap = true }
	};
	struct table *table;
	json_t *backend;
	size_t i;

	if (table_new(&table, columns, ARRAY_SIZE(columns)) < 0)
		return fail(STATUS_FAILED, "backends: no memory");
	json_array_foreach(backends, i, backend)
	{
		const char *error = member_text(backend, "error");
		const char *const cells[] = {
			member_text(backend, "name"),
			*error ? error : member_text(backend, "summary")
		};

		if (table_add(table, cells) < 0)
			break;
	}
	return table_print(table);
}

/* "positional, required", "option [none|writeback]", "option (yes)" */
static char *describe(json_t *param)
{
	json_t *choice;
	char *text = NULL;
	size_t size;
	size_t i;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fputs(member_text(param, "type"), out);
	json_array_foreach(json_object_get(param, "choices"), i, choice)
		fprintf(out, "%s%s", i ? "|" : " ", json_string_value(choice));
	if (json_is_true(json_object_get(param, "required")))
		fputs(", required", out);
	if (json_is_true(json_object_get(param, "repeated")))
		fputs(", any number", out);
	if (json_is_string(json_object_get(param, "preset")))
		fprintf(out, ", else %s", member_text(param, "preset"));
	return fclose(out) == 0 ? text : NULL;
}

static enum status print_one(json_t *backend)
{
	static const struct column columns[] = { { .title = "PARAMETER" },
						 { .title = "VALUE" },
						 { .title = "MEANING",
						   .wrap = true } };
	struct table *table;
	json_t *param;
	size_t i;

	printf("%s - %s\n", member_text(backend, "name"),
	       member_text(backend, "summary"));
	if (table_new(&table, columns, ARRAY_SIZE(columns)) < 0)
		return fail(STATUS_FAILED, "backends: no memory");
	json_array_foreach(json_object_get(backend, "parameters"), i, param)
	{
		cleanup_free char *value = describe(param);
		bool positional =
			json_is_true(json_object_get(param, "positional"));
		cleanup_free char *name = xasprintf("%s%s",
						    member_text(param, "name"),
						    positional ? "" : "=");
		const char *const cells[] = { name, value,
					      member_text(param, "help") };

		if (table_add(table, cells) < 0)
			break;
	}
	return table_print(table);
}

static enum status no_backend(const struct invocation *call)
{
	struct suggest s = { .typed = call->args[0] };
	json_t *reply = NULL;
	json_t *backend;
	size_t i;
	enum status status =
		client_call(call, "Backends", NULL, TIMEOUT_S, &reply);

	if (status != STATUS_DONE)
		return status;
	json_array_foreach(json_object_get(reply, "backends"), i, backend)
		suggest_add(&s, member_text(backend, "name"));
	status = fail(STATUS_NOT_FOUND,
		      "backends: there is no backend \"%s\"%s", call->args[0],
		      suggest_text(&s, "; known: "));
	json_decref(reply);
	return status;
}

enum status verb_backends(const struct invocation *call)
{
	json_t *params = json_object();
	json_t *reply = NULL;
	json_t *backends;
	enum status status;

	if (call->nr_args > 0 &&
	    json_object_set_new(params, "name", json_string(call->args[0])) <
		    0) {
		json_decref(params);
		return fail(STATUS_USAGE, "backends: NAME: not UTF-8 text");
	}
	status = client_call(call, "Backends", params, TIMEOUT_S, &reply);
	if (status != STATUS_DONE)
		return status;
	if (call->json)
		return print_json(reply);
	backends = json_object_get(reply, "backends");
	if (call->nr_args == 0)
		status = print_names(backends);
	else if (json_array_size(backends) == 0)
		status = no_backend(call);
	else if (*member_text(json_array_get(backends, 0), "error"))
		status =
			fail(STATUS_FAILED, "backends: %s: %s", call->args[0],
			     member_text(json_array_get(backends, 0), "error"));
	else
		status = print_one(json_array_get(backends, 0));
	json_decref(reply);
	return status;
}

/* The command's version is told even when no daemon answers. */
enum status verb_version(const struct invocation *call)
{
	cleanup_free char *why = NULL;
	json_t *reply = NULL;
	enum status status =
		client_try(call, "Version", NULL, TIMEOUT_S, &reply, &why);
	const char *version = member_text(reply, "version");

	if (call->json) {
		enum status printed = print_json(
			json_pack("{s:s, s:s?}", "xendisk", PACKAGE_VERSION,
				  "xendiskd", *version ? version : NULL));

		if (printed != STATUS_DONE)
			status = printed;
	} else {
		printf("xendisk  %s\n", PACKAGE_VERSION);
		if (*version)
			printf("xendiskd %s\n", version);
	}
	json_decref(reply);
	if (status != STATUS_DONE)
		fail(status, "version: %s", why ? why : "?");
	return status;
}
