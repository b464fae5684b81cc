/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * A worker (this object) outlives its processes (process.c): worker_open()
 * starts one, and after its death another on the same kept state.
 *
 *     IDLE --worker_open()--> OPENING --OPENED--> OPEN
 *     OPEN --worker_connect()--> CONNECTING --CONNECTED--> CONNECTED
 *     any of the last three --worker_disconnect()--> DISCONNECTING
 *     DISCONNECTING --DISCONNECTED--> OPEN
 *     any --death--> IDLE
 *
 * The first worker_open() may find a process that an earlier broker has left,
 * and goes through ADOPTING instead of OPENING; a process that cannot be taken
 * over ends, and OPENING follows.  One that says that it is connected is HELD
 * rather than OPEN, until worker_connect() or worker_disconnect().
 *
 * The table rules[] says which message is legal in which state.  Anything else
 * is rubbish, and a worker that talks rubbish, or without end, is killed: it may
 * be in the hands of its guest.  One message is taken per turn of the event loop,
 * so that an event may free the worker.
 *
 * A process is dead when it is reaped and its socket has been read to the end,
 * so that its last words are heard.
 */
#include "config.h"

#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include "broker/broker.h"
#include "broker/child.h"
#include "broker/host.h"
#include "broker/process.h"
#include "broker/supervise-private.h"

#define OPEN_TIMEOUT_S	     30
#define DISCONNECT_TIMEOUT_S 30
/* A backend may have something to finish then, a commit; but what a worker says is
 * not believed for ever. */
#define DISCONNECT_MOST_NS (3600 * 1000000000ull)
#define DEATH_TIMEOUT_S	   5

/* Each may cost a look at xenstore, or a child; a worker sends a few in all. */
#define MESSAGES_PER_SECOND 1000

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_timeout(evutil_socket_t fd, short what, void *arg);
static void answer_service(void *ctx, struct msg_service_done *done, int fd);
static void open_instead(struct worker *worker, const char *why);

/* --- Making and freeing --------------------------------------------------- */

int worker_new(struct worker **ret, struct broker *broker,
	       const struct worker_spec *spec,
	       const struct worker_events *events)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	int r = -ENOMEM;

	if (!worker)
		return -ENOMEM;
	worker->broker = broker;
	worker->id = spec->id;
	worker->read_only = spec->read_only;
	worker->fresh = spec->fresh;
	worker->fence = !spec->fresh;
	worker->events = events;
	worker->ctx = spec->ctx;
	worker->who.domid = spec->id.domid;
	worker->who.devid = spec->id.devid;
	worker->sock = -1;
	worker->expression = strdup(spec->expression);
	worker->timer = evtimer_new(broker->base, on_timeout, worker);
	if (worker->expression && worker->timer)
		r = worker_asks_init(worker);
	if (r == 0)
		r = host_new(&worker->host, broker, &worker->id, answer_service,
			     worker);
	if (r < 0) {
		worker_free(worker);
		return r;
	}
	*ret = worker;
	return 0;
}

/* Lets go of the process and forgets all that belongs to it. */
static void drop_process(struct worker *worker)
{
	process_forget(TAKE_PTR(worker->process));
	worker->reaped = false;
	if (worker->readable)
		event_free(worker->readable);
	worker->readable = NULL;
	if (worker->sock >= 0)
		(void)close(worker->sock);
	worker->sock = -1;
	(void)evtimer_del(worker->timer);
	worker_asks_drop(worker);
	host_end(worker->host);
	free(TAKE_PTR(worker->orphan));
	free(TAKE_PTR(worker->held));
	free(TAKE_PTR(worker->opened));
	worker->heard_opened = false;
	worker->kept = false;
	worker->clients_asked = 0;
	worker->fence |= worker->used;
	worker->state = IDLE;
	worker->hello = false;
	worker->ended = false;
}

static void free_event(struct event *event)
{
	if (event)
		event_free(event);
}

void worker_free(struct worker *worker)
{
	if (!worker)
		return;
	if (!worker->broker->leaves)
		process_kill(worker->process);
	if (worker->host)
		drop_process(worker);
	host_free(worker->host);
	free_event(worker->timer);
	worker_asks_free(worker);
	free(worker->expression);
	free(worker);
}

void worker_discard_kept(struct worker *worker)
{
	host_discard_kept(worker->host);
}

pid_t worker_pid(const struct worker *worker)
{
	return worker->process ? process_pid(worker->process) : 0;
}

bool worker_is_adopting(const struct worker *worker)
{
	return worker->state == ADOPTING;
}

