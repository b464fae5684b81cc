/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lane.h - the threads that serve rings.
 *
 * A lane has an engine, an event-channel handle and a channel of the stack of
 * its own, and serves one ring or more.  Engine and handle are opened once,
 * before isolate(); the thread lives from connect to disconnect.
 */
#ifndef XENDISK_LANE_H
#define XENDISK_LANE_H

#include "worker/io.h"

struct lane;

/* Main thread.  Opens what a lane needs to have from outside. */
int lane_new(struct lane **ret, uint32_t domid, unsigned int index);
void lane_free(struct lane *lane);
/* False: threads make its calls, where io_uring is forbidden. */
bool lane_uses_uring(const struct lane *lane);

/* --- Main thread, from connect to disconnect ------------------------------ */

/* The share of the data path; made by lane_attach(), no thread runs yet. */
struct io_lane *lane_io(struct lane *lane);

/* Opens the channel. */
int lane_attach(struct lane *lane, struct io_disk *disk, struct stack *stack,
		char *ret_why);
/* Gives the lane a ring that it is to serve, and binds its port. */
int lane_add_ring(struct lane *lane, struct io_ring *ring,
		  uint32_t remote_port);
/* Asks the hypervisor by a port of the guest's that nobody has bound: false when
 * there is no such domain. */
bool lane_has_guest(struct lane *lane, uint32_t remote_port);
int lane_start(struct lane *lane);
/* Waits for the thread; disk->stop is set already. */
void lane_join(struct lane *lane);
/* Unbinds, closes the channel; the rings stay the caller's. */
void lane_detach(struct lane *lane);

#endif
