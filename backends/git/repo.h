/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo.h - a repository opened by libgit2, and what a revision means in it.
 * gitfs: main thread, before the worker is isolated.
 */
#ifndef XENDISK_GIT_REPO_H
#define XENDISK_GIT_REPO_H

#include "odb.h"

struct revision {
	bool has_commit; /* else it names a tree */
	uint8_t id[OID_BYTES]; /* of that commit, or tree */
	uint8_t tree[OID_BYTES]; /* of its path, if it has one */
	int64_t time; /* of the commit, Unix; else 0 */
	char path[256]; /* in the tree, "" for all of it */
};

struct git_repository; /* libgit2's */

/*
 * dir: the repository's folder, a bare one or the .git of another.  Refused: one
 * that leads to other places (-EXDEV), or whose owner is somebody else (-EPERM).
 * Each that is open is one user of libgit2, which is started and ended here.
 */
int repo_open(struct git_repository **ret, int dir, char *ret_why);
void repo_close(struct git_repository *repo);
/* "WHAT: what libgit2 says last HINT", without what could upset a terminal;
 * passes err on. */
int repo_why(char *ret_why, int err, const char *what, const char *hint);

int repo_look_up(struct git_repository *repo, const char *rev,
		 struct revision *ret, char *ret_why);
/* The same, of a repository that is not open; dir: as above. */
int repo_resolve(int dir, const char *rev, struct revision *ret, char *ret_why);
/* A setting of that repository itself, not of a user or the system, to be freed;
 * NULL: there is none. */
int repo_setting(int dir, const char *name, char **ret, char *ret_why);
/* What a disk made of it says in /.xendisk/commit, to be freed; NULL: no memory. */
char *revision_about(const struct revision *rev);

#endif
