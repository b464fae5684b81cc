/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * orphans.h - workers that a broker left behind when it died.
 *
 * They go on serving their guests, which is right as long as there is no other
 * broker.  The next one ends them and recovers their disks from the in-flight
 * logs.  So each worker is noted in RUNDIR/workers/PID, with the time at which
 * it started: process ids are used again.
 */
#ifndef XENDISK_ORPHANS_H
#define XENDISK_ORPHANS_H

#include <sys/types.h>

/* Makes the folder; kills the workers noted there and waits until they are
 * gone, at most 2 s.  *ret_nr is how many there were. */
int orphans_end(const char *run_dir, unsigned int *ret_nr);

int orphans_note(const char *run_dir, pid_t pid);
void orphans_forget(const char *run_dir, pid_t pid);

#endif
