/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grow.h - a disk that becomes larger while it is served.
 *
 * Main thread.  Lanes know the new size before the broker, and so before the
 * guest.
 */
#ifndef XENDISK_GROW_H
#define XENDISK_GROW_H

#include "worker/io.h"

struct grow {
	/* Set by the owner. */
	struct stack *stack;
	struct io_disk *disk;
	struct services *services;
	struct msg_opened *opened; /* the size in it: as the broker was told */
	const struct log_who *who;

	uint64_t look_at; /* ns; UINT64_MAX: it cannot grow by itself */
	bool failed; /* the last look, and that was said */
};

/* Makes the disk that large, or size 0: as large as its storage is by now.  On
 * -errno ret_why (MSG_TEXT_MAX bytes) says why. */
int grow_resize(struct grow *grow, uint64_t size, char *ret_why);
/* The same for what may have grown by itself; to be called again at
 * grow->look_at, while a guest is connected. */
void grow_look(struct grow *grow);
/* Tells the broker, if it does not know. */
void grow_tell(struct grow *grow);

#endif
