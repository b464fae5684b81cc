/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * buffer.h - memory for data on its way: an arena of pages per lane.
 *
 * A request gets one run of pages, so that its data is one iovec whatever its
 * segments were.  The arena is limited, which limits what a guest can make a
 * worker hold; a request that gets nothing waits.  Owned by one lane.
 */
#ifndef XENDISK_BUFFER_H
#define XENDISK_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUFFER_PAGE 4096u

struct buffer_arena;

/* bytes: a multiple of 64 pages.  Pages cost nothing until they are used. */
int buffer_arena_new(struct buffer_arena **ret, size_t bytes);
void buffer_arena_free(struct buffer_arena *arena);

/* Room for length bytes (not 0), aligned to a page; NULL: none now, which
 * cannot be while nothing is taken and length is at most the arena's size. */
void *buffer_get(struct buffer_arena *arena, size_t length);
void buffer_put(struct buffer_arena *arena, void *buffer, size_t length);

/* Gives memory that was used once back to the system; free pages only.
 * Cheap when there is nothing to do. */
void buffer_trim(struct buffer_arena *arena);
bool buffer_is_trimmed(const struct buffer_arena *arena);

#endif
