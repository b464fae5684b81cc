/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "repo-confine.h"

#include <fcntl.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/confine.h"
#include "common/util.h"

#define NICE 10
/* ioprio_set(2): the lowest of those that get something at all. */
#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_LOWEST	   (2 << 13 | 7)

/* What running a program takes; and which processes there are, for pins and for
 * the marks of packs. */
static const char *const readable[] = {
	"/usr",		"/bin",	 "/sbin", "/lib", "/lib64", "/etc/ld.so.cache",
	"/dev/urandom", "/proc",
};
static const char *const writable[] = { "/dev/null" };

/* Git's settings are in one's home, and libgit2 gives up where it may not look, as in
 * root's. */
static void leave_home(void)
{
	const struct passwd *who = getpwuid(geteuid());

	(void)setenv("HOME", who ? who->pw_dir : "/nonexistent", 1);
	(void)unsetenv("XDG_CONFIG_HOME");
}

int repo_become_owner(int dir, char *ret_why)
{
	const struct rlimit none = { 0, 0 };
	struct stat st;
	int r;

	confine_ordinary();
	if (setrlimit(RLIMIT_CORE, &none) < 0 || fstat(dir, &st) < 0)
		return why(ret_why, -errno, "the repository's owner: %s",
			   strerror(errno));
	if (geteuid() != 0)
		return 0;
	r = confine_become(st.st_uid, st.st_gid);
	if (r == 0 && st.st_uid != 0)
		leave_home();
	return r < 0 ? why(ret_why, r,
			   "becoming user %u, the repository's owner: %s",
			   (unsigned int)st.st_uid, strerror(-r)) :
		       0;
}

/* What is not there needs no rule. */
static unsigned int open_paths(const char *const *paths, size_t n,
			       enum confine_rights rights,
			       struct confine_path *ret)
{
	unsigned int nr = 0;

	for (size_t i = 0; i < n; i++) {
		int fd = open(paths[i], O_PATH | O_CLOEXEC);

		if (fd >= 0)
			ret[nr++] = (struct confine_path){ fd, rights };
	}
	return nr;
}

int repo_confine(int dir, char *ret_why)
{
	struct confine_path paths[1 + ARRAY_SIZE(readable) +
				  ARRAY_SIZE(writable)] = { { dir,
							      CONFINE_ALL } };
	unsigned int nr = 1;
	int r;

	nr += open_paths(readable, ARRAY_SIZE(readable), CONFINE_READ,
			 paths + nr);
	nr += open_paths(writable, ARRAY_SIZE(writable), CONFINE_ALL,
			 paths + nr);
	r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
	if (r == 0)
		r = confine_paths(paths, nr);
	for (unsigned int i = 1; i < nr; i++)
		(void)close(paths[i].fd);
	return r < 0 ? why(ret_why, r, "giving up rights: %s", strerror(-r)) :
		       0;
}

void repo_stand_back(void)
{
	(void)setpriority(PRIO_PROCESS, 0, NICE);
	(void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_LOWEST);
}
