/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-tool.h - what the verbs of xendisk-git share.
 */
#ifndef XENDISK_GIT_TOOL_H
#define XENDISK_GIT_TOOL_H

#include "chunk-map.h"
#include "command/verbs.h"
#include "refs.h"

enum status verb_doctor(const struct invocation *call);
enum status verb_export(const struct invocation *call);
enum status verb_init(const struct invocation *call);
enum status verb_log(const struct invocation *call);

/* "xendisk: git VERB: WHAT: WHY"; the status is what err stands for. */
enum status tool_fail(const struct invocation *call, int err, const char *what,
		      const char *why);
/* The same for wrong use. */
enum status tool_usage(const struct invocation *call, const char *fmt, ...)
	PRINTF(2, 3);

/* A repository that is open. */
struct tool_repo {
	int dir;
	int objects; /* its folder */
	int packs; /* objects/pack */
	struct git_repository *git;
	/* Its objects as they are at tool_objects(). */
	struct odb_source from;
	struct object_source source;
};

/* On failure the line has been written.  The repo stays where it is. */
enum status tool_open(const struct invocation *call, const char *path,
		      struct tool_repo *ret);
void tool_close(struct tool_repo *repo);
/* For what reads chunks: all indexes are loaded.  Once more: nothing. */
int tool_objects(struct tool_repo *repo, char *ret_why);

/* The commit of an argument, and the disk in it. */
enum status tool_revision(const struct invocation *call, struct tool_repo *repo,
			  const char *rev, struct commit_facts *ret_commit,
			  struct chunk_map **ret_map);

/* How many threads are worth while for work that only takes processor time. */
#define TOOL_MAX_THREADS 16u
unsigned int tool_threads(void);

/* Has somebody sent SIGINT, SIGTERM or SIGHUP?  From the first call on they do
 * not end the program. */
bool tool_interrupted(void);

/* --- progress.c ----------------------------------------------------------------- */

/* A bar with rate and time left on stderr, when that is a terminal. */
struct progress {
	bool shown;
	const char *what;
	uint64_t total; /* bytes */
	uint64_t start, next; /* ns: of the monotonic clock */
};

void progress_start(struct progress *progress, const char *what,
		    uint64_t total);
void progress_show(struct progress *progress, uint64_t done);
void progress_end(struct progress *progress);

#endif
