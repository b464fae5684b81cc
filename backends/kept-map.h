/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * kept-map.h - a set of blocks that outlives the worker: one bit each, in a
 * file of xd_keep().
 *
 * What is tested is a copy in the worker's own memory.  The file is written
 * first, so that a set bit has been kept before anybody can act on it; it is
 * read once, when it is opened, and not trusted: its header is checked, and
 * bits that stand for no block must be 0.  What a forged bit can do is up to
 * the user of the map to bear.
 */
#ifndef XENDISK_KEPT_MAP_H
#define XENDISK_KEPT_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "xendisk-backend.h"

struct kept_map;

/*
 * Main thread.  name: of the kept state, 8 bytes at most; block_size: bytes
 * that a bit stands for (it must be the same at the next open).  *ret_kept:
 * there was a map; it may be one of more blocks, and one of fewer grows.  On
 * failure xd_error() has said why.
 */
int kept_map_open(struct kept_map **ret, struct xd_disk *disk, const char *name,
		  uint64_t blocks, uint32_t block_size, bool *ret_kept);
uint64_t kept_map_blocks(const struct kept_map *map);

/*
 * Main thread.  Makes it one of more blocks, in two steps: kept_map_grow() while
 * lanes use the map; kept_map_grown(), which cannot fail, while they stand
 * still.  The kept file says blocks from the first one on.  Name and block_size
 * as it was opened.
 */
int kept_map_grow(struct kept_map *map, struct xd_disk *disk, const char *name,
		  uint64_t blocks, uint32_t block_size);
void kept_map_grown(struct kept_map *map);

/* The file stays.  NULL is fine. */
void kept_map_close(struct kept_map *map);

/* Any lane, no lock.  How many blocks from first on, before end, are alike;
 * *ret_set says how.  first < end. */
uint64_t kept_map_run(const struct kept_map *map, uint64_t first, uint64_t end,
		      bool *ret_set);
/* Are all of them set? */
bool kept_map_all(const struct kept_map *map, uint64_t first, uint64_t end);

/* Any lane.  Makes room in the file, so that kept_map_set() of these blocks
 * cannot fail. */
int kept_map_reserve(struct kept_map *map, uint64_t first, uint64_t end);

/* Any lane.  -errno: some of the blocks may have been changed; try again.
 * *ret_changed (may be NULL): how many were, set on failure too. */
int kept_map_set(struct kept_map *map, uint64_t first, uint64_t end,
		 uint64_t *ret_changed);
int kept_map_clear(struct kept_map *map, uint64_t first, uint64_t end,
		   uint64_t *ret_changed);

#endif
