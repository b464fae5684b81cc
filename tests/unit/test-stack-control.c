/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* control(), xd_state() and xd_changed(), on the stack. */
#include "config.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "common/util.h"
#include "fake-broker.h"
#include "worker/disk.h"
#include "worker/state-dir.h"

static char *modules; /* folder of the test's backends */
static char dir[] = "/tmp/xendisk-state-XXXXXX";
static struct fake_broker *broker;
static struct services *services;
static char why[MSG_TEXT_MAX];
static char answer[MSG_CONTROL_MAX];

static int group_setup(void **state)
{
	const char *top = getenv("top_builddir");

	(void)state;
	modules = xasprintf("%s/tests/unit/modules/.libs", top ? top : ".");
	assert_non_null(mkdtemp(dir));
	broker = fake_broker_new();
	services = fake_broker_connect(broker);
	return 0;
}

static int group_teardown(void **state)
{
	cleanup_free char *command = xasprintf("rm -rf '%s'", dir);

	(void)state;
	services_free(services);
	fake_broker_free(broker);
	free(modules);
	return system(command);
}

static int try_open(struct stack **ret, const char *expression,
		    const char *state_dir)
{
	const struct stack_spec spec = { .expression = expression,
					 .backend_dir = modules,
					 .state_dir = state_dir };

	return stack_open(ret, &spec, services, why);
}

static struct stack *open_stack(const char *expression)
{
	struct stack *stack;

	if (try_open(&stack, expression, dir) < 0)
		fail_msg("%s", why);
	return stack;
}

static int ask(struct stack *stack, const char *verb, const char *text)
{
	return stack_control(stack, verb, text, answer, sizeof(answer), why);
}

/* --- control() ------------------------------------------------------------ */

static void test_control(void **state)
{
	struct stack *stack = open_stack("tsnap()");

	(void)state;
	assert_int_equal(ask(stack, "snapshot", "message=one\n"), 0);
	assert_string_equal(answer, "id=1\n");
	assert_int_equal(ask(stack, "snapshot", ""), 0);
	assert_string_equal(answer, "id=2\n");
	assert_int_equal(ask(stack, "status", "domain=a\\nb\n"), 0);
	assert_non_null(strstr(answer, "domain=a\\nb\n"));
	/* An error has a sentence, in the backend's words or ours. */
	assert_int_equal(ask(stack, "snapshot", "message=refuse\n"), -EBUSY);
	assert_string_equal(why, "tsnap: 4 snapshots are pending");
	assert_int_equal(ask(stack, "snapshot", "message=mute\n"), -EBUSY);
	assert_string_equal(why, "tsnap: snapshot: Device or resource busy");
	assert_int_equal(ask(stack, "rewind", ""), -EOPNOTSUPP);
	assert_string_equal(why, "tsnap: rewind: Operation not supported");
	stack_close(stack);
}

/* The one that is nearest to the guest, however deep the others are. */
static void test_topmost(void **state)
{
	struct stack *stack =
		open_stack("tfilter(tfilter(tsnap(state=deep), tmem(1M)), "
			   "tsnap(state=right))");

	(void)state;
	assert_int_equal(ask(stack, "snapshot", ""), 0);
	assert_int_equal(ask(stack, "snapshot", ""), 0);
	stack_close(stack);
	/* Pre-order: the left one stands before the right one. */
	stack = open_stack("tsnap(state=deep)");
	assert_int_equal(ask(stack, "snapshot", ""), 0);
	assert_string_equal(answer, "id=3\n");
	stack_close(stack);
	stack = open_stack("tsnap(state=right)");
	assert_int_equal(ask(stack, "snapshot", ""), 0);
	assert_string_equal(answer, "id=1\n");
	stack_close(stack);
}

static void test_nobody(void **state)
{
	static const char *const expressions[] = {
		"tmem(8K)", "told()", "tfilter(tmem(8K), tmem(8K))"
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(expressions); i++) {
		struct stack *stack = open_stack(expressions[i]);

		assert_int_equal(ask(stack, "snapshot", ""), -EOPNOTSUPP);
		assert_string_equal(why, "");
		stack_close(stack);
	}
}

/* --- xd_state() ------------------------------------------------------------ */

