/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the writer makes of objects, judged by git: index-pack makes the same index,
 * fsck and verify-pack have nothing to say, cat-file has each object byte for byte.
 */
#include "config.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "../../backends/git/pack-private.h"
#include "common/util.h"
#include "pack-run.h"

/* --- Objects of all kinds ------------------------------------------------------------ */

#define PASSES 20u

/* Each kind of content in each pass, and the last chunk is short. */
static void all_kinds(struct run *run)
{
	struct pack_totals totals;

	run_begin(run);
	for (uint64_t i = 0; i < PASSES * NR_STUFF; i++)
		assert_int_equal(run_chunk(run, CHUNK, i,
					   (enum stuff)(i % NR_STUFF), i, NULL),
				 0);
	assert_int_equal(run_chunk(run, 777, PASSES * NR_STUFF, TEXT, 1, NULL),
			 0);
	run_finish(run);
	assert_int_equal(run->told, PASSES * NR_STUFF + 1);
	for (uint64_t i = 0; i < PASSES * NR_STUFF; i++) {
		enum stuff stuff = (enum stuff)(i % NR_STUFF);

		assert_int_equal(run->has_id[i], stuff != ZEROES);
		if (stuff != ZEROES)
			run_expect_chunk(run, CHUNK, i, stuff, i);
	}
	run_expect_chunk(run, 777, PASSES * NR_STUFF, TEXT, 1);
	pack_totals(run->writer, &totals);
	assert_int_equal(totals.fates[PACK_ZERO], PASSES);
	assert_int_equal(
		totals.objects,
		(NR_STUFF - 1) * PASSES + 1 +
			(run->add_every ?
				 PASSES * NR_STUFF / run->add_every + 1 :
				 0));
	run_judged(run);
}

static void kinds(void **state)
{
	struct run run;

	(void)state;
	for (unsigned int threads = 1; threads <= 3; threads++) {
		run_setup(&run);
		run.options.threads = threads;
		run.add_every = 7; /* done() adds objects, too */
		all_kinds(&run);
		assert_int_equal(run.names.nr, 1);
		for (unsigned int i = 0; i < PASSES; i++) {
			assert_int_equal(run.fates[i * NR_STUFF + NOISE],
					 PACK_STORED);
			assert_int_equal(run.fates[i * NR_STUFF + TEXT],
					 PACK_DEFLATED);
			assert_int_equal(run.fates[i * NR_STUFF + RECORDS],
					 PACK_DEFLATED);
		}
		run_teardown(&run);
	}
}

static void never_compressed(void **state)
{
	struct run run;
	struct pack_totals totals;

	(void)state;
	run_setup(&run);
	run.options.store_only = true;
	all_kinds(&run);
	pack_totals(run.writer, &totals);
	assert_int_equal(totals.fates[PACK_DEFLATED], 0);
	assert_true(totals.packed > totals.bytes);
	run_teardown(&run);
}

/* What does not compress is in the pack as it is, and where a reader expects it. */
static void stored_as_it_is(void **state)
{
	cleanup_free uint8_t *want = malloc(CHUNK), *pack = NULL;
	struct run run;
	size_t n;

	(void)state;
	run_setup(&run);
	run_begin(&run);
	assert_int_equal(run_chunk(&run, CHUNK, 0, NOISE, 5, NULL), 0);
	run_finish(&run);
	fill(want, CHUNK, NOISE, 5);
	pack = run_slurp(&run, "pack", &n);
	/* head of the pack; type, size; zlib; block; ...; block, byte; sums */
	assert_int_equal(n, 12 + 3 + 2 + 5 + 65535 + 5 + 1 + 4 + 20);
	assert_memory_equal(pack + 22, want, 65535);
	assert_int_equal(pack[22 + 65535 + 5], want[65535]);
	run_teardown(&run);
}

/* --- One by one -------------------------------------------------------------------- */

/* Sizes at which the head, the blocks and the pieces change. */
static void sizes(void **state)
{
	static const size_t some[] = { 0,	1,	 15,	  16,
				       2047,	2048,	 32767,	  65534,
				       65535,	65536,	 131070,  131071,
				       1048576, 1048577, 1310700, 1310701,
				       5000000 };
	struct run run;

	(void)state;
	run_setup(&run);
	for (int store = 0; store < 2; store++) {
		run.options.store_only = store;
		run_begin(&run);
		for (size_t i = 0; i < ARRAY_SIZE(some); i++)
			for (int stuff = NOISE; stuff < NR_STUFF; stuff++) {
				cleanup_free uint8_t *data =
					malloc(some[i] + 1);

				fill(data, some[i], (enum stuff)stuff,
				     i + 100 + 50 * (uint64_t)store);
				run_add(&run, OBJECT_BLOB, data, some[i]);
			}
		run_finish(&run);
		pack_writer_free(TAKE_PTR(run.writer));
		pack_names_free(&run.names);
	}
	run_judged(&run);
	run_teardown(&run);
}

