/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * exports.c - disks that the operator has exported by name.
 *
 * Theory of operation
 *
 * An export has a listener (export.c) and something that is served: the target of
 * a guest's disk, looked up each time by its number, or one of its own, which is
 * opened when the export is made and closed with it.  Such a target says only that
 * it has changed; on_look(), from the event loop, finds out how: it gives the caller
 * of exports_add() the verdict, and removes an export that failed.
 *
 * With TLS the port belongs to a process in front of the export (front.h), and the
 * export is not ready before that serves.
 *
 * The note of an export is a JSON object of its parameters, written whole and then
 * renamed.  A note that is not understood is left alone, with a line in the log.
 * So is one that cannot be taken up, because another program has its port, say; and
 * what has been written to such an export is kept, for the next daemon.
 */
#include "config.h"

#include "broker/exports.h"

#include <dirent.h>
#include <event2/event.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <utlist.h>

#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/export.h"
#include "broker/front.h"
#include "broker/target.h"
#include "common/export-name.h"
#include "common/log.h"
#include "common/util.h"

/* More would be a mistake: each takes descriptors of the broker's. */
#define MAX_EXPORTS 256u

struct named {
	struct named *prev, *next;
	struct exports *exports;
	char *name;
	char *tcp; /* or NULL */
	char *tls_certs, *tls_psk; /* or NULL */
	char *given; /* the expression as it was given; NULL: a disk's */
	uint32_t domid, devid;
	bool readonly, force;
	struct export *export;
	struct front *front; /* with TLS */
	bool front_serves;
	struct target *target; /* NULL: a disk's */
	struct event *look;
	struct promise opened; /* that it is open */
};

struct exports {
	struct broker *broker;
	struct named *list;
	unsigned int nr;
	/* Numbers of those whose notes the next daemon may be able to take up. */
	uint32_t left[MAX_EXPORTS];
	unsigned int nr_left;
};

/* --- Names ---------------------------------------------------------------- */

static struct named *find(const struct exports *exports, const char *name)
{
	struct named *named;

	DL_FOREACH(exports->list, named)
		if (strcmp(named->name, name) == 0)
			return named;
	return NULL;
}

/* "export-1", ... */
static char *free_name(const struct exports *exports)
{
	for (unsigned int i = 1; i <= MAX_EXPORTS + 1; i++) {
		cleanup_free char *name = xasprintf("export-%u", i);

		if (!name || !find(exports, name))
			return TAKE_PTR(name);
	}
	return NULL;
}

bool exports_has(const struct exports *exports, uint32_t domid, uint32_t devid)
{
	const struct named *named;

	DL_FOREACH(exports->list, named)
		if (named->given && named->domid == domid &&
		    named->devid == devid)
			return true;
	for (unsigned int i = 0; i < exports->nr_left; i++)
		if (domid == EXPORTS_DOMID && exports->left[i] == devid)
			return true;
	return false;
}

static uint32_t free_number(const struct exports *exports)
{
	uint32_t n = 1;

	while (exports_has(exports, EXPORTS_DOMID, n))
		n++;
	return n;
}

/* --- Notes ---------------------------------------------------------------- */

static char *note_path(const struct exports *exports, const char *name)
{
	return xasprintf("%s/exports/%s", exports->broker->options.run_dir,
			 name);
}

static void remove_note(const struct named *named)
{
	cleanup_free char *path = note_path(named->exports, named->name);

	if (path)
		(void)unlink(path);
}

static bool has_tls(const struct named *named)
{
	return named->tls_certs || named->tls_psk;
}

static int write_note(const struct named *named)
{
	cleanup_free char *path = note_path(named->exports, named->name);
	cleanup_free char *fresh = path ? xasprintf("%s~", path) : NULL;
	json_t *note = json_pack("{s:I, s:I, s:b, s:b, s:s*, s:s*, s:s*, s:s*}",
				 "domid", (json_int_t)named->domid, "devid",
				 (json_int_t)named->devid, "readonly",
				 named->readonly, "force", named->force, "tcp",
				 named->tcp, "tls-certs", named->tls_certs,
				 "tls-psk", named->tls_psk, "expression",
				 named->given);
	int r = -ENOMEM;

	if (note && fresh)
		r = json_dump_file(note, fresh, JSON_COMPACT) < 0 ||
				    rename(fresh, path) < 0 ?
			    -EIO :
			    0;
	json_decref(note);
	return r;
}

