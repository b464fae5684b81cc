/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * methods-snapshot.c - Snapshot and Status: what is asked of control(), a member
 * of backends.
 *
 * The worker's answer has been checked to be pairs (pairs.h), and is not believed
 * further: it goes to the client, who asked for it.
 */
#include "config.h"

#include <string.h>

#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/exports.h"
#include "broker/methods-private.h"
#include "common/pairs.h"
#include "common/suggest.h"
#include "common/util.h"

/* --- Which disk? ---------------------------------------------------------- */

struct search {
	struct suggest names; /* that there are */
	struct vbd *found;
	unsigned int nr;
};

static bool is_it(void *ctx, struct vbd *vbd)
{
	struct search *search = ctx;
	struct vbd_view view;

	vbd_view(vbd, &view);
	if (strcmp(view.given, search->names.typed) == 0) {
		search->found = vbd;
		search->nr++;
	} else if (view.given[0] == '@') {
		suggest_add(&search->names, view.given);
	}
	return true;
}

static void say_nr(struct call *call, struct search *search)
{
	char message[MSG_TEXT_MAX];

	if (search->nr == 0)
		(void)snprintf(message, sizeof(message),
			       "no domain has a disk \"%.200s\"%s",
			       search->names.typed,
			       suggest_text(&search->names, NULL));
	else
		(void)snprintf(message, sizeof(message),
			       "%u disks are \"%.200s\"", search->nr,
			       search->names.typed);
	method_fail(call,
		    search->nr == 0 ? "io.xendisk.NoSuchDisk" :
				      "io.xendisk.Refused",
		    message);
}

/* A disk of the configuration, by its name there; NULL when the call has been
 * answered. */
static struct vbd *named_disk(struct call *call, const char *name)
{
	struct search search = { .names.typed = name };

	bus_each(call_broker(call)->bus, is_it, &search);
	if (search.nr != 1)
		say_nr(call, &search);
	return search.nr == 1 ? search.found : NULL;
}

static void ask_export(struct call *call, const char *name, const char *verb,
		       const char *text, vbd_done_fn done)
{
	if (exports_control(call_broker(call)->exports, name, verb, text, done,
			    call) < 0)
		method_fail_no_export(call, name,
				      "; a guest's disk is DOM VDEV, or @NAME");
}

/* Of whoever has the disk, for whoever reads the commit. */
static int add_domain(struct call *call, const struct vbd *vbd, char *text)
{
	cleanup_free char *name = NULL;
	struct vbd_view view;

	vbd_view(vbd, &view);
	name = method_domain_name(call, view.domid);
	if (!name)
		return 0;
	return pairs_add(text, MSG_CONTROL_MAX, "domain", name);
}

/* text: what is asked; it may get longer. */
static void ask(struct call *call, const json_t *params, const char *verb,
		char *text, vbd_done_fn done)
{
	const char *name = method_text(params, "name");
	struct vbd *vbd;

	if (name && (json_object_get(params, "domid") ||
		     json_object_get(params, "devid"))) {
		method_wrong_parameter(call, "name");
		return;
	}
	if (name && name[0] != '@') {
		ask_export(call, name, verb, text, done);
		return;
	}
	if (!name && !json_object_get(params, "domid")) {
		method_wrong_parameter(call, "domid");
		return;
	}
	if (!name && !json_object_get(params, "devid")) {
		method_wrong_parameter(call, "devid");
		return;
	}
	vbd = name ? named_disk(call, name) : method_disk(call, params);
	if (!vbd)
		return;
	if (add_domain(call, vbd, text) < 0)
		method_fail(call, "io.xendisk.Failed", "the text is too long");
	else
		vbd_control(vbd, verb, text, done, call);
}

/* --- Snapshot ------------------------------------------------------------- */

static void snapshot_taken(void *ctx, int err, const char *text)
{
	struct call *call = ctx;
	char number[24];
	uint64_t id;

	if (err == -EOPNOTSUPP && !*text)
		text = "this disk cannot make snapshots; one of git can, see "
		       "xendisk-git(7)";
	if (err)
		method_fail_errno(call, err, text);
	else if (pairs_get(text, "id", number, sizeof(number)) < 0 ||
		 parse_u64(number, INT64_MAX, &id) < 0)
		method_fail(call, "io.xendisk.Failed",
			    "the backend gave the snapshot no number");
	else
		call_reply(call, json_pack("{s:I}", "id", (json_int_t)id));
}

void method_snapshot(struct call *call, const json_t *params)
{
	const char *consistency = method_text(params, "consistency");
	const char *message = method_text(params, "message");
	char text[MSG_CONTROL_MAX] = "";

	if (consistency && strcmp(consistency, "crash") != 0 &&
	    strcmp(consistency, "fs-frozen") != 0) {
		method_wrong_parameter(call, "consistency");
		return;
	}
	if (consistency)
		(void)pairs_add(text, sizeof(text), "consistency", consistency);
	if (message && pairs_add(text, sizeof(text), "message", message) < 0)
		method_fail(call, "io.xendisk.Failed",
			    "the message is too long");
	else
		ask(call, params, "snapshot", text, snapshot_taken);
}

/* --- Status --------------------------------------------------------------- */

/* What is a number in JSON; all else is text, if it is all digits, too. */
static bool is_number(const char *key)
{
	static const char *const numbers[] = { "dirty", "id", "pending",
					       "saved", "space" };

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (strcmp(key, numbers[i]) == 0)
			return true;
	return false;
}

static json_t *view_pair(const char *key, const char *value)
{
	uint64_t number;
	json_t *text;

	if (is_number(key) && parse_u64(value, INT64_MAX, &number) == 0)
		return json_integer((json_int_t)number);
	text = json_string(value);
	return text ? text : json_string("(not UTF-8)");
}

static void status_told(void *ctx, int err, const char *text)
{
	char key[PAIRS_KEY_MAX + 1], value[MSG_CONTROL_MAX];
	struct call *call = ctx;
	json_t *status;

	if (err == -EOPNOTSUPP && !*text)
		text = "this disk has no status, \"xendisk show\" tells what "
		       "there is; one of git has, see xendisk-git(7)";
	if (err) {
		method_fail_errno(call, err, text);
		return;
	}
	status = json_object();
	while (pairs_next(&text, key, value))
		(void)json_object_set_new(status, key, view_pair(key, value));
	call_reply(call, json_pack("{s:o}", "status", status));
}

void method_status(struct call *call, const json_t *params)
{
	const json_t *id = json_object_get(params, "id");
	char text[MSG_CONTROL_MAX] = "", number[24];

	if (id) {
		(void)snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT,
			       json_integer_value(id));
		(void)pairs_add(text, sizeof(text), "id", number);
	}
	ask(call, params, "status", text, status_told);
}
