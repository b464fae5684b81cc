/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * safe-git.h - runs the `git` of the system in a repository that need not be
 * trusted: no hooks, no file of configuration but the repository's own, nothing on
 * its standard input.
 */
#ifndef XENDISK_GIT_SAFE_GIT_H
#define XENDISK_GIT_SAFE_GIT_H

#include <stdbool.h>
#include <stddef.h>

#include "why.h"

/*
 * dir: the repository's folder.  args: what comes behind "git", ends with NULL.
 * Waits for it.  It is in another session: a Ctrl-C is ours alone.  stop: as in
 * struct watch, or NULL.  ret_why: what it last said on its standard error.  0; -ENOENT:
 * there is no `git`; -EREMOTEIO: it failed; or -errno.
 */
int safe_git(int dir, const char *const *args, bool (*stop)(void),
	     char *ret_why);
/* The same for a git that takes its standard error for a terminal, so that it tells of
 * its progress; all that it says is passed to said(), from within. */
int safe_git_told(int dir, const char *const *args,
		  void (*said)(void *ctx, const char *text, size_t n),
		  void *ctx, bool (*stop)(void), char *ret_why);

#endif
