/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/util.h"
#include "worker/ring.h"

/* The guest's side of a ring in plain memory. */
struct guest {
	_Alignas(4096) uint8_t pages[16 * 4096];
	uint32_t req_prod;
};

static struct guest guest;

enum { REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT };

static uint32_t *shared(int field)
{
	return (uint32_t *)(void *)guest.pages + field;
}

static uint8_t *slot_at(const struct ring *ring, uint32_t index)
{
	return guest.pages + 64 +
	       (index % ring->nr_slots) * blkif_slot_size(ring->layout);
}

static struct ring start(enum blkif_layout layout, unsigned int pages,
			 uint32_t at)
{
	struct ring ring;

	memset(&guest, 0xa5, sizeof(guest));
	guest.req_prod = at;
	*shared(REQ_PROD) = at;
	*shared(REQ_EVENT) = at + 1;
	*shared(RSP_PROD) = at;
	*shared(RSP_EVENT) = at + 1;
	ring_attach(&ring, guest.pages, pages, layout);
	return ring;
}

static void ask(const struct ring *ring, uint8_t tag)
{
	memset(slot_at(ring, guest.req_prod), tag,
	       blkif_slot_size(ring->layout));
	*shared(REQ_PROD) = ++guest.req_prod;
}

static void test_slots(void **state)
{
	(void)state;
	for (unsigned int order = 0; order <= 4; order++) {
		assert_int_equal(ring_nr_slots(BLKIF_X86_32, 1u << order),
				 32u << order);
		assert_int_equal(ring_nr_slots(BLKIF_X86_64, 1u << order),
				 32u << order);
	}
}

/* Many times around, over the wrap of the indices. */
static void test_round(enum blkif_layout layout, unsigned int pages)
{
	struct ring ring = start(layout, pages, UINT32_MAX - 700);
	_Alignas(8) uint8_t slot[BLKIF_SLOT_MAX];
	uint8_t tag = 0;
	uint32_t count;

	for (unsigned int round = 0; round < 100; round++) {
		unsigned int n = 1 + round % ring.nr_slots;

		for (unsigned int i = 0; i < n; i++)
			ask(&ring, (uint8_t)(tag + i));
		assert_int_equal(ring_look(&ring, &count), 0);
		assert_int_equal(count, n);
		for (unsigned int i = 0; i < n; i++) {
			uint8_t expected[BLKIF_SLOT_MAX];

			memset(expected, (uint8_t)(tag + i), sizeof(expected));
			ring_take(&ring, slot);
			assert_memory_equal(slot, expected,
					    blkif_slot_size(layout));
		}
		for (unsigned int i = 0; i < n; i++)
			ring_put(&ring, tag + i, 1, 0);
		(void)ring_push(&ring);
		assert_int_equal(*shared(RSP_PROD), guest.req_prod);
		tag = (uint8_t)(tag + n);
	}
}

static void test_rounds(void **state)
{
	(void)state;
	for (unsigned int pages = 1; pages <= 16; pages *= 2) {
		test_round(BLKIF_X86_32, pages);
		test_round(BLKIF_X86_64, pages);
	}
}

/* Only the response's bytes change, and its padding is zero. */
static void test_response_bytes(void **state)
{
	static const enum blkif_layout layouts[] = { BLKIF_X86_32,
						     BLKIF_X86_64 };

	(void)state;
	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++) {
		struct ring ring = start(layouts[l], 1, 0);
		size_t size = blkif_response_size(layouts[l]);
		_Alignas(8) uint8_t slot[BLKIF_SLOT_MAX];
		uint32_t count;

		ask(&ring, 0xa5);
		assert_int_equal(ring_look(&ring, &count), 0);
		ring_take(&ring, slot);
		ring_put(&ring, 0x0102030405060708, 9, -2);
		for (size_t i = 0; i < blkif_slot_size(layouts[l]); i++) {
			static const uint8_t response[16] = {
				8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0xfe, 0xff,
			};

			assert_int_equal(slot_at(&ring, 0)[i],
					 i < size ? response[i] : 0xa5);
		}
		assert_int_equal(*shared(RSP_PROD), 0); /* not seen yet */
		(void)ring_push(&ring);
		assert_int_equal(*shared(RSP_PROD), 1);
	}
}

