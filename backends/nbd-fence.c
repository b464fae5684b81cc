/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-fence.c - what a broken connection may still do.
 *
 * A server may go on with what it had received when the connection broke.  The
 * same request is sent again on the next one, and is answered; if the guest then
 * writes something else there, the old request must not come after it.  Nobody
 * can know when the old one has ended, so writes that overlap it wait until
 * `fence` has passed since the break.  What is sent again does not wait: it
 * writes the same.  There is one fence for it however often the connection breaks,
 * since a server may break it as often as it likes.
 */
#include "config.h"

#include "common/util.h"
#include "nbd.h"

/* Under the lock, as the next one. */
static void drop_past(struct nbd_disk *nbd, uint64_t now)
{
	for (struct nbd_fence **at = &nbd->fences; *at;) {
		struct nbd_fence *fence = *at;

		if (fence->until > now) {
			at = &fence->next;
			continue;
		}
		*at = fence->next;
		free(fence);
		atomic_fetch_sub(&nbd->nr_fences, 1);
	}
}

/* For these bytes: the one of a break before, or a new one; or without memory any
 * other, which becomes so wide. */
static struct nbd_fence *fence_for(struct nbd_disk *nbd, uint64_t begin,
				   uint64_t end)
{
	struct nbd_fence *fence = nbd->fences;

	while (fence && (fence->begin != begin || fence->end != end))
		fence = fence->next;
	if (fence)
		return fence;
	fence = malloc(sizeof(*fence));
	if (fence) {
		*fence = (struct nbd_fence){ nbd->fences, begin, end, 0 };
		nbd->fences = fence;
		atomic_fetch_add(&nbd->nr_fences, 1);
		return fence;
	}
	fence = nbd->fences;
	if (fence) {
		fence->begin = MIN(fence->begin, begin);
		fence->end = MAX(fence->end, end);
	}
	return fence;
}

void nbd_fence_add(struct nbd_disk *nbd, uint64_t begin, uint64_t end)
{
	struct nbd_fence *fence;
	uint64_t now = now_ns();

	if (!nbd->fence_ns)
		return;
	(void)pthread_mutex_lock(&nbd->lock);
	drop_past(nbd, now);
	fence = fence_for(nbd, begin, end);
	if (fence)
		fence->until = now + nbd->fence_ns;
	(void)pthread_mutex_unlock(&nbd->lock);
}

uint64_t nbd_fence_check(struct nbd_disk *nbd, uint64_t begin, uint64_t end)
{
	uint64_t until = 0;

	if (!atomic_load_explicit(&nbd->nr_fences, memory_order_acquire))
		return 0;
	(void)pthread_mutex_lock(&nbd->lock);
	drop_past(nbd, now_ns());
	for (struct nbd_fence *fence = nbd->fences; fence; fence = fence->next)
		if (fence->begin < end && begin < fence->end)
			until = MAX(until, fence->until);
	(void)pthread_mutex_unlock(&nbd->lock);
	return until;
}

void nbd_fence_clear(struct nbd_disk *nbd)
{
	struct nbd_fence *fence;

	while ((fence = nbd->fences)) {
		nbd->fences = fence->next;
		free(fence);
	}
	atomic_store(&nbd->nr_fences, 0);
}
