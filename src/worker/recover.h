/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * recover.h - a connection begins, with nothing in flight or where a dead worker
 * stopped.
 *
 * Main thread; the rings are mapped and bound, and no lane runs yet.
 */
#ifndef XENDISK_RECOVER_H
#define XENDISK_RECOVER_H

#include "worker/io.h"

/* Nothing was in flight. */
void recover_nothing(struct io_disk *disk, struct io_ring **rings,
		     unsigned int nr_rings, const struct inflight_id *id);

/*
 * Goes on with what disk->log says, if it is of this connection; else nothing
 * was in flight.  On failure nothing has changed: ret_why (MSG_TEXT_MAX bytes)
 * says why the log cannot be believed.
 */
int recover(struct io_disk *disk, struct io_ring **rings, unsigned int nr_rings,
	    const struct inflight_id *id, char *ret_why);

#endif
