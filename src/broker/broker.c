/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The parts are brought up in the order of steps[] and taken down in the
 * reverse one; each sees those before it in struct broker.  The control socket
 * comes last, so that a client that can connect finds all disks there.
 *
 * SIGTERM and SIGINT leave the guests' disks as they are in xenstore: workers
 * end with their in-flight logs valid, and the next daemon recovers them.  A
 * daemon that cannot start (without xenstored, say) leaves those that it has found
 * as they are: they serve guests.
 */
#include "config.h"

#include "broker/broker.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "broker/bus.h"
#include "broker/child.h"
#include "broker/control.h"
#include "broker/export.h"
#include "broker/exports.h"
#include "broker/image-roots.h"
#include "broker/keep.h"
#include "broker/node.h"
#include "broker/nursery.h"
#include "broker/notify.h"
#include "broker/poison.h"
#include "broker/registry.h"
#include "broker/rundir.h"
#include "broker/scratch.h"
#include "broker/store.h"
#include "broker/supervise.h"
#include "common/expr-credentials.h"
#include "common/log.h"
#include "common/util.h"

/* --- The parser's view ---------------------------------------------------- */

static const struct backend_info *env_backend(void *ctx, const char *name)
{
	const struct broker *broker = ctx;

	return registry_backend(broker->registry, name);
}

static const struct backend_info *env_scheme(void *ctx, const char *scheme)
{
	const struct broker *broker = ctx;

	return registry_scheme(broker->registry, scheme);
}

static const char *env_why_not(void *ctx, const char *name)
{
	const struct broker *broker = ctx;

	return registry_error(broker->registry, name);
}

static const char *env_named(void *ctx, const char *name)
{
	const struct broker *broker = ctx;

	return settings_disk(broker->settings, name);
}

static const char *env_nth_backend(void *ctx, size_t n)
{
	const struct broker *broker = ctx;
	struct registry_entry entry;

	return registry_entry(broker->registry, n, &entry) ? entry.name : NULL;
}

static const char *env_nth_named(void *ctx, size_t n)
{
	const struct broker *broker = ctx;
	const struct settings *settings = broker->settings;

	return n < settings->nr_disks ? settings->disks[n].name : NULL;
}

struct expr_env broker_expr_env(struct broker *broker)
{
	return (struct expr_env){ .ctx = broker,
				  .backend = env_backend,
				  .scheme = env_scheme,
				  .why_not = env_why_not,
				  .named = env_named,
				  .nth_backend = env_nth_backend,
				  .nth_named = env_nth_named };
}

/* --- Signals -------------------------------------------------------------- */

static void on_workers_stopped(void *ctx)
{
	struct broker *broker = ctx;

	(void)event_base_loopbreak(broker->base);
}

static void on_stop_signal(evutil_socket_t sig, short what, void *arg)
{
	struct broker *broker = arg;

	(void)what;
	log_info("%s: ending; the disks stay attached",
		 sig == SIGTERM ? "SIGTERM" : "SIGINT");
	notify_stopping();
	control_stop(broker->control);
	supervisor_stop(broker->supervisor, on_workers_stopped, broker);
}

static int start_signals(struct broker *broker)
{
	static const int signals[] = { SIGTERM, SIGINT };

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		struct event **event = &broker->signals[i];

		*event = evsignal_new(broker->base, signals[i], on_stop_signal,
				      broker);
		if (!*event || event_add(*event, NULL) < 0)
			return -ENOMEM;
	}
	/* Nothing to read anew; not a reason to die with a terminal either. */
	(void)signal(SIGHUP, SIG_IGN);
	return 0;
}

static void stop_signals(struct broker *broker)
{
	for (size_t i = 0; i < ARRAY_SIZE(broker->signals); i++)
		if (broker->signals[i])
			event_free(broker->signals[i]);
}

/* --- Bringing up ---------------------------------------------------------- */

static int start_loop(struct broker *broker)
{
	struct rlimit limit;

	/* Three descriptors a disk and more: take what we may have. */
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	(void)umask(022);
	broker->base = event_base_new();
	return broker->base ? children_new(&broker->children, broker->base) :
			      -ENOMEM;
}

static void stop_loop(struct broker *broker)
{
	children_free(broker->children);
	if (broker->base)
		event_base_free(broker->base);
}

