/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where data is: each backend's word for it, on both engines, is checked
 * against a model and against what is read; and on a disk of which the whole map
 * is known.
 */
#include "config.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"
#include "extents-check.h"
#include "worker/stack.h"

#define SIZE (4u << 20)
#define MB   1048576

static unsigned char content[SIZE];

struct setting {
	const char *name;
	const char *expression;
	/* After write_pattern(); NULL: only the model. */
	const char *map;
	bool discard_zeroes;
	bool base_has_data; /* 64 KiB at 2 MiB of the image */
	bool uring;
};

static void prepare(struct rig *rig, const struct setting *setting)
{
	static unsigned char data[64 << 10];
	cleanup_close int fd = -1;

	rig_new(rig, setting->uring);
	fd = open(rig_file(rig, "image", SIZE), O_RDWR);
	(void)rig_file(rig, "top", SIZE);
	memset(content, 0, SIZE);
	memset(data, 0x77, sizeof(data));
	if (setting->base_has_data) {
		assert_int_equal(pwrite_all(fd, data, sizeof(data), 2 * MB), 0);
		memcpy(content + 2 * MB, data, sizeof(data));
	}
	if (rig_open(rig, 1, setting->expression) < 0)
		fail_msg("%s: %s", setting->expression, rig->why);
}

static void model_agrees(void **state)
{
	const struct setting *setting = *state;
	struct rig rig;

	prepare(&rig, setting);
	assert_true(extents_model(&rig, content, setting->discard_zeroes, 7) >
		    0);
	assert_int_equal(rig_close(&rig), 0);
	rig_free(&rig);
}

/* 64 KiB of data at 1 MiB, of which the second half becomes zero. */
static void write_pattern(struct rig *rig)
{
	static unsigned char data[64 << 10] __attribute__((aligned(4096)));

	memset(data, 0x11, sizeof(data));
	assert_int_equal(rig_io(rig, 0, XD_WRITE, 0, MB, sizeof(data), data),
			 0);
	assert_int_equal(
		rig_io(rig, 0, XD_ZERO, 0, MB + (32 << 10), 32 << 10, NULL), 0);
}

static void map_is_known(void **state)
{
	const struct setting *setting = *state;
	struct rig rig;

	prepare(&rig, setting);
	write_pattern(&rig);
	assert_string_equal(extents_map(&rig), setting->map);
	assert_int_equal(rig_close(&rig), 0);
	rig_free(&rig);
}

/* What a read-only stack says of a base with data. */
static void read_only(void **state)
{
	struct setting setting = { .expression = "readonly(@/image)",
				   .base_has_data = true,
				   .uring = *(const bool *)*state };
	struct rig rig;

	prepare(&rig, &setting);
	assert_string_equal(extents_map(&rig), "0:hz 2097152:d 2162688:hz");
	assert_int_equal(rig_close(&rig), 0);
	rig_free(&rig);
}

static void null_is_a_hole(void **state)
{
	struct setting setting = { .expression =
					   "disk(null(1T), on-error=report)",
				   .uring = *(const bool *)*state };
	struct rig rig;

	prepare(&rig, &setting);
	assert_string_equal(extents_map(&rig), "0:hz");
	assert_int_equal(rig_close(&rig), 0);
	rig_free(&rig);
}

/* A file that was cut: who reads there gets errors, so nothing is called zero. */
static void beyond_the_end(void **state)
{
	struct setting setting = { .expression = "raw(@/image, lock=no)",
				   .uring = *(const bool *)*state };
	struct rig rig;

	prepare(&rig, &setting);
	assert_int_equal(truncate(rig_file(&rig, "image", 0), MB), 0);
	assert_true(rig_resize(&rig, 0) < 0);
	assert_string_equal(extents_map(&rig), "0:d");
	rig_die(&rig);
	rig_free(&rig);
}

/* A large one that has much to tell is asked in several questions, each of which
 * ends. */
