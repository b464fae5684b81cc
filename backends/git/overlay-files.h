/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-files.h - the files of an overlay's folder: for overlay*.c only.
 *
 * Errors are -errno and a sentence, as in overlay.h.
 */
#ifndef XENDISK_GIT_OVERLAY_FILES_H
#define XENDISK_GIT_OVERLAY_FILES_H

#include "overlay.h"

struct overlay_slot_files {
	int data, map; /* locked by us, or to be locked */
	int read_data, read_map; /* for others; O_RDONLY */
};

struct overlay_files {
	int meta, lock;
	struct overlay_slot_files slot[OVERLAY_SLOTS];
	char folder[256]; /* for messages; "" if it is not known */
};

/* Makes what is not there; all of it is durable then.  Takes no lock. */
int files_open(struct overlay_files *files, int dir, char *ret_why);
void files_close(struct overlay_files *files);

/* -EBUSY and who has it; see overlay_lock() for wait. */
int files_lock(struct overlay_files *files, const char *holder, bool wait,
	       char *ret_why);
void files_unlock(struct overlay_files *files);

/* Are both files of the slot as large as a disk of that size needs?  Fewer bytes
 * than they had once: -EBADMSG. */
int files_check(const struct overlay_files *files, unsigned int slot,
		uint64_t size, char *ret_why);
/* Sees to it, durably.  What they hold stays. */
int files_extend(const struct overlay_files *files, unsigned int slot,
		 uint64_t size, char *ret_why);
/* Nothing is left in the slot, and no space is used. */
int files_empty(const struct overlay_files *files, unsigned int slot,
		char *ret_why);
/* Is space used in the slot? */
bool files_has_space(const struct overlay_files *files, unsigned int slot);

#endif
