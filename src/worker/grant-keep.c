/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grant-keep.c - a table from grant references to the pages behind them.
 *
 * Theory of operation
 *
 * A frontend with persistent grants ("feature-persistent" of both sides, blkif.h)
 * uses the same pages for request after request and lets them stay granted, so a
 * page may stay mapped when its request is answered, and the next one that names its
 * reference costs no hypercall.  A reference that is mapped means the same page as
 * long as it is: the frontend cannot take it back before, and a hostile one that
 * rewrites the entry changes which page the others see, not ours.
 *
 * What is in the table stays there until the end; when it is full the rest goes by
 * grant copy as ever.  Nothing has to make room, since Linux's blkfront takes pages
 * from the front of its pool and puts those that we have mapped back there, the others
 * at the end: what is kept is what is used.  GRANT_KEEP_MAX is 2 MiB, sixteen requests
 * of 128 KiB; those for which it is too little are large ones, whose copy calls are
 * shared by many pages.  Xen has a limit to how many mappings a domain may have, and
 * rings need some of them as well.
 *
 * Each page is mapped by itself, read and write, at the first request that names it.
 * A reference that cannot be mapped so (it is wrong, read-only, of a part of a page, or
 * Xen has no room) is left to grant copy.  That costs a call for nothing, and a line
 * in libxengnttab's log, so after GRANT_KEEP_FAILURES of them no more is tried.
 *
 * Open addressing with linear probing, half full at most; nothing is ever taken out.
 * A guest that finds references which meet in one place makes itself slower: 512 steps.
 */
#include "worker/grant-keep.h"

#include "common/util.h"
#include "worker/grant.h"

#define SLOTS_LOG2 10u
#define SLOTS	   (1u << SLOTS_LOG2)
_Static_assert(SLOTS >= 2 * GRANT_KEEP_MAX, "probing ends at an empty slot");

struct grant_keep {
	struct grant *grant;
	unsigned int count;
	unsigned int failures;
	struct {
		void *page; /* NULL: an empty slot */
		uint32_t gref;
	} slots[SLOTS];
};

int grant_keep_new(struct grant_keep **ret, struct grant *grant)
{
	struct grant_keep *keep = calloc(1, sizeof(*keep));

	if (!keep)
		return -ENOMEM;
	keep->grant = grant;
	*ret = keep;
	return 0;
}

void grant_keep_free(struct grant_keep *keep)
{
	if (!keep)
		return;
	for (unsigned int i = 0; i < SLOTS; i++)
		grant_unmap(keep->grant, keep->slots[i].page, 1);
	free(keep);
}

/* Where it is, or the empty slot where it would be. */
static unsigned int find(const struct grant_keep *keep, uint32_t gref)
{
	/* Fibonacci hashing: neighbours are far from each other. */
	unsigned int i = gref * 2654435769u >> (32 - SLOTS_LOG2);

	while (keep->slots[i].page && keep->slots[i].gref != gref)
		i = (i + 1) % SLOTS;
	return i;
}

void *grant_keep_page(struct grant_keep *keep, uint32_t gref)
{
	unsigned int i = find(keep, gref);

	if (keep->slots[i].page)
		return keep->slots[i].page;
	if (keep->count == GRANT_KEEP_MAX ||
	    keep->failures == GRANT_KEEP_FAILURES)
		return NULL;
	if (grant_map(keep->grant, &gref, 1, &keep->slots[i].page) < 0) {
		keep->failures++;
		return NULL;
	}
	keep->slots[i].gref = gref;
	keep->count++;
	return keep->slots[i].page;
}
