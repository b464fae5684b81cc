/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-fence.c - what a broken connection may still do.
 *
 * A server may go on with what it had received when the connection broke.  The
 * same request is sent again on the next one, and is answered; if the guest then
 * writes something else there, the old request must not come after it.  Nobody
 * can know when the old one has ended, so writes that overlap it wait until
 * `fence` has passed since the break.  What is sent again does not wait: it
 * writes the same.
 */
#include "config.h"

#include "common/util.h"
#include "nbd.h"

void nbd_fence_add(struct nbd_disk *nbd, uint64_t begin, uint64_t end)
{
	struct nbd_fence *fence;

	if (!nbd->fence_ns)
		return;
	fence = malloc(sizeof(*fence));
	(void)pthread_mutex_lock(&nbd->lock);
	if (fence) {
		*fence = (struct nbd_fence){ nbd->fences, begin, end, 0 };
		nbd->fences = fence;
		atomic_fetch_add(&nbd->nr_fences, 1);
	} else if (nbd->fences) {
		/* Without memory an older one becomes so wide. */
		fence = nbd->fences;
		fence->begin = MIN(fence->begin, begin);
		fence->end = MAX(fence->end, end);
	}
	if (fence)
		fence->until = now_ns() + nbd->fence_ns;
	(void)pthread_mutex_unlock(&nbd->lock);
}

uint64_t nbd_fence_check(struct nbd_disk *nbd, uint64_t begin, uint64_t end)
{
	uint64_t until = 0, now;

	if (!atomic_load_explicit(&nbd->nr_fences, memory_order_acquire))
		return 0;
	now = now_ns();
	(void)pthread_mutex_lock(&nbd->lock);
	for (struct nbd_fence **at = &nbd->fences; *at;) {
		struct nbd_fence *fence = *at;

		if (fence->until <= now) {
			*at = fence->next;
			free(fence);
			atomic_fetch_sub(&nbd->nr_fences, 1);
			continue;
		}
		if (fence->begin < end && begin < fence->end)
			until = MAX(until, fence->until);
		at = &fence->next;
	}
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
