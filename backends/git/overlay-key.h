/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-key.h - where the overlay of a disk is.  Pure.
 */
#ifndef XENDISK_GIT_OVERLAY_KEY_H
#define XENDISK_GIT_OVERLAY_KEY_H

#include <stddef.h>

#define OVERLAY_KEY_MAX 64u /* bytes, with the NUL */

/* The folder below the state directory, "git/NAME-HASH"; repo: its real path. */
void overlay_key(const char *repo, const char *branch,
		 char ret[OVERLAY_KEY_MAX]);

#endif
