/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stack.h - what the parts of the stack know of each other: stack*.c, disk.c,
 * layer.c, extents.c and written.c.  Everybody else includes disk.h.
 *
 * The disks of a stack stand in one array, bottom first: what is below a disk
 * comes before it, and a left sibling before the right one.  A lane has one
 * channel per disk, in the same order.
 */
#ifndef XENDISK_STACK_H
#define XENDISK_STACK_H

#include <pthread.h>

#include "common/expr.h"
#include "common/stamp.h"
#include "common/util.h"
#include "worker/disk.h"
#include "worker/module.h"
#include "worker/pause.h"

struct host_disk {
	struct xd_disk disk; /* first: what the backend sees */
	struct stack *stack;
	struct layer *layer;
	const struct xd_param *position; /* where it stands; NULL: the root */
	const struct host_disk *left; /* its left sibling, or NULL */
	struct xd_disk **below;
	bool is_open;
	bool is_active;
	bool is_temporary; /* a file that is emptied after the guest */
	uint64_t next_size; /* as resize() said; 0: it has not grown */
	char *identity; /* xd_identify() */
	char *notes; /* xd_note(): lines */
	struct msg_changed changed; /* xd_changed(); under now_lock */
	bool is_changed; /* ... was called */
};

struct stack {
	struct modules *modules;
	struct layer *root; /* with disk(...) where it was given */
	struct services *services;
	struct pause pause;
	struct stack_policy policy;
	struct xd_limits limits;
	char why[MSG_TEXT_MAX]; /* the sentence that xd_error() said last */
	struct stamp_file *stamps; /* NULL: none is wanted */
	const char *state_dir; /* or NULL; while it is being opened */
	pthread_mutex_t now_lock; /* held while the broker is told */
	unsigned int nr_disks;
	struct host_disk disks[EXPR_MAX_LAYERS];
};

struct host_channel {
	struct xd_channel ch; /* first: what the backend sees */
	struct stack_lane *lane;
	const struct host_channel *above; /* NULL: the top */
	struct xd_channel **below;
	bool is_open;
	bool is_paused; /* xd_paused() */
	bool stamped; /* the times of its writes are noted (written.h) */
};

/* All channels of one lane, and what they share. */
struct stack_lane {
	struct stack *stack;
	struct engine *engine;
	struct xd_request *done_first, *done_last; /* completed, done() due */
	struct xd_request *spare; /* children that are free */
	struct child_block *blocks; /* where all children are */
	struct stamp *stamp; /* or NULL */
	bool has_written; /* to where a channel is stamped */
	bool unkicked; /* something was submitted since the last kick */
	struct host_channel channels[EXPR_MAX_LAYERS];
};

static inline struct host_disk *host_disk_of(struct xd_disk *disk)
{
	return container_of(disk, struct host_disk, disk);
}

static inline struct host_channel *host_channel_of(struct xd_channel *ch)
{
	return container_of(ch, struct host_channel, ch);
}

/* disk.c: gives back the memory of a lane's children. */
void disk_free_children(struct stack_lane *lane);

/* extents.c: an XD_EXTENTS, from when a layer gets it until it is completed
 * without an error.  sector: the layer's. */
void extents_begin(struct xd_request *req);
bool extents_add(struct xd_request *req, uint32_t sector, uint64_t length,
		 uint32_t flags);
void extents_end(struct xd_request *req);

/* layer.c: what a disk has been told to remember. */
void layer_forget(struct host_disk *hd);

#endif
