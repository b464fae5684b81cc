/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every backend and filter, on both engines: what is read is what was written.
 */
#include "config.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "common/util.h"
#include "rig.h"

#define SIZE (4u << 20)

static unsigned char content[SIZE];

struct setting {
	const char *name;
	bool uring;
	const char *expression;
	bool discard_zeroes;
	bool starts_full; /* the image holds data before */
	bool keeps_image; /* and is never written to */
	unsigned int lanes;
	uint64_t seed;
};

static void fill(const char *path)
{
	cleanup_close int fd = open(path, O_RDWR);

	for (unsigned int i = 0; i < SIZE; i++)
		content[i] = (unsigned char)(i * 2654435761u >> 13);
	assert_true(fd >= 0);
	assert_int_equal(pwrite_all(fd, content, SIZE, 0), 0);
}

/* Is the file what fill() has made of it? */
static void check_file(const char *path)
{
	cleanup_free unsigned char *now = malloc(SIZE);
	cleanup_close int fd = open(path, O_RDONLY);

	assert_int_equal(pread_all(fd, now, SIZE, 0), 0);
	for (unsigned int i = 0; i < SIZE; i++)
		if (now[i] != (unsigned char)(i * 2654435761u >> 13))
			fail_msg("%s: byte %u has changed", path, i);
}

struct lane_run {
	struct rig_model model;
	pthread_t thread;
	unsigned int wrong;
};

static void *run_lane(void *arg)
{
	struct lane_run *run = arg;

	run->wrong = rig_model_run(&run->model);
	return NULL;
}

/* Returns how many sectors were wrong. */
static unsigned int run_lanes(struct rig *rig, const struct setting *setting)
{
	struct lane_run runs[RIG_LANES];
	unsigned int wrong = 0;

	for (unsigned int i = 0; i < setting->lanes; i++) {
		runs[i].model = (struct rig_model){
			.rig = rig,
			.lane = i,
			.seed = setting->seed + i + 1,
			.bursts = setting->lanes > 1 ? 300 : 60,
			.share = setting->lanes,
			.discard_zeroes = setting->discard_zeroes,
			.content = content,
		};
		assert_int_equal(pthread_create(&runs[i].thread, NULL, run_lane,
						&runs[i]),
				 0);
	}
	for (unsigned int i = 0; i < setting->lanes; i++) {
		pthread_join(runs[i].thread, NULL);
		wrong += runs[i].wrong;
	}
	return wrong;
}

/* The whole disk, through the stack. */
static void check_all(struct rig *rig)
{
	unsigned char *buf = aligned_alloc(4096, 65536);

	for (uint64_t at = 0; at < SIZE; at += 65536) {
		assert_int_equal(rig_io(rig, 0, XD_READ, 0, at, 65536, buf), 0);
		assert_memory_equal(buf, content + at, 65536);
	}
	free(buf);
}

static void data_is_kept(void **state)
{
	const struct setting *setting = *state;
	struct rig rig;
	const char *image;

	rig_new(&rig, setting->uring);
	image = rig_file(&rig, "image", SIZE);
	(void)rig_file(&rig, "top", SIZE);
	memset(content, 0, SIZE);
	if (setting->starts_full)
		fill(image);
	if (rig_open(&rig, setting->lanes, setting->expression) < 0)
		fail_msg("%s: %s", setting->expression, rig.why);
	if (setting->starts_full)
		check_all(&rig);
	assert_int_equal(run_lanes(&rig, setting), 0);
	assert_int_equal(rig_close(&rig), 0);
	if (setting->keeps_image)
		check_file(image);
	rig_free(&rig);
}

/* The check can fail: a disk whose content is not what we believe. */
static void the_model_notices(void **state)
{
	struct setting setting = { .lanes = 1, .seed = 1 };
	struct rig rig;

	rig_new(&rig, *(const bool *)*state);
	fill(rig_file(&rig, "image", SIZE));
	for (unsigned int i = 0; i < SIZE; i += 512)
		content[i] ^= 1;
	assert_int_equal(rig_open(&rig, 1, "@/image"), 0);
	assert_int_not_equal(run_lanes(&rig, &setting), 0);
	assert_int_equal(rig_close(&rig), 0);
	rig_free(&rig);
}

/* A read-only disk is the base of check_all(). */
static void read_only_is_read(void **state)
{
	static const char *const expressions[] = { "readonly(@/image)",
						   "@/image" };
	struct rig rig;

	rig_new(&rig, *(const bool *)*state);
	fill(rig_file(&rig, "image", SIZE));
	for (unsigned int i = 0; i < ARRAY_SIZE(expressions); i++) {
		assert_int_equal(rig_open_read_only(&rig, expressions[i]), 0);
		assert_true(stack_limits(rig.stack)->readonly);
		check_all(&rig);
		assert_int_equal(rig_close(&rig), 0);
	}
	rig_free(&rig);
}

/* Nothing is stored, and nothing of anybody's memory comes to light. */
static void null_is_zeroes(void **state)
{
	static unsigned char buf[300 * 512], zeroes[sizeof(buf)];
	struct rig rig;

	rig_new(&rig, *(const bool *)*state);
	assert_int_equal(rig_open(&rig, 1, "null(1M)"), 0);
	memset(buf, 0xa5, sizeof(buf));
	assert_int_equal(rig_io(&rig, 0, XD_WRITE, 0, 0, sizeof(buf), buf), 0);
	assert_int_equal(rig_map_io(&rig, 0, XD_WRITE, 0, sizeof(buf), buf), 0);
	assert_int_equal(rig_io(&rig, 0, XD_READ, 0, 0, sizeof(buf), buf), 0);
	assert_memory_equal(buf, zeroes, sizeof(buf));
	memset(buf, 0xa5, sizeof(buf));
	assert_int_equal(rig_map_io(&rig, 0, XD_READ, 0, sizeof(buf), buf), 0);
	assert_memory_equal(buf, zeroes, sizeof(buf));
	assert_int_equal(rig_close(&rig), 0);
	rig_free(&rig);
}

