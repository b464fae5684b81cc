/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-keep.c - writes that the server has answered and no flush has covered
 * (unflushed=keep).
 *
 * Theory of operation
 *
 * A ring of records in kept memory, which outlives the worker: each is a head
 * and, for a write, its data.  What is between `tail` and `head` is sent again,
 * in this order, whenever a connection has been made anew (nbd-restore.c); a
 * flush moves the tail to where the head was when it began.
 *
 * The order is that in which the server answered.  Writes that overlap are never
 * under way at the same time, so where it matters it is the order in which they
 * were done.  FUA writes are in it, too: else an older one would be sent again
 * over them.  So are discards: what a guest has seen gone must not come back.
 *
 * `head` is stored last: a worker that is killed has kept a record as a whole or
 * not at all, and what it had not kept it had not answered.  The next worker
 * believes nothing of what it finds until nbd_keep_find() has walked over it.
 *
 * The file is mapped twice, one after the other, so that a record which goes
 * around the end is in one piece.  A disk with such a ring has one lane: nothing
 * is locked.
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/util.h"
#include "nbd.h"

#define KEEP_NAME  "unflushed"
#define KEEP_MAGIC 0x78646b65657031ull /* xdkeep1 */
/* The head of the file; a page, so that the rest can be mapped. */
#define RING_AT 65536u
#define UNIT	16u /* records begin at multiples */

struct keep_file {
	uint64_t magic;
	uint64_t size; /* of the ring */
	uint64_t head, tail; /* bytes, ever growing */
	uint64_t lost; /* 1: some of it was, and no flush has said so yet */
};

struct keep_record {
	uint32_t magic;
	uint32_t op; /* XD_WRITE, XD_ZERO, XD_DISCARD */
	uint64_t offset, length;
};
#define RECORD_MAGIC 0x78647265u

struct nbd_keep {
	struct keep_file *file;
	unsigned char *ring; /* twice */
	uint64_t size;
	uint64_t reserved; /* for writes that are under way */
};

static uint64_t room_of(enum xd_op op, uint64_t length)
{
	uint64_t data = op == XD_WRITE ? length : 0;

	return ALIGN_UP(sizeof(struct keep_record) + data, (uint64_t)UNIT);
}

/* --- Opening -------------------------------------------------------------- */

static int map_file(struct nbd_keep *keep, int fd)
{
	int prot = PROT_READ | PROT_WRITE;
	unsigned char *at;

	keep->file = mmap(NULL, RING_AT, prot, MAP_SHARED, fd, 0);
	if (keep->file == MAP_FAILED) {
		keep->file = NULL;
		return -errno;
	}
	at = mmap(NULL, 2 * keep->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		  -1, 0);
	if (at == MAP_FAILED)
		return -errno;
	keep->ring = at;
	for (unsigned int i = 0; i < 2; i++)
		if (mmap(at + i * keep->size, keep->size, prot,
			 MAP_SHARED | MAP_FIXED, fd, RING_AT) == MAP_FAILED)
			return -errno;
	return 0;
}

/* All of it is there from the start: a page that is missing when a write has
 * been answered would be the end of the worker. */
static int pay_and_reserve(struct xd_disk *disk, int fd, uint64_t bytes)
{
	struct stat st;
	uint64_t has;
	int r = 0;

	if (fstat(fd, &st) < 0)
		return -errno;
	has = (uint64_t)st.st_blocks * 512;
	if (has < bytes)
		r = xd_budget(disk, (int64_t)(bytes - has));
	if (r == 0 && fallocate(fd, 0, 0, (off_t)bytes) < 0)
		r = -errno;
	if (r < 0)
		xd_error(disk, "keep-limit: %" PRIu64 " bytes of memory: %s",
			 bytes,
			 r == -ENOSPC ? "no more is left" : strerror(-r));
	return r;
}

int nbd_keep_open(struct nbd_keep **ret, struct xd_disk *disk, uint64_t limit,
		  bool *ret_found)
{
	cleanup_close int fd = -1;
	struct nbd_keep *keep;
	int r;

	fd = xd_keep(disk, KEEP_NAME, XD_KEEP_PAGES, RING_AT + limit,
		     ret_found);
	if (fd < 0)
		return fd; /* xd_keep() has said why */
	r = pay_and_reserve(disk, fd, RING_AT + limit);
	if (r < 0)
		return r;
	keep = calloc(1, sizeof(*keep));
	if (!keep)
		return -ENOMEM;
	keep->size = limit;
	r = map_file(keep, fd);
	if (r < 0) {
		xd_error(disk, "keep-limit: %s", strerror(-r));
		nbd_keep_close(keep);
		return r;
	}
	*ret = keep;
	return 0;
}

