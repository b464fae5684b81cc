/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stamp.h - when a guest last wrote to what is emptied after it: the layout of a
 * kept file.
 *
 * The worker maps it; it outlives worker and broker.  A lane says when a write has
 * begun, by the clock that file systems date by, and when the last was seen to have
 * ended.  What a file says of its last change lies between the last beginning and
 * the last end, or somebody else has written; or a write was under way when the
 * worker died, and then nobody can tell.  Who reads it believes little of it.
 */
#ifndef XENDISK_STAMP_H
#define XENDISK_STAMP_H

#include <stdint.h>
#include <time.h>

#define STAMP_NAME  "written" /* of the kept file */
#define STAMP_LANES 8

/* Of one lane.  Plain stores: a lane's own, and read when the worker is gone. */
struct stamp {
	uint64_t begun;
	uint64_t ended;
} __attribute__((aligned(64)));

struct stamp_file {
	struct stamp lane[STAMP_LANES];
};

static inline uint64_t stamp_now(clockid_t clock)
{
	struct timespec ts = { 0 };

	(void)clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void stamp_last(const struct stamp_file *file,
			      uint64_t *ret_begun, uint64_t *ret_ended)
{
	uint64_t begun = 0, ended = 0;

	for (unsigned int i = 0; i < STAMP_LANES; i++) {
		if (file->lane[i].begun > begun)
			begun = file->lane[i].begun;
		if (file->lane[i].ended > ended)
			ended = file->lane[i].ended;
	}
	*ret_begun = begun;
	*ret_ended = ended;
}

#endif
