/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * A repository's configuration may name programs (core.sshCommand, a credential helper),
 * so git runs as the repository's owner, never as root for somebody else.  Then the owner
 * is to get nothing of root's: not its environment, in which there may be an agent or a
 * token; not its input; and no terminal: into a controlling one a program of his could
 * type, and from one that is only its stderr it could read what root types, for as long
 * as it likes.  So nobody is asked for anything then, and what git says comes to us.
 */
#include "config.h"

#include "git-run.h"

#include <fcntl.h>
#include <pwd.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "git-tool.h"
#include "watch.h"

/* What an owner may know of root's environment. */
static const char *const harmless[] = {
	"PATH", "TERM", "LANG", "LC_ALL", "TZ", "GIT_SSH", "GIT_SSH_COMMAND",
};

static void become_in_environment(void)
{
	char *kept[ARRAY_SIZE(harmless)];
	const struct passwd *who = getpwuid(geteuid());

	for (size_t i = 0; i < ARRAY_SIZE(harmless); i++) {
		const char *value = getenv(harmless[i]);

		kept[i] = value ? strdup(value) : NULL;
	}
	(void)clearenv();
	for (size_t i = 0; i < ARRAY_SIZE(harmless); i++) {
		if (kept[i])
			(void)setenv(harmless[i], kept[i], 1);
		free(kept[i]);
	}
	(void)setenv("HOME", who ? who->pw_dir : "/nonexistent", 1);
	if (who) {
		(void)setenv("USER", who->pw_name, 1);
		(void)setenv("LOGNAME", who->pw_name, 1);
	}
	(void)setenv("GIT_TERMINAL_PROMPT", "0", 1);
}

void git_run_begin(struct git_run *run, const char *repo, bool is_owner)
{
	*run = (struct git_run){ .repo = repo,
				 .is_owner = is_owner,
				 .bar = isatty(STDERR_FILENO) == 1 };
	if (is_owner)
		become_in_environment();
	(void)tool_interrupted(); /* we wait for git, and say how it ended */
}

/* out: its stdout, or -1: as its stderr.  words: its stderr, or -1: it stays ours. */
static int prepare(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attr,
		   const struct git_run *run, int out, int words)
{
	int r = 0;

	if (run->is_owner) {
		r = posix_spawn_file_actions_addopen(actions, STDIN_FILENO,
						     "/dev/null", O_RDONLY, 0);
		if (r == 0)
			r = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSID);
	}
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(
			actions, words < 0 ? STDERR_FILENO : words,
			STDERR_FILENO);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(
			actions, out < 0 ? STDERR_FILENO : out, STDOUT_FILENO);
	return r;
}

static int spawn(const struct git_run *run, const char *const *args, int out,
		 int words, pid_t *ret)
{
	const char *argv[GIT_RUN_ARGS + 10] = {
		"git",
		"--git-dir",
		run->repo,
		"-c",
		"core.hooksPath=/dev/null",
		"-c",
		"core.fsmonitor=false",
	};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	size_t n = 7;
	int r;

	for (size_t i = 0; args[i] && i < GIT_RUN_ARGS; i++)
		argv[n++] = args[i];
	r = posix_spawn_file_actions_init(&actions);
	if (r != 0)
		return r;
	r = posix_spawnattr_init(&attr);
	if (r == 0) {
		r = prepare(&actions, &attr, run, out, words);
		if (r == 0)
			r = posix_spawnp(ret, "git", &actions, &attr,
					 (char *const *)(uintptr_t)argv,
					 environ);
		(void)posix_spawnattr_destroy(&attr);
	}
	(void)posix_spawn_file_actions_destroy(&actions);
	return r;
}

/* "push", behind what is configured. */
static const char *git_verb(const char *const *args)
{
	while (args[0] && strcmp(args[0], "-c") == 0 && args[1])
		args += 2;
	return args[0] ? args[0] : "";
}

/* Does it tell of its progress? */
static bool has_progress(const char *const *args)
{
	while (*args && strcmp(*args, "--progress") != 0)
		args++;
	return *args != NULL;
}

static int judge(int status, const char *const *args, char *ret_why)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (tool_interrupted())
		return why(ret_why, -EINTR, "git %s: interrupted",
			   git_verb(args));
	return why(ret_why, -EREMOTEIO, "git %s has failed", git_verb(args));
}

int git_run(const struct git_run *run, const char *const *args, int out,
	    char *ret_why)
{
	struct meter meter = { .passes_on = true };
	struct watch watch = { .fd = -1,
			       .said = meter_take,
			       .ctx = &meter,
			       .stop = tool_interrupted };
	bool heard = run->is_owner || (run->bar && has_progress(args));
	int ends[2] = { -1, -1 };
	int status, r;
	pid_t pid;

	if (heard && (pipe2(ends, O_CLOEXEC) < 0 ||
		      fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0))
		return why(ret_why, -errno, "a pipe: %s", strerror(errno));
	r = spawn(run, args, out, ends[1], &pid);
	if (ends[1] >= 0)
		(void)close(ends[1]);
	watch.fd = ends[0];
	if (r == 0)
		r = watch_child(pid, &watch, &status);
	else
		r = why(ret_why, r == ENOENT ? -EOPNOTSUPP : -r,
			r == ENOENT ? "git is not installed" : "git: %s",
			strerror(r));
	if (heard)
		meter_end(&meter);
	if (ends[0] >= 0)
		(void)close(ends[0]);
	return r < 0 ? r : judge(status, args, ret_why);
}
