/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-list.c - any bytes in the page of an indirect request.
 *
 * Input: limits, operation, segments, sector, and the list; what is missing of
 * it repeats the last segment, so that short inputs make long lists.
 */
#include "config.h"

#include "fuzz.h"
#include "judge-model.h"

#define INDIRECT 6
#define SEGMENT	 8u

/* A legal request with a list, of the native layout. */
static void make_slot(uint8_t *slot, struct input *in)
{
	uint8_t op = input_u8(in) & 1;
	uint16_t nr = (uint16_t)(1 + input_u8(in));
	uint64_t id = 77, sector = input_u64(in);
	uint32_t gref = 5;

	memset(slot, 0, BLKIF_SLOT_MAX);
	slot[0] = INDIRECT;
	slot[1] = op;
	memcpy(slot + 2, &nr, sizeof(nr));
	memcpy(slot + 8, &id, sizeof(id));
	memcpy(slot + 16, &sector, sizeof(sector));
	memcpy(slot + 28, &gref, sizeof(gref));
}

static void fill_list(uint8_t *list, unsigned int nr, struct input *in)
{
	for (unsigned int i = 0; i < nr; i++) {
		if (in->left == 0 && i > 0)
			memcpy(list + i * SEGMENT, list + (i - 1) * SEGMENT,
			       SEGMENT);
		else
			input_bytes(in, list + i * SEGMENT, SEGMENT);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct blkif_limits limits = model_limits(&in);
	uint8_t slot[BLKIF_SLOT_MAX], *list;
	struct blkif_segment *segments;
	struct blkif_job before, job, again;
	size_t bytes;

	make_slot(slot, &in);
	blkif_judge(&limits, BLKIF_X86_64, slot, &before);
	model_check_slot(&limits, BLKIF_X86_64, slot, &before);
	if (before.status != BLKIF_STATUS_OKAY)
		return 0;
	bytes = before.nr_segments * SEGMENT;
	list = malloc(bytes);
	segments = malloc(bytes);
	fill_list(list, before.nr_segments, &in);
	job = again = before;
	blkif_judge_indirect(&limits, &job, list, segments);
	model_check_list(&limits, &before, list, &job, segments);
	/* The product has both in the same memory. */
	blkif_judge_indirect(&limits, &again, list, (void *)list);
	HOLDS(memcmp(&job, &again, offsetof(struct blkif_job, segments)) == 0,
	      "the same in place");
	HOLDS(job.status != BLKIF_STATUS_OKAY ||
		      memcmp(list, segments, bytes) == 0,
	      "the same in place");
	free(list);
	free(segments);
	return 0;
}
