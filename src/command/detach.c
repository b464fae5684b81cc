/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * A disk that xl attached is detached by xl.  Others as libxl would do it:
 * online=0 and state=5 ask the guest to let go, 6 says that the daemon has
 * closed the disk, then the directories are removed.  --force takes the
 * frontend away first, which the daemon takes for a guest that is gone.
 */
#include "config.h"

#include "command/detach.h"

#include <inttypes.h>
#include <string.h>

#include "command/client.h"
#include "command/store.h"
#include "command/xl.h"

#define DEFAULT_TIMEOUT_S 10
#define MAX_TIMEOUT_S	  3600
#define CLOSE_TIMEOUT_S	  38
#define SHOW_TIMEOUT_S	  2

static bool is_ours_alone(const struct device *device)
{
	return strstr(device->backend, "/backend/xendisk/") != NULL;
}

static bool is_text(const json_t *value, const char *text)
{
	const char *is = json_string_value(value);

	return is && strcmp(is, text) == 0;
}

/* What its worker still has to do before the disk is closed, or NULL: nothing that
 * would be told.  To be freed.  ret_status: of the daemon's answer. */
static char *find_unfinished(const struct detach *d, enum status *ret_status,
			     char **ret_why)
{
	json_t *params = json_pack("{s:I, s:I}", "domid",
				   (json_int_t)d->device.domid, "devid",
				   (json_int_t)d->device.devid);
	json_t *reply = NULL, *disk, *conditions;
	const char *reason = NULL;
	char *copy;

	*ret_status = client_try(d->call, "Show", params, SHOW_TIMEOUT_S,
				 &reply, ret_why);
	disk = json_object_get(reply, "disk");
	conditions = json_object_get(disk, "conditions");
	for (size_t i = 0; i < json_array_size(conditions); i++)
		if (is_text(json_array_get(conditions, i), "finishing"))
			reason = json_string_value(
				json_object_get(disk, "reason"));
	copy = reason ? strdup(reason) : NULL;
	json_decref(reply);
	return copy;
}

static enum status not_finished(const struct detach *d, const char *what)
{
	return fail(STATUS_REFUSED,
		    "%s: the disk is not closed yet: %s; it closes when that "
		    "has ended, and then detach takes it away",
		    d->call->verb->name, what);
}

static enum status detach_by_xl(const struct detach *d)
{
	cleanup_free char *domid = xasprintf("%" PRIu32, d->device.domid);
	cleanup_free char *devid = xasprintf("%" PRIu32, d->device.devid);
	const char *argv[] = {
		"xl", "block-detach", domid, devid, d->force ? "--force" : NULL,
		NULL
	};
	cleanup_free char *what = NULL, *why = NULL;
	enum status status = xl_run(d->call, argv), asked;

	/* libxl waits 10 s, whatever the disk is waiting for. */
	if (status != STATUS_DONE)
		what = find_unfinished(d, &asked, &why);
	return what ? not_finished(d, what) : status;
}

static bool is_closed(void *ctx)
{
	struct detach *d = ctx;
	int state = store_state(d->store, d->device.backend);

	return state == 6 || state == 0;
}

/* What libxl's hotplug script would do once the disk is closed. */
static void hotplug_remove(const struct detach *d)
{
	const char *path = strstr(d->device.backend, "/backend/");
	json_t *reply = NULL;
	cleanup_free char *why = NULL;

	if (is_ours_alone(&d->device) || !path)
		return;
	if (client_try(d->call, "HotplugRemove",
		       json_pack("{s:s}", "path", path + 1), CLOSE_TIMEOUT_S,
		       &reply, &why) == STATUS_DONE)
		json_decref(reply);
}

/* Time is over: because of the guest, or because nobody asks it. */
static enum status not_closed(const struct detach *d)
{
	cleanup_free char *why = NULL;
	enum status status;
	cleanup_free char *what = find_unfinished(d, &status, &why);

	if (what)
		return not_finished(d, what);
	if (status == STATUS_NO_DAEMON)
		return fail(
			status,
			"%s: the disk is closed when xendiskd runs again: %s",
			d->call->verb->name, why ? why : "it does not answer");
	return fail(STATUS_REFUSED,
		    "%s: the guest has not let go of the disk within "
		    "%" PRIu32 " s, and stays asked to: it may be mounted "
		    "there; xendisk detach --force takes it away",
		    d->call->verb->name, d->timeout_s);
}

static enum status detach_direct(struct detach *d)
{
	int r = device_ask_to_close(d->store, &d->device, d->force);

	if (r < 0)
		return fail(STATUS_FAILED, "%s: xenstore: %s",
			    d->call->verb->name, strerror(-r));
	if (!store_wait(d->store, d->device.backend, d->timeout_s, -1,
			is_closed, d) &&
	    !d->force)
		return not_closed(d);
	hotplug_remove(d);
	device_remove_nodes(d->store, &d->device);
	return STATUS_DONE;
}

enum status detach_prepare(struct detach *d, const struct invocation *call)
{
	const char *timeout = option(call, "timeout");
	enum status status;

	*d = (struct detach){ .call = call,
			      .timeout_s = DEFAULT_TIMEOUT_S,
			      .force = option(call, "force") != NULL };
	if (timeout && parse_u32(timeout, MAX_TIMEOUT_S, &d->timeout_s) < 0)
		return fail(STATUS_USAGE,
			    "%s: --timeout: \"%s\" is no number of seconds",
			    call->verb->name, timeout);
	status = store_open(call, &d->store);
	if (status != STATUS_DONE)
		return status;
	return device_find(call, d->store, call->args[0], call->args[1],
			   &d->device);
}

bool detach_is_by_xl(const struct detach *d)
{
	return !is_ours_alone(&d->device) && xl_is_in_charge();
}

enum status detach_run(struct detach *d)
{
	return detach_is_by_xl(d) ? detach_by_xl(d) : detach_direct(d);
}

void detach_release(struct detach *d)
{
	device_release(&d->device);
	if (d->store)
		xs_close(d->store);
}

enum status verb_detach(const struct invocation *call)
{
	struct detach d;
	enum status status = detach_prepare(&d, call);

	if (status == STATUS_DONE)
		status = detach_run(&d);
	detach_release(&d);
	return status;
}
