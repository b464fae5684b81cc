/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grant.h - a guest's memory: rings are mapped, data is copied.
 */
#ifndef XENDISK_GRANT_H
#define XENDISK_GRANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The worker's handle on the grant device; shared by its lanes. */
struct grant;

/* Before isolate(). */
int grant_open(struct grant **ret, uint32_t domid);
void grant_close(struct grant *grant);

/* Any thread.  Maps the pages in a row, all or none. */
int grant_map(struct grant *grant, const uint32_t *refs, unsigned int count,
	      void **ret_pages);
void grant_unmap(struct grant *grant, void *pages, unsigned int count);

/*
 * Copies that are collected and then made by one call.  Owned by a lane.
 * *err receives -EIO when a copy failed, -ENOMEM when it was not made for want of
 * memory, and is left alone when it worked: several copies may share one.
 */
struct grant_batch;

/* Main thread.  persistent: the guest has agreed that its pages may stay mapped,
 * which they do as long as they are used. */
int grant_batch_new(struct grant_batch **ret, struct grant *grant,
		    bool persistent);
void grant_batch_free(struct grant_batch *batch);

enum grant_direction { GRANT_FROM_GUEST, GRANT_TO_GUEST };

/* offset + length stay inside the granted page; exactly these bytes are copied.
 * True: that is done, since the page is one that stays mapped; false: they wait
 * for grant_batch_run().  A batch that is full runs first. */
bool grant_batch_add(struct grant_batch *batch, enum grant_direction direction,
		     uint32_t gref, uint16_t offset, uint16_t length,
		     void *local, int *err);
void grant_batch_run(struct grant_batch *batch);

/* How long a lane without anything to do may sleep before it calls grant_batch_idle(),
 * which unmaps some of the pages that are not used any more.  Never 0; UINT64_MAX: for
 * ever. */
uint64_t grant_batch_idle_ns(const struct grant_batch *batch);
void grant_batch_idle(struct grant_batch *batch);

#endif
