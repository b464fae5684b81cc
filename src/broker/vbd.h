/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vbd.h - one guest's disk as xenbus sees it: the handshake.
 *
 * Broker thread only.  A vbd owns its worker, its place in xenstore and what
 * is known of the disk.  Events come in as "something about this disk may have
 * changed" (vbd_look()): the current values are read and the table in
 * vbd-states.def says what to do.  Nothing is queued, so a guest that flaps
 * its state costs nothing.
 */
#ifndef XENDISK_VBD_H
#define XENDISK_VBD_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/node.h"
#include "broker/promise.h"
#include "broker/supervise.h"
#include "common/msg.h"

struct broker;
struct target;
struct vbd;

/* For bus.c, which keeps them. */
int vbd_new(struct vbd **ret, struct broker *broker, struct store *store,
	    const struct node_address *at);
void vbd_free(struct vbd *vbd);
/* Acts on what stands in xenstore now.  The vbd may be gone afterwards. */
void vbd_look(struct vbd *vbd);
/* Looks soon, from the event loop. */
void vbd_touch(struct vbd *vbd);
/* xenstored has forgotten everything: that its directory is missing does not
 * end a disk that a guest is connected to, until it is there again. */
void vbd_set_adrift(struct vbd *vbd);
const struct node_address *vbd_address(const struct vbd *vbd);
/* Its directory has been removed; it is only there until the worker is done. */
bool vbd_is_gone(const struct vbd *vbd);

/* What list and show say of a disk.  Its texts are borrowed, and stay as they are
 * until the broker's event loop goes on. */
struct vbd_view {
	uint32_t domid;
	uint32_t devid;
	enum node_kind kind;
	char vdev[32];
	const char *expression;
	const char *given; /* as the toolstack wrote it: "@web1"; or "" */
	const char *state; /* opening, waiting, connected, closing, ... */
	uint64_t size;
	uint32_t sector_size;
	uint32_t physical_sector_size;
	bool readonly;
	uint32_t queues;
	uint32_t ring_page_order;
	pid_t worker_pid;
	unsigned int restarts;
	const char *condition[MSG_NR_CONDITIONS]; /* reason, or NULL */
	const char *failure; /* why state is failed, or NULL */
	const char *notes; /* a line per layer, or "" */
	const char *backend_path;
	const char *frontend_path;
	int backend_state; /* xenbus states as last read; 0: none */
	int frontend_state;
};
void vbd_view(const struct vbd *vbd, struct vbd_view *ret);

/* May be called before the function that it was given to returns. */
typedef promise_fn vbd_done_fn;

/*
 * The hotplug script.  xenbus_path is relative, "backend/vbd/5/51728", as libxl
 * gives it.  done is called once, with a sentence when err is not 0: within
 * 35 s, since xl kills the script after 40.
 *
 * The verdict stands in the backend directory, too: hotplug-status becomes
 * "connected"; or "error", with the sentence in hotplug-error.  A disk of kind
 * xendisk has no script: it is opened as soon as its directory is seen, in
 * state Initialising, and goes on to InitWait when it is open; when it cannot
 * be opened its state becomes Closed.  So whoever made the directory waits for
 * hotplug-status.
 */
void vbd_hotplug_add(struct broker *broker, const char *xenbus_path,
		     vbd_done_fn done, void *ctx);
void vbd_hotplug_remove(struct broker *broker, const char *xenbus_path,
			vbd_done_fn done, void *ctx);

/* done is called when the disk has gone and its worker is at rest, what it has
 * kept still there; or with an error, when another call takes its place. */
void vbd_wait(struct vbd *vbd, vbd_done_fn done, void *ctx);

/* What the disk is served from, for export.h. */
struct target *vbd_target(const struct vbd *vbd);

/* Looks how large its storage is by now (size 0), or makes it that large.  done:
 * the guest has been told, if it grew; vbd_view() has the size. */
void vbd_resize(struct vbd *vbd, uint64_t size, vbd_done_fn done, void *ctx);

/* Asks the backends for something, see control() in xendisk-backend.h.  done:
 * with the answer (pairs.h), or why there is none, as inquiry_fn has it. */
void vbd_control(struct vbd *vbd, const char *verb, const char *text,
		 vbd_done_fn done, void *ctx);

/* What waits for an error to pass is tried again at once.  accept_loss: what a failed
 * flush has lost is accepted, and its storage is not marked any more; without that a
 * poisoned disk is -EBUSY. */
void vbd_resume(struct vbd *vbd, bool accept_loss, vbd_done_fn done, void *ctx);

#endif
