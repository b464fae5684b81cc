/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pairs.h - what control() of a backend is asked and answers: text of lines
 * KEY=VALUE, each ended by a line feed.
 *
 * KEY is [a-z0-9-], 1 to PAIRS_KEY_MAX bytes.  VALUE may be any text: in it a
 * backslash stands as "\\" and a line feed as "\n".
 */
#ifndef XENDISK_PAIRS_H
#define XENDISK_PAIRS_H

#include <stdbool.h>
#include <stddef.h>

#define PAIRS_KEY_MAX 31

/* Is it such lines, and nothing else? */
bool pairs_valid(const char *text);

/* The value of the first line with that key.  -ENODATA: there is none;
 * -ENAMETOOLONG: it has no room in size bytes. */
int pairs_get(const char *text, const char *key, char *ret, size_t size);

/* Appends a line to the text in size bytes.  -EINVAL: such a key cannot be;
 * -ENOSPC: no room, and the text is as it was. */
int pairs_add(char *text, size_t size, const char *key, const char *value);

/* The line at *io_text, which moves behind it: false at the end, or where no
 * such line is.  ret_key has room for PAIRS_KEY_MAX + 1 bytes, ret_value for as
 * much as the text. */
bool pairs_next(const char **io_text, char *ret_key, char *ret_value);

#endif
