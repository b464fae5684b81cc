/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-slot.c - any bytes in a slot of the ring.
 *
 * Input: limits, a byte that says which layout, and slots up to its end.  With
 * FUZZ_COUNT in the environment the number of slots is told at the end.
 */
#include "config.h"

#include <stdbool.h>

#include "fuzz.h"
#include "judge-model.h"

static unsigned long long judged, okay;

static void tell(void)
{
	(void)fprintf(stderr, "%llu slots judged, %llu of them legal\n", judged,
		      okay);
}

static void count(const struct blkif_job *job)
{
	if (judged++ == 0 && getenv("FUZZ_COUNT"))
		(void)atexit(tell);
	okay += job->status == BLKIF_STATUS_OKAY;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct blkif_limits limits = model_limits(&in);
	enum blkif_layout layout = input_u8(&in) & 1 ? BLKIF_X86_32 :
						       BLKIF_X86_64;
	size_t length = blkif_slot_size(layout);
	/* Of no alignment, and not a byte longer than it has to be. */
	uint8_t *memory = malloc(1 + length), *slot = memory + 1;

	do {
		struct blkif_job job;

		/* What was there before must not shine through. */
		memset(&job, 0x5a, sizeof(job));
		input_bytes(&in, slot, length);
		blkif_judge(&limits, layout, slot, &job);
		model_check_slot(&limits, layout, slot, &job);
		count(&job);
	} while (in.left > 0);
	free(memory);
	return 0;
}
