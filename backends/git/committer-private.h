/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * committer-private.h - one committer, between committer.c (who is asked),
 * commit.c (who makes commits), and committer-objects.c.
 */
#ifndef XENDISK_GIT_COMMITTER_PRIVATE_H
#define XENDISK_GIT_COMMITTER_PRIVATE_H

#include <pthread.h>

#include "committer.h"
#include "layer-commit.h"
#include "retention.h"

/* COMMIT and RELEASE that wait: more than there are layers. */
#define COMMITTER_JOBS 16u

/* COMMIT or RELEASE. */
struct commit_job {
	struct commit_job *next;
	union cm_any msg;
	int data, map; /* COMMIT: the layer; else -1 */
};

/* What the next commit stands on. */
struct commit_chain {
	char uuid[CM_UUID_MAX];
	uint8_t uuid_bytes[16];
	char pins[REF_NAME_MAX]; /* pin_folder() */
	uint64_t generation;
	uint8_t base[OID_BYTES];
	uint8_t head[OID_BYTES];
};

/* A commit that is in packs, which have a ".keep", while it is not known whether a
 * reference leads to it. */
struct commit_made {
	bool is; /* there is one */
	struct cm_commit ask; /* what it is the answer to, */
	struct commit_chain chain; /* on top of that */
	struct layer_result result; /* its packs are to be freed */
};

struct committer {
	int sock;
	int repo_dir;
	int pack_dir; /* objects/pack */
	int lock_file; /* commit.lock; -1: read-only */
	/* The thread that is asked has the first, the one that makes commits the
	 * other; NULL: read-only. */
	struct git_repository *repo, *commit_repo;

	/* Since OPEN; do not change any more. */
	bool opened, readonly, store_only;
	char branch[BRANCH_MAX];
	struct keep keep;
	uint32_t chunk; /* bytes */

	/* The thread that makes commits, from STAND on. */
	bool running;
	pthread_t thread;
	struct commit_chain chain; /* its own; STAND sets it while it is idle */
	struct commit_made made; /* its own */
	bool locked; /* it has lock_file */
	bool no_git; /* there is no `git` to run */
	unsigned int packs_again; /* combining them has failed: when to again */

	pthread_mutex_t lock; /* of all below */
	pthread_cond_t news;
	struct commit_job *first, *last;
	unsigned int nr; /* with the one at hand */
	bool closing; /* no more will come */
};

/* --- committer.c -------------------------------------------------------------- */

void committer_fail(const struct committer *c, uint32_t seq, int err,
		    const char *text);

/* --- committer-objects.c ------------------------------------------------------ */

/* Any thread.  PACK messages: all packs, or those of that name; one that is gone
 * meanwhile is left out.  -errno: the worker is gone. */
int committer_send_packs(const struct committer *c, uint32_t seq,
			 const char (*names)[CM_PACK_NAME], unsigned int nr);
/* Answers OBJECT. */
void committer_object(const struct committer *c, const struct cm_object *ask);
/* Combines packs when there are many, by `git repack`; as long as it takes. */
void committer_consolidate(struct committer *c);

/* --- commit.c ----------------------------------------------------------------- */

/* STAND; also starts the thread.  The text is checked; -EBUSY: commits are being
 * made. */
int commit_stand(struct committer *c, const struct cm_stand *stand,
		 char *ret_why);
/* GIVE_UP. */
int commit_give_up(struct committer *c, const char *uuid, char *ret_why);
/* Takes the job, whatever comes of it. */
void commit_ask(struct committer *c, const union cm_any *msg, const int *fds);
/* Waits until all has been made. */
void commit_end(struct committer *c);

#endif
