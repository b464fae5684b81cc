/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cow.c - writes go to the top, reads fall through to the base.
 *
 * A map in kept state has a bit for each sector: set means that the top has
 * it.  The unit is the sector, the smallest thing that can be written, so that
 * no write has to bring the rest of a larger chunk up with it: there is no
 * read-modify-write, and lanes that write neighbouring sectors need nothing
 * from each other.  It costs 256 KiB of map per GiB that was written to, with
 * sectors of 512 bytes; what was not written to costs nothing.
 *
 * Bits are only ever set, and only when the data is on top; until then the
 * guest has no answer.  So a worker that is killed in between leaves the base's
 * data to be seen, and the write to be repeated.
 *
 * What is discarded must not come to light again from the base: the top holds
 * zeroes instead, without space where it can.
 *
 * Nothing is left when the disk is detached: the map goes, and with it all
 * sense of what is on top.
 *
 * State of a request that comes from above is in its scratch as long as it is
 * not handed down; handed down are children, or itself as the last step.
 */
#include "config.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "common/crash.h"
#include "common/util.h"
#include "kept-map.h"
#include "xendisk-backend.h"

enum { BASE, TOP };

#define MAP_NAME "map"

/* What one answer to XD_EXTENTS may cost: pieces, sectors of the map. */
#define MAX_PIECES 64
#define MAX_LOOK   (8u << 20)

/* disk->data */
struct cow {
	struct kept_map *map;
	uint32_t sector;
};

/* A read in pieces, some from each side.  Freed with the last one. */
struct split_read {
	unsigned int pending; /* pieces, and one while they are being made */
	int err; /* the first */
	/* What is left of the parent's iovecs, and of the first of them. */
	const struct iovec *rest;
	size_t skip;
	unsigned int nr_iov;
	struct iovec iov[]; /* of the pieces, one after the other */
};

/* An XD_EXTENTS, asked of each side in pieces, one after the other. */
struct query {
	uint64_t at; /* where the next piece begins */
	unsigned int pieces;
	struct xd_extents extents; /* of one piece */
	struct xd_extent extent[64];
};

/* req->scratch, as long as the request is not handed down. */
struct cow_io {
	struct xd_channel *ch;
	struct split_read *read;
	struct query *query;
};
_Static_assert(sizeof(struct cow_io) <= XD_SCRATCH, "scratch is too small");

static struct cow *cow_of(const struct xd_channel *ch)
{
	return ch->disk->data;
}

static struct cow_io *io_of(struct xd_request *req)
{
	return (struct cow_io *)(void *)req->scratch;
}

static uint64_t first_sector(const struct cow *cow,
			     const struct xd_request *req)
{
	return req->offset / cow->sector;
}

static uint64_t end_sector(const struct cow *cow, const struct xd_request *req)
{
	return (req->offset + req->length) / cow->sector;
}

static bool is_on_top(const struct cow *cow, const struct xd_request *req)
{
	return kept_map_all(cow->map, first_sector(cow, req),
			    end_sector(cow, req));
}

/* The request's sectors are on top from now on. */
static int mark(const struct cow *cow, const struct xd_request *req)
{
	return kept_map_set(cow->map, first_sector(cow, req),
			    end_sector(cow, req), NULL);
}

/* --- READ ---------------------------------------------------------------- */

static void read_put(struct xd_request *parent)
{
	struct split_read *read = io_of(parent)->read;
	int err = read->err;

	if (--read->pending > 0)
		return;
	free(read);
	xd_complete(parent, err);
}

static void piece_done(struct xd_request *piece, int err)
{
	struct xd_request *parent = piece->owner;
	struct split_read *read = io_of(parent)->read;

	if (read->err == 0)
		read->err = err;
	read_put(parent);
}

/* Takes the next length bytes off the parent's iovecs. */
static void piece_iov(struct split_read *read, struct xd_request *piece)
{
	uint64_t left = piece->length;

	piece->iov = read->iov + read->nr_iov;
	while (left > 0) {
		size_t n = MIN(left, read->rest->iov_len - read->skip);

		read->iov[read->nr_iov++] = (struct iovec){
			(char *)read->rest->iov_base + read->skip, n
		};
		piece->iovcnt++;
		left -= n;
		read->skip += n;
		if (read->skip == read->rest->iov_len) {
			read->rest++;
			read->skip = 0;
		}
	}
}

