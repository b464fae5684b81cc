/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Buffers and synchronous requests of a simulated guest; see simio.h. */
#include "config.h"

#include "simio.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define CANARY 0xa7

int simio_alloc(struct simfront *front, unsigned int nr_pages,
		struct simio_buffer *ret_buffer)
{
	uint8_t *pages;

	if (nr_pages == 0 || nr_pages > SIMQUEUE_MAX_SEGMENTS)
		return -EINVAL;
	pages = xensim_alloc_pages(simfront_guest(front), nr_pages);
	if (!pages)
		return -ENOMEM;
	ret_buffer->pages = pages;
	ret_buffer->nr_pages = nr_pages;
	ret_buffer->nr_segments = 0;
	return 0;
}

void simio_free(struct simfront *front, struct simio_buffer *buffer)
{
	if (buffer->pages)
		xensim_free_pages(simfront_guest(front), buffer->pages,
				  buffer->nr_pages);
	buffer->pages = NULL;
}

static void add_segment(struct simio_buffer *buffer, unsigned int first,
			unsigned int sectors)
{
	unsigned int n = buffer->nr_segments++;

	buffer->segments[n] = (struct simqueue_segment){
		.page = buffer->pages + (size_t)n * SIMABI_PAGE,
		.first = (uint8_t)first,
		.last = (uint8_t)(first + sectors - 1),
	};
}

void simio_linear(struct simio_buffer *buffer, unsigned int sectors)
{
	buffer->nr_segments = 0;
	while (sectors > 0) {
		unsigned int part = sectors < SIMABI_PAGE_SECTS ?
					    sectors :
					    SIMABI_PAGE_SECTS;

		add_segment(buffer, 0, part);
		sectors -= part;
	}
}

void simio_scatter(struct simio_buffer *buffer, unsigned int sectors,
		   unsigned int unit, unsigned int max_segments,
		   uint64_t *random)
{
	unsigned int per_page = SIMABI_PAGE_SECTS / unit;
	unsigned int units = sectors / unit;

	if (max_segments > buffer->nr_pages)
		max_segments = buffer->nr_pages;
	buffer->nr_segments = 0;
	while (units > 0) {
		unsigned int left = max_segments - buffer->nr_segments - 1;
		unsigned int most = units < per_page ? units : per_page;
		/* What the segments left cannot take must go in this one. */
		unsigned int rest = left * per_page;
		unsigned int least = units > rest ? units - rest : 1;
		unsigned int part, first;

		part = least + (unsigned int)(simio_random(random) %
					      (most - least + 1));
		first = (unsigned int)(simio_random(random) %
				       (per_page - part + 1));
		add_segment(buffer, first * unit, part * unit);
		units -= part;
	}
}

uint8_t *simio_next(const struct simio_buffer *buffer,
		    struct simio_cursor *cursor)
{
	const struct simqueue_segment *segment;
	unsigned int at;

	if (cursor->segment == buffer->nr_segments)
		return NULL;
	segment = &buffer->segments[cursor->segment];
	at = segment->first + cursor->sector++;
	if (at == segment->last) {
		cursor->segment++;
		cursor->sector = 0;
	}
	return segment->page + at * SIMABI_SECTOR;
}

void simio_set_canaries(struct simio_buffer *buffer)
{
	memset(buffer->pages, CANARY, (size_t)buffer->nr_pages * SIMABI_PAGE);
}

static bool all_canaries(const uint8_t *bytes, size_t size)
{
	return size == 0 ||
	       (bytes[0] == CANARY && memcmp(bytes, bytes + 1, size - 1) == 0);
}

bool simio_canaries_alive(const struct simio_buffer *buffer)
{
	const uint8_t *end =
		buffer->pages + (size_t)buffer->nr_pages * SIMABI_PAGE;
	const uint8_t *at = buffer->pages;

	for (unsigned int i = 0; i < buffer->nr_segments; i++) {
		const struct simqueue_segment *s = &buffer->segments[i];
		const uint8_t *first = s->page + s->first * SIMABI_SECTOR;

		if (!all_canaries(at, (size_t)(first - at)))
			return false;
		at = s->page + (s->last + 1u) * SIMABI_SECTOR;
	}
	return all_canaries(at, (size_t)(end - at));
}

struct simqueue_request simio_request(uint8_t operation, uint64_t sector,
				      const struct simio_buffer *buffer)
{
	return (struct simqueue_request){
		.operation = operation,
		.sector = sector,
		.nr_segments = (uint16_t)buffer->nr_segments,
		.segments = buffer->segments,
	};
}

/* The status that no backend gives, while the answer is awaited. */
#define PENDING INT16_MAX

static void note_done(struct simqueue_request *req)
{
	(void)req; /* its status has changed */
}

static int await(struct simqueue *queue, const struct simqueue_request *req,
		 int timeout_s)
{
	int64_t end = simio_now_ns() + timeout_s * 1000000000ll;
	int r;

	simqueue_push(queue);
	while (req->status == PENDING) {
		r = simqueue_reap(queue, 500);
		if (r < 0 && r != -EINTR)
			return r;
		if (req->status == PENDING && simio_now_ns() > end)
			return -ETIMEDOUT;
	}
	return 0;
}

int simio_sync(struct simqueue *queue, struct simqueue_request *req,
	       int timeout_s)
{
	int r;

	req->done = note_done;
	req->status = PENDING;
	r = simqueue_submit(queue, req);
	return r < 0 ? r : await(queue, req, timeout_s);
}

int simio_sync_slot(struct simqueue *queue, struct simqueue_request *req,
		    uint8_t *slot, int timeout_s)
{
	int r;

	req->done = note_done;
	req->status = PENDING;
	r = simqueue_submit_slot(queue, req, slot);
	return r < 0 ? r : await(queue, req, timeout_s);
}

uint64_t simio_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

int64_t simio_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
