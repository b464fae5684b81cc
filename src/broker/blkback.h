/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkback.h - getting along with xen-blkback, the kernel's own backend.
 *
 * It takes every new node in backend/vbd, ours too.  What is ours is taken
 * from it (it cannot be done the other way round: it would connect to the
 * rings).  It must be loaded before our first disk and stay loaded: when it is
 * loaded later it probes every node in backend/vbd again, and that kills the
 * disks that others serve.
 */
#ifndef XENDISK_BLKBACK_H
#define XENDISK_BLKBACK_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Loads it where this kernel could ever have it.  Blocks, for 10 s at most.
 * 0 also when there is nothing to load; -ETIMEDOUT, or -EIO: modprobe failed.
 *
 * It offers a queue for each CPU, and a running guest has taken them before we
 * take the device over.  So as long as it serves no disk it is told to offer no
 * more than max_queues; *ret_queues is what it offers (0: not known).
 */
int blkback_load(uint32_t max_queues, uint32_t *ret_queues);

/* Is its driver registered?  Then it sees new nodes before us. */
bool blkback_present(void);

/* Does it have this device? */
bool blkback_owns(uint32_t domid, uint32_t devid);

/* Takes the device from it; 0 also when it does not have it. */
int blkback_take(uint32_t domid, uint32_t devid);

#endif
