/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#include "config.h"

#include "judge-model.h"

#include <stdbool.h>

#include <xen/xen.h>
#include <xen/io/blkif.h>

#define PER_PAGE 8u /* sectors */

typedef unsigned __int128 wide; /* no sum below can wrap */

/* --- As a 32-bit guest has them: 64-bit numbers are aligned to 4 bytes --------- */

#pragma pack(push, 4)
struct request32 {
	uint8_t operation;
	uint8_t nr_segments;
	uint16_t handle;
	uint64_t id;
	uint64_t sector_number;
	struct blkif_request_segment seg[BLKIF_MAX_SEGMENTS_PER_REQUEST];
};
struct discard32 {
	uint8_t operation;
	uint8_t flag;
	uint16_t handle;
	uint64_t id;
	uint64_t sector_number;
	uint64_t nr_sectors;
};
struct indirect32 {
	uint8_t operation;
	uint8_t indirect_op;
	uint16_t nr_segments;
	uint64_t id;
	uint64_t sector_number;
	uint16_t handle;
	uint32_t indirect_grefs[BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST];
};
#pragma pack(pop)

/* Both layouts, each as what its operation says that it is. */
struct wish {
	uint8_t op;
	uint64_t id, sector;
	unsigned int nr; /* segments */
	struct blkif_request_segment seg[BLKIF_MAX_SEGMENTS_PER_REQUEST];
	uint8_t flag;
	uint64_t nr_sectors;
	uint8_t inner;
	uint32_t list;
};

#define READ_WISH(rw, discard, indirect)                  \
	do {                                              \
		ret.op = rw.operation;                    \
		ret.id = rw.id;                           \
		ret.sector = rw.sector_number;            \
		ret.nr = rw.nr_segments;                  \
		memcpy(ret.seg, rw.seg, sizeof(ret.seg)); \
		ret.flag = discard.flag;                  \
		ret.nr_sectors = discard.nr_sectors;      \
		ret.inner = indirect.indirect_op;         \
		ret.list = indirect.indirect_grefs[0];    \
		if (ret.op == BLKIF_OP_INDIRECT)          \
			ret.nr = indirect.nr_segments;    \
	} while (0)

static struct wish read_wish(enum blkif_layout layout, const uint8_t *slot)
{
	struct wish ret = { 0 };

	if (layout == BLKIF_X86_32) {
		struct request32 rw;
		struct discard32 discard;
		struct indirect32 indirect;

		memcpy(&rw, slot, sizeof(rw));
		memcpy(&discard, slot, sizeof(discard));
		memcpy(&indirect, slot, sizeof(indirect));
		READ_WISH(rw, discard, indirect);
	} else {
		struct blkif_request rw;
		struct blkif_request_discard discard;
		struct blkif_request_indirect indirect;

		memcpy(&rw, slot, sizeof(rw));
		memcpy(&discard, slot, sizeof(discard));
		memcpy(&indirect, slot, sizeof(indirect));
		READ_WISH(rw, discard, indirect);
	}
	return ret;
}

/* --- What is right --------------------------------------------------------------- */

/* Is that part of the disk there, and made of whole sectors of it? */
static bool is_inside(const struct blkif_limits *limits, uint64_t sector,
		      uint64_t sectors)
{
	return ((wide)sector + sectors) * 512 <= limits->size;
}

static bool is_whole(const struct blkif_limits *limits, uint64_t sector,
		     uint64_t sectors)
{
	return (wide)sector * 512 % limits->sector_size == 0 &&
	       (wide)sectors * 512 % limits->sector_size == 0;
}

/* Sectors of a list of segments; UINT64_MAX: one of them is none. */
static uint64_t sum(const struct blkif_request_segment *seg, unsigned int nr)
{
	uint64_t sectors = 0;

	for (unsigned int i = 0; i < nr; i++) {
		if (seg[i].last_sect >= PER_PAGE ||
		    seg[i].first_sect > seg[i].last_sect)
			return UINT64_MAX;
		sectors += seg[i].last_sect - seg[i].first_sect + 1u;
	}
	return sectors;
}

static bool is_good_data(const struct blkif_limits *limits, uint64_t sector,
			 const struct blkif_request_segment *seg,
			 unsigned int nr)
{
	uint64_t sectors = sum(seg, nr);

	return sectors != UINT64_MAX && is_inside(limits, sector, sectors) &&
	       is_whole(limits, sector, sectors);
}

