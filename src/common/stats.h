/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stats.h - a disk's counters: the layout of the kept file, and latencies.
 *
 * The worker maps the file and counts with plain stores, each ring's part by
 * the lane that owns the ring; the broker reads it with pread() at any time and
 * believes nothing of it.  The counters belong to the attached disk: they go on
 * over reconnects and restarts of the worker.  One that dies between an answer
 * and its count loses that count.
 *
 * Latencies are log-linear: eight buckets to each power of two, so what is told
 * is at most one eighth above what was.
 */
#ifndef XENDISK_STATS_H
#define XENDISK_STATS_H

#include <stdint.h>

#include "common/msg.h"

#define STATS_NAME    "stats" /* of the kept file */
#define STATS_MAGIC   0x7374617453446b58ull
#define STATS_VERSION 1u

#define STATS_UNIT_NS 128u /* of the narrowest buckets */
#define STATS_LINEAR  8u /* buckets to a power of two */
#define STATS_LATENCY 216u /* the last begins at 64 s and takes the rest */

struct stats_op {
	uint64_t requests;
	uint64_t bytes; /* of those that went well */
	uint64_t errors;
	uint64_t latency[STATS_LATENCY]; /* from ring to ring */
};

/* Of one ring; no two lanes share a page. */
struct stats_queue {
#define STATS_OP(name)		     struct stats_op name;
#define STATS_COUNT(name)	     uint64_t name;
#define STATS_HISTOGRAM(name, count) uint64_t name[count];
#include "common/stats.def"
} __attribute__((aligned(4096)));

struct stats_header {
	uint64_t magic;
	uint32_t version;
	uint32_t nr_queues; /* that have been in use, ever */
} __attribute__((aligned(4096)));

struct stats_file {
	struct stats_header header;
	struct stats_queue queue[XD_MAX_RINGS];
};

/* The bucket of a latency. */
static inline unsigned int stats_bucket(uint64_t ns)
{
	uint64_t v = ns / STATS_UNIT_NS;
	unsigned int power, bucket;

	if (v < STATS_LINEAR)
		return (unsigned int)v;
	power = 63u - (unsigned int)__builtin_clzll(v) - 2;
	bucket = power * STATS_LINEAR +
		 (unsigned int)((v >> (power - 1)) % STATS_LINEAR);
	return bucket < STATS_LATENCY ? bucket : STATS_LATENCY - 1;
}

/* Where the next bucket begins. */
uint64_t stats_bucket_end_ns(unsigned int bucket);

/*
 * The latency that per_mille of the requests did not exceed, microseconds
 * rounded up; 0 without requests.  The counts may be anything.
 */
uint64_t stats_quantile_us(const uint64_t latency[STATS_LATENCY],
			   unsigned int per_mille);

#endif
