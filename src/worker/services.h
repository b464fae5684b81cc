/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * services.h - asking the broker for what the worker may not do itself.
 *
 * The main thread owns the socket to the broker.  A service is a question and
 * its answer; messages of other types that arrive in between are kept and come
 * out of services_next() later.  The main thread asks with services_call(); a
 * lane may ask too: services_call() waits until the main thread or itself has
 * read the answer, at most timeout_ns.
 */
#ifndef XENDISK_SERVICES_H
#define XENDISK_SERVICES_H

#include <stddef.h>
#include <stdint.h>

#include "common/msg.h"

struct services;

/* Takes over both, but not when it fails.  listener: where the next broker
 * calls, when this one has died; -1: it does not. */
int services_new(struct services **ret, int sock, int listener);
void services_free(struct services *services);

/* The next message that is not a service's answer, and the descriptor that came
 * with it or -1; waits for it, until deadline_ns of now_ns() (UINT64_MAX: for
 * ever): -ETIMEDOUT.  -ECONNRESET: the broker is gone. */
int services_next(struct services *services, void *buf, size_t *ret_length,
		  int *ret_fd, uint64_t deadline_ns);

/*
 * Main thread, after -ECONNRESET: waits for another broker.  introduce() says
 * with services_introduce() who this is, before anybody else can speak; then the
 * conditions that hold are told.
 */
int services_await(struct services *services, int (*introduce)(void *ctx),
		   void *ctx);
int services_introduce(struct services *services, void *msg, size_t length,
		       enum msg_type type);

/* Any thread.  Sends a message that is not a service; -ECONNRESET while there is
 * no broker. */
int services_send(struct services *services, void *msg, size_t length,
		  enum msg_type type);
/* Any thread.  Sends a condition; while it holds, a new broker is told, too. */
int services_tell(struct services *services, struct msg_condition *condition);
/* Bytes that services_call() has got of the common limit. */
uint64_t services_budget(struct services *services);

/*
 * Any thread.  Fills in the header of *request and asks.  Returns the answer's
 * result; *ret_done is filled whenever there was an answer (its text says why
 * it did not work), ret_fd (may be NULL) gets a descriptor or -1 on success.
 * -ETIMEDOUT, -ECONNRESET: no answer.  It does not wait for a new broker: the
 * one who asks has other requests to serve meanwhile.
 */
int services_call(struct services *services, struct msg_service *request,
		  struct msg_service_done *ret_done, int *ret_fd,
		  uint64_t timeout_ns);

/* Main thread.  Kept state of the worker itself, not of a layer: a file of that name
 * and of size bytes at least, made if it is not there.  *ret_fd is the caller's. */
int services_keep(struct services *services, const char *name, uint64_t size,
		  int *ret_fd);

#endif
