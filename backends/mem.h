/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mem.h - a disk in memory: mem.c opens it and lets it grow, mem-io.c moves the
 * data, mem-blocks.c makes the memory, and says who reads it.
 */
#ifndef XENDISK_MEM_H
#define XENDISK_MEM_H

#include <pthread.h>
#include <stdint.h>

#include "kept-map.h"
#include "xendisk-backend.h"

#define MEM_BLOCK  4096u
#define MEM_ZEROES (1u << 20) /* bytes of zero page lent in one piece */

struct mem_lane {
	struct mem_lane *next;
	/* The epoch in which this lane began to read; 0: it does not. */
	uint64_t reading;
	unsigned int readers; /* loans that are out; the lane's own */
};

/* The kept pages in our memory. */
struct mapping {
	char *pages;
	uint64_t size;
	struct mapping *older; /* a request in flight may still have part of it */
};

/* disk->data */
struct mem {
	int fd;
	uint64_t size;
	uint64_t file_size; /* whole blocks */
	char *pages; /* of the mapping below */
	struct mapping *mapping;
	struct mapping *next; /* resize() has made it, resized() takes it */
	char *zeroes;
	struct kept_map *map;
	struct mem_lane *lanes;
	uint64_t epoch; /* grows with each discard; from 1 */
	pthread_mutex_t lock; /* allocation: the two below */
	uint64_t used; /* bytes of blocks that exist */
	uint64_t paid; /* bytes of budget taken, at least used */
};

/* --- mem-blocks.c --------------------------------------------------------- */

/* Around each look at the map that leads to a read.  May be nested. */
void mem_lane_enter(const struct mem *mem, struct mem_lane *lane);
void mem_lane_leave(struct mem_lane *lane);
/* After the map was changed; then wait until those before it have gone. */
uint64_t mem_new_epoch(struct mem *mem);
bool mem_readers_gone(const struct mem *mem, uint64_t epoch);

/* Pays for more bytes; the lock is held, or no lane runs. */
int mem_pay(struct xd_disk *disk, struct mem *mem, uint64_t more);
/* bytes of blocks are no more; keeps some budget for the next ones. */
void mem_unpay(struct xd_disk *disk, struct mem *mem, uint64_t bytes);
/* Pages of blocks in the file: makes them, frees them. */
int mem_reserve(const struct mem *mem, uint64_t block, uint64_t end);
int mem_punch(const struct mem *mem, uint64_t block, uint64_t end);
/* Any lane.  Makes all blocks from .. to bytes exist. */
int mem_make_blocks(struct xd_disk *disk, uint64_t from, uint64_t to);

/* --- mem-io.c: members of struct xd_backend ------------------------------- */

int mem_map(struct xd_channel *ch, struct xd_request *req,
	    struct iovec *ret_iov, unsigned int *io_iovcnt);
void mem_unmap(struct xd_channel *ch, struct xd_request *req, int err);
void mem_submit(struct xd_channel *ch, struct xd_request *req);
void mem_extents(struct xd_channel *ch, struct xd_request *req);

#endif
