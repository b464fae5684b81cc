/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mem.c - a disk in memory that takes as much as was written to it.
 *
 * The pages are a file of xd_keep(), mapped here and lent to the host, so that
 * a guest's data is copied once.  A map in kept state says which blocks exist.
 * A block is a page: the least that the file can hold and free again, and what
 * guests' file systems write; so the memory used is the memory written, for
 * 32 KiB of map per GiB of disk.
 *
 *   - A block that does not exist is never touched: reads of it are lent the
 *     kernel's zero page.  (To read a hole in a mapping is to fill it.)
 *   - Before its first write a block is paid for (xd_budget()), reserved
 *     (fallocate()) and marked in the map, in this order; so no access can
 *     meet a page that is not there, which would be a SIGBUS, and a worker
 *     that is killed in between has reserved too much at worst.
 *   - To discard is the reverse: mark, wait until no reader that may have seen
 *     the old mark is left, free the pages, get the money back.
 *
 * Lanes share the mapping and the map.  Allocation is under a lock; the fast
 * path, blocks that exist, takes none.  The host keeps writes and discards that
 * overlap apart, but reads may race with anything: hence the wait for readers,
 * see lane_enter().
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/crash.h"
#include "common/util.h"
#include "kept-map.h"
#include "xendisk-backend.h"

#define MAP_NAME   "map"
#define PAGES_NAME "pages"

#define BLOCK  4096u
#define ZEROES (1u << 20) /* bytes of zero page lent in one piece */
/* Budget is asked for, and returned, in larger pieces: it may take a moment. */
#define BUDGET (16u << 20)
/* How often a discard looks whether the readers have gone: ns. */
#define READERS_NS 100000

struct mem_lane {
	struct mem_lane *next;
	/* The epoch in which this lane began to read; 0: it does not. */
	uint64_t reading;
	unsigned int readers; /* loans that are out; the lane's own */
};

/* The kept pages in our memory. */
struct mapping {
	char *pages;
	uint64_t size;
	struct mapping *older; /* a request in flight may still have part of it */
};

/* disk->data */
struct mem {
	int fd;
	uint64_t size;
	uint64_t file_size; /* whole blocks */
	char *pages; /* of the mapping below */
	struct mapping *mapping;
	struct mapping *next; /* resize() has made it, resized() takes it */
	char *zeroes;
	struct kept_map *map;
	struct mem_lane *lanes;
	uint64_t epoch; /* grows with each discard; from 1 */
	pthread_mutex_t lock; /* allocation: the two below */
	uint64_t used; /* bytes of blocks that exist */
	uint64_t paid; /* bytes of budget taken, at least used */
};

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

/* --- Readers ------------------------------------------------------------- */

/*
 * A reader announces itself, then looks at the map; a discard changes the map,
 * then looks for readers.  Both are sequentially consistent, so either the
 * reader sees the change or the discard sees the reader.
 */
static void lane_enter(const struct mem *mem, struct mem_lane *lane)
{
	if (lane->readers++ == 0)
		__atomic_store_n(&lane->reading,
				 __atomic_load_n(&mem->epoch, __ATOMIC_SEQ_CST),
				 __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void lane_leave(struct mem_lane *lane)
{
	if (--lane->readers == 0)
		__atomic_store_n(&lane->reading, 0, __ATOMIC_SEQ_CST);
}

static uint64_t new_epoch(struct mem *mem)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_add_fetch(&mem->epoch, 1, __ATOMIC_SEQ_CST);
}

/* Have all who began to read before the epoch come to an end? */
static bool readers_gone(const struct mem *mem, uint64_t epoch)
{
	for (const struct mem_lane *lane = mem->lanes; lane;
	     lane = lane->next) {
		uint64_t since =
			__atomic_load_n(&lane->reading, __ATOMIC_SEQ_CST);

		if (since != 0 && since < epoch)
			return false;
	}
	return true;
}

/* --- Allocation ---------------------------------------------------------- */

/* Pays for more bytes; the lock is held. */
static int pay(struct xd_disk *disk, struct mem *mem, uint64_t more)
{
	uint64_t least;
	int err;

	if (mem->used + more <= mem->paid)
		return 0;
	least = mem->used + more - mem->paid;
	err = xd_budget(disk, (int64_t)MAX(least, BUDGET));
	if (err == 0) {
		mem->paid += MAX(least, BUDGET);
		return 0;
	}
	if (least < BUDGET)
		err = xd_budget(disk, (int64_t)least);
	if (err == 0)
		mem->paid += least;
	return err;
}

/* bytes of blocks are no more; keeps some budget for the next ones. */
static void unpay(struct xd_disk *disk, struct mem *mem, uint64_t bytes)
{
	uint64_t spare;

	pthread_mutex_lock(&mem->lock);
	mem->used -= bytes;
	spare = mem->paid - mem->used;
	if (spare > 2 * BUDGET &&
	    xd_budget(disk, -(int64_t)(spare - BUDGET)) == 0)
		mem->paid = mem->used + BUDGET;
	pthread_mutex_unlock(&mem->lock);
}

static int reserve(const struct mem *mem, uint64_t block, uint64_t end)
{
	int r;

	do
		r = fallocate(mem->fd, FALLOC_FL_KEEP_SIZE,
			      (off_t)(block * BLOCK),
			      (off_t)((end - block) * BLOCK));
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int punch(const struct mem *mem, uint64_t block, uint64_t end)
{
	return fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)(block * BLOCK),
			 (off_t)((end - block) * BLOCK)) < 0 ?
		       -errno :
		       0;
}

