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

#include "broker/supervise.h"
#include "common/msg.h"

struct broker;
struct vbd;

/* backend/vbd, backend/vbd3, backend/xendisk */
enum vbd_kind { VBD_KIND_VBD, VBD_KIND_VBD3, VBD_KIND_XENDISK, VBD_NR_KINDS };
const char *vbd_kind_name(enum vbd_kind kind);

/* The answer to list and show (INTERFACE: list --json). */
struct vbd_view {
	uint32_t domid;
	uint32_t devid;
	enum vbd_kind kind;
	char vdev[32];
	const char *expression;
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

typedef void (*vbd_done_fn)(void *ctx, int err, const char *why);

/*
 * The hotplug script.  xenbus_path is relative, "backend/vbd/5/51728", as libxl
 * gives it.  done is called once, with a sentence when err is not 0: within
 * 35 s, since xl kills the script after 40.
 */
void vbd_hotplug_add(struct broker *broker, const char *xenbus_path,
		     vbd_done_fn done, void *ctx);
void vbd_hotplug_remove(struct broker *broker, const char *xenbus_path,
			vbd_done_fn done, void *ctx);

void vbd_resume(struct vbd *vbd, bool accept_loss, vbd_done_fn done, void *ctx);

#endif
