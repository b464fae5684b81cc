/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* list, show, resize and resume: verbs about disks that exist. */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "command/client.h"
#include "command/device.h"
#include "command/domain.h"
#include "command/store.h"
#include "command/tables.h"

#define TIMEOUT_S	 10
#define RESUME_TIMEOUT_S 40
#define RESIZE_TIMEOUT_S 40

/* "connected, paused" */
static char *state_text(json_t *disk)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	json_t *condition;
	size_t i;

	if (!out)
		return NULL;
	fputs(member_text(disk, "state"), out);
	json_array_foreach(json_object_get(disk, "conditions"), i, condition)
		fprintf(out, ", %s", json_string_value(condition));
	return fclose(out) == 0 ? text : NULL;
}

static int add_disk(struct table *table, json_t *disk)
{
	cleanup_free char *state = state_text(disk);
	uint64_t bytes = (uint64_t)member_number(disk, "size");
	bool readonly = json_is_true(json_object_get(disk, "readonly"));
	char domid[24];
	char size[32];
	const char *const cells[] = {
		domid,
		member_text(disk, "domain"),
		member_text(disk, "vdev"),
		state,
		/* Not before the disk is open. */
		bytes ? size : "-",
		bytes ? (readonly ? "ro" : "rw") : "-",
		member_text(disk, "expression"),
	};

	(void)snprintf(domid, sizeof(domid), "%lld",
		       member_number(disk, "domid"));
	print_size(size, sizeof(size), bytes);
	return table_add(table, cells);
}

static enum status print_disks(json_t *disks)
{
	static const struct column columns[] = {
		{ .title = "ID", .right = true },
		{ .title = "DOMAIN" },
		{ .title = "VDEV" },
		{ .title = "STATE" },
		{ .title = "SIZE", .right = true },
		{ .title = "MODE" },
		{ .title = "EXPRESSION", .truncate = true },
	};
	struct table *table;
	json_t *disk;
	size_t i;
	int r = table_new(&table, columns, ARRAY_SIZE(columns));

	if (r < 0)
		return fail(STATUS_FAILED, "list: %s", strerror(-r));
	json_array_foreach(disks, i, disk)
	{
		r = add_disk(table, disk);
		if (r < 0)
			break;
	}
	return table_print(table);
}

enum status verb_list(const struct invocation *call)
{
	json_t *params = json_object();
	json_t *reply = NULL;
	enum status status = STATUS_DONE;

	if (call->nr_args > 0) {
		struct xs_handle *store;
		uint32_t domid;

		status = store_open(call, &store);
		if (status == STATUS_DONE) {
			status =
				domain_find(call, store, call->args[0], &domid);
			xs_close(store);
		}
		if (status == STATUS_DONE)
			json_object_set_new(params, "domid",
					    json_integer(domid));
	}
	if (status != STATUS_DONE) {
		json_decref(params);
		return status;
	}
	status = client_call(call, "List", params, TIMEOUT_S, &reply);
	if (status != STATUS_DONE)
		return status;
	if (call->json)
		return print_json(reply);
	status = print_disks(json_object_get(reply, "disks"));
	json_decref(reply);
	return status;
}

/* --- show ----------------------------------------------------------------- */

static void print_keys(const char *side, json_t *keys)
{
	const char *key;
	json_t *value;

	printf("\n%s\n", side);
	json_object_foreach(keys, key, value)
	{
		printf("  %s = ", key);
		print_line(json_string_value(value));
	}
}

/* "1024", "mem(1G)", "paused, recovering"; NULL: nothing to be said. */
static char *value_text(json_t *value)
{
	char *text = NULL;
	size_t size;
	FILE *out;
	json_t *item;
	size_t i;

	if (json_is_null(value) ||
	    (json_is_array(value) && json_array_size(value) == 0))
		return NULL;
	if (json_is_string(value))
		return strdup(json_string_value(value));
	if (!json_is_array(value))
		return json_dumps(value, JSON_ENCODE_ANY);
	out = open_memstream(&text, &size);
	if (!out)
		return NULL;
	json_array_foreach(value, i, item)
		fprintf(out, "%s%s", i ? ", " : "", json_string_value(item));
	return fclose(out) == 0 ? text : NULL;
}

static void print_disk(json_t *disk)
{
	const char *key;
	json_t *value;

	json_object_foreach(disk, key, value)
	{
		cleanup_free char *text = value_text(value);

		if (text) {
			printf("%-20s ", key);
			print_line(text);
		}
	}
}

enum status verb_show(const struct invocation *call)
{
	json_t *params = NULL;
	json_t *reply = NULL;
	json_t *tree;
	enum status status = device_params(call, &params);

	if (status != STATUS_DONE)
		return status;
	status = client_call(call, "Show", params, TIMEOUT_S, &reply);
	if (status != STATUS_DONE)
		return status;
	if (call->json)
		return print_json(reply);
	print_disk(json_object_get(reply, "disk"));
	tree = json_object_get(reply, "tree");
	if (json_is_object(tree)) {
		putchar('\n');
		status = print_tree(tree);
	}
	print_keys("backend", json_object_get(reply, "backend"));
	print_keys("frontend", json_object_get(reply, "frontend"));
	json_decref(reply);
	return status;
}

enum status verb_resize(const struct invocation *call)
{
	const char *wanted = call->nr_args > 2 ? call->args[2] : NULL;
	json_t *params = NULL, *reply = NULL;
	uint64_t size = 0;
	enum status status;
	char text[32];

	if (wanted &&
	    (parse_size(wanted, &size) < 0 || size == 0 || size > INT64_MAX))
		return fail(
			STATUS_USAGE,
			"resize: \"%s\" is no size (digits with K, M, G or T)",
			wanted);
	status = device_params(call, &params);
	if (status != STATUS_DONE)
		return status;
	if (wanted)
		json_object_set_new(params, "size",
				    json_integer((json_int_t)size));
	status = client_call(call, "Resize", params, RESIZE_TIMEOUT_S, &reply);
	if (status != STATUS_DONE)
		return status;
	if (call->json)
		return print_json(reply);
	print_size(text, sizeof(text), (uint64_t)member_number(reply, "size"));
	puts(text);
	json_decref(reply);
	return STATUS_DONE;
}

enum status verb_resume(const struct invocation *call)
{
	bool accept_loss = option(call, "accept-loss") != NULL;
	cleanup_free char *why = NULL;
	json_t *params = NULL;
	json_t *reply = NULL;
	enum status status = device_params(call, &params);

	if (status != STATUS_DONE)
		return status;
	json_object_set_new(params, "accept_loss", json_boolean(accept_loss));
	status = client_try(call, "Resume", params, RESUME_TIMEOUT_S, &reply,
			    &why);
	json_decref(reply);
	if (status == STATUS_DONE)
		return status;
	return fail(status, "resume: %s%s", why ? why : "?",
		    why && !accept_loss && strstr(why, "poisoned") ?
			    "; check the data, then --accept-loss" :
			    "");
}
