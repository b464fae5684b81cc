/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * meter: what counting costs a request, by the size of its burst.
 *
 * A request is counted as the data path does it: the clock is read when a burst
 * was taken and when it is answered.  Prints nanoseconds a request, the best of
 * some rounds.  Not a test: the figures depend on the machine.
 */
#include <stdint.h>
#include <stdio.h>

#include "common/util.h"
#include "worker/meter.h"

#define REQUESTS 2000000u
#define ROUNDS	 5

static uint64_t run(struct stats_queue *queue, unsigned int burst)
{
	const struct blkif_job job = { .op = 0 /* read */,
				       .length = 4096,
				       .nr_segments = 1 };
	uint64_t begin = now_ns();

	for (unsigned int n = 0; n < REQUESTS; n += burst) {
		uint64_t taken, now;

		meter_taken(queue, burst, 0);
		taken = now_ns();
		now = now_ns();
		for (unsigned int i = 0; i < burst; i++)
			meter_answered(queue, &job, 0,
				       now - taken + (n + i) * 7);
	}
	return now_ns() - begin;
}

int main(void)
{
	static struct stats_queue queue;

	for (unsigned int burst = 1; burst <= 32; burst *= 2) {
		uint64_t best = UINT64_MAX;

		for (int i = 0; i < ROUNDS; i++)
			best = MIN(best, run(&queue, burst));
		printf("burst %2u: %5.1f ns a request\n", burst,
		       (double)best / REQUESTS);
	}
	return queue.read.requests == 0;
}
