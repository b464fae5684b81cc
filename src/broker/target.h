/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * target.h - what a disk is served from: its expression and its worker.
 *
 * Knows nothing of xenstore.  Broker thread only.  It tells no events but only
 * that something has changed; its owner then looks at the facts below.  A
 * worker that dies is started again, with growing pauses; the connection is
 * then TARGET_LOST until the owner connects anew.
 */
#ifndef XENDISK_TARGET_H
#define XENDISK_TARGET_H

#include <stdbool.h>

#include "broker/inquiry.h"
#include "broker/promise.h"
#include "broker/supervise.h"
#include "common/msg.h"

struct broker;
struct target;

enum target_state {
	TARGET_NONE,
	TARGET_OPENING, /* also while a dead worker is replaced */
	TARGET_OPEN,
	TARGET_FAILED, /* target_why() */
};

enum target_link {
	TARGET_DOWN,
	TARGET_CONNECTING,
	TARGET_UP,
	TARGET_BROKEN, /* the guest broke its ring: to be disconnected */
	TARGET_DISCONNECTING,
	TARGET_LOST, /* connected in the guest's eyes, but nobody serves */
	TARGET_HELD, /* served since before this broker: to be connected, which
		      * changes nothing if it is right, or disconnected */
};

/* id is copied.  changed() may come at any time, within a call below too: it
 * only takes note. */
int target_new(struct target **ret, struct broker *broker,
	       const struct msg_identity *id, void (*changed)(void *ctx),
	       void *ctx);
/* Kills the worker; what it has kept stays. */
void target_free(struct target *target);

/* Opens an expression; ends in TARGET_OPEN or TARGET_FAILED.  Only when it is
 * TARGET_NONE or TARGET_FAILED.  fresh: a disk that was not there before; what
 * an earlier one of its number has left, when nobody saw it go, is removed. */
void target_open(struct target *target, const char *text, bool read_only,
		 bool fresh);
/* Back to TARGET_NONE.  discard: what the worker has kept, too. */
void target_close(struct target *target, bool discard);
/* Closes it and makes it TARGET_FAILED. */
void target_fail(struct target *target, int err, const char *why);

/* A worker of an earlier broker is there, and may serve the guest: it will be
 * TARGET_HELD, or it ends. */
bool target_is_adopting(const struct target *target);
enum target_state target_state(const struct target *target);
enum target_link target_link(const struct target *target);
/* Of TARGET_FAILED: -errno, and the sentence. */
int target_error(const struct target *target);
const char *target_why(const struct target *target);
/* The canonical text, or what was given when that is ill-typed; or "". */
const char *target_expression(const struct target *target);
/* What the stack is; NULL before it was open for the first time. */
const struct msg_opened *target_opened(const struct target *target);
/* How it is served, and what its layers show now: lines as in OPENED, or "". */
const char *target_notes(const struct target *target);
/* The commit that it shows now, in hexadecimal, or "". */
const char *target_commit(const struct target *target);
/* The reason, or NULL. */
const char *target_condition(const struct target *target,
			     enum msg_condition_kind kind);
pid_t target_pid(const struct target *target);
unsigned int target_restarts(const struct target *target);

/* May target_connect() be called now?  changed() tells when that becomes so. */
bool target_ready(const struct target *target);
/* A connection that is TARGET_LOST or TARGET_HELD is taken up again where it
 * was.  Ends as TARGET_UP; or TARGET_DOWN, and then target_refused() says why
 * unless it is worth another try; or TARGET_LOST, when it was one of these and the
 * guest's domain is still there: target_stuck() says whether for good. */
void target_connect(struct target *target, const struct msg_connect *connect);
const char *target_refused(const struct target *target);
/* TARGET_BROKEN: how the guest broke it. */
const char *target_broken(const struct target *target);
/* Ends as TARGET_DOWN. */
void target_disconnect(struct target *target);
/* It has been disconnecting for longer than it takes, with nothing to finish. */
bool target_hangs(const struct target *target);
/* The guest takes itself for connected, by an earlier broker: TARGET_DOWN
 * becomes TARGET_LOST. */
void target_inherit(struct target *target);
/* TARGET_LOST, and to connect again is in vain until target_retry(): said once. */
void target_stick(struct target *target, const char *why);
/* Why, or NULL. */
const char *target_stuck(const struct target *target);
void target_retry(struct target *target);
/* The guest does not wait any more: TARGET_LOST becomes TARGET_DOWN, and a
 * refusal is forgotten, and that the disk was locked by somebody else. */
void target_give_up(struct target *target);

/* See worker_resume().  done is called once, later; never on -errno.  -EBUSY: another
 * one waits for that; -ENOTCONN: there is no worker. */
int target_resume(struct target *target, bool accept_loss, promise_fn done,
		  void *ctx);
/* The same, of worker_resize().  done: target_opened() knows the size. */
int target_resize(struct target *target, uint64_t size, promise_fn done,
		  void *ctx);

/* Asks the backends; see worker_control().  done is called once, now or later. */
void target_control(struct target *target, const char *verb, const char *text,
		    inquiry_fn done, void *ctx);

/* An NBD client of an export; see worker_client().  -EAGAIN: not now, for
 * instance because a guest is to be connected again first. */
int target_client(struct target *target, const char *name, uint32_t flags,
		  int fd);
bool target_takes_clients(const struct target *target);

/* Is there storage that both write, and are not told to share? */
bool target_conflict(const struct target *a, const struct target *b);

#endif
