/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * device.h - a disk's place in xenstore.
 */
#ifndef XENDISK_DEVICE_H
#define XENDISK_DEVICE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <xenstore.h>

#include "command/command.h"

struct device {
	uint32_t domid;
	uint32_t devid;
	char *frontend; /* /local/domain/5/device/vbd/51728 */
	char *backend; /* /local/domain/0/backend/vbd/5/51728 */
	char *libxl; /* /libxl/5/device/vbd/51728 */
};

void device_release(struct device *device);

/*
 * The device of DOM VDEV, as libxl has noted it or, when xl does not know it, as
 * this domain has it; never as the guest says.  Says itself what is wrong.
 */
enum status device_find(const struct invocation *call, struct xs_handle *store,
			const char *dom, const char *vdev, struct device *ret);

/*
 * Asks the guest to let go of the disk, as libxl does: online=0 and state=5.
 * force: takes the frontend away, too, which the daemon takes for a guest that
 * is gone.  0 or -errno.
 */
int device_ask_to_close(struct xs_handle *store, const struct device *device,
			bool force);
/* The end of a disk that is closed. */
void device_remove_nodes(struct xs_handle *store, const struct device *device);

/* This domain's id. */
uint32_t device_backend_domid(struct xs_handle *store);

/* The parameters {domid, devid} of a method, for the arguments DOM VDEV.  Says
 * itself what is wrong. */
enum status device_params(const struct invocation *call, json_t **ret);

#endif
