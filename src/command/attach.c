/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The expression is checked by the daemon first, so that a mistake is reported
 * with its position before anything is written.  Where xl is in charge, xl
 * attaches, so that it knows the disk and brings it back after a reboot.
 * Otherwise, or with --direct, both directories of the kind "xendisk" are
 * written here in one transaction, which also chooses the vdev, and the
 * daemon's verdict is waited for: state 2 or later is good, 6 is not, and then
 * hotplug-error says why.
 */
#include "config.h"

#include "command/attach.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "command/client.h"
#include "command/domain.h"
#include "command/store.h"
#include "command/xl.h"
#include "common/vdev.h"

#define OPEN_TIMEOUT_S	  40 /* as long as xl gives the hotplug script */
#define TRANSACTION_TRIES 20
#define MAX_XVD		  1024u /* disks looked at for a free one */

static const char *verb_name(const struct attach *a)
{
	return a->call->verb->name;
}

/* --- Which vdev? ---------------------------------------------------------- */

static bool list_has(char **entries, unsigned int count, uint32_t index)
{
	for (unsigned int i = 0; i < count; i++) {
		uint32_t devid;

		if (parse_u32(entries[i], UINT32_MAX, &devid) < 0)
			continue;
		/* xvda1 takes xvda's place too. */
		if ((devid & ~15u) == vdev_xvd(index) ||
		    (index >= 16 && (devid & ~255u) == vdev_xvd(index)))
			return true;
	}
	return false;
}

/* What is there already, as the guest sees it and as libxl remembers it. */
static char **list_disks(struct attach *a, xs_transaction_t t,
			 const char *prefix, unsigned int *ret_count)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "%s/%" PRIu32 "/device/vbd", prefix,
		       a->device.domid);
	*ret_count = 0;
	return xs_directory(a->store, t, path, ret_count);
}

static int first_free(struct attach *a, xs_transaction_t t)
{
	unsigned int nr_seen, nr_known;
	cleanup_free char **seen = list_disks(a, t, "/local/domain", &nr_seen);
	cleanup_free char **known = list_disks(a, t, "/libxl", &nr_known);
	bool taken = true;
	uint32_t index;

	for (index = 0; taken && index < MAX_XVD; index++)
		taken = list_has(seen, nr_seen, index) ||
			list_has(known, nr_known, index);
	if (taken)
		return -ENOSPC;
	a->device.devid = vdev_xvd(index - 1);
	return 0;
}

/* --- Writing xenstore ourselves ------------------------------------------- */

struct pair {
	const char *key;
	const char *value;
};

static bool write_dir(struct attach *a, xs_transaction_t t, const char *dir,
		      uint32_t owner, uint32_t reader, const struct pair *pairs)
{
	struct xs_permissions perms[] = {
		{ .id = owner, .perms = XS_PERM_NONE },
		{ .id = reader, .perms = XS_PERM_READ },
	};

	/* What may be left of an earlier one: a guest can remove its own side. */
	(void)xs_rm(a->store, t, dir);
	if (!xs_mkdir(a->store, t, dir) ||
	    !xs_set_permissions(a->store, t, dir, perms, 2))
		return false;
	for (; pairs->key; pairs++)
		if (!store_write(a->store, t, dir, pairs->key, pairs->value))
			return false;
	return true;
}

static bool write_backend(struct attach *a, xs_transaction_t t)
{
	char domid[16];
	char vdev[32];
	const struct pair pairs[] = {
		{ "frontend", a->device.frontend },
		{ "frontend-id", domid },
		{ "online", "1" },
		{ "removable", "0" },
		{ "bootable", "0" },
		{ "dev", vdev },
		{ "type", "xendisk" },
		{ "mode", a->read_only ? "r" : "w" },
		{ "device-type", "disk" },
		{ "discard-enable", a->read_only || a->no_discard ? "0" : "1" },
		{ "specification", "xen" },
		{ "params", a->expr },
		{ "state", "1" },
		{ NULL, NULL },
	};

	(void)snprintf(domid, sizeof(domid), "%" PRIu32, a->device.domid);
	vdev_print(vdev, sizeof(vdev), a->device.devid);
	return write_dir(a, t, a->device.backend, a->backend_domid,
			 a->device.domid, pairs);
}

