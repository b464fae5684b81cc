/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The text of a disk, the paths of its chunks, and the text of its commits.
 */
#include "config.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "../../backends/git/disk-format.h"
#include "../../backends/git/refs.h"
#include "common/util.h"

#define GIB ((uint64_t)1 << 30)
#define TIB ((uint64_t)1 << 40)

/* --- Sizes ---------------------------------------------------------------------- */

static const struct {
	uint64_t size;
	uint32_t chunk; /* as it is asked for */
	uint32_t becomes; /* 0: it is refused */
	unsigned int levels;
} sizes[] = {
	{ 512, 0, 65536, 3 },
	{ 512 * GIB, 0, 65536, 3 },
	{ 512 * GIB + 512, 0, 262144, 3 },
	{ 4 * TIB, 0, 262144, 3 },
	{ 4 * TIB + 512, 0, 1048576, 3 },
	{ 16 * TIB, 0, 1048576, 3 },
	{ 16 * TIB + 512, 0, 1048576, 4 },
	{ 4096 * TIB, 0, 1048576, 4 },
	{ 4096 * TIB + 512, 0, 0, 0 },
	{ GIB, 16384, 16384, 3 },
	{ 256 * GIB + 512, 16384, 16384, 4 },
	{ GIB, 1048576, 1048576, 3 },
	{ GIB, 8192, 0, 0 },
	{ GIB, 2097152, 0, 0 },
	{ GIB, 65537, 0, 0 },
	{ GIB, 98304, 0, 0 },
	{ 0, 0, 0, 0 },
	{ 513, 0, 0, 0 },
};

static void new_disks(void **state)
{
	char reason[WHY_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct git_disk disk = { .size = 1 };
		int r = git_disk_new(&disk, sizes[i].size, sizes[i].chunk,
				     reason);

		if (!sizes[i].becomes) {
			assert_int_equal(r, -EINVAL);
			assert_int_equal(disk.size, 1);
			continue;
		}
		assert_int_equal(r, 0);
		assert_int_equal(disk.chunk, sizes[i].becomes);
		assert_int_equal(disk.levels, sizes[i].levels);
		assert_true(git_disk_chunks(&disk) * disk.chunk >= disk.size);
		assert_true((git_disk_chunks(&disk) - 1) * disk.chunk <
			    disk.size);
	}
}

static void last_chunk(void **state)
{
	struct git_disk disk;
	char reason[WHY_MAX];

	(void)state;
	assert_int_equal(git_disk_new(&disk, 3 * 65536 + 512, 0, reason), 0);
	assert_int_equal(git_disk_chunks(&disk), 4);
	assert_int_equal(git_disk_bytes(&disk, 0), 65536);
	assert_int_equal(git_disk_bytes(&disk, 2), 65536);
	assert_int_equal(git_disk_bytes(&disk, 3), 512);
}

static void paths(void **state)
{
	struct git_disk disk = { 16 * TIB, 512, 1048576, 3 };
	char path[GIT_CHUNK_PATH];

	(void)state;
	assert_string_equal(git_disk_path(&disk, 0x001af3, path),
			    "data/00/1a/f3");
	assert_string_equal(git_disk_path(&disk, 0xffffff, path),
			    "data/ff/ff/ff");
	disk.levels = 4;
	assert_string_equal(git_disk_path(&disk, 0xfe001af3, path),
			    "data/fe/00/1a/f3");
}

/* --- Text ------------------------------------------------------------------------ */

#define FRONT "xendisk-git 1\nsize 1073741824\n"
#define GOOD  FRONT "sector 512\nchunk 65536\nlevels 3\nfeatures -\n"

