/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a git disk is when a guest comes, and what is done to it while none is there:
 * it grows, a snapshot is taken of it, its branch is moved, its committer dies.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"
#include "git-rig.h"

#define KiB	  1024u
#define CHUNK	  (64 * KiB)
#define SMALL	  (3 * CHUNK + 4 * KiB) /* the last chunk is a short one */
#define LARGE	  (1024 * KiB)
#define BLOCK	  (4 * KiB)
#define WRITABLE  "git(@/r.git, branch=main)"
#define READ_ONLY "git(@/r.git, rev=main)"
/* Nothing is read but commits, as soon as there are any. */
#define NO_CACHE "git(@/r.git, branch=main, cache=0)"

/* Puts a commit of theirs onto main, with the same tree. */
#define MOVE                                                \
	"git -C r.git update-ref refs/heads/main $(git -C " \
	"r.git commit-tree -p main -m theirs main^{tree});"
#define PINS(n)                                                             \
	"pins() { test $(git -C r.git for-each-ref refs/xendisk/base | wc " \
	"-l) = " n "; }; eventually pins;"

static void begin(struct rig *rig, const char *size)
{
	cleanup_free char *script = xasprintf(
		"git config --global core.fsync none; $tool init r.git;"
		"$tool create r.git main --size %s > first",
		size);

	rig_new(rig, true);
	git_shell(rig, script);
}

static void opens(struct rig *rig, const char *expression, uint64_t size)
{
	git_must(rig, rig_open(rig, 1, expression));
	assert_int_equal(rig_size(rig), size);
}

/* The guest goes, and the disk is detached. */
static void ends(struct rig *rig)
{
	assert_int_equal(rig_close(rig), 0);
	rig_detach(rig);
}

static void put(struct rig *rig, uint64_t at, int byte)
{
	unsigned char buf[BLOCK];

	memset(buf, byte, BLOCK);
	assert_int_equal(rig_io(rig, 0, XD_WRITE, 0, at, BLOCK, buf), 0);
}

static bool is(struct rig *rig, uint64_t at, int byte)
{
	unsigned char buf[BLOCK];

	memset(buf, ~byte, BLOCK);
	assert_int_equal(rig_io(rig, 0, XD_READ, 0, at, BLOCK, buf), 0);
	for (unsigned int i = 0; i < BLOCK; i++)
		if (buf[i] != byte)
			return false;
	return true;
}

static bool has_status(struct rig *rig, const char *key, const char *value)
{
	char text[MSG_CONTROL_MAX] = "", found[MSG_TEXT_MAX] = "";

	git_must(rig, stack_control(rig->stack, "status", "", text,
				    sizeof(text), rig->why));
	(void)xd_pair(text, key, found, sizeof(found));
	return strstr(found, value);
}

/* What the committer answers is heard by a thread. */
static void says(struct rig *rig, const char *key, const char *value)
{
	for (unsigned int i = 0; i < 6000 && !has_status(rig, key, value); i++)
		usleep(10000);
	assert_true(has_status(rig, key, value));
}

/* --- It grows --------------------------------------------------------------------- */

static void grows(struct rig *rig, uint64_t size)
{
	git_must(rig, rig_resize(rig, size));
	assert_int_equal(rig_size(rig), size);
}

/* What both of the commits and the disk have. */
static void has_grown(struct rig *rig)
{
	assert_true(is(rig, 0, 0x11));
	assert_true(is(rig, SMALL - BLOCK, 0x22));
	assert_true(is(rig, SMALL, 0));
	assert_true(is(rig, SMALL + 2 * BLOCK, 0));
	assert_true(is(rig, 8 * CHUNK, 0));
	assert_true(is(rig, LARGE - BLOCK, 0x33));
}

static void a_disk_grows(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "200704");
	opens(&rig, NO_CACHE, SMALL);
	put(&rig, 0, 0x11);
	put(&rig, SMALL - BLOCK, 0x22);
	git_snapshot(&rig);
	assert_true(is(&rig, SMALL - BLOCK, 0x22));
	grows(&rig, LARGE);
	assert_true(is(&rig, SMALL - BLOCK, 0x22));
	assert_true(is(&rig, SMALL, 0));
	put(&rig, LARGE - BLOCK, 0x33);
	has_grown(&rig);
	rig_die(&rig);
	git_must(&rig, rig_recover(&rig, 1, NO_CACHE));
	assert_int_equal(rig_size(&rig), LARGE);
	has_grown(&rig);
	git_snapshot(&rig);
	has_grown(&rig);
	ends(&rig);
	opens(&rig, READ_ONLY, LARGE);
	has_grown(&rig);
	ends(&rig);
	opens(&rig, "git(@/r.git, rev=main~1)", SMALL);
	assert_true(is(&rig, SMALL - BLOCK, 0x22));
	ends(&rig);
	opens(&rig, "git(@/r.git, rev=main~1, fork=old)", SMALL);
	ends(&rig);
	git_shell(&rig,
		  "git -C r.git fsck --full --strict;"
		  "git -C r.git show main:disk | grep -qx 'size 1048576';"
		  "git -C r.git show main~1:disk | grep -qx 'size 200704'");
	rig_free(&rig);
}

