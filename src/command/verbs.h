/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * verbs.h - a program of verbs: xendisk(1), and xendisk-git, which is part of it.
 *
 * A verb is a row in the program's table and a function that returns the exit
 * status.  Errors are one line on stderr, "xendisk: WHAT: WHY", written by
 * fail() where they are noticed.
 */
#ifndef XENDISK_VERBS_H
#define XENDISK_VERBS_H

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
	const char *required; /* must be given, the verb looks; or NULL */
	const char *letters; /* short forms of the first options; or NULL */
	enum status (*run)(const struct invocation *call);
	bool once; /* an option given twice is an error; else the last counts */
	bool hidden; /* for scripts of ours: not in the help */
	bool raw; /* options are arguments, too: another program reads them */
};

struct invocation {
	const struct verb *verb;
	const char *run_dir; /* of the daemon; NULL in a program without one */
	bool json;
	int nr_args;
	char *const *args;
	const char *values[MAX_OPTIONS]; /* "" for an option without argument */
};

struct program {
	const char *name; /* as it is called: "xendisk" */
	/* In what fail() says: before a verb, and where there is none: "". */
	const char *prefix, *alone;
	const char *run_dir; /* NULL: there is no option --run-dir */
	const char *about; /* last lines of --help */
};

/* Each program has these, and main() of verbs.c: all its verbs, ended by a name of
 * NULL. */
extern const struct verb verbs[];
extern const struct program program;

/* The argument of --name, "" when it takes none, NULL when it is not there. */
const char *option(const struct invocation *call, const char *name);

/* Prints "xendisk: ..." and returns the status. */
enum status fail(enum status status, const char *fmt, ...) PRINTF(2, 3);

/* --- Completion ---------------------------------------------------------------- */

/* What of the tables the words typed so far ask for. */
struct typed {
	const struct verb *verb; /* NULL: it is still to come */
	int arguments; /* of it, before the last word */
	const char *first; /* the first of them, or NULL */
	const char *run_dir; /* if one was given */
	const char *last; /* the word to be completed */
	bool file; /* it is the argument of an option: the shell has files */
};

void read_typed(const struct invocation *call, struct typed *ret);
/* Prints the candidate if the word may become it. */
void offer(const char *candidate, const char *word);
/* The verbs, or the options of the verb. */
void offer_verbs(const char *word);
void offer_options(const struct verb *verb, const char *word);

#endif