static void text_and_back(void **state)
{
	struct git_disk disk, again;
	char text[GIT_DISK_TEXT];
	char reason[WHY_MAX];
	size_t n;

	(void)state;
	assert_int_equal(git_disk_parse(GOOD, strlen(GOOD), &disk, reason), 0);
	assert_int_equal(disk.size, GIB);
	assert_int_equal(disk.sector, 512);
	assert_int_equal(disk.chunk, 65536);
	assert_int_equal(disk.levels, 3);
	n = git_disk_print(&disk, text);
	assert_int_equal(n, strlen(GOOD));
	assert_string_equal(text, GOOD);
	disk = (struct git_disk){ 4096 * TIB, 4096, 1048576, 4 };
	n = git_disk_print(&disk, text);
	assert_int_equal(git_disk_parse(text, n, &again, reason), 0);
	assert_memory_equal(&again, &disk, sizeof(disk));
}

static const struct {
	const char *text;
	int err;
	const char *says;
} wrong[] = {
	{ "", -EBADMSG, "xendisk-git 1" },
	{ "xendisk-git 2\n", -EBADMSG, "xendisk-git 1" },
	{ "xendisk-git 1", -EBADMSG, "xendisk-git 1" },
	{ FRONT, -EBADMSG, "missing" },
	{ FRONT "sector 1024\nchunk 65536\nlevels 3\nfeatures -\n", -EBADMSG,
	  "512 or 4096" },
	{ FRONT "sector 512\nchunk 65535\nlevels 3\nfeatures -\n", -EBADMSG,
	  "16K" },
	{ FRONT "sector 512\nchunk 2097152\nlevels 3\nfeatures -\n", -EBADMSG,
	  "too large" },
	{ FRONT "sector 512\nchunk 65536\nlevels 2\nfeatures -\n", -EBADMSG,
	  "levels" },
	{ FRONT "sector 512\nchunk 65536\nlevels 5\nfeatures -\n", -EBADMSG,
	  "too large" },
	{ FRONT "sector 512\nchunk 065536\nlevels 3\nfeatures -\n", -EBADMSG,
	  "missing" },
	{ FRONT "chunk 65536\nsector 512\nlevels 3\nfeatures -\n", -EBADMSG,
	  "missing" },
	{ FRONT "sector 512\nchunk 65536\nlevels 3\n", -EBADMSG, "features" },
	{ GOOD "more\n", -EBADMSG, "features" },
	{ FRONT "sector 512\nchunk 65536\nlevels 3\nfeatures zstd\n", -ENOTSUP,
	  "features" },
	{ "xendisk-git 1\nsize 0\nsector 512\nchunk 65536\nlevels 3\n"
	  "features -\n",
	  -EBADMSG, "multiple" },
	{ "xendisk-git 1\nsize 9223372036854775808\nsector 512\n"
	  "chunk 65536\nlevels 3\nfeatures -\n",
	  -EBADMSG, "too large" },
	{ "xendisk-git 1\nsize 9223372036854775296\nsector 512\n"
	  "chunk 1048576\nlevels 4\nfeatures -\n",
	  -EBADMSG, "too many" },
};

static void wrong_texts(void **state)
{
	struct git_disk disk = { .size = 1 };
	char reason[WHY_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(git_disk_parse(wrong[i].text,
						strlen(wrong[i].text), &disk,
						reason),
				 wrong[i].err);
		assert_non_null(strstr(reason, wrong[i].says));
		assert_int_equal(disk.size, 1);
	}
	/* Every prefix, and a NUL within. */
	for (size_t n = 0; n < strlen(GOOD); n++)
		assert_int_equal(git_disk_parse(GOOD, n, &disk, reason),
				 -EBADMSG);
	assert_int_equal(git_disk_parse(GOOD, strlen(GOOD) + 1, &disk, reason),
			 -EBADMSG);
}

/* --- Commits ---------------------------------------------------------------------- */

static struct commit_facts example(void)
{
	struct commit_facts facts = {
		.tree = { 0xab },
		.has_parent = true,
		.parent = { 0xcd },
		.time = 1764100612,
		.author = "a b <c@example.org>",
		.message = "before the upgrade\n\nthe new kernel\n",
		.domain = "web1",
		.consistency = CONSISTENCY_FS_FROZEN,
		.has_dirty = true,
		.dirty = 12345,
		.layer = "c0ffee00-0000-4000-8000-000000000000/7",
	};

