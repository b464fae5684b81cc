/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * refs.h - references and commits of a repository, by libgit2; and the text of
 * our own commits.  One thread a repository that is open.
 *
 * Names of references are whole: "refs/heads/web".  Disks are branches.
 */
#ifndef XENDISK_GIT_REFS_H
#define XENDISK_GIT_REFS_H

#include <stdbool.h>

#include "odb.h"

struct git_repository; /* libgit2's */

#define REFS_HEADS    "refs/heads/"
#define REFS_AUTO     "refs/xendisk/auto/" /* BRANCH/UTC: interval snapshots */
#define REFS_PINS     "refs/xendisk/base/" /* BRANCH/HOST...: what is open */
#define REFS_DIVERGED "refs/xendisk/diverged/" /* BRANCH/UTC */
#define REF_NAME_MAX  512u /* bytes, with the NUL; longer ones are refused */
/* Of a branch: it is part of the names above. */
#define BRANCH_MAX 200u

/* dir: the repository's folder, a bare one or the .git of another; checked as
 * repo.h does it.  No hook, filter or attribute is looked at. */
int refs_open(struct git_repository **ret, int dir, char *ret_why);
/* libgit2 looks at the files of settings now and then, and opens those that have
 * changed, whatever they have become.  After this it never does: for who stays long and
 * sets nothing. */
int refs_keep_settings(struct git_repository *repo, char *ret_why);
void refs_close(struct git_repository *repo);

/* Names that git would not take, or that start with "-".  -EINVAL and why. */
int refs_check_branch(const char *branch, char *ret_why);

/* -ENOENT; -EBADMSG: it is symbolic, or broken. */
int refs_read(struct git_repository *repo, const char *name,
	      uint8_t ret[OID_BYTES], char *ret_why);
/*
 * Compare and swap, durable when it returns: old NULL: it must not be there;
 * new NULL: it is removed.  log: a line for the reflog, if the repository has
 * one.  -ESTALE: it has another value; -EBUSY: somebody has it locked, and not for
 * so long that he must have died (ref-lock.h).
 */
int refs_update(struct git_repository *repo, const char *name,
		const uint8_t *old, const uint8_t *new_id, const char *log,
		char *ret_why);
/* Each one below prefix ("refs/xendisk/auto/web/"), in no order; until fn returns
 * something else than 0, which is passed on.  Symbolic ones, and locks, are left
 * out. */
int refs_each(struct git_repository *repo, const char *prefix,
	      int (*fn)(void *ctx, const char *name,
			const uint8_t oid[OID_BYTES]),
	      void *ctx, char *ret_why);

/* --- Commits ------------------------------------------------------------------ */

#define COMMIT_LINE_MAX \
	256u /* bytes, with the NUL, of one of the values below */
#define COMMIT_MESSAGE_MAX 4096u /* bytes, with the NUL */

enum consistency {
	CONSISTENCY_NONE, /* it is not said */
	CONSISTENCY_CRASH,
	CONSISTENCY_FS_FROZEN,
	CONSISTENCY_CLEAN_DETACH,
};
extern const char *const consistency_names[]; /* "", "crash", ... */

/* What a commit says.  Strings are "" when it does not. */
struct commit_facts {
	uint8_t id[OID_BYTES]; /* not for commit_text() */
	uint8_t tree[OID_BYTES];
	bool has_parent; /* the first one, if it has more */
	uint8_t parent[OID_BYTES];
	int64_t time; /* Unix, of the committer; +0000 in ours */
	char author[COMMIT_LINE_MAX]; /* "NAME <EMAIL>" */
	char message[COMMIT_MESSAGE_MAX]; /* without the trailers */
	char domain[COMMIT_LINE_MAX]; /* Xendisk-Domain: */
	enum consistency consistency; /* Xendisk-Consistency: */
	bool has_dirty;
	uint64_t dirty; /* bytes; Xendisk-Dirty-Bytes: */
	char layer[COMMIT_LINE_MAX]; /* Xendisk-Layer: UUID/GEN */
};

/* A revision of any kind ("web~3", a tag, an id) as the commit it means.
 * -ENOENT; -EINVAL: it is no commit.  A branch wins over a tag of that name. */
int refs_resolve(struct git_repository *repo, const char *rev,
		 struct commit_facts *ret, char *ret_why);
/* Reads a commit.  A message that is too long is cut. */
int refs_commit(struct git_repository *repo, const uint8_t id[OID_BYTES],
		struct commit_facts *ret, char *ret_why);
/* Newest first along the first parents, from one commit on; until fn returns
 * something else than 0, which is passed on.  -ELOOP: after HISTORY_MAX. */
#define HISTORY_MAX 10000000u
int refs_history(struct git_repository *repo, const uint8_t from[OID_BYTES],
		 int (*fn)(void *ctx, const struct commit_facts *commit),
		 void *ctx, char *ret_why);
/* Is it another one, and has it the earlier one in its history?  In a shallow clone only
 * first parents are looked at. */
bool refs_comes_after(struct git_repository *repo,
		      const uint8_t later[OID_BYTES],
		      const uint8_t earlier[OID_BYTES]);
/* Who commits: of the configuration (user.name, user.email), or "xendiskd
 * <xendiskd@HOST>". */
void refs_author(struct git_repository *repo, char ret[COMMIT_LINE_MAX]);

/* --- commit-text.c: pure ------------------------------------------------------ */

/* The bytes of a commit object, to be freed.  -EINVAL: an author that is none, a
 * line that is not one. */
int commit_text(const struct commit_facts *facts, char **ret, size_t *ret_n,
		char *ret_why);
/* Message and trailers; trailers are ours only in the last paragraph. */
void commit_read_message(struct commit_facts *ret, const char *message);

#endif
