/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vbd-view.c - what is told about a disk.
 */
#include <xen/io/xenbus.h>

#include "broker/vbd-private.h"

const char *vbd_failure(const struct vbd *vbd)
{
	if (target_state(vbd->target) == TARGET_FAILED)
		return target_why(vbd->target);
	return vbd->refused[0] ? vbd->refused : target_stuck(vbd->target);
}

static const char *state_word(const struct vbd *vbd)
{
	if (vbd_failure(vbd))
		return "failed";
	if (target_state(vbd->target) == TARGET_NONE && !vbd->removed)
		return "opening";
	switch (vbd->backend_state) {
	case XenbusStateConnected:
		return "connected";
	case XenbusStateClosing:
		return "closing";
	case XenbusStateClosed:
		return "closed";
	default:
		return target_state(vbd->target) == TARGET_OPEN ? "waiting" :
								  "opening";
	}
}

static void view_connection(const struct vbd *vbd, struct vbd_view *view)
{
	if (vbd->connect.nr_rings == 0)
		return;
	view->queues = vbd->connect.nr_rings;
	while (1u << view->ring_page_order < vbd->connect.ring[0].nr_refs)
		view->ring_page_order++;
}

void vbd_view(const struct vbd *vbd, struct vbd_view *ret)
{
	const struct msg_opened *opened = target_opened(vbd->target);
	struct vbd_view view = {
		.domid = vbd->at.domid,
		.devid = vbd->at.devid,
		.kind = vbd->at.kind,
		.expression = target_expression(vbd->target),
		.given = vbd->node.target ? vbd->node.target : "",
		.state = state_word(vbd),
		.readonly = vbd->node.read_only,
		.worker_pid = target_pid(vbd->target),
		.restarts = target_restarts(vbd->target),
		.failure = vbd_failure(vbd),
		.notes = target_notes(vbd->target),
		.backend_path = vbd->path,
		.frontend_path = vbd->frontend,
		.backend_state = vbd->backend_state,
		.frontend_state = vbd->frontend_state,
	};

	(void)snprintf(view.vdev, sizeof(view.vdev), "%s", vbd->node.vdev);
	if (opened) {
		view.size = opened->limits.size;
		view.sector_size = opened->limits.sector_size;
		view.physical_sector_size = opened->limits.physical_sector_size;
		view.readonly |= opened->limits.readonly;
	}
	for (int i = 0; i < MSG_NR_CONDITIONS; i++)
		view.condition[i] = target_condition(vbd->target, i);
	view_connection(vbd, &view);
	*ret = view;
}
