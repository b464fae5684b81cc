/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * log: what the in-flight log costs a request, by the size of its burst.
 *
 * A ring is served as the data path does it, from taking a burst to publishing
 * its answers, by the shipped code: once into the log, in a file in memory, and
 * once into private memory with no log at all.  Entries are used in the order
 * of the worker's stack of free ones.  Prints nanoseconds a request, the best
 * of some rounds, in turn.  Not a test: the figures depend on the machine.
 */
#include "config.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "common/util.h"
#include "worker/inflight.h"
#include "worker/ring.h"

#define REQUESTS 1000000u
#define ROUNDS	 7
#define PAGES	 4u

struct bench {
	struct ring ring;
	struct inflight *log;
	struct inflight_ring part;
	uint8_t own[INFLIGHT_MAX_SLOTS][BLKIF_SLOT_MAX];
	uint32_t *req_prod; /* the guest's word in the shared page */
};

/* With the log, or without. */
static void serve(struct bench *bench, unsigned int burst, bool logged)
{
	struct ring *ring = &bench->ring;
	struct inflight_ring *log = &bench->part;

	*bench->req_prod = ring->req_cons + burst;
	for (unsigned int i = 0; i < burst; i++) {
		ring_take(ring, logged ? log->entries[i].slot : bench->own[i]);
		if (logged)
			inflight_take(log, i, ring->req_cons - 1);
	}
	if (logged)
		inflight_taken(log, ring->req_cons);
	for (unsigned int i = 0; i < burst; i++) {
		if (logged)
			inflight_answer(log, i, ring->rsp_prod, 0);
		ring_put(ring, i, 0, 0);
	}
	(void)ring_push(ring);
	if (!logged)
		return;
	inflight_published(log, ring->rsp_prod);
	for (unsigned int i = 0; i < burst; i++)
		inflight_done(log, i);
}

static uint64_t run(struct bench *bench, unsigned int burst, bool logged)
{
	uint64_t begin = now_ns();

	for (unsigned int n = 0; n < REQUESTS; n += burst)
		serve(bench, burst, logged);
	return now_ns() - begin;
}

static int set_up(struct bench *bench)
{
	struct inflight_id id = { .layout = BLKIF_X86_64, .nr_rings = 1 };
	uint32_t rsp_prod = 0;
	void *pages = mmap(NULL, PAGES * BLKIF_PAGE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fd = memfd_create("log", MFD_CLOEXEC);

	if (pages == MAP_FAILED || fd < 0 ||
	    ftruncate(fd, (off_t)INFLIGHT_BYTES) < 0)
		return -errno;
	ring_attach(&bench->ring, pages, PAGES, BLKIF_X86_64);
	bench->req_prod = pages; /* the first word of a ring */
	id.nr_slots = bench->ring.nr_slots;
	if (inflight_open(&bench->log, fd) < 0)
		return -ENOMEM;
	inflight_start(bench->log, &id, &rsp_prod);
	bench->part = inflight_ring(bench->log, 0);
	return 0;
}

int main(void)
{
	static struct bench bench;

	if (set_up(&bench) < 0) {
		fprintf(stderr, "log: no memory for it\n");
		return 1;
	}
	for (unsigned int burst = 1; burst <= 32; burst *= 2) {
		uint64_t best[2] = { UINT64_MAX, UINT64_MAX };
		double ns[2];

		for (int i = 0; i < 2 * ROUNDS; i++)
			best[i % 2] =
				MIN(best[i % 2], run(&bench, burst, i % 2));
		for (int i = 0; i < 2; i++)
			ns[i] = (double)best[i] / REQUESTS;
		printf("burst %2u: %5.1f ns a request with the log, %5.1f "
		       "without: it costs %.1f\n",
		       burst, ns[1], ns[0], ns[1] - ns[0]);
	}
	inflight_free(bench.log);
	return 0;
}
