/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fake-broker.h - the other end of a worker's services, for tests of stacks
 * and backends in one process.
 *
 * A thread answers OPEN, KEEP, BUDGET and POISON.  Kept files are in a folder
 * of its own, which goes with it; workers may come and go before.
 */
#ifndef XENDISK_FAKE_BROKER_H
#define XENDISK_FAKE_BROKER_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/services.h"

struct fake_broker;

/* What it does and what it has seen; read and written by both sides. */
struct fake_broker_state {
	_Atomic int64_t budget; /* bytes that are left; INT64_MAX at first */
	_Atomic unsigned int asked[MSG_NR_SERVICES]; /* by kind */
	_Atomic uint64_t delay_ns; /* before each answer */
	char condition[MSG_TEXT_MAX]; /* the last one's reason; or empty */
	char poisoned[MSG_IDENTITY_MAX]; /* the last one; read it when asked */
	_Atomic unsigned int changes; /* CHANGEDs; then this is the last one: */
	struct msg_changed changed;
};

struct fake_broker *fake_broker_new(void);
/* No worker may be connected any more. */
void fake_broker_free(struct fake_broker *broker);
struct fake_broker_state *fake_broker_state(struct fake_broker *broker);
/* Folder of kept files. */
const char *fake_broker_dir(const struct fake_broker *broker);

/* The paths of an expression may be opened from now on, held as the real
 * broker holds them.  backend_dir as for stack_open(). */
int fake_broker_grant(struct fake_broker *broker, const char *expression,
		      const char *backend_dir);

/* A worker's side; one at a time.  Freeing the services disconnects. */
struct services *fake_broker_connect(struct fake_broker *broker);

/* A message that is no answer, as the broker would send it. */
int fake_broker_send(struct fake_broker *broker, void *msg, size_t length,
		     enum msg_type type);
/* Ends the connection from the broker's side. */
void fake_broker_hang_up(struct fake_broker *broker);

#endif
