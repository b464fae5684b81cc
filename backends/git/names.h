/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * names.h - a name in git, any bytes but NUL and '/', as a name on FAT.
 *
 * A long name is UTF-16.  Bytes that are no UTF-8, and characters that FAT
 * forbids, become U+F000 plus the byte, in the area for private use, as Cygwin
 * and Linux's SMB client have it; the way back is open, since such characters
 * in a name are taken for bytes that are no UTF-8.  Pure; any thread.
 */
#ifndef XENDISK_GIT_NAMES_H
#define XENDISK_GIT_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#define NAME_UNITS_MAX 255 /* UTF-16 units of a long name */
#define SHORT_BYTES    11 /* 8 and 3, without the dot */

/* Returns how many units, or -ENAMETOOLONG. */
int name_units(const char *name, uint16_t ret[NAME_UNITS_MAX]);

#define NAME_BYTES_MAX \
	(3 * NAME_UNITS_MAX + 1) /* of name_bytes(), with a NUL */

/* The way back, ret ending with a NUL.  -EILSEQ: it is no UTF-16, or not a name
 * in git: empty, or with a NUL or '/' in it. */
int name_bytes(const uint16_t *units, int n, char ret[NAME_BYTES_MAX]);

/* One unit without its case, as FAT compares: Latin, Greek and Cyrillic. */
uint16_t name_fold(uint16_t unit);

/*
 * Is it a name of 8 and 3 that needs no long one?  ret_lower gets the flags
 * that say which part is in lower case (0x08: base, 0x10: extension).
 */
bool name_is_short(const char *name, uint8_t ret[SHORT_BYTES],
		   uint8_t *ret_lower);

/* The short name beside a long one: "BASIS~7.EXT"; another for each number from
 * 1 to 999999, and never one that name_is_short() takes. */
void name_short(const char *name, uint32_t number, uint8_t ret[SHORT_BYTES]);

/* Is it spelled like a short name that name_short() makes?  Returns its number,
 * and the name in ret; 0: it is not. */
uint32_t name_made_number(const char *name, uint8_t ret[SHORT_BYTES]);

/* Directory entries of 32 bytes that it takes; or -ENAMETOOLONG. */
int name_slots(const char *name);

#endif
