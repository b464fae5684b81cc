/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "common/util.h"
#include "pack-run.h"

static bool have(void *ctx, const uint8_t oid[OID_BYTES])
{
	struct run *run = ctx;

	run->asked++;
	return memcmp(run->had, oid, OID_BYTES) == 0;
}

void run_add(struct run *run, enum object_type type, const void *data, size_t n)
{
	uint8_t oid[OID_BYTES];

	assert_int_equal(pack_add(run->writer, type, data, n, oid, run->why),
			 0);
	model_add(&run->model, oid, type, data, n);
}

static int done(void *ctx, uint64_t tag, const uint8_t *oid,
		enum pack_fate fate, char *ret_why)
{
	struct run *run = ctx;

	assert_int_equal(tag, run->told); /* in order, each once */
	assert_in_range(tag, 0, ARRAY_SIZE(run->fates) - 1);
	run->told++;
	run->fates[tag] = fate;
	run->has_id[tag] = oid != NULL;
	if (oid)
		memcpy(run->oids[tag], oid, OID_BYTES);
	if (run->add_every > 0 && tag % run->add_every == 0) {
		char text[32];

		run_add(run, OBJECT_BLOB, text,
			(size_t)snprintf(text, sizeof(text), "beside %d",
					 (int)tag));
	}
	if (tag + 1 == run->fail_at)
		return why(ret_why, -ENOTTY, "chunk %d was not wanted",
			   (int)tag);
	return 0;
}

void run_begin(struct run *run)
{
	run->options.dir = run->repo.dir;
	run->options.done = done;
	run->options.have = run->ask ? have : NULL;
	run->options.ctx = run;
	assert_int_equal(pack_writer_new(&run->writer, &run->options, run->why),
			 0);
}

void run_setup(struct run *run)
{
	*run = (struct run){ .options = { .threads = 2 } };
	repo_make(&run->repo);
}

void run_teardown(struct run *run)
{
	pack_writer_free(run->writer);
	pack_names_free(&run->names);
	model_free(&run->model);
	repo_remove(&run->repo);
}

int run_chunk(struct run *run, size_t n, uint64_t tag, enum stuff stuff,
	      uint64_t seed, const uint8_t *same)
{
	void *buffer;
	int r = pack_buffer(run->writer, n, &buffer, run->why);

	if (r < 0)
		return r;
	fill(buffer, n, stuff, seed);
	return pack_add_chunk(run->writer, buffer, n, tag, same, run->why);
}

void run_finish(struct run *run)
{
	assert_int_equal(pack_chunks_drain(run->writer, run->why), 0);
	assert_int_equal(pack_writer_finish(run->writer, &run->names, run->why),
			 0);
}

void run_expect_chunk(struct run *run, size_t n, uint64_t tag, enum stuff stuff,
		      uint64_t seed)
{
	cleanup_free uint8_t *data = malloc(n);

	assert_true(run->has_id[tag]);
	fill(data, n, stuff, seed);
	model_add(&run->model, run->oids[tag], OBJECT_BLOB, data, n);
}

void run_judged(struct run *run)
{
	assert_int_equal(repo_judge(&run->repo), 0);
	assert_int_equal(model_missing(&run->model, &run->repo), 0);
}

uint8_t *run_slurp(const struct run *run, const char *suffix, size_t *ret_n)
{
	char name[PACK_NAME_MAX + 8];
	struct stat st;
	uint8_t *data;
	int fd;

	(void)snprintf(name, sizeof(name), "%s.%s", run->names.packs[0].name,
		       suffix);
	fd = openat(run->repo.dir, name, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	data = malloc((size_t)st.st_size + 1);
	assert_int_equal(pread_all(fd, data, (size_t)st.st_size, 0), 0);
	(void)close(fd);
	*ret_n = (size_t)st.st_size;
	return data;
}