static int start_notify(struct broker *broker)
{
	return notify_start(broker->base, &broker->watchdog);
}

static void stop_notify(struct broker *broker)
{
	notify_stop(broker->watchdog);
}

static int start_settings(struct broker *broker)
{
	char why[SETTINGS_TEXT_MAX];
	const char *path = broker->options.config;
	int r = settings_load(path ? path : SETTINGS_PATH, path != NULL,
			      &broker->settings, why);

	if (r < 0)
		log_error("%s", why);
	return r;
}

static void stop_settings(struct broker *broker)
{
	settings_free(broker->settings);
}

static void warn_of_others(const char *dir)
{
	if (rundir_is_shared(dir))
		log_warning(
			"%s: others may write there, and so change what the "
			"daemon keeps; mode 0755 is enough",
			dir);
}

static int start_rundir(struct broker *broker)
{
	const char *dir = broker->options.run_dir;
	pid_t holder = 0;
	int r = rundir_take(dir, &broker->lock, &holder);

	if (r == -EBUSY)
		log_error("%s: another xendiskd runs there (pid %d)", dir,
			  (int)holder);
	else if (r < 0)
		log_error("%s: %s", dir, strerror(-r));
	else
		warn_of_others(dir);
	return r;
}

static void stop_rundir(struct broker *broker)
{
	if (broker->lock >= 0)
		(void)close(broker->lock);
}

/* One bad disk is no reason to leave the others' guests without theirs. */
static void check_named_disks(struct broker *broker)
{
	const struct settings *settings = broker->settings;
	struct expr_env env = broker_expr_env(broker);

	for (size_t i = 0; i < settings->nr_disks; i++) {
		const struct settings_disk *disk = &settings->disks[i];
		struct expr_error error = { 0 };
		struct layer *root = NULL;
		int r = expr_parse(disk->expr, false, &env, &root, &error);

		if (r == 0)
			r = expr_check_credentials(root, settings, &error);
		expr_free(root);
		if (r < 0)
			log_warning("%s: disk \"%s\" cannot be attached: %s "
				    "(at byte %zu of \"%s\")",
				    disk->where, disk->name, error.message,
				    error.position, disk->expr);
	}
}

static int start_registry(struct broker *broker)
{
	const char *dir = broker->options.backend_dir;
	struct registry_entry entry;
	int r = registry_load(&broker->registry, dir);

	if (r < 0) {
		log_error("backends in %s: %s", dir, strerror(-r));
		return r;
	}
	for (size_t i = 0; registry_entry(broker->registry, i, &entry); i++)
		if (entry.error)
			log_warning("backend %s: %s", entry.name, entry.error);
	check_named_disks(broker);
	return 0;
}

static void stop_registry(struct broker *broker)
{
	registry_free(broker->registry);
}

static int start_keep(struct broker *broker)
{
	int r = keep_new(&broker->keep, broker->options.run_dir,
			 broker->settings->mem_limit);

	if (r == -EPERM)
		log_error(
			"%s/keep or its folder in /dev/shm is somebody else's",
			broker->options.run_dir);
	else if (r < 0)
		log_error("kept state in %s/keep: %s", broker->options.run_dir,
			  strerror(-r));
	else
		keep_on_left(broker->keep, scratch_left, broker);
	return r;
}

static void stop_keep(struct broker *broker)
{
	keep_free(broker->keep);
}

static int start_poison(struct broker *broker)
{
	const char *dir = broker->options.state_dir;
	unsigned int bad = 0;
	int r = poison_new(&broker->poison, dir, &bad);

	if (r < 0)
		log_error("state directory %s: %s", dir, strerror(-r));
	else if (bad)
		log_warning("%s/poison: %u files are no poison marks", dir,
			    bad);
	if (r == 0)
		warn_of_others(dir);
	return r;
}

static void stop_poison(struct broker *broker)
{
	poison_free(broker->poison);
}

static int start_supervisor(struct broker *broker)
{
	return supervisor_new(&broker->supervisor, broker);
}

static void stop_supervisor(struct broker *broker)
{
	supervisor_free(broker->supervisor);
}

static int start_nursery(struct broker *broker)
{
	return nursery_new(&broker->nursery, broker);
}

