/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pause.h - the condition "paused" of a disk, which may have several causes at
 * a time: requests that are held (hold.c), servers that are away (xd_paused()).
 *
 * The disk is paused from the first cause until the last has gone; the reason
 * that shows is the newest.  Any thread.
 */
#ifndef XENDISK_PAUSE_H
#define XENDISK_PAUSE_H

#include <pthread.h>

#include "worker/services.h"

struct pause {
	struct services *services;
	pthread_mutex_t lock; /* also: one message is sent after the other */
	unsigned int nr_causes;
};

void pause_init(struct pause *pause, struct services *services);
void pause_destroy(struct pause *pause);

void pause_begin(struct pause *pause, const char *reason);
/* A cause that is there already has another reason now. */
void pause_change(struct pause *pause, const char *reason);
void pause_end(struct pause *pause);

#endif