/* Reserves and maps pages in one go, where Linux (5.14) can: half the work of a
 * page fault for each.  Which of them it has made when it fails is not known. */
static int make_pages(const struct mem *mem, uint64_t block, uint64_t end)
{
	int err;

#ifdef MADV_POPULATE_WRITE
	if (madvise(mem->pages + block * BLOCK, (end - block) * BLOCK,
		    MADV_POPULATE_WRITE) == 0)
		return 0;
#endif
	err = reserve(mem, block, end);
	if (err < 0)
		(void)punch(mem, block, end);
	return err;
}

/* A run of blocks that do not exist; the lock is held. */
static int make_run(struct xd_disk *disk, struct mem *mem, uint64_t block,
		    uint64_t end)
{
	uint64_t made = 0;
	int err = pay(disk, mem, (end - block) * BLOCK);

	CRASH_POINT(blocks_paid);
	if (err == 0)
		err = make_pages(mem, block, end);
	CRASH_POINT(blocks_made);
	if (err == 0)
		err = kept_map_set(mem->map, block, end, &made);
	CRASH_POINT(blocks_marked);
	mem->used += made * BLOCK;
	return err;
}

/* Makes all blocks from .. to bytes exist. */
static int make_blocks(struct xd_disk *disk, uint64_t from, uint64_t to)
{
	struct mem *mem = disk->data;
	uint64_t block = from / BLOCK;
	uint64_t end = DIV_ROUND_UP(to, BLOCK);
	int err = 0;

	if (kept_map_all(mem->map, block, end))
		return 0;
	pthread_mutex_lock(&mem->lock);
	while (block < end && err == 0) {
		bool set;
		uint64_t n = kept_map_run(mem->map, block, end, &set);

		if (!set)
			err = make_run(disk, mem, block, block + n);
		block += n;
	}
	pthread_mutex_unlock(&mem->lock);
	return err;
}

/* --- READ and WRITE ------------------------------------------------------ */

/* The memory of the bytes at offset, up to the next block of another kind or
 * to end; *ret_length says how many. */
