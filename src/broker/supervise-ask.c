/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * supervise-ask.c - what a worker is asked while it serves.
 *
 * Each question has a time limit: the worker's main thread may hang on its
 * storage, and whoever asked is told so.  What it says after that is not the
 * answer any more, but a disk that grew has grown.
 */
#include "config.h"

#include <event2/event.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/host.h"
#include "broker/supervise-private.h"
#include "common/pairs.h"
#include "common/util.h"

#define RESUME_TIMEOUT_S 15 /* a mark that is being made takes 10 s at most */
#define RESIZE_TIMEOUT_S 30
/* control() of a backend takes no longer than a second, if all is well. */
#define CONTROL_TIMEOUT_S 20

static void start_timer(struct question *question, unsigned int seconds)
{
	struct timeval tv = { .tv_sec = seconds };

	(void)evtimer_add(question->timer, &tv);
}

static void end_question(struct question *question)
{
	question->pending = false;
	(void)evtimer_del(question->timer);
}

/* --- Resume --------------------------------------------------------------- */

static int ask_resume(struct worker *worker, bool accept_loss)
{
	struct msg_resume msg = { .accept_loss = accept_loss };
	int r = worker_ask(worker, &msg, sizeof(msg), MSG_RESUME,
			   &worker->resume.seq);

	if (r == 0)
		start_timer(&worker->resume, RESUME_TIMEOUT_S);
	return r;
}

static void end_resume(struct worker *worker, int err, const char *why)
{
	end_question(&worker->resume);
	if (worker_told(worker))
		worker->events->resumed(worker->ctx, err, why);
}

static void on_resume_timeout(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	end_resume(arg, -ETIMEDOUT, "the worker does not answer");
}

/* The operator has looked: first the marks, then the worker. */
static void poison_cleared(void *ctx, int err)
{
	struct worker *worker = ctx;

	if (err == 0 && worker_told(worker))
		worker->events->condition(worker->ctx, MSG_POISONED, false, "");
	if (!worker->resume.pending)
		return; /* the process has died meanwhile */
	if (err)
		end_resume(worker, err, "the poison mark stays");
	else if (worker->state <= OPENING || !worker->accepts_loss)
		end_resume(worker, 0, "");
	else if (ask_resume(worker, true) < 0)
		end_resume(worker, -EIO, "the worker cannot be told");
}

/* Tells what was known at once, one event in a turn: it may free the worker. */
static void on_later(evutil_socket_t fd, short what, void *arg)
{
	struct worker *worker = arg;

	(void)fd;
	(void)what;
	if (worker->kept) {
		worker->kept = false;
		if (worker->unmarked)
			worker_tell_later(worker);
		if (worker_told(worker) && worker->state == CONNECTED)
			worker->events->connected(worker->ctx, 0, "");
	} else if (worker->unmarked) {
		worker->unmarked = false;
		poison_cleared(worker, 0);
	}
}

int worker_resume(struct worker *worker, bool accept_loss)
{
	int r = 0;

	if (worker->resume.pending)
		return -EALREADY;
	worker->accepts_loss = accept_loss;
	if (worker->state <= OPENING &&
	    (!accept_loss || !host_knows_storage(worker->host)))
		return -ENOTCONN;
	if (!accept_loss)
		r = ask_resume(worker, false);
	else
		worker->unmarked =
			host_clear_poison(worker->host, poison_cleared) == 0;
	if (worker->unmarked)
		worker_tell_later(worker);
	worker->resume.pending = r == 0;
	return r;
}

bool worker_take_resumed(struct worker *worker, const void *msg)
{
	const struct msg_text *text = msg;

	bool again = worker->accepts_loss && text->h.result == 0;

	/* Else it is too late.  Marks made before it was told: see flush.h. */
	if (!worker->resume.pending || text->h.seq != worker->resume.seq)
		return true;
	worker->accepts_loss = false;
	if (!again || host_clear_poison(worker->host, poison_cleared) == 0)
		end_resume(worker, text->h.result, text->text);
	return true;
}

/* --- Resize --------------------------------------------------------------- */

static void end_resize(struct worker *worker, int err, const char *why)
{
	end_question(&worker->resize);
	if (worker_told(worker))
		worker->events->resized(worker->ctx, err, why);
}

static void on_resize_timeout(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	end_resize(arg, -ETIMEDOUT,
		   "the worker does not answer; it may hang on its storage");
}

int worker_resize(struct worker *worker, uint64_t size)
{
	struct msg_resize msg = { .size = size };
	int r;

	if (worker->resize.pending)
		return -EALREADY;
	if (worker->state <= OPENING)
		return -ENOTCONN;
	r = worker_ask(worker, &msg, sizeof(msg), MSG_RESIZE,
		       &worker->resize.seq);
	if (r < 0)
		return r;
	worker->resize.pending = true;
	start_timer(&worker->resize, RESIZE_TIMEOUT_S);
	return 0;
}

bool worker_take_resized(struct worker *worker, const void *msg)
{
	const struct msg_text *text = msg;

	if (worker->resize.pending && text->h.seq == worker->resize.seq)
		end_resize(worker, text->h.result, text->text);
	return true;
}

/* The number goes to the guest; and the next broker must know it, too. */
bool worker_take_grew(struct worker *worker, const void *msg)
{
	const struct msg_grew *grew = msg;
	struct xd_limits *limits = worker->opened ? &worker->opened->limits :
						    NULL;

	if (!limits || grew->size <= limits->size || grew->size > INT64_MAX ||
	    grew->size % limits->sector_size)
		return false;
	limits->size = grew->size;
	adopt_note_opened(worker, worker->opened);
	worker->events->grew(worker->ctx, grew->size);
	return true;
}