static void stop_nursery(struct broker *broker)
{
	nursery_free(broker->nursery);
}

static int start_exports(struct broker *broker)
{
	int r;

	export_sweep(broker->options.run_dir);
	r = exports_new(&broker->exports, broker);
	if (r < 0)
		log_error("%s/exports: %s", broker->options.run_dir,
			  strerror(-r));
	return r;
}

static void stop_exports(struct broker *broker)
{
	exports_free(broker->exports);
}

/* Kept state is thrown away only when xenstore surely has no such disk. */
static bool disk_exists(void *ctx, uint32_t domid, uint32_t devid)
{
	const struct broker *broker = ctx;

	if (exports_has(broker->exports, domid, devid))
		return true;
	for (int kind = 0; kind < NODE_NR_KINDS; kind++) {
		struct node_address at = { (enum node_kind)kind, domid, devid };
		cleanup_free char *value = NULL;
		cleanup_free char *path =
			node_backend_path(&at, bus_domid(broker->bus));

		if (!path || store_read(bus_store(broker->bus), path,
					"frontend", &value) != -ENOENT)
			return true;
	}
	return false;
}

static int start_bus(struct broker *broker)
{
	int r = bus_start(broker, &broker->bus);

	if (r == 0) {
		supervisor_sweep(broker->supervisor, disk_exists, broker);
		keep_sweep(broker->keep, disk_exists, broker);
		exports_sweep(broker->exports, disk_exists, broker);
	}
	return r;
}

static void stop_bus(struct broker *broker)
{
	if (broker->bus)
		bus_stop(broker->bus);
}

static int start_control(struct broker *broker)
{
	int r = control_start(&broker->control, broker);

	if (r < 0)
		log_error("control socket in %s: %s", broker->options.run_dir,
			  strerror(-r));
	return r;
}

static void stop_control(struct broker *broker)
{
	control_free(broker->control);
}

static const struct step {
	const char *what;
	int (*start)(struct broker *broker); /* logs why it fails */
	void (*stop)(struct broker *broker); /* also after a failed start */
} steps[] = {
	{ "event loop", start_loop, stop_loop },
	{ "watchdog", start_notify, stop_notify },
	{ "signals", start_signals, stop_signals },
	{ "configuration", start_settings, stop_settings },
	{ "run directory", start_rundir, stop_rundir },
	{ "backends", start_registry, stop_registry },
	{ "kept state", start_keep, stop_keep },
	{ "state directory", start_poison, stop_poison },
	{ "supervisor", start_supervisor, stop_supervisor },
	{ "child servers", start_nursery, stop_nursery },
	{ "exports", start_exports, stop_exports },
	{ "xenstore", start_bus, stop_bus },
	{ "control socket", start_control, stop_control },
	{ "image roots", image_roots_look, image_roots_stop },
};

/* --- Ready ---------------------------------------------------------------- */

/* A daemon has said all that its terminal had to hear. */
static void leave_terminal(int ready_fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0) {
		(void)dup2(null, STDIN_FILENO);
		(void)dup2(null, STDOUT_FILENO);
		(void)dup2(null, STDERR_FILENO);
		(void)close(null);
	}
	log_init("xendiskd", log_get_level()); /* to syslog from here on */
	(void)!write(ready_fd, "", 1);
	(void)close(ready_fd);
}

static void tell_ready(struct broker *broker)
{
	log_info("version %s is ready in %s", PACKAGE_VERSION,
		 broker->options.run_dir);
	notify_ready();
	if (broker->options.ready_fd >= 0)
		leave_terminal(broker->options.ready_fd);
}

int broker_main(const struct broker_options *options)
{
	struct broker broker = { .options = *options, .lock = -1 };
	size_t started = 0;
	int r = 0;

	while (r == 0 && started < ARRAY_SIZE(steps)) {
		r = steps[started].start(&broker);
		if (r < 0)
			log_error("cannot start: %s: %s", steps[started].what,
				  strerror(-r));
		started++;
	}
	broker.leaves = r < 0;
	if (r == 0) {
		tell_ready(&broker);
		if (event_base_dispatch(broker.base) < 0)
			r = -EIO;
	}
	while (started > 0)
		steps[--started].stop(&broker);
	return r < 0 ? 1 : 0;
}
