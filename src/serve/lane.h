/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lane.h - a thread that serves NBD clients.
 *
 * It has an engine and a channel of each disk; a client stays on the lane that
 * it was given to.
 */
#ifndef XENDISK_SERVE_LANE_H
#define XENDISK_SERVE_LANE_H

#include "nbd/tls.h"
#include "serve/disk.h"

struct serve_lane;

/* Main thread.  Disks and credentials (NULL: no TLS) outlive the lane; the first
 * disk is the default. */
int serve_lane_new(struct serve_lane **ret, unsigned int index,
		   struct serve_disk **disks, unsigned int nr_disks,
		   const struct nbd_credentials *credentials);
int serve_lane_start(struct serve_lane *lane);
/* It ends when what is under way is answered, at most a few seconds later.  Asked of
 * all lanes before the first one is waited for: else those seconds add up. */
void serve_lane_end(struct serve_lane *lane);
/* Until it has ended.  All of them have before the first one is stopped. */
void serve_lane_wait(struct serve_lane *lane);
/* Closes the channels, after a last flush if last is set; -errno of that. */
int serve_lane_stop(struct serve_lane *lane, bool last);

/* Any thread.  Takes over a client's socket. */
int serve_lane_give(struct serve_lane *lane, int fd);
unsigned int serve_lane_clients(const struct serve_lane *lane);

#endif
