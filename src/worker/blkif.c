/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkif.c - the judge of what guests ask.
 *
 * Theory of operation
 *
 * A request comes in one of two layouts that differ in where the fields behind
 * the first four bytes begin: x86_32 packs the 64-bit id at byte 4, everybody
 * else aligns it to byte 8.  From there on both are the same:
 *
 *   byte  rw, flush, barrier        discard         indirect
 *   0     operation                 operation       operation
 *   1     nr_segments               flag            indirect_op
 *   2     handle                    handle          nr_segments (16 bits)
 *   id    id
 *   +8    sector_number
 *   +16   segment[11]               nr_sectors      handle, 2 unused
 *   +20                                             indirect_grefs[8]
 *
 * A segment is gref (32 bits), first_sect, last_sect, 2 unused; an indirect
 * page is an array of them.  Sectors are 512 bytes, whatever sector-size is.
 *
 * The rules, in the order in which they must be applied: no arithmetic on a
 * number before it is known to be in range.  Nothing here asserts anything; a
 * guest can ask what it likes.
 */
#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#include "worker/blkif.h"

#include <assert.h>
#include <string.h>

#include <xen/xen.h>
#include <xen/io/blkif.h>

#define SEGMENT_BYTES	 8u
#define SECTORS_PER_PAGE (BLKIF_PAGE / BLKIF_SECTOR)
/* Fields behind the id, as offsets from it. */
#define AT_SECTOR     8u
#define AT_SEGMENTS   16u
#define AT_NR_SECTORS 16u
#define AT_GREFS      20u

static_assert((int)BLKIF_STATUS_OKAY == BLKIF_RSP_OKAY, "status");
static_assert((int)BLKIF_STATUS_ERROR == BLKIF_RSP_ERROR, "status");
static_assert((int)BLKIF_STATUS_UNSUPPORTED == BLKIF_RSP_EOPNOTSUPP, "status");
static_assert(BLKIF_DIRECT_MAX == BLKIF_MAX_SEGMENTS_PER_REQUEST, "segments");
/* So a list of segments never reaches into a second indirect page. */
static_assert(BLKIF_INDIRECT_MAX <= BLKIF_PAGE / SEGMENT_BYTES, "one page");

static const struct layout {
	uint8_t slot_size;
	uint8_t response_size;
	uint8_t id; /* where it begins in a request */
} layouts[] = {
	[BLKIF_X86_32] = { 108, 12, 4 },
	[BLKIF_X86_64] = { 112, 16, 8 },
};

size_t blkif_slot_size(enum blkif_layout layout)
{
	return layouts[layout].slot_size;
}

size_t blkif_response_size(enum blkif_layout layout)
{
	return layouts[layout].response_size;
}

static uint16_t get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* Sectors to a byte range inside the disk. */
static bool judge_range(const struct blkif_limits *limits, uint64_t sector,
			uint64_t sectors, uint64_t *ret_offset,
			uint64_t *ret_length)
{
	uint64_t capacity = limits->size / BLKIF_SECTOR;

	if (sector > capacity || sectors > capacity - sector)
		return false;
	*ret_offset = sector * BLKIF_SECTOR;
	*ret_length = sectors * BLKIF_SECTOR;
	return true;
}

/* One segment as the guest wrote it; returns its sectors, 0 when it is bad. */
static unsigned int judge_segment(const uint8_t *raw, struct blkif_segment *ret)
{
	uint8_t first = raw[4], last = raw[5];
	unsigned int sectors;

	if (last >= SECTORS_PER_PAGE || first > last)
		return 0;
	sectors = last - first + 1u;
	*ret = (struct blkif_segment){
		.gref = get32(raw),
		.offset = (uint16_t)(first * BLKIF_SECTOR),
		.length = (uint16_t)(sectors * BLKIF_SECTOR),
	};
	return sectors;
}

/*
 * The segments of a READ or WRITE, wherever they stand, and with them the
 * range on the disk.  raw and ret may be the same memory: an element is read
 * whole before it is written.
 */
static bool judge_data(const struct blkif_limits *limits, struct blkif_job *job,
		       uint64_t sector, const uint8_t *raw,
		       struct blkif_segment *ret)
{
	uint64_t sectors = 0;

	for (unsigned int i = 0; i < job->nr_segments; i++) {
		unsigned int n =
			judge_segment(raw + (size_t)i * SEGMENT_BYTES, &ret[i]);

		if (n == 0)
			return false;
		sectors += n;
	}
	return judge_range(limits, sector, sectors, &job->offset,
			   &job->length) &&
	       job->offset % limits->sector_size == 0 &&
	       job->length % limits->sector_size == 0;
}

static int16_t judge_rw(const struct blkif_limits *limits, const uint8_t *slot,
			const uint8_t *id, struct blkif_job *job)
{
	bool may_be_empty = job->action == BLKIF_FLUSH ||
			    job->action == BLKIF_BARRIER;

	job->nr_segments = slot[1];
	if (job->nr_segments > BLKIF_DIRECT_MAX)
		return BLKIF_STATUS_ERROR;
	if (job->nr_segments == 0)
		return may_be_empty ? BLKIF_STATUS_OKAY : BLKIF_STATUS_ERROR;
	if (job->action != BLKIF_READ && limits->readonly)
		return BLKIF_STATUS_ERROR;
	if (!judge_data(limits, job, get64(id + AT_SECTOR), id + AT_SEGMENTS,
			job->segments))
		return BLKIF_STATUS_ERROR;
	return BLKIF_STATUS_OKAY;
}

