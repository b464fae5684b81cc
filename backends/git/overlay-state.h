/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-state.h - an open overlay: for overlay.c and overlay-lock.c only.
 */
#ifndef XENDISK_GIT_OVERLAY_STATE_H
#define XENDISK_GIT_OVERLAY_STATE_H

#include "overlay-files.h"
#include "overlay-layer.h"
#include "overlay-meta.h"

struct overlay {
	struct overlay_files files;
	char repo[OVERLAY_REPO_MAX];
	char branch[OVERLAY_BRANCH_MAX];
	char holder[OVERLAY_NAME_MAX];
	/* Locked: */
	struct meta meta;
	int meta_err; /* fdatasync() has failed: either meta may be found */
	/* Of the first fdatasync() of ours that has failed since the folder was
	 * opened: no flush succeeds any more, also of those that lock it later. */
	int sync_err;
	struct overlay_facts facts; /* of meta */
	/* NULL: the slot is free.  Not NULL, and free by meta: dropped. */
	struct layer *layer[OVERLAY_SLOTS];
	pthread_mutex_t grow_lock; /* of growing */
	struct layer *growing;
	char repaired[WHY_MAX];
};

/* --- overlay-lock.c ------------------------------------------------------------- */

/* -ENODATA: nothing is there yet. */
int overlay_find_meta(const struct overlay *overlay, struct meta *ret,
		      char *ret_why);
/* Durable before it is believed; grows meta's sequence. */
int overlay_store_meta(struct overlay *overlay, struct meta *meta,
		       char *ret_why);
/* Meta as overlay.h tells of it. */
struct overlay_facts overlay_facts_of(const struct meta *meta);
/* A new uuid, and these facts, if they are possible. */
int overlay_stand_on(struct meta *meta, const struct overlay_facts *facts,
		     char *ret_why);
/* An empty layer of the next generation. */
void overlay_make_active(struct meta *meta, unsigned int slot);
/* The layer that a slot is by meta, without what its map says. */
int overlay_new_layer(const struct overlay *overlay, const struct meta *meta,
		      unsigned int slot, struct layer **ret, char *ret_why);
/* All files have room for a disk of that size, durably; files_extend(). */
int overlay_extend_all(const struct overlay *overlay, uint64_t size,
		       char *ret_why);
/* What was written to the active layer is durable; a failed fdatasync() is remembered
 * (sync_err). */
int overlay_flush_active(struct overlay *overlay, char *ret_why);

#endif
