/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/spawn.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>

#include "common/log.h"
#include "common/util.h"

/* Ours, without what speaks to systemd for the service as a whole. */
static bool inherited(const char *variable)
{
	static const char *const ours[] = { "NOTIFY_SOCKET=", "WATCHDOG_",
					    "LISTEN_", "XENDISK_WORKER_" };

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		if (strncmp(variable, ours[i], strlen(ours[i])) == 0)
			return false;
	return true;
}

static void free_environment(char **env, size_t nr_own)
{
	if (!env)
		return;
	for (size_t i = 0; i < nr_own; i++)
		free(env[i]);
	free(env);
}

/* Restartable sequences, of which glibc uses one: to tell which CPU this is.  No
 * worker asks, and a lane pays for them each time that it is switched to. */
static char tunables[] = "GLIBC_TUNABLES=glibc.pthread.rseq=0";

#define SELF   "/proc/self/exe"
#define NR_OWN 8

static char **make_environment(const struct spawn_spec *spec)
{
	size_t n = 0;
	char **env;

	while (environ[n])
		n++;
	env = calloc(NR_OWN + n + 2, sizeof(*env));
	if (!env)
		return NULL;
	env[0] = xasprintf("XENDISK_WORKER_SOCKET=%d", SPAWN_SOCKET);
	env[1] = xasprintf("XENDISK_WORKER_BACKEND_DOMID=%" PRIu32,
			   spec->id->backend_domid);
	env[2] = xasprintf("XENDISK_WORKER_UID=%" PRIu32, spec->uid);
	env[3] = xasprintf("XENDISK_WORKER_VM=%s", spec->id->vm);
	env[4] = xasprintf("XENDISK_WORKER_BACKEND_DIR=%s", spec->backend_dir);
	env[5] = xasprintf("XENDISK_WORKER_LOG_LEVEL=%s",
			   log_level_word(log_get_level()));
	env[6] = xasprintf("XENDISK_WORKER_LISTENER=%d", SPAWN_LISTENER);
	env[7] = xasprintf("XENDISK_WORKER_STATE_DIR=%s", spec->state_dir);
	for (size_t i = 0; i < NR_OWN; i++) {
		if (!env[i]) {
			free_environment(env, NR_OWN);
			return NULL;
		}
	}
	n = NR_OWN;
	for (char **variable = environ; *variable; variable++)
		if (inherited(*variable))
			env[n++] = *variable;
	if (!getenv("GLIBC_TUNABLES"))
		env[n++] = tunables;
	return env;
}

/* The small program, if it stands beside this one.  If this one has been
 * replaced by another version since it started, nothing stands beside it, and
 * what runs is what the worker is, too. */
static void find_program(char *buf, size_t size)
{
	static const char suffix[] = "-worker";
	ssize_t n = readlink(SELF, buf, size - sizeof(suffix));

	if (n > 0)
		memcpy(buf + n, suffix, sizeof(suffix));
	if (n <= 0 || access(buf, X_OK) < 0)
		(void)snprintf(buf, size, "%s", SELF);
}

static int spawn_with(pid_t *ret, const struct spawn_spec *spec,
		      char *const *argv, char *const *env)
{
	/* Out of the way of the numbers that they are to have. */
	cleanup_close int sock = fcntl(spec->sock, F_DUPFD_CLOEXEC, 10);
	cleanup_close int listener = fcntl(spec->listener, F_DUPFD_CLOEXEC, 10);
	posix_spawn_file_actions_t actions;
	char program[PATH_MAX];
	posix_spawnattr_t attr;
	sigset_t none;
	sigset_t all;
	int r;

	if (sock < 0 || listener < 0)
		return -errno;
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_adddup2(&actions, sock, SPAWN_SOCKET);
	posix_spawn_file_actions_adddup2(&actions, listener, SPAWN_LISTENER);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	/* A session of its own: Ctrl-C ends the broker, not its workers. */
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK |
						POSIX_SPAWN_SETSIGDEF |
						POSIX_SPAWN_SETSID);
	find_program(program, sizeof(program));
	r = -posix_spawn(ret, program, &actions, &attr, argv, env);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return r;
}

int spawn_worker(const struct spawn_spec *spec, pid_t *ret)
{
	char program[] = "xendiskd";
	char mode[] = "--worker";
	char disk[32];
	char *argv[] = { program, mode, disk, NULL };
	char **env = make_environment(spec);
	int r;

	if (!env)
		return -ENOMEM;
	(void)snprintf(disk, sizeof(disk), "%" PRIu32 "/%" PRIu32,
		       spec->id->domid, spec->id->devid);
	r = spawn_with(ret, spec, argv, env);
	free_environment(env, NR_OWN);
	return r;
}
