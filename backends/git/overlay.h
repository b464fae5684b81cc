/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay.h - what was written to a git disk and is in no commit yet: the state
 * folder of one writable disk.  See overlay.c for what is in it.
 *
 *   overlay_open()	any time, takes no lock: files are made and opened.  Needs
 *			the folder; all else works on descriptors, so also in a
 *			worker that is isolated.
 *   overlay_lock()	a guest comes: one writer; reads and repairs.
 *   overlay_unlock()	the guest is gone.
 *   overlay_close()
 *
 * Between lock and unlock there are layers: the active one, which is written to;
 * frozen ones, which wait to be committed, oldest first; clean ones, whose
 * commit is there and which are kept as a cache.  What a sector holds is in the
 * newest layer that has it, else in the commit `base`.
 *
 * Unless it says otherwise: one thread at a time (not always the same), it may
 * block for as long as a few fdatasync() take, errors are -errno and a sentence
 * in ret_why (WHY_MAX bytes) that names the file.  After an error nothing has
 * changed, and the call can be made again; but when fdatasync() of meta has
 * failed, all later changes fail with that error, until the overlay is locked
 * again: either state may then be the one that is found.  And when any fdatasync()
 * has failed here, no layer_flush() of the active layer succeeds any more, until
 * the folder is opened anew: nobody knows what was lost.
 */
#ifndef XENDISK_GIT_OVERLAY_H
#define XENDISK_GIT_OVERLAY_H

#include "odb.h" /* OID_BYTES */
#include "overlay-map.h"

#define OVERLAY_SLOTS	   8u
#define OVERLAY_MAX_FROZEN 4u
#define OVERLAY_BRANCH_MAX 256u /* with its NUL, as the others */
#define OVERLAY_REPO_MAX   4096u
#define OVERLAY_TEXT_MAX   1024u /* a message */
#define OVERLAY_NAME_MAX   128u

/* Whose overlay it is.  What is found must be of the same. */
struct overlay_of {
	const char *repo; /* real path */
	const char *branch;
	const char *holder; /* for others to read: "domain 3, xvdb" */
};

/* What it stands on. */
struct overlay_facts {
	uint64_t size; /* bytes, a multiple of 512; see overlay_grow() */
	uint64_t base_size; /* the disk's in the commit base; at most size */
	uint32_t chunk; /* bytes */
	uint8_t base[OID_BYTES]; /* all zero: none, all reads as zeroes */
	uint8_t head[OID_BYTES]; /* of the branch, as far as we know */
	uint64_t base_gen; /* generation of the layer that became base; 0: none */
	bool diverged; /* head is not on the branch, which somebody has moved */
	uint8_t uuid[16]; /* of this overlay; made by overlay_lock() */
};

/* What is to be said in the commit. */
struct snapshot_info {
	uint32_t kind; /* enum cm_kind, committer.h; only kept here */
	uint32_t consistency; /* enum consistency, refs.h; the same */
	int64_t time; /* Unix, UTC */
	uint64_t dirty; /* bytes the layer has; set by overlay_freeze() */
	char domain[OVERLAY_NAME_MAX];
	char message[OVERLAY_TEXT_MAX];
};

enum layer_state {
	LAYER_FREE, /* not a layer */
	LAYER_ACTIVE,
	LAYER_FROZEN,
	LAYER_CLEAN,
	LAYER_DROPPED, /* in memory only, until overlay_empty() */
};

struct overlay_layer {
	struct layer *layer;
	unsigned int slot; /* files "data<slot>", "map<slot>" */
	enum layer_state state;
	uint64_t generation; /* from 1; also the snapshot's id */
	/* Data and map, only for reading and without our lock: they may be sent
	 * to another process, for layer_open_frozen().  The overlay's. */
	int data_fd, map_fd;
	uint64_t size; /* bytes: the disk's when it was frozen */
	uint8_t commit[OID_BYTES]; /* CLEAN */
	struct snapshot_info info; /* FROZEN, CLEAN */
};

struct overlay;

/* --- Folder ---------------------------------------------------------------- */

/*
 * dir stays the caller's and may be closed.  *ret_found: there is something, and
 * these are its facts, as of now: another process may be changing them, so
 * overlay_lock() may find newer ones.  -EBADMSG: it is damaged; -EINVAL: it is
 * another disk's.
 */
