/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/stats.h"

#include "common/util.h"

/* A count above this is none: it would have taken a thousand years. */
#define COUNT_MAX (1ull << 50)

uint64_t stats_bucket_end_ns(unsigned int bucket)
{
	uint64_t next = bucket + 1;
	uint64_t power = next / STATS_LINEAR;

	if (power == 0)
		return next * STATS_UNIT_NS;
	return ((STATS_LINEAR + next % STATS_LINEAR) << (power - 1)) *
	       STATS_UNIT_NS;
}

uint64_t stats_quantile_us(const uint64_t latency[STATS_LATENCY],
			   unsigned int per_mille)
{
	uint64_t total = 0, seen = 0, wanted;
	unsigned int i;

	for (i = 0; i < STATS_LATENCY; i++)
		total += MIN(latency[i], COUNT_MAX);
	if (total == 0)
		return 0;
	wanted = total / 1000 * per_mille +
		 DIV_ROUND_UP(total % 1000 * per_mille, 1000);
	for (i = 0; i < STATS_LATENCY - 1; i++) {
		seen += MIN(latency[i], COUNT_MAX);
		if (seen >= wanted)
			break;
	}
	return DIV_ROUND_UP(stats_bucket_end_ns(i), 1000);
}
