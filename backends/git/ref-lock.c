/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ref-lock.c - locks of references, and those that a dead process has left.
 *
 * Theory of operation
 *
 * Who dies while a reference is locked leaves the lock's file behind, and git never
 * removes one by itself.  The committer may be killed at any moment, and its disk
 * must go on, so locks that are older than anybody's are removed.  That takes a minute,
 * in which a guest's snapshots wait.  So a committer writes down which file its lock
 * is, in one that outlives it: the next finds the same file and knows that its owner
 * is dead.  A file is told by its number and the time when it was made, since numbers
 * are used again; and when the lock is given back that is written down as well, for
 * the clock of such times is coarse.
 *
 * Nothing of this is synced, there is a moment between making a lock and writing it
 * down, and there are file systems that do not tell when a file was made: then its age
 * decides, as it does for whoever has no such file.
 */
#include "config.h"

#include "ref-lock.h"

#include <fcntl.h>
#include <git2.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "commit-points.h"
#include "common/util.h"
#include "refs.h"
#include "repo.h"

#define RETRY_NS 20000000 /* between two looks at a lock */

/* Which file it is; all of the note. */
struct note {
	uint64_t device, inode;
	int64_t made_s;
	uint32_t made_ns;
	uint32_t reserved; /* 0 */
	char name[REF_NAME_MAX]; /* of the reference; padded with NULs */
};

static _Thread_local int note_file = -1;

void ref_lock_note_in(int fd)
{
	note_file = fd;
}

static char *path_of_lock(git_repository *repo, const char *name)
{
	return xasprintf("%s%s.lock", git_repository_commondir(repo), name);
}

/* --- What was left -------------------------------------------------------------- */

/* False: the file system does not tell. */
static bool note_of(const char *path, const char *name, struct note *ret)
{
	struct statx st;

	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW,
		  STATX_TYPE | STATX_INO | STATX_BTIME, &st) < 0 ||
	    !S_ISREG(st.stx_mode) || !(st.stx_mask & STATX_BTIME) ||
	    strlen(name) >= sizeof(ret->name))
		return false;
	memset(ret, 0, sizeof(*ret));
	ret->device = (uint64_t)st.stx_dev_major << 32 | st.stx_dev_minor;
	ret->inode = st.stx_ino;
	ret->made_s = st.stx_btime.tv_sec;
	ret->made_ns = st.stx_btime.tv_nsec;
	memcpy(ret->name, name, strlen(name));
	return true;
}

/* A note that could not be written is as none. */
static void write_note(git_repository *repo, const char *name)
{
	cleanup_free char *path = NULL;
	struct note note;

	if (note_file < 0)
		return;
	path = path_of_lock(repo, name);
	if (path && note_of(path, name, &note))
		(void)!pwrite(note_file, &note, sizeof(note), 0);
}

void ref_lock_over(void)
{
	static const uint64_t none[2]; /* device and inode */

	if (note_file >= 0)
		(void)!pwrite(note_file, none, sizeof(none), 0);
}

static bool is_noted(const char *path, const char *name)
{
	struct note then, now;

	return note_file >= 0 &&
	       pread(note_file, &then, sizeof(then), 0) == sizeof(then) &&
	       note_of(path, name, &now) &&
	       memcmp(&then, &now, sizeof(then)) == 0;
}

static bool is_old(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
	       time(NULL) - st.st_mtime >= REF_LOCK_STALE_S;
}

/* Was the lock left by somebody dead? */
static void remove_left(git_repository *repo, const char *name)
{
	cleanup_free char *path = path_of_lock(repo, name);

	if (path && (is_noted(path, name) || is_old(path)))
		(void)unlink(path);
}

/* --- Locking -------------------------------------------------------------------- */

/* The folder of a reference's file, to be freed; NULL: no memory. */
static char *folder_of(git_repository *repo, const char *name)
{
	char *path = xasprintf("%s%s", git_repository_commondir(repo), name);

	if (path)
		*strrchr(path, '/') = '\0';
	return path;
}

/* Made here and not by libgit2, which does not tell why it could not. */
static int make_folder(git_repository *repo, const char *name, char *ret_why)
{
	cleanup_free char *folder = folder_of(repo, name);
	struct stat st;
	int r = -ENOMEM;

	if (folder && lstat(folder, &st) == 0)
		return 0;
	if (folder)
		r = make_dirs(folder, 0777);
	return r < 0 ? why(ret_why, r, "%s: its folder: %s", name,
			   strerror(-r)) :
		       0;
}

/* git pack-refs removes folders that have become empty, maybe between our making
 * one and the lock in it. */
static bool is_folder_gone(int r, git_repository *repo, const char *name)
{
	const git_error *e = git_error_last();
	cleanup_free char *folder = NULL;
	struct stat st;

	if (r != GIT_ERROR || !e || e->klass != GIT_ERROR_OS)
		return false;
	folder = folder_of(repo, name);
	return folder && lstat(folder, &st) < 0 && errno == ENOENT;
}

int ref_lock(git_transaction *tx, git_repository *repo, const char *name,
	     char *ret_why)
{
	static const struct timespec pause = { .tv_nsec = RETRY_NS };
	uint64_t end = now_ns() + REF_LOCK_WAIT_S * 1000000000ull;
	int r = make_folder(repo, name, ret_why);

	if (r < 0)
		return r;
	for (;;) {
		r = git_transaction_lock_ref(tx, name);
		if ((r != GIT_ELOCKED && !is_folder_gone(r, repo, name)) ||
		    now_ns() >= end)
			break;
		remove_left(repo, name);
		(void)nanosleep(&pause, NULL);
	}
	if (r == 0) {
		write_note(repo, name);
		COMMIT_POINT(ref_locked);
	}
	if (r == GIT_ELOCKED)
		return why(ret_why, -EBUSY,
			   "%s: it is locked by another process", name);
	return r < 0 ? repo_why(ret_why, -EIO, name, "") : 0;
}
