/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-tool.h - what the verbs of xendisk-git share.
 */
#ifndef XENDISK_GIT_TOOL_H
#define XENDISK_GIT_TOOL_H

#include <jansson.h>

#include "chunk-map.h"
#include "command/verbs.h"
#include "refs.h"

struct pack_writer;

enum status verb_create(const struct invocation *call);
enum status verb_diff(const struct invocation *call);
enum status verb_doctor(const struct invocation *call);
enum status verb_export(const struct invocation *call);
enum status verb_fork(const struct invocation *call);
enum status verb_gc(const struct invocation *call);
enum status verb_import(const struct invocation *call);
enum status verb_init(const struct invocation *call);
enum status verb_log(const struct invocation *call);
enum status verb_pull(const struct invocation *call);
enum status verb_push(const struct invocation *call);
enum status verb_rollback(const struct invocation *call);
enum status verb_thin(const struct invocation *call);

/* "xendisk: git VERB: WHAT: WHY"; the status is what err stands for.  what may be NULL:
 * reason says it already. */
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
	bool is_owner; /* root has become who owns it */
	struct git_repository *git;
	/* Its objects as they are at tool_objects(). */
	struct odb_source from;
	struct object_source source;
};

/*
 * On failure the line has been written.  The repo stays where it is.  Root becomes the
 * owner of the repository before anything in it is looked at, and what is made belongs
 * to him, whose committers could not go on with files and folders of root.
 */
enum status tool_open(const struct invocation *call, const char *path,
		      struct tool_repo *ret);
/* The two halves of that, for what root has to open in between: the folder, in which
 * nothing is looked at; then the rest.  When that fails all is closed. */
enum status tool_open_folder(const struct invocation *call, const char *path,
			     struct tool_repo *ret);
enum status tool_open_rest(const struct invocation *call, const char *path,
			   struct tool_repo *repo);
void tool_close(struct tool_repo *repo);
/* For what reads chunks: all indexes are loaded.  Once more: nothing. */
int tool_objects(struct tool_repo *repo, char *ret_why);

/* Adds the branch that may have been meant by the name of one that is none. */
void tool_suggest_branch(struct tool_repo *repo, const char *typed,
			 char *io_why);

/* An argument with a K, M, G or T; 0 where there is none. */
enum status tool_size(const struct invocation *call, const char *name,
		      uint64_t *ret);

/* git-create.c: a disk of that size and of the option --chunk; the reference of one
 * that is not there yet; the option --message. */
enum status tool_new_disk(const struct invocation *call, uint64_t size,
			  struct git_disk *ret);
enum status tool_new_ref(const struct invocation *call, struct tool_repo *repo,
			 const char *disk, char ret[REF_NAME_MAX]);
void tool_message(const struct invocation *call, const char *otherwise,
		  struct commit_facts *ret);

/* The commit of an argument, and the disk in it. */
enum status tool_revision(const struct invocation *call, struct tool_repo *repo,
			  const char *rev, struct commit_facts *ret_commit,
			  struct chunk_map **ret_map);

/*
 * A commit of a tree that is in the writer becomes a branch: the pack is made
 * visible, then the reference set, which has to be at `old` (NULL: nowhere).
 * facts: author, time and tree are filled in.
 */
int tool_publish(struct tool_repo *repo, struct pack_writer *pack,
		 const uint8_t root[OID_BYTES], struct commit_facts *facts,
		 const char *ref, const uint8_t *old, char *ret_why);
/* Says which commit it is, as a line or as JSON. */
enum status tool_committed(const struct invocation *call,
			   const struct commit_facts *commit, const char *ref);

/* git-files.c: which files are others, as lines; or in ret_list, for each file system
 * an object, when that is not NULL. */
enum status tool_diff_files(const struct invocation *call,
			    const struct tool_repo *repo, struct chunk_map *a,
			    struct chunk_map *b, json_t *ret_list);

/* git-gc.c: how many packs there are, and the bytes of all files beside them. */
uint64_t tool_count_packs(const struct tool_repo *repo, uint64_t *ret_bytes);

/*
 * Calls fn in a child, which may become somebody else, and returns its status.  It is
 * interrupted when we are.
 */
enum status tool_in_child(const struct invocation *call,
			  enum status (*fn)(void *ctx), void *ctx);

/* How many threads are worth while for work that only takes processor time. */
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
/* The total counts something else than bytes, of which there were so many; 0: nobody
 * knows. */
void progress_share(struct progress *progress, uint64_t done, uint64_t bytes);
void progress_end(struct progress *progress);

/* --- git-meter.c ---------------------------------------------------------------- */

/* The same for a git that runs, from what it writes to its stderr.  Begins as zeroes
 * but for: */
struct meter {
	bool passes_on; /* its other lines, to our stderr */
	struct progress progress;
	char stage[60];
	char line[1000]; /* more of one is left out */
	size_t used;
};

void meter_take(void *meter, const char *text, size_t n);
void meter_end(struct meter *meter);

#endif
