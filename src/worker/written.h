/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * written.h - the times of the last write to a file that is temporary
 * (common/stamp.h).
 */
#ifndef XENDISK_WRITTEN_H
#define XENDISK_WRITTEN_H

#include "worker/stack.h"

/* Main thread, before there are lanes.  Without it, which is no failure, such a file
 * is not emptied if its disk goes while there is no broker. */
void written_open(struct stack *stack);
void written_close(struct stack *stack);

/* --- Lane ----------------------------------------------------------------- */

static inline bool written_by(const struct host_channel *hc,
			      const struct xd_request *req)
{
	return hc->stamped && (req->op == XD_WRITE || req->op == XD_ZERO ||
			       req->op == XD_DISCARD);
}

/* A write goes to the layer. */
static inline void written_begin(struct host_channel *hc)
{
	hc->lane->stamp->begun = stamp_now(CLOCK_REALTIME_COARSE);
}

/* Those of a burst have ended. */
static inline void written_end(struct stack_lane *lane)
{
	lane->has_written = false;
	lane->stamp->ended = stamp_now(CLOCK_REALTIME);
}

#endif
