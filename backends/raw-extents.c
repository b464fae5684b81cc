/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw-extents.c - where a file has data.
 *
 * The file system is asked by lseek(SEEK_DATA), then (SEEK_HOLE), and so on
 * along the range.  A call may wait for a disk, a server or a lock of the file,
 * so it is not the lane's (XD_SYS_SEEK).  After MAX_SEEKS of them the answer
 * ends, as it does on a file system that cannot tell, and on a block device.
 *
 * What was allocated and never written (fallocate) counts as a hole: it reads
 * as zeroes, and no call tells it apart.
 */
#include "config.h"

#include "common/util.h"
#include "raw.h"

#define MAX_SEEKS 64

/* req->scratch */
struct raw_query {
	struct xd_sys sys;
	struct xd_channel *ch;
	uint64_t at, end;
	unsigned int seeks;
};
_Static_assert(sizeof(struct raw_query) <= XD_SCRATCH, "scratch is too small");

static void seek_done(struct xd_sys *sys, int64_t res);

static struct xd_request *request_of(struct raw_query *query)
{
	return container_of((unsigned char *)query, struct xd_request,
			    scratch[0]);
}

static void seek(struct raw_query *query, int whence)
{
	query->sys.op = XD_SYS_SEEK;
	query->sys.flags = whence;
	query->sys.offset = query->at;
	query->sys.done = seek_done;
	query->seeks++;
	xd_sys(query->ch, &query->sys);
}

/* What lies from where we are up to there.  False: that is all. */
static bool tell(struct raw_query *query, uint64_t to, uint32_t flags)
{
	uint64_t length = MIN(to, query->end) - query->at;

	query->at += length;
	return (length == 0 || xd_extent(request_of(query), length, flags)) &&
	       query->at < query->end && query->seeks < MAX_SEEKS;
}

static void seek_done(struct xd_sys *sys, int64_t res)
{
	struct raw_query *query = container_of(sys, struct raw_query, sys);
	bool hole = sys->flags == SEEK_DATA; /* until the data that it found */
	uint64_t to = res < 0 ? query->end : (uint64_t)res;
	bool more;

	/* No data to the end of the file; or it has been cut, or is of a kind
	 * that cannot tell, and then all is data. */
	if (res < 0 && res != -ENXIO)
		hole = false;
	if (res == -ENXIO && !hole)
		to = query->at;
	more = tell(query, MAX(to, query->at),
		    hole ? XD_EXTENT_HOLE | XD_EXTENT_ZERO : 0);
	if (more && res >= 0)
		seek(query, hole ? SEEK_HOLE : SEEK_DATA);
	else
		xd_complete(request_of(query), 0);
}

void raw_extents(struct xd_channel *ch, struct xd_request *req)
{
	struct raw_query *query = (struct raw_query *)(void *)req->scratch;
	const struct raw *raw = ch->disk->data;
	uint64_t end = __atomic_load_n(&raw->end, __ATOMIC_RELAXED);

	*query = (struct raw_query){
		.ch = ch,
		.at = req->offset,
		.end = req->offset + req->length,
	};
	query->sys.fd = raw->fd;
	/* Beyond the end of a file that was cut there are errors to be read. */
	if (raw->is_device || query->end > end)
		xd_complete(req, 0);
	else
		seek(query, SEEK_DATA);
}