static uint32_t note_u32(const json_t *note, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(note, key));

	return value >= 0 && value <= UINT32_MAX ? (uint32_t)value : 0;
}

/* --- What is served ------------------------------------------------------- */

static struct target *target_of(void *ctx)
{
	const struct named *named = ctx;
	const struct vbd *vbd;

	if (named->given)
		return named->target;
	vbd = bus_find(named->exports->broker->bus, named->domid, named->devid);
	return vbd ? vbd_target(vbd) : NULL;
}

static void on_changed(void *ctx)
{
	struct named *named = ctx;
	struct timeval now = { .tv_sec = 0 };

	(void)evtimer_add(named->look, &now);
}

/* --- Life ----------------------------------------------------------------- */

/* discard: it is no more; else the next daemon goes on with it. */
static void free_named(struct named *named, bool discard)
{
	struct exports *exports = named->exports;

	DL_DELETE(exports->list, named);
	exports->nr--;
	promise_keep(&named->opened, -ECANCELED, "the export was removed");
	if (discard)
		remove_note(named);
	front_free(named->front);
	export_free(named->export);
	if (named->target && discard)
		target_close(named->target, true);
	target_free(named->target);
	if (named->look)
		event_free(named->look);
	free(named->name);
	free(named->tcp);
	free(named->tls_certs);
	free(named->tls_psk);
	free(named->given);
	free(named);
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
	struct named *named = arg;
	char why[MSG_TEXT_MAX];

	(void)fd;
	(void)what;
	if (target_state(named->target) == TARGET_OPEN) {
		if (!has_tls(named) || named->front_serves)
			promise_keep(&named->opened, 0, named->name);
	} else if (target_state(named->target) == TARGET_FAILED) {
		(void)snprintf(why, sizeof(why), "%s",
			       target_why(named->target));
		log_error("export %s: %s", named->name, why);
		/* One that a daemon before us had open stays in the list. */
		if (!named->opened.done)
			return;
		promise_keep(&named->opened, target_error(named->target), why);
		free_named(named, true);
	}
}

/* Opens what is exported without a guest.  fresh: no daemon before us has. */
static int open_target(struct named *named, bool fresh)
{
	struct broker *broker = named->exports->broker;
	const struct msg_identity id = { .domid = named->domid,
					 .devid = named->devid,
					 .backend_domid = EXPORTS_DOMID };
	int r;

	named->look = evtimer_new(broker->base, on_look, named);
	if (!named->look)
		return -ENOMEM;
	r = target_new(&named->target, broker, &id, on_changed, named);
	if (r < 0)
		return r;
	target_open(named->target, named->given, named->readonly, fresh);
	on_changed(named);
	return 0;
}

static bool is_readonly(const struct named *named)
{
	return named->readonly ||
	       (has_tls(named) && !named->given && !named->force);
}

static int listen_for(struct named *named, char *ret_why)
{
	struct broker *broker = named->exports->broker;
	cleanup_free char *path =
		export_path_of(broker->options.run_dir, named->name);
	const struct export_spec spec = {
		.path = path,
		.tcp = has_tls(named) ? NULL : named->tcp,
		.name = named->name,
		.flags = (is_readonly(named) ? MSG_CLIENT_READONLY : 0) |
			 (named->force ? MSG_CLIENT_FORCE : 0),
		.target = target_of,
		.ctx = named,
	};

	return path ? export_new(&named->export, broker, &spec, ret_why) :
		      -ENOMEM;
}

/* The target of an expression may still be being opened. */
static void on_front(void *ctx, int err, const char *why)
{
	struct named *named = ctx;

	named->front_serves = err == 0;
	if (err) {
		log_error("export %s: %s", named->name, why);
		promise_keep(&named->opened, err, why);
		free_named(named, true);
	} else if (!named->target ||
		   target_state(named->target) == TARGET_OPEN) {
		promise_keep(&named->opened, 0, named->name);
	}
}

