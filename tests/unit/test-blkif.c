/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__
#include <xen/xen.h>
#include <xen/io/blkif.h>

#include "common/util.h"
#include "worker/blkif.h"

#define MIB (1024u * 1024u)

static const struct blkif_limits disk = {
	.size = 64 * MIB,
	.sector_size = 512,
	.discard_granularity = 4096,
};

static const enum blkif_layout layouts[] = { BLKIF_X86_32, BLKIF_X86_64 };

/* A slot under construction: fields by their place in the layout. */
struct slot {
	enum blkif_layout layout;
	uint8_t bytes[BLKIF_SLOT_MAX];
};

static size_t id_at(const struct slot *slot)
{
	return slot->layout == BLKIF_X86_32 ? 4 : 8;
}

static struct slot make(enum blkif_layout layout, uint8_t op, uint8_t second,
			uint64_t sector)
{
	struct slot slot = { .layout = layout };
	uint64_t id = 0x1122334455667788;

	slot.bytes[0] = op;
	slot.bytes[1] = second;
	memcpy(slot.bytes + id_at(&slot), &id, 8);
	memcpy(slot.bytes + id_at(&slot) + 8, &sector, 8);
	return slot;
}

static void put_segment(uint8_t *at, uint32_t gref, uint8_t first, uint8_t last)
{
	memcpy(at, &gref, 4);
	at[4] = first;
	at[5] = last;
	at[6] = at[7] = 0xa5;
}

static void segment(struct slot *slot, unsigned int i, uint32_t gref,
		    uint8_t first, uint8_t last)
{
	put_segment(slot->bytes + id_at(slot) + 16 + i * 8, gref, first, last);
}

static struct blkif_job judge(const struct blkif_limits *limits,
			      const struct slot *slot)
{
	/* Of exactly the slot's size, so that a sanitizer sees a read beyond. */
	size_t size = blkif_slot_size(slot->layout);
	cleanup_free uint8_t *copy = malloc(size);
	struct blkif_job job;

	memset(&job, 0xa5, sizeof(job));
	memcpy(copy, slot->bytes, size);
	blkif_judge(limits, slot->layout, copy, &job);
	return job;
}

#define each_layout(i) (size_t i = 0; i < ARRAY_SIZE(layouts); i++)

/* --- Layout --------------------------------------------------------------------- */

/* Our table against Xen's header, as the compiler lays it out natively. */
static void test_native_layout(void **state)
{
	(void)state;
	assert_int_equal(sizeof(struct blkif_request),
			 blkif_slot_size(BLKIF_NATIVE));
	assert_int_equal(sizeof(struct blkif_response),
			 blkif_response_size(BLKIF_NATIVE));
	struct blkif_request req = { .operation = BLKIF_OP_WRITE,
				     .nr_segments = 2,
				     .id = 77,
				     .sector_number = 8 };
	struct blkif_job job;

	req.seg[0] = (struct blkif_request_segment){ 100, 1, 7 };
	req.seg[1] = (struct blkif_request_segment){ 101, 0, 0 };
	blkif_judge(&disk, BLKIF_NATIVE, &req, &job);
	assert_int_equal(job.status, BLKIF_STATUS_OKAY);
	assert_int_equal(job.id, 77);
	assert_int_equal(job.action, BLKIF_WRITE);
	assert_int_equal(job.offset, 4096);
	assert_int_equal(job.length, 4096);
	assert_int_equal(job.segments[0].gref, 100);
	assert_int_equal(job.segments[0].offset, 512);
	assert_int_equal(job.segments[0].length, 3584);
	assert_int_equal(job.segments[1].gref, 101);
}

static void test_native_indirect(void **state)
{
	struct blkif_request_indirect req = { .operation = BLKIF_OP_INDIRECT,
					      .indirect_op = BLKIF_OP_WRITE,
					      .nr_segments = 256,
					      .id = 78,
					      .sector_number = 16 };
	struct blkif_job job;

	(void)state;
	req.indirect_grefs[0] = 1234;
	assert_true(sizeof(req) <= blkif_slot_size(BLKIF_NATIVE));
	blkif_judge(&disk, BLKIF_NATIVE, &req, &job);
	assert_int_equal(job.status, BLKIF_STATUS_OKAY);
	assert_true(job.indirect);
	assert_int_equal(job.id, 78);
	assert_int_equal(job.op, BLKIF_OP_WRITE);
	assert_int_equal(job.nr_segments, 256);
	assert_int_equal(job.list_gref, 1234);
	assert_int_equal(job.offset, 8192);
}

