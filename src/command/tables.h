/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tables.h - what the daemon answers, for people: tables and trees (libsmartcols).
 */
#ifndef XENDISK_TABLES_H
#define XENDISK_TABLES_H

#include <jansson.h>

#include "command/verbs.h"

struct column {
	const char *title;
	bool right; /* numbers */
	bool truncate; /* gives way when the terminal is narrow */
	bool wrap; /* goes on in the next line then: there is no more elsewhere */
};

struct table;

/* The columns are to be there as long as the table. */
int table_new(struct table **ret, const struct column *columns,
	      unsigned int count);
/* The texts are copied. */
int table_add(struct table *table, const char *const *cells);
/* Prints and frees. */
enum status table_print(struct table *table);

/* For text that may come from a guest or a repository: what would command the
 * terminal becomes "?". */
void print_clean(FILE *out, const char *text);
/* The same as a line on stdout. */
void print_line(const char *text);

/* A member of an object: "", or 0, where it has none of that name and type. */
const char *member_text(const json_t *object, const char *key);
long long member_number(const json_t *object, const char *key);

/* Prints a JSON value, as --json promises it, and drops the reference. */
enum status print_json(json_t *value);

/* The stack of show and check, as a tree: a line a layer, then its notes. */
enum status print_tree(json_t *layer);

#endif
