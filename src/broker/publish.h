/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * publish.h - what a backend tells the guest in xenstore: one table of keys.
 */
#ifndef XENDISK_PUBLISH_H
#define XENDISK_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/store.h"
#include "xendisk-backend.h"

struct publish {
	uint32_t queues; /* offered at most */
	const struct xd_limits *limits; /* not needed for the transport */
	bool read_only;
	bool cdrom;
	bool removable;
	bool discard; /* the toolstack allows it */
	bool persistent; /* grants: see vbd-write.c */
};

/* Before state 2: the frontend reads these as soon as it sees that state. */
int publish_transport(struct store *store, const char *dir,
		      const struct publish *publish);

/* Before state 4, in its transaction: every key that xen-blkback may have
 * written here before us is overwritten or removed. */
int publish_disk(struct store *store, const char *dir,
		 const struct publish *publish);
/* Of these only how large the disk is. */
int publish_size(struct store *store, const char *dir,
		 const struct publish *publish);

#endif
