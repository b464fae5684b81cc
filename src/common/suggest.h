/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * suggest.h - somebody has typed a word that is none: which may have been meant?
 *
 *	struct suggest s = { .typed = "cash" };
 *
 *	suggest_add(&s, "cache");
 *	suggest_add(&s, "lock");
 *	suggest_text(&s, "; it has ") says: ; did you mean "cache"?
 *
 * Where none is near, all are listed: ; it has cache, lock.  Nothing is allocated, and
 * of a word its first SUGGEST_WORD_MAX bytes are looked at.
 */
#ifndef XENDISK_SUGGEST_H
#define XENDISK_SUGGEST_H

#include <stdbool.h>
#include <stddef.h>

#define SUGGEST_WORD_MAX 64
#define SUGGEST_LIST_MAX 144

struct suggest {
	const char *typed; /* the caller's; all else begins as zeroes */
	char best[SUGGEST_WORD_MAX + 1]; /* "": none is near */
	unsigned int distance;
	char list[SUGGEST_LIST_MAX]; /* of all, in their order */
	bool cut; /* there were more than it has room for */
	char text[SUGGEST_LIST_MAX + SUGGEST_WORD_MAX];
};

void suggest_add(struct suggest *s, const char *candidate);

/* What to put behind a message; valid as long as *s is.  before: how a list begins,
 * NULL when there must be none.  "": there is nothing to be said. */
const char *suggest_text(struct suggest *s, const char *before);

/* How many letters have been left out, put in, replaced, or swapped with the next one.
 * Capitals count as small letters. */
unsigned int suggest_distance(const char *a, const char *b);

#endif
