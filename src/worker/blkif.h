/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkif.h - is a request legal, and what does it mean?
 *
 * Pure: the bytes of a ring slot in, a struct out; no state, no memory of its
 * own, any thread.  Everything that a guest can write into a request passes
 * through here, and only here.  What comes out is in bytes and can be believed:
 * offsets and lengths are inside the disk, segments inside their pages.
 *
 * The protocol is that of Xen's public header io/blkif.h.
 */
#ifndef XENDISK_BLKIF_H
#define XENDISK_BLKIF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLKIF_SECTOR	   512u /* the unit on the ring, always */
#define BLKIF_PAGE	   4096u /* the unit of grants, always */
#define BLKIF_SLOT_MAX	   112u /* bytes of the longest layout's slot */
#define BLKIF_RESPONSE_MAX 16u
#define BLKIF_DIRECT_MAX   11u /* segments in the slot itself */
#define BLKIF_INDIRECT_MAX 256u /* segments of an indirect request */
#define BLKIF_LENGTH_MAX   (BLKIF_INDIRECT_MAX * BLKIF_PAGE)

/*
 * How a guest lays out its requests: the frontend key "protocol".  The native
 * layout of every other architecture equals that of x86_64.
 */
enum blkif_layout {
	BLKIF_X86_32,
	BLKIF_X86_64,
#ifdef __i386__
	BLKIF_NATIVE = BLKIF_X86_32,
#else
	BLKIF_NATIVE = BLKIF_X86_64,
#endif
};

size_t blkif_slot_size(enum blkif_layout layout);
size_t blkif_response_size(enum blkif_layout layout);

/* Answers.  Those of io/blkif.h, and one more: any other number makes Linux
 * return EIO from fsync() and go on flushing, where ERROR and EOPNOTSUPP on an
 * empty flush make it believe that flushes are not needed. */
enum blkif_status {
	BLKIF_STATUS_OKAY = 0,
	BLKIF_STATUS_ERROR = -1,
	BLKIF_STATUS_UNSUPPORTED = -2,
	BLKIF_STATUS_FLUSH_FAILED = -3,
};

/* What a request is judged against. */
struct blkif_limits {
	uint64_t size; /* bytes */
	uint32_t sector_size; /* bytes */
	uint32_t discard_granularity; /* bytes; 0: discard is not offered */
	uint32_t discard_alignment; /* bytes */
	bool readonly;
};

enum blkif_action {
	BLKIF_READ,
	BLKIF_WRITE,
	BLKIF_FLUSH, /* with length: flush, write, flush */
	BLKIF_BARRIER, /* the same, once all before it is done */
	BLKIF_DISCARD, /* length 0: nothing left after rounding inwards */
	BLKIF_NR_ACTIONS
};

struct blkif_segment {
	uint32_t gref;
	uint16_t offset; /* bytes into the granted page */
	uint16_t length; /* bytes, not 0 */
};

/* A request that was judged. */
struct blkif_job {
	uint64_t id; /* to be echoed */
	uint8_t op; /* to be echoed; of an indirect request the inner one */
	uint8_t action; /* enum blkif_action */
	bool indirect; /* see blkif_judge_indirect() */
	int16_t status; /* not OKAY: answer this, and look at no more than id
			 * and op */
	uint16_t nr_segments;
	uint32_t list_gref; /* indirect: the page that holds the segments */
	uint64_t offset; /* bytes from the start of the disk */
	uint64_t length; /* bytes; indirect: not known yet */
	struct blkif_segment segments[BLKIF_DIRECT_MAX];
};

/* What a job's op asks for, also when it was refused; BLKIF_NR_ACTIONS: there
 * is no such operation. */
enum blkif_action blkif_action(uint8_t op);

/* slot: a private copy, blkif_slot_size() bytes, of any alignment. */
void blkif_judge(const struct blkif_limits *limits, enum blkif_layout layout,
		 const void *slot, struct blkif_job *ret);

/*
 * The second half for an indirect request.  list: a private copy of the first
 * 8 * nr_segments bytes of its page.  ret_segments has room for nr_segments
 * and may be the same memory.  Sets the job's length and status.
 */
void blkif_judge_indirect(const struct blkif_limits *limits,
			  struct blkif_job *job, const void *list,
			  struct blkif_segment *ret_segments);

/* The answer's bytes, padding zeroed (XSA-216); ret has room for
 * BLKIF_RESPONSE_MAX, blkif_response_size() of them go out: the layouts differ
 * in length only. */
void blkif_response(uint64_t id, uint8_t op, int16_t status, void *ret);

#endif
