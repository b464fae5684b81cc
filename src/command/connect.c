/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * connect: a disk for as long as this command runs, as xen-disk had it.
 *
 * Theory of operation
 *
 * The disk is attached without xl, which would bring it back when the guest
 * reboots.  From then on three things are waited for: signals, changes of the
 * backend's directory, and the daemon's answer to Wait, which comes when the
 * disk has gone, for whatever reason, with figures that nothing is missing
 * from.  So there is one end for all cases:
 *
 *   1st signal    online=0, state=5: the guest is asked to let go; when the
 *                 backend is Closed its directories are removed
 *   2nd signal    the frontend is removed as well: taken away by force
 *   another one detaches it, or the domain ends
 *   Wait is answered: the histograms
 *
 * A daemon that dies leaves the disk served; the next one is asked again.
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/signalfd.h>

#include "command/attach.h"
#include "command/client.h"
#include "command/tables.h"
#include "command/domain.h"
#include "command/stats.h"
#include "command/store.h"
#include "common/vdev.h"

#define ANSWER_TIMEOUT_S 10
#define RETRY_MS	 1000
/* What is taken away by force is gone by then, or nobody answers. */
#define FORCE_NS (10 * 1000000000ull)

enum stage { SERVED, ASKED, FORCED };

struct connect {
	const struct invocation *call;
	struct attach attach;
	char vdev[32];
	int signals; /* signalfd */
	enum stage stage;
	uint64_t forced_at; /* ns */
	int state; /* of the backend, as it was said last */
	bool unanswered; /* and that was said */

	int answer; /* the socket that Wait is to be answered on; -1: none */
	bool over;
	json_t *stats;
	enum status status;
};

/* What is going on is said at once; with --json it keeps out of the way. */
static void say(const struct connect *c, const char *fmt, ...) PRINTF(2, 3);

static void say(const struct connect *c, const char *fmt, ...)
{
	FILE *out = c->call->json ? stderr : stdout;
	va_list ap;

	fprintf(out, "%s: ", c->vdev);
	va_start(ap, fmt);
	vfprintf(out, fmt, ap);
	va_end(ap);
	fputc('\n', out);
	(void)fflush(out);
}

/* --- The daemon's answer -------------------------------------------------- */

static void say_unanswered(struct connect *c, const char *why)
{
	if (!c->unanswered)
		say(c, "%s; the guest is served on",
		    why ? why : "xendiskd cannot be reached");
	c->unanswered = true;
}

static void start_waiting(struct connect *c)
{
	cleanup_free char *why = NULL;
	json_t *params = json_pack("{s:I, s:I}", "domid",
				   (json_int_t)c->attach.device.domid, "devid",
				   (json_int_t)c->attach.device.devid);

	c->answer = client_start(c->call, "Wait", params, &why);
	if (c->answer < 0) {
		c->answer = -1;
		say_unanswered(c, why);
	} else if (c->unanswered) {
		say(c, "xendiskd is there again");
		c->unanswered = false;
	}
}

static void take_answer(struct connect *c)
{
	cleanup_free char *why = NULL;
	json_t *reply = NULL;
	enum status status = client_finish(TAKE_FD(c->answer), ANSWER_TIMEOUT_S,
					   &reply, &why);

	if (status == STATUS_DONE) {
		c->stats = json_incref(json_object_get(reply, "stats"));
		c->over = true;
	} else {
		say_unanswered(c, why);
	}
	json_decref(reply);
}

/* --- What happens to the disk --------------------------------------------- */

static void say_state(struct connect *c, int state)
{
	static const char *const texts[] = {
		[2] = "waits for the guest",
		[4] = "connected",
		[5] = "closing",
		[6] = "closed",
	};

	if (state == c->state)
		return;
	if (state > 0 && (size_t)state < ARRAY_SIZE(texts) && texts[state])
		say(c, "%s", texts[state]);
	c->state = state;
}

/* Without a daemon nobody else ends it. */
static void give_up(struct connect *c, const char *why)
{
	device_remove_nodes(c->attach.store, &c->attach.device);
	c->status = fail(STATUS_NO_DAEMON, "connect: %s: the figures are lost",
			 why);
	c->over = true;
}

static void look(struct connect *c)
{
	struct device *device = &c->attach.device;
	int state = store_state(c->attach.store, device->backend);

	say_state(c, state);
	if (state == 6 && c->stage != SERVED)
		device_remove_nodes(c->attach.store, device);
	if (c->answer >= 0 &&
	    !(c->stage == FORCED && now_ns() - c->forced_at > FORCE_NS))
		return;
	if (c->stage == FORCED)
		give_up(c, "xendiskd does not answer");
	else if (state == 0 || !domain_lives(device->domid))
		give_up(c, "the disk has gone without xendiskd");
}

