/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * committer-main.h - the committer as a program, and what it is made of, for tests.
 */
#ifndef XENDISK_GIT_COMMITTER_MAIN_H
#define XENDISK_GIT_COMMITTER_MAIN_H

#include "why.h"

struct committer;

/* `xendisk-git committer`, with the descriptors that committer.h names.  Returns
 * the exit status. */
int committer_main(void);

/* Descriptors stay the caller's; state -1: for reading only.  Whatever it returns,
 * committer_finish() comes. */
int committer_begin(struct committer *c, int sock, int state, int repo,
		    char *ret_why);
/* Until the socket ends, or rubbish comes; and what was asked for has been done. */
void committer_serve(struct committer *c);
void committer_finish(struct committer *c);

#endif