static char *find(const struct mem *mem, uint64_t offset, uint64_t end,
		  uint64_t *ret_length)
{
	uint64_t block = offset / BLOCK;
	bool set;
	uint64_t n =
		kept_map_run(mem->map, block, DIV_ROUND_UP(end, BLOCK), &set);
	uint64_t length = MIN((block + n) * BLOCK, end) - offset;

	*ret_length = set ? length : MIN(length, ZEROES);
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

static int mem_map(struct xd_channel *ch, struct xd_request *req,
		   struct iovec *ret_iov, unsigned int *io_iovcnt)
{
	struct mem *mem = mem_of(ch);
	unsigned int n;

	if (req->op == XD_WRITE) {
		/* What has failed is held by the host if submitted. */
		if (make_blocks(ch->disk, req->offset,
				req->offset + req->length) < 0)
			return -EOPNOTSUPP;
		ret_iov[0] =
			(struct iovec){ mem->pages + req->offset, req->length };
		*io_iovcnt = 1;
		return 0;
	}
	lane_enter(mem, ch->data);
	n = find_all(mem, req, ret_iov, *io_iovcnt);
	if (n == 0) {
		lane_leave(ch->data);
		return -EOPNOTSUPP;
	}
	*io_iovcnt = n;
	return 0;
}

static void mem_unmap(struct xd_channel *ch, struct xd_request *req, int err)
{
	(void)err;
	if (req->op == XD_READ)
		lane_leave(ch->data);
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
		unpay(io->ch->disk, mem_of(io->ch), io->freed);
	xd_complete(request_of(sys), (int)res);
}

/* Waits until nobody reads the blocks, then frees their pages. */
static void free_blocks(struct xd_sys *sys, int64_t res)
{
	struct mem_io *io = container_of(sys, struct mem_io, sys);
	const struct mem *mem = mem_of(io->ch);

	(void)res;
	if (readers_gone(mem, io->epoch)) {
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
	*ret_from = ALIGN_UP(req->offset, (uint64_t)BLOCK);
	*ret_to = end / BLOCK * BLOCK;
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
	err = kept_map_clear(mem->map, io->from / BLOCK, io->to / BLOCK,
			     &changed);
	CRASH_POINT(discard_marked);
	io->freed = changed * BLOCK;
	if (err < 0) {
		unpay(ch->disk, mem, io->freed);
		xd_complete(req, err);
		return;
	}
	io->epoch = new_epoch(mem);
	free_blocks(&io->sys, 0);
}

static int zero_in_place(struct xd_channel *ch, const struct xd_request *req)
{
	uint64_t end = req->offset + req->length;
	int err = make_blocks(ch->disk, req->offset, end);

	if (err == 0)
		wipe(mem_of(ch), req->offset, end);
	return err;
}

static void mem_submit(struct xd_channel *ch, struct xd_request *req)
{
	struct mem *mem = mem_of(ch);
	int err = 0;

	switch (req->op) {
	case XD_READ:
		lane_enter(mem, ch->data);
		copy_out(mem, req);
		lane_leave(ch->data);
		break;
	case XD_WRITE:
		err = make_blocks(ch->disk, req->offset,
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
		err = zero_in_place(ch, req);
		break;
	case XD_DISCARD:
		discard(ch, req);
		return;
	}
	xd_complete(req, err);
}

/* --- Open and close ------------------------------------------------------ */

static uint64_t pages_in(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

/*
 * Makes the pages agree with the map: those of other blocks are freed, those
 * missing are made, so that a map that was tampered with leads to no page that
 * is not there.  The account begins with what the kept pages take already.
 */
static int settle(struct xd_disk *disk, struct mem *mem)
{
	uint64_t blocks = mem->file_size / BLOCK;
	uint64_t n;

	mem->paid = pages_in(mem->fd);
	for (uint64_t block = 0; block < blocks; block += n) {
		bool set;
		int err;

		n = kept_map_run(mem->map, block, blocks, &set);
		if (set) {
			err = pay(disk, mem, n * BLOCK);
			if (err == 0)
				err = reserve(mem, block, block + n);
			mem->used += n * BLOCK;
		} else {
			err = punch(mem, block, block + n);
		}
		if (err < 0)
			return err;
	}
	unpay(disk, mem, 0);
	return 0;
}

static int map_pages(struct xd_disk *disk, int fd, uint64_t size,
		     struct mapping **ret)
{
	struct mapping *mapping = calloc(1, sizeof(*mapping));
	int err = mapping ? 0 : -ENOMEM;

	if (mapping) {
		mapping->size = size;
		mapping->pages = mmap(NULL, size, PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_NORESERVE, fd, 0);
		if (mapping->pages == MAP_FAILED)
			err = -errno;
	}
	if (err < 0) {
		xd_error(disk, "cannot map %" PRIu64 " bytes: %s", size,
			 strerror(-err));
		free(mapping);
		return err;
	}
	*ret = mapping;
	return 0;
}

/* And all older ones. */
static void unmap_pages(struct mapping *mapping)
{
	struct mapping *older;

	for (; mapping; mapping = older) {
		older = mapping->older;
		(void)munmap(mapping->pages, mapping->size);
		free(mapping);
	}
}

/* The map was made for more: the disk has grown since it was attached. */
static void take_size_of_map(struct mem *mem)
{
	uint64_t size = kept_map_blocks(mem->map) * BLOCK;

	if (size > mem->file_size) {
		mem->size = size;
		mem->file_size = size;
	}
}

static int open_pages(struct xd_disk *disk, struct mem *mem)
{
	bool kept_pages, kept_map, set = false;
	int err;

	err = kept_map_open(&mem->map, disk, MAP_NAME, mem->file_size / BLOCK,
			    BLOCK, &kept_map);
	if (err < 0)
		return err;
	take_size_of_map(mem);
	mem->fd = xd_keep(disk, PAGES_NAME, XD_KEEP_PAGES, mem->file_size,
			  &kept_pages);
	if (mem->fd < 0) {
		xd_error(disk, "no memory for the disk: %s",
			 strerror(-mem->fd));
		return mem->fd;
	}
	if (!kept_pages && (kept_map_run(mem->map, 0, mem->file_size / BLOCK,
					 &set) < mem->file_size / BLOCK ||
			    set)) {
		xd_error(disk, "the memory of the disk is gone: detach it");
		return -ENODATA;
	}
	err = map_pages(disk, mem->fd, mem->file_size, &mem->mapping);
	if (err < 0)
		return err;
	mem->pages = mem->mapping->pages;
	err = settle(disk, mem);
	if (err < 0)
		xd_error(disk, "cannot take back the disk's memory: %s",
			 strerror(-err));
	return err;
}

static void mem_free(struct mem *mem)
{
	unmap_pages(mem->mapping);
	unmap_pages(mem->next);
	if (mem->zeroes != MAP_FAILED)
		(void)munmap(mem->zeroes, ZEROES);
	if (mem->fd >= 0)
		(void)close(mem->fd);
	kept_map_close(mem->map);
	pthread_mutex_destroy(&mem->lock);
	free(mem);
}

static struct xd_limits make_limits(const struct xd_disk *disk, uint64_t size)
{
	bool readonly = xd_readonly(disk);

	return (struct xd_limits){
		.size = size,
		.sector_size = 512,
		.physical_sector_size = BLOCK,
		.discard_granularity = readonly ? 0 : BLOCK,
		.memory_alignment = 1,
		.readonly = readonly,
		.fua = !readonly,
		.zero = !readonly,
		.is_volatile = true,
	};
}

static int mem_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	uint64_t size = xd_arg_u64(disk, "size");
	struct mem *mem;
	int err;

	if (size == 0 || size > INT64_MAX - BLOCK) {
		xd_error(disk,
			 size ? "the size is too large" : "the size is 0");
		return -EINVAL;
	}
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return -ENOMEM;
	pthread_mutex_init(&mem->lock, NULL);
	mem->fd = -1;
	mem->size = size;
	mem->file_size = ALIGN_UP(size, (uint64_t)BLOCK);
	mem->epoch = 1;
	mem->zeroes = mmap(NULL, ZEROES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
	err = mem->zeroes == MAP_FAILED ? -ENOMEM : open_pages(disk, mem);
	if (err < 0) {
		mem_free(mem);
		return err;
	}
	disk->data = mem;
	*ret_limits = make_limits(disk, mem->size);
	return 0;
}

static void mem_close(struct xd_disk *disk)
{
	mem_free(disk->data);
}

/* --- Growing ------------------------------------------------------------- */

/*
 * Pages first, then the map: its header is what says how large the disk is, to
 * the next worker too.  In whole blocks, and one more at least, so that the map
 * can tell.
 */
static int mem_resize(struct xd_disk *disk, uint64_t size, uint64_t *ret_size)
{
	struct mem *mem = disk->data;
	uint64_t whole = ALIGN_UP(size, (uint64_t)BLOCK);
	bool kept;
	int fd, err;

	if (size == 0) {
		*ret_size = mem->size;
		return 0;
	}
	whole = MAX(whole, mem->file_size + BLOCK);
	if (whole > INT64_MAX - BLOCK) {
		xd_error(disk, "the size is too large");
		return -EINVAL;
	}
	unmap_pages(TAKE_PTR(mem->next));
	fd = xd_keep(disk, PAGES_NAME, XD_KEEP_PAGES, whole, &kept);
	if (fd < 0)
		return fd; /* xd_keep() has said why */
	err = map_pages(disk, fd, whole, &mem->next);
	(void)close(fd);
	if (err == 0)
		err = kept_map_grow(mem->map, disk, MAP_NAME, whole / BLOCK,
				    BLOCK);
	if (err == 0)
		*ret_size = whole;
	return err;
}

/* The older mapping stays: a copy to or from it may be under way. */
static void mem_resized(struct xd_disk *disk)
{
	struct mem *mem = disk->data;

	mem->next->older = mem->mapping;
	mem->mapping = TAKE_PTR(mem->next);
	mem->pages = mem->mapping->pages;
	mem->file_size = mem->mapping->size;
	mem->size = mem->file_size;
	kept_map_grown(mem->map);
}

static int mem_channel_open(struct xd_channel *ch)
{
	struct mem *mem = mem_of(ch);
	struct mem_lane *lane = calloc(1, sizeof(*lane));

	if (!lane)
		return -ENOMEM;
	lane->next = mem->lanes;
	mem->lanes = lane;
	ch->data = lane;
	return 0;
}

static void mem_channel_close(struct xd_channel *ch)
{
	struct mem_lane **p = &mem_of(ch)->lanes;

	while (*p != ch->data)
		p = &(*p)->next;
	*p = (*p)->next;
	free(ch->data);
}

static const struct xd_param mem_params[] = {
	{ "size", XD_SIZE,
	  XD_POSITIONAL | XD_WHOLE_SECTORS | XD_SIZE_OF_SIBLING, NULL, NULL,
	  "size of the disk" },
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

XD_API const struct xd_backend xendisk_backend_v1 = {
	.size = sizeof(struct xd_backend),
	.version = XD_API_VERSION,
	.name = "mem",
	.summary = "memory, as much as was written",
	.params = mem_params,
	.open = mem_open,
	.close = mem_close,
	.channel_open = mem_channel_open,
	.channel_close = mem_channel_close,
	.submit = mem_submit,
	.map = mem_map,
	.unmap = mem_unmap,
	.resize = mem_resize,
	.resized = mem_resized,
};
