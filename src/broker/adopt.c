/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * adopt.c - taking over the workers of a broker that died.
 *
 * Theory of operation
 *
 * A worker whose broker is gone serves on, and listens on a socket that it was
 * given when it was started.  The next broker knows of it from its note
 * (orphans.h), calls it, and hears who it is:
 *
 *     HELLO	  the guest, and the process id
 *     OPENED	  as it was told to the old broker
 *     SERVING	  the connection to the guest, if there is one, and the memory
 *		  that it has taken
 *     CONDITION and BROKEN, if that is so
 *
 * By now it has read what a guest wrote, so it is believed less than a new one:
 * what the old broker knew, and wrote down, must be what it says, byte for byte;
 * the guest's rings are compared with what xenstore says now, when the disk's
 * owner connects (adopt_connect()).  Anything else, or no answer within
 * ADOPT_TIMEOUT_S, and the process is ended: the disk is then recovered by
 * another one, as after any other death.  A lie that remains possible hurts only
 * its own guest: about its rings, which it serves anyhow, and about its memory,
 * which is counted here as well.
 *
 * A broker that dies in the middle of this leaves things as they were.
 */
#include "config.h"

#include <event2/event.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/host.h"
#include "broker/process.h"
#include "broker/supervise-private.h"

/* Is it the disk that is wanted?  If not, *ret_why says why. */
static bool is_wanted(const struct worker *worker,
		      const struct orphan_note *note, const char **ret_why)
{
	const struct msg_identity *id = &worker->id;

	if (worker->fresh || note->id.domid != id->domid ||
	    note->id.devid != id->devid ||
	    note->id.backend_domid != id->backend_domid ||
	    strcmp(note->id.vm, id->vm) != 0)
		*ret_why = "serves an earlier disk of that number";
	else if (strcmp(note->expression, worker->expression) != 0 ||
		 note->read_only != worker->read_only)
		*ret_why = "serves another expression";
	else if (!note->open)
		*ret_why = "has not opened its disk";
	else
		return true;
	return false;
}

static void call(struct worker *worker)
{
	struct orphan_note *note = worker->orphan;
	const char *why = "";
	int sock = note ? process_call(worker->process, note) : -ENOMEM;
	int r = sock < 0 ? sock : worker_hear(worker, sock);

	if (sock < 0)
		worker_doom(worker, "cannot be taken over: %s",
			    strerror(-sock));
	else if (r < 0)
		worker_doom(worker, "cannot be heard: %s", strerror(-r));
	else if (!is_wanted(worker, note, &why))
		worker_doom(worker, "%s", why);
}

bool adopt(struct worker *worker)
{
	const struct timeval timeout = { .tv_sec = ADOPT_TIMEOUT_S };
	struct orphan_note wanted = { .id = worker->id };
	const struct process_spec spec = { .note = &wanted,
					   .exited = worker_exited,
					   .ctx = worker };

	worker->process = process_claim(worker->broker->supervisor, &spec);
	if (!worker->process)
		return false;
	worker->state = ADOPTING;
	worker->main_seq = 0; /* it says what it was not asked */
	worker->orphan = calloc(1, sizeof(*worker->orphan));
	(void)evtimer_add(worker->timer, &timeout);
	call(worker);
	return true;
}

bool adopt_opened(struct worker *worker, const struct msg_opened *opened)
{
	struct msg_opened *noted = &worker->orphan->opened;

	if (worker->heard_opened)
		return false;
	worker->heard_opened = true;
	noted->h = opened->h;
	return memcmp(noted, opened, sizeof(*noted)) == 0;
}

static bool is_connection(const struct msg_connect *connect)
{
	if (connect->nr_rings > XD_MAX_RINGS)
		return false;
	for (uint32_t i = 0; i < connect->nr_rings; i++)
		if (connect->ring[i].nr_refs == 0 ||
		    connect->ring[i].nr_refs > XD_MAX_RING_PAGES)
			return false;
	return true;
}

static int hold(struct worker *worker, const struct msg_connect *connect)
{
	if (connect->nr_rings == 0)
		return 0;
	worker->held = malloc(sizeof(*worker->held));
	if (!worker->held)
		return -ENOMEM;
	*worker->held = *connect;
	return 0;
}

bool adopt_serving(struct worker *worker, const struct msg_serving *serving)
{
	const struct orphan_note *note = worker->orphan;
	const struct msg_connect *connect = &serving->connect;

	if (!worker->heard_opened || !is_connection(connect) ||
	    (connect->nr_rings && !note->used))
		return false;
	if (worker_begin_host(worker) < 0 || hold(worker, connect) < 0)
		return false;
	host_adopt(worker->host, &note->opened, serving->budget, note->used);
	worker->starts = note->starts;
	worker->used = note->used;
	worker->state = worker->held ? HELD : OPEN;
	log_disk(&worker->who, LOG_LEVEL_INFO,
		 "worker %d, which a broker that died has left, is taken over",
		 (int)process_pid(worker->process));
	return true;
}

static bool is_same_ring(const struct msg_ring *a, const struct msg_ring *b)
{
	return a->event_channel == b->event_channel &&
	       a->nr_refs == b->nr_refs &&
	       memcmp(a->ref, b->ref, a->nr_refs * sizeof(a->ref[0])) == 0;
}

static bool is_same(const struct worker *worker,
		    const struct msg_connect *connect)
{
	const struct msg_connect *held = worker->held;
	bool same = held->abi == connect->abi &&
		    held->nr_rings == connect->nr_rings &&
		    held->discard == connect->discard &&
		    (held->flags & MSG_CONNECT_PERSISTENT) ==
			    (connect->flags & MSG_CONNECT_PERSISTENT);

	for (uint32_t i = 0; same && i < held->nr_rings; i++)
		same = is_same_ring(&held->ring[i], &connect->ring[i]);
	return same;
}

int adopt_connect(struct worker *worker, const struct msg_connect *connect)
{
	if (is_same(worker, connect)) {
		worker->kept = true;
		worker->state = CONNECTED;
		worker_tell_later(worker);
	} else {
		worker->state = CONNECTING;
		worker_doom(worker,
			    "serves rings that are the guest's no more");
	}
	return 0;
}

/* --- For the broker after this one ---------------------------------------- */

struct orphan_note *adopt_new_note(const struct worker *worker,
				   const struct msg_opened *opened)
{
	struct orphan_note *note = calloc(1, sizeof(*note));

	if (!note)
		return NULL;
	note->starts = worker->starts;
	note->id = worker->id;
	note->read_only = worker->read_only;
	note->used = worker->used;
	(void)snprintf(note->expression, sizeof(note->expression), "%s",
		       worker->expression);
	note->open = opened;
	if (opened)
		note->opened = *opened;
	return note;
}

/* Without it the process could not be taken over. */
void adopt_note_opened(struct worker *worker, const struct msg_opened *opened)
{
	cleanup_free struct orphan_note *note = adopt_new_note(worker, opened);
	int r = note ? process_note(worker->process, note) : -ENOMEM;

	if (r < 0)
		log_guest(&worker->who, LOG_LEVEL_WARNING,
			  "the worker cannot be noted: %s", strerror(-r));
}
