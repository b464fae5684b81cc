/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * buffer.c - runs of pages out of a bitmap, the first that fits.
 *
 * First fit hands out the lowest pages again and again, which are those that
 * the caches know; the upper part of the arena stays untouched until a guest
 * keeps that much in flight.
 */
#include "worker/buffer.h"

#include <assert.h>
#include <sys/mman.h>

#include "common/util.h"

#define BITS 64u

struct buffer_arena {
	uint8_t *base;
	uint32_t nr_pages;
	uint32_t nr_taken;
	bool used; /* since it was trimmed */
	uint64_t map[]; /* a bit per page: taken */
};

int buffer_arena_new(struct buffer_arena **ret, size_t bytes)
{
	uint32_t nr_pages = (uint32_t)(bytes / BUFFER_PAGE);
	struct buffer_arena *arena =
		calloc(1, sizeof(*arena) + nr_pages / BITS * sizeof(uint64_t));
	void *base;

	assert(bytes % (BITS * BUFFER_PAGE) == 0);
	if (!arena)
		return -ENOMEM;
	base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED) {
		free(arena);
		return -ENOMEM;
	}
	arena->base = base;
	arena->nr_pages = nr_pages;
	*ret = arena;
	return 0;
}

void buffer_arena_free(struct buffer_arena *arena)
{
	if (!arena)
		return;
	(void)munmap(arena->base, (size_t)arena->nr_pages * BUFFER_PAGE);
	free(arena);
}

/* The first page from `page` on whose bit is `taken`; nr_pages: none. */
static uint32_t find(const struct buffer_arena *arena, uint32_t page,
		     bool taken)
{
	while (page < arena->nr_pages) {
		uint64_t word = arena->map[page / BITS];

		if (!taken)
			word = ~word;
		word >>= page % BITS;
		if (word)
			return page + (uint32_t)__builtin_ctzll(word);
		page = (page / BITS + 1) * BITS;
	}
	return arena->nr_pages;
}

static void mark(struct buffer_arena *arena, uint32_t page, uint32_t count,
		 bool taken)
{
	for (uint32_t end = page + count; page < end;) {
		uint32_t bit = page % BITS;
		uint32_t n = MIN(BITS - bit, end - page);
		uint64_t mask = (n == BITS ? UINT64_MAX : (1ull << n) - 1)
				<< bit;

		assert((arena->map[page / BITS] & mask) == (taken ? 0 : mask));
		arena->map[page / BITS] ^= mask;
		page += n;
	}
}

void *buffer_get(struct buffer_arena *arena, size_t length)
{
	uint32_t count = (uint32_t)DIV_ROUND_UP(length, BUFFER_PAGE);
	uint32_t page = 0;

	while (page < arena->nr_pages) {
		uint32_t start = find(arena, page, false);
		uint32_t end;

		if (count > arena->nr_pages - start)
			return NULL;
		end = find(arena, start, true);
		if (end - start >= count) {
			mark(arena, start, count, true);
			arena->nr_taken += count;
			arena->used = true;
			return arena->base + (size_t)start * BUFFER_PAGE;
		}
		page = end;
	}
	return NULL;
}

void buffer_put(struct buffer_arena *arena, void *buffer, size_t length)
{
	uint32_t count = (uint32_t)DIV_ROUND_UP(length, BUFFER_PAGE);
	uint32_t page = (uint32_t)((size_t)((uint8_t *)buffer - arena->base) /
				   BUFFER_PAGE);

	mark(arena, page, count, false);
	arena->nr_taken -= count;
}

void buffer_trim(struct buffer_arena *arena)
{
	if (!arena->used || arena->nr_taken)
		return;
	(void)madvise(arena->base, (size_t)arena->nr_pages * BUFFER_PAGE,
		      MADV_DONTNEED);
	arena->used = false;
}

bool buffer_is_trimmed(const struct buffer_arena *arena)
{
	return !arena->used;
}
