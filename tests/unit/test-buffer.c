/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>

#include "common/sanitized.h"
#include "common/util.h"
#include "worker/buffer.h"
#include "worker/sparse.h"

#define ARENA (1u << 20) /* 256 pages */

static void test_fill(void **state)
{
	struct buffer_arena *arena;
	uint8_t *all;

	(void)state;
	assert_int_equal(buffer_arena_new(&arena, ARENA), 0);
	all = buffer_get(arena, ARENA);
	assert_non_null(all);
	assert_int_equal((uintptr_t)all % BUFFER_PAGE, 0);
	memset(all, 1, ARENA);
	assert_null(buffer_get(arena, 1));
	buffer_put(arena, all, ARENA);
	assert_null(buffer_get(arena, ARENA + 1));
	assert_ptr_equal(buffer_get(arena, 1), all); /* the hot one */
	buffer_arena_free(arena);
}

/* A hole that is too small is passed over, and found when it fits. */
static void test_holes(void **state)
{
	struct buffer_arena *arena;
	uint8_t *a, *b, *c;

	(void)state;
	assert_int_equal(buffer_arena_new(&arena, ARENA), 0);
	a = buffer_get(arena, 3 * BUFFER_PAGE);
	b = buffer_get(arena, 100 * BUFFER_PAGE);
	c = buffer_get(arena, 153 * BUFFER_PAGE);
	assert_true(a && b && c);
	assert_null(buffer_get(arena, 1));
	buffer_put(arena, a, 3 * BUFFER_PAGE);
	assert_null(buffer_get(arena, 4 * BUFFER_PAGE));
	buffer_put(arena, b, 100 * BUFFER_PAGE);
	assert_ptr_equal(buffer_get(arena, 103 * BUFFER_PAGE), a);
	buffer_arena_free(arena);
}

static void test_trim(void **state)
{
	struct buffer_arena *arena;
	uint8_t *a;

	(void)state;
	assert_int_equal(buffer_arena_new(&arena, ARENA), 0);
	assert_true(buffer_is_trimmed(arena));
	a = buffer_get(arena, BUFFER_PAGE);
	a[0] = 1;
	buffer_trim(arena);
	assert_false(buffer_is_trimmed(arena)); /* it is in use */
	assert_int_equal(a[0], 1);
	buffer_put(arena, a, BUFFER_PAGE);
	buffer_trim(arena);
	assert_true(buffer_is_trimmed(arena));
	assert_int_equal(a[0], 0);
	buffer_arena_free(arena);
}

/* Random sizes against a map of pages. */
static void test_model(void **state)
{
	enum { NR = 64, PAGES = ARENA / BUFFER_PAGE };
	struct buffer_arena *arena;
	struct {
		uint8_t *at;
		size_t length;
	} runs[NR] = { { NULL, 0 } };
	uint8_t owner[PAGES] = { 0 };
	uint8_t *base;
	unsigned int seed = 1, refused = 0;

	(void)state;
	assert_int_equal(buffer_arena_new(&arena, ARENA), 0);
	base = buffer_get(arena, 1);
	buffer_put(arena, base, 1);
	for (unsigned int step = 0; step < 100000; step++) {
		unsigned int i = (unsigned int)rand_r(&seed) % NR;
		size_t first, count;

		if (runs[i].at) {
			first = (size_t)(runs[i].at - base) / BUFFER_PAGE;
			count = DIV_ROUND_UP(runs[i].length, BUFFER_PAGE);
			for (size_t p = first; p < first + count; p++)
				owner[p] = 0;
			buffer_put(arena, runs[i].at, runs[i].length);
			runs[i].at = NULL;
			continue;
		}
		runs[i].length = 1 + (size_t)rand_r(&seed) % (90 * BUFFER_PAGE);
		count = DIV_ROUND_UP(runs[i].length, BUFFER_PAGE);
		runs[i].at = buffer_get(arena, runs[i].length);
		if (!runs[i].at) {
			size_t run = 0, longest = 0;

			for (size_t p = 0; p < PAGES; p++) {
				run = owner[p] ? 0 : run + 1;
				longest = MAX(longest, run);
			}
			assert_true(longest < count);
			refused++;
			continue;
		}
		first = (size_t)(runs[i].at - base) / BUFFER_PAGE;
		for (size_t p = first; p < first + count; p++) {
			assert_int_equal(owner[p], 0);
			owner[p] = 1;
		}
	}
	assert_true(refused > 0);
	buffer_arena_free(arena);
}

#define SPARSE_PAGES 64

static unsigned int resident(uint8_t *pages)
{
	unsigned char there[SPARSE_PAGES] = { 0 }; /* larger pages are fewer */
	unsigned int n = 0;

	assert_int_equal(
		mincore(pages, SPARSE_PAGES * (size_t)BUFFER_PAGE, there), 0);
	for (unsigned int i = 0; i < SPARSE_PAGES; i++)
		n += there[i] & 1;
	return n;
}

/* Also where something else has been just before. */
static void test_sparse(void **state)
{
	const size_t bytes = SPARSE_PAGES * (size_t)BUFFER_PAGE;
	uint8_t *memory;

	(void)state;
	for (int i = 0; i < 3; i++) {
		memory = sparse_new(bytes);
		assert_non_null(memory);
		if (!SANITIZED)
			assert_int_equal(resident(memory), 0);
		for (size_t at = 0; at < bytes; at += BUFFER_PAGE / 2)
			assert_int_equal(memory[at], 0);
		memset(memory, 0xee, bytes);
		sparse_free(memory, bytes);
	}
	sparse_free(NULL, bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill),   cmocka_unit_test(test_holes),
		cmocka_unit_test(test_trim),   cmocka_unit_test(test_model),
		cmocka_unit_test(test_sparse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
