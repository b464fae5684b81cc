/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk-format.h - a disk as a tree of git objects.  Pure.
 *
 * The tree of each commit of a disk has
 *
 *     disk             what the disk is, as text
 *     data/00/1a/f3    the bytes of chunk 0x001af3; no entry: all zero
 *
 * A chunk's number in hexadecimal, two lower-case digits a level, is its path,
 * which stays the same when the disk grows.  All chunks have as many bytes, but
 * for the last one, which ends where the disk ends.  No folder is empty.
 *
 *     xendisk-git 1
 *     size 1073741824
 *     sector 512
 *     chunk 65536
 *     levels 3
 *     features -
 */
#ifndef XENDISK_GIT_DISK_FORMAT_H
#define XENDISK_GIT_DISK_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "why.h"

#define GIT_DISK_FILE  "disk"
#define GIT_DISK_DATA  "data"
#define GIT_DISK_TEXT  256 /* bytes of the text, with a NUL; more are refused */
#define GIT_CHUNK_MIN  (16u << 10)
#define GIT_CHUNK_MAX  (1u << 20)
#define GIT_LEVELS_MIN 3u
#define GIT_LEVELS_MAX 4u
#define GIT_FAN_OUT    256u
#define GIT_CHUNK_PATH (sizeof("data/00/11/22/33")) /* the longest, with NUL */

struct git_disk {
	uint64_t size; /* bytes; a multiple of the sector, not 0 */
	uint32_t sector; /* bytes: 512 or 4096 */
	uint32_t chunk; /* bytes: a power of two */
	unsigned int levels; /* below data/: GIT_LEVELS_MIN to _MAX */
};

/* A new disk; chunk 0: the default for that size.  -EINVAL and why. */
int git_disk_new(struct git_disk *ret, uint64_t size, uint32_t chunk,
		 char *ret_why);
/* -EBADMSG: it is none; -ENOTSUP: it has features that are not known here. */
int git_disk_parse(const void *text, size_t n, struct git_disk *ret,
		   char *ret_why);
/* Returns the bytes, without the NUL. */
size_t git_disk_print(const struct git_disk *disk, char ret[GIT_DISK_TEXT]);

static inline uint64_t git_disk_chunks(const struct git_disk *disk)
{
	return (disk->size + disk->chunk - 1) / disk->chunk;
}

/* How many bytes chunk number `chunk` has, which is in the disk. */
static inline uint32_t git_disk_bytes(const struct git_disk *disk,
				      uint64_t chunk)
{
	uint64_t left = disk->size - chunk * disk->chunk;

	return left < disk->chunk ? (uint32_t)left : disk->chunk;
}

/* The path in the tree; returns ret. */
const char *git_disk_path(const struct git_disk *disk, uint64_t chunk,
			  char ret[GIT_CHUNK_PATH]);

#endif
