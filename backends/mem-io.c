/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mem-io.c - the data path of mem.  All of it belongs to the lane.
 */
#include "config.h"

#include "mem.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

#include "common/crash.h"
#include "common/util.h"

/* How often a discard looks whether the readers have gone: ns. */
#define READERS_NS 100000
/* Blocks of the map that are looked through for one answer. */
#define MAX_LOOK (16u << 20)

/* req->scratch, for DISCARD and ZERO. */
struct mem_io {
	struct xd_sys sys;
	struct xd_channel *ch;
	uint64_t from, to; /* the whole blocks in the range, bytes */
	uint64_t epoch;
	uint64_t freed; /* bytes */
};
_Static_assert(sizeof(struct mem_io) <= XD_SCRATCH, "scratch is too small");

static struct mem *mem_of(const struct xd_channel *ch)
{
	return ch->disk->data;
}

static struct mem_io *io_of(struct xd_request *req)
{
	return (struct mem_io *)(void *)req->scratch;
}

static struct xd_request *request_of(struct xd_sys *sys)
{
	return container_of((unsigned char *)sys, struct xd_request,
			    scratch[0]);
}

/* --- READ and WRITE ------------------------------------------------------ */

/* The memory of the bytes at offset, up to the next block of another kind or
 * to end; *ret_length says how many. */
static char *find(const struct mem *mem, uint64_t offset, uint64_t end,
		  uint64_t *ret_length)
{
	uint64_t block = offset / MEM_BLOCK;
	bool set;
	uint64_t n = kept_map_run(mem->map, block, DIV_ROUND_UP(end, MEM_BLOCK),
				  &set);
	uint64_t length = MIN((block + n) * MEM_BLOCK, end) - offset;

	*ret_length = set ? length : MIN(length, MEM_ZEROES);
	return set ? mem->pages + offset : mem->zeroes;
}

/* Fills ret_iov with what is to be read; 0: it takes more than max pieces. */
static unsigned int find_all(const struct mem *mem,
			     const struct xd_request *req,
			     struct iovec *ret_iov, unsigned int max)
{
	uint64_t end = req->offset + req->length;
	uint64_t length;
	unsigned int n = 0;

	for (uint64_t at = req->offset; at < end; at += length) {
		if (n == max)
			return 0;
		ret_iov[n].iov_base = find(mem, at, end, &length);
		ret_iov[n++].iov_len = length;
	}
	return n;
}

int mem_map(struct xd_channel *ch, struct xd_request *req,
	    struct iovec *ret_iov, unsigned int *io_iovcnt)
{
	struct mem *mem = mem_of(ch);
	unsigned int n;

	if (req->op == XD_WRITE) {
		/* What has failed is held by the host if submitted. */
		if (mem_make_blocks(ch->disk, req->offset,
				    req->offset + req->length) < 0)
			return -EOPNOTSUPP;
		ret_iov[0] =
			(struct iovec){ mem->pages + req->offset, req->length };
		*io_iovcnt = 1;
		return 0;
	}
	mem_lane_enter(mem, ch->data);
	n = find_all(mem, req, ret_iov, *io_iovcnt);
	if (n == 0) {
		mem_lane_leave(ch->data);
		return -EOPNOTSUPP;
	}
	*io_iovcnt = n;
	return 0;
}

void mem_unmap(struct xd_channel *ch, struct xd_request *req, int err)
{
	(void)err;
	if (req->op == XD_READ)
		mem_lane_leave(ch->data);
}

static void copy_out(const struct mem *mem, const struct xd_request *req)
{
	uint64_t at = req->offset;

	for (unsigned int i = 0; i < req->iovcnt; i++) {
		char *to = req->iov[i].iov_base;
		uint64_t end = at + req->iov[i].iov_len;
		uint64_t length;

		for (; at < end; at += length, to += length) {
			const char *from = find(mem, at, end, &length);

			memcpy(to, from, length);
		}
	}
}

static void copy_in(struct mem *mem, const struct xd_request *req)
{
	char *to = mem->pages + req->offset;

	for (unsigned int i = 0; i < req->iovcnt; i++) {
		memcpy(to, req->iov[i].iov_base, req->iov[i].iov_len);
		to += req->iov[i].iov_len;
	}
}

/* --- DISCARD and ZERO ---------------------------------------------------- */

static void free_done(struct xd_sys *sys, int64_t res)
{
	struct mem_io *io = container_of(sys, struct mem_io, sys);

	CRASH_POINT(discard_freed);
	if (res == -EINTR) {
		xd_sys(io->ch, sys);
		return;
	}
	if (res == 0)
		mem_unpay(io->ch->disk, mem_of(io->ch), io->freed);
	xd_complete(request_of(sys), (int)res);
}

