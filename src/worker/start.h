/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * start.h - `xendiskd --worker DOMID/DEVID`: the other side of broker/spawn.c.
 */
#ifndef XENDISK_START_H
#define XENDISK_START_H

/* disk: "DOMID/DEVID"; the rest is in the environment, see broker/spawn.h.
 * Returns the exit status. */
int worker_start(const char *disk);

#endif
