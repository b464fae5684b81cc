/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A writer whose calls fail, one after the other, and one that dies, at each named
 * place and between any two calls.
 *
 * A failure: a sentence, and not a file is left nor a descriptor.  A death: git
 * finds a sound repository, with all of a pack or nothing of it; pack_clean()
 * removes what is left; the next writer succeeds.
 *
 * The calls are those that the linker leads through here (local.am); they are
 * counted while a writer is at work.
 */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "../../backends/git/commit-points.h"
#include "../../backends/git/pack-write.h"
#include "common/util.h"
#include "pack-fixture.h"

/* --- Calls -------------------------------------------------------------------------- */

enum call {
	CALL_malloc,
	CALL_calloc,
	CALL_realloc,
	CALL_openat,
	CALL_pwrite,
	CALL_pread,
	CALL_fsync,
	CALL_renameat,
	CALL_unlinkat,
	CALL_flock,
	CALL_fstat,
	CALL_fchmod,
	CALL_getrandom,
	CALL_pthread_create,
	NR_CALLS
};

static const char *const call_names[NR_CALLS] = {
	[CALL_malloc] = "malloc",
	[CALL_calloc] = "calloc",
	[CALL_realloc] = "realloc",
	[CALL_openat] = "openat",
	[CALL_pwrite] = "pwrite",
	[CALL_pread] = "pread",
	[CALL_fsync] = "fsync",
	[CALL_renameat] = "renameat",
	[CALL_unlinkat] = "unlinkat",
	[CALL_flock] = "flock",
	[CALL_fstat] = "fstat",
	[CALL_fchmod] = "fchmod",
	[CALL_getrandom] = "getrandom",
	[CALL_pthread_create] = "pthread_create",
};

enum what { COUNT, FAIL, SHORT, DIE };

static struct {
	atomic_bool on;
	enum what what;
	int err; /* for FAIL */
	enum call only; /* NR_CALLS: any */
	int at; /* the call, from 1, or 0 */
	const char *place; /* instead of a call */
	atomic_int count[NR_CALLS + 1]; /* the last one: of any */
	atomic_int places;
} faults;

static bool due(enum call call)
{
	int of_any, of_this;

	if (!atomic_load(&faults.on))
		return false;
	of_any = atomic_fetch_add(&faults.count[NR_CALLS], 1) + 1;
	of_this = atomic_fetch_add(&faults.count[call], 1) + 1;
	if (faults.what == COUNT || faults.place || faults.at == 0)
		return false;
	if (faults.only == NR_CALLS)
		return of_any == faults.at;
	return faults.only == call && of_this == faults.at;
}

static bool fails(enum call call)
{
	if (!due(call))
		return false;
	if (faults.what == DIE)
		_exit(99);
	if (faults.what == SHORT)
		return false;
	errno = faults.err;
	return true;
}

void commit_point(const char *name)
{
	if (!atomic_load(&faults.on) || !faults.place ||
	    strcmp(faults.place, name) != 0)
		return;
	if (atomic_fetch_add(&faults.places, 1) + 1 == faults.at)
		_exit(99);
}

/* Nothing can be declared by a header that is called like this. */
#define WRAP(type, name, params, args, failure) \
	type __real_##name params;              \
	type __wrap_##name params;              \
	type __wrap_##name params               \
	{                                       \
		if (fails(CALL_##name))         \
			return failure;         \
		return __real_##name args;      \
	}

WRAP(void *, malloc, (size_t n), (n), NULL)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), NULL)
WRAP(void *, realloc, (void *p, size_t n), (p, n), NULL)
WRAP(ssize_t, pread, (int fd, void *buf, size_t n, off_t at), (fd, buf, n, at),
     -1)
WRAP(int, fsync, (int fd), (fd), -1)
WRAP(int, renameat, (int a, const char *from, int b, const char *to),
     (a, from, b, to), -1)
WRAP(int, unlinkat, (int dir, const char *name, int flags), (dir, name, flags),
     -1)
