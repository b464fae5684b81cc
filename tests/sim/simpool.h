/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pages of a frontend with persistent grants, as Linux's blkfront has them: data
 * is copied to and from them, and they stay granted while the backend maps them.
 * Belongs to the thread of its queue.
 */
#ifndef SIMPOOL_H
#define SIMPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "sim.h"

struct simpool;

struct simpool_page {
	uint8_t *data; /* SIMABI_PAGE bytes */
	uint32_t ref; /* granted, to be written as well */
	bool granted;
	struct simpool_page *next; /* in the pool */
	struct simpool_page *made_before;
};

/* 0 or -errno. */
int simpool_new(struct xensim_guest *guest, uint32_t backend_domid,
		struct simpool **ret_pool);
/* Ends all grants; false when the backend still maps a page (then it is left alone).
 * Pages that are out are the pool's as well.  NULL is fine. */
bool simpool_free(struct simpool *pool);

/* The first page of the pool; a new one when it is empty.  0 or -errno. */
int simpool_take(struct simpool *pool, struct simpool_page **ret_page);
/* Takes its access back.  A page that the backend still maps stays granted and becomes
 * the pool's first, any other its last. */
void simpool_put(struct simpool *pool, struct simpool_page *page);

#endif