/* Done, and then it is zero; or refused, and then it is as it was.  Returns
 * which: 0 or -EOPNOTSUPP. */
static int fast_zero(struct rig *rig, uint32_t flags)
{
	static unsigned char data[64 << 10] __attribute__((aligned(4096)));
	static unsigned char now[sizeof(data)] __attribute__((aligned(4096)));
	int r;

	memset(data, 0x3c, sizeof(data));
	assert_true(stack_limits(rig->stack)->fast_zero);
	assert_int_equal(rig_io(rig, 0, XD_WRITE, 0, 65536, sizeof(data), data),
			 0);
	r = rig_io(rig, 0, XD_ZERO, XD_FAST | flags, 65536, sizeof(data), NULL);
	if (r == 0)
		memset(data, 0, sizeof(data));
	assert_int_equal(rig_io(rig, 0, XD_READ, 0, 65536, sizeof(now), now),
			 0);
	assert_memory_equal(now, data, sizeof(data));
	return r;
}

static void fast_zeroes(void **state)
{
	static const char *const expressions[] = { "mem(4M)", "@/image",
						   "raw(@/image, discard=no)",
						   "cow(@/image, mem)" };
	struct rig rig;

	rig_new(&rig, *(const bool *)*state);
	(void)rig_file(&rig, "image", SIZE);
	for (unsigned int i = 0; i < ARRAY_SIZE(expressions); i++) {
		bool is_raw = i == 1 || i == 2;
		int r;

		assert_int_equal(rig_open(&rig, 1, expressions[i]), 0);
		r = fast_zero(&rig, 0);
		assert_true(r == 0 || (is_raw && r == -EOPNOTSUPP));
		/* In place memory is written like any other. */
		r = fast_zero(&rig, XD_NO_HOLE);
		assert_true(r == -EOPNOTSUPP || (is_raw && r == 0));
		assert_int_equal(rig_close(&rig), 0);
		rig_detach(&rig);
	}
	rig_free(&rig);
}

static const struct setting settings[] = {
	{ .name = "raw", .expression = "@/image" },
	{ .name = "raw, page cache",
	  .expression = "raw(@/image, cache=writeback)",
	  .starts_full = true },
	{ .name = "raw, written through",
	  .expression = "raw(@/image, cache=writethrough)" },
	{ .name = "raw, no discard", .expression = "raw(@/image, discard=no)" },
	{ .name = "raw, 4096",
	  .expression = "raw(@/image, sector-size=4096)",
	  .starts_full = true },
	{ .name = "raw, 4 lanes", .expression = "@/image", .lanes = 4 },
	{ .name = "mem", .expression = "mem(4M)" },
	{ .name = "mem, 4 lanes", .expression = "mem(4M)", .lanes = 4 },
	{ .name = "cow, mem",
	  .expression = "cow(@/image, mem)",
	  .discard_zeroes = true,
	  .starts_full = true,
	  .keeps_image = true },
	{ .name = "cow, file",
	  .expression = "cow(@/image, @/top)",
	  .discard_zeroes = true,
	  .starts_full = true,
	  .keeps_image = true },
	{ .name = "cow, mem, 4 lanes",
	  .expression = "cow(@/image, mem)",
	  .discard_zeroes = true,
	  .starts_full = true,
	  .keeps_image = true,
	  .lanes = 4 },
	{ .name = "cow, file of 4096, 4 lanes",
	  .expression = "cow(@/image, raw(@/top, sector-size=4096))",
	  .discard_zeroes = true,
	  .starts_full = true,
	  .keeps_image = true,
	  .lanes = 4 },
	{ .name = "cow on cow",
	  .expression = "cow(cow(@/image, mem), mem)",
	  .discard_zeroes = true,
	  .starts_full = true,
	  .keeps_image = true },
};

#define NR_DATA (2 * ARRAY_SIZE(settings))

int main(void)
{
	static struct setting setting[NR_DATA];
	static char names[NR_DATA][64];
	static bool uring[] = { false, true };
	struct CMUnitTest tests[NR_DATA + 8];
	unsigned int n = 0;

	for (; n < NR_DATA; n++) {
		setting[n] = settings[n / 2];
		setting[n].uring = n % 2;
		setting[n].lanes = MAX(setting[n].lanes, 1u);
		setting[n].seed = 1000 * n + 7;
		snprintf(names[n], sizeof(names[n]), "%s, %s", setting[n].name,
			 n % 2 ? "io_uring" : "threads");
		tests[n] = (struct CMUnitTest){ names[n], data_is_kept, NULL,
						NULL, &setting[n] };
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(uring); i++) {
		tests[n++] = (struct CMUnitTest){ "read-only",
						  read_only_is_read, NULL, NULL,
						  &uring[i] };
		tests[n++] = (struct CMUnitTest){ "fast zeroes", fast_zeroes,
						  NULL, NULL, &uring[i] };
		tests[n++] = (struct CMUnitTest){ "null is zeroes",
						  null_is_zeroes, NULL, NULL,
						  &uring[i] };
		tests[n++] = (struct CMUnitTest){ "the model notices",
						  the_model_notices, NULL, NULL,
						  &uring[i] };
	}
	return cmocka_run_group_tests_name("backend data", tests, NULL, NULL);
}
