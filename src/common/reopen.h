/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reopen.h - what was found by its name is opened, and nothing else that may have
 * the name by now.
 */
#ifndef XENDISK_REOPEN_H
#define XENDISK_REOPEN_H

/*
 * Opens the file that path_fd (O_PATH, stays the caller's) is of; any thread.  A
 * path_fd that is an -errno is returned.  flags: of open(2); O_CREAT and O_NOFOLLOW
 * mean nothing here.  Its time of access is left alone where that may be asked for
 * (O_NOATIME: the owner, CAP_FOWNER).
 * The descriptor; -EISDIR: a folder, without O_DIRECTORY; -ENOTBLK: neither a file
 * nor a block device, of which opening alone may do harm; or -errno.
 */
int reopen(int path_fd, int flags);

#endif
