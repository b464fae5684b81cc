/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What writers left behind that are dead: see pack-publish.c.
 */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "common/util.h"
#include "pack-private.h"

#define KEEP ".keep"

struct cleaner {
	int dir;
	char tmp[OURS_MAX], keep[OURS_MAX]; /* how ours begin */
	bool look; /* only count them */
	unsigned int removed;
	int err; /* the first one */
	char *why;
};

static void removal(struct cleaner *cleaner, const char *name)
{
	if (cleaner->look || unlinkat(cleaner->dir, name, 0) == 0)
		cleaner->removed++;
	else if (errno != ENOENT && cleaner->err == 0)
		cleaner->err = file_error(cleaner->why, -errno, name,
					  "cannot be removed");
}

/* A regular file that nobody has locked, open and now locked; or -1. */
static int take_dead(const struct cleaner *cleaner, const char *name)
{
	int flags = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	cleanup_close int fd = openat(cleaner->dir, name, O_RDWR | flags);
	struct stat st;

	/* NFS wants the first; the second is enough elsewhere. */
	if (fd < 0)
		fd = openat(cleaner->dir, name, O_RDONLY | flags);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -1;
	return TAKE_FD(fd);
}

static bool is_tmp(const struct cleaner *cleaner, const char *name)
{
	size_t n = strlen(cleaner->tmp);

	return strncmp(name, cleaner->tmp, n) == 0 && strlen(name + n) == 16 &&
	       strspn(name + n, "0123456789abcdef") == 16;
}

static void clean_tmp(struct cleaner *cleaner, const char *name)
{
	cleanup_close int fd = take_dead(cleaner, name);

	if (fd >= 0)
		removal(cleaner, name);
}

/* The length of NAME in NAME.keep, where that may be ours; else 0. */
static size_t kept_name(const char *name)
{
	size_t n = strlen(name);

	return n == PACK_NAME_MAX - 1 + strlen(KEEP) &&
			       strncmp(name, "pack-", 5) == 0 &&
			       strcmp(name + n - strlen(KEEP), KEEP) == 0 ?
		       n - strlen(KEEP) :
		       0;
}

static bool is_our_keep(const struct cleaner *cleaner, int fd)
{
	char line[KEEP_MAX];
	ssize_t n = pread(fd, line, sizeof(line), 0);
	size_t prefix = strlen(cleaner->keep);

	return n >= (ssize_t)prefix && memcmp(line, cleaner->keep, prefix) == 0;
}

/* A pack whose index did not get its name is none, and goes too. */
static void clean_keep(struct cleaner *cleaner, const char *name, size_t n)
{
	cleanup_close int fd = take_dead(cleaner, name);
	char path[PACK_NAME_MAX + 8];

	if (fd < 0 || !is_our_keep(cleaner, fd))
		return;
	(void)snprintf(path, sizeof(path), "%.*s.idx", (int)n, name);
	if (faccessat(cleaner->dir, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
	    errno == ENOENT) {
		(void)snprintf(path, sizeof(path), "%.*s.pack", (int)n, name);
		removal(cleaner, path);
	}
	removal(cleaner, name);
}

static int clean_all(struct cleaner *cleaner)
{
	int fd = openat(cleaner->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	if (!list) {
		int err = -errno;

		if (fd >= 0)
			(void)close(fd);
		return why(cleaner->why, err, "objects/pack: %s",
			   strerror(-err));
	}
	while (errno = 0, (entry = readdir(list))) {
		size_t n = kept_name(entry->d_name);

		if (is_tmp(cleaner, entry->d_name))
			clean_tmp(cleaner, entry->d_name);
		else if (n > 0)
			clean_keep(cleaner, entry->d_name, n);
	}
	if (errno != 0 && cleaner->err == 0)
		cleaner->err = why(cleaner->why, -errno, "objects/pack: %s",
				   strerror(errno));
	(void)closedir(list);
	return cleaner->err;
}

static int clean(int dir, bool look, unsigned int *ret_removed, char *ret_why)
{
	struct cleaner cleaner = { .dir = dir, .look = look, .why = ret_why };
	int r;

	tmp_prefix(cleaner.tmp);
	keep_prefix(cleaner.keep);
	r = clean_all(&cleaner);
	if (ret_removed)
		*ret_removed = cleaner.removed;
	return r;
}

int pack_clean(int dir, unsigned int *ret_removed, char *ret_why)
{
	return clean(dir, false, ret_removed, ret_why);
}

int pack_clean_look(int dir, unsigned int *ret_nr, char *ret_why)
{
	return clean(dir, true, ret_nr, ret_why);
}
