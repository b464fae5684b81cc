/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-key.h - where the overlay of a disk is, and its name.  Pure.
 */
#ifndef XENDISK_GIT_OVERLAY_KEY_H
#define XENDISK_GIT_OVERLAY_KEY_H

#include <stddef.h>
#include <stdint.h>

#define OVERLAY_KEY_MAX 64u /* bytes, with the NUL */

/* The folder below the state directory, "git/NAME-HASH"; repo: its real path. */
void overlay_key(const char *repo, const char *branch,
		 char ret[OVERLAY_KEY_MAX]);

#define UUID_TEXT 37u /* bytes, with the NUL */

/* 8-4-4-4-12 digits, lower case. */
void uuid_print(const uint8_t uuid[16], char ret[UUID_TEXT]);

#endif
