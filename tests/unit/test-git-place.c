/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where a commit goes (commit-place.h), and what is pinned (pins.h). */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <git2.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "commit-place.h"
#include "common/util.h"
#include "leave-out.h"
#include "pins.h"
#include "ref-lock.h"
#include "retention.h"

#define TIME 1795392000 /* 20261123T000000Z */

static struct git_repository *repo;
static char folder[] = "/tmp/xendisk-place.XXXXXX";
/* a <- b <- c <- d, a <- x */
static uint8_t a[OID_BYTES], b[OID_BYTES], c[OID_BYTES], d[OID_BYTES];
static uint8_t x[OID_BYTES];
static char reason[WHY_MAX];

static void must(int r)
{
	const git_error *e = git_error_last();

	if (r < 0)
		fail_msg("%d: %s", r, e ? e->message : "?");
}

/* The time tells commits apart. */
static void make(uint8_t ret[OID_BYTES], const uint8_t *parent, int64_t time)
{
	git_signature *who;
	git_commit *before = NULL;
	git_treebuilder *builder;
	const git_commit *parents[1];
	git_oid id, tree_id;
	git_tree *tree;

	must(git_signature_new(&who, "t", "t@example.org", time, 0));
	must(git_treebuilder_new(&builder, repo, NULL));
	must(git_treebuilder_write(&tree_id, builder));
	must(git_tree_lookup(&tree, repo, &tree_id));
	if (parent) {
		memcpy(id.id, parent, OID_BYTES);
		must(git_commit_lookup(&before, repo, &id));
	}
	parents[0] = before;
	must(git_commit_create(&id, repo, NULL, who, who, NULL, "m", tree,
			       before ? 1 : 0, parents));
	memcpy(ret, id.id, OID_BYTES);
	git_commit_free(before);
	git_tree_free(tree);
	git_treebuilder_free(builder);
	git_signature_free(who);
}

