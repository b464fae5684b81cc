/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * target.c - one expression, one worker, and the worker's deaths.  What is known
 * of it is in target-facts.c.
 *
 * Two small state machines: `state`, is the stack open, and `link`, are the
 * guest's rings connected to it.  A worker's death moves both (died()): an open
 * stack is opened again, and a connection becomes LOST, to be taken up by the
 * next process.  A worker that dies is replaced at once: its guest waits.  One
 * that dies again before it has served for CALM_NS is replaced after a pause,
 * and so is what fails; pauses double up to MAX_PAUSE_MS, until nothing has
 * died for FORGET_NS.
 *
 * Calls into supervise.h never call back, and what calls back here never calls
 * the owner's code other than changed(), which only takes note.
 */
#include <event2/event.h>
#include <inttypes.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/keep.h"
#include "broker/target-private.h"
#include "common/log.h"

#define FIRST_PAUSE_MS 20
#define MAX_PAUSE_MS   30000
/* After one that served, if not for long: a request that kills is tried only
 * INFLIGHT_MAX_TRIES times, and a guest waits. */
#define SERVED_PAUSE_MS 160
/* Also what keeps a guest that has found out how to kill its worker from having
 * one made more often than this. */
#define CALM_NS	  (250ull * 1000000)
#define FORGET_NS (10 * 1000000000ull)
/* A disk that somebody else still has locked: a migration ends in a moment. */
#define BUSY_PAUSE_MS 500

static void copy_text(char *buf, const char *text)
{
	(void)snprintf(buf, MSG_TEXT_MAX, "%s", text ? text : "");
}

/* --- Pauses --------------------------------------------------------------- */

static void pause_for(struct target *target, unsigned int ms)
{
	struct timeval tv = { .tv_sec = ms / 1000,
			      .tv_usec = (ms % 1000) * 1000 };

	(void)event_add(target->timer, &tv);
}

static void pause_longer(struct target *target, unsigned int most)
{
	if (target->pause_ms == 0)
		target->pause_ms = FIRST_PAUSE_MS;
	else
		target->pause_ms = MIN(target->pause_ms * 2, most);
	pause_for(target, target->pause_ms);
}

static void start_worker(struct target *target);

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct target *target = arg;

	(void)fd;
	(void)what;
	if (target->state == TARGET_OPENING)
		start_worker(target);
	target->changed(target->ctx);
}

/* --- Opening -------------------------------------------------------------- */

static void set_failed(struct target *target, int err, const char *why)
{
	target->state = TARGET_FAILED;
	target->error = err;
	copy_text(target->why, why);
}

/* Did a worker have it open before, this broker's or an earlier one's?  Then a
 * failure is not the end: a server that is away comes back, and the guest is
 * waiting. */
static bool is_reopening(const struct target *target)
{
	return target->opened || target->link == TARGET_LOST;
}

/* As often as the reason changes, however often it is tried. */
static void say_recovering(struct target *target, const char *what,
			   const char *why)
{
	const char *before = target->condition[MSG_RECOVERING];

	if (!before || strcmp(before, why) != 0)
		log_disk(&target->who, LOG_LEVEL_ERROR, "%s it again: %s", what,
			 why);
	target_set_condition(target, MSG_RECOVERING, why);
}

static void open_failed(struct target *target, int err, const char *why)
{
	target_forget_told(target);
	if (!is_reopening(target)) {
		set_failed(target, err, why);
		return;
	}
	say_recovering(target, "opening", why);
	pause_longer(target, MAX_PAUSE_MS);
}

static void start_worker(struct target *target)
{
	int r = worker_open(target->worker);

	if (r < 0)
		open_failed(target, r, strerror(-r));
}

static int remember_opened(struct target *target,
			   const struct msg_opened *opened)
{
	struct msg_opened *copy = malloc(sizeof(*copy));

	if (!copy)
		return -ENOMEM;
	*copy = *opened;
	free(target->opened);
	target->opened = copy;
	target_renew_notes(target);
	return 0;
}

static void on_opened(void *ctx, int err, const struct msg_opened *opened,
		      const char *why)
{
	struct target *target = ctx;

	if (err == 0) {
		err = remember_opened(target, opened);
		why = strerror(-err);
	}
	if (err < 0)
		open_failed(target, err, why);
	else
		target->state = TARGET_OPEN;
	if (err == 0 && worker_is_held(target->worker))
		target->link = TARGET_HELD;
	target->changed(target->ctx);
}

/* --- Connecting ----------------------------------------------------------- */