static bool write_frontend(struct attach *a, xs_transaction_t t)
{
	char backend_domid[16];
	char devid[16];
	const struct pair pairs[] = {
		{ "backend", a->device.backend },
		{ "backend-id", backend_domid },
		{ "virtual-device", devid },
		{ "device-type", "disk" },
		{ "trusted", "1" },
		{ "state", "1" },
		{ NULL, NULL },
	};

	(void)snprintf(backend_domid, sizeof(backend_domid), "%" PRIu32,
		       a->backend_domid);
	(void)snprintf(devid, sizeof(devid), "%" PRIu32, a->device.devid);
	return write_dir(a, t, a->device.frontend, a->device.domid,
			 a->backend_domid, pairs);
}

static bool name_paths(struct attach *a)
{
	struct device *d = &a->device;

	free(d->frontend);
	free(d->backend);
	d->frontend = xasprintf("/local/domain/%" PRIu32 "/device/vbd/%" PRIu32,
				d->domid, d->devid);
	d->backend = xasprintf("/local/domain/%" PRIu32
			       "/backend/xendisk/%" PRIu32 "/%" PRIu32,
			       a->backend_domid, d->domid, d->devid);
	return d->frontend && d->backend;
}

/* One try: 0, -EAGAIN when another transaction was quicker, or -errno. */
static int try_transaction(struct attach *a, bool choose)
{
	xs_transaction_t t = xs_transaction_start(a->store);
	int r = 0;

	if (t == XBT_NULL)
		return -errno;
	if (choose)
		r = first_free(a, t);
	if (r == 0 && !name_paths(a))
		r = -ENOMEM;
	if (r == 0) {
		cleanup_free char *there =
			store_read(a->store, t, "%s", a->device.frontend);

		r = there ? -EEXIST : 0;
	}
	if (r == 0 && !(write_backend(a, t) && write_frontend(a, t)))
		r = -errno;
	if (!xs_transaction_end(a->store, t, r < 0) && r == 0)
		r = -errno;
	return r;
}

static enum status write_both(struct attach *a, bool choose)
{
	char vdev[32];
	int r = -EAGAIN;

	for (int i = 0; r == -EAGAIN && i < TRANSACTION_TRIES; i++)
		r = try_transaction(a, choose);
	if (r == 0)
		return STATUS_DONE;
	vdev_print(vdev, sizeof(vdev), a->device.devid);
	if (r == -EEXIST)
		return fail(STATUS_REFUSED, "%s: %s is in use", verb_name(a),
			    vdev);
	return fail(STATUS_FAILED, "%s: xenstore: %s", verb_name(a),
		    strerror(-r));
}

static bool has_verdict(void *ctx)
{
	struct attach *a = ctx;

	return store_state(a->store, a->device.backend) != 1;
}

/* The daemon has closed the disk: its sentence, and beside it, where the
 * kernel's backends write theirs, the error's number. */
static enum status fail_verdict(struct attach *a)
{
	cleanup_free char *why = store_read(
		a->store, XBT_NULL, "%s/hotplug-error", a->device.backend);
	cleanup_free char *error = store_read(a->store, XBT_NULL,
					      "/local/domain/%" PRIu32
					      "/error/backend/xendisk/%" PRIu32
					      "/%" PRIu32 "/error",
					      a->backend_domid, a->device.domid,
					      a->device.devid);
	long number = error ? strtol(error, NULL, 10) : 0;

	return fail(number == EBUSY || number == EROFS || number == EACCES ||
				    number == EPERM ?
			    STATUS_REFUSED :
			    STATUS_FAILED,
		    "%s: %s", verb_name(a),
		    why ? why : "the daemon closed the disk");
}

