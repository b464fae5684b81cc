/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* keep-private.h - what keep.c and keep-notes.c share. */
#ifndef XENDISK_KEEP_PRIVATE_H
#define XENDISK_KEEP_PRIVATE_H

#include "broker/keep.h"

struct kept;

struct keep {
	struct kept *kept; /* what disks have, by disk */
	bool unsure; /* there was no memory for that: look */
	/* Indexed by enum xd_keep_kind. */
	int dirs[2];
	char *pages_path; /* of the second */
	uint64_t limit;
	uint64_t charged;
	void (*left)(void *ctx, const char *name, const char *text);
	void *left_ctx;
	unsigned int next_left; /* a name that may be free */
};

typedef void (*keep_file_fn)(void *ctx, int dir, const char *name);

/* Of both folders.  -errno: one cannot be read. */
int keep_each_file(struct keep *keep, keep_file_fn fn, void *ctx);
/* A small file as a text, to be freed; NULL: it is too large, or none. */
char *keep_read_text(int dir, const char *name);

/* --- Notes of what is temporary (keep-notes.c) ---------------------------- */

/* Of all disks that exists() says are no more; before the rest of them goes, and with
 * it the times. */
void keep_leave_notes(struct keep *keep,
		      bool (*exists)(void *ctx, uint32_t domid, uint32_t devid),
		      void *ctx);
/* Those that an earlier broker has not dropped. */
void keep_tell_left(struct keep *keep);
bool keep_is_left(const char *name);

#endif
