/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * buffer.c - the memory of a session's commands.
 *
 * The C library gives large pieces back to the kernel when they are freed, and the
 * next one has to be cleared, page by page: that was most of the time of a copy
 * with nbdcopy.  Aligned pages it cuts out of larger pieces, and puts together again:
 * that, and making commands and replies, was a seventh of the CPU time of small
 * writes.  So some of all are kept.  They never leave the session, so that nobody
 * sees another's data.
 */
#include "nbd/private.h"

#include <string.h>

#include "common/sanitized.h"
#include "common/util.h"

#define ALIGNMENT 4096u

/* The sanitizer is to see who uses what is not his any more, as if it were freed. */
#if SANITIZED
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, size)   ((void)(p), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(p, size) ((void)(p), (void)(size))
#endif

static void hide(struct nbd_spare *spare, size_t size)
{
	ASAN_POISON_MEMORY_REGION(spare + 1, size - sizeof(*spare));
}

static void show(struct nbd_spare *spare, size_t size)
{
	ASAN_UNPOISON_MEMORY_REGION(spare + 1, size - sizeof(*spare));
}

/* --- Data ----------------------------------------------------------------- */

static size_t size_of(uint64_t length)
{
	return ALIGN_UP(length, ALIGNMENT);
}

/* Small ones have a list for each size.  The long ones share one: a client that
 * reads or writes much at a time does it in one length. */
static struct nbd_spare **list_of(struct nbd_session *s, size_t size)
{
	return &s->spare[MIN(size / ALIGNMENT, NBD_NR_SPARE) - 1];
}

static void *take_spare(struct nbd_session *s, size_t size)
{
	for (struct nbd_spare **p = list_of(s, size); *p; p = &(*p)->next) {
		struct nbd_spare *spare = *p;

		if (spare->size != size)
			continue;
		*p = spare->next;
		s->spare_bytes -= size;
		show(spare, size);
		return spare;
	}
	return NULL;
}

void *nbd_buffer_new(struct nbd_session *s, uint64_t length)
{
	size_t size = size_of(length);
	void *buffer = take_spare(s, size);

	if (!buffer)
		buffer = aligned_alloc(ALIGNMENT, size);
	if (buffer)
		s->memory += size;
	return buffer;
}

void nbd_buffer_free(struct nbd_session *s, void *buffer, uint64_t length)
{
	struct nbd_spare *spare = buffer, **list;
	size_t size = size_of(length);

	if (!buffer)
		return;
	s->memory -= size;
	if (size > NBD_MAX_SPARE) {
		free(buffer);
		return;
	}
	/* Of other lengths than the client uses by now, perhaps. */
	if (s->spare_bytes + size > NBD_MAX_SPARE)
		nbd_buffer_trim(s, 0);
	list = list_of(s, size);
	spare->size = size;
	spare->next = *list;
	*list = spare;
	s->spare_bytes += size;
	hide(spare, size);
}

void nbd_buffer_trim(struct nbd_session *s, size_t most)
{
	/* The longest first: they are what makes it too many. */
	for (unsigned int i = NBD_NR_SPARE; i-- > 0;) {
		while (s->spare[i] && s->spare_bytes > most) {
			struct nbd_spare *spare = s->spare[i];

			s->spare[i] = spare->next;
			s->spare_bytes -= spare->size;
			free(spare);
		}
	}
}

/* --- Input ---------------------------------------------------------------- */

static void free_unused(struct nbd_session *s, struct nbd_input *input)
{
	if (input->nr_users > 0 || input == s->input)
		return;
	s->nr_inputs--;
	free(input);
}

bool nbd_input_renew(struct nbd_session *s)
{
	struct nbd_input *input = malloc(sizeof(*input)), *old = s->input;

	if (!input)
		return false;
	input->nr_users = 0;
	s->nr_inputs++;
	s->input = input;
	if (old)
		free_unused(s, old);
	return true;
}

void nbd_input_put(struct nbd_session *s, struct nbd_input *input)
{
	input->nr_users--;
	free_unused(s, input);
}

/* --- Commands and replies ------------------------------------------------- */

void *nbd_pool_take(struct nbd_pool *pool)
{
	struct nbd_spare *spare = pool->first;

	if (!spare)
		return calloc(1, pool->size);
	pool->first = spare->next;
	pool->nr--;
	show(spare, pool->size);
	return memset(spare, 0, pool->size);
}

void nbd_pool_give(struct nbd_pool *pool, void *piece)
{
	struct nbd_spare *spare = piece;

	if (pool->nr == NBD_MAX_COMMANDS) {
		free(piece);
		return;
	}
	spare->next = pool->first;
	pool->first = spare;
	pool->nr++;
	hide(spare, pool->size);
}

void nbd_pool_empty(struct nbd_pool *pool)
{
	struct nbd_spare *spare, *next;

	for (spare = TAKE_PTR(pool->first); spare; spare = next) {
		next = spare->next;
		free(spare);
	}
	pool->nr = 0;
}
