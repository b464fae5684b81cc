/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "command/xl.h"

#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

bool xl_is_in_charge(void)
{
	cleanup_file FILE *f = fopen("/proc/xen/capabilities", "re");
	char line[64];

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "control_d", 9) == 0)
			return true;
	return false;
}

enum status xl_run(const struct invocation *call, const char *const *argv)
{
	posix_spawn_file_actions_t actions;
	int wait_status;
	pid_t pid;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null",
					 O_WRONLY, 0);
	/* posix_spawnp() takes no const, but writes nothing. */
	r = posix_spawnp(&pid, argv[0], &actions, NULL,
			 (char *const *)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (r != 0)
		return fail(STATUS_FAILED, "%s: %s: %s", call->verb->name,
			    argv[0], strerror(r));
	while (waitpid(pid, &wait_status, 0) < 0)
		if (errno != EINTR)
			return fail(STATUS_FAILED, "%s: waitpid: %m",
				    call->verb->name);
	if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0)
		return STATUS_DONE;
	return fail(STATUS_FAILED, "%s: xl %s failed", call->verb->name,
		    argv[1]);
}