static int expect_rw(const struct blkif_limits *limits, const struct wish *wish)
{
	if (wish->nr > BLKIF_MAX_SEGMENTS_PER_REQUEST)
		return BLKIF_RSP_ERROR;
	if (wish->nr == 0)
		return wish->op == BLKIF_OP_FLUSH_DISKCACHE ||
				       wish->op == BLKIF_OP_WRITE_BARRIER ?
			       BLKIF_RSP_OKAY :
			       BLKIF_RSP_ERROR;
	if (limits->readonly && wish->op != BLKIF_OP_READ)
		return BLKIF_RSP_ERROR;
	return is_good_data(limits, wish->sector, wish->seg, wish->nr) ?
		       BLKIF_RSP_OKAY :
		       BLKIF_RSP_ERROR;
}

static int expect_indirect(const struct blkif_limits *limits,
			   const struct wish *wish)
{
	if (wish->inner != BLKIF_OP_READ &&
	    (wish->inner != BLKIF_OP_WRITE || limits->readonly))
		return BLKIF_RSP_ERROR;
	if (wish->nr == 0 || wish->nr > 256)
		return BLKIF_RSP_ERROR;
	return is_inside(limits, wish->sector, 1) ? BLKIF_RSP_OKAY :
						    BLKIF_RSP_ERROR;
}

static int expect_status(const struct blkif_limits *limits,
			 const struct wish *wish)
{
	switch (wish->op) {
	case BLKIF_OP_READ:
	case BLKIF_OP_WRITE:
	case BLKIF_OP_WRITE_BARRIER:
	case BLKIF_OP_FLUSH_DISKCACHE:
		return expect_rw(limits, wish);
	case BLKIF_OP_DISCARD:
		if (limits->readonly)
			return BLKIF_RSP_ERROR;
		if (!limits->discard_granularity ||
		    wish->flag & BLKIF_DISCARD_SECURE)
			return BLKIF_RSP_EOPNOTSUPP;
		return is_inside(limits, wish->sector, wish->nr_sectors) ?
			       BLKIF_RSP_OKAY :
			       BLKIF_RSP_ERROR;
	case BLKIF_OP_INDIRECT:
		return expect_indirect(limits, wish);
	default:
		return BLKIF_RSP_EOPNOTSUPP;
	}
}

static enum blkif_action expect_action(const struct wish *wish)
{
	switch (wish->op) {
	case BLKIF_OP_READ:
		return BLKIF_READ;
	case BLKIF_OP_WRITE:
		return BLKIF_WRITE;
	case BLKIF_OP_WRITE_BARRIER:
		return BLKIF_BARRIER;
	case BLKIF_OP_FLUSH_DISKCACHE:
		return BLKIF_FLUSH;
	case BLKIF_OP_DISCARD:
		return BLKIF_DISCARD;
	default:
		return wish->inner == BLKIF_OP_READ ? BLKIF_READ : BLKIF_WRITE;
	}
}

/* --- A job that may go on ----------------------------------------------------------- */

static void check_segments(const struct blkif_request_segment *asked,
			   const struct blkif_segment *got, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		HOLDS(got[i].gref == asked[i].gref, "segment %u", i);
		HOLDS(got[i].offset == asked[i].first_sect * 512u, "segment %u",
		      i);
		HOLDS(got[i].length > 0 && got[i].length % 512 == 0 &&
			      got[i].offset + got[i].length ==
				      (asked[i].last_sect + 1u) * 512,
		      "segment %u", i);
		HOLDS(got[i].offset + got[i].length <= 4096, "segment %u", i);
	}
}

/* Whole pieces only, all of them, nothing that was not asked for. */
static void check_discard(const struct blkif_limits *limits,
			  const struct wish *wish, const struct blkif_job *job)
{
	uint64_t unit = limits->discard_granularity;
	wide first = (wide)wish->sector * 512;
	wide end = first + (wide)wish->nr_sectors * 512;
	wide piece = limits->discard_alignment;

	if (piece < first)
		piece += (first - piece + unit - 1) / unit * unit;
	if (piece + unit > end) {
		HOLDS(job->length == 0, "no whole piece was asked for");
		return;
	}
	HOLDS(job->offset == (uint64_t)piece, "the first whole piece");
	HOLDS(job->length % unit == 0, "whole pieces");
	HOLDS(piece + job->length <= end, "no more than was asked for");
	HOLDS(piece + job->length + unit > end, "and no less");
}

