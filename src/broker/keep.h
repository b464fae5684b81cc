/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * keep.h - state that outlives a worker and the daemon: files on tmpfs.
 *
 *     RUNDIR/keep/DOMID-DEVID.id            whose state it is
 *     RUNDIR/keep/DOMID-DEVID.LAYER.NAME    XD_KEEP_STATE: logs and maps
 *     RUNDIR/keep/DOMID-DEVID.scratch.N     a file that is to be emptied at detach
 *     RUNDIR/keep/left.N                    ... and the disk is no more (scratch.h)
 *     /dev/shm/xendiskd/...                 XD_KEEP_PAGES, the same names
 *
 * A run directory other than the usual has /dev/shm/xendiskd-HASH, so that
 * daemons do not meet there; RUNDIR/pages is a link to it.  Domain ids are used
 * again: state is handed out only to the guest and the expression it was made
 * for, see keep_claim().
 *
 * Here is also the account of the memory that all guests' pages take
 * (mem-limit).  Broker thread only.
 */
#ifndef XENDISK_KEEP_H
#define XENDISK_KEEP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/msg.h"

#define KEEP_NAME_MAX  64
#define KEEP_MAX_FILES 128 /* of one disk: two for each of 64 layers */
#define KEEP_STATE_MAX (1ull << 30) /* bytes of one XD_KEEP_STATE file */

struct keep;

/* Makes both folders, mode 0700.  -EPERM: one exists and is not ours.
 * mem_limit: bytes of pages for all disks together; 0: no limit. */
int keep_new(struct keep **ret, const char *run_dir, uint64_t mem_limit);
/* Leaves all state; an empty folder in /dev/shm goes. */
void keep_free(struct keep *keep);

/* Before a worker is started: removes what another guest of that number, or
 * another expression, has left.  *ret_kept: there is state of this one. */
int keep_claim(struct keep *keep, const struct msg_identity *id,
	       const char *expression, bool *ret_kept);

/* What keep_claim() was told last for this very guest, to be freed; NULL: there
 * is nothing. */
char *keep_expression(struct keep *keep, const struct msg_identity *id);

/*
 * Opens or makes a file.  One that is there already grows to that size if it is
 * smaller, and stays as it is if it is larger.  owner: the worker's user; 0:
 * leave it.  Returns a descriptor or -errno; -EINVAL: layer, name, kind or size
 * are not acceptable.
 */
int keep_file(struct keep *keep, const struct msg_identity *id, uint32_t layer,
	      const char *name, enum xd_keep_kind kind, uint64_t size,
	      uid_t owner, bool *ret_kept);

/* Opens an XD_KEEP_STATE file of the worker itself (MSG_LAYER_NONE) for
 * reading.  The worker can write to it.  -ENOENT: there is none. */
int keep_read(struct keep *keep, uint32_t domid, uint32_t devid,
	      const char *name);

/* Notes which file is to be emptied when the disk is no more: its nth.  No worker
 * can write there. */
void keep_note_scratch(struct keep *keep, const struct msg_identity *id,
		       unsigned int n, const char *line);
bool keep_is_noted(struct keep *keep, uint32_t domid, uint32_t devid,
		   unsigned int n);
/* The disk is no more.  The note has another name from now on, which is returned,
 * to be freed, and stays until it is dropped; NULL: there is none. */
char *keep_leave(struct keep *keep, uint32_t domid, uint32_t devid,
		 unsigned int n);
void keep_drop_left(struct keep *keep, const char *left);
/* The same befalls those that are there when the rest goes, and left() is told; at
 * the sweep also of those that an earlier broker has not dropped.  text: the line,
 * and one or more with the time of the last write (common/stamp.h). */
void keep_on_left(struct keep *keep,
		  void (*left)(void *ctx, const char *name, const char *text),
		  void *ctx);

/* Removes all of a disk. */
void keep_discard(struct keep *keep, uint32_t domid, uint32_t devid);

/* Removes the state of disks that exists() says are no more. */
void keep_sweep(struct keep *keep,
		bool (*exists)(void *ctx, uint32_t domid, uint32_t devid),
		void *ctx);

/* Bytes of memory that a disk's pages take now. */
uint64_t keep_pages(struct keep *keep, uint32_t domid, uint32_t devid);

/*
 * Takes more bytes from (or, negative, returns them to) the common limit;
 * *charge is what this disk has taken.  -ENOSPC: the limit is reached;
 * -EINVAL: it returns what it does not have.
 */
int keep_charge(struct keep *keep, uint64_t *charge, int64_t more);
/* Sets *charge anew, limit or not. */
void keep_recharge(struct keep *keep, uint64_t *charge, uint64_t bytes);

#endif
