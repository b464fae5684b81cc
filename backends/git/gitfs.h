/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gitfs.h - a tree of a git repository as a disk.  gitfs.c opens it, gitfs-io.c
 * serves it.
 */
#ifndef XENDISK_GIT_GITFS_H
#define XENDISK_GIT_GITFS_H

#include <pthread.h>
#include <stdatomic.h>

#include "tree-disk.h"
#include "xendisk-backend.h"

#define GITFS_LANES 8u

struct gitfs_job;
struct write_back;

/* Threads that may block.  Those for large files have nothing else to do, so
 * that nobody waits for a large file but who reads it. */
enum gitfs_queue {
	GITFS_SMALL,
	GITFS_LARGE,
	GITFS_CHANGES, /* writes and flushes, which gitfs_hold() stops */
	GITFS_QUEUES
};
#define GITFS_THREADS 5u

struct gitfs_thread {
	struct gitfs *gitfs;
	enum gitfs_queue queue;
	pthread_t thread;
	struct reader *reader;
	struct streams *streams; /* LARGE */
};

/* disk->data.  Tree, layout and objects do not change once it is open. */
struct gitfs {
	struct xd_disk *disk;
	struct tree_disk laid;
	struct lfs *lfs;
	struct write_back *write; /* NULL: it can only be read */
	uint64_t charged; /* bytes taken by xd_budget() */
	int wake[GITFS_LANES]; /* eventfds: an isolated worker makes none */

	/* gitfs-io.c, while a channel is open */
	unsigned int channels;
	struct gitfs_thread threads[GITFS_THREADS];
	unsigned int nr_threads;
	pthread_mutex_t lock; /* of all below, and of finished jobs */
	pthread_cond_t news;
	struct gitfs_job *first[GITFS_QUEUES], *last[GITFS_QUEUES];
	unsigned int changing; /* changes that are in hand */
	bool held; /* none begins */
	atomic_bool stop;
};

/* As the parameters have it. */
enum layout_partition gitfs_partition(const struct xd_disk *disk);

int gitfs_channel_open(struct xd_channel *ch);
void gitfs_channel_close(struct xd_channel *ch);
void gitfs_submit(struct xd_channel *ch, struct xd_request *req);

#endif