static const char *path_of(const char *name)
{
	static char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void opens(const char *folder)
{
	int fd = state_dir_open(dir, folder, why);
	struct stat st;

	if (fd < 0)
		fail_msg("%s", why);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	(void)close(fd);
}

static void refuses(const char *in, const char *folder, int err,
		    const char *sentence)
{
	assert_int_equal(state_dir_open(in, folder, why), err);
	if (!strstr(why, sentence))
		print_error("\"%s\" is not in \"%s\"\n", sentence, why);
	assert_non_null(strstr(why, sentence));
}

static void test_state_dir(void **state)
{
	int fd;

	(void)state;
	opens("git/main-0123456789abcdef");
	opens("git/main-0123456789abcdef");
	opens("git/A_b.c-d/e");
	assert_int_equal(access(path_of("git/A_b.c-d/e"), F_OK), 0);
	/* STATE_DIR itself is made, too. */
	fd = state_dir_open(path_of("new/dir"), "git", why);
	assert_true(fd >= 0);
	(void)close(fd);
}

static void test_state_names(void **state)
{
	static const char *const wrong[] = { "",	".",	  "..",
					     "/git",	"git/",	  "git//a",
					     "../x",	"git/..", "git/.a",
					     "git/a b", "git/a\n" };
	char longest[300];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		refuses(dir, wrong[i], -EINVAL, "no name of a folder of state");
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	refuses(dir, longest, -EINVAL, "no name of a folder of state");
}

/* Nobody else can have put anything in our way. */
static void test_state_strangers(void **state)
{
	int fd;

	(void)state;
	opens("own/a");
	assert_int_equal(symlink("a", path_of("own/link")), 0);
	refuses(dir, "own/link", -ENOTDIR, "own/link: is no folder, or a sym");
	refuses(dir, "own/link/b", -ENOTDIR, "own/link: is no folder");
	fd = open(path_of("own/file"), O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	(void)close(fd);
	refuses(dir, "own/file", -ENOTDIR, "own/file: is no folder");
	assert_int_equal(chmod(path_of("own"), 0750), 0);
	refuses(dir, "own/a", -EPERM, "/own: is open to others");
	assert_int_equal(chmod(path_of("own"), 0700), 0);
	opens("own/a");
	assert_int_equal(chmod(dir, 0777), 0);
	refuses(dir, "own/a", -EPERM, "others may write to it");
	assert_int_equal(chmod(dir, 0755), 0);
	if (geteuid() == 0) {
		assert_int_equal(chown(path_of("own"), 1, 1), 0);
		refuses(dir, "own/a", -EPERM, "/own: belongs to somebody else");
	}
	refuses("/dev/null/x", "own", -ENOTDIR, "/dev/null/x: Not a directory");
}

static void test_state(void **state)
{
	struct stack *stack;

	(void)state;
	for (unsigned int i = 1; i < 4; i++) {
		char expected[16];

		(void)snprintf(expected, sizeof(expected), "id=%u\n", i);
		stack = open_stack("tsnap(state=kept/here)");
		assert_int_equal(ask(stack, "snapshot", ""), 0);
		assert_string_equal(answer, expected);
		stack_close(stack);
	}
	assert_int_equal(try_open(&stack, "tsnap(state=kept)", NULL), -ENOENT);
	assert_string_equal(why, "tsnap: there is no state directory");
	assert_int_equal(try_open(&stack, "tsnap(state=\"../kept\")", dir),
			 -EINVAL);
	assert_string_equal(why,
			    "tsnap: ../kept: no name of a folder of state");
}

/* --- xd_changed() ---------------------------------------------------------- */

static void wait_for_changes(unsigned int n)
{
	struct fake_broker_state *seen = fake_broker_state(broker);

	for (int i = 0; i < 1000 && seen->changes < n; i++)
		usleep(10000);
	assert_int_equal(seen->changes, n);
}

static void test_changed(void **state)
{
	struct fake_broker_state *seen = fake_broker_state(broker);
	struct stack *stack;

	(void)state;
	/* What was said before is no news. */
	services_free(services);
	services = fake_broker_connect(broker);
	seen->changes = 0;
	stack = open_stack("tfilter(tmem(1M), tsnap(1M))");
	wait_for_changes(1);
	assert_string_equal(seen->changed.text, "snapshots 0, pending 0");
	assert_string_equal(seen->changed.commit, "");
	assert_int_equal(seen->changed.layer, 2);
	assert_int_equal(ask(stack, "snapshot", "message=slow\n"), 0);
	wait_for_changes(2);
	assert_string_equal(seen->changed.text, "snapshots 1, pending 1");
	/* What is the same is not said again ... */
	for (int i = 0; i < 6; i++)
		assert_int_equal(ask(stack, "status", "id=1\n"), 0);
	wait_for_changes(3);
	assert_string_equal(seen->changed.text, "snapshots 1, pending 0");
	assert_string_equal(seen->changed.commit,
			    "0000000000000000000000000000000000000001");
	/* ... but to another broker. */
	stack_tell_changed(stack);
	wait_for_changes(4);
	stack_close(stack);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_control),
		cmocka_unit_test(test_topmost),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_state_dir),
		cmocka_unit_test(test_state_names),
		cmocka_unit_test(test_state_strangers),
		cmocka_unit_test(test_state),
		cmocka_unit_test(test_changed),
	};

	return cmocka_run_group_tests_name("stack-control", tests, group_setup,
					   group_teardown);
}