/* Its storage or its server may come back; what the dead worker has left does not
 * change any more, and without it nobody knows what the guest waits for. */
static void lost_again(struct target *target, int err, const char *why)
{
	char text[MSG_TEXT_MAX];

	if (err == -ENOTRECOVERABLE) {
		(void)snprintf(text, sizeof(text),
			       "%.300s; end the guest, or detach the disk with "
			       "--force",
			       why);
		target_stick(target, text);
		return;
	}
	say_recovering(target, "connecting", why);
	pause_longer(target, MAX_PAUSE_MS);
}

static void on_connected(void *ctx, int err, const char *why)
{
	struct target *target = ctx;

	if (err == 0) {
		/* The guest may have broken its ring already. */
		if (target->link == TARGET_CONNECTING)
			target->link = TARGET_UP;
		target->up_since = now_ns();
		if (!target->was_held) {
			/* Its lanes run since before it said so. */
			target_sweep_condition(target, MSG_RECOVERING);
			target_sweep_condition(target, MSG_PAUSED);
			target->waiting = false;
		}
	} else if (target->recover && err != -ESRCH) {
		target->link = TARGET_LOST;
		lost_again(target, err, why);
	} else if (err == -EBUSY) {
		target->link = TARGET_DOWN;
		if (!target->condition[MSG_PAUSED])
			log_disk(&target->who, LOG_LEVEL_WARNING,
				 "waiting for the disk: %s", why);
		target_set_waiting(target, why);
		pause_for(target, BUSY_PAUSE_MS);
	} else {
		target->link = TARGET_DOWN;
		target_set_condition(target, MSG_RECOVERING, NULL);
		copy_text(target->refused, why);
	}
	target->changed(target->ctx);
}

static void on_disconnected(void *ctx, int err, const char *why)
{
	struct target *target = ctx;

	target_set_condition(target, MSG_FINISHING, NULL);
	if (err < 0)
		log_disk(&target->who, LOG_LEVEL_ERROR,
			 "the last flush failed: %s", why);
	target->link = TARGET_DOWN;
	target->changed(target->ctx);
}

static void on_broken(void *ctx, const char *why)
{
	struct target *target = ctx;

	if (target->link != TARGET_UP && target->link != TARGET_CONNECTING &&
	    target->link != TARGET_HELD)
		return;
	target->link = TARGET_BROKEN;
	copy_text(target->broken, why);
	target->changed(target->ctx);
}

static void on_resumed(void *ctx, int err, const char *why)
{
	struct target *target = ctx;

	promise_keep(&target->resume, err, why);
	target->changed(target->ctx);
}

static void on_resized(void *ctx, int err, const char *why)
{
	struct target *target = ctx;

	promise_keep(&target->resize, err, why);
	target->changed(target->ctx);
}

static void on_grew(void *ctx, uint64_t size)
{
	struct target *target = ctx;

	if (!target->opened)
		return;
	log_disk(&target->who, LOG_LEVEL_INFO,
		 "it has grown from %" PRIu64 " to %" PRIu64 " bytes",
		 target->opened->limits.size, size);
	target->opened->limits.size = size;
	target->changed(target->ctx);
}

static void on_controlled(void *ctx, int err, const char *text)
{
	struct target *target = ctx;

	inquiries_answered(&target->inquiries, target->worker, err, text);
}

static void on_changed(void *ctx, uint32_t layer, const char *commit,
		       const char *text)
{
	struct target *target = ctx;

	changes_set(&target->changes, layer, commit, text);
	target_renew_notes(target);
	if (target->link == TARGET_DISCONNECTING)
		target_note_finishing(target, text);
	target->changed(target->ctx);
}

/* --- Death ---------------------------------------------------------------- */

/* Where a connection stands when its worker is gone. */
static enum target_link link_after_death(const struct target *target)
{
	switch (target->link) {
	case TARGET_UP:
	case TARGET_HELD:
	case TARGET_LOST:
		return TARGET_LOST;
	case TARGET_CONNECTING:
		return target->recover ? TARGET_LOST : TARGET_DOWN;
	case TARGET_DOWN:
	case TARGET_BROKEN:
	case TARGET_DISCONNECTING:
		break;
	}
	return TARGET_DOWN;
}

