/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "command/device.h"

#include <inttypes.h>
#include <string.h>

#include "command/domain.h"
#include "command/store.h"
#include "common/vdev.h"

#define TRANSACTION_TRIES 20

void device_release(struct device *device)
{
	free(device->frontend);
	free(device->backend);
	free(device->libxl);
}

uint32_t device_backend_domid(struct xs_handle *store)
{
	cleanup_free char *text = store_read(store, XBT_NULL, "domid");
	uint32_t domid;

	/* xenstored run by hand may not have told dom0 who it is. */
	return text && parse_u32(text, 0x7fef, &domid) == 0 ? domid : 0;
}

/* Where this domain would have it. */
static char *search_backend(struct xs_handle *store,
			    const struct device *device)
{
	static const char *const kinds[] = { "vbd", "vbd3", "xendisk" };
	uint32_t own = device_backend_domid(store);

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		cleanup_free char *path =
			xasprintf("/local/domain/%" PRIu32
				  "/backend/%s/%" PRIu32 "/%" PRIu32,
				  own, kinds[i], device->domid, device->devid);

		if (path && store_exists(store, "%s", path))
			return TAKE_PTR(path);
	}
	return NULL;
}

/* The frontend's directory names it, too, but there the guest can write: it could
 * have another guest's disk detached, or directories removed that are no disk's, or
 * make up what is to be attached again. */
static char *find_backend(struct xs_handle *store, const struct device *device)
{
	char *noted = store_read(store, XBT_NULL, "%s/backend", device->libxl);

	return noted ? noted : search_backend(store, device);
}

/* Names the domain, and what may have been meant. */
static enum status no_disk(const struct invocation *call,
			   struct xs_handle *store, uint32_t domid,
			   const char *dom, const char *vdev)
{
	cleanup_free char *name = store_read(
		store, XBT_NULL, "/local/domain/%" PRIu32 "/name", domid);
	cleanup_free char *path =
		xasprintf("/local/domain/%" PRIu32 "/device/vbd", domid);
	cleanup_free char *disks = NULL;
	cleanup_free char **ids = NULL;
	unsigned int count = 0;
	size_t size;
	FILE *out = open_memstream(&disks, &size);

	if (!path || !out)
		return fail(STATUS_FAILED, "%s: no memory", call->verb->name);
	ids = xs_directory(store, XBT_NULL, path, &count);
	for (unsigned int i = 0; ids && i < count; i++) {
		uint32_t devid;
		char text[32];

		if (parse_u32(ids[i], UINT32_MAX, &devid) < 0)
			continue;
		vdev_print(text, sizeof(text), devid);
		fprintf(out, "%s%s", ftell(out) ? ", " : "; it has ", text);
	}
	if (fclose(out) != 0)
		return fail(STATUS_FAILED, "%s: no memory", call->verb->name);
	return fail(STATUS_NOT_FOUND,
		    "%s: domain %" PRIu32 " (%s) has no disk %s%s",
		    call->verb->name, domid, name ? name : dom, vdev, disks);
}

enum status device_find(const struct invocation *call, struct xs_handle *store,
			const char *dom, const char *vdev, struct device *ret)
{
	enum status status = domain_find(call, store, dom, &ret->domid);

	if (status != STATUS_DONE)
		return status;
	if (vdev_parse(vdev, &ret->devid) < 0)
		return fail(
			STATUS_USAGE,
			"%s: \"%s\" is no virtual disk (xvdb, hda, sda or a number)",
			call->verb->name, vdev);
	ret->frontend = xasprintf("/local/domain/%" PRIu32
				  "/device/vbd/%" PRIu32,
				  ret->domid, ret->devid);
	ret->libxl = xasprintf("/libxl/%" PRIu32 "/device/vbd/%" PRIu32,
			       ret->domid, ret->devid);
	if (!ret->frontend || !ret->libxl)
		return fail(STATUS_FAILED, "%s: no memory", call->verb->name);
	ret->backend = find_backend(store, ret);
	if (!ret->backend)
		return no_disk(call, store, ret->domid, dom, vdev);
	return STATUS_DONE;
}

/* One try: 0, -EAGAIN, or -errno. */
static int try_to_ask(struct xs_handle *store, const struct device *device,
		      bool force)
{
	xs_transaction_t t = xs_transaction_start(store);
	cleanup_free char *state = NULL;
	int r = 0;

	if (t == XBT_NULL)
		return -errno;
	state = store_read(store, t, "%s/state", device->backend);
	if (state && (!store_write(store, t, device->backend, "online", "0") ||
		      (strcmp(state, "6") != 0 &&
		       !store_write(store, t, device->backend, "state", "5"))))
		r = -errno;
	if (r == 0 && force)
		xs_rm(store, t, device->frontend);
	if (!xs_transaction_end(store, t, r < 0) && r == 0)
		r = -errno;
	return r;
}

int device_ask_to_close(struct xs_handle *store, const struct device *device,
			bool force)
{
	int r = -EAGAIN;

	for (int i = 0; r == -EAGAIN && i < TRANSACTION_TRIES; i++)
		r = try_to_ask(store, device, force);
	return r;
}

/* One try; false: another transaction was quicker. */
static bool try_to_remove(struct xs_handle *store, const char *path,
			  const char *parent)
{
	xs_transaction_t t = xs_transaction_start(store);
	cleanup_free char **others = NULL;
	unsigned int nr = 0;

	if (t == XBT_NULL)
		return false;
	xs_rm(store, t, path);
	others = xs_directory(store, t, parent, &nr);
	if (others && nr == 0)
		xs_rm(store, t, parent);
	return xs_transaction_end(store, t, false);
}

/* With the last disk of a domain goes its directory, as libxl has it: nobody else
 * would remove that when the domain ends. */
static void remove_backend(struct xs_handle *store, const char *path)
{
	const char *slash = strrchr(path, '/');
	cleanup_free char *parent =
		slash ? strndup(path, (size_t)(slash - path)) : NULL;

	for (int i = 0; parent && i < TRANSACTION_TRIES; i++)
		if (try_to_remove(store, path, parent))
			return;
	xs_rm(store, XBT_NULL, path);
}

void device_remove_nodes(struct xs_handle *store, const struct device *device)
{
	xs_rm(store, XBT_NULL, device->frontend);
	if (device->libxl)
		xs_rm(store, XBT_NULL, device->libxl);
	remove_backend(store, device->backend);
}

enum status device_params(const struct invocation *call, json_t **ret)
{
	struct xs_handle *store;
	uint32_t domid;
	uint32_t devid;
	enum status status;

	if (vdev_parse(call->args[1], &devid) < 0)
		return fail(
			STATUS_USAGE,
			"%s: \"%s\" is no virtual disk (xvdb, hda, sda or a number)",
			call->verb->name, call->args[1]);
	status = store_open(call, &store);
	if (status != STATUS_DONE)
		return status;
	status = domain_find(call, store, call->args[0], &domid);
	xs_close(store);
	if (status == STATUS_DONE)
		*ret = json_pack("{s:I, s:I}", "domid", (json_int_t)domid,
				 "devid", (json_int_t)devid);
	return status;
}