WRAP(int, flock, (int fd, int operation), (fd, operation), -1)
WRAP(int, fstat, (int fd, struct stat *st), (fd, st), -1)
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode), -1)
WRAP(ssize_t, getrandom, (void *buf, size_t n, unsigned int flags),
     (buf, n, flags), -1)

int __real_openat(int dir, const char *name, int flags, ...);
int __wrap_openat(int dir, const char *name, int flags, ...);
int __wrap_openat(int dir, const char *name, int flags, ...)
{
	return fails(CALL_openat) ? -1 : __real_openat(dir, name, flags, 0644);
}

ssize_t __real_pwrite(int fd, const void *buf, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t at)
{
	bool hit = due(CALL_pwrite);

	if (hit && faults.what == DIE)
		_exit(99);
	if (hit && faults.what == FAIL) {
		errno = faults.err;
		return -1;
	}
	return __real_pwrite(fd, buf, hit ? (n + 1) / 2 : n, at);
}

int __real_pthread_create(pthread_t *ret, const pthread_attr_t *attr,
			  void *(*run)(void *), void *ctx);
int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr,
			  void *(*run)(void *), void *ctx);
int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr,
			  void *(*run)(void *), void *ctx)
{
	return fails(CALL_pthread_create) ?
		       faults.err :
		       __real_pthread_create(ret, attr, run, ctx);
}

static void arm(enum what what, enum call only, int at)
{
	memset(&faults, 0, sizeof(faults));
	faults.what = what;
	faults.err = EIO;
	faults.only = only;
	faults.at = at;
	atomic_store(&faults.on, true);
}

static void disarm(void)
{
	atomic_store(&faults.on, false);
}

/* --- What is written -------------------------------------------------------------------- */

#define CHUNK  8192u
#define CHUNKS 16u
#define LARGE  1100000u
#define SPLIT  40000u /* makes three packs */
#define PACKS  3u

static uint8_t chunks[CHUNKS][CHUNK];
static uint8_t large[LARGE];

static void make_content(void)
{
	for (unsigned int i = 0; i < CHUNKS; i++)
		fill(chunks[i], CHUNK, (enum stuff)(i % NR_STUFF), i);
	fill(large, LARGE, HALF, 3);
}

static int nobody(void *ctx, uint64_t tag, const uint8_t *oid,
		  enum pack_fate fate, char *ret_why)
{
	(void)ctx, (void)tag, (void)oid, (void)fate, (void)ret_why;
	return 0;
}

static int send(struct pack_writer *writer, char *ret_why)
{
	uint8_t oid[OID_BYTES];
	int r = 0;

	for (uint64_t i = 0; i < CHUNKS && r == 0; i++) {
		void *buffer;

		r = pack_buffer(writer, CHUNK, &buffer, ret_why);
		if (r < 0)
			return r;
		memcpy(buffer, chunks[i], CHUNK);
		r = pack_add_chunk(writer, buffer, CHUNK, i, NULL, ret_why);
	}
	if (r == 0)
		r = pack_add(writer, OBJECT_BLOB, "small", 5, oid, ret_why);
	if (r == 0)
		r = pack_add(writer, OBJECT_BLOB, large, LARGE, oid, ret_why);
	return r == 0 ? pack_chunks_drain(writer, ret_why) : r;
}

/* All that a commit does with packs; in several of them. */
static int commit(const struct repo *repo, char *ret_why)
{
	const struct pack_options options = {
		.dir = repo->dir,
		.threads = 2,
		.split = SPLIT,
		.keep_text = "a test",
		.done = nobody,
	};
	struct pack_writer *writer;
	struct pack_names names = { 0 };
	int r = pack_writer_new(&writer, &options, ret_why);

	if (r < 0)
		return r;
	r = send(writer, ret_why);
	if (r == 0)
		r = pack_writer_finish(writer, &names, ret_why);
	pack_writer_free(writer);
	if (r == 0)
		r = pack_unkeep(repo->dir, &names, ret_why);
	pack_names_free(&names);
	return r;
}

static void empty(const struct repo *repo)
{
	assert_int_equal(repo_run(repo, "rm -f %s/objects/pack/*"), 0);
}

