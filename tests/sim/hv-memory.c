/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The machine's memory: frames, who owns them, when they may be reused.
 */
#include "config.h"

#include "hv.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#define COPY_WAIT_MS 100

/* Locked.  Is [first, first + count) free?  If not, where the search goes on. */
static bool run_is_free(struct hv_shared *s, uint32_t first, uint32_t count,
			uint32_t *ret_next)
{
	for (uint32_t i = first; i < first + count; i++) {
		if (s->frames[i].owner) {
			*ret_next = i + 1;
			return false;
		}
	}
	return true;
}

static int find_run(struct hv_shared *s, uint32_t from, uint32_t to,
		    uint32_t count, uint32_t *ret_frame)
{
	uint32_t i = from;

	while (i + count <= to) {
		if (run_is_free(s, i, count, &i)) {
			*ret_frame = i;
			return 0;
		}
	}
	return -ENOMEM;
}

int hv_frames_alloc(struct hv *hv, uint32_t slot, uint32_t count,
		    uint32_t *ret_frame)
{
	struct hv_shared *s = hv->shared;
	uint32_t first;

	if (!count || count > s->header.nr_frames)
		return -ENOMEM;
	if (find_run(s, s->next_frame, s->header.nr_frames, count, &first) <
		    0 &&
	    find_run(s, 0, s->header.nr_frames, count, &first) < 0)
		return -ENOMEM;
	for (uint32_t i = first; i < first + count; i++)
		s->frames[i] =
			(struct hv_frame){ .owner = (uint16_t)(slot + 1) };
	hv_domain(hv, slot)->pages += count;
	s->next_frame = first + count;
	*ret_frame = first;
	return 0;
}

static bool overdue(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - start->tv_sec) * 1000 +
		       (now.tv_nsec - start->tv_nsec) / 1000000 >
	       COPY_WAIT_MS;
}

/*
 * A grant copy holds no reference to the frame: wait until every thread that
 * is inside one now has left it.  A process that died inside is not waited
 * for, one that was stopped (SIGSTOP) only for a moment.
 */
static void wait_for_copiers(struct hv *hv)
{
	struct hv_shared *s = hv->shared;
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (uint32_t i = 0; i < s->nr_handles; i++) {
		struct hv_handle *h = &s->handles[i];

		if (h->kind != HV_GNTTAB)
			continue;
		for (uint32_t c = 0; c < HV_COPIERS; c++) {
			uint32_t seen = h->copiers[c];

			while (seen % 2 && h->copiers[c] == seen &&
			       !overdue(&start) && hv_handle_alive(hv, i))
				sched_yield();
		}
	}
}

/* Locked.  Give the memory of a free run back to the system: it reads zero. */
static void release_run(struct hv *hv, uint32_t first, uint32_t count)
{
	for (uint32_t i = first; i < first + count; i++)
		hv->shared->frames[i] = (struct hv_frame){ 0 };
	madvise(hv_frame_ptr(hv, first), (size_t)count * XENSIM_PAGE_SIZE,
		MADV_REMOVE);
}

void hv_frames_free(struct hv *hv, uint32_t frame, uint32_t count)
{
	struct hv_frame *f = hv->shared->frames;
	uint32_t end = frame + count, start = frame;

	wait_for_copiers(hv);
	for (uint32_t i = frame; i < end; i++) {
		struct hv_domain *d = hv_domain(hv, f[i].owner - 1u);

		if (f[i].mappings == 0) {
			d->pages--;
			continue;
		}
		f[i].freed = 1;
		if (i > start)
			release_run(hv, start, i - start);
		start = i + 1;
	}
	if (end > start)
		release_run(hv, start, end - start);
}

void hv_frames_free_all(struct hv *hv, uint32_t slot)
{
	struct hv_frame *f = hv->shared->frames;
	uint32_t n = hv->shared->header.nr_frames,
		 left = hv_domain(hv, slot)->pages;
	uint32_t i = 0, start;

	while (i < n && left) {
		if (f[i].owner != slot + 1 || f[i].freed) {
			left -= f[i].owner == slot + 1;
			i++;
			continue;
		}
		for (start = i; i < n && f[i].owner == slot + 1 && !f[i].freed;)
			i++;
		left -= i - start;
		hv_frames_free(hv, start, i - start);
	}
}
