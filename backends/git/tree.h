/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree.h - a tree object, entry by entry.  Pure.
 *
 * Each entry is "MODE NAME", a NUL and 20 bytes of id; they are sorted by name,
 * folders as if their names ended with '/' (git's gitformat, base_name_compare).
 * What git's own fsck calls an error is one here.
 */
#ifndef XENDISK_GIT_TREE_H
#define XENDISK_GIT_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tree_kind { TREE_FILE, TREE_LINK, TREE_FOLDER, TREE_MODULE };

struct tree_entry {
	enum tree_kind kind;
	uint32_t mode; /* as it is there: 0100644, ... */
	const char *name; /* in the object; ends with a NUL */
	const uint8_t *oid;
};

struct tree_cursor {
	const uint8_t *at;
	const uint8_t *end;
	struct tree_entry before; /* name NULL: there was none */
};

static inline struct tree_cursor tree_begin(const uint8_t *data, size_t n)
{
	return (struct tree_cursor){ .at = data, .end = n ? data + n : data };
}

/* 1: there is one; 0: the end; -EBADMSG, and what is wrong. */
int tree_next(struct tree_cursor *cursor, struct tree_entry *ret,
	      const char **ret_fault);

/* Why git would not have a new entry of this name, or NULL: fsck.c, with what it
 * says of names that are ".git" on HFS+ and NTFS. */
const char *tree_name_fault(const char *name);

/* As git sorts. */
int tree_compare(const char *a, bool a_folder, const char *b, bool b_folder);

#endif
