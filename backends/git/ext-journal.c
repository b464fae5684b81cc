/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The log goes from block s_start on, and around.  A transaction is descriptors, each
 * followed by the blocks that it names, and blocks that revoke older versions; it
 * counts when its commit block is there, with the number that is next.  The first
 * block that is something else is the end.  Checksums are not looked at: the disk is
 * what it was at one moment, and what is behind a commit block was written after all
 * that it commits; a journal that commits without waiting is refused.
 *
 * All versions are listed, then sorted, and the last one of each block stays.
 */
#include "config.h"

#include "ext-journal.h"

#include <inttypes.h>
#include <string.h>

#include "common/util.h"

#define MAGIC 0xc03b3998u
enum { DESCRIPTOR = 1, COMMIT = 2, SUPER_1 = 3, SUPER_2 = 4, REVOKE = 5 };
enum { TAG_ESCAPE = 1, TAG_SAME_UUID = 2, TAG_LAST = 8 };
enum {
	HAS_REVOKE = 0x01,
	HAS_64BIT = 0x02,
	HAS_CSUM_2 = 0x08,
	HAS_CSUM_3 = 0x10,
	HAS_FAST = 0x20,
};
#define KNOWN (HAS_REVOKE | HAS_64BIT | HAS_CSUM_2 | HAS_CSUM_3 | HAS_FAST)

#define HEADER	    12u
#define FAST_BLOCKS 256u /* when it does not say */

struct scan {
	const struct fs_volume *volume;
	const struct fs_runs *runs;
	struct ext_journal *journal;
	uint32_t block; /* bytes */
	uint32_t features;
	uint32_t first, end; /* blocks: the log goes around between them */
	uint32_t at; /* the next one */
	uint32_t left; /* blocks until it has been around */
	uint32_t order; /* of the transaction */
	uint8_t *head, *buf; /* a block each */
	char *why;
};

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 |
	       (uint32_t)p[2] << 8 | p[3];
}

/* Where a block of the journal is in the volume. */
static int locate(const struct scan *s, uint32_t number, uint64_t *ret)
{
	uint64_t at = (uint64_t)number * s->block;
	uint32_t low = 0, high = s->runs->nr;
	const struct fs_run *run;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		run = &s->runs->runs[middle];
		if (run->at + run->length <= at)
			low = middle + 1;
		else
			high = middle;
	}
	run = low < s->runs->nr ? &s->runs->runs[low] : NULL;
	if (!run || run->at > at)
		return why(s->why, -EBADMSG,
			   "block %u of the journal is nowhere", number);
	*ret = run->where + (at - run->at);
	return 0;
}

static int add(struct scan *s, const struct ext_journal_block *block)
{
	struct ext_journal *j = s->journal;

	if (j->nr == EXT_JOURNAL_MAX)
		return why(s->why, -E2BIG,
			   "the journal has more than %u blocks",
			   EXT_JOURNAL_MAX);
	if (j->nr == j->room) {
		uint32_t room = MAX(1024u, 2 * j->room);
		void *p = realloc(j->blocks, room * sizeof(*j->blocks));

		if (!p)
			return why(s->why, -ENOMEM, "no memory");
		j->blocks = p;
		j->room = room;
	}
	j->blocks[j->nr++] = *block;
	return 0;
}

/* The next block of the log.  1; 0: it has been around. */
static int step(struct scan *s, uint64_t *ret_where)
{
	int r;

	if (s->left == 0)
		return 0;
	s->left--;
	r = locate(s, s->at, ret_where);
	s->at = s->at + 1 == s->end ? s->first : s->at + 1;
	return r < 0 ? r : 1;
}

/* --- Blocks of the log ---------------------------------------------------------- */

static uint32_t tag_bytes(uint32_t features)
{
	uint32_t bytes = features & HAS_64BIT ? 12 : 8;

	if (features & HAS_CSUM_3)
		return 16;
	return features & HAS_CSUM_2 ? bytes + 2 : bytes;
}

/* The blocks that a descriptor names come right behind it. */
static int take_descriptor(struct scan *s)
{
	uint32_t bytes = tag_bytes(s->features), flags = 0;
	uint32_t end =
		s->block - (s->features & (HAS_CSUM_2 | HAS_CSUM_3) ? 4 : 0);
	int r = 0;

	for (uint32_t at = HEADER;
	     r == 0 && at + bytes <= end && !(flags & TAG_LAST); at += bytes) {
		const uint8_t *tag = s->head + at;
		struct ext_journal_block block = { .block = be32(tag),
						   .order = s->order };

		flags = s->features & HAS_CSUM_3 ? be32(tag + 4) :
						   be32(tag + 4) & 0xffff;
		if (s->features & HAS_64BIT)
			block.block |= (uint64_t)be32(tag + 8) << 32;
		block.escaped = flags & TAG_ESCAPE;
		if (!(flags & TAG_SAME_UUID))
			at += 16;
		r = step(s, &block.where);
		if (r > 0)
			r = add(s, &block);
		else if (r == 0)
			return 0;
	}
	return r < 0 ? r : 1;
}

