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
/* As long as libxl itself would wait for a backend: the daemon may be on its
 * way up.  Where xen-blkback is loaded libxl comes to us without that wait. */
#define DAEMON_WAIT_S	10
#define DAEMON_TRY_USEC 200000

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

static unsigned int seconds_since(uint64_t start)
{
	return (unsigned int)((now_ns() - start) / 1000000000);
}

static enum status ask(const struct invocation *call, const char *path,
		       bool add, char **ret_why)
{
	const char *method = add ? "HotplugAdd" : "HotplugRemove";
	uint64_t start = now_ns();
	json_t *reply = NULL;
	enum status status;

	for (;;) {
		unsigned int waited = seconds_since(start);

		status = client_try(call, method,
				    json_pack("{s:s}", "path", path),
				    TIMEOUT_S - waited, &reply, ret_why);
		if (status != STATUS_NO_DAEMON || !add ||
		    seconds_since(start) >= DAEMON_WAIT_S)
			break;
		free(TAKE_PTR(*ret_why));
		(void)usleep(DAEMON_TRY_USEC);
	}
	json_decref(reply);
	return status;
}

enum status verb_hotplug(const struct invocation *call)
{
	const char *path = getenv("XENBUS_PATH");
	bool add = strcmp(call->args[0], "add") == 0;
	cleanup_free char *why = NULL;
	enum status status;

	if (!add && strcmp(call->args[0], "remove") != 0)
		return fail(STATUS_USAGE, "hotplug: %s: neither add nor remove",
			    call->args[0]);
	if (!path || !*path)
		return fail(STATUS_USAGE, "hotplug: XENBUS_PATH is not set");
	status = ask(call, path, add, &why);
	if (status == STATUS_DONE)
		return STATUS_DONE;
	if (add && status == STATUS_NO_DAEMON)
		tell_xl(call, path, why ? why : "xendiskd does not answer");
	return fail(status, "hotplug %s %s: %s", call->args[0], path,
		    why ? why : "?");
}
