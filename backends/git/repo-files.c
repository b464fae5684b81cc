/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "repo-files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/util.h"

#define LOOSE_MOST 4096u /* bytes of a reference: an id, or another's name */
#define DEPTH_MOST 64u
#define ANY_SIZE   ((uint64_t)INT64_MAX)

/* Bytes; 0: it must not be there. */
static const struct {
	const char *name;
	uint64_t most;
	const char *fault; /* of its being there */
} parts[] = {
	{ "HEAD", LOOSE_MOST, NULL },
	{ "config", 1u << 20, NULL },
	{ "packed-refs", 1u << 30, NULL },
	{ "commondir", 0,
	  "it is a working tree of another repository (commondir): "
	  "name that one" },
	{ "objects/info/alternates", 0,
	  "it borrows objects of another repository (objects/info/alternates): "
	  "git repack -ad, then remove that file" },
};

/* What git reads when it packs, gets or sends something, and newer versions of libgit2
 * at once.  A link is followed, for it leads to nothing that would come to a guest. */
static const char *const others[] = {
	"shallow",
	"info/grafts",
	"info/attributes",
	"config.worktree",
};

static int check_file(const struct stat *st, const char *name, uint64_t most,
		      char *ret_why)
{
	if (!S_ISREG(st->st_mode))
		return why(ret_why, -EBADMSG, "%.300s is no plain file", name);
	if ((uint64_t)st->st_size <= most)
		return 0;
	return why(ret_why, -EFBIG, "%.300s has %llu bytes, which cannot be",
		   name, (unsigned long long)st->st_size);
}

static int check_parts(int dir, char *ret_why)
{
	struct stat st;
	int r = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(parts) && r == 0; i++) {
		const char *name = parts[i].name;

		if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
			if (errno != ENOENT)
				r = why(ret_why, -errno, "%s: %s", name,
					strerror(errno));
		} else if (parts[i].fault) {
			r = why(ret_why, -EXDEV, "%s", parts[i].fault);
		} else {
			r = check_file(&st, name, parts[i].most, ret_why);
		}
	}
	return r;
}

static int check_others(int dir, char *ret_why)
{
	struct stat st;

	for (unsigned int i = 0; i < ARRAY_SIZE(others); i++)
		if (fstatat(dir, others[i], &st, 0) == 0 &&
		    !S_ISREG(st.st_mode))
			return why(ret_why, -EBADMSG, "%s is no plain file",
				   others[i]);
	return 0;
}

/* --- Folders ------------------------------------------------------------------ */

/* Where we are: the name of a file, for messages. */
struct walk {
	char name[PATH_MAX];
	uint64_t most; /* bytes of a file */
	unsigned int depth;
};

static int check_folder(struct walk *walk, int at, const char *entry,
			char *ret_why);

/* What goes away meanwhile is not there.  type: as in struct dirent; there may be many
 * loose objects, and no more has to be known of them. */
static int check_entry(struct walk *walk, int at, const char *entry,
		       unsigned char type, char *ret_why)
{
	struct stat st;

	if (type == DT_REG && walk->most == ANY_SIZE)
		return 0;
	if (fstatat(at, entry, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (S_ISDIR(st.st_mode))
		return check_folder(walk, at, entry, ret_why);
	return check_file(&st, walk->name, walk->most, ret_why);
}

static int check_entries(struct walk *walk, DIR *dir, char *ret_why)
{
	size_t n = strlen(walk->name);
	const struct dirent *entry;
	int r = 0;

	while (r == 0 && (entry = readdir(dir))) {
		const char *name = entry->d_name;
		size_t room = sizeof(walk->name) - n;

		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
			continue;
		if ((size_t)snprintf(walk->name + n, room, "/%s", name) >= room)
			r = why(ret_why, -ENAMETOOLONG,
				"%.300s...: the name is too long", walk->name);
		else
			r = check_entry(walk, dirfd(dir), name, entry->d_type,
					ret_why);
		walk->name[n] = '\0';
	}
	return r;
}

static int check_folder(struct walk *walk, int at, const char *entry,
			char *ret_why)
{
	int fd, r;
	DIR *dir;

	if (walk->depth == DEPTH_MOST)
		return why(ret_why, -ELOOP, "%.300s: too many folders",
			   walk->name);
	fd = openat(at, entry, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir && fd >= 0)
		(void)close(fd);
	if (!dir) /* libgit2 cannot read it, either */
		return 0;
	walk->depth++;
	r = check_entries(walk, dir, ret_why);
	walk->depth--;
	(void)closedir(dir);
	return r;
}

static int check_tree(int dir, const char *name, uint64_t most, char *ret_why)
{
	struct walk walk = { .most = most };

	(void)snprintf(walk.name, sizeof(walk.name), "%s", name);
	return check_entry(&walk, dir, name, DT_UNKNOWN, ret_why);
}

int repo_check_files(int dir, char *ret_why)
{
	int r = check_parts(dir, ret_why);

	if (r == 0)
		r = check_others(dir, ret_why);
	if (r == 0)
		r = check_tree(dir, "refs", LOOSE_MOST, ret_why);
	if (r == 0)
		r = check_tree(dir, "logs", ANY_SIZE, ret_why);
	return r < 0 ? r : check_tree(dir, "objects", ANY_SIZE, ret_why);
}

/* The folders on the way to it. */
static int check_way(int dir, char *name, char *ret_why)
{
	struct stat st;

	for (char *p = strchr(name, '/'); p; p = strchr(p + 1, '/')) {
		int r;

		*p = '\0';
		r = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW);
		if (r == 0 && !S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
			return why(ret_why, -EBADMSG, "%.300s is no folder",
				   name);
		*p = '/';
	}
	return 0;
}

/* A reference, or all that begin with it, and what git notes of their changes. */
static int check_place(int dir, char name[PATH_MAX], uint64_t most,
		       char *ret_why)
{
	int r = check_way(dir, name, ret_why);

	return r < 0 ? r : check_tree(dir, name, most, ret_why);
}

int repo_check_refs(const char *base, const char *name, char *ret_why)
{
	cleanup_close int dir = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char folder[PATH_MAX], log[PATH_MAX];
	size_t n = strlen(name);
	int r;

	if (dir < 0 || n + sizeof("logs/") > sizeof(folder))
		return 0; /* libgit2 will say so */
	memcpy(folder, name, n + 1);
	if (n > 0 && folder[n - 1] == '/')
		folder[n - 1] = '\0';
	(void)snprintf(log, sizeof(log), "logs/%.*s",
		       (int)(sizeof(log) - sizeof("logs/")), folder);
	r = check_place(dir, folder, LOOSE_MOST, ret_why);
	if (r == 0)
		r = check_place(dir, log, ANY_SIZE, ret_why);
	return r < 0 ? r : check_tree(dir, "logs/HEAD", ANY_SIZE, ret_why);
}
