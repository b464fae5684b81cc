/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * state-dir.h - folders of backends in the state directory.
 *
 * Main thread, before the process is isolated.  Nobody but us can have put
 * anything into them: each is ours, of mode 0700, and no symbolic link.
 */
#ifndef XENDISK_STATE_DIR_H
#define XENDISK_STATE_DIR_H

/* Opens DIR/folder, making what is not there.  folder: names of [A-Za-z0-9._-]
 * that do not begin with a dot, with slashes between.  A descriptor, or -errno
 * and why in ret_why, a sentence of at most MSG_TEXT_MAX bytes. */
int state_dir_open(const char *dir, const char *folder, char *ret_why);

#endif