/* Replaces it, at once if it had served for a while. */
static void replace_worker(struct target *target, const char *how)
{
	bool served = target->link == TARGET_UP ||
		      target->link == TARGET_DISCONNECTING;
	uint64_t now = now_ns();
	bool calm = served && now - target->up_since > CALM_NS;

	log_disk(&target->who, LOG_LEVEL_ERROR,
		 "the worker died (%s); starting another", how);
	target->state = TARGET_OPENING;
	if (calm ||
	    now - target->died_at > FORGET_NS + target->pause_ms * 1000000ull)
		target->pause_ms = 0;
	target->died_at = now;
	if (event_pending(target->timer, EV_TIMEOUT, NULL))
		return;
	if (calm)
		pause_for(target, 0);
	else
		pause_longer(target, served ? SERVED_PAUSE_MS : MAX_PAUSE_MS);
}

static void on_died(void *ctx, const char *how)
{
	struct target *target = ctx;

	promise_keep(&target->resume, -EIO, "the worker died");
	promise_keep(&target->resize, -EIO, "the worker died");
	inquiries_fail(&target->inquiries, -EIO, "the worker died");
	target_set_condition(target, MSG_FINISHING, NULL);
	target_forget_told(target);
	if (target->state == TARGET_OPENING && !is_reopening(target))
		set_failed(target, -EIO, how);
	else if (target->state != TARGET_FAILED)
		replace_worker(target, how);
	target_retry(target);
	target->link = link_after_death(target);
	if (target->state == TARGET_OPENING && target->link == TARGET_LOST)
		target_set_condition(target, MSG_RECOVERING, how);
	target->changed(target->ctx);
}

static const struct worker_events events = {
	.opened = on_opened,
	.connected = on_connected,
	.disconnected = on_disconnected,
	.resumed = on_resumed,
	.broken = on_broken,
	.condition = target_on_condition,
	.died = on_died,
	.resized = on_resized,
	.grew = on_grew,
	.controlled = on_controlled,
	.changed = on_changed,
};

/* --- Calls ---------------------------------------------------------------- */

int target_new(struct target **ret, struct broker *broker,
	       const struct msg_identity *id, void (*changed)(void *ctx),
	       void *ctx)
{
	struct target *target = calloc(1, sizeof(*target));

	if (!target)
		return -ENOMEM;
	target->timer = evtimer_new(broker->base, on_timer, target);
	if (!target->timer) {
		free(target);
		return -ENOMEM;
	}
	target->broker = broker;
	target->id = *id;
	target->who =
		(struct log_who){ .domid = id->domid, .devid = id->devid };
	target->changed = changed;
	target->ctx = ctx;
	*ret = target;
	return 0;
}

/* Of an earlier broker, which has not come so far. */
static void discard_leftovers(struct target *target)
{
	supervisor_end_orphan(target->broker->supervisor, &target->id);
	keep_discard(target->broker->keep, target->id.domid, target->id.devid);
}

void target_close(struct target *target, bool discard)
{
	promise_keep(&target->resume, -ECANCELED, "the disk was closed");
	promise_keep(&target->resize, -ECANCELED, "the disk was closed");
	inquiries_fail(&target->inquiries, -ECANCELED, "the disk was closed");
	(void)event_del(target->timer);
	if (discard && target->worker)
		worker_discard_kept(target->worker);
	else if (discard)
		discard_leftovers(target);
	worker_free(TAKE_PTR(target->worker));
	free(TAKE_PTR(target->opened));
	changes_clear(&target->changes);
	free(TAKE_PTR(target->notes));
	for (int i = 0; i < MSG_NR_CONDITIONS; i++)
		target_set_condition(target, i, NULL);
	target_retry(target);
	target->state = TARGET_NONE;
	target->link = TARGET_DOWN;
	target->pause_ms = 0;
}

void target_free(struct target *target)
{
	if (!target)
		return;
	target_close(target, false);
	event_free(target->timer);
	free(target->expression);
	free(target);
}

void target_fail(struct target *target, int err, const char *why)
{
	target_close(target, false);
	set_failed(target, err, why);
}

/* Does a layer of it say shared=yes? */
static bool is_shared(const struct layer *layer)
{
	const struct expr_value *value = expr_value(layer, "shared");
	bool shared = value && value->set && value->number;

	for (unsigned int i = 0; i < layer->nr_below && !shared; i++)
		shared = is_shared(layer->below[i]);
	return shared;
}

static int parse(struct target *target, const char *text, bool read_only,
		 char *why)
{
	struct expr_env env = broker_expr_env(target->broker);
	struct expr_error error = { 0 };
	struct layer *root;
	int r = expr_parse(text, read_only, &env, &root, &error);
	char *canonical;

	if (r == -EINVAL)
		return msg_why(why, r, "%s (at byte %zu of \"%.200s\")",
			       error.message, error.position, text);
	if (r < 0)
		return r;
	canonical = expr_print(root);
	target->shared = is_shared(root);
	expr_free(root);
	if (!canonical)
		return -ENOMEM;
	free(target->expression);
	target->expression = canonical;
	return 0;
}

