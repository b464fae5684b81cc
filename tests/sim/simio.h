/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Buffers of guest memory for the requests of a simulated guest, and doing
 * one request at a time.
 */
#ifndef SIMIO_H
#define SIMIO_H

#include "simfront.h"

/*
 * Guest pages, and the parts of them that a request covers.  Each segment has
 * a page of its own.
 */
struct simio_buffer {
	uint8_t *pages;
	unsigned int nr_pages;
	unsigned int nr_segments;
	struct simqueue_segment segments[SIMQUEUE_MAX_SEGMENTS];
};

/* Returns 0, -ENOMEM or -EINVAL (over SIMQUEUE_MAX_SEGMENTS pages). */
int simio_alloc(struct simfront *front, unsigned int nr_pages,
		struct simio_buffer *ret_buffer);
void simio_free(struct simfront *front, struct simio_buffer *buffer);

/* Lays out sectors over whole pages, from the first on. */
void simio_linear(struct simio_buffer *buffer, unsigned int sectors);
/*
 * Lays them out over pieces of random pages, in at most max_segments of
 * them.  unit: sectors that stay together (of a disk's own sector size).
 */
void simio_scatter(struct simio_buffer *buffer, unsigned int sectors,
		   unsigned int unit, unsigned int max_segments,
		   uint64_t *random);

/* The sectors of a layout one by one, in the order of the disk; then NULL. */
struct simio_cursor {
	unsigned int segment, sector;
};
uint8_t *simio_next(const struct simio_buffer *buffer,
		    struct simio_cursor *cursor);

/* Every byte of the pages gets a canary. */
void simio_set_canaries(struct simio_buffer *buffer);
/* True when all bytes outside the layout still are canaries. */
bool simio_canaries_alive(const struct simio_buffer *buffer);

/*
 * Sends one request and waits for its answer, in req->status.  0;
 * -ETIMEDOUT: none came; -EPROTO: the queue is broken.
 */
int simio_sync(struct simqueue *queue, struct simqueue_request *req,
	       int timeout_s);

/* The same for one that is not honest. */
int simio_sync_slot(struct simqueue *queue, struct simqueue_request *req,
		    uint8_t *slot, int timeout_s);

/* A request that covers the layout of a buffer. */
struct simqueue_request simio_request(uint8_t operation, uint64_t sector,
				      const struct simio_buffer *buffer);

/* xorshift64: *state is never 0.  Uniform enough, fast, repeatable. */
uint64_t simio_random(uint64_t *state);
int64_t simio_now_ns(void);

#endif
