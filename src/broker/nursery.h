/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nursery.h - child servers: the NBD servers that backends declare (struct
 * xd_backend: server), one for each such layer of a disk.
 *
 *     RUNDIR/children/DOMID-DEVID-LAYER	who it is, see nursery-note.h
 *     RUNDIR/children/DOMID-DEVID-LAYER.sock	where it listens
 *
 * A child belongs to the disk: it outlives its workers, and this broker if that
 * dies, whose successor finds it by its note.  It ends when the disk is detached
 * and when the daemon is told to end.  Broker thread only.
 */
#ifndef XENDISK_NURSERY_H
#define XENDISK_NURSERY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/msg.h"
#include "common/program.h"

struct broker;
struct nursery;
struct nursling;

/* Finds those that a broker which died has left. */
int nursery_new(struct nursery **ret, struct broker *broker);
/* Ends those of them that no disk has asked for by now. */
void nursery_end_unclaimed(struct nursery *nursery);
/* Ends all, and waits for it: some seconds at most. */
void nursery_free(struct nursery *nursery);

/* A disk of that number is not there any more: ends what it has left. */
void nursery_discard(struct nursery *nursery, uint32_t domid, uint32_t devid);

struct nursling_spec {
	const struct msg_identity *id;
	uint32_t layer;
	bool read_only;
	const char *expression; /* of the whole disk */
	struct program *program; /* taken over */
};

/* Starts nothing.  One that is there already, of the same disk, becomes this
 * one; another disk's is ended. */
int nursling_new(struct nursling **ret, struct nursery *nursery,
		 const struct nursling_spec *spec);

/* The next of the program's files that is still to be lent: the number of its
 * parameter; -ENOENT: all are there. */
int nursling_wants(const struct nursling *nursling);
/* ... by an O_PATH descriptor, which is taken over. */
void nursling_lend(struct nursling *nursling, int path_fd);

/* Begins to connect to it, once it is there and has said hello: MSG_REACHED
 * comes to *ret_pending, with the connection or why there is none.  flags: of
 * xd_spawn().  -EAGAIN: too many at a time. */
int nursling_visit(struct nursling *nursling, uint32_t flags, int *ret_pending);

/* Ends it.  discard: the disk is detached, so that nobody needs to know any more
 * what has become of it. */
void nursling_drop(struct nursling *nursling, bool discard);

#endif