/* It is there all the time, whether the guest is or not: so to write beside it
 * must be asked for. */
static int put_in_front(struct named *named, bool fresh)
{
	const struct front_spec spec = {
		.name = named->name,
		.domid = named->domid,
		.devid = named->devid,
		.path = export_path(named->export),
		.tcp = named->tcp,
		.tls_certs = named->tls_certs,
		.tls_psk = named->tls_psk,
		.readonly = is_readonly(named),
		.patient = !fresh,
	};

	return front_new(&named->front, named->exports->broker, &spec, on_front,
			 named);
}

static char *copy_of(const char *text)
{
	return text ? strdup(text) : NULL;
}

static struct named *new_named(struct exports *exports,
			       const struct exports_spec *spec)
{
	struct named *named = calloc(1, sizeof(*named));

	if (!named)
		return NULL;
	named->exports = exports;
	named->name = spec->name ? strdup(spec->name) : free_name(exports);
	named->tcp = copy_of(spec->tcp);
	named->tls_certs = copy_of(spec->tls_certs);
	named->tls_psk = copy_of(spec->tls_psk);
	named->given = copy_of(spec->expression);
	named->domid = spec->domid;
	named->devid = spec->devid;
	named->readonly = spec->readonly;
	named->force = spec->force;
	DL_APPEND(exports->list, named);
	exports->nr++;
	if (!named->name || !spec->tcp != !named->tcp ||
	    !spec->tls_certs != !named->tls_certs ||
	    !spec->tls_psk != !named->tls_psk ||
	    !spec->expression != !named->given) {
		free_named(named, false);
		return NULL;
	}
	return named;
}

static int begin(struct named *named, bool fresh, char *ret_why)
{
	int r = listen_for(named, ret_why);

	if (r < 0)
		return r;
	(void)snprintf(ret_why, MSG_TEXT_MAX, "no memory");
	if (named->given)
		r = open_target(named, fresh);
	if (r == 0 && has_tls(named))
		r = put_in_front(named, fresh);
	return r;
}

/* --- Calls ---------------------------------------------------------------- */

static int check(const struct exports *exports, const struct exports_spec *spec,
		 char *ret_why)
{
	if (spec->name && !is_export_name(spec->name))
		return msg_why(ret_why, -EINVAL,
			       "\"%.80s\" is no name of an export", spec->name);
	if (spec->name && find(exports, spec->name))
		return msg_why(ret_why, -EBUSY,
			       "there is an export \"%s\" already", spec->name);
	if (exports->nr >= MAX_EXPORTS)
		return msg_why(ret_why, -EBUSY, "there are %u exports already",
			       exports->nr);
	return 0;
}

void exports_add(struct exports *exports, const struct exports_spec *spec,
		 vbd_done_fn done, void *ctx)
{
	struct exports_spec wanted = *spec;
	char why[MSG_TEXT_MAX] = "no memory";
	struct named *named = NULL;
	int r = check(exports, spec, why);

	if (wanted.expression) {
		wanted.domid = EXPORTS_DOMID;
		wanted.devid = free_number(exports);
	}
	if (r == 0) {
		named = new_named(exports, &wanted);
		r = named ? begin(named, true, why) : -ENOMEM;
	}
	if (r == 0) {
		r = write_note(named);
		(void)snprintf(why, sizeof(why), "its note: %s", strerror(-r));
	}
	if (r < 0) {
		if (named)
			free_named(named, true);
		done(ctx, r, why);
		return;
	}
	named->opened = (struct promise){ done, ctx };
	if (!named->given && !has_tls(named))
		promise_keep(&named->opened, 0, named->name);
}

/* What it has kept goes when the next daemon starts. */
static int forget_left(struct exports *exports, const char *name)
{
	cleanup_free char *path =
		is_export_name(name) ? note_path(exports, name) : NULL;

	return path && unlink(path) == 0 ? 0 : -ENOENT;
}

int exports_remove(struct exports *exports, const char *name)
{
	struct named *named = find(exports, name);

	if (!named)
		return forget_left(exports, name);
	free_named(named, true);
	return 0;
}

