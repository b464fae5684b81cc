/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-command.c - what the server is told to do for a request.
 *
 * Data goes from and to the request's own memory, a command for each piece of
 * it.  Only what does not fill whole blocks of the server takes a detour
 * through a buffer: a read fetches the blocks and copies its part; a write
 * fetches the first and last block, puts its data in between, and writes all;
 * of zeroes (a server's blocks may have become larger) only the ends.
 *
 * Called back by libnbd, each command only takes note; the last one puts its
 * request where nbd_io_reap() finds it.
 */
#include "config.h"

#include <string.h>
#include <utlist.h>

#include "nbd-io.h"

/* A command without data may be longer, but its length has 32 bits. */
#define LONGEST_COMMAND (1u << 30)

/* Of a reply, or of the last chunk of one, without an error: what is not data, at
 * most.  From the NBD protocol document, "Transmission phase": 32 bytes before a
 * chunk with extended headers (which a libnbd from 1.18 on asks for; else 20), 8 before
 * its data, 12 of a hole. */
#define REPLY_BYTES 44u

/* --- Commands ------------------------------------------------------------- */

/* Hence what the socket has lost by it (see receive() in nbd-link.c). */
static uint64_t bytes_of_reply(struct nbd_io *io, int error)
{
	const struct xd_request *req = nbd_request_of(io);

	if (error || req->op == XD_EXTENTS)
		return UINT64_MAX;
	if (req->op == XD_READ || io->filling)
		return REPLY_BYTES + (io->end - io->begin);
	return REPLY_BYTES;
}

static int on_answer(void *data, int *error)
{
	struct nbd_io *io = data;

	io->link->took = bytes_of_reply(io, *error);
	if (*error == ENOTCONN || *error == ESHUTDOWN)
		io->lost = true;
	else
		io->link->answered = true;
	if (*error && !io->lost && !io->err)
		io->err = -*error;
	if (*error == ESHUTDOWN)
		io->link->leaving = true;
	if (--io->left == 0) {
		DL_DELETE(io->link->flying, io);
		DL_APPEND(io->link->over, io);
	}
	return 1; /* libnbd may forget it */
}

/* libnbd takes a reply that says "that is all" for a good one whatever was in it,
 * and what was in the memory before would pass for the server's data. */
static int on_chunk(void *data, const void *chunk, size_t length,
		    uint64_t offset, unsigned int status, int *error)
{
	struct nbd_io *io = data;

	(void)chunk;
	(void)offset;
	(void)error;
	if (status != LIBNBD_READ_ERROR)
		io->missing -= length;
	return 0;
}

/* What the server says of its blocks, from the first one on.  If the connection
 * breaks after it has said so, that has been said. */
static int on_extents(void *data, const char *context, uint64_t offset,
		      uint32_t *entries, size_t nr_entries, int *error)
{
	struct nbd_io *io = data;
	struct xd_request *req = nbd_request_of(io);
	bool more = *error == 0 && !io->told;

	(void)context;
	io->told = true;
	for (size_t i = 0; more && i + 1 < nr_entries; i += 2) {
		uint64_t end = offset + entries[i];
		uint64_t from = MAX(offset, req->offset);

		if (end > from)
			more = xd_extent(req, end - from,
					 entries[i + 1] & (XD_EXTENT_HOLE |
							   XD_EXTENT_ZERO));
		offset = end;
	}
	return 0;
}
_Static_assert(XD_EXTENT_HOLE == LIBNBD_STATE_HOLE &&
		       XD_EXTENT_ZERO == LIBNBD_STATE_ZERO,
	       "the same bits");

static uint32_t flags_of(const struct nbd_io *io, const struct xd_request *req)
{
	uint32_t flags = 0;
	bool writes = req->op == XD_WRITE || req->op == XD_ZERO;

	if (req->flags & XD_FUA || (writes && io->link->nbd->write_through))
		flags |= LIBNBD_CMD_FLAG_FUA;
	if (req->flags & XD_NO_HOLE)
		flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	if (req->flags & XD_FAST)
		flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
	return flags;
}

/* Gives one command to libnbd.  data: NULL where it has none. */
static void command(struct nbd_io *io, enum xd_op op, void *data,
		    uint64_t length, uint64_t offset, uint32_t flags)
{
	struct nbd_handle *h = io->link->h;
	nbd_completion_callback done = { .callback = on_answer,
					 .user_data = io };
	nbd_chunk_callback chunk = { .callback = on_chunk, .user_data = io };
	nbd_extent_callback extents = { .callback = on_extents,
					.user_data = io };
	int64_t cookie = -1;

	io->left++;
	switch (op) {
	case XD_READ:
		io->missing += length;
		cookie = nbd_aio_pread_structured(h, data, length, offset,
						  chunk, done, 0);
		break;
	case XD_WRITE:
		cookie = nbd_aio_pwrite(h, data, length, offset, done, flags);
		break;
	case XD_FLUSH:
		cookie = nbd_aio_flush(h, done, 0);
		break;
	case XD_DISCARD:
		cookie = nbd_aio_trim(h, length, offset, done, 0);
		break;
	case XD_ZERO:
		cookie = nbd_aio_zero(h, length, offset, done, flags);
		break;
	case XD_EXTENTS:
		cookie = nbd_aio_block_status(h, length, offset, extents, done,
					      0);
		break;
	}
	if (cookie >= 0)
		return;
	/* It was not taken, and on_answer() is not called. */
	io->left--;
	if (nbd_aio_is_dead(h) || nbd_aio_is_closed(h))
		io->lost = true;
	else if (!io->err)
		io->err = nbd_get_errno() ? -nbd_get_errno() : -EIO;
}

/* In commands of at most `most` bytes. */
static void commands(struct nbd_io *io, enum xd_op op, unsigned char *data,
		     uint64_t length, uint64_t offset, uint32_t most)
{
	uint32_t flags = flags_of(io, nbd_request_of(io));

	while (length > 0 && !io->lost) {
		uint64_t n = MIN(length, most);

		command(io, op, data, n, offset, flags);
		if (data)
			data += n;
		offset += n;
		length -= n;
	}
}

static void data_commands(struct nbd_io *io, const struct xd_request *req)
{
	uint32_t most = io->link->facts.maximum;
	uint64_t offset = req->offset;

	for (unsigned int i = 0; i < req->iovcnt; i++) {
		commands(io, req->op, req->iov[i].iov_base, req->iov[i].iov_len,
			 offset, most);
		offset += req->iov[i].iov_len;
	}
}

/* --- Parts of blocks ------------------------------------------------------ */

static void copy(struct nbd_io *io, const struct xd_request *req, bool out)
{
	unsigned char *at = io->bounce + (req->offset - io->begin);

	for (unsigned int i = 0; i < req->iovcnt; i++) {
		const struct iovec *iov = &req->iov[i];

		if (out)
			memcpy(iov->iov_base, at, iov->iov_len);
		else
			memcpy(at, iov->iov_base, iov->iov_len);
		at += iov->iov_len;
	}
}

/* The blocks at the ends of which a write has only a part. */
struct ends {
	bool head, tail;
	uint64_t last; /* where the block of the tail is */
	unsigned char *at; /* ... and where in the bounce buffer */
};

static struct ends ends_of(const struct nbd_io *io,
			   const struct xd_request *req)
{
	uint32_t block = io->link->facts.minimum;
	struct ends ends = { .last = io->end - block };

	ends.head = req->offset != io->begin;
	ends.tail = req->offset + req->length != io->end &&
		    (!ends.head || ends.last != io->begin);
	/* Of zeroes only the ends are in the buffer. */
	ends.at = io->bounce +
		  (req->op == XD_ZERO ? block : ends.last - io->begin);
	return ends;
}

static void fetch_ends(struct nbd_io *io, const struct xd_request *req)
{
	struct ends ends = ends_of(io, req);
	uint32_t block = io->link->facts.minimum;

	io->filling = true;
	if (ends.head)
		command(io, XD_READ, io->bounce, block, io->begin, 0);
	if (ends.tail)
		command(io, XD_READ, ends.at, block, ends.last, 0);
}

/* The ends have been fetched; what is between them is zeroed as a whole. */
static void zero_parts(struct nbd_io *io, const struct xd_request *req)
{
	uint64_t block = io->link->facts.minimum,
		 to = req->offset + req->length;
	uint64_t first = ALIGN_UP(req->offset, block);
	uint32_t flags = flags_of(io, req);
	struct ends ends = ends_of(io, req);

	if (ends.head) {
		memset(io->bounce + (req->offset - io->begin), 0,
		       MIN(first, to) - req->offset);
		command(io, XD_WRITE, io->bounce, block, io->begin,
			flags & LIBNBD_CMD_FLAG_FUA);
	}
	if (ends.tail) {
		memset(ends.at, 0, to - ends.last);
		command(io, XD_WRITE, ends.at, block, ends.last,
			flags & LIBNBD_CMD_FLAG_FUA);
	}
	to = to / block * block;
	if (first < to)
		commands(io, XD_ZERO, NULL, to - first, first, LONGEST_COMMAND);
}

static void part_commands(struct nbd_io *io, const struct xd_request *req)
{
	uint64_t room = req->op == XD_ZERO ? 2 * io->link->facts.minimum :
					     io->end - io->begin;

	if (!io->bounce)
		io->bounce = malloc(room);
	if (!io->bounce)
		io->err = -ENOMEM;
	else if (req->op != XD_READ)
		fetch_ends(io, req);
	else
		commands(io, XD_READ, io->bounce, io->end - io->begin,
			 io->begin, io->link->facts.maximum);
}

void nbd_write_back(struct nbd_io *io, const struct xd_request *req)
{
	io->filling = false;
	if (req->op == XD_ZERO) {
		zero_parts(io, req);
		return;
	}
	copy(io, req, false);
	commands(io, XD_WRITE, io->bounce, io->end - io->begin, io->begin,
		 io->link->facts.maximum);
}

/* Of whole blocks?  A command for each piece, so each has to be, too. */
bool nbd_is_whole(const struct nbd_io *io, const struct xd_request *req)
{
	uint32_t block = io->link->facts.minimum;

	if (io->begin != req->offset || io->end != req->offset + req->length)
		return false;
	for (unsigned int i = 0; i < req->iovcnt; i++)
		if (req->iov[i].iov_len & (block - 1))
			return false;
	return true;
}

void nbd_make_commands(struct nbd_io *io, const struct xd_request *req)
{
	bool whole = nbd_is_whole(io, req);

	if (req->op == XD_FLUSH) {
		io->written = atomic_load(&io->link->nbd->written);
		if (io->link->nbd->keep)
			io->mark = nbd_keep_mark(io->link->nbd->keep);
		command(io, XD_FLUSH, NULL, 0, 0, 0);
		return;
	}
	if (req->op == XD_EXTENTS)
		command(io, XD_EXTENTS, NULL,
			MIN(io->end - io->begin, LONGEST_COMMAND), io->begin,
			0);
	else if (req->op == XD_DISCARD || (req->op == XD_ZERO && whole))
		commands(io, req->op, NULL, io->end - io->begin, io->begin,
			 LONGEST_COMMAND);
	else if (whole)
		data_commands(io, req);
	else
		part_commands(io, req);
}

void nbd_copy_part(struct nbd_io *io, const struct xd_request *req)
{
	copy(io, req, true);
}
