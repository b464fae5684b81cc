/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What block-xendisk runs: XENBUS_PATH names the disk, the exit status is the
 * verdict, and hotplug-error in the backend's directory is what xl prints.  The
 * daemon writes that key itself; when it cannot be reached, it is written here.
 */
#include "config.h"

#include <string.h>

#include "command/client.h"
#include "command/store.h"

#define TIMEOUT_S 38 /* xl kills the script after 40 s */

static void tell_xl(const struct invocation *call, const char *path,
		    const char *why)
{
	struct xs_handle *store;

	if (store_open(call, &store) != STATUS_DONE)
		return;
	store_write(store, XBT_NULL, path, "hotplug-error", why);
	store_write(store, XBT_NULL, path, "hotplug-status", "error");
	xs_close(store);
}

enum status verb_hotplug(const struct invocation *call)
{
	const char *path = getenv("XENBUS_PATH");
	bool add = strcmp(call->args[0], "add") == 0;
	cleanup_free char *why = NULL;
	json_t *reply = NULL;
	enum status status;

	if (!add && strcmp(call->args[0], "remove") != 0)
		return fail(STATUS_USAGE, "hotplug: %s: neither add nor remove",
			    call->args[0]);
	if (!path || !*path)
		return fail(STATUS_USAGE, "hotplug: XENBUS_PATH is not set");
	status = client_try(call, add ? "HotplugAdd" : "HotplugRemove",
			    json_pack("{s:s}", "path", path), TIMEOUT_S, &reply,
			    &why);
	json_decref(reply);
	if (status == STATUS_DONE)
		return STATUS_DONE;
	if (add && status == STATUS_NO_DAEMON)
		tell_xl(call, path, why ? why : "xendiskd does not answer");
	return fail(status, "hotplug %s %s: %s", call->args[0], path,
		    why ? why : "?");
}
