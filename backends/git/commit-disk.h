/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * commit-disk.h - the bytes of a disk at one commit, for those who read here and
 * there.  One thread.
 */
#ifndef XENDISK_GIT_COMMIT_DISK_H
#define XENDISK_GIT_COMMIT_DISK_H

#include "chunk-map.h"

struct commit_disk;

/* map and source stay the caller's, and have to stay. */
int commit_disk_new(struct commit_disk **ret, struct chunk_map *map,
		    const struct object_source *source);
void commit_disk_free(struct commit_disk *disk);

const struct git_disk *commit_disk_facts(const struct commit_disk *disk);

/* All n bytes at an offset.  -EBADMSG: the repository is damaged; -ENXIO: that is
 * beyond the end; or -errno, always with a sentence. */
int commit_disk_read(struct commit_disk *disk, uint64_t offset, void *buf,
		     size_t n, char *ret_why);

/*
 * Are the bytes from an offset on, of which there is at least one, the same in both
 * because they are the same object?  Returns how many bytes that is known of, up to
 * the end of their chunk; 0: it is not known.  Both have chunks of the same size.
 */
int commit_disk_same(struct commit_disk *a, struct commit_disk *b,
		     uint64_t offset, uint64_t *ret, char *ret_why);

#endif