	return facts;
}

static void commits(void **state)
{
	const char *wanted =
		"tree ab00000000000000000000000000000000000000\n"
		"parent cd00000000000000000000000000000000000000\n"
		"author a b <c@example.org> 1764100612 +0000\n"
		"committer a b <c@example.org> 1764100612 +0000\n"
		"\n"
		"before the upgrade\n"
		"\n"
		"the new kernel\n"
		"\n"
		"Xendisk-Domain: web1\n"
		"Xendisk-Consistency: fs-frozen\n"
		"Xendisk-Dirty-Bytes: 12345\n"
		"Xendisk-Layer: c0ffee00-0000-4000-8000-000000000000/7\n";
	struct commit_facts facts = example(), read = { .time = 0 };
	cleanup_free char *text = NULL;
	char reason[WHY_MAX];
	size_t n;

	(void)state;
	assert_int_equal(commit_text(&facts, &text, &n, reason), 0);
	assert_int_equal(n, strlen(wanted));
	assert_string_equal(text, wanted);
	commit_read_message(&read, strstr(text, "\n\n") + 2);
	assert_string_equal(read.message,
			    "before the upgrade\n\nthe new kernel");
	assert_string_equal(read.domain, facts.domain);
	assert_string_equal(read.layer, facts.layer);
	assert_int_equal(read.consistency, CONSISTENCY_FS_FROZEN);
	assert_true(read.has_dirty);
	assert_int_equal(read.dirty, 12345);
}

/* Trailers are those of the last paragraph, and only if it has nothing else. */
static const struct {
	const char *text;
	const char *message;
	const char *domain;
} messages[] = {
	{ "", "", "" },
	{ "one", "one", "" },
	{ "one\n\n\n", "one", "" },
	{ "Xendisk-Domain: web1\n", "Xendisk-Domain: web1", "" },
	{ "one\n\nXendisk-Domain: web1", "one", "web1" },
	{ "one\n\nXendisk-Domain: a\x1b[31m\n", "one", "a?[31m" },
	{ "one\n\nXendisk-Domain: web1\n\ntwo",
	  "one\n\nXendisk-Domain: web1\n\ntwo", "" },
	{ "one\n\nXendisk-Domain: web1\nReviewed-by: x",
	  "one\n\nXendisk-Domain: web1\nReviewed-by: x", "web1" },
};

static void read_messages(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
		struct commit_facts read = { .time = 0 };

		commit_read_message(&read, messages[i].text);
		assert_string_equal(read.message, messages[i].message);
		assert_string_equal(read.domain, messages[i].domain);
	}
}

static void wrong_commits(void **state)
{
	static const char *const authors[] = {
		"",	     "a",	 "<a@b>",   "a<a@b>",	 "a <a@b",
		"a <a@b> c", "a <<a@b>", "a <a>b>", "a\n <a@b>",
	};
	struct commit_facts facts = example();
	cleanup_free char *text = NULL;
	char reason[WHY_MAX];
	size_t n;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(authors); i++) {
		(void)snprintf(facts.author, sizeof(facts.author), "%s",
			       authors[i]);
		assert_int_equal(commit_text(&facts, &text, &n, reason),
				 -EINVAL);
	}
	facts = example();
	(void)snprintf(facts.domain, sizeof(facts.domain), "a\nparent");
	assert_int_equal(commit_text(&facts, &text, &n, reason), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(new_disks),
		cmocka_unit_test(last_chunk),
		cmocka_unit_test(paths),
		cmocka_unit_test(text_and_back),
		cmocka_unit_test(wrong_texts),
		cmocka_unit_test(commits),
		cmocka_unit_test(read_messages),
		cmocka_unit_test(wrong_commits),
	};

	return cmocka_run_group_tests_name("git disk", tests, NULL, NULL);
}