/* Waits until nobody reads the blocks, then frees their pages. */
static void free_blocks(struct xd_sys *sys, int64_t res)
{
	struct mem_io *io = container_of(sys, struct mem_io, sys);
	const struct mem *mem = mem_of(io->ch);

	(void)res;
	if (mem_readers_gone(mem, io->epoch)) {
		sys->op = XD_SYS_FALLOCATE;
		sys->fd = mem->fd;
		sys->flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		sys->offset = io->from;
		sys->length = io->to - io->from;
		sys->done = free_done;
	} else {
		sys->op = XD_SYS_TIMER;
		sys->length = READERS_NS;
		sys->done = free_blocks;
	}
	xd_sys(io->ch, sys);
}

/* Zeroes what exists of a part of a block. */
static void wipe(struct mem *mem, uint64_t from, uint64_t to)
{
	uint64_t length;

	for (; from < to; from += length) {
		char *p = find(mem, from, to, &length);

		if (p != mem->zeroes)
			memset(p, 0, length);
	}
}

/* The blocks that lie in the range whole; the last of the disk may be cut. */
static void whole_blocks(const struct mem *mem, const struct xd_request *req,
			 uint64_t *ret_from, uint64_t *ret_to)
{
	uint64_t end = req->offset + req->length;

	if (end == mem->size)
		end = mem->file_size;
	*ret_from = ALIGN_UP(req->offset, (uint64_t)MEM_BLOCK);
	*ret_to = end / MEM_BLOCK * MEM_BLOCK;
}

/*
 * Pages are freed even where the map knows of none: a worker that was killed
 * in between has left them, and the request is repeated by the next one.
 */
static void discard(struct xd_channel *ch, struct xd_request *req)
{
	struct mem *mem = mem_of(ch);
	struct mem_io *io = io_of(req);
	uint64_t changed;
	int err;

	*io = (struct mem_io){ .ch = ch };
	whole_blocks(mem, req, &io->from, &io->to);
	if (io->from >= io->to) {
		if (req->op == XD_ZERO)
			wipe(mem, req->offset, req->offset + req->length);
		xd_complete(req, 0);
		return;
	}
	if (req->op == XD_ZERO) {
		wipe(mem, req->offset, io->from);
		wipe(mem, MIN(io->to, mem->size), req->offset + req->length);
	}
	err = kept_map_clear(mem->map, io->from / MEM_BLOCK, io->to / MEM_BLOCK,
			     &changed);
	CRASH_POINT(discard_marked);
	io->freed = changed * MEM_BLOCK;
	if (err < 0) {
		mem_unpay(ch->disk, mem, io->freed);
		xd_complete(req, err);
		return;
	}
	io->epoch = mem_new_epoch(mem);
	free_blocks(&io->sys, 0);
}

static int zero_in_place(struct xd_channel *ch, const struct xd_request *req)
{
	uint64_t end = req->offset + req->length;
	int err = mem_make_blocks(ch->disk, req->offset, end);

	if (err == 0)
		wipe(mem_of(ch), req->offset, end);
	return err;
}

void mem_submit(struct xd_channel *ch, struct xd_request *req)
{
	struct mem *mem = mem_of(ch);
	int err = 0;

	switch (req->op) {
	case XD_READ:
		mem_lane_enter(mem, ch->data);
		copy_out(mem, req);
		mem_lane_leave(ch->data);
		break;
	case XD_WRITE:
		err = mem_make_blocks(ch->disk, req->offset,
				      req->offset + req->length);
		if (err == 0)
			copy_in(mem, req);
		break;
	case XD_FLUSH:
		break;
	case XD_ZERO:
		if (!(req->flags & XD_NO_HOLE)) {
			discard(ch, req);
			return;
		}
		/* In place it is a write like any other. */
		err = req->flags & XD_FAST ? -EOPNOTSUPP :
					     zero_in_place(ch, req);
		break;
	case XD_DISCARD:
		discard(ch, req);
		return;
	case XD_EXTENTS: /* mem_extents() */
		break;
	}
	xd_complete(req, err);
}

/* --- EXTENTS ------------------------------------------------------------- */

void mem_extents(struct xd_channel *ch, struct xd_request *req)
{
	const struct mem *mem = mem_of(ch);
	uint64_t block = req->offset / MEM_BLOCK;
	uint64_t end = MIN(DIV_ROUND_UP(req->offset + req->length, MEM_BLOCK),
			   block + MAX_LOOK);
	uint64_t at = req->offset;
	bool more = true;

	while (more && block < end) {
		bool set;

		block += kept_map_run(mem->map, block, end, &set);
		more = xd_extent(req, block * MEM_BLOCK - at,
				 set ? 0 : XD_EXTENT_HOLE | XD_EXTENT_ZERO);
		at = block * MEM_BLOCK;
	}
	xd_complete(req, 0);
}
