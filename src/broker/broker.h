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

struct bus;
struct control;
struct registry;

struct broker_options {
	const char *run_dir;
	const char *state_dir;
	const char *backend_dir;
	const char *config;
};

struct broker {
	struct broker_options options;
	struct event_base *base;
	struct settings *settings;
	struct registry *registry; /* the backends' tables */
	struct bus *bus;
	struct control *control;
};

/* Runs until SIGTERM; returns the exit status. */
int broker_main(const struct broker_options *options);

/* The parser's view of registry and settings. */
struct expr_env broker_expr_env(struct broker *broker);

#endif