void exports_forget(struct exports *exports, uint32_t domid, uint32_t devid)
{
	struct named *named, *next;

	DL_FOREACH_SAFE(exports->list, named, next)
		if (!named->given && named->domid == domid &&
		    named->devid == devid)
			free_named(named, true);
}

void exports_sweep(struct exports *exports,
		   bool (*exists)(void *ctx, uint32_t domid, uint32_t devid),
		   void *ctx)
{
	struct named *named, *next;

	DL_FOREACH_SAFE(exports->list, named, next)
		if (!named->given && !exists(ctx, named->domid, named->devid))
			free_named(named, true);
}

static const char *state_of(const struct target *target)
{
	if (!target)
		return "opening";
	switch (target_state(target)) {
	case TARGET_OPEN:
		return "open";
	case TARGET_FAILED:
		return "failed";
	case TARGET_NONE:
	case TARGET_OPENING:
		break;
	}
	return "opening";
}

int exports_control(struct exports *exports, const char *name, const char *verb,
		    const char *text, vbd_done_fn done, void *ctx)
{
	struct named *named = find(exports, name);
	struct target *target = named ? target_of(named) : NULL;

	if (!target)
		return -ENOENT;
	target_control(target, verb, text, done, ctx);
	return 0;
}

void exports_each(struct exports *exports,
		  bool (*fn)(void *ctx, const struct exports_view *view),
		  void *ctx)
{
	struct named *named;

	DL_FOREACH(exports->list, named) {
		const struct target *target = target_of(named);
		const struct msg_opened *opened =
			target ? target_opened(target) : NULL;
		const struct exports_view view = {
			.name = named->name,
			.expression = target ? target_expression(target) : "",
			.of_disk = !named->given,
			.domid = named->domid,
			.devid = named->devid,
			.state = state_of(target),
			.path = export_path(named->export),
			.tcp = named->tcp,
			.tls = has_tls(named),
			.size = opened ? opened->limits.size : 0,
			.readonly = is_readonly(named) ||
				    (opened && opened->limits.readonly),
			.force = named->force,
		};

		if (!fn(ctx, &view))
			return;
	}
}

/* --- After another daemon ------------------------------------------------- */

static void take_up(struct exports *exports, const char *name)
{
	cleanup_free char *path = note_path(exports, name);
	json_t *note = path ? json_load_file(path, 0, NULL) : NULL;
	const struct exports_spec spec = {
		.name = name,
		.expression =
			json_string_value(json_object_get(note, "expression")),
		.domid = note_u32(note, "domid"),
		.devid = note_u32(note, "devid"),
		.tcp = json_string_value(json_object_get(note, "tcp")),
		.tls_certs =
			json_string_value(json_object_get(note, "tls-certs")),
		.tls_psk = json_string_value(json_object_get(note, "tls-psk")),
		.readonly = json_is_true(json_object_get(note, "readonly")),
		.force = json_is_true(json_object_get(note, "force")),
	};
	char why[MSG_TEXT_MAX] = "its note is not understood";
	struct named *named = NULL;
	int r = json_is_object(note) ? check(exports, &spec, why) : -EPROTO;

	if (r == 0)
		named = new_named(exports, &spec);
	if (named)
		r = begin(named, false, why);
	if (r < 0)
		log_error("export %s: %s", name, why);
	if (r < 0 && named)
		free_named(named, false);
	if (r < 0 && spec.expression && exports->nr_left < MAX_EXPORTS)
		exports->left[exports->nr_left++] = spec.devid;
	json_decref(note);
}

int exports_new(struct exports **ret, struct broker *broker)
{
	cleanup_free char *path =
		xasprintf("%s/exports", broker->options.run_dir);
	struct exports *exports = calloc(1, sizeof(*exports));
	struct dirent *entry;
	DIR *dir;

	if (!exports || !path) {
		free(exports);
		return -ENOMEM;
	}
	exports->broker = broker;
	*ret = exports;
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((entry = readdir(dir)))
		if (is_export_name(entry->d_name))
			take_up(exports, entry->d_name);
	(void)closedir(dir);
	return 0;
}

void exports_free(struct exports *exports)
{
	if (!exports)
		return;
	while (exports->list)
		free_named(exports->list, false);
	free(exports);
}
