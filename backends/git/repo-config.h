/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo-config.h - the configuration, and what it includes, wherever that is, is looked
 * at before libgit2 opens it (repo-files.h says what for).
 */
#ifndef XENDISK_GIT_REPO_CONFIG_H
#define XENDISK_GIT_REPO_CONFIG_H

#include "why.h"

/* dir: the repository's folder.  libgit2, which has been started, also reads the settings
 * of the user and the system, so they are looked at, too.  What is not there is fine, as
 * it is to git.  -EBADMSG, -EFBIG, -ELOOP, and why names the file and what it includes. */
int repo_check_config(int dir, char *ret_why);

#endif