static void test_native_discard(void **state)
{
	struct blkif_request_discard req = { .operation = BLKIF_OP_DISCARD,
					     .id = 79,
					     .sector_number = 8,
					     .nr_sectors = 24 };
	struct blkif_job job;

	(void)state;
	blkif_judge(&disk, BLKIF_NATIVE, &req, &job);
	assert_int_equal(job.status, BLKIF_STATUS_OKAY);
	assert_int_equal(job.offset, 4096);
	assert_int_equal(job.length, 12288);
}

static void test_response(void **state)
{
	struct blkif_response rsp;

	(void)state;
	memset(&rsp, 0xa5, sizeof(rsp));
	blkif_response(0x8877665544332211, BLKIF_OP_DISCARD,
		       BLKIF_STATUS_UNSUPPORTED, &rsp);
	assert_int_equal(rsp.id, 0x8877665544332211);
	assert_int_equal(rsp.operation, BLKIF_OP_DISCARD);
	assert_int_equal(rsp.status, BLKIF_RSP_EOPNOTSUPP);
	for (size_t i = 0; i < sizeof(rsp); i++)
		if (i == 9 || i >= 12)
			assert_int_equal(((uint8_t *)&rsp)[i], 0);
}

/* --- Segments -------------------------------------------------------------------- */

/* All pairs of first and last, in a slot and in an indirect page. */
static void test_every_pair(void **state)
{
	(void)state;
	for
		each_layout(l) for (unsigned int pair = 0; pair < 65536; pair++)
		{
			uint8_t first = (uint8_t)(pair >> 8);
			uint8_t last = (uint8_t)pair;
			bool legal = first <= last && last <= 7;
			struct slot slot =
				make(layouts[l], BLKIF_OP_READ, 1, 0);
			struct blkif_job job;

			segment(&slot, 0, 5, first, last);
			job = judge(&disk, &slot);
			assert_int_equal(job.id, 0x1122334455667788);
			assert_int_equal(job.status,
					 legal ? BLKIF_STATUS_OKAY :
						 BLKIF_STATUS_ERROR);
			if (!legal)
				continue;
			assert_int_equal(job.segments[0].offset, first * 512);
			assert_int_equal(job.length, (last - first + 1) * 512);
			assert_int_equal(job.segments[0].length, job.length);
		}
}

static void test_segment_counts(void **state)
{
	(void)state;
	for
		each_layout(l) for (unsigned int n = 0; n < 256; n++)
		{
			struct slot slot =
				make(layouts[l], BLKIF_OP_WRITE, (uint8_t)n, 0);
			struct blkif_job job;

			for (unsigned int i = 0; i < MIN(n, 11u); i++)
				segment(&slot, i, i, 0, 7);
			job = judge(&disk, &slot);
			if (n >= 1 && n <= 11)
				assert_int_equal(job.length, n * 4096);
			else
				assert_int_equal(job.status,
						 BLKIF_STATUS_ERROR);
		}
}

/* The bad one may stand anywhere. */
static void test_one_bad_segment(void **state)
{
	(void)state;
	for (unsigned int bad = 0; bad < 11; bad++) {
		struct slot slot = make(BLKIF_X86_64, BLKIF_OP_READ, 11, 0);

		for (unsigned int i = 0; i < 11; i++)
			segment(&slot, i, i, 0, i == bad ? 8 : 7);
		assert_int_equal(judge(&disk, &slot).status,
				 BLKIF_STATUS_ERROR);
	}
}

/* --- Where on the disk ------------------------------------------------------------- */

static void test_range(void **state)
{
	static const struct {
		uint64_t sector;
		bool legal;
	} cases[] = {
		{ 0, true },
		{ 64 * MIB / 512 - 8, true },
		{ 64 * MIB / 512 - 7, false },
		{ 64 * MIB / 512, false },
		{ UINT64_MAX, false },
		{ UINT64_MAX - 7, false },
		{ UINT64_MAX / 512, false },
		{ UINT64_MAX / 512 + 1, false }, /* times 512 is 0 */
		{ 1ull << 55, false },
		{ 1ull << 63, false },
	};

	(void)state;
	for
		each_layout(l) for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		{
			struct slot slot = make(layouts[l], BLKIF_OP_READ, 1,
						cases[i].sector);

			segment(&slot, 0, 5, 0, 7);
			assert_int_equal(judge(&disk, &slot).status,
					 cases[i].legal ? BLKIF_STATUS_OKAY :
							  BLKIF_STATUS_ERROR);
		}
}

