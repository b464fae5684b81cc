/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * target-private.h - a target, for the files that make it up.
 *
 *	target.c	its worker: opens, connects, replaces it
 *	target-facts.c	what is known of it: conditions, notes, answers
 */
#ifndef XENDISK_TARGET_PRIVATE_H
#define XENDISK_TARGET_PRIVATE_H

#include "broker/changes.h"
#include "broker/inquiry.h"
#include "broker/promise.h"
#include "broker/target.h"
#include "common/log.h"

struct target {
	struct broker *broker;
	struct msg_identity id;
	struct log_who who;
	void (*changed)(void *ctx);
	void *ctx;

	struct worker *worker;
	char *expression;
	bool shared; /* a layer says shared=yes */
	enum target_state state;
	int error;
	char why[MSG_TEXT_MAX];
	struct msg_opened *opened;
	char *condition[MSG_NR_CONDITIONS];
	bool told[MSG_NR_CONDITIONS]; /* by the worker that lives: it ends it, too */

	enum target_link link;
	bool recover; /* the connect under way follows a loss */
	bool was_held; /* ... or takes up what was never lost */
	bool waiting; /* MSG_PAUSED is ours: somebody else has it locked */
	char stuck[MSG_TEXT_MAX]; /* why TARGET_LOST will stay that */
	char refused[MSG_TEXT_MAX];
	char broken[MSG_TEXT_MAX];
	uint64_t up_since; /* ns */
	uint64_t disconnecting_since; /* ns */

	struct event *timer; /* pending: pausing */
	unsigned int pause_ms; /* the last one; 0: none yet */
	uint64_t died_at; /* the last one; ns */

	struct promise resume;
	struct promise resize;
	struct inquiries inquiries;
	struct changes changes;
	char *notes; /* of the worker and its layers; NULL: none */
};

/* target-facts.c.  A reason of NULL: no more. */
void target_set_condition(struct target *target, enum msg_condition_kind kind,
			  const char *reason);
/* The disk is connected: no more, unless the worker has said so itself. */
void target_sweep_condition(struct target *target,
			    enum msg_condition_kind kind);
/* That worker is gone. */
void target_forget_told(struct target *target);
/* Somebody else has it locked.  NULL: no more; the worker's own pauses are left
 * alone. */
void target_set_waiting(struct target *target, const char *why);
/* It lets go of the disk, and has something to finish first: its backend says
 * what. */
void target_note_finishing(struct target *target, const char *text);
/* The worker has said so (struct worker_events). */
void target_on_condition(void *ctx, enum msg_condition_kind kind, bool set,
			 const char *reason);
/* Of what was opened, and what layers have said since. */
void target_renew_notes(struct target *target);

#endif