static void on_signal(struct connect *c)
{
	struct device *device = &c->attach.device;
	struct signalfd_siginfo info;
	int r;

	if (read(c->signals, &info, sizeof(info)) != sizeof(info))
		return;
	if (c->stage == FORCED)
		return;
	if (c->stage == SERVED) {
		c->stage = ASKED;
		say(c, "asking the guest to let go of it; once more (Ctrl-C) "
		       "takes it away");
	} else {
		c->stage = FORCED;
		c->forced_at = now_ns();
		say(c, "taking it away");
	}
	r = device_ask_to_close(c->attach.store, device, c->stage == FORCED);
	if (r < 0)
		fail(STATUS_FAILED, "connect: xenstore: %s", strerror(-r));
}

static void drain_watches(struct connect *c)
{
	char **event;

	while ((event = xs_check_watch(c->attach.store)))
		free(event);
}

static void serve(struct connect *c)
{
	while (!c->over) {
		struct pollfd p[] = {
			{ .fd = c->signals, .events = POLLIN },
			{ .fd = xs_fileno(c->attach.store), .events = POLLIN },
			{ .fd = c->answer, .events = POLLIN },
		};
		bool timed = c->answer < 0 || c->stage == FORCED;

		(void)poll(p, ARRAY_SIZE(p), timed ? RETRY_MS : -1);
		if (p[0].revents)
			on_signal(c);
		if (p[1].revents)
			drain_watches(c);
		if (p[2].revents)
			take_answer(c);
		else if (c->answer < 0)
			start_waiting(c);
		if (!c->over)
			look(c);
	}
}

/* --- The end -------------------------------------------------------------- */

static void say_end(const struct connect *c)
{
	if (!domain_lives(c->attach.device.domid))
		say(c, "domain %" PRIu32 " is gone", c->attach.device.domid);
	else if (c->stage == SERVED)
		say(c, "detached by somebody else");
	else
		say(c, c->stage == FORCED ? "taken away" : "detached");
}

static enum status print_end(struct connect *c)
{
	if (!c->stats)
		return c->status;
	say_end(c);
	if (c->call->json)
		return print_json(json_pack("{s:[o]}", "disks", c->stats));
	stats_print_histograms(c->stats);
	json_decref(c->stats);
	return STATUS_DONE;
}

/* --- The beginning -------------------------------------------------------- */

/* An absolute path in quotes, whatever bytes it has. */
static char *path_expr(const char *path)
{
	cleanup_free char *cwd = *path == '/' ? NULL : getcwd(NULL, 0);
	cleanup_free char *whole = *path == '/' ? strdup(path) :
				   cwd ? xasprintf("%s/%s", cwd, path) :
					 NULL;
	char *expr = whole ? malloc(2 * strlen(whole) + 3) : NULL;
	char *to = expr;

	if (!expr)
		return NULL;
	*to++ = '"';
	for (const char *from = whole; *from; from++) {
		if (*from == '"' || *from == '\\')
			*to++ = '\\';
		*to++ = *from;
	}
	strcpy(to, "\"");
	return expr;
}

/* From here on nothing ends us without a clean-up. */
static int catch_signals(void)
{
	struct sigaction hup;
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	(void)signal(SIGPIPE, SIG_IGN); /* nobody reads what we say */
	if (sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler != SIG_IGN)
		(void)sigaddset(&set, SIGHUP); /* no nohup */
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool watch(struct connect *c)
{
	/* A domain's end may be seen nowhere else. */
	return xs_watch(c->attach.store, c->attach.device.backend, "disk") &&
	       xs_watch(c->attach.store, "@releaseDomain", "domain");
}

static enum status attach_and_serve(struct connect *c)
{
	enum status status = attach_prepare(&c->attach);

	if (status == STATUS_DONE)
		status = attach_direct(&c->attach);
	if (status != STATUS_DONE)
		return status;
	vdev_print(c->vdev, sizeof(c->vdev), c->attach.device.devid);
	say(c, "%s, attached to domain %" PRIu32 "%s; Ctrl-C asks for it back",
	    c->attach.expr, c->attach.device.domid,
	    c->attach.read_only ? ", read-only" : "");
	start_waiting(c);
	if (!watch(c)) {
		status = fail(STATUS_FAILED, "connect: xenstore: %m");
		device_remove_nodes(c->attach.store, &c->attach.device);
		return status;
	}
	serve(c);
	return print_end(c);
}

enum status verb_connect(const struct invocation *call)
{
	const char *path = option(call, "path");
	cleanup_free char *expr = path ? path_expr(path) : NULL;
	struct connect c = { .call = call, .answer = -1 };
	enum status status;

	if (!path == (call->nr_args < 2))
		return fail(STATUS_USAGE,
			    "connect: either --path FILE or EXPR is needed");
	c.signals = catch_signals();
	if (c.signals < 0 || (path && !expr))
		return fail(STATUS_FAILED, "connect: %m");
	c.attach.call = call;
	c.attach.expr = path ? expr : call->args[1];
	c.attach.cancel_fd = c.signals;
	status = attach_and_serve(&c);
	attach_release(&c.attach);
	(void)close(c.signals);
	return status;
}
