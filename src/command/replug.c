/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * replug: the same expression once more, in the place of the disk that is there.
 *
 * A branch that has moved shows its new commit to who opens it anew, and what a
 * guest has mounted must not change under it.  So the disk is detached, as detach
 * does it, and attached again.  Never by itself: only when the operator says so,
 * and with --when-asked not before the guest has asked for it, by writing 1 to
 * xendisk-replug in its own directory of the disk, where nobody else but us can
 * write.
 */
#include "config.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "command/attach.h"
#include "command/detach.h"
#include "command/store.h"
#include "common/vdev.h"

#define ASK_KEY "xendisk-replug"

/* --- The guest's consent -------------------------------------------------- */

static bool is_asked(const struct detach *d)
{
	cleanup_free char *text = store_read(d->store, XBT_NULL, "%s/" ASK_KEY,
					     d->device.frontend);

	return text && strcmp(text, "1") == 0;
}

static bool is_asked_or_gone(void *ctx)
{
	const struct detach *d = ctx;

	/* What is watched: the backend's directory goes after it. */
	return is_asked(d) || !store_exists(d->store, "%s", d->device.frontend);
}

static enum status wait_until_asked(struct detach *d)
{
	(void)store_wait(d->store, d->device.frontend, UINT_MAX, -1,
			 is_asked_or_gone, d);
	if (is_asked(d))
		return STATUS_DONE;
	return fail(STATUS_NOT_FOUND, "replug: the disk has been detached");
}

/* --- What is there now ---------------------------------------------------- */

static char *read_key(const struct detach *d, const char *key)
{
	return store_read(d->store, XBT_NULL, "%s/%s", d->device.backend, key);
}

static bool has(const struct detach *d, const char *key, const char *value)
{
	cleanup_free char *text = read_key(d, key);

	return text && strcmp(text, value) == 0;
}

static bool is_tap(const struct detach *d)
{
	return strstr(d->device.backend, "/backend/vbd3/") != NULL;
}

/* As it was given: libxl puts the format in front of what backendtype=tap is given. */
static const char *given(const struct detach *d, const char *params)
{
	static const char format[] = "aio:";
	size_t length = sizeof(format) - 1;

	return is_tap(d) && strncmp(params, format, length) == 0 ?
		       params + length :
		       params;
}

/* What xl block-attach would have to be told besides, and libxl's own kind where
 * there is no xl. */
static enum status check_kind(const struct detach *d)
{
	if (has(d, "device-type", "cdrom"))
		return fail(STATUS_REFUSED,
			    "replug: it is a CD drive: see xl cd-insert");
	if (!detach_is_by_xl(d) && !has(d, "type", "xendisk"))
		return fail(STATUS_REFUSED, "replug: xl has attached it, and "
					    "is not in charge here");
	return STATUS_DONE;
}

/* --- The verb ------------------------------------------------------------- */

static enum status attach_again(struct attach *a, bool by_xl)
{
	enum status status = by_xl ? attach_by_xl(a) : attach_direct(a);
	char vdev[32];

	vdev_print(vdev, sizeof(vdev), a->device.devid);
	if (status != STATUS_DONE)
		return fail(status, "replug: %s is detached; it was %s", vdev,
			    a->expr);
	return STATUS_DONE;
}

static enum status replug(struct detach *d)
{
	bool by_xl = detach_is_by_xl(d);
	cleanup_free char *params = read_key(d, "params");
	struct attach a = {
		.call = d->call,
		.expr = params ? given(d, params) : NULL,
		.cancel_fd = -1,
		.store = d->store,
		.read_only = has(d, "mode", "r"),
		.no_discard = has(d, "discard-enable", "0"),
		.tap = is_tap(d),
		.backend_domid = device_backend_domid(d->store),
		.device = { .domid = d->device.domid,
			    .devid = d->device.devid },
	};
	enum status status;

	if (!params)
		return fail(STATUS_FAILED,
			    "replug: its expression cannot be read");
	/* What is wrong with it by now is found while it is still there. */
	status = attach_check(&a);
	if (status == STATUS_DONE && option(d->call, "when-asked"))
		status = wait_until_asked(d);
	if (status == STATUS_DONE)
		status = detach_run(d);
	if (status == STATUS_DONE)
		status = attach_again(&a, by_xl);
	device_release(&a.device);
	return status;
}

enum status verb_replug(const struct invocation *call)
{
	struct detach d;
	enum status status = detach_prepare(&d, call);

	if (status == STATUS_DONE)
		status = check_kind(&d);
	if (status == STATUS_DONE)
		status = replug(&d);
	detach_release(&d);
	return status;
}
