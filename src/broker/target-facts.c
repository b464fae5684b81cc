/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * target-facts.c - what is known of a target: its conditions and notes, which
 * the worker and target.c make, and what its owner asks after a change.
 *
 * A condition is a reason that a disk is not quite as it should be; what stands
 * in it is shown to the administrator, and most of it comes from a worker.
 */
#include <event2/event.h>
#include <inttypes.h>
#include <string.h>

#include "broker/exports.h"
#include "broker/target-private.h"
#include "common/util.h"

/* Half of what libxl gives it when a disk is taken away by force. */
#define HANGS_NS (5 * 1000000000ull)

/* --- Conditions ----------------------------------------------------------- */

void target_set_condition(struct target *target, enum msg_condition_kind kind,
			  const char *reason)
{
	free(target->condition[kind]);
	target->condition[kind] = reason ? strdup(reason) : NULL;
	target->told[kind] = false;
}

void target_sweep_condition(struct target *target, enum msg_condition_kind kind)
{
	if (!target->told[kind])
		target_set_condition(target, kind, NULL);
}

void target_forget_told(struct target *target)
{
	memset(target->told, 0, sizeof(target->told));
}

void target_set_waiting(struct target *target, const char *why)
{
	if (why || target->waiting)
		target_set_condition(target, MSG_PAUSED, why);
	target->waiting = why != NULL;
}

void target_note_finishing(struct target *target, const char *text)
{
	if (!target->condition[MSG_FINISHING])
		log_disk(&target->who, LOG_LEVEL_INFO, "finishing: %s", text);
	target_set_condition(target, MSG_FINISHING, text);
}

void target_on_condition(void *ctx, enum msg_condition_kind kind, bool set,
			 const char *reason)
{
	struct target *target = ctx;
	char advice[128] = "";

	if (!set && !target->condition[kind])
		return;
	/* Said again, perhaps by the worker after the one that died. */
	if (set && target->condition[kind] &&
	    strcmp(target->condition[kind], reason) == 0) {
		target->told[kind] = true;
		return;
	}
	if (set && kind == MSG_POISONED && target->who.domid != EXPORTS_DOMID)
		(void)snprintf(advice, sizeof(advice),
			       "; when the data has been checked: xendisk "
			       "resume %" PRIu32 " %" PRIu32 " --accept-loss",
			       target->who.domid, target->who.devid);
	log_guest(&target->who, LOG_LEVEL_WARNING, "%s%s%s%s",
		  kind == MSG_PAUSED   ? "paused" :
		  kind == MSG_POISONED ? "poisoned" :
					 "recovering",
		  set ? ": " : " no more", set ? reason : "", advice);
	target_set_condition(target, kind, set ? reason : NULL);
	target->told[kind] = set;
	if (kind == MSG_PAUSED)
		target->waiting = false;
	target->changed(target->ctx);
}

/* Not "recovering": nobody is at it.  Nor does a request wait for space any more that
 * the dead worker held: there is nothing to resume. */
void target_stick(struct target *target, const char *why)
{
	if (target->stuck[0])
		return;
	(void)snprintf(target->stuck, sizeof(target->stuck), "%s", why);
	target_set_condition(target, MSG_RECOVERING, NULL);
	target_sweep_condition(target, MSG_PAUSED);
	log_disk(&target->who, LOG_LEVEL_ERROR, "not connected again: %s",
		 target->stuck);
}

void target_retry(struct target *target)
{
	target->stuck[0] = '\0';
}

void target_renew_notes(struct target *target)
{
	free(target->notes);
	target->notes = changes_notes(
		&target->changes, target->opened ? target->opened->notes : "");
}

/* --- Facts ---------------------------------------------------------------- */

bool target_ready(const struct target *target)
{
	return target->state == TARGET_OPEN &&
	       (target->link == TARGET_DOWN || target->link == TARGET_LOST ||
		target->link == TARGET_HELD) &&
	       !target->stuck[0] &&
	       !event_pending(target->timer, EV_TIMEOUT, NULL);
}

bool target_hangs(const struct target *target)
{
	return target->link == TARGET_DISCONNECTING &&
	       !target->condition[MSG_FINISHING] &&
	       now_ns() - target->disconnecting_since > HANGS_NS;
}

bool target_is_adopting(const struct target *target)
{
	return target->worker && worker_is_adopting(target->worker);
}

enum target_state target_state(const struct target *target)
{
	return target->state;
}

enum target_link target_link(const struct target *target)
{
	return target->link;
}

int target_error(const struct target *target)
{
	return target->error;
}

const char *target_why(const struct target *target)
{
	return target->why;
}

const char *target_expression(const struct target *target)
{
	return target->expression ? target->expression : "";
}

const struct msg_opened *target_opened(const struct target *target)
{
	return target->opened;
}

const char *target_notes(const struct target *target)
{
	return target->notes ? target->notes : "";
}

const char *target_commit(const struct target *target)
{
	return changes_commit(&target->changes);
}

const char *target_condition(const struct target *target,
			     enum msg_condition_kind kind)
{
	return target->condition[kind];
}

pid_t target_pid(const struct target *target)
{
	return target->worker ? worker_pid(target->worker) : 0;
}

unsigned int target_restarts(const struct target *target)
{
	return target->worker ? worker_restarts(target->worker) : 0;
}

const char *target_refused(const struct target *target)
{
	return target->refused[0] ? target->refused : NULL;
}

const char *target_stuck(const struct target *target)
{
	return target->stuck[0] ? target->stuck : NULL;
}

const char *target_broken(const struct target *target)
{
	return target->broken;
}

bool target_conflict(const struct target *a, const struct target *b)
{
	if (!a->opened || !b->opened || (a->shared && b->shared))
		return false;
	for (uint32_t i = 0; i < a->opened->nr_identities; i++)
		for (uint32_t j = 0; j < b->opened->nr_identities; j++)
			if (strcmp(a->opened->identity[i],
				   b->opened->identity[j]) == 0)
				return true;
	return false;
}
