/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/pairs.h"

#include <string.h>

#include "common/util.h"

/* Bytes of the key at text, 0 if there is none. */
static size_t key_length(const char *text)
{
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return n <= PAIRS_KEY_MAX ? n : 0;
}

/* Where the value of this line begins; NULL: it is no such line. */
static const char *value_of(const char *line)
{
	size_t n = key_length(line);

	return n > 0 && line[n] == '=' ? line + n + 1 : NULL;
}

/* What stands for a byte in a value; NULL: itself. */
static const char *escape_of(char byte)
{
	return byte == '\\' ? "\\\\" : byte == '\n' ? "\\n" : NULL;
}

/* Reads a value up to its line feed, into ret unless that is NULL.  Returns its
 * end, or NULL when it has none, or something else behind a backslash. */
static const char *read_value(const char *p, char *ret)
{
	for (; *p && *p != '\n'; p++) {
		char byte = *p;

		if (byte == '\\') {
			byte = *++p == 'n' ? '\n' : *p;
			if (byte != '\n' && byte != '\\')
				return NULL;
		}
		if (ret)
			*ret++ = byte;
	}
	if (ret)
		*ret = '\0';
	return *p ? p : NULL;
}

bool pairs_next(const char **io_text, char *ret_key, char *ret_value)
{
	const char *line = *io_text;
	const char *value = value_of(line);
	const char *end = value ? read_value(value, ret_value) : NULL;
	size_t n;

	if (!end)
		return false;
	if (ret_key) {
		n = key_length(line);
		memcpy(ret_key, line, n);
		ret_key[n] = '\0';
	}
	*io_text = end + 1;
	return true;
}

bool pairs_valid(const char *text)
{
	while (pairs_next(&text, NULL, NULL))
		;
	return *text == '\0';
}

int pairs_get(const char *text, const char *key, char *ret, size_t size)
{
	char name[PAIRS_KEY_MAX + 1];
	const char *line = text;

	while (pairs_next(&text, name, NULL)) {
		cleanup_free char *value = NULL;

		if (strcmp(name, key) != 0) {
			line = text;
			continue;
		}
		value = malloc((size_t)(text - line));
		if (!value)
			return -ENOMEM;
		(void)pairs_next(&line, NULL, value);
		if (strlen(value) >= size)
			return -ENAMETOOLONG;
		memcpy(ret, value, strlen(value) + 1);
		return 0;
	}
	return -ENODATA;
}

int pairs_add(char *text, size_t size, const char *key, const char *value)
{
	size_t used = strlen(text), key_size = key_length(key);
	size_t need = key_size + 2; /* "=" and the line feed */
	char *p = text + used;

	if (key_size == 0 || key[key_size])
		return -EINVAL;
	for (const char *v = value; *v; v++)
		need += escape_of(*v) ? 2 : 1;
	if (need >= size - used)
		return -ENOSPC;
	memcpy(p, key, key_size);
	p += key_size;
	*p++ = '=';
	for (const char *v = value; *v; v++) {
		const char *escape = escape_of(*v);

		*p++ = escape ? escape[0] : *v;
		if (escape)
			*p++ = escape[1];
	}
	*p++ = '\n';
	*p = '\0';
	return 0;
}
