/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a companion of a git disk has given up (repo-confine.h). */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/util.h"
#include "repo-confine.h"

#define OWNER 54321 /* nobody's */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

static char folder[] = "/tmp/xendisk-confine.XXXXXX";
static int repo = -1;

static int begin(void **state)
{
	char path[64];

	(void)state;
	if (!mkdtemp(folder))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/repo", folder);
	if (mkdir(path, 0755) < 0 || chmod(folder, 0755) < 0)
		return -1;
	if (geteuid() == 0 && chown(path, OWNER, OWNER) < 0)
		return -1;
	repo = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return repo < 0 ? -1 : 0;
}

static int end(void **state)
{
	char path[64];

	(void)state;
	(void)unlinkat(repo, "a/file", 0);
	(void)unlinkat(repo, "b/file", 0);
	(void)unlinkat(repo, "a", AT_REMOVEDIR);
	(void)unlinkat(repo, "b", AT_REMOVEDIR);
	(void)close(repo);
	(void)snprintf(path, sizeof(path), "%s/repo", folder);
	return rmdir(path) < 0 || rmdir(folder) < 0 ? -1 : 0;
}

/* In a process of its own, which is confined when `confined`; its exit status. */
static int in_child(bool confined, int (*fn)(void))
{
	char reason[WHY_MAX];
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (confined && (repo_become_owner(repo, reason) < 0 ||
				 repo_confine(repo, reason) < 0)) {
			print_error("%s\n", reason);
			_exit(99);
		}
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static bool has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, 1) >= 1;
}

/* Each says 0: it cannot be done. */
static int read_other(void)
{
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0;
}

static int write_other(void)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/tmp/xendisk-confine-%d",
		       (int)getpid());
	if (open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) < 0)
		return 0;
	(void)unlink(path);
	return 1;
}

static int is_somebody(void)
{
	return geteuid() != OWNER || getegid() != OWNER || setuid(0) == 0;
}

static int may_gain(void)
{
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1;
}

static int leaves_cores(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_CORE, &limit) < 0 || limit.rlim_cur > 0;
}

static void what_is_gone(void **state)
{
	(void)state;
	if (!has_landlock())
		skip();
	assert_int_equal(in_child(false, read_other), 1);
	assert_int_equal(in_child(true, read_other), 0);
	assert_int_equal(in_child(false, write_other), 1);
	assert_int_equal(in_child(true, write_other), 0);
}

static void who_it_is(void **state)
{
	(void)state;
	assert_int_equal(in_child(false, may_gain), 1);
	assert_int_equal(in_child(true, may_gain), 0);
	assert_int_equal(in_child(true, leaves_cores), 0);
	if (geteuid() != 0)
		skip();
	assert_int_equal(in_child(false, is_somebody), 1);
	assert_int_equal(in_child(true, is_somebody), 0);
}

/* What git does: files and folders, also from one to another. */
static int work(void)
{
	int fd;

	if (mkdirat(repo, "a", 0755) < 0 || mkdirat(repo, "b", 0755) < 0)
		return 1;
	fd = openat(repo, "a/file", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, "x", 1) != 1 || ftruncate(fd, 0) < 0)
		return 2;
	if (renameat(repo, "a/file", repo, "b/file") < 0)
		return 3;
	return openat(repo, "b/file", O_RDONLY | O_CLOEXEC) < 0 ? 4 : 0;
}

static int run_program(void)
{
	char *const argv[] = { strdup("true"), NULL };
	pid_t pid;
	int status;

	if (posix_spawnp(&pid, "true", NULL, NULL, argv, environ) != 0)
		return 1;
	return waitpid(pid, &status, 0) < 0 || status != 0;
}

static int knows_processes(void)
{
	return open("/proc/self/stat", O_RDONLY | O_CLOEXEC) < 0;
}

static void what_stays(void **state)
{
	(void)state;
	assert_int_equal(in_child(true, work), 0);
	assert_int_equal(in_child(true, run_program), 0);
	assert_int_equal(in_child(true, knows_processes), 0);
}

static int stands_back(void)
{
	repo_stand_back();
	return getpriority(PRIO_PROCESS, 0) < 10;
}

static void low_priority(void **state)
{
	(void)state;
	assert_int_equal(in_child(true, stands_back), 0);
}

static const char oom[] = "/proc/self/oom_score_adj";

static int is_special(void)
{
	cleanup_close int fd = open(oom, O_RDONLY | O_CLOEXEC);
	char text[8] = "";

	return fd < 0 || read(fd, text, sizeof(text) - 1) < 0 || atoi(text);
}

static void set_oom(const char *text)
{
	cleanup_close int fd = open(oom, O_WRONLY | O_CLOEXEC);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* The broker is spared by the kernel; this is not. */
static void as_any_other(void **state)
{
	(void)state;
	set_oom("100");
	assert_int_equal(in_child(false, is_special), 1);
	assert_int_equal(in_child(true, is_special), 0);
	set_oom("0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_gone), cmocka_unit_test(who_it_is),
		cmocka_unit_test(what_stays),	cmocka_unit_test(low_priority),
		cmocka_unit_test(as_any_other),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