/* A size is something that a snapshot has, also when nothing was written. */
static void only_the_size(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "200704");
	opens(&rig, "git(@/r.git, branch=main, on-detach=snapshot)", SMALL);
	grows(&rig, LARGE);
	ends(&rig);
	git_shell(&rig, "large() { git -C r.git show main:disk |"
			" grep -qx 'size 1048576'; }; eventually large");
	opens(&rig, WRITABLE, LARGE);
	/* It would be lost, if the disk followed its branch. */
	grows(&rig, 2 * LARGE);
	ends(&rig);
	git_shell(&rig, MOVE);
	opens(&rig, WRITABLE, 2 * LARGE);
	says(&rig, "note", "does not follow");
	ends(&rig);
	rig_free(&rig);
}

static void refused(struct rig *rig, uint64_t size, int err, const char *why)
{
	uint64_t before = rig_size(rig);

	assert_int_equal(rig_resize(rig, size), err);
	if (!strstr(rig->why, why))
		fail_msg("\"%s\" does not say \"%s\"", rig->why, why);
	assert_int_equal(rig_size(rig), before);
}

static void not_any_size(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	opens(&rig, WRITABLE, LARGE);
	refused(&rig, SMALL, -EPERM, "would shrink");
	refused(&rig, LARGE + 1, -EINVAL, "no multiple");
	/* Three levels of chunks of 64 KiB. */
	refused(&rig, (1ull << 40) + CHUNK, -EFBIG, "room for 1099511627776");
	grows(&rig, LARGE); /* it has that */
	ends(&rig);
	opens(&rig, READ_ONLY, LARGE);
	refused(&rig, 2 * LARGE, -EROFS, "read-only");
	assert_int_equal(rig_resize(&rig, 0), 0);
	ends(&rig);
	rig_free(&rig);
}

/* --- Nobody is there --------------------------------------------------------------- */

static void grow_and_keep(struct rig *rig)
{
	grows(rig, LARGE);
	git_snapshot(rig);
}

static void before_the_first_guest(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "200704");
	rig.before_activate = grow_and_keep;
	git_must(&rig, rig_open(&rig, 1, WRITABLE));
	assert_int_equal(rig_resize(&rig, 0), 0);
	assert_int_equal(rig_size(&rig), LARGE);
	put(&rig, LARGE - BLOCK, 0x33);
	assert_true(is(&rig, LARGE - BLOCK, 0x33));
	rig.before_activate = NULL;
	ends(&rig);
	git_shell(&rig, "git -C r.git show main:disk | grep -qx 'size 1048576';"
			"test $(git -C r.git rev-list --count main) = 2;"
			"git -C r.git log -1 --format=%B main |"
			" grep -qx 'Xendisk-Consistency: crash'");
	rig_free(&rig);
}

static void when_the_guest_has_gone(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	opens(&rig, WRITABLE, LARGE);
	put(&rig, 0, 0x11);
	git_must(&rig, stack_deactivate(rig.stack, rig.why));
	for (unsigned int i = 0; i < 6; i++) /* more than may wait */
		git_snapshot(&rig);
	grows(&rig, 2 * LARGE);
	/* Nothing is held meanwhile. */
	git_shell(&rig, "flock -n state/git/main-*/lock true");
	git_must(&rig, stack_activate(rig.stack, false, rig.why));
	assert_int_equal(rig_resize(&rig, 0), 0);
	assert_true(is(&rig, 0, 0x11));
	assert_true(is(&rig, 2 * LARGE - BLOCK, 0));
	put(&rig, 2 * LARGE - BLOCK, 0x44);
	says(&rig, "pending", "0");
	ends(&rig);
	git_shell(&rig,
		  "test $(git -C r.git rev-list --count main) = 7;"
		  "git -C r.git log -1 --format=%B main |"
		  " grep -qx 'Xendisk-Consistency: clean-detach';" PINS("1"));
	opens(&rig, READ_ONLY, LARGE);
	assert_true(is(&rig, 0, 0x11));
	ends(&rig);
	rig_free(&rig);
}

