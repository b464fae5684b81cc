/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine.h - system calls that must not block: one engine per lane.
 *
 * io_uring where the kernel lets us, else a few threads that make the calls.
 * All functions but engine_wake() belong to the lane's thread (or to the main
 * thread while the lane does not run).
 */
#ifndef XENDISK_ENGINE_H
#define XENDISK_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "xendisk-backend.h"

struct engine;

/*
 * Opens what it needs: call before isolate().  uring=false: threads.  The
 * environment variable XENDISK_ENGINE ("uring", "threads") overrides it, for
 * tests.  entries: how many calls may be handed to the kernel at once; more
 * than that wait, none is refused.
 */
int engine_new(struct engine **ret, unsigned int entries, bool uring);
/* No call may be under way: see engine_cancel(). */
void engine_free(struct engine *engine);
bool engine_is_uring(const struct engine *engine);

/* Queues a call (see xd_sys() in the public header). */
void engine_sys(struct engine *engine, struct xd_sys *sys);
/* A timer that has not ended is forgotten; its done() is not called. */
void engine_drop_timer(struct engine *engine, struct xd_sys *sys);

/*
 * Starts what was queued, waits until something has completed, wait_ns has
 * passed (0: do not wait; UINT64_MAX: for ever) or engine_wake() was called, and
 * runs the done() of all that completed.  Returns how many, or -errno, after a
 * moment in which to call it again would be no use, if it was to wait.
 */
int engine_run(struct engine *engine, uint64_t wait_ns);

/*
 * Ends all that is under way: polls and timers get -ECANCELED at once and must
 * not be started again from their done(); all other calls are waited for.
 * Before what they belong to is closed.
 */
void engine_cancel(struct engine *engine);

/* Any thread: makes the running or next engine_run() return. */
void engine_wake(struct engine *engine);

#endif
