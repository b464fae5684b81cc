/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Packs of ours in a repository that git works on at the same time.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/util.h"
#include "pack-run.h"

static void put_entry(uint8_t **at, const char *mode_name, const uint8_t *oid)
{
	memcpy(*at, mode_name, strlen(mode_name) + 1);
	*at += strlen(mode_name) + 1;
	memcpy(*at, oid, OID_BYTES);
	*at += OID_BYTES;
}

/* A commit of a tree; ret_hex: its id. */
static void add_commit(struct run *run, const uint8_t tree[OID_BYTES],
		       char ret_hex[OID_HEX + 1])
{
	uint8_t oid[OID_BYTES];
	char text[256];

	oid_hex(tree, ret_hex);
	assert_int_equal(
		pack_add(run->writer, OBJECT_COMMIT, text,
			 (size_t)snprintf(text, sizeof(text),
					  "tree %s\nauthor a <a@b> 1 +0000\n"
					  "committer a <a@b> 1 +0000\n\nx\n",
					  ret_hex),
			 oid, run->why),
		0);
	oid_hex(oid, ret_hex);
}

/* ... of the first nr chunks. */
static void tree_commit(struct run *run, unsigned int nr,
			char ret_hex[OID_HEX + 1])
{
	uint8_t tree[1024], *end = tree, oid[OID_BYTES];

	for (unsigned int i = 0; i < nr; i++) {
		char entry[16];

		(void)snprintf(entry, sizeof(entry), "100644 %02x", i);
		put_entry(&end, entry, run->oids[i]);
	}
	assert_int_equal(pack_add(run->writer, OBJECT_TREE, tree,
				  (size_t)(end - tree), oid, run->why),
			 0);
	add_commit(run, oid, ret_hex);
}

/* ... of one file. */
static void whole_commit(struct run *run, char ret_hex[OID_HEX + 1])
{
	uint8_t blob[OID_BYTES], tree[256], *end = tree, oid[OID_BYTES];

	assert_int_equal(pack_add(run->writer, OBJECT_BLOB, "content", 7, blob,
				  run->why),
			 0);
	put_entry(&end, "100644 file", blob);
	assert_int_equal(pack_add(run->writer, OBJECT_TREE, tree,
				  (size_t)(end - tree), oid, run->why),
			 0);
	add_commit(run, oid, ret_hex);
}

/* A commit is one for git; until then .keep holds the pack. */
static void kept_until_referenced(void **state)
{
	char hex[OID_HEX + 1];
	cleanup_free char *refer = NULL, *keep = NULL;
	struct run run;
	size_t n;

	(void)state;
	run_setup(&run);
	run.options.keep_text = "branch web, layer 7";
	run_begin(&run);
	whole_commit(&run, hex);
	run_finish(&run);
	keep = (char *)run_slurp(&run, "keep", &n);
	keep[n] = '\0';
	assert_non_null(strstr(keep, "xendisk-git: host="));
	assert_non_null(strstr(keep, " branch web, layer 7\n"));
	assert_int_equal(repo_run(&run.repo, "git -C %s gc -q --prune=now"), 0);
	assert_int_equal(repo_files(&run.repo, ".idx"), 1);
	refer = xasprintf("git -C %%s update-ref refs/heads/main %s", hex);
	assert_int_equal(repo_run(&run.repo, refer), 0);
	assert_int_equal(pack_unkeep(run.repo.dir, &run.names, run.why), 0);
	assert_int_equal(repo_files(&run.repo, ".keep"), 0);
	assert_int_equal(repo_run(&run.repo, "git -C %s gc -q --prune=now"), 0);
	assert_int_equal(
		repo_run(&run.repo,
			 "test \"$(git -C %s show main:file)\" = content"),
		0);
	run_judged(&run);
	run_teardown(&run);
}

