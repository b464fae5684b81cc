/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ext-journal.h - what the journal of an ext4 has and its blocks have not yet.
 *
 * A disk that a guest has mounted is not what the guest sees: the newest version of
 * a block is in the journal.  Nothing is written; who reads a block is told where its
 * newest version is.  The format is that of Linux (include/linux/jbd2.h).
 */
#ifndef XENDISK_GIT_EXT_JOURNAL_H
#define XENDISK_GIT_EXT_JOURNAL_H

#include "fs-tree.h"

#define EXT_JOURNAL_MAX (1u << 24) /* blocks, and those that are revoked */

struct ext_journal_block {
	uint64_t block; /* of the file system */
	uint64_t where; /* in the volume, bytes */
	uint32_t order; /* of its transaction */
	bool revoked; /* no older version counts */
	bool escaped; /* as in struct fs_run */
};

struct ext_journal {
	struct ext_journal_block *blocks; /* by block, one for each */
	uint32_t nr, room;
	bool has_fast; /* a part of it is not understood */
};

/*
 * The journal is a file of `size` bytes with these runs, whose `where` is in the
 * volume; block: bytes of one.  Only transactions that were finished count.
 * -EBADMSG, -E2BIG, -EOPNOTSUPP, -ENOMEM or what reading says, and why.
 */
int ext_journal_read(struct ext_journal *ret, const struct fs_volume *volume,
		     const struct fs_runs *runs, uint64_t size, uint32_t block,
		     char *ret_why);
void ext_journal_free(struct ext_journal *journal);
/* The first one at this block or behind it; NULL. */
const struct ext_journal_block *
ext_journal_find(const struct ext_journal *journal, uint64_t block);

#endif