static void test_alignment(void **state)
{
	struct blkif_limits big = disk;
	struct slot slot = make(BLKIF_X86_64, BLKIF_OP_WRITE, 2, 8);

	(void)state;
	big.sector_size = 4096;
	segment(&slot, 0, 5, 4, 7);
	segment(&slot, 1, 6, 0, 3);
	assert_int_equal(judge(&big, &slot).status, BLKIF_STATUS_OKAY);
	segment(&slot, 1, 6, 0, 2);
	assert_int_equal(judge(&big, &slot).status, BLKIF_STATUS_ERROR);
	slot = make(BLKIF_X86_64, BLKIF_OP_WRITE, 1, 9);
	segment(&slot, 0, 5, 0, 7);
	assert_int_equal(judge(&big, &slot).status, BLKIF_STATUS_ERROR);
}

/* --- Operations -------------------------------------------------------------------- */

static void test_unknown(void **state)
{
	(void)state;
	for
		each_layout(l) for (unsigned int op = 0; op < 256; op++)
		{
			struct slot slot = make(layouts[l], (uint8_t)op, 0, 0);
			struct blkif_job job = judge(&disk, &slot);

			assert_int_equal(job.id, 0x1122334455667788);
			if (op != BLKIF_OP_INDIRECT)
				assert_int_equal(job.op, op);
			if (op == BLKIF_OP_RESERVED_1 || op > BLKIF_OP_INDIRECT)
				assert_int_equal(job.status,
						 BLKIF_STATUS_UNSUPPORTED);
			else
				assert_int_not_equal(job.status,
						     BLKIF_STATUS_UNSUPPORTED);
		}
}

static void test_flush(void **state)
{
	static const uint8_t ops[] = { BLKIF_OP_FLUSH_DISKCACHE,
				       BLKIF_OP_WRITE_BARRIER };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		struct slot slot = make(BLKIF_X86_64, ops[i], 0, UINT64_MAX);
		struct blkif_job job = judge(&disk, &slot);

		assert_int_equal(job.status, BLKIF_STATUS_OKAY);
		assert_int_equal(job.length, 0);
		slot = make(BLKIF_X86_64, ops[i], 1, 8);
		segment(&slot, 0, 5, 0, 7);
		job = judge(&disk, &slot);
		assert_int_equal(job.status, BLKIF_STATUS_OKAY);
		assert_int_equal(job.offset, 4096);
		assert_int_equal(job.length, 4096);
	}
}

static void test_read_only(void **state)
{
	struct blkif_limits ro = disk;
	static const uint8_t ops[] = { BLKIF_OP_WRITE, BLKIF_OP_WRITE_BARRIER,
				       BLKIF_OP_FLUSH_DISKCACHE };
	struct slot slot;

	(void)state;
	ro.readonly = true;
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		slot = make(BLKIF_X86_32, ops[i], 1, 8);
		segment(&slot, 0, 5, 0, 7);
		assert_int_equal(judge(&ro, &slot).status, BLKIF_STATUS_ERROR);
	}
	slot = make(BLKIF_X86_32, BLKIF_OP_DISCARD, 0, 0);
	assert_int_equal(judge(&ro, &slot).status, BLKIF_STATUS_ERROR);
	slot = make(BLKIF_X86_32, BLKIF_OP_INDIRECT, BLKIF_OP_WRITE, 0);
	slot.bytes[2] = 1;
	assert_int_equal(judge(&ro, &slot).status, BLKIF_STATUS_ERROR);
	slot.bytes[1] = BLKIF_OP_READ;
	assert_int_equal(judge(&ro, &slot).status, BLKIF_STATUS_OKAY);
	slot = make(BLKIF_X86_32, BLKIF_OP_FLUSH_DISKCACHE, 0, 0);
	assert_int_equal(judge(&ro, &slot).status, BLKIF_STATUS_OKAY);
}

static struct blkif_job discard(const struct blkif_limits *limits, uint8_t flag,
				uint64_t sector, uint64_t sectors)
{
	struct slot slot = make(BLKIF_X86_32, BLKIF_OP_DISCARD, flag, sector);

	memcpy(slot.bytes + id_at(&slot) + 16, &sectors, 8);
	return judge(limits, &slot);
}

