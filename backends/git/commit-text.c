/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* commit-text.c - the text of our commits, and what a text says.  Pure. */
#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "common/util.h"
#include "refs.h"

const char *const consistency_names[] = {
	[CONSISTENCY_NONE] = "",
	[CONSISTENCY_CRASH] = "crash",
	[CONSISTENCY_FS_FROZEN] = "fs-frozen",
	[CONSISTENCY_CLEAN_DETACH] = "clean-detach",
};

#define TRAILER "Xendisk-"
enum trailer { DOMAIN, CONSISTENCY, DIRTY, LAYER };
static const char *const keys[] = {
	[DOMAIN] = TRAILER "Domain: ",
	[CONSISTENCY] = TRAILER "Consistency: ",
	[DIRTY] = TRAILER "Dirty-Bytes: ",
	[LAYER] = TRAILER "Layer: ",
};

/* --- Writing -------------------------------------------------------------------- */

/* "NAME <EMAIL>", as git's fsck wants it. */
static bool is_author(const char *text)
{
	const char *open = strchr(text, '<');
	size_t n = strlen(text);

	return open && open > text + 1 && open[-1] == ' ' &&
	       is_one_line(text) && text[n - 1] == '>' &&
	       !strchr(open + 1, '<') && strchr(open, '>') == text + n - 1;
}

static void print_id(FILE *out, const char *name, const uint8_t id[OID_BYTES])
{
	char hex[OID_HEX + 1];

	oid_hex(id, hex);
	fprintf(out, "%s %s\n", name, hex);
}

static void print_message(FILE *out, const char *message)
{
	size_t n = strlen(message);

	while (n > 0 && message[n - 1] == '\n')
		n--;
	fprintf(out, "\n%.*s\n", (int)n, message);
}

static void print_trailers(FILE *out, const struct commit_facts *facts)
{
	bool has_consistency = facts->consistency != CONSISTENCY_NONE;

	if (*facts->domain || has_consistency || facts->has_dirty ||
	    *facts->layer)
		fputc('\n', out);
	if (*facts->domain)
		fprintf(out, "%s%s\n", keys[DOMAIN], facts->domain);
	if (has_consistency)
		fprintf(out, "%s%s\n", keys[CONSISTENCY],
			consistency_names[facts->consistency]);
	if (facts->has_dirty)
		fprintf(out, "%s%" PRIu64 "\n", keys[DIRTY], facts->dirty);
	if (*facts->layer)
		fprintf(out, "%s%s\n", keys[LAYER], facts->layer);
}

int commit_text(const struct commit_facts *facts, char **ret, size_t *ret_n,
		char *ret_why)
{
	char *text = NULL;
	size_t n = 0;
	FILE *out;

	if (!is_author(facts->author))
		return why(ret_why, -EINVAL,
			   "an author has to be \"NAME <EMAIL>\"");
	if (!is_one_line(facts->domain) || !is_one_line(facts->layer))
		return why(ret_why, -EINVAL,
			   "domain or layer is not one printable line");
	out = open_memstream(&text, &n);
	if (!out)
		return why(ret_why, -ENOMEM, "a commit: no memory");
	print_id(out, "tree", facts->tree);
	if (facts->has_parent)
		print_id(out, "parent", facts->parent);
	fprintf(out, "author %s %" PRId64 " +0000\n", facts->author,
		facts->time);
	fprintf(out, "committer %s %" PRId64 " +0000\n", facts->author,
		facts->time);
	print_message(out, facts->message);
	print_trailers(out, facts);
	if (fclose(out) != 0) {
		free(text);
		return why(ret_why, -ENOMEM, "a commit: no memory");
	}
	*ret = text;
	*ret_n = n;
	return 0;
}

/* --- Reading --------------------------------------------------------------------- */

/* Whoever wrote it may have put anything there; control characters become "?". */
static void take_text(char *ret, size_t size, const char *text, size_t n)
{
	n = MIN(n, size - 1);
	for (size_t i = 0; i < n; i++)
		ret[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ?
				 '?' :
				 text[i];
	ret[n] = '\0';
}

static void take_consistency(struct commit_facts *ret, const char *value)
{
	for (unsigned int i = CONSISTENCY_CRASH; i <= CONSISTENCY_CLEAN_DETACH;
	     i++)
		if (strcmp(value, consistency_names[i]) == 0)
			ret->consistency = i;
}

/* Is that line one of ours? */
static bool take_trailer(struct commit_facts *ret, const char *line, size_t n)
{
	char value[COMMIT_LINE_MAX];

	for (unsigned int i = 0; i < ARRAY_SIZE(keys); i++) {
		size_t length = strlen(keys[i]);

		if (n < length || memcmp(line, keys[i], length) != 0)
			continue;
		take_text(value, sizeof(value), line + length, n - length);
		if (i == DOMAIN)
			memcpy(ret->domain, value, sizeof(value));
		else if (i == CONSISTENCY)
			take_consistency(ret, value);
		else if (i == LAYER)
			memcpy(ret->layer, value, sizeof(value));
		else
			ret->has_dirty =
				parse_u64(value, UINT64_MAX, &ret->dirty) == 0;
		return true;
	}
	return false;
}

void commit_read_message(struct commit_facts *ret, const char *message)
{
	const char *last = NULL;
	size_t n = strlen(message);
	bool all = true;

	while (n > 0 && message[n - 1] == '\n')
		n--;
	for (size_t i = 0; i + 2 < n; i++)
		if (message[i] == '\n' && message[i + 1] == '\n')
			last = message + i + 2;
	if (last && strncmp(last, TRAILER, strlen(TRAILER)) == 0) {
		const char *line = last;
		const char *end = message + n;

		while (line < end) {
			const char *stop =
				memchr(line, '\n', (size_t)(end - line));

			stop = stop ? stop : end;
			all &= take_trailer(ret, line, (size_t)(stop - line));
			line = stop + 1;
		}
		if (all)
			n = (size_t)(last - message) - 2;
	}
	n = MIN(n, sizeof(ret->message) - 1);
	memcpy(ret->message, message, n);
	ret->message[n] = '\0';
}
