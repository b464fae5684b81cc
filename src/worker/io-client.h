/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io-client.h - NBD clients of a disk, beside its guest's rings.
 *
 * A client belongs to a lane.  Its requests go through the same steps as the
 * guest's: one table of ranges, the same flushes, the same poison, the same
 * errors that are held.  They are not in the in-flight log: a client cannot be
 * carried over to another process, and sees its connection close.
 */
#ifndef XENDISK_IO_CLIENT_H
#define XENDISK_IO_CLIENT_H

#include "worker/io.h"

/* Clients of a disk at a time.  Each may have NBD_MAX_MEMORY under way. */
#define CLIENTS_MAX 16u
/* So many of their requests a lane executes at a time; others wait.  They are in
 * the table of ranges, which each write of the guest searches. */
#define CLIENT_IOS_MAX 64u
/* ... and no more than this of their data: what storage needs to be busy, and not
 * much longer than a guest's request should wait for. */
#define CLIENT_BYTES_MAX (8u << 20)

/* A new client, and what it may do. */
struct client_spec {
	int fd; /* its socket */
	const char *name; /* of the export; "" is accepted as well */
	bool readonly;
};

/* --- Main thread, while the lane does not run ----------------------------- */

void clients_init(struct io_lane *lane);
/* Takes the clients away, with all that they wait for; the lane has ended, and
 * its engine is yet to be cancelled.  They go in front of *io_list. */
void clients_park(struct io_lane *lane, struct client **io_list);
/* Gives one to a lane, before it runs: what it waits for begins anew. */
void clients_unpark(struct io_lane *lane, struct client *client);
/* Ends them: their connections close.  Their lanes' engines are cancelled. */
void clients_end(struct client **io_list);
/* The first of them, taken off the list; NULL: none. */
struct client *clients_pop(struct client **io_list);

/* --- Main thread ---------------------------------------------------------- */

/* Takes over spec->fd, but not when it fails.  nr counts the disk's clients and
 * outlives them. */
int client_new(struct client **ret, const struct client_spec *spec,
	       const struct xd_limits *limits, _Atomic(unsigned int) *nr);
/* The lane may run. */
void client_give(struct io_lane *lane, struct client *client);
/* The lanes stand still: the disk has another size. */
void clients_resized(struct io_lane *lane);

#endif
