/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * extents.c - what layers tell of where data is, made fit for the layer above.
 *
 * A layer tells of pieces as it finds them; here they are cut to the request,
 * joined where they are alike, and rounded to whole sectors, since that is what
 * the layers above count in.  A sector whose pieces are not alike counts as data:
 * so rounding never makes anybody skip what has to be read.
 */
#include "config.h"

#include "worker/stack.h"

static bool append(struct xd_extents *extents, uint64_t length, uint32_t flags)
{
	struct xd_extent *last = extents->extent + extents->nr - 1;

	if (extents->nr > 0 && last->flags == flags)
		last->length += length;
	else if (extents->nr < extents->max)
		extents->extent[extents->nr++] =
			(struct xd_extent){ length, flags };
	else
		return false;
	extents->told += length;
	return true;
}

void extents_begin(struct xd_request *req)
{
	struct xd_extents *extents = req->extents;

	extents->nr = 0;
	extents->told = 0;
	extents->part = 0;
}

/* Takes what the sector that has begun still lacks; false: no room. */
static bool fill_part(struct xd_extents *extents, uint32_t sector,
		      uint64_t *io_length, uint32_t flags)
{
	uint32_t n = (uint32_t)MIN(*io_length, sector - extents->part);

	extents->part += n;
	extents->part_flags &= flags;
	*io_length -= n;
	if (extents->part < sector)
		return true;
	extents->part = 0;
	return append(extents, sector, extents->part_flags);
}

bool extents_add(struct xd_request *req, uint32_t sector, uint64_t length,
		 uint32_t flags)
{
	struct xd_extents *extents = req->extents;
	uint64_t whole;

	length = MIN(length, req->length - extents->told - extents->part);
	if (extents->part && !fill_part(extents, sector, &length, flags))
		return false;
	whole = length - length % sector;
	if (whole && !append(extents, whole, flags))
		return false;
	if (length > whole) {
		extents->part = (uint32_t)(length - whole);
		extents->part_flags = flags;
	}
	return extents->told + extents->part < req->length;
}

void extents_end(struct xd_request *req)
{
	if (req->extents->nr == 0)
		(void)append(req->extents, req->length, 0);
}