static int read_piece(struct xd_channel *ch, struct xd_request *parent,
		      uint64_t offset, uint64_t length, bool on_top)
{
	struct split_read *read = io_of(parent)->read;
	struct xd_request *piece = xd_child(ch, parent);

	if (!piece)
		return -ENOMEM;
	piece->op = XD_READ;
	piece->offset = offset;
	piece->length = length;
	piece->done = piece_done;
	piece->iovcnt = 0;
	piece_iov(read, piece);
	read->pending++;
	xd_submit(ch->below[on_top ? TOP : BASE], piece);
	return 0;
}

/* With room for the worst, a piece per sector: other lanes may set bits while
 * the pieces are made. */
static struct split_read *new_read(const struct cow *cow,
				   const struct xd_request *req)
{
	size_t pieces = req->length / cow->sector;
	struct split_read *read;

	read = malloc(sizeof(*read) +
		      (req->iovcnt + pieces) * sizeof(struct iovec));
	if (read)
		*read = (struct split_read){ .pending = 1, .rest = req->iov };
	return read;
}

static void read_pieces(struct xd_channel *ch, struct xd_request *req)
{
	const struct cow *cow = cow_of(ch);
	uint64_t end = end_sector(cow, req);
	struct cow_io *io = io_of(req);
	uint64_t n;
	bool set;

	io->read = new_read(cow, req);
	if (!io->read) {
		xd_complete(req, -ENOMEM);
		return;
	}
	for (uint64_t at = first_sector(cow, req); at < end; at += n) {
		n = kept_map_run(cow->map, at, end, &set);
		io->read->err = read_piece(ch, req, at * cow->sector,
					   n * cow->sector, set);
		if (io->read->err < 0)
			break;
	}
	read_put(req);
}

static void cow_read(struct xd_channel *ch, struct xd_request *req)
{
	const struct cow *cow = cow_of(ch);
	uint64_t first = first_sector(cow, req);
	uint64_t end = end_sector(cow, req);
	bool set;

	if (kept_map_run(cow->map, first, end, &set) == end - first)
		xd_submit(ch->below[set ? TOP : BASE], req);
	else
		read_pieces(ch, req);
}

/* --- WRITE, DISCARD and ZERO --------------------------------------------- */

static void change_done(struct xd_request *change, int err)
{
	struct xd_request *parent = change->owner;
	const struct cow *cow = cow_of(io_of(parent)->ch);

	CRASH_POINT(top_written);
	if (err == 0)
		err = mark(cow, parent);
	CRASH_POINT(top_marked);
	xd_complete(parent, err);
}

/* Does op on top, then marks the sectors. */
static void change_top(struct xd_channel *ch, struct xd_request *req,
		       enum xd_op op)
{
	struct xd_request *change = xd_child(ch, req);

	if (!change) {
		xd_complete(req, -ENOMEM);
		return;
	}
	io_of(req)->ch = ch;
	change->op = op;
	change->flags = req->flags;
	change->offset = req->offset;
	change->length = req->length;
	change->iov = req->iov;
	change->iovcnt = req->iovcnt;
	change->done = change_done;
	xd_submit(ch->below[TOP], change);
}

static void cow_write(struct xd_channel *ch, struct xd_request *req)
{
	if (is_on_top(cow_of(ch), req))
		xd_submit(ch->below[TOP], req);
	else
		change_top(ch, req, XD_WRITE);
}

static void cow_submit(struct xd_channel *ch, struct xd_request *req)
{
	switch (req->op) {
	case XD_READ:
		cow_read(ch, req);
		break;
	case XD_WRITE:
		cow_write(ch, req);
		break;
	case XD_DISCARD:
	case XD_ZERO:
		change_top(ch, req, XD_ZERO);
		break;
	case XD_FLUSH:
		xd_submit(ch->below[TOP], req);
		break;
	case XD_EXTENTS: /* cow_extents() */
		break;
	}
}

