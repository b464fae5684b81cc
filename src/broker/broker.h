/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker.h - the process that decides: what its parts share.
 *
 * One thread, one libevent loop.  Nothing here may block for long: no open of
 * an image, no connect to a server, no wait for a guest or a worker.
 */
#ifndef XENDISK_BROKER_H
#define XENDISK_BROKER_H

#include <event2/event.h>

#include "common/expr.h"
#include "common/settings.h"

#define BROKER_RUN_DIR	 "/run/xendiskd"
#define BROKER_STATE_DIR "/var/lib/xendisk"

struct bus;
struct children;
struct control;
struct exports;
struct keep;
struct nursery;
struct poison;
struct registry;
struct supervisor;

struct broker_options {
	const char *run_dir;
	const char *state_dir;
	const char *backend_dir;
	const char *config; /* NULL: SETTINGS_PATH, which may be absent */
	int ready_fd; /* a byte goes here when all is up; -1: nobody waits */
};

struct errand;

struct broker {
	struct broker_options options;
	struct event_base *base;
	struct children *children;
	struct event *watchdog; /* systemd's; NULL without */
	struct event *signals[2];
	int lock; /* of the run directory */
	struct settings *settings;
	struct errand *looking; /* image-roots.h; NULL: nobody is */
	struct registry *registry; /* the backends' tables */
	struct keep *keep; /* what outlives workers */
	struct poison *poison; /* storage whose flush has failed */
	struct supervisor *supervisor; /* the workers */
	struct exports *exports; /* disks by name, over NBD */
	struct nursery *nursery; /* the child servers */
	struct bus *bus;
	struct control *control;
	bool leaves; /* it could not start: what serves guests is not ended */
};

/* Runs until SIGTERM; returns the exit status. */
int broker_main(const struct broker_options *options);

/* The parser's view of registry and settings. */
struct expr_env broker_expr_env(struct broker *broker);

#endif
