/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reopen.h - opens a file that was found by its name before, whatever has that name
 * by now.
 */
#ifndef XENDISK_REOPEN_H
#define XENDISK_REOPEN_H

#include <stddef.h>

/*
 * Opens the file that path_fd (O_PATH, stays the caller's) refers to; any thread.
 * A path_fd that is an -errno is returned.  flags: of open(2); O_CREAT and
 * O_NOFOLLOW mean nothing here.  O_NOATIME is added where it is permitted (to the
 * owner, or with CAP_FOWNER).
 * Returns the descriptor, or -errno; -EISDIR: a folder, without O_DIRECTORY;
 * -ENOTBLK: neither a file nor a block device: opening it could already do harm.
 */
int reopen(int path_fd, int flags);

/* Why it has failed, and what may be done about it. */
void reopen_explain(int err, int flags, char *buf, size_t size);

#endif
