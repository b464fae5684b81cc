/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * detach.h - detaching a disk, for the verbs that do it.
 */
#ifndef XENDISK_DETACH_H
#define XENDISK_DETACH_H

#include "command/device.h"

struct detach {
	const struct invocation *call;
	struct xs_handle *store;
	struct device device;
	uint32_t timeout_s;
	bool force;
};

/* Fills it in for the verb's arguments DOM VDEV and its options timeout and
 * force, and finds the device.  Says itself what is wrong.  detach_release() also
 * when it failed. */
enum status detach_prepare(struct detach *d, const struct invocation *call);
/* Attached by xl, in whose hands it is then, or without it? */
bool detach_is_by_xl(const struct detach *d);
/* Returns when the disk is gone, or with an error that it has said. */
enum status detach_run(struct detach *d);
void detach_release(struct detach *d);

#endif