static bool is_cancelled(const struct attach *a)
{
	struct pollfd p = { .fd = a->cancel_fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

enum status attach_direct(struct attach *a)
{
	enum status status = write_both(a, a->choose);
	int state;

	if (status != STATUS_DONE)
		return status;
	if (store_wait(a->store, a->device.backend, OPEN_TIMEOUT_S,
		       a->cancel_fd, has_verdict, a)) {
		state = store_state(a->store, a->device.backend);
		if (state >= 2 && state <= 4)
			return STATUS_DONE;
		status = fail_verdict(a);
	} else if (is_cancelled(a)) {
		status = fail(STATUS_FAILED, "%s: interrupted", verb_name(a));
	} else {
		status = fail(STATUS_FAILED,
			      "%s: xendiskd did not open the disk within %d s",
			      verb_name(a), OPEN_TIMEOUT_S);
	}
	device_remove_nodes(a->store, &a->device);
	return status;
}

/* --- By xl ---------------------------------------------------------------- */

enum status attach_by_xl(struct attach *a)
{
	cleanup_free char *domid = xasprintf("%" PRIu32, a->device.domid);
	cleanup_free char *spec = NULL;
	char vdev[32];

	if (a->choose && first_free(a, XBT_NULL) < 0)
		return fail(STATUS_FAILED, "%s: no vdev is free", verb_name(a));
	vdev_print(vdev, sizeof(vdev), a->device.devid);
	spec = xasprintf("vdev=%s,access=%s,%s%sscript=block-xendisk,target=%s",
			 vdev, a->read_only ? "ro" : "rw",
			 a->no_discard ? "no-discard," : "",
			 a->tap ? "backendtype=tap," : "", a->expr);
	if (!domid || !spec)
		return fail(STATUS_FAILED, "%s: no memory", verb_name(a));
	return xl_run(a->call, (const char *const[]){ "xl", "block-attach",
						      domid, spec, NULL });
}

/* --- The verb ------------------------------------------------------------- */

enum status attach_check(const struct attach *a)
{
	json_t *reply = NULL;
	enum status status =
		client_check(a->call, a->expr, a->read_only, &reply);

	if (status != STATUS_DONE)
		return status;
	if (!json_is_true(json_object_get(reply, "ok")))
		status = fail(
			STATUS_FAILED, "%s: at byte %lld: %s", verb_name(a),
			(long long)json_integer_value(
				json_object_get(reply, "position")),
			json_string_value(json_object_get(reply, "message")));
	json_decref(reply);
	return status;
}

/* The two are easily exchanged, and no domain has such a name. */
static enum status check_order(const struct attach *a)
{
	const struct invocation *call = a->call;
	const char *dom = call->args[0];

	if (dom[0] != '@' && !strchr(dom, '/'))
		return STATUS_DONE;
	return fail(STATUS_USAGE,
		    "%s: \"%s\" is no domain; it is xendisk %s %s",
		    verb_name(a), dom, verb_name(a), call->verb->synopsis);
}

enum status attach_prepare(struct attach *a)
{
	const char *wanted = option(a->call, "vdev");
	enum status status;

	a->read_only = option(a->call, "readonly") != NULL;
	a->choose = !wanted;
	if (wanted && vdev_parse(wanted, &a->device.devid) < 0)
		return fail(
			STATUS_USAGE,
			"%s: \"%s\" is no virtual disk (xvdb, hda, sda or a number)",
			verb_name(a), wanted);
	status = check_order(a);
	if (status == STATUS_DONE)
		status = attach_check(a);
	if (status == STATUS_DONE)
		status = store_open(a->call, &a->store);
	if (status != STATUS_DONE)
		return status;
	a->backend_domid = device_backend_domid(a->store);
	return domain_find(a->call, a->store, a->call->args[0],
			   &a->device.domid);
}

void attach_release(struct attach *a)
{
	device_release(&a->device);
	if (a->store)
		xs_close(a->store);
}

enum status verb_attach(const struct invocation *call)
{
	struct attach a = { .call = call,
			    .expr = call->args[1],
			    .cancel_fd = -1 };
	enum status status = attach_prepare(&a);
	char vdev[32];

	if (status == STATUS_DONE)
		status = !option(call, "direct") && xl_is_in_charge() ?
				 attach_by_xl(&a) :
				 attach_direct(&a);
	if (status == STATUS_DONE) {
		vdev_print(vdev, sizeof(vdev), a.device.devid);
		puts(vdev);
	}
	attach_release(&a);
	return status;
}