static unsigned int descriptors(void)
{
	DIR *list = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(list);
	while (readdir(list))
		n++;
	(void)closedir(list);
	return n;
}

/* How many calls a commit makes: all, and of each. */
static void count_calls(int ret[NR_CALLS + 1])
{
	struct repo repo;
	char text[WHY_MAX];

	repo_make(&repo);
	arm(COUNT, NR_CALLS, 0);
	assert_int_equal(commit(&repo, text), 0);
	disarm();
	for (int i = 0; i <= NR_CALLS; i++)
		ret[i] = faults.count[i];
	assert_int_equal(repo_judge(&repo), 0);
	assert_int_equal(repo_files(&repo, ".idx"), PACKS);
	repo_remove(&repo);
}

/* --- Calls that fail ------------------------------------------------------------------ */

/* Without which of them things go on: files that are in the way stay there. */
static bool may_work(enum call call)
{
	return call == CALL_unlinkat;
}

static void fail_once(const struct repo *repo, enum call call, int nth, int err)
{
	char text[WHY_MAX] = "";
	unsigned int before = descriptors();
	int r;

	arm(FAIL, call, nth);
	faults.err = err;
	r = commit(repo, text);
	disarm();
	if (r == 0 && faults.count[call] < nth)
		return; /* other threads, other calls */
	if (r == 0 || !*text || descriptors() != before)
		print_message("%s %d (%s): %d, \"%s\"\n", call_names[call], nth,
			      strerror(err), r, text);
	assert_true(r < 0 || may_work(call));
	assert_true(r == 0 || *text);
	assert_int_equal(descriptors(), before);
	if (may_work(call))
		return;
	assert_int_equal(repo_files(repo, "tmp"), 0);
	/* Whole packs, or none. */
	assert_int_equal(repo_files(repo, ".pack"), repo_files(repo, ".idx"));
	assert_int_equal(repo_files(repo, ".keep"), repo_files(repo, ".idx"));
	assert_int_equal(repo_files(repo, ""), 3 * repo_files(repo, ".idx"));
	empty(repo);
}

static void each_call_fails(void **state)
{
	int calls[NR_CALLS + 1];
	struct repo repo;

	(void)state;
	count_calls(calls);
	repo_make(&repo);
	for (enum call call = 0; call < NR_CALLS; call++) {
		assert_true(calls[call] > 0);
		for (int nth = 1; nth <= calls[call]; nth++) {
			fail_once(&repo, call, nth,
				  call == CALL_pwrite ? ENOSPC : EIO);
			if (may_work(call))
				empty(&repo);
		}
	}
	repo_remove(&repo);
}

/* A repack may have left out, and deleted elsewhere, what is in a pack with a mark. */
static void what_git_may_have_seen_stays(void **state)
{
	int calls[NR_CALLS + 1];
	char text[WHY_MAX] = "";
	unsigned int removed;
	struct repo repo;

	(void)state;
	count_calls(calls);
	repo_make(&repo);
	arm(FAIL, CALL_fsync, calls[CALL_fsync]); /* the folder's */
	faults.err = EIO;
	assert_int_equal(commit(&repo, text), -EIO);
	disarm();
	assert_int_equal(repo_files(&repo, ".idx"), PACKS);
	assert_int_equal(repo_files(&repo, ".keep"), PACKS);
	assert_int_equal(pack_clean(repo.dir, &removed, text), 0);
	assert_int_equal(removed, PACKS);
	assert_int_equal(repo_files(&repo, ".keep"), 0);
	assert_int_equal(repo_fsck(&repo), 0);
	repo_remove(&repo);
}

