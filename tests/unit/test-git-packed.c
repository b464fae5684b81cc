/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* References that are packed, and removed (packed-refs.h). */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <git2.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/util.h"
#include "packed-refs.h"
#include "pack-private.h"
#include "ref-lock.h"
#include "refs.h"

static struct git_repository *repo;
static char folder[] = "/tmp/xendisk-packed.XXXXXX";
static uint8_t commit[OID_BYTES];
static char reason[WHY_MAX];

/* Runs it in the repository. */
static void shell(const char *command)
{
	cleanup_free char *line =
		xasprintf("cd %s && { %s; } > /dev/null 2>&1", folder, command);

	assert_non_null(line);
	if (system(line) != 0)
		fail_msg("%s", command);
}

static bool holds(const char *command)
{
	cleanup_free char *line =
		xasprintf("cd %s && { %s; } > /dev/null 2>&1", folder, command);

	assert_non_null(line);
	return system(line) == 0;
}

/* --- Between two steps of whoever writes it -------------------------------------------- */

static const char *before_lock; /* a command; NULL: none */

/* Once, when the file is about to be locked. */
static int opens(int dir, const char *path, int flags, mode_t mode)
{
	const char *end = strstr(path, "packed-refs.lock");

	if (end && flags & O_CREAT && before_lock)
		shell(TAKE_PTR(before_lock));
	return (int)syscall(SYS_openat, dir, path, flags, mode);
}

static mode_t mode_of(int flags, va_list ap)
{
	return flags & O_CREAT ? va_arg(ap, mode_t) : 0;
}

/* libgit2's; and ours. */
int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	return opens(AT_FDCWD, path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	return opens(dir, path, flags, mode);
}

/* --- Cases ---------------------------------------------------------------------------- */

static int begin(void **state)
{
	DIR *dir;

	(void)state;
	if (!mkdtemp(folder))
		return -1;
	shell("git init -q --bare . && git config user.name t &&"
	      "git config user.email t@example.org &&"
	      "id=$(git commit-tree -m m $(git mktree < /dev/null)) &&"
	      "git update-ref refs/heads/main $id");
	dir = opendir(folder);
	if (!dir || refs_open(&repo, dirfd(dir), reason) < 0)
		return -1;
	(void)closedir(dir);
	return refs_read(repo, "refs/heads/main", commit, reason);
}

static int end(void **state)
{
	(void)state;
	refs_close(repo);
	shell("rm -rf $PWD");
	return 0;
}

static int removes(const char *name)
{
	return refs_update(repo, name, commit, NULL, "x", reason);
}

#define PINS "refs/xendisk/base/main/h.1/"
#define SET  "git update-ref "
#define PACK "git pack-refs --all --prune && "
#define HAS  "git rev-parse -q --verify "

/* What git packs before it is locked is kept. */
static void packed_meanwhile(void **state)
{
	(void)state;
	shell(SET PINS "1 main && " SET PINS "2 main && " PACK
		       "grep h.1/1 packed-refs");
	before_lock = SET "refs/heads/new main && " PACK
			  "! test -e refs/heads/new";
	assert_int_equal(removes(PINS "1"), 0);
	if (before_lock)
		fail_msg("nobody has locked it");
	shell("! " HAS PINS "1 && " HAS PINS "2 && " HAS "main && " HAS
	      "refs/heads/new && test ! -e packed-refs.lock");
	/* A loose one is packed just then, and stays, since it is locked. */
	shell(SET PINS "3 main");
	before_lock = "git pack-refs --all --prune; grep h.1/3 packed-refs";
	assert_int_equal(removes(PINS "3"), 0);
	shell("! " HAS PINS "3 && git fsck --strict");
}

/* With what it peels to, and nothing else. */
static void a_tag(void **state)
{
	(void)state;
	shell("git tag -a -m t one main && git tag -a -m t two main &&" PACK
	      "grep -c '^^' packed-refs | grep -qx 2 && head -1 packed-refs > head");
	assert_int_equal(refs_read(repo, "refs/tags/one", commit, reason), 0);
	assert_int_equal(removes("refs/tags/one"), 0);
	shell("grep -c '^^' packed-refs | grep -qx 1 && ! grep tags/one packed-refs &&"
	      "git cat-file tag two && head -1 packed-refs | cmp - head");
	assert_int_equal(refs_read(repo, "refs/heads/main", commit, reason), 0);
}

/* Somebody has it locked: what is in it waits, what is not does not. */
static void locked(void **state)
{
	(void)state;
	shell(SET PINS "4 main && " PACK SET PINS
		       "5 main && touch packed-refs.lock");
	assert_int_equal(removes(PINS "5"), 0);
	assert_int_equal(removes(PINS "4"), -EBUSY);
	assert_non_null(strstr(reason, "locked by another process"));
	/* Old, but a new file is being written; then nobody does. */
	shell("touch -d '2 hours ago' packed-refs.lock && touch packed-refs.new");
	assert_int_equal(removes(PINS "4"), -EBUSY);
	shell("touch -d '2 hours ago' packed-refs.new");
	assert_int_equal(removes(PINS "4"), 0);
	shell("! " HAS PINS
	      "4 && test ! -e packed-refs.lock && test ! -e packed-refs.new");
}

/* One of ours who has died is told at once. */
static void left(void **state)
{
	cleanup_free char *path = xasprintf("%s/packed-refs.lock", folder);
	char mark[OURS_MAX];
	FILE *lock;

	(void)state;
	shell(SET PINS "6 main && " PACK "true");
	lock = fopen(path, "wxe");
	assert_non_null(lock);
	keep_prefix(mark);
	(void)fputs(mark, lock);
	assert_int_equal(fflush(lock), 0);
	assert_int_equal(flock(fileno(lock), LOCK_EX | LOCK_NB), 0);
	assert_int_equal(removes(PINS "6"), -EBUSY);
	(void)fclose(lock);
	assert_int_equal(removes(PINS "6"), 0);
	assert_false(holds("test -e packed-refs.lock"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(packed_meanwhile),
		cmocka_unit_test(a_tag),
		cmocka_unit_test(locked),
		cmocka_unit_test(left),
	};

	if (system("git --version > /dev/null 2>&1") != 0) {
		printf("1..0 # SKIP git is not installed\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, begin, end);
}
