/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "safe-git.h"

#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <termios.h>

#include "common/util.h"
#include "watch.h"

#define ARGS_MAX  32
#define WORDS_MAX 300 /* of its last words that are passed on */

/* What a repository's own configuration could make git run, or reach; or leave to
 * chance: of references that it packs, git waits for the storage only when it is told
 * to, and then removes what was durable. */
static const char *const safely[] = {
	"git", "--git-dir=.",
	"-c",  "core.fsync=all",
	"-c",  "core.hooksPath=/dev/null",
	"-c",  "core.fsmonitor=false",
	"-c",  "core.alternateRefsCommand=",
	"-c",  "core.attributesFile=/dev/null",
	"-c",  "gc.auto=0",
	"-c",  "maintenance.auto=false",
	"-c",  "safe.directory=*",
};

static const char *const environment[] = {
	"PATH=/usr/local/bin:/usr/bin:/bin",
	"HOME=/nonexistent",
	"LC_ALL=C",
	"GIT_CONFIG_NOSYSTEM=1",
	"GIT_CONFIG_GLOBAL=/dev/null",
	"GIT_TERMINAL_PROMPT=0",
	"GIT_ALLOW_PROTOCOL=none", /* a promisor's objects are not fetched */
	NULL,
};

/*
 * In a session of its own: where root has become the owner of the repository, its
 * git is the owner's process, and may not reach the terminal of root.
 */
static int spawn(pid_t *ret, int dir, const char **argv, int words)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r = posix_spawnattr_init(&attr);

	if (r != 0)
		return -r;
	r = posix_spawn_file_actions_init(&actions);
	if (r != 0) {
		(void)posix_spawnattr_destroy(&attr);
		return -r;
	}
	r = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID);
	if (r == 0)
		r = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null",
						     O_RDWR, 0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, 0, 1);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, words, 2);
	if (r == 0)
		r = posix_spawn_file_actions_addfchdir_np(&actions, dir);
	if (r == 0)
		r = posix_spawnp(ret, "git", &actions, &attr,
				 (char *const *)(uintptr_t)argv,
				 (char *const *)(uintptr_t)environment);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attr);
	return -r;
}

/* Without what could upset a terminal, or be taken for more than one line. */
static void clean(char *text)
{
	size_t n = strlen(text);

	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
		text[--n] = '\0';
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
}

static int judge(int status, char *words, char *ret_why)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	clean(words);
	return why(ret_why, -EREMOTEIO, "git: %s",
		   *words ? words : "it failed");
}

/* ret ends with NULL. */
static void put_args(const char *const *args,
		     const char *ret[ARRAY_SIZE(safely) + ARGS_MAX + 1])
{
	size_t n = ARRAY_SIZE(safely);

	memcpy(ret, safely, sizeof(safely));
	for (size_t i = 0; args[i] && i < ARGS_MAX; i++)
		ret[n++] = args[i];
	ret[n] = NULL;
}

int safe_git(int dir, const char *const *args, bool (*stop)(void),
	     char *ret_why)
{
	cleanup_close int words = memfd_create("stderr", MFD_CLOEXEC);
	const char *argv[ARRAY_SIZE(safely) + ARGS_MAX + 1];
	const struct watch watch = { .fd = -1, .stop = stop };
	char said[WORDS_MAX + 1];
	int r, status;
	off_t size;
	size_t n;
	pid_t pid;

	put_args(args, argv);
	r = words < 0 ? -errno : spawn(&pid, dir, argv, words);
	if (r < 0)
		return why(ret_why, r, "running git: %s", strerror(-r));
	r = watch_child(pid, &watch, &status);
	if (r < 0)
		return why(ret_why, r, "git: %s", strerror(-r));
	size = lseek(words, 0, SEEK_END);
	n = (size_t)MIN(MAX(size, 0), WORDS_MAX);
	said[n] = '\0';
	if (pread_all(words, said, n, (uint64_t)size - n) < 0)
		*said = '\0';
	return judge(status, said, ret_why);
}

/* --- ... which tells of its progress ------------------------------------------------ */

struct telling {
	void (*said)(void *ctx, const char *text, size_t n);
	void *ctx;
	char words[WORDS_MAX + 1]; /* the last ones */
	size_t used;
};

static void tell(void *ctx, const char *text, size_t n)
{
	struct telling *t = ctx;

	t->said(t->ctx, text, n);
	for (size_t i = 0; i < n; i++) {
		/* A line of progress, or one before the last. */
		if (text[i] == '\r' || t->used == WORDS_MAX)
			t->used = 0;
		else
			t->words[t->used++] = text[i];
	}
	t->words[t->used] = '\0';
}

/* Both ends of a terminal, ours non-blocking. */
static int open_terminal(int *ret_ours, int *ret_its)
{
	cleanup_close int ours =
		posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	struct termios raw;
	char name[64];
	int its;

	if (ours < 0 || grantpt(ours) < 0 || unlockpt(ours) < 0 ||
	    ptsname_r(ours, name, sizeof(name)) != 0)
		return -errno;
	its = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (its < 0)
		return -errno;
	if (tcgetattr(its, &raw) == 0) {
		cfmakeraw(&raw);
		(void)tcsetattr(its, TCSANOW, &raw);
	}
	*ret_its = its;
	*ret_ours = TAKE_FD(ours);
	return 0;
}

int safe_git_told(int dir, const char *const *args,
		  void (*said)(void *ctx, const char *text, size_t n),
		  void *ctx, bool (*stop)(void), char *ret_why)
{
	const char *argv[ARRAY_SIZE(safely) + ARGS_MAX + 1];
	struct telling telling = { .said = said, .ctx = ctx };
	struct watch watch = { .said = tell, .ctx = &telling, .stop = stop };
	cleanup_close int ours = -1, its = -1;
	int status, r = open_terminal(&ours, &its);
	pid_t pid;

	put_args(args, argv);
	if (r == 0)
		r = spawn(&pid, dir, argv, its);
	if (r < 0)
		return why(ret_why, r, "running git: %s", strerror(-r));
	(void)close(TAKE_FD(its));
	watch.fd = ours;
	r = watch_child(pid, &watch, &status);
	return r < 0 ? why(ret_why, r, "git: %s", strerror(-r)) :
		       judge(status, telling.words, ret_why);
}