/* The sentence has the file and the reason. */
static void sentences(void **state)
{
	static const struct {
		enum call call;
		int err;
		const char *part, *reason;
	} some[] = {
		{ CALL_pwrite, ENOSPC, "objects/pack/xendisk_tmp_",
		  "cannot be written: No space left on device" },
		{ CALL_fsync, EIO, "objects/pack/xendisk_tmp_",
		  "cannot be made durable: Input/output error" },
		{ CALL_openat, EACCES, "objects/pack/xendisk_tmp_",
		  "cannot be made: Permission denied" },
		{ CALL_renameat, EROFS, "objects/pack/pack-",
		  "cannot be made: Read-only file system" },
	};
	struct repo repo;

	(void)state;
	repo_make(&repo);
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		char text[WHY_MAX] = "";

		arm(FAIL, some[i].call, 1);
		faults.err = some[i].err;
		assert_int_equal(commit(&repo, text), -some[i].err);
		disarm();
		assert_non_null(strstr(text, some[i].part));
		assert_non_null(strstr(text, some[i].reason));
	}
	repo_remove(&repo);
}

static void short_writes(void **state)
{
	int calls[NR_CALLS + 1];
	struct repo repo;

	(void)state;
	count_calls(calls);
	repo_make(&repo);
	for (int nth = 1; nth <= calls[CALL_pwrite]; nth++) {
		char text[WHY_MAX] = "";

		arm(SHORT, CALL_pwrite, nth);
		assert_int_equal(commit(&repo, text), 0);
		disarm();
		assert_int_equal(repo_fsck(&repo), 0);
		empty(&repo);
	}
	repo_remove(&repo);
}

/* --- Deaths ------------------------------------------------------------------------------ */

/* In a process of its own, which has what arm() said; whether it died. */
static bool dies(int (*run)(const struct repo *, char *),
		 const struct repo *repo)
{
	char text[WHY_MAX] = "";
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(run(repo, text) == 0 ? 0 : 1);
	disarm();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 0)
		return false;
	assert_int_equal(WEXITSTATUS(status), 99);
	return true;
}

/* Sound, and all gone that is not a whole pack. */
static void cleaned(const struct repo *repo)
{
	char text[WHY_MAX] = "";
	unsigned int packs = repo_files(repo, ".idx");

	assert_int_equal(repo_fsck(repo), 0);
	assert_int_equal(pack_clean(repo->dir, NULL, text), 0);
	assert_int_equal(repo_files(repo, ".idx"), packs);
	assert_int_equal(repo_files(repo, ".pack"), packs);
	assert_int_equal(repo_files(repo, ""), 2 * packs);
	assert_int_equal(repo_fsck(repo), 0);
}

static void after_death(const struct repo *repo)
{
	char text[WHY_MAX] = "";

	cleaned(repo);
	assert_int_equal(commit(repo, text), 0);
	assert_int_equal(repo_fsck(repo), 0);
	empty(repo);
}

static void death_at_each_place(void **state)
{
	static const char *const places[] = {
#define COMMIT_AT(name) #name,
#include "../../backends/git/commit-points.def"
#undef COMMIT_AT
	};
	unsigned int died = 0;
	struct repo repo;

	(void)state;
	repo_make(&repo);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		for (int nth = 1; nth <= 2; nth++) {
			arm(DIE, NR_CALLS, nth);
			faults.place = places[i];
			if (dies(commit, &repo)) {
				died++;
				after_death(&repo);
			}
			empty(&repo);
		}
	/* Ours; those of the rest of a commit are passed elsewhere. */
	assert_in_range(died, 2 * 12, 2 * 12);
	repo_remove(&repo);
}

/* Calls that leave a trace in the folder. */
static void death_at_each_call(void **state)
{
	static const enum call some[] = { CALL_openat,	 CALL_pwrite,
					  CALL_fsync,	 CALL_renameat,
					  CALL_unlinkat, CALL_flock };
	const char *how_much = getenv("XENDISK_PACK");
	bool each = how_much && strcmp(how_much, "full") == 0;
	int calls[NR_CALLS + 1];
	struct repo repo;

	(void)state;
	count_calls(calls);
	repo_make(&repo);
	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		for (int nth = 1; nth <= calls[some[i]];
		     nth += each ? 1 : MAX(calls[some[i]] / 4, 1)) {
			arm(DIE, some[i], nth);
			if (dies(commit, &repo))
				after_death(&repo);
		}
	repo_remove(&repo);
}

/* --- Cleaning ------------------------------------------------------------------------------- */

