/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nursery-note.h - what is in RUNDIR/children.
 *
 * A note is three lines of text:
 *
 *     PID TIME SLOT ONCE	TIME: when the process started (process ids are
 *				used again); SLOT: of its user id; ONCE: 1 if
 *				it must not be started a second time
 *     the guest's UUID, or nothing
 *     the disk's expression
 *
 * The folder is ours alone.  A note outlives its process only if that may not be
 * replaced: then its disk is lost, and the next broker has to know.
 */
#ifndef XENDISK_NURSERY_NOTE_H
#define XENDISK_NURSERY_NOTE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/msg.h"

struct nursery_note {
	uint32_t domid;
	uint32_t devid;
	uint32_t layer;
	pid_t pid; /* 0: it is dead */
	uint32_t slot;
	bool once;
	char vm[40];
	char expression[MSG_EXPR_MAX + 1];
};

/* pid 0 keeps what was noted of the process. */
int nursery_note_write(const char *run_dir, const struct nursery_note *note);
void nursery_note_remove(const char *run_dir, const struct nursery_note *note);

/* Makes the folder; calls fn() for each note, and removes those that make no
 * sense or whose process has ended for nothing. */
int nursery_note_each(const char *run_dir,
		      void (*fn)(void *ctx, const struct nursery_note *note),
		      void *ctx);

/* Is it the process that was noted?  Asked again when there is a descriptor that
 * stands for it. */
bool nursery_note_lives(const char *run_dir, const struct nursery_note *note);

/* A descriptor: of the socket that the child is to listen on, and of a connection
 * to it; or -errno (-ECONNREFUSED: nobody listens). */
int nursery_listen(const char *run_dir, const struct nursery_note *note);
int nursery_call(const char *run_dir, const struct nursery_note *note);

#endif
