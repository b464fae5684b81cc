/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ref-lock.h - the lock of a reference, NAME.lock as git has it.  Any thread; one at
 * a time for a repository that is open.
 */
#ifndef XENDISK_GIT_REF_LOCK_H
#define XENDISK_GIT_REF_LOCK_H

struct git_repository; /* libgit2's */
struct git_transaction;

/*
 * Until the transaction ends.  -EBUSY: somebody has it locked, also after
 * REF_LOCK_WAIT_S of trying.  A lock that has been there for REF_LOCK_STALE_S was
 * left by somebody who died, since nobody holds one that long: it is removed.
 */
#define REF_LOCK_WAIT_S	 2
#define REF_LOCK_STALE_S 60
int ref_lock(struct git_transaction *tx, struct git_repository *repo,
	     const char *name, char *ret_why);

/*
 * From now on this thread writes to the file what it has locked, and a lock that the
 * file tells of is a dead process's: it is removed at once.  So nobody else uses the
 * file meanwhile (committers have it locked by flock(), which ends with the process; a
 * gitfs companion has one child at a time).  The descriptor stays the caller's; -1: no
 * more.
 */
void ref_lock_note_in(int fd);

/* The transaction has ended, and its lock with it: nothing is written down. */
void ref_lock_over(void);

#endif
