/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Judges that are wrong, for fuzz-slot and fuzz-list to find. */
#include "config.h"

#include "fuzz.h"
#include "worker/blkif.h"

enum { TOO_LARGE, WRITABLE, SMALL_SECTORS, OTHER_ID, LONG_SEGMENT, COARSE };

const char *const fuzz_faults[] = {
	[TOO_LARGE] = "a disk one sector too large is noticed",
	[WRITABLE] = "a read-only disk that is written is noticed",
	[SMALL_SECTORS] = "half a sector is noticed",
	[OTHER_ID] = "an answer to somebody else is noticed",
	[LONG_SEGMENT] = "a segment beyond its page is noticed",
	[COARSE] = "a discard rounded outwards is noticed",
	NULL,
};

void __real_blkif_judge(const struct blkif_limits *limits,
			enum blkif_layout layout, const void *slot,
			struct blkif_job *ret);
void __wrap_blkif_judge(const struct blkif_limits *limits,
			enum blkif_layout layout, const void *slot,
			struct blkif_job *ret);

/* The limits as the wrong judge believes them. */
static struct blkif_limits bend(const struct blkif_limits *limits)
{
	struct blkif_limits bent = *limits;

	if (fuzz_fault == TOO_LARGE)
		bent.size += limits->sector_size;
	if (fuzz_fault == WRITABLE)
		bent.readonly = false;
	if (fuzz_fault == SMALL_SECTORS)
		bent.sector_size = 512;
	if (fuzz_fault == COARSE && limits->discard_granularity)
		bent.discard_granularity = limits->sector_size;
	return bent;
}

void __wrap_blkif_judge(const struct blkif_limits *limits,
			enum blkif_layout layout, const void *slot,
			struct blkif_job *ret)
{
	struct blkif_limits bent = bend(limits);

	__real_blkif_judge(&bent, layout, slot, ret);
	if (fuzz_fault == OTHER_ID)
		ret->id &= UINT32_MAX;
	if (fuzz_fault == LONG_SEGMENT && ret->nr_segments && !ret->indirect)
		ret->segments[0].length =
			(uint16_t)(ret->segments[0].length + 512);
}
