/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * supervise-private.h - a worker, for the files that make it up.
 *
 *	supervise.c	its life, and all that is said
 *	supervise-ask.c	what it is asked meanwhile: to resume, to resize, to
 *			serve an NBD client, and what its backends are asked
 *	adopt.c		taking over the process of a broker that died
 */
#ifndef XENDISK_SUPERVISE_PRIVATE_H
#define XENDISK_SUPERVISE_PRIVATE_H

#include "broker/orphans.h"
#include "broker/supervise.h"
#include "common/log.h"
#include "common/util.h"

/* How long a process that serves may take to say who it is: its main thread
 * has nothing else to do, unless it is connecting. */
#define ADOPT_TIMEOUT_S 2

enum state {
	IDLE, /* no process */
	ADOPTING, /* an earlier broker's, which has not said all yet */
	OPENING,
	OPEN,
	HELD, /* connected since before this broker */
	CONNECTING,
	CONNECTED,
	DISCONNECTING,
};

/* One that is asked beside those that change the state; one at a time. */
struct question {
	struct event *timer;
	bool pending;
	uint32_t seq;
};

struct worker {
	struct broker *broker;
	struct msg_identity id;
	bool read_only;
	bool fresh;
	bool used; /* a guest or an NBD client may have written */
	bool fence; /* ... through a process that is dead now */
	unsigned int clients_asked; /* CLIENTs that are not answered yet */
	char *expression;
	const struct worker_events *events;
	void *ctx;
	struct log_who who;
	struct host *host;

	enum state state;
	struct process *process; /* NULL in IDLE */
	bool reaped; /* ... and this is its status */
	int status;
	int sock;
	struct event *readable;
	struct event *timer; /* of the question below */
	uint64_t asked_at; /* DISCONNECTING: since when, ns */
	struct event *later; /* for events that must not be told at once */
	bool hello;
	bool ended; /* the socket has nothing more to say */
	bool accepts_loss; /* resume: with what is lost; still to be told */
	bool heard_opened; /* in ADOPTING */
	bool kept; /* on_later(): connected() is to be told */
	bool unmarked; /* on_later(): there was no poison mark to clear */
	struct orphan_note *orphan; /* ADOPTING: what that broker knew */
	struct msg_connect *held; /* HELD: as the process says */
	uint32_t seq; /* of the last question */
	uint32_t main_seq; /* of OPEN, CONNECT, DISCONNECT */
	struct question resume, resize, control;
	bool control_owed; /* ... has no answer yet, nobody may wait any more */
	struct msg_opened *opened; /* as it was told last; or NULL */
	uint64_t second; /* the one in which messages are counted */
	unsigned int messages;
	unsigned int starts;
	char doom[MSG_TEXT_MAX]; /* why it was killed; empty: it was not */
};

/* supervise.c: the process is of no use any more, for that reason ("sent
 * rubbish"); it is killed, and its death is told as it is noticed. */
void worker_doom(struct worker *worker, const char *fmt, ...) PRINTF(2, 3);
/* supervise.c: what it says is heard from now on.  Takes over sock. */
int worker_hear(struct worker *worker, int sock);
/* supervise.c: sends a question; its answer repeats *ret_seq. */
int worker_ask(struct worker *worker, void *msg, size_t length,
	       enum msg_type type, uint32_t *ret_seq);
/* supervise.c: false when the daemon ends: nobody is told anything then. */
bool worker_told(const struct worker *worker);
/* supervise-ask.c's on_later() is called soon: to tell what must not be told at
 * once. */
void worker_tell_later(struct worker *worker);
/* supervise.c: for struct process_spec. */
void worker_exited(void *ctx, int status);
/* supervise.c: its expression and its user are made known to its host. */
int worker_begin_host(struct worker *worker);

/* supervise-ask.c.  -ENOMEM; what there is, is freed by worker_asks_free(). */
int worker_asks_init(struct worker *worker);
/* The process is gone. */
void worker_asks_drop(struct worker *worker);
void worker_asks_free(struct worker *worker);
/* supervise-ask.c: messages; false for rubbish. */
bool worker_take_resumed(struct worker *worker, const void *msg);
bool worker_take_resized(struct worker *worker, const void *msg);
bool worker_take_grew(struct worker *worker, const void *msg);
bool worker_take_controlled(struct worker *worker, const void *msg);
bool worker_take_changed(struct worker *worker, const void *msg);
bool worker_take_client_taken(struct worker *worker, const void *msg);
/* supervise.c: it has said something new of a layer.  One that disconnects has not
 * come to an end, but goes on: its time begins anew. */
void worker_goes_on(struct worker *worker);
/* supervise.c: it is about to be used; the next broker is to know. */
void worker_note_use(struct worker *worker);

/* adopt.c: takes over the process that there is; false: there is none.  The
 * worker is then ADOPTING, and ends as OPEN or HELD, or the process dies. */
bool adopt(struct worker *worker);
/* adopt.c: what it says, in that order.  False: it is not believed. */
bool adopt_opened(struct worker *worker, const struct msg_opened *opened);
bool adopt_serving(struct worker *worker, const struct msg_serving *serving);
/* adopt.c: worker_connect() of one that is HELD: tells that it is connected, or
 * that it has died. */
int adopt_connect(struct worker *worker, const struct msg_connect *connect);
/* adopt.c: what the next broker must know; to be freed.  opened is NULL while it
 * is not open. */
struct orphan_note *adopt_new_note(const struct worker *worker,
				   const struct msg_opened *opened);
void adopt_note_opened(struct worker *worker, const struct msg_opened *opened);

#endif
