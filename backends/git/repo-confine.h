/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo-confine.h - what a companion gives up before it reads a repository, which
 * somebody else may have filled, on behalf of a worker, which reads what a guest
 * wrote.
 *
 * Once, in this order, while there is one thread: repo_become_owner(); then the
 * repository is opened, by libgit2; then repo_confine().
 */
#ifndef XENDISK_GIT_REPO_CONFINE_H
#define XENDISK_GIT_REPO_CONFINE_H

#include "why.h"

/* dir: the repository's folder.  Root becomes the user whom it belongs to, so that
 * nothing is read or written with more rights than its owner has; others stay who
 * they are.  No core files, which would hold a guest's data. */
int repo_become_owner(int dir, char *ret_why);
/* From here on there are this folder, and programs to run (`git repack`), without
 * the rights of theirs that a file may give.  No network. */
int repo_confine(int dir, char *ret_why);

/* This thread, and those that it starts, wait for the others: the processor and
 * the storage are for guests first. */
void repo_stand_back(void);

#endif
