/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conn.h - an NBD client's socket on a lane: bytes between it and its session.
 *
 * Belongs to one thread, the one that runs the engine.
 */
#ifndef XENDISK_CONN_H
#define XENDISK_CONN_H

#include <stdbool.h>

#include "nbd/session.h"
#include "nbd/tls.h"
#include "worker/engine.h"

struct conn;

/* Takes over fd, but not when it fails.  With credentials nothing is said
 * outside TLS.  A client that has not chosen an export within timeout_ns is sent
 * away. */
int conn_new(struct conn **ret, struct engine *engine, int fd,
	     const struct nbd_credentials *credentials,
	     const struct nbd_session_events *events, void *ctx,
	     uint64_t timeout_ns);
/* Polls and timers are cancelled (engine_cancel()), no command is pending. */
void conn_free(struct conn *conn);
/* The same of polls and timers: it goes on with another engine.  Its commands
 * may be pending. */
void conn_move(struct conn *conn, struct engine *engine);

/* Reads and sends as far as it goes without waiting, and asks the engine to
 * tell when it goes further.  True: something was read or sent. */
bool conn_pump(struct conn *conn);
/* Instead of waiting for the engine to tell: is there more to read?  Then it has
 * been read, and conn_pump() goes on from there. */
bool conn_look(struct conn *conn);
/* No more is read; commands that are pending are answered. */
void conn_stop(struct conn *conn);
/* Nothing is under way: no command, no reply. */
bool conn_is_idle(const struct conn *conn);
unsigned int conn_pending(const struct conn *conn); /* commands under way */
/* It is ended at once; what is under way ends without a reply. */
void conn_abandon(struct conn *conn);
/* It has ended, and its client has not said goodbye: the session, of whose commands
 * none is to begin any more.  Once; NULL else. */
const struct nbd_session *conn_lost(struct conn *conn);
/* It is over, and nothing refers to it any more: free it. */
bool conn_is_over(const struct conn *conn);

#endif