static void what_cannot_be_kept(void **state)
{
	char text[MSG_CONTROL_MAX] = "";
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	opens(&rig, READ_ONLY, LARGE);
	assert_int_equal(stack_control(rig.stack, "snapshot", "", text,
				       sizeof(text), rig.why),
			 -EROFS);
	ends(&rig);
	rig_free(&rig);
}

/* --- Somebody moves the branch ------------------------------------------------------ */

/* A guest's data is in a snapshot that could not go onto the branch. */
static void diverges(struct rig *rig)
{
	opens(rig, WRITABLE, LARGE);
	put(rig, 0, 0x11);
	git_shell(rig, MOVE);
	git_snapshot(rig);
	ends(rig);
	git_shell(rig, "git -C r.git for-each-ref --format='%(refname)'"
		       " refs/xendisk/diverged > ref; test $(wc -l < ref) = 1");
}

static void a_diverged_one_stays(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	diverges(&rig);
	opens(&rig, WRITABLE, LARGE);
	assert_true(is(&rig, 0, 0x11));
	says(&rig, "note", "its last snapshot is not on it");
	ends(&rig);
	git_shell(&rig, "git -C r.git branch -qf main $(cat ref)");
	opens(&rig, WRITABLE, LARGE);
	put(&rig, 0, 0x22);
	git_snapshot(&rig);
	ends(&rig);
	git_shell(&rig, "test $(git -C r.git rev-list --count main) = 3");
	/* On the branch again, it follows again. */
	git_shell(&rig, "git -C r.git update-ref refs/heads/main main~1");
	opens(&rig, WRITABLE, LARGE);
	assert_true(is(&rig, 0, 0x11));
	ends(&rig);
	git_shell(&rig, PINS("1"));
	rig_free(&rig);
}

static void until_it_is_rolled_back(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	diverges(&rig);
	git_shell(&rig, "eventually $tool rollback r.git main main"
			" --state-dir state > back");
	opens(&rig, WRITABLE, LARGE);
	assert_true(is(&rig, 0, 0));
	ends(&rig);
	rig_free(&rig);
}

/* An interval snapshot has what the branch has not. */
static void a_leaf_stays(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	opens(&rig, "git(@/r.git, branch=main, snapshot=200ms)", LARGE);
	put(&rig, 0, 0x11);
	git_shell(&rig, "leaf() { git -C r.git for-each-ref | grep -q auto; };"
			" eventually leaf");
	/* The overlay knows it, too. */
	says(&rig, "pending", "0");
	ends(&rig);
	opens(&rig, WRITABLE, LARGE);
	assert_true(is(&rig, 0, 0x11));
	ends(&rig);
	git_shell(&rig, MOVE);
	opens(&rig, WRITABLE, LARGE);
	assert_true(is(&rig, 0, 0x11));
	says(&rig, "note", "an interval snapshot is newer");
	ends(&rig);
	rig_free(&rig);
}

static const char other[] = "$tool create r.git other$size --size $size > id;"
			    "git -C r.git update-ref refs/heads/main $(cat id)";

static void move_to(struct rig *rig, const char *size)
{
	cleanup_free char *script = xasprintf("size=%s; %s", size, other);

	git_shell(rig, script);
}

static void roll_back(struct rig *rig)
{
	git_shell(rig, "eventually $tool rollback r.git main other200704"
		       " --state-dir state > back");
}

static void to_another_size(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	opens(&rig, WRITABLE, LARGE);
	ends(&rig);
	move_to(&rig, "200704");
	opens(&rig, WRITABLE, SMALL);
	ends(&rig);
	move_to(&rig, "2M");
	opens(&rig, WRITABLE, 2 * LARGE);
	put(&rig, 2 * LARGE - BLOCK, 0x44);
	rig_die(&rig);
	git_must(&rig, rig_recover(&rig, 1, WRITABLE));
	assert_true(is(&rig, 2 * LARGE - BLOCK, 0x44));
	ends(&rig);
	git_shell(&rig, PINS("1"));
	/* A guest that was told of more bytes must not come. */
	rig.before_activate = roll_back;
	assert_int_equal(rig_open(&rig, 1, WRITABLE), -EINVAL);
	assert_non_null(strstr(rig.why, "attach it anew"));
	rig.before_activate = NULL;
	rig_detach(&rig);
	opens(&rig, WRITABLE, SMALL);
	ends(&rig);
	/* What was written before that is in a commit of the branch. */
	opens(&rig, "git(@/r.git, rev=main~1)", 2 * LARGE);
	assert_true(is(&rig, 2 * LARGE - BLOCK, 0x44));
	ends(&rig);
	rig_free(&rig);
}