/* --- EXTENTS ------------------------------------------------------------- */

static void query_next(struct xd_channel *ch, struct xd_request *req);

static void query_end(struct xd_request *req, int err)
{
	free(io_of(req)->query);
	xd_complete(req, err);
}

static void query_done(struct xd_request *piece, int err)
{
	struct xd_request *req = piece->owner;
	const struct query *query = io_of(req)->query;
	bool more = err == 0;

	for (unsigned int i = 0; more && i < query->extents.nr; i++)
		more = xd_extent(req, query->extent[i].length,
				 query->extent[i].flags);
	if (more && query->extents.told == piece->length &&
	    query->pieces < MAX_PIECES)
		query_next(io_of(req)->ch, req);
	else
		query_end(req, err);
}

/* Asks the side that has the next sectors. */
static void query_next(struct xd_channel *ch, struct xd_request *req)
{
	struct query *query = io_of(req)->query;
	const struct cow *cow = cow_of(ch);
	struct xd_request *piece = xd_child(ch, req);
	uint64_t first = query->at / cow->sector;
	uint64_t n;
	bool set;

	if (!piece) {
		query_end(req, -ENOMEM);
		return;
	}
	n = kept_map_run(cow->map, first,
			 MIN(end_sector(cow, req), first + MAX_LOOK), &set);
	query->pieces++;
	piece->op = XD_EXTENTS;
	piece->offset = query->at;
	piece->length = n * cow->sector;
	piece->extents = &query->extents;
	piece->done = query_done;
	query->at += piece->length;
	xd_submit(ch->below[set ? TOP : BASE], piece);
}

static void cow_extents(struct xd_channel *ch, struct xd_request *req)
{
	struct query *query = calloc(1, sizeof(*query));
	struct cow_io *io = io_of(req);

	io->ch = ch;
	io->query = query;
	if (!query) {
		xd_complete(req, -ENOMEM);
		return;
	}
	query->at = req->offset;
	query->extents.extent = query->extent;
	query->extents.max = ARRAY_SIZE(query->extent);
	query_next(ch, req);
}

/* --- Lending memory ------------------------------------------------------ */

/*
 * Only the top's.  Sectors never leave it, so that unmap() knows whose memory
 * it was, although another lane may have changed the map since.
 */
static int cow_map(struct xd_channel *ch, struct xd_request *req,
		   struct iovec *ret_iov, unsigned int *io_iovcnt)
{
	const struct cow *cow = cow_of(ch);

	if (!is_on_top(cow, req)) {
		if (req->op == XD_READ)
			return -EOPNOTSUPP;
		/* unmap() has no way to fail. */
		if (kept_map_reserve(cow->map, first_sector(cow, req),
				     end_sector(cow, req)) < 0)
			return -EOPNOTSUPP;
	}
	return xd_map(ch->below[TOP], req, ret_iov, io_iovcnt);
}

static void cow_unmap(struct xd_channel *ch, struct xd_request *req, int err)
{
	xd_unmap(ch->below[TOP], req, err);
	if (req->op != XD_WRITE || err != 0)
		return;
	/* Should the impossible happen, the next worker repeats the write. */
	if (mark(cow_of(ch), req) < 0)
		abort();
}

/* --- Open and close ------------------------------------------------------ */

static uint32_t lesser_limit(uint32_t a, uint32_t b)
{
	return a && b ? MIN(a, b) : MAX(a, b);
}

static struct xd_limits make_limits(const struct xd_disk *disk)
{
	const struct xd_limits *base = &disk->below[BASE]->limits;
	const struct xd_limits *top = &disk->below[TOP]->limits;
	struct xd_limits limits = *top;

