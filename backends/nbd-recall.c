/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-recall.c - does the server still have what it has answered?
 * (unflushed=check)
 *
 * Theory of operation
 *
 * A server that died may have lost writes that no flush had covered.  A disk may
 * do that when its power fails, but this guest's power has not: it goes on, and
 * when it flushes it is told that all is on stable storage.  So some of what the
 * server has answered is remembered, as fingerprints of blocks, and read back on
 * each new connection before that is used (nbd-restore.c).  A block that is
 * another one by now means that the server has forgotten: the next flush fails.
 *
 * A block has one place in the table.  While that says something of another one that
 * no flush has covered, only one write in some takes it over: a fingerprint is a
 * twentieth of the CPU that a write of 4 KiB costs, and of writes without end the
 * latest few milliseconds would be remembered.
 *
 * When a write is sent its blocks are struck out, when it is answered its first whole
 * block is noted; so a note is never of a block that is being written to, and one
 * that a write has struck out while it was read back means nothing.  What was flushed
 * since means nothing either.
 *
 * That is a sample: it notices a server that lost its cache, surely enough, and
 * not every write.  unflushed=keep is for those that need them all.
 *
 * The table is kept state, so that it also holds when the worker died with the
 * server.  A note is made in an order in which a half-made one is none.  Any
 * lane, under the disk's lock.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "common/util.h"
#include "nbd.h"

#define RECALL_NAME  "recall"
#define RECALL_MAGIC 0x78647265631ull

/* Of so many writes one takes over the place of another that no flush has covered. */
#define TAKES_OVER 8u

struct note {
	uint64_t block; /* and 1; 0: none */
	uint64_t print;
	uint64_t written; /* the count, when it was answered */
};

struct nbd_recall {
	uint64_t magic;
	uint64_t flushed; /* notes up to this count are settled */
	uint64_t reserved[2];
	struct note notes[NBD_RECALL_NOTES];
};

/* --- Fingerprints --------------------------------------------------------- */

/* 64 bits are enough against chance, and nobody else has a say in it. */
static uint64_t fingerprint(const unsigned char *block)
{
	uint64_t sum[4] = { 1, 2, 3, 4 }, word;

	for (size_t i = 0; i < NBD_RECALL_BLOCK; i += sizeof(word)) {
		uint64_t *s = &sum[i / sizeof(word) % ARRAY_SIZE(sum)];

		memcpy(&word, block + i, sizeof(word));
		*s = (*s ^ word) * 0x9e3779b97f4a7c15ull;
		*s ^= *s >> 29;
	}
	for (size_t i = 1; i < ARRAY_SIZE(sum); i++)
		sum[0] = (sum[0] ^ sum[i]) * 0xbf58476d1ce4e5b9ull;
	return sum[0];
}

static struct note *place_of(struct nbd_recall *recall, uint64_t block)
{
	return &recall->notes[block % NBD_RECALL_NOTES];
}

/* --- Opening -------------------------------------------------------------- */

int nbd_recall_open(struct nbd_recall **ret, struct xd_disk *disk)
{
	struct nbd_recall *recall = NULL;
	cleanup_close int fd = -1;
	bool kept;
	int r;

	fd = xd_keep(disk, RECALL_NAME, XD_KEEP_STATE, sizeof(*recall), &kept);
	if (fd < 0)
		return fd; /* xd_keep() has said why */
	r = reserve_room(fd, 0, sizeof(*recall));
	if (r == 0)
		recall = mmap(NULL, sizeof(*recall), PROT_READ | PROT_WRITE,
			      MAP_SHARED, fd, 0);
	if (r == 0 && recall == MAP_FAILED)
		r = -errno;
	if (r < 0) {
		xd_error(disk, "kept state: %s", strerror(-r));
		return r;
	}
	*ret = recall;
	return 0;
}

void nbd_recall_close(struct nbd_recall *recall)
{
	if (recall)
		(void)munmap(recall, sizeof(*recall));
}

void nbd_recall_clear(struct nbd_recall *recall)
{
	memset(recall, 0, sizeof(*recall));
	recall->magic = RECALL_MAGIC;
}

/* Nonsense can only be about blocks that are not there, or of another content:
 * the first are left out, and the second are what the table is for. */
