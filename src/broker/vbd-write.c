/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vbd-write.c - what a disk writes into xenstore: its state, and the keys that
 * go with it.
 *
 * All of it in transactions that give up when the directory has gone: a key
 * written then would make it again.  The state is written by vbd_step() alone,
 * and only over the one that the look has seen: the toolstack writes it too.
 */
#include <string.h>
#include <xen/io/xenbus.h>

#include "broker/broker.h"
#include "broker/frontend.h"
#include "broker/publish.h"
#include "broker/vbd-private.h"

#define RETRY_MS 100 /* xenstore was busy */
/* Offered however few CPUs there are: xen-blkback may have been told to offer
 * four (max_queues), and its guest has read that before we take over. */
#define MIN_QUEUES 4

struct change {
	struct vbd *vbd;
	int (*write)(struct vbd *vbd);
};

static int change_body(struct store *store, void *ctx)
{
	const struct change *change = ctx;
	cleanup_free char *frontend = NULL;
	int r = store_read(store, change->vbd->path, "frontend", &frontend);

	return r < 0 ? r : change->write(change->vbd);
}

int vbd_change(struct vbd *vbd, int (*write)(struct vbd *vbd))
{
	struct change change = { vbd, write };

	return store_transact(vbd->store, change_body, &change);
}

struct step {
	struct vbd *vbd;
	int state;
	int (*also)(struct vbd *vbd);
};

static int write_step(struct store *store, void *ctx)
{
	const struct step *step = ctx;
	const struct vbd *vbd = step->vbd;
	uint32_t now = XenbusStateUnknown;
	int r = store_read_u32(store, vbd->path, "state",
			       XenbusStateReconfigured, &now);

	if (r < 0)
		return r;
	if ((int)now != vbd->backend_state)
		return -ESTALE;
	if (step->also)
		r = step->also(step->vbd);
	return r < 0 ? r :
		       store_write(store, vbd->path, "state", "%d",
				   step->state);
}

int vbd_step(struct vbd *vbd, int state, int (*also)(struct vbd *vbd))
{
	struct step step = { vbd, state, also };
	int r = store_transact(vbd->store, write_step, &step);

	if (r == 0)
		vbd_set_backend_state(vbd, state);
	else if (r == -ESTALE || r == -EAGAIN)
		vbd_look_in(vbd, RETRY_MS);
	else if (r != -ENOENT) /* removed: the next look will see it */
		log_guest(&vbd->who, LOG_LEVEL_ERROR,
			  "xenstore: %s cannot be written: %s", vbd->path,
			  strerror(-r));
	return r;
}

void vbd_write_error(struct vbd *vbd, int err, const char *why)
{
	char dir[STORE_PATH_MAX];

	node_print_error_dir(dir, &vbd->at, vbd->id.backend_domid);
	(void)store_write(vbd->store, dir, "error", "%d %s", -err, why);
}

void vbd_remove_error(struct vbd *vbd)
{
	char dir[STORE_PATH_MAX];

	node_print_error_dir(dir, &vbd->at, vbd->id.backend_domid);
	(void)store_remove_branch(vbd->store, dir, 3); /* up to error/ */
}

static int publish(struct vbd *vbd,
		   int (*keys)(struct store *store, const char *dir,
			       const struct publish *publish))
{
	const struct msg_opened *opened = target_opened(vbd->target);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct publish publish = {
		.queues = (uint32_t)MIN(MAX(cpus, MIN_QUEUES), XD_MAX_RINGS),
		.limits = opened ? &opened->limits : NULL,
		.read_only = vbd->node.read_only,
		.cdrom = vbd->node.cdrom,
		.removable = vbd->node.removable,
		.discard = vbd->node.discard,
		.persistent = vbd->persistent,
	};

	return keys(vbd->store, vbd->path, &publish);
}

int vbd_write_transport(struct vbd *vbd)
{
	return publish(vbd, publish_transport);
}

/*
 * Persistent grants.  A frontend that has read feature-persistent=0 takes a page that
 * is still mapped when its request is answered for an attack (Linux gives up the
 * disk), whatever it has written itself.  So a connection has them only if what stands
 * in our directory says so, whoever wrote it, before and after: it is written when the
 * disk is offered, by the configuration, and stays as it is until the guest has left.
 * In InitWait some frontends have read it, others have not (Linux reads it when we are
 * Connected): until they connect it may be taken back, but not be offered after all.
 */
bool vbd_offers_persistent(struct vbd *vbd, bool if_absent)
{
	uint32_t value = 0;
	int r = store_read_u32(vbd->store, vbd->path, "feature-persistent", 1,
			       &value);

	return r == -ENOENT ? if_absent : r == 0 && value == 1;
}

static int also_first_transport(struct vbd *vbd)
{
	uint32_t state = XenbusStateUnknown;
	int r = store_read_u32(vbd->store, vbd->path, "state",
			       XenbusStateReconfigured, &state);

	if (r < 0 && r != -ENOENT && r != -EINVAL)
		return r;
	if (state == XenbusStateConnected || state == XenbusStateClosing)
		vbd->persistent = vbd_offers_persistent(vbd, false);
	else if (vbd->connect.nr_rings == 0)
		vbd->persistent = vbd->broker->settings->persistent_grants &&
				  (state != XenbusStateInitWait ||
				   vbd_offers_persistent(vbd, true));
	return vbd_write_transport(vbd);
}

int vbd_publish_transport(struct vbd *vbd)
{
	return vbd_change(vbd, also_first_transport);
}

int vbd_write_disk(struct vbd *vbd)
{
	return publish(vbd, publish_disk);
}

int vbd_write_size(struct vbd *vbd)
{
	return publish(vbd, publish_size);
}

/* Only while the frontend is Closed: else they may be new ones. */
int vbd_forget_rings(struct vbd *vbd)
{
	int state = XenbusStateUnknown;
	int r = frontend_state(vbd->store, vbd->frontend, &state);

	if (r == 0 && state == XenbusStateClosed)
		frontend_forget_rings(vbd->store, vbd->frontend);
	return r;
}