void nbd_keep_close(struct nbd_keep *keep)
{
	if (!keep)
		return;
	if (keep->ring)
		(void)munmap(keep->ring, 2 * keep->size);
	if (keep->file)
		(void)munmap(keep->file, RING_AT);
	free(keep);
}

void nbd_keep_clear(struct nbd_keep *keep)
{
	struct keep_file *file = keep->file;

	file->magic = 0; /* worthless until it is complete */
	atomic_thread_fence(memory_order_release);
	file->size = keep->size;
	file->head = 0;
	file->tail = 0;
	file->lost = 0;
	atomic_thread_fence(memory_order_release);
	file->magic = KEEP_MAGIC;
}

/* --- Records -------------------------------------------------------------- */

uint64_t nbd_keep_mark(const struct nbd_keep *keep)
{
	return keep->file->head;
}

void nbd_keep_flushed(struct nbd_keep *keep, uint64_t mark)
{
	if (mark > keep->file->tail)
		keep->file->tail = mark;
}

void nbd_keep_set_lost(struct nbd_keep *keep, bool lost)
{
	__atomic_store_n(&keep->file->lost, lost, __ATOMIC_RELEASE);
}

bool nbd_keep_has_lost(const struct nbd_keep *keep)
{
	return keep->file->lost;
}

bool nbd_keep_reserve(struct nbd_keep *keep, enum xd_op op, uint64_t length)
{
	uint64_t used = keep->file->head - keep->file->tail;
	uint64_t room = room_of(op, length);

	if (used + keep->reserved + room > keep->size)
		return false;
	keep->reserved += room;
	return true;
}

void nbd_keep_unreserve(struct nbd_keep *keep, enum xd_op op, uint64_t length)
{
	keep->reserved -= room_of(op, length);
}

void nbd_keep_add(struct nbd_keep *keep, enum xd_op op, uint64_t offset,
		  uint64_t length, const struct iovec *iov, unsigned int iovcnt)
{
	struct keep_file *file = keep->file;
	unsigned char *to = keep->ring + file->head % keep->size;
	const struct keep_record record = { RECORD_MAGIC, op, offset, length };

	memcpy(to, &record, sizeof(record));
	to += sizeof(record);
	for (unsigned int i = 0; op == XD_WRITE && i < iovcnt; i++) {
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
	nbd_keep_unreserve(keep, op, length);
	__atomic_store_n(&file->head, file->head + room_of(op, length),
			 __ATOMIC_RELEASE);
}

bool nbd_keep_next(const struct nbd_keep *keep, uint64_t *io_at,
		   struct nbd_kept *ret)
{
	struct keep_record record;
	unsigned char *from;

	if (*io_at < keep->file->tail)
		*io_at = keep->file->tail;
	if (*io_at >= keep->file->head)
		return false;
	from = keep->ring + *io_at % keep->size;
	memcpy(&record, from, sizeof(record));
	*ret = (struct nbd_kept){ .op = record.op,
				  .offset = record.offset,
				  .length = record.length,
				  .data = from + sizeof(record) };
	*io_at += room_of(ret->op, record.length);
	return true;
}

/* --- What another worker has left ----------------------------------------- */

static bool is_sound(const struct nbd_keep *keep, uint64_t at, uint64_t size,
		     uint32_t sector)
{
	struct keep_record record;
	uint64_t left = keep->file->head - at;

	memcpy(&record, keep->ring + at % keep->size, sizeof(record));
	return left >= sizeof(record) && record.magic == RECORD_MAGIC &&
	       (record.op == XD_WRITE || record.op == XD_ZERO ||
		record.op == XD_DISCARD) &&
	       record.length > 0 && record.offset % sector == 0 &&
	       record.length % sector == 0 && record.offset < size &&
	       record.length <= size - record.offset &&
	       room_of(record.op, record.length) <= left;
}

int nbd_keep_find(struct nbd_keep *keep, uint64_t size, uint32_t sector)
{
	const struct keep_file *file = keep->file;
	struct nbd_kept kept;
	uint64_t at = file->tail;

	if (file->magic == 0 && file->head == 0)
		return 0; /* killed before it had begun */
	if (file->magic != KEEP_MAGIC || file->size != keep->size ||
	    file->tail > file->head || file->head - file->tail > keep->size ||
	    file->tail % UNIT)
		return -EBADMSG;
	while (at < file->head) {
		if (!is_sound(keep, at, size, sector))
			return -EBADMSG;
		(void)nbd_keep_next(keep, &at, &kept);
	}
	return 0;
}
