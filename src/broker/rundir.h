/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rundir.h - the run directory, and that it is ours alone; the folders in it, where
 * processes are noted that may outlive the daemon, and listen.
 *
 * Functions return -errno when they fail; descriptors are the caller's.
 */
#ifndef XENDISK_RUNDIR_H
#define XENDISK_RUNDIR_H

#include <dirent.h>
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

/* A descriptor of DIR/folder. */
int rundir_folder(const char *dir, const char *folder);
/* Makes DIR/folder if it is not there, and opens it for readdir(). */
int rundir_list(const char *dir, const char *folder, DIR **ret);

/* A unix socket of that name in a folder, by its descriptor; type: of socket(2).
 * rundir_listen() puts a new one in the place of what has the name. */
int rundir_listen(int folder_fd, const char *name, int type, int backlog);
int rundir_call(int folder_fd, const char *name, int type);

#endif