static void check_okay(const struct blkif_limits *limits,
		       const struct wish *wish, const struct blkif_job *job)
{
	HOLDS(job->action == expect_action(wish), "operation %u", wish->op);
	HOLDS(job->indirect == (wish->op == BLKIF_OP_INDIRECT), "indirect");
	HOLDS((wide)job->offset + job->length <= limits->size ||
		      job->length == 0,
	      "inside the disk");
	HOLDS(!limits->readonly || job->action == BLKIF_READ ||
		      (job->action != BLKIF_DISCARD && job->length == 0),
	      "a read-only disk");
	if (wish->op == BLKIF_OP_DISCARD) {
		check_discard(limits, wish, job);
		return;
	}
	HOLDS(job->nr_segments == wish->nr, "segments");
	if (job->indirect) {
		HOLDS(job->list_gref == wish->list, "the list's page");
		HOLDS(job->offset == wish->sector * 512, "the place");
		return;
	}
	check_segments(wish->seg, job->segments, wish->nr);
	if (wish->nr > 0)
		HOLDS(job->offset == wish->sector * 512, "the place");
	HOLDS(job->length == sum(wish->seg, wish->nr) * 512, "the length");
	HOLDS(job->offset % limits->sector_size == 0 &&
		      job->length % limits->sector_size == 0,
	      "whole sectors");
}

void model_check_slot(const struct blkif_limits *limits,
		      enum blkif_layout layout, const uint8_t *slot,
		      const struct blkif_job *job)
{
	struct wish wish = read_wish(layout, slot);
	bool inner = wish.op == BLKIF_OP_INDIRECT;

	HOLDS(job->id == wish.id, "the id is echoed");
	HOLDS(job->op == (inner ? wish.inner : wish.op),
	      "the operation is echoed");
	HOLDS(job->status == expect_status(limits, &wish),
	      "operation %u answered with %d", wish.op, job->status);
	if (job->status == BLKIF_RSP_OKAY)
		check_okay(limits, &wish, job);
}

void model_check_list(const struct blkif_limits *limits,
		      const struct blkif_job *before, const uint8_t *list,
		      const struct blkif_job *job,
		      const struct blkif_segment *segments)
{
	struct blkif_request_segment seg[256];
	uint64_t sector = before->offset / 512;
	unsigned int nr = before->nr_segments;
	bool good;

	memcpy(seg, list, nr * sizeof(seg[0]));
	good = is_good_data(limits, sector, seg, nr);
	HOLDS((job->status == BLKIF_RSP_OKAY) == good, "a list of %u", nr);
	HOLDS(job->id == before->id && job->op == before->op &&
		      job->action == before->action,
	      "what is echoed stays");
	if (!good)
		return;
	HOLDS(job->nr_segments == nr, "segments");
	check_segments(seg, segments, nr);
	HOLDS(job->offset == before->offset, "the place");
	HOLDS(job->length == sum(seg, nr) * 512, "the length");
	HOLDS((wide)job->offset + job->length <= limits->size,
	      "inside the disk");
	HOLDS(job->offset % limits->sector_size == 0 &&
		      job->length % limits->sector_size == 0,
	      "whole sectors");
}

/* --- Limits -------------------------------------------------------------------------- */

struct blkif_limits model_limits(struct input *in)
{
	static const uint32_t units[] = { 512, 1024, 2048, 4096 };
	uint8_t kind = input_u8(in);
	uint64_t size = input_u64(in);
	uint32_t sector = units[kind & 3];
	uint32_t pieces = input_u16(in);
	struct blkif_limits limits = {
		.sector_size = sector,
		.discard_granularity = kind & 4 ? pieces * sector : 0,
		.readonly = kind & 8,
	};

	/* Small disks find more than large ones. */
	size >>= kind & 16 ? 1 : 40;
	size -= size % sector;
	limits.size = size ? size : sector;
	if (limits.discard_granularity)
		limits.discard_alignment = input_u16(in) % pieces * sector;
	return limits;
}
