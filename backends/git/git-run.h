/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-run.h - runs the `git` of the system for push and pull, with the settings, keys
 * and credentials of who it runs as; safe-git.h is for what needs none of these.
 */
#ifndef XENDISK_GIT_RUN_H
#define XENDISK_GIT_RUN_H

#include <stdbool.h>

#include "why.h"

#define GIT_RUN_ARGS 24

struct git_run {
	const char *repo; /* the path of its folder */
	bool is_owner; /* we were root: nothing of root's for it */
	bool bar; /* it is asked for its progress, which is shown */
};

/* is_owner: root has become who owns the repository; then what follows has his home,
 * and of root's environment only what is harmless. */
void git_run_begin(struct git_run *run, const char *repo, bool is_owner);

/*
 * args: what comes behind "git", ends with NULL, at most GIT_RUN_ARGS.  out: where its
 * stdout goes; -1: to our stderr.  -EOPNOTSUPP: there is no `git`; -EREMOTEIO: it has
 * failed, and said why itself; -EINTR: we were told to end; or -errno.
 */
int git_run(const struct git_run *run, const char *const *args, int out,
	    char *ret_why);

#endif