/* Part of a whole piece cannot be freed: round inwards, as blkback's block
 * layer does. */
static void round_inwards(const struct blkif_limits *limits,
			  struct blkif_job *job)
{
	uint64_t unit = limits->discard_granularity;
	uint64_t base = limits->discard_alignment % unit;
	uint64_t start = job->offset, end = job->offset + job->length;

	start = start <= base ? base :
				(start - base + unit - 1) / unit * unit + base;
	end = end <= base ? base : (end - base) / unit * unit + base;
	job->offset = start;
	job->length = end > start ? end - start : 0;
}

static int16_t judge_discard(const struct blkif_limits *limits,
			     const uint8_t *slot, const uint8_t *id,
			     struct blkif_job *job)
{
	if (limits->readonly)
		return BLKIF_STATUS_ERROR;
	/* A secure discard that is not one would be a lie; discard-secure is
	 * never offered. */
	if (limits->discard_granularity == 0 || slot[1] & BLKIF_DISCARD_SECURE)
		return BLKIF_STATUS_UNSUPPORTED;
	if (!judge_range(limits, get64(id + AT_SECTOR),
			 get64(id + AT_NR_SECTORS), &job->offset, &job->length))
		return BLKIF_STATUS_ERROR;
	round_inwards(limits, job);
	return BLKIF_STATUS_OKAY;
}

static int16_t judge_indirect(const struct blkif_limits *limits,
			      const uint8_t *slot, const uint8_t *id,
			      struct blkif_job *job)
{
	uint64_t sector = get64(id + AT_SECTOR);

	job->op = slot[1];
	job->nr_segments = get16(slot + 2);
	if (job->op != BLKIF_OP_READ && job->op != BLKIF_OP_WRITE)
		return BLKIF_STATUS_ERROR;
	if (job->op == BLKIF_OP_WRITE && limits->readonly)
		return BLKIF_STATUS_ERROR;
	if (job->nr_segments == 0 || job->nr_segments > BLKIF_INDIRECT_MAX)
		return BLKIF_STATUS_ERROR;
	if (sector >= limits->size / BLKIF_SECTOR)
		return BLKIF_STATUS_ERROR;
	job->action = job->op == BLKIF_OP_READ ? BLKIF_READ : BLKIF_WRITE;
	job->indirect = true;
	job->offset = sector * BLKIF_SECTOR;
	job->list_gref = get32(id + AT_GREFS);
	return BLKIF_STATUS_OKAY;
}

static const struct operation {
	int16_t (*judge)(const struct blkif_limits *limits, const uint8_t *slot,
			 const uint8_t *id, struct blkif_job *job);
	enum blkif_action action;
} operations[] = {
	[BLKIF_OP_READ] = { judge_rw, BLKIF_READ },
	[BLKIF_OP_WRITE] = { judge_rw, BLKIF_WRITE },
	[BLKIF_OP_WRITE_BARRIER] = { judge_rw, BLKIF_BARRIER },
	[BLKIF_OP_FLUSH_DISKCACHE] = { judge_rw, BLKIF_FLUSH },
	[BLKIF_OP_DISCARD] = { judge_discard, BLKIF_DISCARD },
	[BLKIF_OP_INDIRECT] = { judge_indirect, BLKIF_READ },
};

static bool is_known(uint8_t op)
{
	return op < sizeof(operations) / sizeof(operations[0]) &&
	       operations[op].judge;
}

enum blkif_action blkif_action(uint8_t op)
{
	return is_known(op) ? operations[op].action : BLKIF_NR_ACTIONS;
}

void blkif_judge(const struct blkif_limits *limits, enum blkif_layout layout,
		 const void *slot, struct blkif_job *ret)
{
	const uint8_t *bytes = slot;
	const uint8_t *id = bytes + layouts[layout].id;
	uint8_t op = bytes[0];

	/* Not the segments: nobody looks at them beyond nr_segments. */
	memset(ret, 0, offsetof(struct blkif_job, segments));
	ret->id = get64(id);
	ret->op = op;
	if (!is_known(op)) {
		ret->status = BLKIF_STATUS_UNSUPPORTED;
		return;
	}
	ret->action = operations[op].action;
	ret->status = operations[op].judge(limits, bytes, id, ret);
}

void blkif_judge_indirect(const struct blkif_limits *limits,
			  struct blkif_job *job, const void *list,
			  struct blkif_segment *ret_segments)
{
	uint64_t sector = job->offset / BLKIF_SECTOR;

	if (!judge_data(limits, job, sector, list, ret_segments))
		job->status = BLKIF_STATUS_ERROR;
}

void blkif_response(uint64_t id, uint8_t op, int16_t status, void *ret)
{
	uint8_t *bytes = ret;

	memset(bytes, 0, BLKIF_RESPONSE_MAX);
	memcpy(bytes, &id, sizeof(id));
	bytes[8] = op;
	memcpy(bytes + 10, &status, sizeof(status));
}
