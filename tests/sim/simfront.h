/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A simulated blkfront: one disk of one domain, from the xenbus handshake to
 * Closed (xen/io/blkif.h, xen/io/xenbus.h).
 *
 * simfront_open(), simfront_connect(), I/O on the queues (simqueue.h, one
 * thread each), simfront_disconnect(), perhaps simfront_connect() again with
 * another shape, simfront_free().  The functions here belong to one thread;
 * simfront_closing() and simfront_sectors() may be called from any.
 *
 * Errors are negative errno values, with a line of text in simfront_error().
 */
#ifndef SIMFRONT_H
#define SIMFRONT_H

#include "simqueue.h"

#define SIMFRONT_MAX_QUEUES 16u

struct simfront;

/* Which keys announce a ring of several pages (blkif.h, notes 1 to 3). */
enum simfront_ring_key {
	SIMFRONT_RING_PAGE_ORDER, /* ring-page-order */
	SIMFRONT_NUM_RING_PAGES, /* num-ring-pages, deprecated */
};

/* What the frontend asks for; clamped to what the backend offers. */
struct simfront_shape {
	const struct simabi *abi;
	unsigned int queues;
	unsigned int order;
	enum simfront_ring_key ring_key;
	bool persistent; /* grants, if the backend offers that, too */
};

/* What the backend published; a key that is absent is 0. */
struct simfront_disk {
	uint64_t sectors; /* of 512 bytes */
	uint32_t sector_size, physical_sector_size;
	uint32_t info; /* VDISK_* */
	bool flush, barrier, discard, discard_secure;
	uint32_t discard_granularity, discard_alignment;
	uint32_t max_indirect; /* segments; 0: no indirect requests */
};

/* timeout_s: how long any step of the handshake may take. */
int simfront_open(uint32_t domid, uint32_t devid, int timeout_s,
		  struct simfront **ret_front);
/* Drops everything at once, without a word to the backend. */
void simfront_free(struct simfront *front);

/*
 * Goes to Connected.  A disk that an earlier frontend left behind, in
 * whatever state, is reset first, as a kernel after kexec does.
 */
int simfront_connect(struct simfront *front,
		     const struct simfront_shape *shape);
/*
 * Closing, Closed, and the backend's Closed.  -EPROTO: a page was still
 * mapped after the backend's Closed, or requests were never answered.
 */
int simfront_disconnect(struct simfront *front);

const char *simfront_error(const struct simfront *front);
struct xensim_guest *simfront_guest(struct simfront *front);
const struct simfront_disk *simfront_disk(const struct simfront *front);
/* What was agreed on: queues and order as clamped. */
const struct simfront_shape *simfront_shape(const struct simfront *front);
struct simqueue *simfront_queue(struct simfront *front, unsigned int index);

/*
 * The backend wants the disk closed, or is gone: finish and disconnect.  Or
 * the domain is destroyed.
 */
bool simfront_closing(const struct simfront *front);
/* Requests not answered yet, of all queues. */
unsigned int simfront_pending(const struct simfront *front);
/* The disk's size now, in sectors: it may change while connected. */
uint64_t simfront_sectors(const struct simfront *front);

/*
 * Calls fn for each key below the backend's directory.  The name is relative
 * to it.
 */
int simfront_each_key(struct simfront *front,
		      void (*fn)(const char *key, const char *value));

#endif