/* --- Not written ------------------------------------------------------------------- */

static void nothing(void **state)
{
	struct run run;

	(void)state;
	run_setup(&run);
	run_begin(&run);
	run_finish(&run);
	assert_int_equal(run.names.nr, 0);
	assert_int_equal(repo_files(&run.repo, ""), 0);
	assert_null(run.names.packs); /* nothing to free, either */
	pack_writer_free(TAKE_PTR(run.writer));
	run_begin(&run);
	for (uint64_t i = 0; i < 40; i++)
		assert_int_equal(run_chunk(&run, CHUNK, i, ZEROES, 0, NULL), 0);
	run_finish(&run);
	assert_int_equal(run.names.nr, 0);
	assert_int_equal(repo_files(&run.repo, ""), 0);
	run_teardown(&run);
}

/* Nearly zero is not zero. */
static void one_bit(void **state)
{
	static const size_t places[] = { 0, 1, CHUNK / 2, CHUNK - 1 };
	struct run run;
	uint8_t *buffer;

	(void)state;
	run_setup(&run);
	run_begin(&run);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		assert_int_equal(pack_buffer(run.writer, CHUNK,
					     (void **)&buffer, run.why),
				 0);
		memset(buffer, 0, CHUNK);
		buffer[places[i]] = 1;
		assert_int_equal(pack_add_chunk(run.writer, buffer, CHUNK, i,
						NULL, run.why),
				 0);
	}
	run_finish(&run);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		assert_true(run.has_id[i]);
	run_judged(&run);
	run_teardown(&run);
}

static void duplicates(void **state)
{
	struct pack_totals totals;
	struct run run;

	(void)state;
	run_setup(&run);
	run.options.threads = 3;
	run_begin(&run);
	for (uint64_t i = 0; i < 400; i++)
		assert_int_equal(run_chunk(&run, 4096, i, NOISE, i % 10, NULL),
				 0);
	run_finish(&run);
	pack_totals(run.writer, &totals);
	assert_int_equal(totals.fates[PACK_THERE], 390);
	assert_int_equal(totals.fates[PACK_STORED], 10);
	assert_int_equal(totals.objects, 10);
	for (uint64_t i = 0; i < 400; i++)
		assert_memory_equal(run.oids[i], run.oids[i % 10], OID_BYTES);
	for (uint64_t i = 0; i < 10; i++)
		run_expect_chunk(&run, 4096, i, NOISE, i);
	run_judged(&run); /* index-pack and verify-pack refuse doubles */
	run_teardown(&run);
}

/* What it has already, and what it was, is not written. */
static void there_already(void **state)
{
	uint8_t oid[OID_BYTES];
	struct run run;

	(void)state;
	run_setup(&run);
	run_begin(&run);
	assert_int_equal(run_chunk(&run, CHUNK, 0, TEXT, 1, NULL), 0);
	assert_int_equal(run_chunk(&run, CHUNK, 1, TEXT, 2, NULL), 0);
	run_finish(&run);
	pack_writer_free(TAKE_PTR(run.writer));
	pack_names_free(&run.names);
	memcpy(run.had, run.oids[0], OID_BYTES);
	run.told = 0;
	run.ask = true;
	run_begin(&run);
	assert_int_equal(run_chunk(&run, CHUNK, 0, TEXT, 1, NULL), 0);
	assert_int_equal(run_chunk(&run, CHUNK, 1, TEXT, 2, run.oids[1]), 0);
	/* Another one than it was */
	assert_int_equal(run_chunk(&run, CHUNK, 2, TEXT, 3, run.oids[1]), 0);
	/* Changed to zeroes */
	assert_int_equal(run_chunk(&run, CHUNK, 3, ZEROES, 0, run.oids[1]), 0);
	assert_int_equal(pack_chunks_drain(run.writer, run.why), 0);
	assert_int_equal(run.fates[0], PACK_THERE);
	assert_int_equal(run.fates[1], PACK_SAME);
	assert_int_equal(run.fates[2], PACK_DEFLATED);
	assert_int_equal(run.fates[3], PACK_ZERO);
	assert_memory_equal(run.oids[0], run.had, OID_BYTES);
	assert_int_equal(run.asked, 2); /* not of what is the same */
	/* One by one, too */
	{
		cleanup_free uint8_t *data = malloc(CHUNK);
		struct pack_totals totals;

		fill(data, CHUNK, TEXT, 1);
		assert_int_equal(pack_add(run.writer, OBJECT_BLOB, data, CHUNK,
					  oid, run.why),
				 0);
		assert_memory_equal(oid, run.had, OID_BYTES);
		pack_totals(run.writer, &totals);
		assert_int_equal(totals.objects, 1);
	}
	run_finish(&run);
	assert_int_equal(repo_files(&run.repo, ".idx"), 2);
	run_judged(&run);
	run_teardown(&run);
}

