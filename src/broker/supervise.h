/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * supervise.h - worker processes: start, talk, notice their death.
 *
 * The only part of the broker that knows that a disk is served by a process.
 * Broker thread only.  A worker is not believed: what it sends is checked here,
 * and one that talks rubbish is killed.
 *
 * The workers of a broker that died serve on; the first worker_open() for a disk
 * takes its process over (adopt.c), or ends it and starts another.
 */
#ifndef XENDISK_SUPERVISE_H
#define XENDISK_SUPERVISE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/msg.h"

struct broker;
struct supervisor;
struct worker;

/* Before any worker and after the last one. */
int supervisor_new(struct supervisor **ret, struct broker *broker);
void supervisor_free(struct supervisor *supervisor);
/* Ends the workers of a broker that died whose disks are no more. */
void supervisor_sweep(struct supervisor *supervisor,
		      bool (*exists)(void *ctx, uint32_t domid, uint32_t devid),
		      void *ctx);
/* ... and those that no worker_open() has taken over by now. */
void supervisor_end_unclaimed(struct supervisor *supervisor);
/* Ends the worker that such a broker has left for this disk, which does not go on
 * with it. */
void supervisor_end_orphan(struct supervisor *supervisor,
			   const struct msg_identity *id);

/*
 * The daemon ends: every worker is told to close, and killed if it has not done
 * so within 5 s.  Their in-flight logs stay valid (that is what they are for),
 * so the next daemon can go on.  No events come any more, no worker starts;
 * done() is called from the event loop when all are gone.
 */
void supervisor_stop(struct supervisor *supervisor, void (*done)(void *ctx),
		     void *ctx);

/* What is to be served to whom. */
struct worker_spec {
	struct msg_identity id;
	bool read_only;
	const char *expression; /* canonical, no @names; copied */
	bool fresh; /* not the disk that an earlier broker may have served */
	void *ctx; /* for the events */
};

/* Told as they happen, from the event loop; never from within a call below.
 * why and reason are sentences.  An event may free the worker, except
 * condition() and changed(). */
struct worker_events {
	/* worker_open() has ended; opened is NULL when it failed, whatever the
	 * cause: then the process is gone and died() does not come.  What is in
	 * it has been checked: a guest may be told of it. */
	void (*opened)(void *ctx, int err, const struct msg_opened *opened,
		       const char *why);
	/* worker_connect() has ended. */
	void (*connected)(void *ctx, int err, const char *why);
	/* worker_disconnect() has ended; err of the last flush. */
	void (*disconnected)(void *ctx, int err, const char *why);
	void (*resumed)(void *ctx, int err, const char *why);
	/* The guest broke its ring; the rings are stopped. */
	void (*broken)(void *ctx, const char *why);
	void (*condition)(void *ctx, enum msg_condition_kind kind, bool set,
			  const char *reason);
	/* The process is dead; nothing more comes, no answer either.  Call
	 * worker_free(), or worker_open() again for a new process on the same
	 * kept state. */
	void (*died)(void *ctx, const char *how);
	/* worker_resize() has ended; grew() came before it, if the disk did. */
	void (*resized)(void *ctx, int err, const char *why);
	/* The disk is larger now, asked or not. */
	void (*grew)(void *ctx, uint64_t size);
	/* worker_control() has ended; text: the answer, well-formed pairs, or
	 * why there is none: "" with -EOPNOTSUPP where no backend has it. */
	void (*controlled)(void *ctx, int err, const char *text);
	/* What a layer shows now: one line, and a commit in hexadecimal or "".
	 * Comes before opened(), too. */
	void (*changed)(void *ctx, uint32_t layer, const char *commit,
			const char *text);
};

/* Makes the object; worker_open() starts the process. */
int worker_new(struct worker **ret, struct broker *broker,
	       const struct worker_spec *spec,
	       const struct worker_events *events);
/* Kills the process if it lives, and forgets it.  Kept state is removed only
 * by worker_discard_kept(). */
void worker_free(struct worker *worker);
void worker_discard_kept(struct worker *worker);

/* Start the process and open the stack, or take over one that is there.  Ends
 * with opened(): at the latest after 40 s, when the process is killed. */
int worker_open(struct worker *worker);
/* worker_open() has found a process, which may be connected to the guest: that
 * is known with opened(). */
bool worker_is_adopting(const struct worker *worker);
/* In opened() and after it: the process is connected to a guest since before
 * this broker.  worker_connect() then makes sure that it is the right
 * connection, and lets it be; if it is not, the process ends.  Or disconnect. */
bool worker_is_held(const struct worker *worker);
/* MSG_CONNECT_POISONED is added here where the storage has a mark; condition()
 * has told of it before opened(). */
int worker_connect(struct worker *worker, const struct msg_connect *connect);
/* Ends with disconnected(): when it has said nothing for 30 s, not even changed(),
 * or after an hour, the process is killed (died()). */
int worker_disconnect(struct worker *worker);
/* accept_loss: forgets the poison marks of its storage first, which works
 * without a process too, once one has had it open.  Ends with resumed(). */
int worker_resume(struct worker *worker, bool accept_loss);

/* size 0: looks how large the storage is by now; else makes it that large.  Ends
 * with resized(): after 30 s without an answer. */
int worker_resize(struct worker *worker, uint64_t size);

/* Asks the backends: control() of xendisk-backend.h; text: pairs.h.  Ends with
 * controlled(): after 20 s without an answer.  -EBUSY: it has not answered the
 * last one yet, in time or not; -ENOTCONN: there is no process to ask. */
int worker_control(struct worker *worker, const char *verb, const char *text);

/* An NBD client of an export of that name (or ""), for the process to serve; its
 * socket stays the caller's.  flags: MSG_CLIENT_READONLY, MSG_CLIENT_FORCE.
 * -EAGAIN: not now. */
int worker_client(struct worker *worker, const char *name, uint32_t flags,
		  int fd);
bool worker_takes_clients(const struct worker *worker);

pid_t worker_pid(const struct worker *worker); /* 0: not running */
unsigned int worker_restarts(const struct worker *worker);

#endif
