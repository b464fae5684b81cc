/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vbd-attach.c - from the toolstack's wish to an open target, and its end.
 *
 * Opening takes as long as it takes, and nobody waits for it but the hotplug
 * script: vbd_hotplug_add() starts it, the target's change brings a look, and
 * vbd_attach_settle() tells the verdict.
 */
#include <string.h>
#include <xen/io/xenbus.h>

#include "broker/blkback.h"
#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/exports.h"
#include "broker/vbd-private.h"

struct rival {
	const struct vbd *vbd;
	struct vbd *found;
};

/* Its worker may still be letting go; a directory without one harms nobody. */
static bool is_of_other_number(void *ctx, struct vbd *other)
{
	struct rival *rival = ctx;

	if (other == rival->vbd || other->at.domid != rival->vbd->at.domid ||
	    other->at.devid != rival->vbd->at.devid ||
	    target_state(other->target) == TARGET_NONE ||
	    target_state(other->target) == TARGET_FAILED)
		return true;
	rival->found = other;
	return false;
}

/* libxl does not know our own kind, and makes another disk in the same place.  But
 * kept state, socket and exports are those of a number, and there is one of each. */
static struct vbd *same_number(const struct vbd *vbd)
{
	struct rival rival = { .vbd = vbd };

	bus_each(vbd->broker->bus, is_of_other_number, &rival);
	return rival.found;
}

/* The other one has been removed, and nobody waits for its worker but this disk. */
static bool forget_hanging(struct vbd *vbd)
{
	bool hangs = vbd->gone && target_hangs(vbd->target);

	if (hangs)
		bus_forget(vbd->broker->bus, vbd);
	return hangs;
}

static int check_number(const struct vbd *vbd, char *why)
{
	struct vbd *other = same_number(vbd);

	if (!other || forget_hanging(other))
		return 0;
	return msg_why(why, -EBUSY,
		       "the domain has another disk there (%s), which is to be "
		       "detached first",
		       other->path);
}

void vbd_forget_exports(const struct vbd *vbd)
{
	if (!same_number(vbd))
		exports_forget(vbd->broker->exports, vbd->at.domid,
			       vbd->at.devid);
}

static void attach(struct vbd *vbd, bool fresh)
{
	char why[MSG_TEXT_MAX] = "";
	int r;

	node_clear(&vbd->node);
	r = node_read(vbd->store, &vbd->at, vbd->path, &vbd->node, why);
	if (r == 0)
		r = check_number(vbd, why);
	vbd->removed = false;
	vbd->attaching = true;
	if (r < 0)
		target_fail(vbd->target, r, *why ? why : strerror(-r));
	else
		target_open(vbd->target, vbd->node.target, vbd->node.read_only,
			    fresh);
	vbd_touch(vbd);
}

void vbd_attach_unasked(struct vbd *vbd)
{
	/* Nobody comes back to it: see vbd.c, end_orphan(). */
	bool ended = vbd->backend_state == XenbusStateClosed &&
		     (!vbd->online || vbd->domain_ended);
	bool told = vbd->at.kind == NODE_XENDISK || vbd->attached_before;
	bool half_made = vbd->backend_state == XenbusStateUnknown &&
			 !vbd->attached_before;

	if (target_state(vbd->target) != TARGET_NONE || ended || !told ||
	    half_made || vbd->removed || vbd->attaching)
		return;
	if (vbd->backend_state == XenbusStateConnected ||
	    (vbd->backend_state == XenbusStateClosing &&
	     vbd->frontend_state != XenbusStateClosed))
		target_inherit(vbd->target);
	attach(vbd, !vbd->attached_before);
}

/* A guest that migrates to its own host has each disk twice for a moment; any other
 * disk, its own or another guest's, is a rival. */
static bool is_other_half(const struct vbd *a, const struct vbd *b)
{
	return a->at.devid == b->at.devid &&
	       (a->at.domid == b->at.domid ||
		(a->id.vm[0] && strcmp(a->id.vm, b->id.vm) == 0));
}

static bool is_no_rival(void *ctx, struct vbd *other)
{
	struct rival *rival = ctx;

	if (other == rival->vbd || is_other_half(other, rival->vbd))
		return true;
	if (target_conflict(rival->vbd->target, other->target))
		rival->found = other;
	return !rival->found;
}

static void check_rivals(struct vbd *vbd)
{
	struct rival rival = { .vbd = vbd };
	char why[MSG_TEXT_MAX];

	bus_each(vbd->broker->bus, is_no_rival, &rival);
	if (!rival.found)
		return;
	(void)snprintf(why, sizeof(why), "%.300s is in use by domain %u (%s)",
		       target_expression(vbd->target), rival.found->at.domid,
		       rival.found->node.vdev);
	target_fail(vbd->target, -EBUSY, why);
}

