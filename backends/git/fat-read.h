/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fat-read.h - the files and folders on a FAT12, FAT16 or FAT32 that a guest has
 * written, if it is sound.
 *
 * Nothing on it is believed.  Who reads it gets the whole tree or a sentence
 * that says what is wrong, and where.  Memory: a bit for each cluster, a node for
 * each file.  Work: each cluster is looked at once.  One thread.
 */
#ifndef XENDISK_GIT_FAT_READ_H
#define XENDISK_GIT_FAT_READ_H

#include "fat-entry.h"
#include "fat-table.h"
#include "vtree.h"

/* Bytes of a file that lie side by side. */
struct fat_run {
	uint64_t offset; /* on the disk, bytes */
	uint64_t length; /* bytes, none of them beyond the end of the file */
};

struct fat_volume;

/*
 * The file system that begins at `start` of a disk of `size` bytes; source is
 * asked later, too.
 *
 *   -EBADMSG  it is damaged, or no FAT with sectors of 512 bytes
 *   -EBUSY    a guest has it mounted, or did not unmount it
 *   -E2BIG	   more files than VTREE_MAX_NODES, or folders too deep
 *   other	   reading failed, or no memory
 */
int fat_volume_read(struct fat_volume **ret, const struct fat_source *source,
		    uint64_t start, uint64_t size, char *ret_why);
void fat_volume_free(struct fat_volume *volume);

/*
 * What is on it, folders before what is in them, in the order in which a guest
 * lists them; names as in git.  Files are VNODE_BLOB with their size; all else is
 * the reader's.
 */
const struct vtree *fat_volume_tree(const struct fat_volume *volume);
/* "" if there is none; blanks at the end are not part of it. */
const char *fat_volume_label(const struct fat_volume *volume);

/* Where a file begins, and how far it goes on from there without a gap.  False:
 * it is empty. */
bool fat_volume_first_run(const struct fat_volume *volume, uint32_t node,
			  struct fat_run *ret);
/* Calls fn for each such piece, in order, `at` bytes from the file's beginning, until
 * it returns something else than 0, which is passed on with the sentence that fn has
 * left in ret_why. */
int fat_volume_runs(struct fat_volume *volume, uint32_t node,
		    int (*fn)(void *ctx, uint64_t at,
			      const struct fat_run *run),
		    void *ctx, char *ret_why);
/* All of a file, whose size is that of the buffer. */
int fat_volume_file(struct fat_volume *volume, uint32_t node, void *buf,
		    char *ret_why);

#endif
