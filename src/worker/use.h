/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * use.h - the disk in use, by its guest, by NBD clients, or by both.
 *
 * Main thread.  What a worker has is in struct worker, for worker.c and use.c.
 */
#ifndef XENDISK_USE_H
#define XENDISK_USE_H

#include "common/log.h"
#include "worker/grow.h"
#include "worker/io-client.h"
#include "worker/lane.h"
#include "worker/worker.h"

struct worker {
	const struct worker_options *options;
	struct log_who who;
	struct services *services;
	struct grant *grant;
	struct stack *stack;
	struct inflight *log;
	struct stats_file *stats;
	int stats_fd;
	struct msg_opened opened;
	struct lane *lanes[IO_MAX_LANES]; /* as many as could be needed */
	unsigned int nr_lanes;
	bool fence; /* a worker died: its writes may be under way still */

	/* While it is in use: see use.c */
	bool connected; /* to a guest */
	struct msg_connect connection; /* ... as it was told */
	bool running; /* lanes are */
	bool activated;
	struct io_disk disk;
	struct io_ring *rings[XD_MAX_RINGS];
	unsigned int nr_rings;
	struct grow grow;
	struct client *parked; /* NBD clients, while no lane runs */
	_Atomic(unsigned int) nr_clients;
};

/* A guest is there: the stack's locks and fences, its rings, the log, the lanes.
 * What fails leaves the disk as it was. */
int use_connect(struct worker *worker, const struct msg_connect *msg,
		char *ret_why);
/* It has gone.  -errno of the last flush. */
int use_disconnect(struct worker *worker, char *ret_why);

/* An NBD client.  Takes over fd, but not when it fails. */
int use_client(struct worker *worker, const struct msg_client *msg, int fd,
	       char *ret_why);
/* Is it only in use by NBD clients?  Then use_look() is to be called now and
 * then: it ends that when the last one has gone. */
bool use_is_of_clients(const struct worker *worker);
void use_look(struct worker *worker);

/* All of it, at once.  A guest may be connected still: what it is owed stays in
 * the log. */
int use_end(struct worker *worker, char *ret_why);

#endif