static void many_pieces(void **state)
{
	struct setting setting = { .expression = "cow(@/image, mem)",
				   .uring = *(const bool *)*state };
	static unsigned char block[4096] __attribute__((aligned(4096)));
	struct extents_answer answer;
	unsigned int n = 0;
	struct rig rig;

	prepare(&rig, &setting);
	memset(block, 1, sizeof(block));
	for (uint64_t at = 0; at < SIZE; at += 8192)
		assert_int_equal(rig_io(&rig, 0, XD_WRITE, 0, at, 4096, block),
				 0);
	for (uint64_t at = 0; at < SIZE; at += answer.extents.told) {
		extents_ask(&rig, at, SIZE - at, EXTENTS_MAX, &answer);
		n += answer.extents.nr;
	}
	assert_int_equal(n, SIZE / 4096);
	assert_int_equal(rig_close(&rig), 0);
	rig_free(&rig);
}

/* --- The judge can say no ------------------------------------------------- */

static const char *verdict(struct rig *rig, struct extents_answer *answer)
{
	answer->extents.extent = answer->extent;
	answer->extents.max = EXTENTS_MAX;
	return extents_judge(rig, 0, 2 * MB, answer, content);
}

static void lies_are_noticed(void **state)
{
	struct setting setting = { .expression = "mem(4M)",
				   .uring = *(const bool *)*state };
	struct extents_answer lie = {
		.extents = { .nr = 2, .told = MB + 4096 },
		.extent = { { MB, XD_EXTENT_ZERO }, { 4096, 0 } },
	};
	struct rig rig;

	prepare(&rig, &setting);
	write_pattern(&rig);
	assert_null(verdict(&rig, &lie));
	lie.extent[1].flags = XD_EXTENT_ZERO | XD_EXTENT_HOLE;
	assert_non_null(strstr(verdict(&rig, &lie), "read as something"));
	lie.extent[1].flags = XD_EXTENT_ZERO;
	assert_non_null(strstr(verdict(&rig, &lie), "alike"));
	lie.extent[1] = (struct xd_extent){ 4000, 0 };
	assert_non_null(strstr(verdict(&rig, &lie), "multiple"));
	lie.extent[1] = (struct xd_extent){ 2 * MB, 0 };
	assert_non_null(strstr(verdict(&rig, &lie), "more than was asked"));
	lie.extents.nr = 0;
	assert_non_null(strstr(verdict(&rig, &lie), "none"));
	content[17] = 1;
	lie.extents.nr = 1;
	lie.extents.told = MB;
	assert_non_null(strstr(verdict(&rig, &lie), "was written to"));
	assert_int_equal(rig_close(&rig), 0);
	rig_free(&rig);
}

/* --- Rounding ------------------------------------------------------------- */

static void whole_sectors(void **state)
{
	enum { HZ = XD_EXTENT_HOLE | XD_EXTENT_ZERO };
	struct xd_extent extent[3];
	struct xd_extents extents = { .extent = extent, .max = 3 };
	struct xd_request req = { .op = XD_EXTENTS,
				  .length = 64 << 10,
				  .extents = &extents };

	(void)state;
	extents_begin(&req);
	assert_true(extents_add(&req, 4096, 8192 + 512, HZ));
	assert_true(extents_add(&req, 4096, 1024, XD_EXTENT_ZERO));
	assert_true(extents_add(&req, 4096, 0, 0));
	assert_true(extents_add(&req, 4096, 4096 - 1536 + 4096, 0));
	assert_int_equal(extents.nr, 2);
	assert_int_equal(extent[0].length, 8192);
	assert_int_equal(extent[1].length, 8192);
	assert_int_equal(extent[1].flags, 0);
	/* The last one takes all that is left, and no more. */
	assert_false(extents_add(&req, 4096, UINT64_MAX, HZ));
	assert_int_equal(extents.told, 64 << 10);
	assert_false(extents_add(&req, 4096, 4096, 0));
	assert_int_equal(extents.nr, 3);
	/* A part that is all there is: data. */
	extents_begin(&req);
	assert_true(extents_add(&req, 4096, 512, HZ));
	extents_end(&req);
	assert_int_equal(extents.nr, 1);
	assert_int_equal(extent[0].length, 64 << 10);
	assert_int_equal(extent[0].flags, 0);
	/* No room for a third kind. */
	extents.max = 1;
	extents_begin(&req);
	assert_true(extents_add(&req, 512, 4096, HZ));
	assert_true(extents_add(&req, 512, 4096, HZ));
	assert_false(extents_add(&req, 512, 4096, 0));
	assert_int_equal(extents.told, 8192);
}

