/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo-files.h - the files of a repository are looked at before libgit2 reads them,
 * which opens what there is and reads all of it: a FIFO or a device would keep it
 * for ever, a file of a terabyte would take all memory, a link would lead elsewhere.
 */
#ifndef XENDISK_GIT_REPO_FILES_H
#define XENDISK_GIT_REPO_FILES_H

#include "why.h"

/* dir: the repository's folder.  What is read as soon as it is opened; all of its
 * references, and the files of its packs.  -EBADMSG, -EXDEV, -EFBIG, and why names
 * the file. */
int repo_check_files(int dir, char *ret_why);
/* One reference, "refs/heads/web", or all of those below "refs/heads/".  What is
 * not there is fine.  base: the repository's path. */
int repo_check_refs(const char *base, const char *name, char *ret_why);

#endif
