/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * run.c - the command of `xendisk serve --run`.
 *
 * Lanes run already, and after a fork() another thread's locks stay locked in the
 * child for ever: it may not allocate memory, nor change its environment.  So all
 * is made ready here, and the C library starts the command.
 */
#include "config.h"

#include "serve/run.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"
#include "serve/child.h"

static bool is_ours(const char *variable)
{
	return strncmp(variable, "uri=", 4) == 0 ||
	       strncmp(variable, "socket=", 7) == 0 ||
	       strncmp(variable, SERVE_CHILD_OF "=", sizeof(SERVE_CHILD_OF)) ==
		       0;
}

/* Our own environment and these two; path may be NULL.  The array is to be freed, the
 * strings are others'. */
static char **make_env(char *uri, char *path)
{
	size_t n = 0, all = 0;
	char **env;

	while (environ[all])
		all++;
	env = calloc(all + 3, sizeof(*env));
	if (!env)
		return NULL;
	for (size_t i = 0; i < all; i++)
		if (!is_ours(environ[i]))
			env[n++] = environ[i];
	env[n++] = uri;
	env[n] = path;
	return env;
}

static int spawn(char *command, char *const *env, pid_t *ret_pid)
{
	char name[] = "sh", option[] = "-c";
	char *argv[] = { name, option, command, NULL };
	posix_spawnattr_t attr;
	sigset_t none;
	pid_t pid;
	int r;

	(void)sigemptyset(&none);
	r = posix_spawnattr_init(&attr);
	if (r)
		return -r;
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	r = posix_spawn(&pid, "/bin/sh", NULL, &attr, argv, env);
	(void)posix_spawnattr_destroy(&attr);
	if (r == 0)
		*ret_pid = pid;
	return -r;
}

int run_command(const char *command, const char *uri, const char *path,
		pid_t *ret_pid)
{
	cleanup_free char *text = strdup(command);
	cleanup_free char *uri_is = xasprintf("uri=%s", uri);
	cleanup_free char *path_is = path ? xasprintf("socket=%s", path) : NULL;
	cleanup_free char **env = NULL;

	if (!text || !uri_is || (path && !path_is))
		return -ENOMEM;
	env = make_env(uri_is, path_is);
	return env ? spawn(text, env, ret_pid) : -ENOMEM;
}