/* --- Several packs ------------------------------------------------------------------ */

static void split(void **state)
{
	cleanup_free uint8_t *large = malloc(3000000);
	struct run run;

	(void)state;
	run_setup(&run);
	run.options.split = 1500000;
	run_begin(&run);
	fill(large, 3000000, NOISE, 77);
	run_add(&run, OBJECT_BLOB, large, 3000000); /* has one for itself */
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(run_chunk(&run, CHUNK, i, NOISE, i, NULL), 0);
	run_finish(&run);
	/* 22 chunks in each */
	assert_int_equal(run.names.nr, 1 + 5);
	assert_int_equal(repo_files(&run.repo, ".idx"), 6);
	assert_int_equal(repo_files(&run.repo, ".keep"), 6);
	assert_int_equal(repo_files(&run.repo, "tmp"), 0);
	assert_int_equal(repo_run(&run.repo,
				  "test $(find %s/objects/pack -name '*.pack' "
				  "-size +1500000c | wc -l) = 1"),
			 0);
	for (uint64_t i = 0; i < 100; i++)
		run_expect_chunk(&run, CHUNK, i, NOISE, i);
	run_judged(&run);
	run_teardown(&run);
}

/* Offsets that need 64 bits: git shows what the index says. */
static void large_offsets(void **state)
{
	struct pack_object objects[4] = { 0 };
	static const uint64_t at[] = { 0x100000000, 12, 0x7fffffff,
				       0x1234567890 };
	static const uint8_t trailer[OID_BYTES] = { 9 };
	cleanup_free char *path = NULL;
	cleanup_free uint8_t *index = NULL;
	struct run run;
	size_t n;
	int fd;

	(void)state;
	run_setup(&run);
	for (unsigned int i = 0; i < 4; i++) {
		objects[i].oid[0] = (uint8_t)(0xf0 - 16 * i);
		objects[i].crc = 0xabcd0000 + i;
		objects[i].at = at[i];
	}
	assert_int_equal(pack_index_make(objects, 4, trailer, &index, &n), 0);
	path = xasprintf("%s/index", run.repo.path);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(pwrite_all(fd, index, n, 0), 0);
	(void)close(fd);
	assert_int_equal(
		repo_run(&run.repo,
			 "cd %s; z=00000000000000000000000000000000000000\n"
			 "git show-index < index > shown; cat > wanted << X\n"
			 "78187493520 c0$z (abcd0003)\n"
			 "2147483647 d0$z (abcd0002)\n"
			 "12 e0$z (abcd0001)\n"
			 "4294967296 f0$z (abcd0000)\n"
			 "X\n"
			 "diff shown wanted"),
		0);
	run_teardown(&run);
}

/* The same in a pack that is as large as that, in check-long; else in a smaller
 * one. */
