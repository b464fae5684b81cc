/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo.h - what a revision means, by libgit2; the only file that has to do with
 * it.  Main thread, before the worker is isolated.
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

/* dir: the repository's folder, a bare one or the .git of another. */
int repo_resolve(int dir, const char *rev, struct revision *ret, char *ret_why);

#endif
