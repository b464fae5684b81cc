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
 * When the table is full the rest goes by grant copy as ever.  Nothing has to make
 * room, since Linux's blkfront takes pages from the front of its pool and puts those
 * that we have mapped back there, the others at the end: what is kept is what is used.
 * GRANT_KEEP_MAX is 2 MiB, sixteen requests of 128 KiB; those for which it is too
 * little are large ones, whose copy calls are shared by many pages.  Xen has a limit to
 * how many mappings a domain may have, and rings need some of them as well.
 *
 * What is not used any more is given back, as xen-blkback does after 60 s, while the
 * lane has nothing else to do.  No request means such a page: it is mapped only while
 * bytes are copied, and that is one call.  The frontend finds it out, or not at all:
 * the page stays granted, and when it is named again it is mapped again.  Every
 * LOOK_NS, if the lane sleeps then, each page becomes older by a look; using it makes
 * it new.  The third look in a row that finds it unused, a minute to a minute and a
 * half after it was used, is its last.  To unmap a page is three system calls, and
 * interrupts all processors that the worker runs on, so it is done by GIVE_BACK pages
 * with a pause after them.
 *
 * Each page is mapped by itself, read and write, at the first request that names it.
 * A reference that cannot be mapped so (it is wrong, read-only, of a part of a page, or
 * Xen has no room) is left to grant copy.  That costs a call for nothing, and a line
 * in libxengnttab's log, so after GRANT_KEEP_FAILURES of them no more is tried, until
 * pages are given back, which makes room: a guest cannot have that too often.
 *
 * Open addressing with linear probing, half full at most.  Behind one that is taken out
 * others are moved up, so that there is no gap between where a reference belongs and
 * where it is.  A guest that finds references which meet in one place makes itself
 * slower: 512 steps.
 */
#include "worker/grant-keep.h"

#include "common/util.h"
#include "worker/grant.h"
#include "worker/sparse.h"

#define SLOTS_LOG2 10u
#define SLOTS	   (1u << SLOTS_LOG2)

#ifdef XENDISK_FAULTS /* a program for tests, which do not wait that long */
#define LOOK_NS (1000000000ull / 2)
#else
#define LOOK_NS (30 * 1000000000ull)
#endif
#define LOOKS	     3 /* of which the last one ends it */
#define GIVE_BACK    32u
#define GIVE_BACK_NS (10 * 1000000ull)
_Static_assert(SLOTS >= 2 * GRANT_KEEP_MAX, "probing ends at an empty slot");

struct grant_keep {
	struct grant *grant;
	unsigned int count;
	unsigned int failures;
	uint64_t look_at; /* when they become older */
	uint64_t give_at; /* some of them are to be given back; UINT64_MAX: none */
	struct slot {
		void *page; /* NULL: an empty slot */
		uint32_t gref;
		uint8_t looks; /* that have found it unused */
	} slots[SLOTS];
};

int grant_keep_new(struct grant_keep **ret, struct grant *grant)
{
	struct grant_keep *keep = sparse_new(sizeof(*keep));

	if (!keep)
		return -ENOMEM;
	keep->grant = grant;
	keep->give_at = UINT64_MAX;
	*ret = keep;
	return 0;
}

void grant_keep_free(struct grant_keep *keep)
{
	if (!keep)
		return;
	for (unsigned int i = 0; i < SLOTS; i++)
		grant_unmap(keep->grant, keep->slots[i].page, 1);
	sparse_free(keep, sizeof(*keep));
}

/* Where it belongs.  Fibonacci hashing: neighbours are far from each other. */
static unsigned int home(uint32_t gref)
{
	return gref * 2654435769u >> (32 - SLOTS_LOG2);
}

/* Where it is, or the empty slot where it would be. */
static unsigned int find(const struct grant_keep *keep, uint32_t gref)
{
	unsigned int i = home(gref);

	while (keep->slots[i].page && keep->slots[i].gref != gref)
		i = (i + 1) % SLOTS;
	return i;
}

void *grant_keep_page(struct grant_keep *keep, uint32_t gref)
{
	unsigned int i = find(keep, gref);

	if (keep->slots[i].page) {
		keep->slots[i].looks = 0;
		return keep->slots[i].page;
	}
	if (keep->count == GRANT_KEEP_MAX ||
	    keep->failures == GRANT_KEEP_FAILURES)
		return NULL;
	if (grant_map(keep->grant, &gref, 1, &keep->slots[i].page) < 0) {
		keep->failures++;
		return NULL;
	}
	keep->slots[i].gref = gref;
	keep->slots[i].looks = 0;
	keep->count++;
	return keep->slots[i].page;
}

/* --- Given back ----------------------------------------------------------- */

static void take_out(struct grant_keep *keep, unsigned int gap)
{
	struct slot *slots = keep->slots;
	unsigned int i = gap;

	grant_unmap(keep->grant, slots[gap].page, 1);
	keep->count--;
	for (;;) {
		i = (i + 1) % SLOTS;
		if (!slots[i].page)
			break;
		/* Not if it belongs behind the gap. */
		if ((i - home(slots[i].gref)) % SLOTS < (i - gap) % SLOTS)
			continue;
		slots[gap] = slots[i];
		gap = i;
	}
	slots[gap].page = NULL;
}

/* True: there may be more. */
static bool give_some(struct grant_keep *keep)
{
	unsigned int given = 0, i = 0;

	while (i < SLOTS && given < GIVE_BACK) {
		if (keep->slots[i].page && keep->slots[i].looks == LOOKS) {
			take_out(keep, i); /* another one may be there now */
			given++;
		} else {
			i++;
		}
	}
	return given > 0;
}

static void look(struct grant_keep *keep)
{
	for (unsigned int i = 0; i < SLOTS; i++)
		if (keep->slots[i].page && keep->slots[i].looks < LOOKS)
			keep->slots[i].looks++;
}

void grant_keep_idle(struct grant_keep *keep, uint64_t now)
{
	if (now >= keep->look_at) {
		look(keep);
		keep->look_at = now + LOOK_NS;
		keep->give_at = 0;
	}
	if (now < keep->give_at)
		return;
	keep->give_at = UINT64_MAX;
	if (give_some(keep)) {
		keep->failures = 0;
		keep->give_at = now + GIVE_BACK_NS;
	}
}

uint64_t grant_keep_next(const struct grant_keep *keep)
{
	return keep->count ? MIN(keep->look_at, keep->give_at) : UINT64_MAX;
}
