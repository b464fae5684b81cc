/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/suggest.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/util.h"

/* A part of a word is one that is meant from here on. */
#define PREFIX_MIN 3

static bool same(char a, char b)
{
	return strncasecmp(&a, &b, 1) == 0;
}

unsigned int suggest_distance(const char *a, const char *b)
{
	/* Row i has the distances of a's first i letters to b's first j. */
	unsigned int rows[3][SUGGEST_WORD_MAX + 1];
	unsigned int *before = rows[0], *above = rows[1], *row = rows[2];
	size_t n = strnlen(a, SUGGEST_WORD_MAX);
	size_t m = strnlen(b, SUGGEST_WORD_MAX);

	for (size_t j = 0; j <= m; j++)
		before[j] = above[j] = (unsigned int)j;
	for (size_t i = 1; i <= n; i++) {
		unsigned int *oldest = before;

		row[0] = (unsigned int)i;
		for (size_t j = 1; j <= m; j++) {
			unsigned int cost = !same(a[i - 1], b[j - 1]);

			row[j] = MIN(above[j - 1] + cost,
				     MIN(above[j], row[j - 1]) + 1);
			if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) &&
			    same(a[i - 2], b[j - 1]))
				row[j] = MIN(row[j], before[j - 2] + 1);
		}
		before = above;
		above = row;
		row = oldest;
	}
	return above[m];
}

/* One letter in three may be wrong, or the end is missing. */
static bool is_near(const char *typed, const char *candidate,
		    unsigned int *ret_distance)
{
	size_t n = strnlen(typed, SUGGEST_WORD_MAX);
	size_t longer = MAX(n, strnlen(candidate, SUGGEST_WORD_MAX));

	if (n >= PREFIX_MIN && strncasecmp(typed, candidate, n) == 0) {
		*ret_distance = 0;
		return true;
	}
	*ret_distance = suggest_distance(typed, candidate);
	return *ret_distance <= (longer + 1) / 3;
}

static void add_to_list(struct suggest *s, const char *candidate)
{
	size_t used = strlen(s->list);
	int n = snprintf(s->list + used, sizeof(s->list) - used, "%s%s",
			 used ? ", " : "", candidate);

	if (n < 0 || (size_t)n >= sizeof(s->list) - used) {
		s->list[used] = '\0';
		s->cut = true;
	}
}

void suggest_add(struct suggest *s, const char *candidate)
{
	unsigned int distance;

	/* That is what was typed; what is wrong with it is something else. */
	if (strcmp(s->typed, candidate) == 0)
		return;
	if (!s->cut)
		add_to_list(s, candidate);
	if (!is_near(s->typed, candidate, &distance))
		return;
	if (s->best[0] && distance >= s->distance)
		return;
	(void)snprintf(s->best, sizeof(s->best), "%s", candidate);
	s->distance = distance;
}

const char *suggest_text(struct suggest *s, const char *before)
{
	s->text[0] = '\0';
	if (s->best[0])
		(void)snprintf(s->text, sizeof(s->text),
			       "; did you mean \"%s\"?", s->best);
	else if (before && s->list[0])
		(void)snprintf(s->text, sizeof(s->text), "%s%s%s", before,
			       s->list, s->cut ? ", ..." : "");
	return s->text;
}
