/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * describe.h - a backend's tables as JSON.
 *
 * Runs in a process of its own: loading a module runs its code and that of its
 * libraries, and the broker wants none of it.
 */
#ifndef XENDISK_DESCRIBE_H
#define XENDISK_DESCRIBE_H

/* Writes an object as io.xendisk's type Backend has it, and the flags; or
 * {"error": "why"}.  Returns the exit status. */
int describe(const char *file, int out);

#endif
