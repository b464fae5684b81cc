/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * meter.h - counting what the rings do, for `xendisk stats`.
 *
 * A counter has one writer, the lane that owns the ring: plain stores into a
 * kept file (common/stats.h).  Time is read twice a burst, not twice a request.
 */
#ifndef XENDISK_METER_H
#define XENDISK_METER_H

#include <stdbool.h>

#include "common/stats.h"
#include "worker/blkif.h"

struct services;

/* Main thread.  -errno of the broker's answer.  ret_fd: of the file, to be closed. */
int meter_open(struct stats_file **ret, int *ret_fd, struct services *services);
void meter_close(struct stats_file *stats);
/* Before the lanes run: that many rings are in use now.  -ENOSPC: there is no room. */
int meter_begin(struct stats_file *stats, int fd, unsigned int nr_rings);

/* --- Lane ----------------------------------------------------------------- */

/* A burst was taken: so many requests are in flight now, and so many the guest has
 * sent that were left on the ring. */
static inline void meter_taken(struct stats_queue *queue, uint32_t in_flight,
			       uint32_t left)
{
	uint32_t unanswered = in_flight + left;

	queue->in_flight = in_flight;
	if (unanswered < sizeof(queue->ring_occupancy) / sizeof(uint64_t))
		queue->ring_occupancy[unanswered]++;
}

/* So many segments were copied, some of them from or to pages that stay mapped. */
static inline void meter_copied(struct stats_queue *queue, unsigned int copies,
				unsigned int kept)
{
	queue->grant_copies += copies - kept;
	queue->kept_copies += kept;
}

/* Its answer is published.  ns: since it was taken. */
void meter_answered(struct stats_queue *queue, const struct blkif_job *job,
		    int16_t status, uint64_t ns);

#endif