uint64_t nbd_recall_find(struct nbd_recall *recall)
{
	uint64_t last = 0;

	for (size_t i = 0; i < NBD_RECALL_NOTES; i++)
		if (recall->notes[i].block)
			last = MAX(last, recall->notes[i].written);
	last = MAX(last, recall->flushed);
	if (recall->magic == RECALL_MAGIC && last < INT64_MAX)
		return last;
	nbd_recall_clear(recall);
	return 0;
}

/* --- Notes ---------------------------------------------------------------- */

void nbd_recall_strike(struct nbd_recall *recall, uint64_t begin, uint64_t end)
{
	uint64_t first = begin / NBD_RECALL_BLOCK;
	uint64_t last = DIV_ROUND_UP(end, NBD_RECALL_BLOCK);

	if (last - first > NBD_RECALL_NOTES) {
		for (size_t i = 0; i < NBD_RECALL_NOTES; i++)
			if (recall->notes[i].block > first &&
			    recall->notes[i].block <= last)
				recall->notes[i].block = 0;
		return;
	}
	for (uint64_t block = first; block < last; block++)
		if (place_of(recall, block)->block == block + 1)
			place_of(recall, block)->block = 0;
}

/* Bytes from .. from + NBD_RECALL_BLOCK of the data. */
static void gather(const struct iovec *iov, uint64_t from, unsigned char *to)
{
	size_t left = NBD_RECALL_BLOCK;

	for (; left > 0; iov++) {
		size_t n;

		if (from >= iov->iov_len) {
			from -= iov->iov_len;
			continue;
		}
		n = MIN(iov->iov_len - from, left);
		memcpy(to, (unsigned char *)iov->iov_base + from, n);
		to += n;
		left -= n;
		from = 0;
	}
}

/* Does it say something that no flush has covered? */
static bool is_open(const struct nbd_recall *recall, const struct note *note)
{
	return note->block && note->written > recall->flushed;
}

static uint64_t fingerprint_of(const struct xd_request *req, uint64_t from)
{
	const struct iovec *first = &req->iov[0];
	unsigned char buf[NBD_RECALL_BLOCK];

	if (from + NBD_RECALL_BLOCK <= first->iov_len)
		return fingerprint((unsigned char *)first->iov_base + from);
	gather(req->iov, from, buf);
	return fingerprint(buf);
}

void nbd_recall_note(struct nbd_recall *recall, const struct xd_request *req,
		     uint64_t written)
{
	uint64_t at = ALIGN_UP(req->offset, (uint64_t)NBD_RECALL_BLOCK);
	struct note *note = place_of(recall, at / NBD_RECALL_BLOCK);

	if (at + NBD_RECALL_BLOCK > req->offset + req->length ||
	    (is_open(recall, note) && written % TAKES_OVER))
		return;
	__atomic_store_n(&note->block, 0, __ATOMIC_RELEASE);
	note->print = fingerprint_of(req, at - req->offset);
	note->written = written;
	__atomic_store_n(&note->block, at / NBD_RECALL_BLOCK + 1,
			 __ATOMIC_RELEASE);
}

void nbd_recall_flushed(struct nbd_recall *recall, uint64_t written)
{
	recall->flushed = MAX(recall->flushed, written);
}

/* --- Reading back --------------------------------------------------------- */

bool nbd_recall_next(const struct nbd_recall *recall, unsigned int *io_at,
		     uint64_t size, struct nbd_recalled *ret)
{
	for (; *io_at < NBD_RECALL_NOTES; ++*io_at) {
		const struct note *note = &recall->notes[*io_at];
		uint64_t block = note->block - 1;

		if (!is_open(recall, note) || block >= size / NBD_RECALL_BLOCK)
			continue;
		*ret = (struct nbd_recalled){ .place = (*io_at)++,
					      .offset =
						      block * NBD_RECALL_BLOCK,
					      .written = note->written };
		return true;
	}
	return false;
}

bool nbd_recall_differs(const struct nbd_recall *recall,
			const struct nbd_recalled *recalled,
			const unsigned char *block)
{
	const struct note *note = &recall->notes[recalled->place];

	return note->block == recalled->offset / NBD_RECALL_BLOCK + 1 &&
	       note->written == recalled->written &&
	       note->written > recall->flushed &&
	       note->print != fingerprint(block);
}