bool worker_is_held(const struct worker *worker)
{
	return worker->state == HELD;
}

unsigned int worker_restarts(const struct worker *worker)
{
	return worker->starts > 1 ? worker->starts - 1 : 0;
}

/* --- Its end -------------------------------------------------------------- */

bool worker_told(const struct worker *worker)
{
	return !supervisor_is_stopping(worker->broker->supervisor);
}

static void start_timer(struct event *timer, unsigned int seconds)
{
	struct timeval tv = { .tv_sec = seconds };

	(void)evtimer_add(timer, &tv);
}

/* What it still has to say does not matter. */
static void end_process(struct worker *worker)
{
	worker->ended = true;
	if (worker->readable)
		(void)event_del(worker->readable);
	process_kill(worker->process);
	start_timer(worker->timer, DEATH_TIMEOUT_S);
}

void worker_doom(struct worker *worker, const char *fmt, ...)
{
	va_list ap;

	if (!worker->process || worker->doom[0])
		return;
	va_start(ap, fmt);
	(void)vsnprintf(worker->doom, sizeof(worker->doom), fmt, ap);
	va_end(ap);
	log_guest(&worker->who, LOG_LEVEL_WARNING, "the worker %s: killed",
		  worker->doom);
	end_process(worker);
}

static void explain_death(const struct worker *worker, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, "the worker ");

	if (worker->doom[0])
		(void)snprintf(buf + n, size - n, "%s", worker->doom);
	else if (worker->status == PROCESS_STATUS_UNKNOWN)
		(void)snprintf(buf + n, size - n, "ended");
	else
		child_explain(worker->status, buf + n, size - n);
}

/* Tells of the end of a process, if it is complete.  Last thing to be done with
 * a worker in any event: the listener may have freed it. */
static void finish_if_dead(struct worker *worker)
{
	enum state state = worker->state;
	char why[MSG_TEXT_MAX + 16];

	if (!worker->process || !worker->reaped || !worker->ended)
		return;
	explain_death(worker, why, sizeof(why));
	drop_process(worker);
	if (!worker_told(worker))
		return;
	if (state == ADOPTING)
		open_instead(worker, why);
	else if (state == OPENING)
		worker->events->opened(worker->ctx, -EIO, NULL, why);
	else
		worker->events->died(worker->ctx, why);
}

void worker_exited(void *ctx, int status)
{
	struct worker *worker = ctx;

	worker->reaped = true;
	worker->status = status;
	finish_if_dead(worker);
}

/* --- Talking -------------------------------------------------------------- */

int worker_ask(struct worker *worker, void *msg, size_t length,
	       enum msg_type type, uint32_t *ret_seq)
{
	struct msg_header *header = msg;
	int r;

	header->seq = ++worker->seq;
	r = msg_send(worker->sock, msg, length, type, -1);
	if (r == -EAGAIN)
		worker_doom(worker, "does not read its messages");
	if (r == -EAGAIN || r == -ECONNRESET)
		r = 0; /* its death will be told */
	if (r == 0)
		*ret_seq = header->seq;
	return r;
}

void worker_tell_later(struct worker *worker)
{
	struct timeval now = { .tv_sec = 0 };

	(void)evtimer_add(worker->later, &now);
}

void worker_note_use(struct worker *worker)
{
	if (worker->used)
		return;
	worker->used = true;
	adopt_note_opened(worker, worker->opened);
}

int worker_connect(struct worker *worker, const struct msg_connect *connect)
{
	struct msg_connect msg = *connect;
	int r;

	if (worker->state == HELD)
		return adopt_connect(worker, connect);
	if (worker->state != OPEN)
		return -EINVAL;
	if (host_poisoned(worker->host))
		msg.flags |= MSG_CONNECT_POISONED;
	worker_note_use(worker);
	r = worker_ask(worker, &msg, sizeof(msg), MSG_CONNECT,
		       &worker->main_seq);
	if (r == 0)
		worker->state = CONNECTING;
	return r;
}

int worker_disconnect(struct worker *worker)
{
	struct msg_header msg = { .type = 0 };
	int r;

	if (worker->state < OPEN || worker->state == DISCONNECTING)
		return -EINVAL;
	r = worker_ask(worker, &msg, sizeof(msg), MSG_DISCONNECT,
		       &worker->main_seq);
	if (r < 0)
		return r;
	worker->state = DISCONNECTING;
	worker->asked_at = now_ns();
	start_timer(worker->timer, DISCONNECT_TIMEOUT_S);
	return 0;
}

