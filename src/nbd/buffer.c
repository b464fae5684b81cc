/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * buffer.c - the memory of a session's commands.
 *
 * The C library gives large pieces back to the kernel when they are freed, and the
 * next one has to be cleared, page by page: that was most of the time of a copy
 * with nbdcopy.  So some are kept, for a command of the same length; a client that
 * reads or writes much does it in one length.  They never leave the session, so
 * that nobody sees another's data.
 */
#include "nbd/private.h"

#include "common/util.h"

#define ALIGNMENT 4096u

static size_t size_of(uint64_t length)
{
	return ALIGN_UP(length, ALIGNMENT);
}

static void *take_spare(struct nbd_session *s, size_t size)
{
	for (struct nbd_spare **p = &s->spare; *p; p = &(*p)->next) {
		struct nbd_spare *spare = *p;

		if (spare->size != size)
			continue;
		*p = spare->next;
		s->spare_bytes -= size;
		return spare;
	}
	return NULL;
}

void *nbd_buffer_new(struct nbd_session *s, uint64_t length)
{
	size_t size = size_of(length);
	void *buffer = size < NBD_LEAST_SPARE ? NULL : take_spare(s, size);

	if (!buffer)
		buffer = aligned_alloc(ALIGNMENT, size);
	if (buffer)
		s->memory += size;
	return buffer;
}

void nbd_buffer_free(struct nbd_session *s, void *buffer, uint64_t length)
{
	struct nbd_spare *spare = buffer;
	size_t size = size_of(length);

	if (!buffer)
		return;
	s->memory -= size;
	if (size < NBD_LEAST_SPARE || size > NBD_MAX_SPARE) {
		free(buffer);
		return;
	}
	/* Of other lengths than the client uses by now, perhaps. */
	if (s->spare_bytes + size > NBD_MAX_SPARE)
		nbd_buffer_trim(s, 0);
	spare->size = size;
	spare->next = s->spare;
	s->spare = spare;
	s->spare_bytes += size;
}

void nbd_buffer_trim(struct nbd_session *s, size_t most)
{
	struct nbd_spare *spare;

	while (s->spare_bytes > most) {
		spare = s->spare;
		s->spare = spare->next;
		s->spare_bytes -= spare->size;
		free(spare);
	}
}
