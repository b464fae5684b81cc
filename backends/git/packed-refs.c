/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * libgit2 reads packed-refs, then locks it, and then writes what it has read, but for
 * the reference that it removes.  What `git pack-refs` has put there in between, and
 * has removed from where it was before, is gone then: branches, too.  So this file is
 * only written here, as git does it: it is locked (packed-refs.lock), then read, and
 * written anew (packed-refs.new) where it has the reference.  It stays locked until the
 * loose reference is removed, which could be packed meanwhile.  libgit2 does not find
 * the reference in the file, and leaves it alone.
 *
 * A lock of ours has our mark in it, and is locked by flock() before that is written:
 * so one with a mark that nobody has locked is a dead process's, and is removed at once.
 * Others are removed when they are old, and nobody has written a new file for as long.
 */
#include "config.h"

#include "packed-refs.h"

#include <fcntl.h>
#include <git2.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "commit-points.h"
#include "common/util.h"
#include "pack-private.h"
#include "ref-lock.h"
#include "refs.h"

#define NAME	 "packed-refs"
#define LOCK	 NAME ".lock"
#define NEW	 NAME ".new"
#define RETRY_NS 20000000 /* between two looks at a lock */
#define MOST	 (1ull << 30) /* bytes: see repo-files.c */
#define ANY_FILE (O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)

/* --- What is in it ---------------------------------------------------------------- */

struct text {
	char *bytes; /* to be freed */
	size_t n;
	mode_t mode;
};

/* One that is not there is empty. */
static int read_file(int dir, struct text *ret)
{
	cleanup_close int fd = openat(dir, NAME, O_RDONLY | ANY_FILE);
	struct stat st;
	int r;

	*ret = (struct text){ .n = 0 };
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > MOST)
		return -EBADMSG;
	ret->n = (size_t)st.st_size;
	ret->mode = st.st_mode & 0777;
	ret->bytes = malloc(ret->n + 1);
	r = ret->bytes ? pread_all(fd, ret->bytes, ret->n, 0) : -ENOMEM;
	if (r < 0)
		free(TAKE_PTR(ret->bytes));
	return r;
}

/* "ID NAME", maybe without a newline behind it. */
static bool is_of(const char *line, size_t n, const char *name)
{
	size_t length = strlen(name);

	if (n > 0 && line[n - 1] == '\n')
		n--;
	return n == OID_HEX + 1 + length && line[OID_HEX] == ' ' &&
	       memcmp(line + OID_HEX + 1, name, length) == 0;
}

/* With "^ID", what it is a tag of.  False: it is not there. */
static bool leave_out(struct text *text, const char *name)
{
	char *to = text->bytes, *end = text->bytes + text->n, *next;
	bool drop = false, any = false;

	for (char *line = to; line < end; line = next) {
		next = memchr(line, '\n', (size_t)(end - line));
		next = next ? next + 1 : end;
		if (*line != '^')
			drop = is_of(line, (size_t)(next - line), name);
		any |= drop;
		if (drop)
			continue;
		memmove(to, line, (size_t)(next - line));
		to += next - line;
	}
	text->n = (size_t)(to - text->bytes);
	return any;
}

/* Whose name it is has the lock, so a file that is there was left by somebody dead. */
static int write_file(int dir, const struct text *text)
{
	cleanup_close int fd = -1;
	int r;

	(void)unlinkat(dir, NEW, 0);
	fd = openat(dir, NEW, O_WRONLY | O_CREAT | O_EXCL | ANY_FILE, 0600);
	if (fd < 0)
		return -errno;
	r = pwrite_all(fd, text->bytes, text->n, 0);
	if (r == 0 && (fchmod(fd, text->mode) < 0 || fsync(fd) < 0 ||
		       renameat(dir, NEW, dir, NAME) < 0))
		r = -errno;
	if (r < 0)
		(void)unlinkat(dir, NEW, 0);
	else if (fsync(dir) < 0)
		r = -errno;
	return r;
}

/* --- Its lock --------------------------------------------------------------------- */

static bool is_old(const struct stat *st)
{
	return time(NULL) - st->st_mtime >= REF_LOCK_STALE_S;
}

