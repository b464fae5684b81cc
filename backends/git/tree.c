/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "tree.h"

#include <string.h>
#include <strings.h>

#include "common/util.h"
#include "odb.h"

int tree_compare(const char *a, bool a_folder, const char *b, bool b_folder)
{
	size_t n = MIN(strlen(a), strlen(b));
	int order = memcmp(a, b, n);
	unsigned char x = (unsigned char)a[n], y = (unsigned char)b[n];

	if (order)
		return order;
	if (x == 0 && a_folder)
		x = '/';
	if (y == 0 && b_folder)
		y = '/';
	return x < y ? -1 : x > y;
}

static int fault(const char **ret_fault, const char *what)
{
	*ret_fault = what;
	return -EBADMSG;
}

/* Octal, up to a blank. */
static int get_kind(struct tree_cursor *c, enum tree_kind *ret)
{
	uint32_t mode = 0;
	int digits = 0;

	for (; c->at < c->end && *c->at != ' '; c->at++) {
		if (*c->at < '0' || *c->at > '7' || ++digits > 7)
			return -EBADMSG;
		mode = mode << 3 | (uint32_t)(*c->at - '0');
	}
	if (c->at == c->end || digits == 0)
		return -EBADMSG;
	c->at++;
	switch (mode & 0170000) {
	case 0100000:
		*ret = TREE_FILE;
		return 0;
	case 0120000:
		*ret = TREE_LINK;
		return 0;
	case 0040000:
		*ret = TREE_FOLDER;
		return 0;
	case 0160000:
		*ret = TREE_MODULE;
		return 0;
	default:
		return -EBADMSG;
	}
}

/* What is wrong with it, or NULL. */
static const char *find_fault(const char *name)
{
	if (*name == '\0')
		return "an empty name";
	if (strchr(name, '/'))
		return "a name with \"/\" in it";
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return "the name \".\" or \"..\"";
	if (strcasecmp(name, ".git") == 0)
		return "the name \".git\"";
	return NULL;
}

static bool is_sorted(const struct tree_entry *before,
		      const struct tree_entry *entry)
{
	return !before->name ||
	       (tree_compare(before->name, before->kind == TREE_FOLDER,
			     entry->name, entry->kind == TREE_FOLDER) < 0 &&
		strcmp(before->name, entry->name) != 0);
}

int tree_next(struct tree_cursor *cursor, struct tree_entry *ret,
	      const char **ret_fault)
{
	const uint8_t *end;
	const char *what;

	if (cursor->at == cursor->end)
		return 0;
	if (get_kind(cursor, &ret->kind) < 0)
		return fault(ret_fault, "a mode that is none");
	end = memchr(cursor->at, '\0', (size_t)(cursor->end - cursor->at));
	if (!end || cursor->end - end <= OID_BYTES)
		return fault(ret_fault, "it ends within an entry");
	ret->name = (const char *)cursor->at;
	ret->oid = end + 1;
	cursor->at = end + 1 + OID_BYTES;
	what = find_fault(ret->name);
	if (what)
		return fault(ret_fault, what);
	if (!is_sorted(&cursor->before, ret))
		return fault(ret_fault, "names that are not sorted, or twice");
	cursor->before = *ret;
	return 1;
}
