/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-fixture.h - an overlay in a folder of its own, and what a disk of
 * commits below it would say.
 *
 * Of the disk only some sectors are looked at, on both sides of the borders of map
 * pages.  What a sector holds is a number, its stamp, all over; 0: zeroes.  What a
 * commit holds is made up when it is made, from what is read.
 */
#ifndef OVERLAY_FIXTURE_H
#define OVERLAY_FIXTURE_H

#include "../../backends/git/overlay-layer.h"
#include "../../backends/git/overlay.h"

#define OFIX_SECTORS 48u /* that are looked at */
#define OFIX_COMMITS 64u
#define OFIX_CHUNK   65536u
#define OFIX_SIZE    (3 * MAP_PAGE_SECTORS * LAYER_SECTOR - 4096 * 7)

struct ofix {
	char path[64];
	int dir;
	struct overlay *overlay;
	struct overlay_facts facts;
	/* By the number in the first byte of a commit's id. */
	uint64_t commit[OFIX_COMMITS][OFIX_SECTORS];
	unsigned int nr_commits;
	char why[WHY_MAX];
};

extern const struct overlay_of ofix_of;

/* A folder, and a first commit, in which each sector has a stamp. */
void ofix_new(struct ofix *f);
void ofix_free(struct ofix *f); /* closes it, removes the folder */
/* As a worker does it: opens, prepares for what it finds, locks. */
int ofix_start(struct ofix *f, bool recover);
int ofix_open(struct ofix *f);
/* Without a word: as if killed. */
void ofix_kill(struct ofix *f);
int ofix_end(struct ofix *f); /* unlocks and closes */

/* The number of a sector that is looked at. */
uint64_t ofix_sector(unsigned int index);
void ofix_write(struct ofix *f, unsigned int index, uint64_t stamp);
/* Reads through layers and commit. */
uint64_t ofix_read(const struct ofix *f, unsigned int index);
/* A commit of what is read from that layer down; its id is in ret. */
void ofix_commit(struct ofix *f, uint64_t gen, uint8_t ret[OID_BYTES]);

/* Killed, and started as the next one is. */
void ofix_again(struct ofix *f);
int ofix_flush(struct ofix *f);
/* A snapshot with something in each of its facts. */
uint64_t ofix_freeze(struct ofix *f);
/* That layer is in a commit. */
void ofix_committed(struct ofix *f, uint64_t gen);
void ofix_drop(struct ofix *f);

#endif
