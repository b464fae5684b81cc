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
static int get_kind(struct tree_cursor *c, struct tree_entry *ret)
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
	ret->mode = mode;
	switch (mode & 0170000) {
	case 0100000:
		ret->kind = TREE_FILE;
		return 0;
	case 0120000:
		ret->kind = TREE_LINK;
		return 0;
	case 0040000:
		ret->kind = TREE_FOLDER;
		return 0;
	case 0160000:
		ret->kind = TREE_MODULE;
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

/* NTFS drops dots and blanks at the end, takes what is behind ':' for a stream and
 * '\\' for '/', and may call it GIT~1. */
static bool is_git_on_ntfs(const char *name)
{
	const char *rest = strncasecmp(name, ".git", 4) == 0  ? name + 4 :
			   strncasecmp(name, "git~1", 5) == 0 ? name + 5 :
								NULL;

	if (rest) {
		rest += strspn(rest, ". ");
		if (*rest == '\0' || *rest == ':' || *rest == '\\')
			return true;
	}
	name = strchr(name, '\\');
	return name && is_git_on_ntfs(name + 1);
}

/* Bytes of a character that HFS+ does not see: U+200C to U+200F, U+202A to U+202E,
 * U+206A to U+206F, U+FEFF. */
static unsigned int unseen(const char *p)
{
	const unsigned char *u = (const unsigned char *)p;

	if (u[0] == 0xef)
		return u[1] == 0xbb && u[2] == 0xbf ? 3 : 0;
	if (u[0] != 0xe2 || (u[1] != 0x80 && u[1] != 0x81))
		return 0;
	if (u[1] == 0x81)
		return u[2] >= 0xaa && u[2] <= 0xaf ? 3 : 0;
	return (u[2] >= 0x8c && u[2] <= 0x8f) ||
			       (u[2] >= 0xaa && u[2] <= 0xae) ?
		       3 :
		       0;
}

static bool is_git_on_hfs(const char *name)
{
	const char *git = ".git";

	while (*name) {
		unsigned int n = unseen(name);

		if (n == 0) {
			if (strncasecmp(name, git, 1) != 0 || *git == '\0')
				return false;
			git++;
		}
		name += MAX(n, 1u);
	}
	return *git == '\0';
}

const char *tree_name_fault(const char *name)
{
	const char *what = find_fault(name);

	if (!what && is_git_on_ntfs(name))
		what = "a name that is \".git\" on NTFS";
	if (!what && is_git_on_hfs(name))
		what = "a name that is \".git\" on HFS+";
	return what;
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
	if (get_kind(cursor, ret) < 0)
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
