/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * live.h - which sectors the active layer has, for the worker that may take this
 * one's place.
 *
 * The layer's own map is written when the guest flushes.  That is enough for a
 * machine that loses power, with its guest; but a guest whose worker dies goes on,
 * and has been told that its writes are done.  Their data is in the page cache.
 * So the sectors are noted in kept state as well, which lives as long as that.
 *
 * It says which layer it is about: after a snapshot it is another one, and what was
 * noted of the one before means nothing.  There are two maps, so that the one that
 * is not in use can be emptied while the guest writes on.
 */
#ifndef XENDISK_GIT_LIVE_H
#define XENDISK_GIT_LIVE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct kept_map;
struct layer;
struct xd_disk;

struct live {
	struct kept_map *map[2];
	int fd; /* kept state: the generation that it is about */
	bool kept; /* another worker has served this disk since it was attached */
	/* Between client_resized(), on the main thread, and whoever empties a map;
	 * lanes stand still meanwhile, or use the other one. */
	pthread_mutex_t lock;
	atomic_uint now; /* which map; changed while nothing is written */
	bool stale; /* the other one is to be emptied */
};

/* Main thread, in open(); bytes: of the disk.  On failure xd_error() has said why. */
int live_open(struct live *live, struct xd_disk *disk, uint64_t bytes);
void live_close(struct live *live); /* what was never opened, too */

/* Nothing is written meanwhile.  The layer is the active one, as it was found:
 * it gets what was noted of it.  bytes: of the disk. */
int live_recover(struct live *live, struct layer *layer, uint64_t bytes);
/* The same; it is a new one. */
int live_next(struct live *live, uint64_t generation);
/* One thread at a time. */
void live_clean(struct live *live);

/* Main thread: room for a disk of that many bytes, in two steps as
 * xd_backend.resize and resized.  On failure xd_error() has said why. */
int live_grow(struct live *live, struct xd_disk *disk, uint64_t bytes);
void live_grown(struct live *live);

/* Any lane; sectors.  Before layer_mark(). */
int live_mark(struct live *live, uint64_t first, uint64_t end);

#endif