static const struct setting settings[] = {
	{ .name = "raw",
	  .expression = "@/image",
	  .map = "0:hz 1048576:d 1081344:hz" },
	{ .name = "raw, page cache",
	  .expression = "raw(@/image, cache=writeback)",
	  .map = "0:hz 1048576:d 1081344:hz" },
	{ .name = "raw, 4096",
	  .expression = "raw(@/image, sector-size=4096)",
	  .map = "0:hz 1048576:d 1081344:hz" },
	{ .name = "mem",
	  .expression = "mem(4M)",
	  .map = "0:hz 1048576:d 1081344:hz" },
	{ .name = "cow, mem",
	  .expression = "cow(@/image, mem)",
	  .map = "0:hz 1048576:d 1081344:hz 2097152:d 2162688:hz",
	  .discard_zeroes = true,
	  .base_has_data = true },
	{ .name = "cow, file of 4096",
	  .expression = "cow(@/image, raw(@/top, sector-size=4096))",
	  .map = "0:hz 1048576:d 1081344:hz 2097152:d 2162688:hz",
	  .discard_zeroes = true,
	  .base_has_data = true },
	{ .name = "cow on cow",
	  .expression = "cow(cow(@/image, mem), mem)",
	  .map = "0:hz 1048576:d 1081344:hz 2097152:d 2162688:hz",
	  .discard_zeroes = true,
	  .base_has_data = true },
};

#define NR_SETTINGS (2 * ARRAY_SIZE(settings))

static const struct CMUnitTest by_engine[] = {
	{ "read-only", read_only, NULL, NULL, NULL },
	{ "null is a hole", null_is_a_hole, NULL, NULL, NULL },
	{ "a file that was cut", beyond_the_end, NULL, NULL, NULL },
	{ "many pieces", many_pieces, NULL, NULL, NULL },
	{ "lies are noticed", lies_are_noticed, NULL, NULL, NULL },
};

int main(void)
{
	static struct setting setting[NR_SETTINGS];
	static char names[NR_SETTINGS][64];
	static bool uring[] = { false, true };
	struct CMUnitTest tests[2 * NR_SETTINGS + 2 * ARRAY_SIZE(by_engine) + 1];
	unsigned int n = 0;

	for (unsigned int i = 0; i < NR_SETTINGS; i++) {
		setting[i] = settings[i / 2];
		setting[i].uring = i % 2;
		snprintf(names[i], sizeof(names[i]), "%s, %s", setting[i].name,
			 i % 2 ? "io_uring" : "threads");
		tests[n++] = (struct CMUnitTest){ names[i], model_agrees, NULL,
						  NULL, &setting[i] };
		tests[n++] = (struct CMUnitTest){ names[i], map_is_known, NULL,
						  NULL, &setting[i] };
	}
	for (unsigned int i = 0; i < 2 * ARRAY_SIZE(by_engine); i++) {
		tests[n] = by_engine[i / 2];
		tests[n++].initial_state = &uring[i % 2];
	}
	tests[n++] = (struct CMUnitTest){ "whole sectors", whole_sectors, NULL,
					  NULL, NULL };
	return cmocka_run_group_tests_name("extents", tests, NULL, NULL);
}
