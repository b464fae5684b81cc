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
 * see mem_lane_enter().
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/util.h"
#include "mem.h"

#define MAP_NAME   "map"
#define PAGES_NAME "pages"

static struct mem *mem_of(const struct xd_channel *ch)
{
	return ch->disk->data;
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
	uint64_t blocks = mem->file_size / MEM_BLOCK;
	uint64_t n;

	mem->paid = pages_in(mem->fd);
	for (uint64_t block = 0; block < blocks; block += n) {
		bool set;
		int err;

		n = kept_map_run(mem->map, block, blocks, &set);
		if (set) {
			err = mem_pay(disk, mem, n * MEM_BLOCK);
			if (err == 0)
				err = mem_reserve(mem, block, block + n);
			mem->used += n * MEM_BLOCK;
		} else {
			err = mem_punch(mem, block, block + n);
		}
		if (err < 0)
			return err;
	}
	mem_unpay(disk, mem, 0);
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
	uint64_t size = kept_map_blocks(mem->map) * MEM_BLOCK;

	if (size > mem->file_size) {
		mem->size = size;
		mem->file_size = size;
	}
}

static int open_pages(struct xd_disk *disk, struct mem *mem)
{
	bool kept_pages, kept_map, set = false;
	int err;

	err = kept_map_open(&mem->map, disk, MAP_NAME,
			    mem->file_size / MEM_BLOCK, MEM_BLOCK, &kept_map);
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
	if (!kept_pages &&
	    (kept_map_run(mem->map, 0, mem->file_size / MEM_BLOCK, &set) <
		     mem->file_size / MEM_BLOCK ||
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
		(void)munmap(mem->zeroes, MEM_ZEROES);
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
		.physical_sector_size = MEM_BLOCK,
		.discard_granularity = readonly ? 0 : MEM_BLOCK,
		.memory_alignment = 1,
		.readonly = readonly,
		.fua = !readonly,
		.zero = !readonly,
		.fast_zero = !readonly,
		.is_volatile = true,
	};
}

static int mem_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	uint64_t size = xd_arg_u64(disk, "size");
	struct mem *mem;
	int err;

	if (size == 0 || size > INT64_MAX - MEM_BLOCK) {
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
	mem->file_size = ALIGN_UP(size, (uint64_t)MEM_BLOCK);
	mem->epoch = 1;
	mem->zeroes = mmap(NULL, MEM_ZEROES, PROT_READ,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
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
	uint64_t whole = ALIGN_UP(size, (uint64_t)MEM_BLOCK);
	bool kept;
	int fd, err;

	if (size == 0) {
		*ret_size = mem->size;
		return 0;
	}
	whole = MAX(whole, mem->file_size + MEM_BLOCK);
	if (whole > INT64_MAX - MEM_BLOCK) {
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
		err = kept_map_grow(mem->map, disk, MAP_NAME, whole / MEM_BLOCK,
				    MEM_BLOCK);
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
	.extents = mem_extents,
};
