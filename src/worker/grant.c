/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grant.c - grant maps and grant copies.
 *
 * A copy is one hypercall's work for many segments, leaves no page of the guest
 * mapped, and reads each byte once.  Facts that shape this file: the status of
 * a segment is only written when the copy was tried, and can be any number
 * (XSA-226, XSA-318), so it is preset to an error and compared to okay; a
 * segment that crosses its granted page makes the whole call fail, which
 * blkif.c keeps from happening.
 *
 * With persistent grants a segment whose page is kept mapped (grant-keep.c) is copied
 * by memory, and the call is made for the rest.  In which order the segments of a
 * batch are copied does not matter: each is of a request that is not answered, and
 * ranges that are being written are locked.  The guest may write to such a page at any
 * time, so from it bytes go into memory of ours, and only there they are looked at.
 */
#include "worker/grant.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include <xengnttab.h>

#include "common/util.h"
#include "worker/grant-keep.h"
#include "worker/sparse.h"

/* Segments in a call: four of the longest requests.  Linux passes them on to
 * Xen by 16 anyway. */
#define BATCH_SEGMENTS 1024u

struct grant {
	xengnttab_handle *handle;
	uint32_t domid;
};

struct grant_batch {
	struct grant *grant;
	struct grant_keep *keep; /* NULL: no page stays mapped */
	uint32_t count;
	xengnttab_grant_copy_segment_t segments[BATCH_SEGMENTS];
	int *errs[BATCH_SEGMENTS];
};

int grant_open(struct grant **ret, uint32_t domid)
{
	struct grant *grant = calloc(1, sizeof(*grant));

	if (!grant)
		return -ENOMEM;
	grant->domid = domid;
	grant->handle = xengnttab_open(NULL, 0);
	if (!grant->handle) {
		int r = errno ? -errno : -ENODEV;

		free(grant);
		return r;
	}
	*ret = grant;
	return 0;
}

void grant_close(struct grant *grant)
{
	if (!grant)
		return;
	(void)xengnttab_close(grant->handle);
	free(grant);
}

int grant_map(struct grant *grant, const uint32_t *refs, unsigned int count,
	      void **ret_pages)
{
	uint32_t own[256];
	void *pages;

	assert(count <= ARRAY_SIZE(own));
	for (unsigned int i = 0; i < count; i++)
		own[i] = refs[i]; /* the library's argument is not const */
	errno = 0;
	pages = xengnttab_map_domain_grant_refs(grant->handle, count,
						grant->domid, own,
						PROT_READ | PROT_WRITE);
	if (!pages)
		return errno ? -errno : -EIO;
	*ret_pages = pages;
	return 0;
}

void grant_unmap(struct grant *grant, void *pages, unsigned int count)
{
	if (pages)
		(void)xengnttab_unmap(grant->handle, pages, count);
}

int grant_batch_new(struct grant_batch **ret, struct grant *grant,
		    bool persistent)
{
	struct grant_batch *batch = sparse_new(sizeof(*batch));
	int r = 0;

	if (!batch)
		return -ENOMEM;
	batch->grant = grant;
	if (persistent)
		r = grant_keep_new(&batch->keep, grant);
	if (r)
		sparse_free(batch, sizeof(*batch));
	else
		*ret = batch;
	return r;
}

void grant_batch_free(struct grant_batch *batch)
{
	if (!batch)
		return;
	grant_keep_free(batch->keep);
	sparse_free(batch, sizeof(*batch));
}

uint64_t grant_batch_idle_ns(const struct grant_batch *batch)
{
	uint64_t at = batch->keep ? grant_keep_next(batch->keep) : UINT64_MAX;
	uint64_t now;

	if (at == UINT64_MAX)
		return UINT64_MAX;
	now = now_ns();
	return at > now ? at - now : 1;
}

void grant_batch_idle(struct grant_batch *batch)
{
	if (batch->keep)
		grant_keep_idle(batch->keep, now_ns());
}

/* False: its page is not kept. */
static bool copy_kept(struct grant_batch *batch, enum grant_direction direction,
		      uint32_t gref, uint16_t offset, uint16_t length,
		      void *local)
{
	uint8_t *page = grant_keep_page(batch->keep, gref);

	if (!page)
		return false;
	if (direction == GRANT_TO_GUEST)
		memcpy(page + offset, local, length);
	else
		memcpy(local, page + offset, length);
	/* What follows reads the copy, and not the page again. */
	atomic_signal_fence(memory_order_seq_cst);
	return true;
}

bool grant_batch_add(struct grant_batch *batch, enum grant_direction direction,
		     uint32_t gref, uint16_t offset, uint16_t length,
		     void *local, int *err)
{
	xengnttab_grant_copy_segment_t *segment;
	union xengnttab_copy_ptr *guest, *own;

	if (batch->keep &&
	    copy_kept(batch, direction, gref, offset, length, local))
		return true;
	if (batch->count == BATCH_SEGMENTS)
		grant_batch_run(batch);
	batch->errs[batch->count] = err;
	segment = &batch->segments[batch->count++];
	if (direction == GRANT_FROM_GUEST) {
		guest = &segment->source;
		own = &segment->dest;
		segment->flags = GNTCOPY_source_gref;
	} else {
		own = &segment->source;
		guest = &segment->dest;
		segment->flags = GNTCOPY_dest_gref;
	}
	guest->foreign.ref = gref;
	guest->foreign.offset = offset;
	guest->foreign.domid = (uint16_t)batch->grant->domid;
	own->virt = local;
	segment->len = length;
	segment->status = GNTST_general_error;
	return false;
}

void grant_batch_run(struct grant_batch *batch)
{
	int failed;

	if (batch->count == 0)
		return;
	failed = 0;
	if (xengnttab_grant_copy(batch->grant->handle, batch->count,
				 batch->segments) != 0)
		failed = errno == ENOMEM ? -ENOMEM : -EIO;
	for (uint32_t i = 0; i < batch->count; i++)
		if (batch->segments[i].status != GNTST_okay)
			*batch->errs[i] = failed ? failed : -EIO;
	batch->count = 0;
}