int overlay_open(struct overlay **ret, int dir, const struct overlay_of *of,
		 bool *ret_found, struct overlay_facts *ret_facts,
		 char *ret_why);
void overlay_close(struct overlay *overlay); /* NULL is fine */

/*
 * Takes all locks, reads and repairs.  -EBUSY names who has them.  recover: a
 * worker was killed; waits until nothing that it had in flight can reach a file
 * any more.  facts: of a new overlay (uuid and base_gen are made here); or, of
 * one that is there, what the caller has prepared for: -ESTALE when its base is
 * another one by now (then *facts is what was found: prepare for that and try
 * again), -EINVAL when base_size or chunk contradict.  *facts is all of it then;
 * the disk has facts->size bytes.
 */
int overlay_lock(struct overlay *overlay, struct overlay_facts *facts,
		 bool recover, char *ret_why);
/* All writes have ended.  Flushes, notes that the end was orderly, and lets go,
 * also on error.  All layers are gone. */
int overlay_unlock(struct overlay *overlay, char *ret_why);

/* --- Locked ---------------------------------------------------------------- */

const struct overlay_facts *overlay_facts(const struct overlay *overlay);
struct layer *overlay_active(const struct overlay *overlay);
/* All of them, newest first: active, frozen, clean.  Returns how many. */
unsigned int overlay_layers(const struct overlay *overlay,
			    struct overlay_layer ret[OVERLAY_SLOTS]);
/* Frees the space of an active layer that has no sector.  Not in overlay_lock():
 * after a worker's death there may be writes that were answered and not flushed;
 * whoever knows which marks them first (layer_mark()). */
int overlay_tidy(struct overlay *overlay, char *ret_why);
/* "" or what was repaired by overlay_lock(), for the log. */
const char *overlay_repaired(const struct overlay *overlay);
/* There is something that is in no snapshot yet: sectors, or a larger size. */
bool overlay_is_dirty(const struct overlay *overlay);
/* Nothing but the base: it is not dirty, and no layer is frozen. */
bool overlay_is_empty(const struct overlay *overlay);

/*
 * The active layer becomes frozen, a free slot the active one.  The caller has
 * seen to it that no write is in flight, and that none begins before this
 * returns; what is not flushed is flushed here.  Durable on return; *ret_gen is
 * the generation of the frozen layer.  -EBUSY: too many are frozen already;
 * -EAGAIN: no slot is free, drop a clean layer first.
 */
int overlay_freeze(struct overlay *overlay, const struct snapshot_info *info,
		   uint64_t *ret_gen, char *ret_why);
/* Where a commit is: on the branch, or what would be; or a leaf beside it. */
enum overlay_place { OVERLAY_ON_BRANCH, OVERLAY_DIVERGED, OVERLAY_LEAF };

/* The oldest frozen layer is in this commit: it becomes clean, the commit the
 * base, and, if it is no leaf, the head. */
int overlay_committed(struct overlay *overlay, uint64_t gen,
		      const uint8_t commit[OID_BYTES], enum overlay_place place,
		      char *ret_why);
/* The branch has moved: we know. */
int overlay_set_head(struct overlay *overlay, const uint8_t head[OID_BYTES],
		     char *ret_why);
/* The oldest clean layer is no longer one; its struct layer stays readable until
 * overlay_empty() (no request reads it any more) frees it, its space and its
 * slot.  -ENOENT: there is no clean one. */
int overlay_drop(struct overlay *overlay, uint64_t *ret_gen, char *ret_why);
int overlay_empty(struct overlay *overlay, uint64_t gen, char *ret_why);

/* Everything written since is given up, and it stands on another commit: for
 * rollback, and to follow the branch when overlay_is_empty().  No request is in
 * flight, and no layer is used.  facts->uuid is set. */
int overlay_restart(struct overlay *overlay, struct overlay_facts *facts,
		    char *ret_why);

/* More bytes, in two steps as xd_backend.resize and resized: overlay_grow(),
 * durable, while lanes are at work; overlay_grown(), which cannot fail, at any
 * time, while lanes stand still. */
int overlay_grow(struct overlay *overlay, uint64_t size, char *ret_why);
void overlay_grown(struct overlay *overlay);

#endif
