/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nursery-private.h - child servers, for the files that make them up.
 *
 *	nursery.c	a child's life, and all children
 *	nursery-visit.c	those who wait to be connected to one
 *	nursery-say.c	what a child says, and how it ended
 *	nursery-note.c	the files in RUNDIR/children
 */
#ifndef XENDISK_NURSERY_PRIVATE_H
#define XENDISK_NURSERY_PRIVATE_H

#include "broker/broker.h"
#include "broker/nursery-note.h"
#include "broker/nursery.h"
#include "common/log.h"
#include "common/util.h"

enum nursling_state {
	NURSLING_IDLE, /* no process */
	NURSLING_RESTING, /* until it may be started (again) */
	NURSLING_OPENING, /* its files */
	NURSLING_ALIVE,
	NURSLING_ENDING, /* it has been told to end */
};

struct nursling {
	struct nursling *prev;
	struct nursling *next;
	struct nursery *nursery;
	struct log_who who;
	struct nursery_note note;
	enum nursling_state state;
	bool orphan; /* of an earlier broker, not asked for yet */
	bool dropped; /* freed when the process has ended */
	bool discarded; /* ... and nothing is to tell of it */

	/* How it is started. */
	struct program program; /* no words: an orphan's */
	bool read_only;
	int path[PROGRAM_MAX_FILES]; /* O_PATH */
	int file[PROGRAM_MAX_FILES]; /* opened for it, until it is started */
	unsigned int nr_lent;
	unsigned int nr_open;
	struct errand *opening;

	/* The process: note.pid, of our child or by pidfd. */
	struct child *child;
	int pidfd;
	struct event *gone;
	struct event *timer; /* to kill it, or to start it */
	uint64_t started; /* now_ns(); 0: never */
	bool greeted; /* this one has said hello */
	bool lost; /* it is dead, and must not be replaced */

	/* nursery-say.c */
	int out;
	struct event *says;
	char line[256];
	size_t length;
	bool named; /* why is a line that begins with its name */
	char why[MSG_TEXT_MAX]; /* the last thing that it said; how it ended */

	struct visit *visits;
	unsigned int nr_visits;
};

/* "nbdkit" */
const char *nursling_name(const struct nursling *nursling);
/* Of the broker. */
struct event_base *nursery_base(const struct nursling *nursling);
const char *nursery_run_dir(const struct nursling *nursling);
/* A child that does not even say hello is of no use. */
void nursling_give_up(struct nursling *nursling);

/* --- nursery-visit.c ---------------------------------------------------------- */

int visit_new(struct nursling *nursling, int *ret_pending);
/* It is alive: those who wait connect. */
void visits_connect(struct nursling *nursling);
/* It is not: they hear why, in nursling->why. */
void visits_fail(struct nursling *nursling, int err);
/* It has died, but another one comes: they wait for that. */
void visits_wait(struct nursling *nursling);

/* --- nursery-say.c ------------------------------------------------------------ */

/* Takes over out, the end of a pipe. */
int nursling_listen_to(struct nursling *nursling, int out);
/* It has ended: the rest of what it said, and nursling->why. */
void nursling_explain(struct nursling *nursling, int status);

#endif