/* The control of the test above: without .keep and reference git removes it. */
static void pruned_when_let_go(void **state)
{
	char hex[OID_HEX + 1];
	struct run run;

	(void)state;
	run_setup(&run);
	run_begin(&run);
	whole_commit(&run, hex);
	run_finish(&run);
	assert_int_equal(pack_unkeep(run.repo.dir, &run.names, run.why), 0);
	assert_int_equal(repo_run(&run.repo, "git -C %s gc -q --prune=now"), 0);
	assert_int_equal(repo_files(&run.repo, ".idx"), 0);
	run_teardown(&run);
}

/* In a loop, in another process, which ends with this one at the latest. */
static pid_t collect_garbage(const struct repo *repo)
{
	char parent[16];
	pid_t pid;

	(void)snprintf(parent, sizeof(parent), "%d", (int)getpid());
	pid = fork();
	if (pid != 0)
		return pid;
	(void)execlp("sh", "sh", "-c",
		     "exec > \"$0/gc.out\" 2>&1; cd \"$0\" || exit\n"
		     "while [ ! -e enough ] && kill -0 $1; do\n"
		     "HOME=/nonexistent git gc -q --prune=now || touch failed\n"
		     "done",
		     repo->path, parent, NULL);
	_exit(1);
}

/* Commits while git collects garbage as hard as it can: each one is whole. */
static void gc_beside(void **state)
{
	struct run run;
	pid_t gc;
	int status;

	(void)state;
	run_setup(&run);
	run.options.split = 300000;
	gc = collect_garbage(&run.repo);
	assert_true(gc > 0);
	for (unsigned int i = 0; i < 8; i++) {
		cleanup_free char *refer = NULL;
		char hex[OID_HEX + 1];

		run_begin(&run);
		run.told = 0;
		for (uint64_t k = 0; k < 12; k++)
			assert_int_equal(run_chunk(&run, CHUNK, k, NOISE,
						   100 * i + k, NULL),
					 0);
		assert_int_equal(pack_chunks_drain(run.writer, run.why), 0);
		tree_commit(&run, 12, hex);
		run_finish(&run);
		for (uint64_t k = 0; k < 12; k++)
			run_expect_chunk(&run, CHUNK, k, NOISE, 100 * i + k);
		refer = xasprintf("git -C %%s update-ref refs/heads/b%u %s", i,
				  hex);
		assert_int_equal(repo_run(&run.repo, refer), 0);
		assert_int_equal(pack_unkeep(run.repo.dir, &run.names, run.why),
				 0);
		pack_names_free(&run.names);
		pack_writer_free(TAKE_PTR(run.writer));
	}
	assert_int_equal(repo_run(&run.repo, "touch %s/enough"), 0);
	assert_int_equal(waitpid(gc, &status, 0), gc);
	assert_int_equal(status, 0);
	assert_int_equal(repo_run(&run.repo, "test ! -e %s/failed"), 0);
	assert_int_equal(repo_files(&run.repo, ".keep"), 0);
	assert_int_equal(repo_files(&run.repo, "tmp"), 0);
	run_judged(&run);
	run_teardown(&run);
}

/* The same objects again, by a writer that knows nothing: a pack of another name,
 * for the first one may be on somebody's list of those to delete. */
static void same_pack_again(void **state)
{
	struct run run;

	(void)state;
	run_setup(&run);
	for (int i = 0; i < 2; i++) {
		run_begin(&run);
		run.told = 0;
		assert_int_equal(run_chunk(&run, CHUNK, 0, TEXT, 1, NULL), 0);
		run_finish(&run);
		pack_writer_free(TAKE_PTR(run.writer));
		pack_names_free(&run.names);
	}
	assert_int_equal(repo_files(&run.repo, ".idx"), 2);
	run_judged(&run);
	run_teardown(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kept_until_referenced),
		cmocka_unit_test(pruned_when_let_go),
		cmocka_unit_test(gc_beside),
		cmocka_unit_test(same_pack_again),
	};

	if (!has_git())
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