/* --- What backends are asked ---------------------------------------------- */

static void end_control(struct worker *worker, int err, const char *text)
{
	end_question(&worker->control);
	if (worker_told(worker))
		worker->events->controlled(worker->ctx, err, text);
}

static void on_control_timeout(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	end_control(arg, -ETIMEDOUT,
		    "the worker does not answer; it may hang on its storage");
}

/* One that hangs is not sent more and more: it would be taken for one that does
 * not read its messages. */
int worker_control(struct worker *worker, const char *verb, const char *text)
{
	struct msg_control msg = { .verb = "" };
	int r;

	if (worker->state <= OPENING)
		return -ENOTCONN;
	if (worker->control_owed)
		return -EBUSY;
	if (strlen(verb) >= sizeof(msg.verb) ||
	    strlen(text) >= sizeof(msg.text))
		return -E2BIG;
	memcpy(msg.verb, verb, strlen(verb) + 1);
	memcpy(msg.text, text, strlen(text) + 1);
	r = worker_ask(worker, &msg, sizeof(msg), MSG_CONTROL,
		       &worker->control.seq);
	if (r < 0)
		return r;
	worker->control_owed = true;
	worker->control.pending = true;
	start_timer(&worker->control, CONTROL_TIMEOUT_S);
	return 0;
}

/* It goes to somebody's terminal. */
static void copy_sentence(char *buf, size_t size, const char *text)
{
	(void)snprintf(buf, size, "%.*s", (int)size - 1, text);
	for (; *buf; buf++)
		if ((unsigned char)*buf < ' ' || *buf == 0x7f)
			*buf = '?';
}

bool worker_take_controlled(struct worker *worker, const void *msg)
{
	const struct msg_controlled *answer = msg;
	int err = MIN(answer->h.result, 0);
	char why[MSG_TEXT_MAX];

	if (!worker->control_owed || answer->h.seq != worker->control.seq)
		return false;
	if (err == 0 && !pairs_valid(answer->text))
		return false;
	worker->control_owed = false;
	if (!worker->control.pending)
		return true;
	if (err == 0) {
		end_control(worker, 0, answer->text);
	} else {
		copy_sentence(why, sizeof(why), answer->text);
		end_control(worker, err, why);
	}
	return true;
}

/* --- What layers show ----------------------------------------------------- */

/* A guest will read the commit. */
bool worker_take_changed(struct worker *worker, const void *msg)
{
	const struct msg_changed *changed = msg;

	if (changed->layer >= EXPR_MAX_LAYERS ||
	    (changed->commit[0] && !msg_is_commit(changed->commit)) ||
	    !is_one_line(changed->text))
		return false;
	worker_goes_on(worker);
	worker->events->changed(worker->ctx, changed->layer, changed->commit,
				changed->text);
	return true;
}

/* --- NBD clients ---------------------------------------------------------- */

/* Those that wait for an answer are few, however many knock: the process has other
 * orders to hear. */
#define MAX_CLIENTS_ASKED 8

bool worker_takes_clients(const struct worker *worker)
{
	return (worker->state == OPEN || worker->state == CONNECTED) &&
	       worker->clients_asked < MAX_CLIENTS_ASKED;
}

int worker_client(struct worker *worker, const char *name, uint32_t flags,
		  int fd)
{
	struct msg_client msg = { .flags = flags };
	int r;

	if (!worker_takes_clients(worker))
		return -EAGAIN;
	if (host_poisoned(worker->host))
		msg.flags |= MSG_CLIENT_POISONED;
	(void)snprintf(msg.name, sizeof(msg.name), "%s", name);
	worker_note_use(worker);
	msg.h.seq = ++worker->seq;
	r = msg_send(worker->sock, &msg, sizeof(msg), MSG_CLIENT, fd);
	if (r == 0)
		worker->clients_asked++;
	return r == -ECONNRESET ? -EAGAIN : r; /* its death will be told */
}

bool worker_take_client_taken(struct worker *worker, const void *msg)
{
	const struct msg_text *text = msg;

	if (worker->clients_asked == 0)
		return false;
	worker->clients_asked--;
	if (text->h.result < 0)
		log_guest(&worker->who, LOG_LEVEL_WARNING,
			  "an NBD client was sent away: %s", text->text);
	return true;
}

/* --- Life ----------------------------------------------------------------- */

int worker_asks_init(struct worker *worker)
{
	struct event_base *base = worker->broker->base;

	worker->resume.timer = evtimer_new(base, on_resume_timeout, worker);
	worker->resize.timer = evtimer_new(base, on_resize_timeout, worker);
	worker->control.timer = evtimer_new(base, on_control_timeout, worker);
	worker->later = evtimer_new(base, on_later, worker);
	return worker->resume.timer && worker->resize.timer &&
			       worker->control.timer && worker->later ?
		       0 :
		       -ENOMEM;
}

void worker_asks_drop(struct worker *worker)
{
	struct question *questions[] = { &worker->resize, &worker->control,
					 &worker->resume };
	size_t nr = ARRAY_SIZE(questions);

	/* One that had not opened has not been asked, and its end does not tell
	 * the operator: the mark goes without it. */
	if (worker->state <= OPENING)
		nr--;
	else
		worker->unmarked = false;
	worker->control_owed = false;
	for (size_t i = 0; i < nr; i++)
		if (questions[i]->timer)
			end_question(questions[i]);
}

void worker_asks_free(struct worker *worker)
{
	struct event *events[] = { worker->resume.timer, worker->resize.timer,
				   worker->control.timer, worker->later };

	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (events[i])
			event_free(events[i]);
}
