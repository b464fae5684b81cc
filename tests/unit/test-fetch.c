/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-fetch.c - the worker's code, compiled as it is shipped, reads each byte
 * of a request once (XSA-155, XSA-478): what the guest changes later is not
 * seen.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "fetch-trace.h"
#include "io-fixture.h"
#include "leave-out.h"

#ifdef FETCH_TRACE

#define HEAD 64u /* of the shared ring */

static const enum blkif_layout layouts[] = { BLKIF_X86_32, BLKIF_X86_64 };

static unsigned int most_reads(size_t at, size_t length)
{
	unsigned int most = 0;

	for (size_t i = at; i < at + length; i++)
		most = MAX(most, fetch_trace.reads[i]);
	return most;
}

static unsigned int fewest_reads(size_t at, size_t length)
{
	unsigned int fewest = UINT32_MAX;

	for (size_t i = at; i < at + length; i++)
		fewest = MIN(fewest, fetch_trace.reads[i]);
	return fewest;
}

static void all_was_understood(void)
{
	if (fetch_trace.unknown) {
		print_error("%u instructions not decoded; the first:",
			    fetch_trace.unknown);
		for (size_t i = 0; i < sizeof(fetch_trace.first_unknown); i++)
			print_error(" %02x", fetch_trace.first_unknown[i]);
		print_error("\n");
	}
	assert_int_equal(fetch_trace.unknown, 0);
}

/* --- The tracer itself ----------------------------------------------------------------- */

/* Not for the compiler to see through. */
static void *hide(void *p)
{
	__asm__ volatile("" : "+r"(p) : : "memory");
	return p;
}

static void expect_reads(size_t at, size_t length, unsigned int times)
{
	/* The compiler does not know that a read counts. */
	__asm__ volatile("" : : : "memory");
	assert_int_equal(fewest_reads(at, length), times);
	assert_int_equal(most_reads(at, length), times);
	assert_int_equal(fetch_trace.reads[at + length], 0);
	fetch_trace_forget(0, fetch_trace.size);
}

static void tracer_counts(void **state)
{
	uint8_t copy[64] = { 0 };
	uint8_t *p;

	(void)state;
	fetch_trace_start(4096);
	p = hide(fetch_trace.view);
	fetch_trace.own[100] = 7;
	assert_int_equal(*(volatile uint8_t *)(p + 100), 7);
	expect_reads(100, 1, 1);
	(void)*(volatile uint16_t *)(void *)(p + 100);
	expect_reads(100, 2, 1);
	(void)*(volatile uint32_t *)(void *)(p + 100);
	expect_reads(100, 4, 1);
	(void)*(volatile uint64_t *)(void *)(p + 104);
	(void)*(volatile uint64_t *)(void *)(p + 104);
	expect_reads(104, 8, 2);
	*(volatile uint64_t *)(void *)(p + 104) = 5; /* no read */
	expect_reads(104, 8, 0);
	__atomic_fetch_add((uint32_t *)(void *)(p + 104), 1, __ATOMIC_SEQ_CST);
	expect_reads(104, 4, 1);
	assert_int_equal(fetch_trace.own[104], 6);
	__asm__ volatile("movdqu (%0), %%xmm0; movdqu %%xmm0, (%1)"
			 :
			 : "r"(p + 96), "r"(copy)
			 : "xmm0", "memory");
	assert_int_equal(copy[4], 7);
	expect_reads(96, 16, 1);
	all_was_understood();
	fetch_trace_stop();
}

/* What must not be passed over in silence. */
static void tracer_tells_what_it_does_not_know(void **state)
{
	(void)state;
	fetch_trace_start(4096);
	__asm__ volatile("popcntl (%0), %%eax"
			 :
			 : "r"(fetch_trace.view)
			 : "eax", "cc");
	assert_int_equal(fetch_trace.unknown, 1);
	fetch_trace_stop();
}

/* A parser that looks into the ring, as backends did before XSA-155. */
static int parse_in_place(const uint8_t *slot)
{
	int grefs = 0;

	if (slot[1] > BLKIF_DIRECT_MAX)
		return -1;
	/* It may have changed by now, and the compiler must not care. */
	(void)hide(NULL);
	for (unsigned int i = 0; i < slot[1]; i++)
		grefs += slot[24 + i * 8];
	return grefs;
}

static void in_place_is_caught(void **state)
{
	(void)state;
	fetch_trace_start(4096);
	fetch_trace.own[HEAD] = 1; /* WRITE of one segment */
	fetch_trace.own[HEAD + 1] = 1;
	fetch_trace.own[HEAD + 24] = 9;
	assert_int_equal(parse_in_place(fetch_trace.view + HEAD), 9);
	assert_true(most_reads(HEAD, BLKIF_SLOT_MAX) > 1);
	all_was_understood();
	fetch_trace_stop();
}

/* --- ring.c ---------------------------------------------------------------------------- */

static uint32_t *word(unsigned int n)
{
	return (uint32_t *)(void *)fetch_trace.own + n;
}

