/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-map.h - a layer: which sectors it has, and how that becomes durable.
 *
 * A layer is a data file, in which each sector stands at its own offset, and a
 * map with a bit for each sector of 512 bytes.  Set: the layer has it, as data
 * or, where the data file has a hole, as zeroes.  Bits of a layer are only ever
 * set.  See overlay-map.c for what is on disk.
 *
 * All of it may be called from any lane or thread at any time, except where it
 * says otherwise.  Ranges are sectors, first < end <= the size of the disk.
 */
#ifndef XENDISK_GIT_OVERLAY_MAP_H
#define XENDISK_GIT_OVERLAY_MAP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define LAYER_SECTOR 512u

struct layer;

uint64_t layer_generation(const struct layer *layer);
/* The data file, as large as the disk at least.  The descriptor is the layer's
 * and carries the lock, so it must not go to another process: struct overlay_layer
 * has one that may. */
int layer_data_fd(const struct layer *layer);
/* How many sectors it has. */
uint64_t layer_sectors(const struct layer *layer);

/* No lock.  How many sectors from first on, before end, are alike; *ret_set says
 * whether the layer has them.  Beyond the size of the layer it has none. */
uint64_t layer_run(const struct layer *layer, uint64_t first, uint64_t end,
		   bool *ret_set);
/* No lock.  The next sectors that it has: [*ret_first, *ret_end), not before
 * first and cut at end.  False: none. */
bool layer_next(const struct layer *layer, uint64_t first, uint64_t end,
		uint64_t *ret_first, uint64_t *ret_end);
/*
 * Only of the active layer.  It has these sectors from now on: call it when the
 * write (or the punched hole) has completed, before that is answered.  A hole
 * must be punched in a new layer, too: a data file that is used again may have
 * old bytes where its map has no bit.  -ENOMEM: some bits may be set already,
 * which is no harm; do it again.
 */
int layer_mark(struct layer *layer, uint64_t first, uint64_t end);

/* --- Flush, in steps that a lane can hand to xd_sys() ---------------------- */

enum layer_step {
	LAYER_DONE, /* flush->err says how it went: 0 or -errno */
	LAYER_SYNC, /* fdatasync(flush->fd) */
	LAYER_WRITE, /* pwritev(flush->fd, flush->iov, ->iovcnt, ->offset) */
	LAYER_WAIT, /* another flush of this layer is at it: see wake */
};

/*
 * One flush, in the caller's memory; set wake, owner, can_dsync and nothing else
 * before layer_flush_begin().  What was marked before begin is durable when it is done
 * without an error.  Many may run at once.
 *
 *   step = layer_flush_begin(f, layer);
 *   while (step != LAYER_DONE)
 *	step = layer_flush_next(f, what the system call returned, or -errno);
 *
 * -EINTR and short counts are seen to.  An error of a write (-ENOSPC, -EIO) is
 * this flush's, and that of those it wrote for: the next one does that part again.
 * An error of fdatasync is the layer's: that flush and all later ones fail with it,
 * since what the kernel has dropped cannot be known (the host marks the disk as
 * poisoned).
 */
struct layer_flush {
	/* LAYER_WAIT: called once when another one ends, on its thread and
	 * under a lock of the layer's: it may only signal, and take no lock
	 * that is held over a call of the layer's.  Then call
	 * layer_flush_next(f, 0) on the thread of this flush, which may have to
	 * wait again.  It may come before layer_flush_next() has returned
	 * LAYER_WAIT.  NULL: none; call layer_flush_next(f, 0) now and then. */
	void (*wake)(struct layer_flush *flush);
	void *owner; /* the caller's */
	/* The caller can make a write durable by itself (RWF_DSYNC): to be set
	 * before begin, too. */
	bool can_dsync;

	/* The step. */
	int fd;
	unsigned int iovcnt;
	const struct iovec *iov; /* the flush's; valid until the next step */
	uint64_t offset;
	uint64_t length; /* of all iov */
	bool dsync; /* LAYER_WRITE: it is to be durable when it is done */
	int err;

	/* overlay-map.c */
	struct layer *layer;
	struct map_save *save;
	struct layer_flush *next;
	uint64_t ticket;
	uint64_t save_ticket;
	struct iovec rest[16];
	unsigned int at;
	unsigned int pages;
	uint8_t state;
	bool queued, woken;
};

enum layer_step layer_flush_begin(struct layer_flush *flush,
				  struct layer *layer);
enum layer_step layer_flush_next(struct layer_flush *flush, int64_t res);
/* After LAYER_DONE: it has failed by a write, and another one may succeed. */
bool layer_flush_may_retry(const struct layer_flush *flush);
/* In LAYER_WAIT only: it is given up, as when the lane ends. */
void layer_flush_cancel(struct layer_flush *flush);
/* All of it, blocking: for threads.  0 or -errno. */
int layer_flush(struct layer *layer);
/* Of the fdatasync() since which no flush of it succeeds; 0: another one may. */
int layer_error(struct layer *layer);

/* --- For those that only read a layer: the companions ---------------------- */

/*
 * Reads the map of a layer that nobody changes meanwhile (frozen or clean; the
 * active one while writes are held, after its flush) through the descriptors in
 * struct overlay_layer, which may be sent to another process.  They stay the
 * caller's and must outlive the layer.  uuid: of the overlay; size: the disk's,
 * bytes.  -EBADMSG and why: the map is damaged, or is that of another layer.
 */
int layer_open_frozen(struct layer **ret, int data_fd, int map_fd,
		      const uint8_t uuid[16], uint64_t generation,
		      uint64_t size, char *ret_why);
void layer_close(struct layer *layer);

#endif