void worker_goes_on(struct worker *worker)
{
	if (worker->state == DISCONNECTING && !worker->ended &&
	    now_ns() - worker->asked_at < DISCONNECT_MOST_NS)
		start_timer(worker->timer, DISCONNECT_TIMEOUT_S);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct worker *worker = arg;

	(void)fd;
	(void)what;
	if (worker->ended) {
		/* Killed, and hangs in the kernel: as good as dead.  What it
		 * may still write is what fences are for. */
		worker->reaped = true;
		worker->status = SIGKILL;
	} else if (worker->state == ADOPTING) {
		worker_doom(worker, "did not answer within %d s",
			    ADOPT_TIMEOUT_S);
	} else if (worker->state == OPENING) {
		worker_doom(worker, "did not open its disk within %d s",
			    OPEN_TIMEOUT_S);
	} else {
		worker_doom(worker, "did not disconnect within %" PRIu64 " s",
			    (now_ns() - worker->asked_at) / 1000000000);
	}
	finish_if_dead(worker);
}

/* --- What it says --------------------------------------------------------- */

/* The worker is not believed: these numbers go to the guest. */
static bool sane_limits(const struct xd_limits *limits)
{
	uint32_t sector = limits->sector_size;

	return is_power_of_2(sector) && sector >= 512 && sector <= 4096 &&
	       limits->size > 0 && limits->size <= INT64_MAX &&
	       limits->size % sector == 0 &&
	       limits->physical_sector_size >= sector &&
	       limits->physical_sector_size % sector == 0;
}

static bool take_hello(struct worker *worker, const void *msg)
{
	const struct msg_hello *hello = msg;

	worker->hello = true;
	return hello->id.domid == worker->id.domid &&
	       hello->id.devid == worker->id.devid &&
	       hello->id.backend_domid == worker->id.backend_domid &&
	       strcmp(hello->id.vm, worker->id.vm) == 0 &&
	       hello->pid == (uint32_t)process_pid(worker->process);
}

/* The stack is open, in a new process or one that was found. */
static void tell_opened(struct worker *worker, const struct msg_opened *opened)
{
	const char *mark;

	(void)evtimer_del(worker->timer);
	worker->opened = malloc(sizeof(*worker->opened));
	if (worker->opened)
		*worker->opened = *opened;
	mark = host_poisoned(worker->host);
	if (mark)
		worker->events->condition(worker->ctx, MSG_POISONED, true,
					  mark);
	worker->events->opened(worker->ctx, 0, opened, "");
}

static bool take_opened(struct worker *worker, const void *msg)
{
	const struct msg_opened *opened = msg;

	if (!sane_limits(&opened->limits) || opened->max_rings == 0 ||
	    opened->max_rings > XD_MAX_RINGS ||
	    opened->max_ring_order > XD_MAX_RING_ORDER)
		return false;
	for (uint32_t i = 0; i < opened->nr_identities; i++)
		if (!opened->identity[i][0] ||
		    !is_one_line(opened->identity[i]))
			return false;
	if (worker->state == ADOPTING)
		return adopt_opened(worker, opened);
	worker->state = OPEN;
	host_identities(worker->host, opened);
	adopt_note_opened(worker, opened);
	tell_opened(worker, opened);
	return true;
}

static bool take_serving(struct worker *worker, const void *msg)
{
	cleanup_free struct orphan_note *note = NULL;

	if (!adopt_serving(worker, msg))
		return false;
	note = TAKE_PTR(worker->orphan);
	tell_opened(worker, &note->opened);
	return true;
}

/* An open that failed ends the process, too. */
static bool take_failed(struct worker *worker, const void *msg)
{
	const struct msg_text *text = msg;
	int err = text->h.result < 0 ? text->h.result : -EIO;

	if (worker->state == OPENING) {
		process_kill(worker->process);
		drop_process(worker);
		worker->events->opened(worker->ctx, err, NULL, text->text);
	} else if (worker->state == CONNECTING) {
		worker->state = OPEN;
		worker->events->connected(worker->ctx, err, text->text);
	}
	return true;
}

static bool take_connected(struct worker *worker, const void *msg)
{
	(void)msg;
	/* Else it crossed a DISCONNECT, and nobody cares any more. */
	if (worker->state == CONNECTING) {
		worker->state = CONNECTED;
		worker->events->connected(worker->ctx, 0, "");
	}
	return true;
}

static bool take_disconnected(struct worker *worker, const void *msg)
{
	const struct msg_text *text = msg;

	(void)evtimer_del(worker->timer);
	worker->state = OPEN;
	worker->events->disconnected(worker->ctx, text->h.result, text->text);
	return true;
}

