/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mem.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>

#include "common/crash.h"
#include "common/util.h"

/* Budget is asked for, and returned, in larger pieces: it may take a moment. */
#define BUDGET (16u << 20)

/* --- Readers ------------------------------------------------------------- */

/*
 * A reader announces itself, then looks at the map; a discard changes the map,
 * then looks for readers.  Both are sequentially consistent, so either the
 * reader sees the change or the discard sees the reader.
 */
void mem_lane_enter(const struct mem *mem, struct mem_lane *lane)
{
	if (lane->readers++ == 0)
		__atomic_store_n(&lane->reading,
				 __atomic_load_n(&mem->epoch, __ATOMIC_SEQ_CST),
				 __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void mem_lane_leave(struct mem_lane *lane)
{
	if (--lane->readers == 0)
		__atomic_store_n(&lane->reading, 0, __ATOMIC_SEQ_CST);
}

uint64_t mem_new_epoch(struct mem *mem)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_add_fetch(&mem->epoch, 1, __ATOMIC_SEQ_CST);
}

/* Have all who began to read before the epoch come to an end? */
bool mem_readers_gone(const struct mem *mem, uint64_t epoch)
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

int mem_pay(struct xd_disk *disk, struct mem *mem, uint64_t more)
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

void mem_unpay(struct xd_disk *disk, struct mem *mem, uint64_t bytes)
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

int mem_reserve(const struct mem *mem, uint64_t block, uint64_t end)
{
	int r;

	do
		r = fallocate(mem->fd, FALLOC_FL_KEEP_SIZE,
			      (off_t)(block * MEM_BLOCK),
			      (off_t)((end - block) * MEM_BLOCK));
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

int mem_punch(const struct mem *mem, uint64_t block, uint64_t end)
{
	return fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)(block * MEM_BLOCK),
			 (off_t)((end - block) * MEM_BLOCK)) < 0 ?
		       -errno :
		       0;
}

/* Reserves and maps pages in one go, where Linux (5.14) can: half the work of a
 * page fault for each.  Which of them it has made when it fails is not known. */
static int make_pages(const struct mem *mem, uint64_t block, uint64_t end)
{
	int err;

#ifdef MADV_POPULATE_WRITE
	if (madvise(mem->pages + block * MEM_BLOCK, (end - block) * MEM_BLOCK,
		    MADV_POPULATE_WRITE) == 0)
		return 0;
#endif
	err = mem_reserve(mem, block, end);
	if (err < 0)
		(void)mem_punch(mem, block, end);
	return err;
}

/* A run of blocks that do not exist; the lock is held. */
static int make_run(struct xd_disk *disk, struct mem *mem, uint64_t block,
		    uint64_t end)
{
	uint64_t made = 0;
	int err = mem_pay(disk, mem, (end - block) * MEM_BLOCK);

	CRASH_POINT(blocks_paid);
	if (err == 0)
		err = make_pages(mem, block, end);
	CRASH_POINT(blocks_made);
	if (err == 0)
		err = kept_map_set(mem->map, block, end, &made);
	CRASH_POINT(blocks_marked);
	mem->used += made * MEM_BLOCK;
	return err;
}

int mem_make_blocks(struct xd_disk *disk, uint64_t from, uint64_t to)
{
	struct mem *mem = disk->data;
	uint64_t block = from / MEM_BLOCK;
	uint64_t end = DIV_ROUND_UP(to, MEM_BLOCK);
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
