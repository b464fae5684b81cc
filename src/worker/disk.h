/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk.h - the stack: filters, then backends; the host side of
 * xendisk-backend.h.
 *
 * A stack is one open disk expression.  Its channels (one per lane and layer)
 * are opened by the main thread while no lane runs.  disk.c asserts the
 * contract between layers: a request that breaks it is our own bug.
 */
#ifndef XENDISK_DISK_H
#define XENDISK_DISK_H

#include "common/msg.h"
#include "worker/engine.h"
#include "worker/services.h"
#include "xendisk-backend.h"

struct pause;
struct stack;

enum stack_on_error { ON_ERROR_HOLD, ON_ERROR_REPORT };
enum stack_flush_error { FLUSH_ERROR_REPORT, FLUSH_ERROR_HOLD };

/* The settings of disk(x, ...). */
struct stack_policy {
	enum stack_on_error on_error;
	enum stack_flush_error flush_error;
	uint64_t poll_ns; /* a lane looks for so long before it sleeps, or: */
#define POLL_AUTO UINT64_MAX /* as long as pays (spin_default_ns()) */
};

/* What is to be opened. */
struct stack_spec {
	const char *expression; /* canonical */
	bool read_only;
	const char *backend_dir; /* the modules */
	const char *state_dir; /* for xd_state(); NULL: there is none */
};

/*
 * Main thread.  Loads the modules, opens all layers, bottom first.  On failure
 * ret_why (MSG_TEXT_MAX bytes) says what and where.  *spec is borrowed.
 */
int stack_open(struct stack **ret, const struct stack_spec *spec,
	       struct services *services, char *ret_why);
void stack_close(struct stack *stack);

const struct xd_limits *stack_limits(const struct stack *stack);
const struct stack_policy *stack_policy(const struct stack *stack);
/* Its condition "paused". */
struct pause *stack_pause(struct stack *stack);
/* Fills limits, identities and notes of an OPENED message. */
void stack_describe(const struct stack *stack, struct msg_opened *opened);
/* Main thread.  Tells another broker what layers have said by xd_changed(). */
void stack_tell_changed(struct stack *stack);

/* Main thread; all layers, bottom first (deactivate: top first).  What fails
 * leaves nothing activated. */
int stack_activate(struct stack *stack, bool recover, char *ret_why);
int stack_deactivate(struct stack *stack, char *ret_why);

/*
 * Main thread.  Growing goes in two steps.  stack_resize(), while lanes run, asks
 * the layers how large they are (size 0), or makes them larger; stack_settle(),
 * while they stand still, makes it true.  Layers may have grown although the
 * first failed (ret_why), so the second follows whenever it is wanted.
 */
int stack_resize(struct stack *stack, uint64_t size, char *ret_why);
bool stack_unsettled(const struct stack *stack);
void stack_settle(struct stack *stack);
/* Does a layer want to be asked every few seconds? */
bool stack_may_grow(const struct stack *stack);

/*
 * Main thread.  control() of the topmost layer that has it.  ret_text has room
 * for size bytes.  On failure ret_why says why; it is empty, with -EOPNOTSUPP,
 * when there is no such layer.
 */
int stack_control(struct stack *stack, const char *verb, const char *text,
		  char *ret_text, size_t size, char *ret_why);

/* Main thread, while the lane does not run.  All layers' channels. */
int stack_channel_open(struct stack *stack, struct engine *engine,
		       unsigned int lane, struct xd_channel **ret_top,
		       char *ret_why);
void stack_channel_close(struct xd_channel *top);

/*
 * Lane.  Requests go in by xd_submit() or xd_map() on the top channel.
 * stack_kick() ends a burst: every layer's kick, top first.  Completions are
 * queued by xd_complete(); stack_reap() runs their done() and returns how many
 * ran.  After engine_run() and after stack_kick(), reap until it returns 0.
 */
void stack_kick(struct xd_channel *top);
/* Lane, once: the guest goes.  Requests may end with -ECANCELED from now on. */
void stack_stop(struct xd_channel *top);
unsigned int stack_reap(struct xd_channel *top);

#endif