void target_open(struct target *target, const char *text, bool read_only,
		 bool fresh)
{
	struct worker_spec spec = { .id = target->id,
				    .read_only = read_only,
				    .fresh = fresh,
				    .ctx = target };
	/* A guest's disk stays what it was when it was attached, whatever has
	 * become of the configuration behind its name. */
	cleanup_free char *kept =
		fresh ? NULL :
			keep_expression(target->broker->keep, &target->id);
	char why[MSG_TEXT_MAX] = "";
	int r;

	worker_free(TAKE_PTR(target->worker));
	free(target->expression);
	if (kept)
		text = kept;
	target->expression = strdup(text);
	r = parse(target, text, read_only, why);
	if (r == 0) {
		spec.expression = target->expression;
		r = worker_new(&target->worker, target->broker, &spec, &events);
	}
	if (r < 0) {
		supervisor_end_orphan(target->broker->supervisor, &target->id);
		set_failed(target, r, *why ? why : strerror(-r));
		return;
	}
	if (fresh)
		worker_discard_kept(target->worker);
	target->state = TARGET_OPENING;
	start_worker(target);
}

void target_connect(struct target *target, const struct msg_connect *connect)
{
	struct msg_connect copy = *connect;
	int r;

	target->was_held = target->link == TARGET_HELD;
	target->recover = target->link == TARGET_LOST || target->was_held;
	target->refused[0] = '\0';
	copy.flags =
		(connect->flags & MSG_CONNECT_PERSISTENT) |
		(target->recover ? MSG_CONNECT_RECOVER : 0) |
		(target->condition[MSG_POISONED] ? MSG_CONNECT_POISONED : 0);
	target->link = TARGET_CONNECTING;
	r = worker_connect(target->worker, &copy);
	if (r < 0)
		on_connected(target, r, strerror(-r));
}

void target_disconnect(struct target *target)
{
	int r;

	target->link = TARGET_DISCONNECTING;
	target->disconnecting_since = now_ns();
	r = worker_disconnect(target->worker);
	if (r < 0)
		on_disconnected(target, r, strerror(-r));
}

void target_inherit(struct target *target)
{
	if (target->link == TARGET_DOWN)
		target->link = TARGET_LOST;
}

void target_give_up(struct target *target)
{
	if (target->link == TARGET_LOST)
		target->link = TARGET_DOWN;
	target_retry(target);
	target->refused[0] = '\0';
	target_set_condition(target, MSG_RECOVERING, NULL);
	target_set_waiting(target, NULL);
}

int target_resume(struct target *target, bool accept_loss, promise_fn done,
		  void *ctx)
{
	int r;

	if (target->resume.done)
		return -EBUSY;
	if (!target->worker)
		return -ENOTCONN;
	r = worker_resume(target->worker, accept_loss);
	if (r < 0)
		return r;
	target->resume = (struct promise){ done, ctx };
	return 0;
}

int target_resize(struct target *target, uint64_t size, promise_fn done,
		  void *ctx)
{
	int r;

	if (target->resize.done)
		return -EBUSY;
	if (!target->worker)
		return -ENOTCONN;
	r = worker_resize(target->worker, size);
	if (r < 0)
		return r;
	target->resize = (struct promise){ done, ctx };
	return 0;
}

void target_control(struct target *target, const char *verb, const char *text,
		    inquiry_fn done, void *ctx)
{
	int r = -ENOTCONN;

	if (target->worker)
		r = inquiries_add(&target->inquiries, target->worker, verb,
				  text, done, ctx);
	if (r < 0)
		done(ctx, r,
		     r == -ENOTCONN ? "no worker is serving it" :
		     r == -EBUSY    ? "its worker has enough to answer" :
				      strerror(-r));
}

bool target_takes_clients(const struct target *target)
{
	return target->worker && target->state == TARGET_OPEN &&
	       (target->link == TARGET_UP || target->link == TARGET_DOWN) &&
	       worker_takes_clients(target->worker);
}

int target_client(struct target *target, const char *name, uint32_t flags,
		  int fd)
{
	if (!target_takes_clients(target))
		return -EAGAIN;
	if (target->condition[MSG_POISONED])
		flags |= MSG_CLIENT_POISONED;
	return worker_client(target->worker, name, flags, fd);
}