/* The sentence may quote what the guest may not read: see params. */
static int write_failed(struct vbd *vbd)
{
	int r = store_write(vbd->store, vbd->path, "hotplug-error", "%s",
			    target_why(vbd->target));

	if (r == 0)
		r = store_hide(vbd->store, vbd->path, "hotplug-error",
			       vbd->id.backend_domid);
	return r < 0 ? r :
		       store_write(vbd->store, vbd->path, "hotplug-status",
				   "error");
}

/* Where QEMU finds the disk of an HVM guest that boots from it.  libxl takes the
 * value for a file name of QEMU's, or for a socket, as the kind wants it; it
 * refuses a guest with a read-only IDE disk, so then there is none. */
static int write_device_path(struct vbd *vbd)
{
	const struct msg_opened *opened = target_opened(vbd->target);
	const char *path = vbd->export ? export_path(vbd->export) : NULL;
	bool readonly = vbd->node.read_only || opened->limits.readonly;

	/* A comma would end QEMU's option. */
	if (!path || readonly || vbd->at.kind == NODE_XENDISK ||
	    strchr(path, ','))
		return store_remove(vbd->store, vbd->path,
				    "physical-device-path");
	return store_write(vbd->store, vbd->path, "physical-device-path",
			   vbd->at.kind == NODE_VBD ? "nbd+unix:///?socket=%s" :
						      "%s",
			   path);
}

static int write_opened(struct vbd *vbd)
{
	int r = store_remove(vbd->store, vbd->path, "hotplug-error");

	if (r == 0)
		r = write_device_path(vbd);
	return r < 0 ? r :
		       store_write(vbd->store, vbd->path, "hotplug-status",
				   "connected");
}

static void tell_failed(struct vbd *vbd)
{
	const char *why = target_why(vbd->target);
	int err = target_error(vbd->target);

	log_disk(&vbd->who, LOG_LEVEL_ERROR, "cannot be attached: %s", why);
	vbd_write_error(vbd, err, why);
	/* A guest that is connected waits: the next daemon may have what this one has
	 * not, a backend, and is to try it. */
	if (target_link(vbd->target) != TARGET_LOST)
		(void)vbd_change(vbd, write_failed);
	promise_keep(&vbd->add, err, why);
}

static struct target *target_of(void *ctx)
{
	return vbd_target(ctx);
}

/* RUNDIR/nbd/DOMID-DEVID.sock.  The guest's disk is served without it, too. */
static void make_socket(struct vbd *vbd)
{
	cleanup_free char *name =
		xasprintf("%u-%u", vbd->at.domid, vbd->at.devid);
	cleanup_free char *path =
		name ? export_path_of(vbd->broker->options.run_dir, name) :
		       NULL;
	const struct export_spec spec = {
		.path = path, .name = "", .target = target_of, .ctx = vbd
	};
	char why[MSG_TEXT_MAX] = "no memory";

	if (!path || export_new(&vbd->export, vbd->broker, &spec, why) < 0)
		log_disk(&vbd->who, LOG_LEVEL_WARNING, "no NBD socket: %s",
			 why);
}

static void tell_opened(struct vbd *vbd)
{
	log_disk(&vbd->who, LOG_LEVEL_INFO, "%s is %s%s", vbd->node.vdev,
		 target_expression(vbd->target),
		 vbd->node.read_only ? ", read-only" : "");
	if (!vbd->export)
		make_socket(vbd);
	vbd_remove_error(vbd);
	(void)vbd_change(vbd, write_opened);
	promise_keep(&vbd->add, 0, NULL);
}

void vbd_attach_settle(struct vbd *vbd)
{
	if (!vbd->attaching || target_state(vbd->target) == TARGET_OPENING)
		return;
	vbd->attaching = false;
	/* What the guest was connected to before is not taken from it. */
	if (target_state(vbd->target) == TARGET_OPEN &&
	    target_link(vbd->target) != TARGET_LOST &&
	    target_link(vbd->target) != TARGET_HELD)
		check_rivals(vbd);
	if (target_state(vbd->target) == TARGET_FAILED)
		tell_failed(vbd);
	else
		tell_opened(vbd);
}

void vbd_attach_cancel(struct vbd *vbd)
{
	promise_keep(&vbd->add, -ECANCELED, "the disk was removed");
	promise_keep(&vbd->remove, 0, NULL);
	promise_keep(&vbd->end, -ECANCELED, "the disk was closed");
}

bool vbd_attach_end(struct vbd *vbd)
{
	if (!vbd_disconnected(vbd))
		return false;
	promise_keep(&vbd->end, 0, NULL);
	export_free(TAKE_PTR(vbd->export));
	vbd_forget_exports(vbd);
	target_close(vbd->target, !same_number(vbd));
	vbd->attaching = false;
	vbd_attach_cancel(vbd);
	return true;
}

/* --- The hotplug script --------------------------------------------------- */