/* Packs with .keep, and an unfinished file, by somebody who dies. */
static int leave(const struct repo *repo, char *ret_why)
{
	faults.place = "keep_removed";
	return commit(repo, ret_why);
}

static int clean(const struct repo *repo, char *ret_why)
{
	return pack_clean(repo->dir, NULL, ret_why);
}

static void cleaning_can_die(void **state)
{
	struct repo repo;
	bool died = true;

	(void)state;
	repo_make(&repo);
	for (int nth = 1; died; nth++) {
		arm(DIE, NR_CALLS, 1);
		assert_true(dies(leave, &repo));
		arm(DIE, CALL_renameat, 5);
		assert_true(dies(commit, &repo));
		arm(DIE, CALL_unlinkat, nth);
		died = dies(clean, &repo);
		cleaned(&repo);
		empty(&repo);
		assert_in_range(nth, 1, 50);
	}
	repo_remove(&repo);
}

/* Who is alive, or somebody else, is left alone. */
static void others_are_left_alone(void **state)
{
	struct pack_options options = { .done = nobody };
	struct pack_writer *writer;
	struct pack_names names;
	unsigned int removed = 7, files;
	char text[WHY_MAX] = "";
	struct repo repo;

	(void)state;
	repo_make(&repo);
	options.dir = repo.dir;
	options.split = SPLIT;
	assert_int_equal(pack_writer_new(&writer, &options, text), 0);
	assert_int_equal(send(writer, text), 0);
	assert_true(repo_files(&repo, "xendisk_tmp_") > 0);
	assert_int_equal(
		repo_run(&repo,
			 "cd %s/objects/pack && echo mine > tmp_pack_123456 &&"
			 " x=0123456789012345678901234567890123456789 &&"
			 " echo mine > pack-$x.keep && y=a${x#0} && "
			 "echo xendisk-git: host=another.host pid=1 > "
			 "pack-$y.keep && touch xendisk_tmp_0000000g_$x "
			 "xendisk_tmp_00000001_0123456789abcdef && "
			 "ln -s /nonexistent xendisk_tmp_12345678_$x"),
		0);
	files = repo_files(&repo, "");
	assert_int_equal(pack_clean(repo.dir, &removed, text), 0);
	assert_int_equal(removed, 0);
	assert_int_equal(repo_files(&repo, ""), files);
	/* Published, and still held */
	assert_int_equal(pack_writer_finish(writer, &names, text), 0);
	pack_writer_free(writer);
	files = repo_files(&repo, "");
	assert_int_equal(pack_clean(repo.dir, &removed, text), 0);
	assert_int_equal(removed, 0);
	assert_int_equal(repo_files(&repo, ""), files);
	/* Let go of without being removed: as if dead */
	pack_names_free(&names);
	assert_int_equal(pack_clean(repo.dir, &removed, text), 0);
	assert_int_equal(removed, repo_files(&repo, ".idx"));
	assert_int_equal(repo_files(&repo, ""), files - removed);
	repo_remove(&repo);
}

static void cleaning_fails(void **state)
{
	struct repo repo;
	char text[WHY_MAX] = "";

	(void)state;
	repo_make(&repo);
	arm(DIE, NR_CALLS, 1);
	assert_true(dies(leave, &repo));
	arm(FAIL, CALL_unlinkat, 1);
	faults.err = EACCES;
	assert_int_equal(clean(&repo, text), -EACCES);
	disarm();
	assert_non_null(strstr(text, ".keep cannot be removed: Permission"));
	/* The others were removed all the same. */
	assert_int_equal(repo_files(&repo, ".keep"), 1);
	repo_remove(&repo);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_call_fails),
		cmocka_unit_test(what_git_may_have_seen_stays),
		cmocka_unit_test(sentences),
		cmocka_unit_test(short_writes),
		cmocka_unit_test(death_at_each_place),
		cmocka_unit_test(death_at_each_call),
		cmocka_unit_test(cleaning_can_die),
		cmocka_unit_test(others_are_left_alone),
		cmocka_unit_test(cleaning_fails),
	};

	if (!has_git())
		return 0;
	make_content();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
