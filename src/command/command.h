/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * command.h - what the verbs of xendisk(1) share.
 *
 * A verb is a row in the table in main.c and a function that returns the exit
 * status.  Errors are one line on stderr, "xendisk: WHAT: WHY", written by
 * fail() where they are noticed.
 */
#ifndef XENDISK_COMMAND_H
#define XENDISK_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util.h"

enum status {
	STATUS_DONE = 0,
	STATUS_FAILED = 1,
	STATUS_USAGE = 2,
	STATUS_NO_DAEMON = 3,
	STATUS_NOT_FOUND = 4,
	STATUS_REFUSED = 5,
};

#define MAX_OPTIONS 10

struct verb_option {
	const char *name;
	const char *arg; /* its name in the help; NULL: takes none */
	const char *help;
};

struct invocation;

struct verb {
	const char *name;
	const char *synopsis; /* of the arguments */
	int min_args, max_args;
	const char *summary;
	struct verb_option options[MAX_OPTIONS];
	const char *letters; /* short forms of the first options; or NULL */
	enum status (*run)(const struct invocation *call);
	bool once; /* an option given twice is an error; else the last counts */
	bool hidden; /* for scripts of ours: not in the help */
};

struct invocation {
	const struct verb *verb;
	const char *run_dir;
	bool json;
	int nr_args;
	char *const *args;
	const char *values[MAX_OPTIONS]; /* "" for an option without argument */
};

/* All verbs, ended by a name of NULL. */
extern const struct verb verbs[];

/* The short form of the nth option, 0: none. */
char option_letter(const struct verb *verb, int n);

/* The argument of --name, "" when it takes none, NULL when it is not there. */
const char *option(const struct invocation *call, const char *name);

/* Prints "xendisk: ..." and returns the status. */
enum status fail(enum status status, const char *fmt, ...) PRINTF(2, 3);

enum status verb_attach(const struct invocation *call);
enum status verb_backends(const struct invocation *call);
enum status verb_check(const struct invocation *call);
enum status verb_complete(const struct invocation *call);
enum status verb_connect(const struct invocation *call);
enum status verb_detach(const struct invocation *call);
enum status verb_export(const struct invocation *call);
enum status verb_exports(const struct invocation *call);
enum status verb_hotplug(const struct invocation *call);
enum status verb_list(const struct invocation *call);
enum status verb_resize(const struct invocation *call);
enum status verb_resume(const struct invocation *call);
enum status verb_serve(const struct invocation *call);
enum status verb_show(const struct invocation *call);
enum status verb_snapshot(const struct invocation *call);
enum status verb_stats(const struct invocation *call);
enum status verb_status(const struct invocation *call);
enum status verb_unexport(const struct invocation *call);
enum status verb_version(const struct invocation *call);

#endif
