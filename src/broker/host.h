/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * host.h - the host services of one worker: MSG_SERVICE and its answer.
 *
 * What a worker may ask for is settled before it starts: the files that its
 * checked expression names, resolved once; a bounded number of kept files of
 * its own; memory up to the common limit; a poison mark on storage that it
 * named itself before it saw a guest.  Broker thread only.
 */
#ifndef XENDISK_HOST_H
#define XENDISK_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/expr.h"
#include "common/msg.h"

struct broker;
struct host;

/* From the event loop or from within host_request(); fd stays the caller's and
 * is closed afterwards (it may hold a lock that must not be held here). */
typedef void (*host_answer_fn)(void *ctx, struct msg_service_done *done,
			       int fd);

int host_new(struct host **ret, struct broker *broker,
	     const struct msg_identity *id, host_answer_fn answer, void *ctx);
void host_free(struct host *host);

/* A process has been started, as that user (0: ours).  With the first one the
 * paths are resolved, in the background; those after it get the same files.  The
 * expression is always the same.  Recounts the memory that is taken. */
int host_begin(struct host *host, const struct layer *root,
	       const char *expression, uid_t uid);

/* The storage that the stack named when it was opened. */
void host_identities(struct host *host, const struct msg_opened *opened);

/* The same of a process that was there before this broker.  budget: what it says
 * that it has taken from the common limit; used: it may have written. */
void host_adopt(struct host *host, const struct msg_opened *opened,
		uint64_t budget, bool used);

/* Ends with one answer, unless the worker asks again before it came.  -EPROTO:
 * it is no request that a worker makes. */
int host_request(struct host *host, const struct msg_service *request);

/* The process is gone: nothing is answered any more. */
void host_end(struct host *host);

/* The disk is detached: removes what was kept for it. */
void host_discard_kept(struct host *host);

/* The first poison mark on its storage, or NULL. */
const char *host_poisoned(const struct host *host);

/* Has a process had it open?  Then marks on it are found without one, too. */
bool host_knows_storage(const struct host *host);

/* Clears all marks on its storage.  Returns how many there are; if not 0, then
 * done() is called later, with the first error; host_end() does not stop
 * it. */
unsigned int host_clear_poison(struct host *host,
			       void (*done)(void *ctx, int err));

#endif