	limits.size = base->size;
	limits.sector_size = MAX(base->sector_size, top->sector_size);
	limits.physical_sector_size =
		MAX(base->physical_sector_size, top->physical_sector_size);
	limits.memory_alignment =
		MAX(base->memory_alignment, top->memory_alignment);
	limits.max_transfer =
		lesser_limit(base->max_transfer, top->max_transfer);
	limits.max_channels =
		lesser_limit(base->max_channels, top->max_channels);
	/* A discard must leave zeroes, in whole sectors, which may be larger than the
	 * top's pieces and begin elsewhere. */
	limits.discard_granularity =
		top->zero ?
			ALIGN_UP(top->discard_granularity, limits.sector_size) :
			0;
	if (top->discard_alignment % limits.sector_size)
		limits.discard_alignment = 0;
	limits.readonly = xd_readonly(disk);
	limits.is_volatile = true;
	return limits;
}

static int check_sizes(struct xd_disk *disk, const struct xd_limits *limits)
{
	const struct xd_limits *top = &disk->below[TOP]->limits;

	if (top->size < limits->size) {
		xd_error(disk,
			 "the top is smaller than the base: %" PRIu64
			 " and %" PRIu64 " bytes",
			 top->size, limits->size);
		return -EINVAL;
	}
	if (limits->size % limits->sector_size) {
		xd_error(disk,
			 "the size of the base, %" PRIu64
			 " bytes, is no multiple of the top's sectors of %u",
			 limits->size, limits->sector_size);
		return -EINVAL;
	}
	return 0;
}

static int cow_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	struct xd_limits limits = make_limits(disk);
	struct cow *cow;
	bool kept;
	int err = check_sizes(disk, &limits);

	if (err < 0)
		return err;
	cow = calloc(1, sizeof(*cow));
	if (!cow)
		return -ENOMEM;
	cow->sector = limits.sector_size;
	err = kept_map_open(&cow->map, disk, MAP_NAME,
			    limits.size / cow->sector, cow->sector, &kept);
	if (err < 0) {
		free(cow);
		return err;
	}
	xd_note(disk, "%s", kept ? "continues what it had" : "begins empty");
	disk->data = cow;
	*ret_limits = limits;
	return 0;
}

static void cow_close(struct xd_disk *disk)
{
	struct cow *cow = disk->data;

	kept_map_close(cow->map);
	free(cow);
}

/* The base is never written to, so it cannot be made larger from here; but the
 * disk follows one that has grown. */
static int cow_resize(struct xd_disk *disk, uint64_t size, uint64_t *ret_size)
{
	const struct cow *cow = disk->data;
	uint64_t base, top;
	int err = xd_resize(disk->below[BASE], 0, &base);

	if (err < 0)
		return err;
	base -= base % cow->sector;
	if (size > base) {
		xd_error(disk,
			 "its size is that of the base, %" PRIu64
			 " bytes, which is never written to: make that larger",
			 base);
		return -EOPNOTSUPP;
	}
	if (base > disk->below[TOP]->limits.size)
		err = xd_resize(disk->below[TOP], base, &top);
	if (err == 0)
		err = kept_map_grow(cow->map, disk, MAP_NAME,
				    base / cow->sector, cow->sector);
	if (err == 0)
		*ret_size = base;
	return err;
}

static void cow_resized(struct xd_disk *disk)
{
	const struct cow *cow = disk->data;

	kept_map_grown(cow->map);
}

static const struct xd_param cow_params[] = {
	{ "base", XD_DISK, XD_POSITIONAL | XD_REQUIRED | XD_READ_ONLY, NULL,
	  NULL, "what is read where nothing was written" },
	{ "top", XD_DISK,
	  XD_POSITIONAL | XD_REQUIRED | XD_WRITTEN | XD_TEMPORARY, NULL, NULL,
	  "where writes go; its content is lost at detach" },
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

XD_API const struct xd_backend xendisk_backend_v1 = {
	.size = sizeof(struct xd_backend),
	.version = XD_API_VERSION,
	.name = "cow",
	.summary = "writes go to the top, reads fall through to the base",
	.params = cow_params,
	.open = cow_open,
	.close = cow_close,
	.submit = cow_submit,
	.map = cow_map,
	.unmap = cow_unmap,
	.resize = cow_resize,
	.resized = cow_resized,
	.extents = cow_extents,
};
