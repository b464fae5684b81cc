/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rundir.h - the run directory, and that it is ours alone.
 */
#ifndef XENDISK_RUNDIR_H
#define XENDISK_RUNDIR_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * Makes DIR and DIR/nbd, and locks DIR/xendiskd.pid with our process id in it;
 * *ret_lock holds the lock until it is closed.  -EBUSY: another daemon has it,
 * *ret_holder says which.
 */
int rundir_take(const char *dir, int *ret_lock, pid_t *ret_holder);

/* May others than root and we write to that folder? */
bool rundir_is_shared(const char *dir);

#endif