/* Makes the device ours, whoever has it now. */
static int take_over(struct vbd *vbd, char *why)
{
	int r = 0;

	if (vbd->at.kind == NODE_VBD)
		r = blkback_take(vbd->at.domid, vbd->at.devid);
	if (r < 0)
		return msg_why(why, r,
			       "it cannot be taken from xen-blkback: %s",
			       strerror(-r));
	vbd->driven = true;
	/* What xen-blkback has offered may be more than we can do. */
	r = vbd_publish_transport(vbd);
	return r < 0 ? msg_why(why, r, "xenstore: %s", strerror(-r)) : 0;
}

static int find_for_script(struct broker *broker, const char *xenbus_path,
			   struct vbd **ret, char *why)
{
	struct node_address at;
	struct vbd *known = NULL;
	int r = node_parse(xenbus_path, &at);

	if (r < 0)
		return msg_why(why, r,
			       "XENBUS_PATH names no block device: %.200s",
			       xenbus_path);
	known = bus_known(broker->bus, &at);
	if (known)
		vbd_look(known); /* it may be one that has gone since */
	r = bus_get(broker->bus, &at, ret);
	if (r == -ENODEV)
		return msg_why(why, r, "%s is not there, or has another script",
			       xenbus_path);
	return r < 0 ? msg_why(why, r, "%s: %s", xenbus_path, strerror(-r)) : 0;
}

void vbd_hotplug_add(struct broker *broker, const char *xenbus_path,
		     vbd_done_fn done, void *ctx)
{
	char why[MSG_TEXT_MAX] = "";
	struct vbd *vbd = NULL;
	int r = find_for_script(broker, xenbus_path, &vbd, why);

	if (r == 0 && vbd->add.done) {
		r = -EBUSY;
		(void)snprintf(why, sizeof(why), "it is being attached");
	}
	if (r == 0)
		r = take_over(vbd, why);
	if (r < 0) {
		done(ctx, r, why);
		return;
	}
	vbd->add = (struct promise){ done, ctx };
	if (target_state(vbd->target) == TARGET_NONE ||
	    target_state(vbd->target) == TARGET_FAILED)
		attach(vbd, true);
	vbd->attaching = true; /* also when it is open already */
	vbd_touch(vbd);
}

void vbd_hotplug_remove(struct broker *broker, const char *xenbus_path,
			vbd_done_fn done, void *ctx)
{
	struct node_address at;
	struct vbd *vbd = NULL;

	if (node_parse(xenbus_path, &at) == 0)
		vbd = bus_known(broker->bus, &at);
	if (!vbd) {
		done(ctx, 0, NULL);
		return;
	}
	if (vbd->remove.done) {
		done(ctx, -EBUSY, "it is being removed");
		return;
	}
	vbd->removed = true;
	vbd->remove = (struct promise){ done, ctx };
	vbd_touch(vbd);
}

/* --- For the control socket ----------------------------------------------- */

void vbd_wait(struct vbd *vbd, vbd_done_fn done, void *ctx)
{
	promise_keep(&vbd->end, -ECANCELED, "another client waits for it now");
	vbd->end = (struct promise){ done, ctx };
}

static void resized(void *ctx, int err, const char *why)
{
	struct vbd *vbd = ctx;

	if (err == 0)
		vbd_publish_size(vbd);
	promise_keep(&vbd->resize, err, why);
}

void vbd_resize(struct vbd *vbd, uint64_t size, vbd_done_fn done, void *ctx)
{
	int r = -EBUSY;

	if (!vbd->resize.done)
		r = target_resize(vbd->target, size, resized, vbd);
	if (r < 0)
		done(ctx, r,
		     r == -ENOTCONN ? "no worker is serving it" : strerror(-r));
	else
		vbd->resize = (struct promise){ done, ctx };
}

struct target *vbd_target(const struct vbd *vbd)
{
	return vbd->target;
}

void vbd_control(struct vbd *vbd, const char *verb, const char *text,
		 vbd_done_fn done, void *ctx)
{
	target_control(vbd->target, verb, text, done, ctx);
}

/* It has failed, and nothing of it waits for the operator as well.  NULL: it has
 * not. */
static const char *hopeless(const struct vbd *vbd)
{
	return target_condition(vbd->target, MSG_PAUSED) ||
			       target_condition(vbd->target, MSG_POISONED) ?
		       NULL :
		       vbd_failure(vbd);
}

static void refuse_resume(const char *failure, vbd_done_fn done, void *ctx)
{
	char why[MSG_TEXT_MAX];

	(void)snprintf(
		why, sizeof(why),
		"the disk has failed, which resume does not mend (replug "
		"starts it anew): %.400s",
		failure);
	done(ctx, -EIO, why);
}

void vbd_resume(struct vbd *vbd, bool accept_loss, vbd_done_fn done, void *ctx)
{
	const char *failure = hopeless(vbd);
	int r = 0;

	if (failure)
		refuse_resume(failure, done, ctx);
	else
		r = target_resume(vbd->target, accept_loss, done, ctx);
	if (r < 0)
		done(ctx, r,
		     r == -ENOTCONN ? "no worker is serving it" : strerror(-r));
}