static void large_pack(void **state)
{
	const char *how_much = getenv("XENDISK_PACK");
	const size_t n = how_much && strcmp(how_much, "full") == 0 ?
				 (size_t)PACK_SPLIT + CHUNK :
				 64 * CHUNK;
	uint8_t oid[OID_BYTES], *zeroes;
	struct run run;

	(void)state;
	zeroes = mmap(NULL, n, PROT_READ,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(zeroes, MAP_FAILED);
	run_setup(&run);
	run.options.store_only = true;
	run.options.split = 4 * PACK_SPLIT;
	run_begin(&run);
	assert_int_equal(
		pack_add(run.writer, OBJECT_BLOB, zeroes, n, oid, run.why), 0);
	for (uint64_t i = 0; i < 10; i++)
		assert_int_equal(run_chunk(&run, CHUNK, i, TEXT, i, NULL), 0);
	run_finish(&run);
	assert_int_equal(run.names.nr, 1);
	for (uint64_t i = 0; i < 10; i++)
		run_expect_chunk(&run, CHUNK, i, TEXT, i);
	run_judged(&run);
	run_teardown(&run);
	(void)munmap(zeroes, n);
}

/* --- Ends that are none -------------------------------------------------------------- */

static void given_up(void **state)
{
	struct run run;

	(void)state;
	run_setup(&run);
	run.options.split = 500000;
	run_begin(&run);
	for (uint64_t i = 0; i < 60; i++)
		assert_int_equal(run_chunk(&run, CHUNK, i, NOISE, i, NULL), 0);
	pack_writer_free(TAKE_PTR(run.writer));
	assert_int_equal(repo_files(&run.repo, ""), 0);
	run_teardown(&run);
}

static void done_fails(void **state)
{
	struct run run;
	uint64_t i = 0;
	int r = 0;

	(void)state;
	run_setup(&run);
	run.fail_at = 20;
	run_begin(&run);
	while (r == 0 && i < 100)
		r = run_chunk(&run, CHUNK, i++, NOISE, 1, NULL);
	assert_int_equal(r, -ENOTTY);
	assert_string_equal(run.why, "chunk 19 was not wanted");
	run.why[0] = '\0';
	assert_int_equal(pack_writer_finish(run.writer, &run.names, run.why),
			 -ENOTTY);
	assert_string_equal(run.why, "chunk 19 was not wanted");
	pack_writer_free(TAKE_PTR(run.writer));
	assert_int_equal(repo_files(&run.repo, ""), 0);
	run_teardown(&run);
}

static void wrong_calls(void **state)
{
	uint8_t oid[OID_BYTES], byte = 1;
	struct run run;
	void *buffer;

	(void)state;
	run_setup(&run);
	run_begin(&run);
	assert_int_equal(pack_buffer(run.writer, 0, &buffer, run.why), -EINVAL);
	assert_int_equal(pack_buffer(run.writer, PACK_MAX_CHUNK + 1, &buffer,
				     run.why),
			 -EFBIG);
	assert_int_equal(pack_add(run.writer, OBJECT_BLOB, &byte,
				  PACK_MAX_OBJECT + 1, oid, run.why),
			 -EFBIG);
	assert_int_equal(pack_add_chunk(run.writer, &byte, 1, 0, NULL, run.why),
			 -EINVAL);
	assert_int_equal(run_chunk(&run, 100, 0, TEXT, 1, NULL), 0);
	assert_int_equal(pack_writer_finish(run.writer, &run.names, run.why),
			 -EINVAL); /* not drained */
	run_finish(&run);
	run_judged(&run);
	run_teardown(&run);
}

/* --- Does the judge judge? ------------------------------------------------------------ */

static void judge_notices(void **state)
{
	static const char *const damages[] = {
		/* a byte of the pack, of the crc, of an offset */
		"printf X | dd of=$(echo *.pack) bs=1 seek=3000 conv=notrunc",
		"printf X | dd of=$(echo *.idx) bs=1 seek=1060 conv=notrunc",
		"printf X | dd of=$(echo *.idx) bs=1 seek=1053 conv=notrunc",
	};
	struct run run;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		cleanup_free char *text = NULL;

		run_setup(&run);
		run_begin(&run);
		assert_int_equal(run_chunk(&run, CHUNK, 0, NOISE, 1, NULL), 0);
		run_finish(&run);
		run_judged(&run);
		text = xasprintf("cd %%s/objects/pack && chmod u+w * && %s",
				 damages[i]);
		assert_int_equal(repo_run(&run.repo, text), 0);
		assert_int_not_equal(repo_judge(&run.repo), 0);
		run_teardown(&run);
	}
	run_setup(&run);
	run_begin(&run);
	run_add(&run, OBJECT_BLOB, "one", 3);
	run_finish(&run);
	run.model.known[0].data[0] = 'x';
	assert_int_equal(model_missing(&run.model, &run.repo), 1);
	run_teardown(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kinds),
		cmocka_unit_test(never_compressed),
		cmocka_unit_test(stored_as_it_is),
		cmocka_unit_test(sizes),
		cmocka_unit_test(nothing),
		cmocka_unit_test(one_bit),
		cmocka_unit_test(duplicates),
		cmocka_unit_test(there_already),
		cmocka_unit_test(split),
		cmocka_unit_test(large_offsets),
		cmocka_unit_test(large_pack),
		cmocka_unit_test(given_up),
		cmocka_unit_test(done_fails),
		cmocka_unit_test(wrong_calls),
		cmocka_unit_test(judge_notices),
	};

	if (!has_git())
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
