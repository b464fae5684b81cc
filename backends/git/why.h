/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * why.h - how the files of this folder say what is wrong.
 */
#ifndef XENDISK_GIT_WHY_H
#define XENDISK_GIT_WHY_H

#define WHY_MAX 512 /* of a sentence */

/* Writes a sentence into ret_why, which has WHY_MAX bytes, and passes err on. */
int why(char *ret_why, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
