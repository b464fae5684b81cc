/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* snapshot and status: what the backends of a disk are asked. */
#include "config.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "command/client.h"
#include "command/device.h"
#include "command/freeze.h"
#include "command/tables.h"

#define TIMEOUT_S 40

/* How often --wait asks. */
#define FIRST_PAUSE_MS 20
#define MAX_PAUSE_MS   1000
/* A worker that dies is replaced, and a daemon may be started again: the snapshot
 * is not lost by that. */
#define TROUBLE_S 30

/* DOM VDEV, or the name of a disk: the parameters of a method. */
static enum status disk_params(const struct invocation *call, json_t **ret)
{
	if (call->nr_args == 2)
		return device_params(call, ret);
	*ret = json_pack("{s:s}", "name", call->args[0]);
	return *ret ? STATUS_DONE :
		      fail(STATUS_USAGE, "%s: the name is no UTF-8 text",
			   call->verb->name);
}

/* --- status --------------------------------------------------------------- */

static bool is_size(const char *key)
{
	static const char *const sizes[] = { "dirty", "saved", "space" };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		if (strcmp(key, sizes[i]) == 0)
			return true;
	return false;
}

static void print_status(json_t *status)
{
	const char *key;
	json_t *value;

	json_object_foreach(status, key, value)
	{
		uint64_t number = (uint64_t)json_integer_value(value);
		char text[32];

		printf("%-10s ", key);
		(void)snprintf(text, sizeof(text), "%" PRIu64, number);
		if (json_is_integer(value) && is_size(key))
			print_size(text, sizeof(text), number);
		print_line(json_is_string(value) ? json_string_value(value) :
						   text);
	}
}

enum status verb_status(const struct invocation *call)
{
	json_t *params = NULL, *reply = NULL;
	enum status status = disk_params(call, &params);

	if (status == STATUS_DONE)
		status = client_call(call, "Status", params, TIMEOUT_S, &reply);
	if (status != STATUS_DONE)
		return status;
	if (call->json)
		return print_json(reply);
	print_status(json_object_get(reply, "status"));
	json_decref(reply);
	return STATUS_DONE;
}

/* --- snapshot ------------------------------------------------------------- */

static void pause_ms(unsigned int ms)
{
	(void)nanosleep(&(struct timespec){ .tv_sec = ms / 1000,
					    .tv_nsec = ms % 1000 * 1000000L },
			NULL);
}

/* Until the snapshot is a commit or cannot become one: *ret_status is what the
 * disk's status says of it then. */
static enum status wait_for(const struct invocation *call, json_t *disk,
			    json_t *id, json_t **ret_status)
{
	uint64_t last_heard = now_ns();
	unsigned int pause = FIRST_PAUSE_MS;

	for (;;) {
		cleanup_free char *why = NULL;
		json_t *params = json_deep_copy(disk), *reply = NULL;
		enum status status;

		(void)json_object_set(params, "id", id);
		status = client_try(call, "Status", params, TIMEOUT_S, &reply,
				    &why);
		if (status == STATUS_DONE) {
			last_heard = now_ns();
			*ret_status =
				json_incref(json_object_get(reply, "status"));
			json_decref(reply);
			if (strcmp(member_text(*ret_status, "state"),
				   "pending") != 0)
				return STATUS_DONE;
			json_decref(*ret_status);
		} else if (status == STATUS_NOT_FOUND ||
			   now_ns() - last_heard > TROUBLE_S * 1000000000ull) {
			return fail(status,
				    "snapshot: it is taken, but whether it "
				    "is a commit yet is not known: %s",
				    why ? why : "?");
		}
		pause_ms(pause);
		pause = MIN(pause * 2, MAX_PAUSE_MS);
	}
}

/* Takes over status: what became of the snapshot with that id. */
static enum status tell_outcome(const struct invocation *call, json_t *id,
				json_t *status)
{
	const char *state = member_text(status, "state");
	const char *why = member_text(status, "why");
	enum status r = STATUS_DONE;

	if (strcmp(state, "committed") != 0)
		r = fail(STATUS_FAILED, "snapshot: %s",
			 *why ? why : "the backend does not know it any more");
	else if (*why)
		(void)fail(STATUS_DONE, "snapshot: %s", why);
	if (r == STATUS_DONE && call->json)
		r = print_json(json_pack("{s:O, s:s, s:s, s:s}", "id", id,
					 "state", state, "commit",
					 member_text(status, "commit"), "ref",
					 member_text(status, "ref")));
	else if (r == STATUS_DONE)
		print_line(member_text(status, "commit"));
	json_decref(status);
	return r;
}

/* Takes over params.  With the guest's file system at rest, if that is wanted. */
static enum status call_snapshot(const struct invocation *call, json_t *params,
				 json_t **ret_reply)
{
	struct freeze freeze = { .store = NULL };
	enum status status = STATUS_DONE;

	if (option(call, "fsfreeze")) {
		status = freeze_begin(&freeze, call);
		(void)json_object_set_new(params, "consistency",
					  json_string("fs-frozen"));
	}
	if (status == STATUS_DONE)
		status = client_call(call, "Snapshot", params, TIMEOUT_S,
				     ret_reply);
	else
		json_decref(params);
	if (!freeze_end(&freeze) && status == STATUS_DONE)
		(void)fail(STATUS_DONE,
			   "snapshot: the guest did not stay frozen: the file "
			   "system is as after a crash");
	return status;
}

static enum status take(const struct invocation *call, json_t *disk)
{
	const char *message = option(call, "message");
	json_t *params = json_deep_copy(disk), *reply = NULL, *outcome = NULL;
	enum status status;

	if (message &&
	    json_object_set_new(params, "message", json_string(message)) < 0) {
		json_decref(params);
		return fail(STATUS_USAGE,
			    "snapshot: the message is no UTF-8 text");
	}
	status = call_snapshot(call, params, &reply);
	if (status != STATUS_DONE)
		return status;
	if (option(call, "wait")) {
		json_t *id = json_object_get(reply, "id");

		status = wait_for(call, disk, id, &outcome);
		if (status == STATUS_DONE)
			status = tell_outcome(call, id, outcome);
	} else if (call->json) {
		return print_json(reply);
	} else {
		printf("%" JSON_INTEGER_FORMAT "\n",
		       json_integer_value(json_object_get(reply, "id")));
	}
	json_decref(reply);
	return status;
}

enum status verb_snapshot(const struct invocation *call)
{
	json_t *disk = NULL;
	enum status status;

	if (option(call, "fsfreeze") && call->nr_args < 2)
		return fail(STATUS_USAGE,
			    "snapshot: --fsfreeze: which guest? DOM VDEV");
	status = disk_params(call, &disk);
	if (status != STATUS_DONE)
		return status;
	status = take(call, disk);
	json_decref(disk);
	return status;
}