/* --- The committer dies ------------------------------------------------------------- */

/* The child of the two processes that have the repository as their descriptor 5. */
static const char kill_it[] =
	"for p in /proc/[0-9]*; do"
	" [ \"$(readlink $p/fd/5)\" = \"$PWD/r.git\" ] || continue;"
	" up=$(sed 's/.*) . \\([0-9]*\\) .*/\\1/' $p/stat);"
	" [ \"$(readlink /proc/$up/fd/5)\" = \"$PWD/r.git\" ] || continue;"
	" kill -9 ${p#/proc/}; exit; done 2> /dev/null; exit 1";

static void a_name_means_what_it_did(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	opens(&rig, WRITABLE, LARGE);
	put(&rig, 0, 0x11);
	git_snapshot(&rig);
	ends(&rig);
	/* Loose, the next committer has to be asked for it. */
	git_shell(&rig, "git -C r.git tag then main; git -C r.git repack -adq;"
			"mkdir p; mv r.git/objects/pack/* p; for p in p/*.pack;"
			" do git -C r.git unpack-objects -q < $p; done");
	opens(&rig, READ_ONLY, LARGE);
	git_shell(&rig, kill_it);
	git_shell(&rig, "git -C r.git update-ref refs/heads/main main~1");
	assert_true(is(&rig, 0, 0x11));
	ends(&rig);
	/* It would have been seen. */
	opens(&rig, READ_ONLY, LARGE);
	assert_false(is(&rig, 0, 0x11));
	ends(&rig);
	rig_free(&rig);
}

/* --- Many packs ------------------------------------------------------------------------- */

/* Where nothing combines them there are more than a worker can have open, and the one
 * that a snapshot makes may be any of them. */
static void too_many_packs(void **state)
{
	cleanup_free char *path = strdup(getenv("PATH"));
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	git_shell(&rig, "cd r.git/objects/pack; o=$(ls *.pack);"
			"for n in $(seq -f pack-%040g 2000); do"
			" ln ${o%.*}.idx $n.idx; ln $o $n.pack; done");
	(void)setenv("PATH", "/nonexistent", 1);
	opens(&rig, NO_CACHE, LARGE);
	(void)setenv("PATH", path, 1);
	for (int i = 1; i <= 4; i++) {
		put(&rig, 0, i);
		git_snapshot(&rig);
		says(&rig, "pending", "0");
		assert_true(is(&rig, 0, i));
	}
	ends(&rig);
	rig_free(&rig);
}

/* --- Files that are none --------------------------------------------------------------- */

/* Each would keep libgit2 for ever, or take all memory, or lead elsewhere. */
static const struct {
	const char *make, *name;
} traps[] = {
	{ "mkfifo", "refs/heads/pipe" },
	{ "mkfifo", "refs/xendisk/base/main/pipe" },
	{ "truncate -s 1G", "refs/tags/large" },
	{ "ln -s /dev/zero", "refs/heads/link" },
	{ "truncate -s 1G", "HEAD" },
	{ "mkfifo", "packed-refs" },
	{ "mkfifo", "objects/pack/pack-x.idx" },
	{ "mkfifo", "objects/ab/cdef" },
	{ "ln -s /dev", "objects/ab" },
	{ "mkfifo", "objects/info/commit-graph" },
	{ "mkfifo", "logs/HEAD" },
	{ "mkfifo", "logs/refs/heads/main" },
	{ "ln -s ../tags", "refs/heads/folder" },
	{ "mkfifo", "shallow" },
	{ "mkfifo", "config.worktree" },
	{ "mkfifo", "info/attributes" },
	{ "ln -s /dev/zero", "info/grafts" },
};

static void a_trap_is_named(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	git_shell(&rig, "mkdir -p r.git/refs/xendisk/base/main; cp -a r.git r");
	for (unsigned int i = 0; i < ARRAY_SIZE(traps); i++) {
		cleanup_free char *script =
			xasprintf("rm -rf r.git; cp -a r r.git; cd r.git;"
				  "rm -rf %s; mkdir -p $(dirname %s); %s %s",
				  traps[i].name, traps[i].name, traps[i].make,
				  traps[i].name);

		git_shell(&rig, script);
		assert_true(rig_open(&rig, 1, READ_ONLY) < 0);
		if (!strstr(rig.why, traps[i].name))
			fail_msg("%s: %s", traps[i].name, rig.why);
	}
	git_shell(&rig, "rm -rf r.git; mv r r.git");
	opens(&rig, READ_ONLY, LARGE);
	ends(&rig);
	rig_free(&rig);
}

