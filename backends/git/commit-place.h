/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * commit-place.h - which reference leads to a new commit.
 *
 *   branch     refs/heads/BRANCH, if that still is the commit's parent; else
 *              somebody has moved it, which is his right: refs/xendisk/diverged/
 *              BRANCH/UTC then
 *   interval   refs/xendisk/auto/BRANCH/UTC
 *
 * May be repeated: a commit that is there already is left where it is.
 */
#ifndef XENDISK_GIT_COMMIT_PLACE_H
#define XENDISK_GIT_COMMIT_PLACE_H

#include "refs.h"

struct commit_place {
	const char *branch;
	bool is_auto; /* an interval snapshot */
	int64_t time; /* Unix; makes the UTC */
	uint64_t generation; /* for a second one in the same second */
	const uint8_t *commit; /* [OID_BYTES] */
	const uint8_t *parent; /* of it; NULL: none, the branch is not there */
};

/* ret_ref: where it is.  -EEXIST: the names are taken; else as refs.h. */
int commit_place(struct git_repository *repo, const struct commit_place *place,
		 char ret_ref[REF_NAME_MAX], bool *ret_diverged, char *ret_why);

#endif