static bool take_broken(struct worker *worker, const void *msg)
{
	const struct msg_text *text = msg;

	if (worker->state != DISCONNECTING)
		worker->events->broken(worker->ctx, text->text);
	return true;
}

static bool take_condition(struct worker *worker, const void *msg)
{
	const struct msg_condition *condition = msg;

	if (condition->kind >= MSG_FINISHING)
		return false;
	worker->events->condition(worker->ctx,
				  (enum msg_condition_kind)condition->kind,
				  condition->set != 0, condition->reason);
	return true;
}

static bool take_service(struct worker *worker, const void *msg)
{
	return host_request(worker->host, msg) == 0;
}

static void answer_service(void *ctx, struct msg_service_done *done, int fd)
{
	struct worker *worker = ctx;
	int r = msg_send(worker->sock, done, sizeof(*done), MSG_SERVICE_DONE,
			 fd);

	if (r == -EAGAIN)
		worker_doom(worker, "does not read its messages");
}

#define IN(state) (1u << (state))
#define WHEN_OPEN                                               \
	(IN(OPEN) | IN(HELD) | IN(CONNECTING) | IN(CONNECTED) | \
	 IN(DISCONNECTING))

/* What a worker may say, and when.  take() returns false for rubbish; events
 * are told at its very end. */
static const struct rule {
	uint16_t type;
	unsigned int states;
	bool answers; /* repeats main_seq, except in DISCONNECTING */
	bool (*take)(struct worker *worker, const void *msg);
} rules[] = {
	{ MSG_HELLO, IN(OPENING) | IN(ADOPTING), false, take_hello },
	{ MSG_OPENED, IN(OPENING) | IN(ADOPTING), true, take_opened },
	{ MSG_SERVING, IN(ADOPTING), true, take_serving },
	{ MSG_FAILED, IN(OPENING) | IN(CONNECTING) | IN(DISCONNECTING), true,
	  take_failed },
	{ MSG_CONNECTED, IN(CONNECTING) | IN(DISCONNECTING), true,
	  take_connected },
	{ MSG_DISCONNECTED, IN(DISCONNECTING), true, take_disconnected },
	{ MSG_RESUMED, WHEN_OPEN, false, worker_take_resumed },
	{ MSG_RESIZED, WHEN_OPEN, false, worker_take_resized },
	{ MSG_GREW, WHEN_OPEN, false, worker_take_grew },
	{ MSG_CLIENT_TAKEN, WHEN_OPEN, false, worker_take_client_taken },
	{ MSG_CONTROLLED, WHEN_OPEN, false, worker_take_controlled },
	{ MSG_CHANGED, IN(OPENING) | WHEN_OPEN, false, worker_take_changed },
	{ MSG_BROKEN,
	  IN(HELD) | IN(CONNECTING) | IN(CONNECTED) | IN(DISCONNECTING), false,
	  take_broken },
	{ MSG_CONDITION, IN(OPENING) | WHEN_OPEN, false, take_condition },
	{ MSG_SERVICE, IN(OPENING) | WHEN_OPEN, false, take_service },
};

static const struct rule *find_rule(const struct worker *worker,
				    const struct msg_header *header)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		const struct rule *rule = &rules[i];
		bool late = worker->state == DISCONNECTING &&
			    header->type != MSG_DISCONNECTED;

		if (rule->type != header->type)
			continue;
		if (!(rule->states & IN(worker->state)))
			return NULL;
		if (rule->answers && !late && header->seq != worker->main_seq)
			return NULL;
		return rule;
	}
	return NULL;
}

/* The worker may be gone afterwards. */
static void take_message(struct worker *worker, const struct msg_header *header)
{
	const struct rule *rule = find_rule(worker, header);

	if ((header->type == MSG_HELLO) == worker->hello)
		rule = NULL;
	if (!rule) {
		worker_doom(worker, "sent an unexpected %s",
			    msg_name(header->type));
		finish_if_dead(worker);
	} else if (!rule->take(worker, header)) {
		worker_doom(worker, "sent a wrong %s", msg_name(header->type));
		finish_if_dead(worker);
	}
}

/* A memory disk near its limit may ask for each block: that is cheap.  And what it
 * says of NBD clients it has been asked. */
static bool is_cheap(const struct msg_header *header)
{
	if (header->type == MSG_CLIENT_TAKEN)
		return true;
	return header->type == MSG_SERVICE &&
	       ((const struct msg_service *)header)->kind == MSG_SERVICE_BUDGET;
}