static void one_lap(struct ring *ring)
{
	_Alignas(8) uint8_t slot[BLKIF_SLOT_MAX], expected[BLKIF_SLOT_MAX];
	size_t size = blkif_slot_size(ring->layout);
	uint32_t count;

	*word(0) += ring->nr_slots;
	assert_int_equal(ring_look(ring, &count), 0);
	assert_int_equal(count, ring->nr_slots);
	/* req_prod: the number that is judged is the number that is used. */
	assert_int_equal(most_reads(0, HEAD), 1);
	for (uint32_t i = 0; i < count; i++) {
		size_t at =
			HEAD + (ring->req_cons & (ring->nr_slots - 1)) * size;

		memset(expected, (int)i, size);
		memset(fetch_trace.own + at, (int)i, size);
		ring_take(ring, slot);
		assert_memory_equal(slot, expected, size);
		assert_int_equal(fewest_reads(at, size), 1);
	}
	for (uint32_t i = 0; i < count; i++)
		ring_put(ring, i, 0, 0);
	(void)ring_push(ring);
	(void)ring_final_check(ring);
	assert_int_equal(most_reads(HEAD, ring->nr_slots * size), 1);
	assert_true(fetch_trace.writes >= 2 * count);
	fetch_trace_forget(0, fetch_trace.size);
	fetch_trace.writes = 0;
}

static void ring_reads_once(void **state)
{
	(void)state;
	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++) {
		for (unsigned int pages = 1; pages <= 16; pages *= 2) {
			struct ring ring;

			/* One more, so that reading beyond the end is seen. */
			fetch_trace_start((pages + 1) * 4096u);
			*word(0) = *word(2) = UINT32_MAX - 40; /* wraps */
			ring_attach(&ring, fetch_trace.view, pages, layouts[l]);
			fetch_trace_forget(0, fetch_trace.size);
			for (unsigned int lap = 0; lap < 3; lap++)
				one_lap(&ring);
			all_was_understood();
			fetch_trace_stop();
		}
	}
}

/* --- io.c on top of it ------------------------------------------------------------------ */

/* One of each kind, of each segment count that has a path of its own. */
static void ask(unsigned int n)
{
	uint64_t sector = n % 64 * 8;

	switch (n % 8) {
	case 0:
	case 1:
		fix_rw((uint8_t)(n % 2), n, sector, 8, 1 + n % 11);
		break;
	case 2:
	case 3:
		fix_indirect((uint8_t)(n % 2), n, sector, 5, 8, 1 + n % 200);
		break;
	case 4:
		fix_discard(n, sector, 64);
		break;
	case 5:
		fix_rw(3, n, sector, 8, n % 2); /* FLUSH, empty or not */
		break;
	case 6:
		fix_rw(2, n, sector, 8, 1); /* BARRIER */
		break;
	default:
		/* Unknown; no segments; beyond the end. */
		fix_rw(n % 3 == 0 ? 77 : 0, n, n % 3 == 1 ? 1ull << 60 : 0, 8,
		       n % 3 == 2 ? 0 : 1);
	}
}

static void finish(void)
{
	fix_run();
	while (fix.nr_queue > 0 || atomic_load(&fix.lane.poked)) {
		if (fix.nr_queue > 0)
			fix_complete(0, 0);
		else
			fix_run();
	}
}

/* The list of an indirect request is fetched with one copy, and no other. */
static unsigned int list_copies(void)
{
	return fix.stats.grant_copies > UINT32_MAX ?
		       UINT32_MAX :
		       (unsigned int)fix.stats.grant_copies;
}

static void serve(bool guest32)
{
	size_t size;

	fetch_trace_start(4096);
	memset(&fix, 0, sizeof(fix));
	fix.guest32 = guest32;
	fix.shared = fetch_trace.own;
	fix.view = fetch_trace.view;
	fix_start();
	size = blkif_slot_size(guest32 ? BLKIF_X86_32 : BLKIF_X86_64);
	for (unsigned int n = 0; n < 300;) {
		unsigned int burst = 1 + n % 32, first = n;

		fetch_trace_forget(HEAD, 32 * size);
		fix_forget_events();
		for (; n < first + burst; n++)
			ask(n);
		finish();
		for (unsigned int i = first; i < n; i++) {
			size_t at = HEAD + i % 32 * size;

			assert_int_equal(fix_responses(i), 1);
			assert_int_equal(fewest_reads(at, size), 1);
			assert_int_equal(most_reads(at, size), 1);
		}
	}
	all_was_understood();
	fix_stop();
	fetch_trace_stop();
}

static void requests_are_read_once(void **state)
{
	(void)state;
	serve(true);
	serve(false);
}

static void lists_are_fetched_once(void **state)
{
	unsigned int before;

	(void)state;
	fetch_trace_start(4096);
	memset(&fix, 0, sizeof(fix));
	fix.shared = fetch_trace.own;
	fix.view = fetch_trace.view;
	fix_start();
	before = list_copies();
	fix_indirect(1, 1, 0, 5, 8, 200);
	finish();
	assert_int_equal(fix_responses(1), 1);
	assert_int_equal(fix_status(1), 0);
	/* The list, and each segment. */
	assert_int_equal(list_copies() - before, 1 + 200);
	fix_stop();
	fetch_trace_stop();
}

#define TEST(name) cmocka_unit_test(name)

#else

static void left_out(void **state)
{
	(void)state;
	LEAVE_OUT("needs x86_64, and code without sanitizers in it");
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifdef FETCH_TRACE
		TEST(tracer_counts),
		TEST(tracer_tells_what_it_does_not_know),
		TEST(in_place_is_caught),
		TEST(ring_reads_once),
		TEST(requests_are_read_once),
		TEST(lists_are_fetched_once),
#else
		cmocka_unit_test(left_out),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
