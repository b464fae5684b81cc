/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * extents-check.h - asks a stack in a rig where data is, and does not believe
 * it: what is called zero is read, and compared with a model.
 */
#ifndef XENDISK_TEST_EXTENTS_CHECK_H
#define XENDISK_TEST_EXTENTS_CHECK_H

#include "rig.h"

#define EXTENTS_MAX 64

struct extents_answer {
	struct xd_extents extents;
	struct xd_extent extent[EXTENTS_MAX];
};

/* Asks for at most max of them. */
void extents_ask(struct rig *rig, uint64_t offset, uint64_t length,
		 unsigned int max, struct extents_answer *ret);

/* Is it an answer at all, and true?  content: what the model believes.  NULL, or
 * what is wrong. */
const char *extents_judge(struct rig *rig, uint64_t offset, uint64_t length,
			  const struct extents_answer *answer,
			  const unsigned char *content);

/* "0:hz 1048576:d 1114112:hz": where what begins; h is a hole, z zero, d neither.
 * All of the disk, asked as often as it takes.  In static memory. */
const char *extents_map(struct rig *rig);

/* Random changes and random questions; content is what the disk holds.  Fails the
 * test that calls it.  Returns how many bytes were called zero. */
uint64_t extents_model(struct rig *rig, unsigned char *content,
		       bool discard_zeroes, uint64_t seed);

#endif