static int begin(void **state)
{
	git_repository *made;
	int dir;

	(void)state;
	if (!mkdtemp(folder))
		return -1;
	(void)git_libgit2_init();
	must(git_repository_init(&made, folder, 1));
	git_repository_free(made);
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (refs_open(&repo, dir, reason) < 0)
		fail_msg("%s", reason);
	(void)close(dir);
	make(a, NULL, 1);
	make(b, a, 2);
	make(c, b, 3);
	make(d, c, 5);
	make(x, a, 4);
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag,
		      struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static int end(void **state)
{
	(void)state;
	refs_close(repo);
	(void)git_libgit2_shutdown();
	return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* NULL: it is not there. */
static void assert_ref(const char *name, const uint8_t *oid)
{
	uint8_t is[OID_BYTES];
	int r = refs_read(repo, name, is, reason);

	if (!oid) {
		assert_int_equal(r, -ENOENT);
		return;
	}
	assert_int_equal(r, 0);
	assert_memory_equal(is, oid, OID_BYTES);
}

static void set_ref(const char *name, const uint8_t *oid)
{
	uint8_t is[OID_BYTES];
	bool there = refs_read(repo, name, is, reason) == 0;

	if (there || oid)
		assert_int_equal(refs_update(repo, name, there ? is : NULL, oid,
					     "test", reason),
				 0);
}

/* Returns what commit_place() returns; it has to be in `want`. */
static int place(const uint8_t *commit, const uint8_t *parent, bool is_auto,
		 uint64_t generation, const char *want)
{
	const struct commit_place where = {
		.branch = "web",
		.is_auto = is_auto,
		.time = TIME,
		.generation = generation,
		.commit = commit,
		.parent = parent,
	};
	char ref[REF_NAME_MAX];
	bool diverged = false;
	int r = commit_place(repo, &where, ref, &diverged, reason);

	if (r < 0)
		return r;
	assert_string_equal(ref, want);
	assert_int_equal(diverged, strstr(want, "diverged") != NULL);
	assert_ref(want, commit);
	return r;
}

#define HEAD	 "refs/heads/web"
#define DIVERGED "refs/xendisk/diverged/web/20261123T000000Z"
#define AUTO	 "refs/xendisk/auto/web/20261123T000000Z"

static void the_branch_moves(void **state)
{
	(void)state;
	set_ref(HEAD, a);
	assert_int_equal(place(b, a, false, 1, HEAD), 0);
	assert_int_equal(place(b, a, false, 1, HEAD), 0);
	assert_ref(DIVERGED, NULL);
}

static void somebody_has_gone_on_from_it(void **state)
{
	const struct commit_place where = {
		.branch = "web", .time = TIME, .commit = b, .parent = a
	};
	char ref[REF_NAME_MAX];
	bool diverged;

	(void)state;
	set_ref(HEAD, c);
	assert_int_equal(commit_place(repo, &where, ref, &diverged, reason), 0);
	assert_string_equal(ref, HEAD);
	assert_false(diverged);
	assert_ref(HEAD, c);
}

static void somebody_has_moved_it(void **state)
{
	(void)state;
	set_ref(HEAD, x);
	assert_int_equal(place(b, a, false, 1, DIVERGED), 0);
	assert_int_equal(place(b, a, false, 1, DIVERGED), 0);
	assert_ref(HEAD, x);
	/* Another one within the second, and then one of the same number. */
	assert_int_equal(place(c, b, false, 2, DIVERGED "-2"), 0);
	assert_int_equal(place(d, c, false, 2, ""), -EEXIST);
	assert_ref(DIVERGED, b);
	assert_ref(HEAD, x);
}

static void somebody_has_removed_it(void **state)
{
	(void)state;
	set_ref(DIVERGED, NULL);
	set_ref(HEAD, NULL);
	assert_int_equal(place(b, a, false, 1, DIVERGED), 0);
	assert_ref(HEAD, NULL);
	/* Of a disk that is new there is no branch. */
	assert_int_equal(place(a, NULL, false, 3, HEAD), 0);
	assert_int_equal(place(x, NULL, false, 4, DIVERGED "-4"), 0);
}

static void somebody_has_made_it_a_link(void **state)
{
	git_reference *ref;

	(void)state;
	set_ref(HEAD, NULL);
	set_ref(DIVERGED, NULL);
	set_ref("refs/heads/other", a);
	must(git_reference_symbolic_create(&ref, repo, HEAD, "refs/heads/other",
					   1, "test"));
	git_reference_free(ref);
	assert_int_equal(place(b, a, false, 1, DIVERGED), 0);
	assert_ref("refs/heads/other", a);
	must(git_reference_remove(repo, HEAD));
}

static void intervals(void **state)
{
	(void)state;
	set_ref(HEAD, a);
	assert_int_equal(place(b, a, true, 1, AUTO), 0);
	assert_int_equal(place(b, a, true, 1, AUTO), 0);
	assert_int_equal(place(x, a, true, 2, AUTO "-2"), 0);
	assert_ref(HEAD, a);
}

static void thinning(void **state)
{
	struct keep keep;
	unsigned int removed;

	(void)state;
	set_ref("refs/xendisk/auto/web/20261122T000000Z", b);
	set_ref("refs/xendisk/auto/web/mine", b);
	set_ref("refs/xendisk/auto/web2/20261101T000000Z", b);
	assert_int_equal(keep_parse("1d", &keep, reason), 0);
	assert_int_equal(retention_thin(repo, "web", &keep, &removed, reason),
			 0);
	assert_int_equal(removed, 2);
	assert_ref("refs/xendisk/auto/web/20261122T000000Z", NULL);
	/* The later one of the second stays. */
	assert_ref(AUTO, NULL);
	assert_ref(AUTO "-2", x);
	assert_ref("refs/xendisk/auto/web/mine", b);
	assert_ref("refs/xendisk/auto/web2/20261101T000000Z", b);
}

static void pins_of_layers(void **state)
{
	char pins[REF_NAME_MAX], others[REF_NAME_MAX];
	uint8_t is[OID_BYTES];

	(void)state;
	assert_int_equal(pin_folder("web", "01234567-89ab", pins, reason), 0);
	assert_int_equal(pin_folder("web", "76543210-89ab", others, reason), 0);
	assert_int_equal(pin_get(repo, pins, 1, is, reason), -ENOENT);
	assert_int_equal(pin_set(repo, pins, 9, a, reason), 0);
	assert_int_equal(pin_set(repo, pins, 10, b, reason), 0);
	assert_int_equal(pin_set(repo, others, 1, c, reason), 0);
	assert_int_equal(pin_set(repo, pins, 10, b, reason), 0);
	assert_int_equal(pin_set(repo, pins, 10, c, reason), -ESTALE);
	assert_int_equal(pin_release(repo, pins, 10, reason), 0);
	assert_int_equal(pin_get(repo, pins, 9, is, reason), -ENOENT);
	assert_int_equal(pin_get(repo, pins, 10, is, reason), 0);
	assert_memory_equal(is, b, OID_BYTES);
	assert_int_equal(pin_release(repo, pins, UINT64_MAX, reason), 0);
	assert_int_equal(pin_get(repo, pins, 10, is, reason), -ENOENT);
	assert_int_equal(pin_get(repo, others, 1, is, reason), 0);
}

static int count(void *ctx, const char *name, const uint8_t oid[OID_BYTES])
{
	(void)name;
	assert_memory_equal(oid, b, OID_BYTES);
	(*(unsigned int *)ctx)++;
	return 0;
}

static unsigned int pins_now(void)
{
	unsigned int n = 0;

	assert_int_equal(refs_each(repo, REFS_OPEN, count, &n, reason), 0);
	return n;
}

static void pins_of_processes(void **state)
{
	char host[PIN_HOST_MAX], name[REF_NAME_MAX], ns[64] = "";

	(void)state;
	pin_host(host);
	assert_true(readlink("/proc/self/ns/pid", ns, sizeof(ns) - 1) > 0);
	ns[strcspn(ns, "]")] = '\0';
	/* One that is dead; another one's number; of another namespace. */
	(void)snprintf(name, sizeof(name), REFS_OPEN "%s/%s-999999999-5", host,
		       ns + 5);
	set_ref(name, b);
	(void)snprintf(name, sizeof(name), REFS_OPEN "%s/%s-%d-5", host, ns + 5,
		       (int)getpid());
	set_ref(name, b);
	(void)snprintf(name, sizeof(name), REFS_OPEN "%s/1-999999999-5", host);
	set_ref(name, b);
	assert_int_equal(pins_now(), 3);
	assert_int_equal(pin_open(repo, b, reason), 0);
	assert_int_equal(pins_now(), 2);
	assert_ref(name, b);
	assert_int_equal(pin_close(repo, reason), 0);
	assert_int_equal(pins_now(), 1);
}

#define LOCKED "refs/heads/locked"

/* A process dies that has it locked. */
static void die_with_lock(int notes)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		git_transaction *tx;

		ref_lock_note_in(notes);
		_exit(git_transaction_new(&tx, repo) < 0 ||
		      ref_lock(tx, repo, LOCKED, reason) < 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void a_lock_is_left(void **state)
{
	static const struct timespec tick = { .tv_nsec = 50000000 };
	cleanup_free char *lock =
		xasprintf("%s" LOCKED ".lock", git_repository_commondir(repo));
	char name[] = "/tmp/xendisk-notes.XXXXXX";
	cleanup_close int notes = mkstemp(name);
	cleanup_close int file = -1;

	(void)state;
	assert_true(notes >= 0 && lock);
	(void)unlink(name);
	set_ref(LOCKED, a);
	ref_lock_note_in(-1);
	/* Whoever does not know the notes waits until it is old. */
	die_with_lock(notes);
	if (lseek(notes, 0, SEEK_END) == 0)
		LEAVE_OUT("the file system does not tell when a file was made");
	assert_int_equal(refs_update(repo, LOCKED, a, b, "x", reason), -EBUSY);
	assert_non_null(strstr(reason, "locked by another process"));
	ref_lock_note_in(notes);
	assert_int_equal(refs_update(repo, LOCKED, a, b, "x", reason), 0);
	assert_ref(LOCKED, b);
	/* Another one at its place is somebody's who may live. */
	die_with_lock(notes);
	(void)unlink(lock);
	(void)nanosleep(&tick, NULL);
	file = open(lock, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(file >= 0);
	assert_int_equal(refs_update(repo, LOCKED, b, c, "x", reason), -EBUSY);
	(void)unlink(lock);
	ref_lock_note_in(-1);
	set_ref(LOCKED, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_branch_moves),
		cmocka_unit_test(somebody_has_gone_on_from_it),
		cmocka_unit_test(somebody_has_moved_it),
		cmocka_unit_test(somebody_has_removed_it),
		cmocka_unit_test(somebody_has_made_it_a_link),
		cmocka_unit_test(intervals),
		cmocka_unit_test(thinning),
		cmocka_unit_test(pins_of_layers),
		cmocka_unit_test(pins_of_processes),
		cmocka_unit_test(a_lock_is_left),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