static void test_discard(void **state)
{
	struct blkif_limits limits = disk;
	struct blkif_job job;

	(void)state;
	job = discard(&limits, 0, 1, 16); /* 512..8704: 4096..8192 is whole */
	assert_int_equal(job.status, BLKIF_STATUS_OKAY);
	assert_int_equal(job.offset, 4096);
	assert_int_equal(job.length, 4096);
	job = discard(&limits, 0, 1, 7);
	assert_int_equal(job.status, BLKIF_STATUS_OKAY);
	assert_int_equal(job.length, 0);
	job = discard(&limits, 0, 0, 64 * MIB / 512);
	assert_int_equal(job.length, 64 * MIB);
	job = discard(&limits, 0, 8, UINT64_MAX - 7);
	assert_int_equal(job.status, BLKIF_STATUS_ERROR);
	job = discard(&limits, 0, 1, 64 * MIB / 512);
	assert_int_equal(job.status, BLKIF_STATUS_ERROR);
	job = discard(&limits, BLKIF_DISCARD_SECURE, 0, 8);
	assert_int_equal(job.status, BLKIF_STATUS_UNSUPPORTED);
	limits.discard_alignment = 512;
	job = discard(&limits, 0, 0, 17); /* pieces begin at 512 */
	assert_int_equal(job.offset, 512);
	assert_int_equal(job.length, 8192);
	limits.discard_granularity = 0;
	job = discard(&limits, 0, 0, 8);
	assert_int_equal(job.status, BLKIF_STATUS_UNSUPPORTED);
}

/* --- Indirect ---------------------------------------------------------------------- */

static struct blkif_job indirect(uint8_t op, uint16_t segments, uint64_t sector)
{
	struct slot slot = make(BLKIF_X86_64, BLKIF_OP_INDIRECT, op, sector);

	memcpy(slot.bytes + 2, &segments, 2);
	return judge(&disk, &slot);
}

static void test_indirect_head(void **state)
{
	(void)state;
	for (unsigned int op = 0; op < 256; op++) {
		struct blkif_job job = indirect((uint8_t)op, 1, 0);
		bool legal = op == BLKIF_OP_READ || op == BLKIF_OP_WRITE;

		assert_int_equal(job.op, op); /* the inner one is echoed */
		assert_int_equal(job.status, legal ? BLKIF_STATUS_OKAY :
						     BLKIF_STATUS_ERROR);
	}
	for (unsigned int n = 0; n < 65536; n++)
		assert_int_equal(indirect(BLKIF_OP_READ, (uint16_t)n, 0).status,
				 n >= 1 && n <= 256 ? BLKIF_STATUS_OKAY :
						      BLKIF_STATUS_ERROR);
	assert_int_equal(indirect(BLKIF_OP_READ, 1, UINT64_MAX).status,
			 BLKIF_STATUS_ERROR);
}

static void test_indirect_list(void **state)
{
	struct blkif_segment list[BLKIF_INDIRECT_MAX];
	uint8_t *raw = (uint8_t *)list;
	struct blkif_job job = indirect(BLKIF_OP_WRITE, 256, 8);

	(void)state;
	for (unsigned int i = 0; i < 256; i++)
		put_segment(raw + i * 8, 1000 + i, 0, 7);
	blkif_judge_indirect(&disk, &job, raw, list); /* in place */
	assert_int_equal(job.status, BLKIF_STATUS_OKAY);
	assert_int_equal(job.offset, 4096);
	assert_int_equal(job.length, MIB);
	for (unsigned int i = 0; i < 256; i++) {
		assert_int_equal(list[i].gref, 1000 + i);
		assert_int_equal(list[i].length, 4096);
	}

	/* One bad at the end; then past the end of the disk. */
	job = indirect(BLKIF_OP_READ, 256, 8);
	for (unsigned int i = 0; i < 256; i++)
		put_segment(raw + i * 8, 1000 + i, 0, i == 255 ? 255 : 7);
	blkif_judge_indirect(&disk, &job, raw, list);
	assert_int_equal(job.status, BLKIF_STATUS_ERROR);
	job = indirect(BLKIF_OP_READ, 2, 64 * MIB / 512 - 8);
	put_segment(raw, 1, 0, 7);
	put_segment(raw + 8, 2, 0, 0);
	blkif_judge_indirect(&disk, &job, raw, list);
	assert_int_equal(job.status, BLKIF_STATUS_ERROR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_native_layout),
		cmocka_unit_test(test_native_indirect),
		cmocka_unit_test(test_native_discard),
		cmocka_unit_test(test_response),
		cmocka_unit_test(test_every_pair),
		cmocka_unit_test(test_segment_counts),
		cmocka_unit_test(test_one_bad_segment),
		cmocka_unit_test(test_range),
		cmocka_unit_test(test_alignment),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_flush),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_discard),
		cmocka_unit_test(test_indirect_head),
		cmocka_unit_test(test_indirect_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