static bool talks_too_much(struct worker *worker,
			   const struct msg_header *header)
{
	uint64_t second = now_ns() / 1000000000u;

	if (is_cheap(header))
		return false;
	if (worker->second != second) {
		worker->second = second;
		worker->messages = 0;
	}
	return ++worker->messages > MESSAGES_PER_SECOND;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	_Alignas(max_align_t) unsigned char buf[MSG_MAX];
	const struct msg_header *header = (const void *)buf;
	struct worker *worker = arg;
	size_t length;
	int passed;
	int r = msg_receive(fd, buf, &length, &passed);

	(void)what;
	if (r == -EAGAIN)
		return;
	if (r == 0 && passed >= 0) {
		(void)close(passed); /* we take nothing from a worker */
		r = -EPROTO;
	}
	if (r == 0 && talks_too_much(worker, header)) {
		worker_doom(worker, "sent more than %d messages in a second",
			    MESSAGES_PER_SECOND);
		finish_if_dead(worker);
		return;
	}
	/* Even one that is closing may need something. */
	if (r == 0 && (worker_told(worker) || header->type == MSG_SERVICE)) {
		take_message(worker, header);
		return;
	}
	if (r == -EPROTO)
		worker_doom(worker, "sent rubbish");
	if (r < 0) {
		/* It cannot be talked to, so it must not live on. */
		end_process(worker);
		finish_if_dead(worker);
	}
}

/* --- Starting a process --------------------------------------------------- */

int worker_hear(struct worker *worker, int sock)
{
	worker->sock = sock;
	if (fcntl(sock, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	worker->readable = event_new(worker->broker->base, sock,
				     EV_READ | EV_PERSIST, on_readable, worker);
	if (!worker->readable || event_add(worker->readable, NULL) < 0)
		return -ENOMEM;
	return 0;
}

static int make_socket(struct worker *worker, int *ret_other)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	*ret_other = pair[1];
	return worker_hear(worker, pair[0]);
}

static int send_open(struct worker *worker)
{
	struct msg_open msg = { .id = worker->id };

	if (worker->read_only)
		msg.flags |= MSG_OPEN_READONLY;
	if (worker->fence)
		msg.flags |= MSG_OPEN_FENCE;
	(void)snprintf(msg.expression, sizeof(msg.expression), "%s",
		       worker->expression);
	return worker_ask(worker, &msg, sizeof(msg), MSG_OPEN,
			  &worker->main_seq);
}

int worker_begin_host(struct worker *worker)
{
	struct expr_env env = broker_expr_env(worker->broker);
	struct expr_error error;
	struct layer *root;
	int r = expr_parse(worker->expression, worker->read_only, &env, &root,
			   &error);

	if (r < 0)
		return r;
	r = host_begin(worker->host, root, worker->expression,
		       process_uid(worker->process));
	expr_free(root);
	return r;
}

static int start_process(struct worker *worker)
{
	cleanup_free struct orphan_note *note = adopt_new_note(worker, NULL);
	cleanup_close int other = -1;
	struct process_spec spec = { .note = note,
				     .exited = worker_exited,
				     .ctx = worker };
	int r = note ? make_socket(worker, &other) : -ENOMEM;

	if (r < 0)
		return r;
	spec.sock = other;
	spec.our_sock = worker->sock;
	return process_start(&worker->process, worker->broker->supervisor,
			     &spec);
}

static int open_anew(struct worker *worker)
{
	int r;

	worker->doom[0] = '\0';
	worker->starts++;
	r = start_process(worker);
	if (r == 0)
		r = worker_begin_host(worker);
	if (r == 0)
		r = send_open(worker);
	if (r < 0) {
		worker->starts--;
		process_kill(worker->process);
		drop_process(worker);
		return r;
	}
	worker->state = OPENING;
	start_timer(worker->timer, OPEN_TIMEOUT_S);
	return 0;
}

/* The process that was found cannot be taken over, and is dead. */
static void open_instead(struct worker *worker, const char *why)
{
	int r;

	log_disk(&worker->who, LOG_LEVEL_WARNING, "%s; starting another", why);
	r = open_anew(worker);
	if (r < 0)
		worker->events->opened(worker->ctx, r, NULL, strerror(-r));
}

int worker_open(struct worker *worker)
{
	if (worker->state != IDLE)
		return -EALREADY;
	if (!worker_told(worker))
		return -ESHUTDOWN;
	worker->doom[0] = '\0';
	return adopt(worker) ? 0 : open_anew(worker);
}
