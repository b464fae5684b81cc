/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * companion.h - starts xendisk-git beside a worker, before that is isolated.
 */
#ifndef XENDISK_GIT_COMPANION_H
#define XENDISK_GIT_COMPANION_H

#include "why.h"

/*
 * Main thread, in open().  Runs `xendisk-git VERB` with one end of a SOCK_SEQPACKET
 * pair as descriptor 3, the state folder (-1: none, closed) as 4 and the
 * repository's folder as 5; both stay the caller's.  It is nobody's child that
 * would have to be waited for, and should end when the socket does.
 * Returns the other end (O_CLOEXEC), or -errno and why.
 */
int companion_start(const char *verb, int state, int repo, char *ret_why);

#endif
