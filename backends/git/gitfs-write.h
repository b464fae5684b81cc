/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gitfs-write.h - what it takes to write to a disk that is made of a tree: the
 * overlay, and the companion that makes a commit of it.  Main thread, but for the
 * functions of the data path.
 */
#ifndef XENDISK_GIT_GITFS_WRITE_H
#define XENDISK_GIT_GITFS_WRITE_H

#include "fat-commit.h"
#include "gitfs.h"
#include "live.h"
#include "overlay.h"
#include "repo.h"

struct write_back {
	struct gitfs *gitfs;
	struct overlay *overlay;
	struct overlay_facts facts; /* what it stands on */
	struct layer *layer; /* the active one, which is the only one; NULL: no
			      * guest is there */
	struct live live; /* what it has, for the next worker */
	bool found; /* an overlay was there */
	bool settled; /* while opening: all of it is in git, and it is locked */
	int state; /* its folder */
	int sock; /* of the companion; -1: it is gone, or hangs */
	bool ready; /* the disk is open; until then nothing may take long */
	uint32_t seq; /* of the last question */
	uint64_t since; /* ns: when the commit was asked for that is being made */
	char repo[OVERLAY_REPO_MAX]; /* its path */
	struct fc_open open;
	uint64_t snapshots; /* so far: the last one's id */
	struct fc_answer last; /* what became of it */
};

/* --- Opening, in this order ------------------------------------------------------- */

/* Folder, companion, and what is in the overlay; dir is the repository.  On failure
 * xd_error() has said why, and write_back_free() is the caller's in any case. */
int write_back_new(struct write_back **ret, struct gitfs *gitfs, int dir);
/*
 * Which commit is to be laid out.  again: for a worker that takes another's place,
 * which stays with what that one had.  Else what was left from the last time is
 * committed first, if it can be.
 */
int write_back_base(struct write_back *w, int dir, bool again,
		    struct revision *ret);
/* That is laid out now, and takes `size` bytes. */
int write_back_ready(struct write_back *w, const struct revision *base,
		     uint64_t size);
void write_back_free(struct write_back *w); /* NULL is fine */

/* --- The guest ---------------------------------------------------------------------- */

int write_back_activate(struct write_back *w, bool recover);
/* Makes the commit, if it can. */
int write_back_deactivate(struct write_back *w);
int write_back_control(struct write_back *w, const char *verb, const char *text,
		       char *ret_text, size_t size);

/* --- Data: any thread that may block ------------------------------------------------- */

/* How many bytes from offset on are alike; *ret_written: they are in the overlay. */
uint64_t write_back_run(const struct write_back *w, uint64_t offset, uint64_t n,
			bool *ret_written);
int write_back_read(const struct write_back *w, uint64_t offset, void *buf,
		    size_t n);
/* WRITE or FLUSH. */
int write_back_change(struct write_back *w, const struct xd_request *req);

/* --- gitfs-io.c ----------------------------------------------------------------------- */

/* No write is in hand when it returns, and none begins before gitfs_release(). */
void gitfs_hold(struct gitfs *gitfs);
void gitfs_release(struct gitfs *gitfs);

#endif