#define INCLUDE(path) "printf '%s\\n' '[include]' 'path = " path "' >> config;"
#define IS_NONE	      ", which is no plain file"

/* In r.git; NULL: there is nothing wrong with it. */
static const struct {
	const char *make, *why;
} includes[] = {
	{ "mkfifo p;" INCLUDE("p"), "/r.git/p" IS_NONE },
	{ "mkfifo p; echo \"[include] path=$PWD/p\" >> config",
	  "/r.git/p" IS_NONE },
	{ "mkfifo '[include]p';" INCLUDE("\"[include]p\""),
	  "/r.git/[include]p" IS_NONE },
	{ INCLUDE("/dev/zero"), "/dev/zero" IS_NONE },
	{ INCLUDE("/dev"), "/dev" IS_NONE },
	{ "echo '[IncludeIf \"gitdir:/none/\"]path=/dev/zero' >> config",
	  "/dev/zero" IS_NONE },
	{ "mkdir d; mkfifo p; echo '[include]path=../p' > d/q;"
	  "ln -s d/q q;" INCLUDE("none") INCLUDE("d/q"),
	  "/r.git/d/q includes " },
	{ INCLUDE("config"), "more than 10 deep" },
	{ "for i in $(seq 300); do " INCLUDE("q") "done; echo > q",
	  "one of more than 256 files" },
	{ "truncate -s 1G q;" INCLUDE("q"), "which is too large" },
	{ "echo '[include' > q;" INCLUDE("q"),
	  "/r.git/q: failed to parse config file: missing ']' in section "
	  "header, line 1" },
	{ INCLUDE("/dev/null") INCLUDE("/none/credentials")
		  INCLUDE("config/none"),
	  NULL },
	{ "echo '[a] path = /dev/zero' > q; ln -s q l;" INCLUDE("l"), NULL },
};

static void what_is_included(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	git_shell(&rig, "cp -a r.git r");
	for (unsigned int i = 0; i < ARRAY_SIZE(includes); i++) {
		cleanup_free char *script =
			xasprintf("rm -rf r.git; cp -a r r.git; cd r.git; %s",
				  includes[i].make);
		int r;

		git_shell(&rig, script);
		r = rig_open(&rig, 1, READ_ONLY);
		if ((r < 0) != !!includes[i].why ||
		    (r < 0 && !strstr(rig.why, includes[i].why)))
			fail_msg("%s: %s", includes[i].make, rig.why);
		if (r == 0)
			ends(&rig);
	}
	rig_free(&rig);
}

/* While the committer is at work: it goes on beside the branch. */
static void a_trap_is_laid_later(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	opens(&rig, WRITABLE, LARGE);
	put(&rig, 0, 0x11);
	git_shell(&rig,
		  "rm r.git/refs/heads/main; mkfifo r.git/refs/heads/main");
	git_snapshot(&rig);
	ends(&rig);
	git_shell(&rig, "rm r.git/refs/heads/main;"
			"git -C r.git for-each-ref | grep -q diverged");
	rig_free(&rig);
}

/* ... and in its settings, which were read before. */
static void settings_become_a_trap(void **state)
{
	struct rig rig;

	(void)state;
	begin(&rig, "1M");
	git_shell(&rig, "git -C r.git config user.name me;"
			"git -C r.git config user.email me@example.org");
	opens(&rig, WRITABLE, LARGE);
	put(&rig, 0, 0x11);
	git_shell(&rig, "mv r.git/config was; mkfifo r.git/config");
	git_snapshot(&rig);
	ends(&rig);
	git_shell(&rig, "rm r.git/config; mv was r.git/config;"
			"git -C r.git log -1 --format=%an main | grep -qx me");
	rig_free(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(too_many_packs),
		cmocka_unit_test(a_disk_grows),
		cmocka_unit_test(only_the_size),
		cmocka_unit_test(not_any_size),
		cmocka_unit_test(before_the_first_guest),
		cmocka_unit_test(when_the_guest_has_gone),
		cmocka_unit_test(what_cannot_be_kept),
		cmocka_unit_test(a_diverged_one_stays),
		cmocka_unit_test(until_it_is_rolled_back),
		cmocka_unit_test(a_leaf_stays),
		cmocka_unit_test(to_another_size),
		cmocka_unit_test(a_name_means_what_it_did),
		cmocka_unit_test(a_trap_is_named),
		cmocka_unit_test(what_is_included),
		cmocka_unit_test(a_trap_is_laid_later),
		cmocka_unit_test(settings_become_a_trap),
	};

	return git_is_there() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
