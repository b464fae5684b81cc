/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "worker/state-dir.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "common/msg.h"
#include "common/util.h"

static int say(char *ret_why, int err, const char *path, size_t length,
	       const char *what)
{
	return msg_why(ret_why, err, "%.*s: %s", (int)length, path, what);
}

/* Names that lead downwards and nowhere else. */
static bool is_folder(const char *folder)
{
	const char *p = folder;

	for (;;) {
		size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyz"
				     "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

		if (n == 0 || n > NAME_MAX || *p == '.')
			return false;
		p += n;
		if (*p == '\0')
			return true;
		if (*p++ != '/')
			return false;
	}
}

/* NULL, or what is wrong with it.  Whoever may write to the state directory
 * itself could put another folder in the place of ours. */
static const char *find_fault(int fd, mode_t others)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return strerror(errno);
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return "belongs to somebody else";
	if (st.st_mode & others)
		return others == 077 ? "is open to others: its mode must be "
				       "0700" :
				       "others may write to it";
	return NULL;
}

/* The next folder below; its name must last, too. */
static int descend(int dir, const char *name)
{
	int fd;

	if (mkdirat(dir, name, 0700) == 0) {
		if (fsync(dir) < 0)
			return -errno;
	} else if (errno != EEXIST) {
		return -errno;
	}
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		/* What a symbolic link is depends on the flags. */
		return errno == ELOOP ? -ENOTDIR : -errno;
	return fd;
}

static int open_top(const char *dir, char *ret_why)
{
	cleanup_close int fd = -1;
	const char *fault;
	int r = make_dirs(dir, 0755);

	if (r == 0)
		fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r == 0 && fd < 0)
		r = -errno;
	if (r < 0)
		return say(ret_why, r, dir, strlen(dir), strerror(-r));
	fault = find_fault(fd, 022);
	if (fault)
		return say(ret_why, -EPERM, dir, strlen(dir), fault);
	return TAKE_FD(fd);
}

int state_dir_open(const char *dir, const char *folder, char *ret_why)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, folder);
	size_t at = strlen(dir) + 1;
	cleanup_close int fd = -1;

	if (!is_folder(folder))
		return say(ret_why, -EINVAL, folder, strlen(folder),
			   "no name of a folder of state");
	if (!path)
		return say(ret_why, -ENOMEM, dir, strlen(dir), "no memory");
	fd = open_top(dir, ret_why);
	while (fd >= 0 && path[at]) {
		size_t end = at + strcspn(path + at, "/");
		cleanup_free char *name = strndup(path + at, end - at);
		int next = name ? descend(fd, name) : -ENOMEM;
		const char *fault;

		(void)close(fd);
		fd = next;
		if (next < 0)
			return say(ret_why, next, path, end,
				   next == -ENOTDIR ?
					   "is no folder, or a symbolic link" :
					   strerror(-next));
		fault = find_fault(fd, 077);
		if (fault)
			return say(ret_why, -EPERM, path, end, fault);
		at = end + (path[end] == '/');
	}
	return fd < 0 ? fd : TAKE_FD(fd);
}
