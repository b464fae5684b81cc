/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * scratch.h - what a guest wrote to a file that is temporary goes when its disk
 * does.  An errand frees what the file holds; its size stays.
 */
#ifndef XENDISK_SCRATCH_H
#define XENDISK_SCRATCH_H

struct broker;

/* A line for keep_note_scratch() that tells a file from all others, also from one
 * that takes its name or its number later; to be freed.  NULL: that cannot be told. */
char *scratch_describe(int path_fd, const char *path);

/* Empties the file, when nobody locks it (any more, within a second).  Takes over
 * left, the name of its note or NULL. */
void scratch_empty(struct broker *broker, int path_fd, const char *path,
		   char *left);

/* For keep_on_left(): the same of a file that nobody has held meanwhile, if it is
 * that very one, only its guest has written to it, and nobody has it open. */
void scratch_left(void *broker, const char *left, const char *text);

#endif
