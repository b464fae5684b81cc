/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hostile-log.h - in-flight logs as no worker would leave them, near enough to
 * real ones that some are believed.
 */
#ifndef XENDISK_HOSTILE_LOG_H
#define XENDISK_HOSTILE_LOG_H

#include "fuzz.h"
#include "worker/inflight.h"

struct hostile_log {
	struct inflight_cursor cursor;
	uint32_t rsp_prod; /* as the guest sees it */
	struct inflight_entry entries[INFLIGHT_MAX_SLOTS];
};

/* Entries up to the end of the input; the rest is FREE. */
void hostile_log_read(struct input *in, uint32_t nr_slots,
		      struct hostile_log *ret);

/* Writes it where a dead worker would have left it, for ring 0. */
void hostile_log_write(int fd, uint32_t nr_slots,
		       const struct hostile_log *log);

#endif