/* Nobody has been at it for so long that he must have died. */
static bool is_idle(int dir, int fd)
{
	struct stat st, written;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && is_old(&st) &&
	       (fstatat(dir, NEW, &written, AT_SYMLINK_NOFOLLOW) < 0 ||
		is_old(&written));
}

/* Ours, of somebody who lives no more?  It stays locked, by us, until fd is closed. */
static bool is_left(int fd)
{
	char mark[OURS_MAX], here[OURS_MAX];
	size_t n;

	keep_prefix(mark);
	n = strlen(mark);
	return pread(fd, here, n, 0) == (ssize_t)n &&
	       memcmp(here, mark, n) == 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
}

/* Is it still the one that has the name? */
static bool is_there(int dir, int fd)
{
	struct stat here, there;

	return fstat(fd, &here) == 0 &&
	       fstatat(dir, LOCK, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	       here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

bool packed_refs_clean(int dir)
{
	cleanup_close int fd = openat(dir, LOCK, O_RDONLY | ANY_FILE);

	return fd >= 0 && (is_left(fd) || is_idle(dir, fd)) &&
	       is_there(dir, fd) && unlinkat(dir, LOCK, 0) == 0;
}

/* Returns the lock. */
static int try_lock(int dir)
{
	cleanup_close int fd =
		openat(dir, LOCK, O_WRONLY | O_CREAT | O_EXCL | ANY_FILE, 0666);
	char mark[OURS_MAX];

	if (fd < 0)
		return -errno;
	keep_prefix(mark);
	/* Without these two it is judged by its age. */
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		(void)pwrite_all(fd, mark, strlen(mark), 0);
	return TAKE_FD(fd);
}

/* --- Both ------------------------------------------------------------------------- */

static int fails(char *ret_why, int err, const char *name)
{
	return why(ret_why, err, "%s, in " NAME ": %s", name, strerror(-err));
}

/* Takes it out of the file.  1: it was not there. */
static int forget(int dir, const char *name, bool only_look)
{
	struct text text;
	int r = read_file(dir, &text);

	if (r == 0 && !leave_out(&text, name))
		r = 1;
	if (r == 0 && !only_look)
		r = write_file(dir, &text);
	free(text.bytes);
	return r;
}

/* 0: ret->lock is ours; or nobody's matter, since it is not in the file. */
static int lock(struct packed_refs *ret, const char *name, char *ret_why)
{
	static const struct timespec pause = { .tv_nsec = RETRY_NS };
	uint64_t end = now_ns() + REF_LOCK_WAIT_S * 1000000000ull;

	while ((ret->lock = try_lock(ret->dir)) < 0) {
		int r = ret->lock;

		if (r != -EEXIST)
			return fails(ret_why, r, name);
		if (packed_refs_clean(ret->dir))
			continue;
		r = forget(ret->dir, name, true);
		if (r != 0)
			return r > 0 ? 0 : fails(ret_why, r, name);
		if (now_ns() >= end)
			return why(ret_why, -EBUSY,
				   NAME ": it is locked by another process");
		(void)nanosleep(&pause, NULL);
	}
	return 0;
}

int packed_refs_forget(struct packed_refs *ret, struct git_repository *repo,
		       const char *name, char *ret_why)
{
	int r;

	ret->dir = open(git_repository_commondir(repo),
			O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ret->dir < 0)
		return fails(ret_why, -errno, name);
	r = lock(ret, name, ret_why);
	if (r < 0 || ret->lock < 0)
		return r;
	COMMIT_POINT(packed_locked);
	r = forget(ret->dir, name, false);
	return r < 0 ? fails(ret_why, r, name) : 0;
}

void packed_refs_let_go(struct packed_refs *packed)
{
	/* Removed first: who finds it there without flock() takes it for a dead one's. */
	if (packed->lock >= 0) {
		(void)unlinkat(packed->dir, LOCK, 0);
		(void)close(TAKE_FD(packed->lock));
	}
	if (packed->dir >= 0)
		(void)close(TAKE_FD(packed->dir));
}
