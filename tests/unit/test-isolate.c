/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An isolated process can still serve a disk, and nothing else.
 *
 * Each action runs in a child of its own, twice: once as it is, where it must
 * work (or the test would prove nothing), and once isolated.
 */
#include "config.h"

#include "isolate-actions.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/msg.h"
#include "common/util.h"
#include "fake-broker.h"
#include "worker/isolate-files.h"
#include "worker/isolate-seccomp.h"
#include "worker/isolate.h"

#define WORKER_UID 0x7d15ffffu /* not one that a daemon would give */

struct belongings have;

/* --- Children ---------------------------------------------------------------- */

static struct fake_broker *broker;

static void prepare_child(void)
{
	int r;

	r = engine_new(&have.uring, 8, true);
	r = r ? r : engine_new(&have.threads, 8, false);
	have.file = memfd_create("isolate", 0);
	have.sock = socket(AF_UNIX, SOCK_DGRAM, 0);
	have.page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r || have.file < 0 || have.sock < 0 || pipe(have.pipe) < 0 ||
	    ftruncate(have.file, 1 << 20) < 0 ||
	    pthread_create(&have.early, NULL, early_thread, NULL) != 0)
		_exit(99);
}

enum { AS_IT_IS, ISOLATED, ISOLATED_ELSEWHO };

/* Runs it; returns 0 or -errno, or -EOWNERDEAD for a death by SIGSYS. */
static int run(int (*act)(void), int how)
{
	char why[MSG_TEXT_MAX];
	int status;
	pid_t pid;

	have.parent = getpid();
	pid = fork();
	if (pid == 0) {
		prepare_child();
		have.isolated = how != AS_IT_IS;
		if (have.isolated &&
		    isolate(how == ISOLATED ? 0 : WORKER_UID, why) < 0) {
			fprintf(stderr, "%s\n", why);
			_exit(98);
		}
		_exit(-act());
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status))
		return -WEXITSTATUS(status);
	return WTERMSIG(status) == SIGSYS ? -EOWNERDEAD : -WTERMSIG(status);
}

/* False: it cannot be done here anyway (in a container, say), which proves
 * nothing. */
static bool check_forbidden(const struct action *action, int how)
{
	int r = run(action->act, AS_IT_IS);
	bool denied;

	if (r < 0) {
		print_message("# %s: cannot be done anyway: %s\n", action->name,
			      strerror(-r));
		return false;
	}
	r = run(action->act, how);
	denied = action->killed ? r == -EOWNERDEAD :
				  r == -EPERM || r == -EACCES;
	if (!denied)
		print_error("%s: %s, and not %s\n", action->name, strerror(-r),
			    action->killed ? "killed" : "denied");
	assert_true(denied);
	return true;
}

static void check_all_forbidden(int how)
{
	unsigned int n = 0;

	for (size_t i = 0; i < nr_forbidden_actions; i++)
		n += check_forbidden(&forbidden_actions[i], how);
	assert_true(n >= nr_forbidden_actions * 3 / 4);
}

/* cmocka's skip() is "not ok" in TAP. */
static bool not_here(bool so, const char *why)
{
	if (so)
		print_message("# skipped: %s\n", why);
	return so;
}

static void test_forbidden(void **state)
{
	int how = geteuid() == 0 ? ISOLATED_ELSEWHO : ISOLATED;

	(void)state;
	if (not_here(isolate_relaxed(), "for a sanitizer more is allowed"))
		return;
	check_all_forbidden(how);
}

/* As the daemon is where nobody is root, or where it cannot be helped. */
static void test_forbidden_same_user(void **state)
{
	(void)state;
	if (not_here(isolate_relaxed(), "for a sanitizer more is allowed") ||
	    not_here(geteuid() != 0, "only for root it makes a difference"))
		return;
	check_all_forbidden(ISOLATED);
}

static void check_needed(int how)
{
	for (size_t i = 0; i < nr_needed_actions; i++) {
		struct services *services = fake_broker_connect(broker);
		int r;

		have.services = services;
		r = run(needed_actions[i].act, how);
		if (r < 0)
			print_error("%s: %s\n", needed_actions[i].name,
				    strerror(-r));
		assert_int_equal(r, 0);
		services_free(services);
	}
}

static void test_needed(void **state)
{
	(void)state;
	check_needed(AS_IT_IS);
	check_needed(ISOLATED);
	if (geteuid() == 0)
		check_needed(ISOLATED_ELSEWHO);
}

/* A failed assertion is SIGABRT, not a hang and not something else. */
static int do_abort(void)
{
	abort();
}

static void test_abort(void **state)
{
	(void)state;
	assert_int_equal(run(do_abort, ISOLATED), -SIGABRT);
}

/* The way out works: exit handlers, a sanitizer's search for leaks. */
static int do_exit(void)
{
	exit(0);
}

static void test_exit(void **state)
{
	(void)state;
	assert_int_equal(run(do_exit, ISOLATED), 0);
}

/* --- Who it is then ------------------------------------------------------------ */

