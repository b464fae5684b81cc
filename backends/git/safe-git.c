/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "safe-git.h"

#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "common/util.h"

#define ARGS_MAX  32
#define WORDS_MAX 300 /* of its last words that are passed on */

/* What a repository's own configuration could make git run, or reach. */
static const char *const safely[] = {
	"git", "--git-dir=.",
	"-c",  "core.hooksPath=/dev/null",
	"-c",  "core.fsmonitor=false",
	"-c",  "core.alternateRefsCommand=",
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

static int spawn(pid_t *ret, int dir, const char **argv, int words)
{
	posix_spawn_file_actions_t actions;
	int r = posix_spawn_file_actions_init(&actions);

	if (r != 0)
		return -r;
	r = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR,
					     0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, 0, 1);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, words, 2);
	if (r == 0)
		r = posix_spawn_file_actions_addfchdir_np(&actions, dir);
	if (r == 0)
		r = posix_spawnp(ret, "git", &actions, NULL,
				 (char *const *)(uintptr_t)argv,
				 (char *const *)(uintptr_t)environment);
	(void)posix_spawn_file_actions_destroy(&actions);
	return -r;
}

/* Without what could upset a terminal, or be taken for more than one line. */
static void last_words(int fd, char ret[WORDS_MAX + 1])
{
	off_t size = lseek(fd, 0, SEEK_END);
	size_t n = (size_t)MIN(MAX(size, 0), WORDS_MAX);

	ret[n] = '\0';
	if (pread_all(fd, ret, n, (uint64_t)size - n) < 0)
		*ret = '\0';
	while (n > 0 && ret[n - 1] == '\n')
		ret[--n] = '\0';
	for (char *p = ret; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
}

int safe_git(int dir, const char *const *args, char *ret_why)
{
	cleanup_close int words = memfd_create("stderr", MFD_CLOEXEC);
	const char *argv[ARRAY_SIZE(safely) + ARGS_MAX + 1];
	size_t n = ARRAY_SIZE(safely);
	char said[WORDS_MAX + 1];
	int r, status;
	pid_t pid;

	memcpy(argv, safely, sizeof(safely));
	for (size_t i = 0; args[i] && i < ARGS_MAX; i++)
		argv[n++] = args[i];
	argv[n] = NULL;
	r = words < 0 ? -errno : spawn(&pid, dir, argv, words);
	if (r < 0)
		return why(ret_why, r, "running git: %s", strerror(-r));
	do
		r = waitpid(pid, &status, 0);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return why(ret_why, -errno, "git: %s", strerror(errno));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	last_words(words, said);
	return why(ret_why, -EREMOTEIO, "git: %s", *said ? said : "it failed");
}