/* What a guest may say, and what breaks the ring: for every number of requests
 * that are taken and not answered. */
static void test_overrun(void **state)
{
	(void)state;
	for (uint32_t taken = 0; taken <= 32; taken++) {
		static const uint32_t at[] = { 0, 5, UINT32_MAX - 3,
					       INT32_MAX };

		for (size_t a = 0; a < ARRAY_SIZE(at); a++) {
			struct ring ring = start(BLKIF_X86_64, 1, at[a]);
			_Alignas(8) uint8_t slot[BLKIF_SLOT_MAX];
			uint32_t count;

			for (uint32_t i = 0; i < taken; i++) {
				ask(&ring, 1);
				ring_take(&ring, slot);
			}
			for (uint32_t n = 0; n <= 32 - taken; n++) {
				*shared(REQ_PROD) = at[a] + taken + n;
				assert_int_equal(ring_look(&ring, &count), 0);
				assert_int_equal(count, n);
			}
			static const uint32_t wild[] = { 1u << 31,
							 (1u << 31) - 1,
							 UINT32_MAX - 32 };

			*shared(REQ_PROD) = at[a] + 33;
			assert_int_equal(ring_look(&ring, &count), -EPROTO);
			*shared(REQ_PROD) = at[a] + taken - 1;
			assert_int_equal(ring_look(&ring, &count), -EPROTO);
			for (size_t i = 0; i < ARRAY_SIZE(wild); i++) {
				*shared(REQ_PROD) = at[a] + wild[i];
				assert_int_equal(ring_look(&ring, &count),
						 -EPROTO);
			}
		}
	}
}

static void test_notify(void **state)
{
	struct ring ring = start(BLKIF_X86_64, 1, 0);
	_Alignas(8) uint8_t slot[BLKIF_SLOT_MAX];

	(void)state;
	for (unsigned int i = 0; i < 8; i++) {
		ask(&ring, 1);
		ring_take(&ring, slot);
	}
	*shared(RSP_EVENT) = 3; /* tell me at the third */
	ring_put(&ring, 1, 0, 0);
	ring_put(&ring, 2, 0, 0);
	assert_false(ring_push(&ring));
	ring_put(&ring, 3, 0, 0);
	ring_put(&ring, 4, 0, 0);
	assert_true(ring_push(&ring));
	ring_put(&ring, 5, 0, 0);
	assert_false(ring_push(&ring));
}

static void test_final_check(void **state)
{
	struct ring ring = start(BLKIF_X86_64, 1, 0);
	_Alignas(8) uint8_t slot[BLKIF_SLOT_MAX];

	(void)state;
	assert_false(ring_final_check(&ring));
	assert_int_equal(*shared(REQ_EVENT), 1);
	ask(&ring, 1);
	assert_true(ring_final_check(&ring));
	ring_take(&ring, slot);
	assert_false(ring_final_check(&ring));
	assert_int_equal(*shared(REQ_EVENT), 2);
}

static void test_resume(void **state)
{
	struct ring ring = start(BLKIF_X86_64, 1, 10);
	uint32_t count;

	(void)state;
	for (unsigned int i = 0; i < 6; i++)
		ask(&ring, 1);
	ring_resume(&ring, 14); /* 4 are in the log */
	assert_int_equal(ring_look(&ring, &count), 0);
	assert_int_equal(count, 2);
	ring_put(&ring, 1, 0, 0);
	(void)ring_push(&ring);
	assert_int_equal(*shared(RSP_PROD), 11);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slots),
		cmocka_unit_test(test_rounds),
		cmocka_unit_test(test_response_bytes),
		cmocka_unit_test(test_overrun),
		cmocka_unit_test(test_notify),
		cmocka_unit_test(test_final_check),
		cmocka_unit_test(test_resume),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