static int wait_for_end(void)
{
	char byte;

	(void)!write(have.pipe[1], "x", 1);
	(void)!read(have.sock, &byte, 1);
	return 0;
}

static void status_line(pid_t pid, const char *key, char *value, size_t size)
{
	cleanup_free char *path = xasprintf("/proc/%d/status", pid);
	cleanup_file FILE *file = fopen(path, "re");
	char line[256];

	assert_non_null(file);
	value[0] = '\0';
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, key, strlen(key)) != 0)
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(value, size, "%s", line + strlen(key));
	}
}

static void check_status(pid_t pid)
{
	cleanup_free char *limits = xasprintf("grep -q 'core file size *0 ' "
					      "/proc/%d/limits",
					      pid);
	cleanup_free char *proc = xasprintf("/proc/%d/maps", pid);
	struct stat st;
	char value[256];

	status_line(pid, "Uid:\t", value, sizeof(value));
	assert_string_equal(value, "2098593791\t2098593791\t2098593791\t"
				   "2098593791");
	status_line(pid, "Groups:\t", value, sizeof(value));
	assert_string_equal(value, " ");
	status_line(pid, "CapPrm:\t", value, sizeof(value));
	assert_string_equal(value, "0000000000000000");
	status_line(pid, "CapEff:\t", value, sizeof(value));
	assert_string_equal(value, "0000000000000000");
	status_line(pid, "NoNewPrivs:\t", value, sizeof(value));
	assert_string_equal(value, "1");
	status_line(pid, "Seccomp:\t", value, sizeof(value));
	assert_string_equal(value, "2");
	assert_int_equal(system(limits), 0);
	if (isolate_relaxed())
		return;
	/* Not dumpable: its files in /proc are root's. */
	assert_int_equal(stat(proc, &st), 0);
	assert_int_equal(st.st_uid, 0);
}

static void test_identity(void **state)
{
	int ready[2], end[2], status;
	char why[MSG_TEXT_MAX], byte;
	pid_t pid;

	(void)state;
	if (not_here(geteuid() != 0, "only root can become another"))
		return;
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(end), 0);
	pid = fork();
	if (pid == 0) {
		if (isolate(WORKER_UID, why) < 0)
			_exit(1);
		have.pipe[1] = ready[1];
		have.sock = end[0];
		close(end[1]);
		_exit(wait_for_end());
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	check_status(pid);
	for (int i = 0; i < 2; i++) {
		close(ready[i]);
		close(end[i]);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* Asked for a user that it cannot become, it must not go on as it is. */
static void test_no_half_measures(void **state)
{
	char why[MSG_TEXT_MAX];
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		if (geteuid() == 0 && setresuid(1, 1, 1) < 0)
			_exit(2);
		_exit(isolate(WORKER_UID, why) == -EPERM &&
				      strstr(why, "user") ?
			      0 :
			      1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static int group_setup(void **state)
{
	(void)state;
	broker = fake_broker_new();
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	fake_broker_free(broker);
	return 0;
}

/* --- Files that were lent ------------------------------------------------------ */

static char lent_path[] = "/tmp/xendisk-lent-XXXXXX";

/* The content as it was, each time from the beginning; nothing else. */
static int read_lent(void)
{
	char text[16] = "";

	for (int i = 0; i < 2; i++) {
		cleanup_file FILE *file = fopen(lent_path, "r");

		if (!file || !fgets(text, sizeof(text), file))
			return -EBADF;
		if (strcmp(text, "a key") != 0)
			return -EILSEQ;
	}
	if (access(lent_path, R_OK) < 0)
		return -EACCES;
	if (open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0 || errno != EPERM)
		return -EEXIST;
	return 0;
}

static void test_lent(void **state)
{
	int fd = mkstemp(lent_path);

	(void)state;
	if (not_here(isolate_relaxed(), "for a sanitizer more is allowed"))
		return;
	assert_int_equal(write(fd, "a key", 5), 5);
	/* Not lent, it cannot be opened. */
	assert_int_equal(run(read_lent, ISOLATED), -EBADF);
	assert_int_equal(isolate_lend_file("/tmp/no/such"), -ENOENT);
	assert_int_equal(isolate_lend_file("/dev/null"), -EINVAL);
	assert_int_equal(isolate_lend_file(lent_path), 0);
	assert_int_equal(pwrite(fd, "later", 5, 0), 5);
	(void)close(fd);
	assert_int_equal(run(read_lent, ISOLATED), 0);
	(void)unlink(lent_path);
	assert_int_equal(run(read_lent, ISOLATED), 0);
	/* With the trap in place all else is forbidden as before. */
	check_all_forbidden(ISOLATED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forbidden),
		cmocka_unit_test(test_forbidden_same_user),
		cmocka_unit_test(test_needed),
		cmocka_unit_test(test_lent),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_exit),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_no_half_measures),
	};

	return cmocka_run_group_tests_name("isolate", tests, group_setup,
					   group_teardown);
}