static int take_revoked(struct scan *s)
{
	uint32_t bytes = s->features & HAS_64BIT ? 8 : 4;
	uint32_t end = MIN(be32(s->head + HEADER), s->block);
	int r = 0;

	for (uint32_t at = HEADER + 4; r == 0 && at + bytes <= end;
	     at += bytes) {
		const uint8_t *p = s->head + at;
		struct ext_journal_block block = { .block = be32(p),
						   .order = s->order,
						   .revoked = true };

		if (bytes == 8)
			block.block = block.block << 32 | be32(p + 4);
		r = add(s, &block);
	}
	return r < 0 ? r : 1;
}

/* All transactions from the next block on, the first of which has that number. */
static int scan_log(struct scan *s, uint32_t number)
{
	uint32_t committed = 0; /* of those in the list */
	uint64_t where;
	int r;

	while ((r = step(s, &where)) > 0) {
		r = fs_read(s->volume, where, s->head, s->block, s->why);
		if (r < 0)
			return r;
		if (be32(s->head) != MAGIC || be32(s->head + 8) != number)
			break;
		switch (be32(s->head + 4)) {
		case DESCRIPTOR:
			r = take_descriptor(s);
			break;
		case REVOKE:
			r = take_revoked(s);
			break;
		case COMMIT:
			committed = s->journal->nr;
			s->order++;
			number++;
			r = 1;
			break;
		default:
			r = 0;
		}
		if (r <= 0)
			break;
	}
	s->journal->nr = committed;
	return r < 0 ? r : 0;
}

/* --- The superblock -------------------------------------------------------------- */

static int check_super(struct scan *s, uint64_t size, uint32_t *ret_start,
		       uint32_t *ret_number)
{
	const uint8_t *p = s->buf;
	uint32_t kind = be32(p + 4), length = be32(p + 16), fast = 0;

	if (be32(p) != MAGIC || (kind != SUPER_1 && kind != SUPER_2) ||
	    be32(p + 12) != s->block)
		return why(s->why, -EBADMSG,
			   "the journal does not begin "
			   "as one does");
	s->features = kind == SUPER_2 ? be32(p + 40) : 0;
	if (s->features & ~(uint32_t)KNOWN)
		return why(s->why, -EOPNOTSUPP,
			   "a journal with features that are not known here "
			   "(0x%x)",
			   s->features & ~(uint32_t)KNOWN);
	s->first = be32(p + 20);
	*ret_number = be32(p + 24);
	*ret_start = be32(p + 28);
	if (s->features & HAS_FAST) {
		fast = be32(p + 84) ? be32(p + 84) : FAST_BLOCKS;
		s->journal->has_fast = true;
	}
	s->end = length - fast;
	s->left = s->end - s->first;
	if ((uint64_t)length * s->block > size || fast >= length ||
	    s->first == 0 || s->first >= s->end ||
	    (*ret_start != 0 &&
	     (*ret_start < s->first || *ret_start >= s->end)))
		return why(s->why, -EBADMSG, "the journal's length cannot be");
	return 0;
}

static int by_block(const void *a, const void *b)
{
	const struct ext_journal_block *x = a, *y = b;

	if (x->block != y->block)
		return x->block < y->block ? -1 : 1;
	if (x->order != y->order)
		return x->order < y->order ? -1 : 1;
	return (int)x->revoked - (int)y->revoked;
}

/* The last version of each. */
static void keep_newest(struct ext_journal *j)
{
	uint32_t nr = 0;

	if (j->nr > 1)
		qsort(j->blocks, j->nr, sizeof(*j->blocks), by_block);
	for (uint32_t i = 0; i < j->nr; i++)
		if ((i + 1 == j->nr ||
		     j->blocks[i + 1].block != j->blocks[i].block) &&
		    !j->blocks[i].revoked)
			j->blocks[nr++] = j->blocks[i];
	j->nr = nr;
}

static int scan(struct scan *s, uint64_t size)
{
	uint32_t start = 0, number = 0;
	uint64_t where;
	int r;

	if (!s->head || !s->buf)
		return why(s->why, -ENOMEM, "no memory");
	r = locate(s, 0, &where);
	if (r == 0)
		r = fs_read(s->volume, where, s->buf, s->block, s->why);
	if (r == 0)
		r = check_super(s, size, &start, &number);
	if (r < 0 || start == 0)
		return r;
	s->at = start;
	r = scan_log(s, number);
	keep_newest(s->journal);
	return r;
}

int ext_journal_read(struct ext_journal *ret, const struct fs_volume *volume,
		     const struct fs_runs *runs, uint64_t size, uint32_t block,
		     char *ret_why)
{
	struct scan s = { .volume = volume,
			  .runs = runs,
			  .journal = ret,
			  .block = block,
			  .head = malloc(block),
			  .buf = malloc(block),
			  .why = ret_why };
	int r = scan(&s, size);

	free(s.head);
	free(s.buf);
	return r;
}

void ext_journal_free(struct ext_journal *journal)
{
	free(TAKE_PTR(journal->blocks));
	journal->nr = 0;
	journal->room = 0;
}

const struct ext_journal_block *
ext_journal_find(const struct ext_journal *journal, uint64_t block)
{
	uint32_t low = 0, high = journal->nr;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (journal->blocks[middle].block < block)
			low = middle + 1;
		else
			high = middle;
	}
	return low < journal->nr ? &journal->blocks[low] : NULL;
}
