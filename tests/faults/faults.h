/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * faults.h - a worker that dies, or whose calls fail, when a test says so.
 *
 * Theory of operation
 *
 * tests/faults/xendiskd is the daemon, built of the same sources with the crash
 * points compiled in (common/crash.h) and with the calls of failures.def led
 * through wraps.c by the linker.  Both ask one question: am I told to do
 * something here?  The orders are in a file that the test makes (the `fault`
 * command) and that XENDISK_FAULTS names; every worker maps it before it is
 * isolated, so counts go on from one worker to the next.  The broker itself is
 * left alone.
 *
 * Orders are a list, and only the first that is not carried out yet counts what
 * passes: "wait for lanes_started, then fail the 3rd calloc" is two orders.
 */
#ifndef XENDISK_TEST_FAULTS_H
#define XENDISK_TEST_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/crash.h"

/* Failures stand behind the crash points, so one number names either. */
enum failure {
	BEFORE_FAILURES = NR_CRASH_POINTS - 1,
#define FAILURE(name, where, values) FAIL_##name,
#include "failures.def"
#undef FAILURE
	NR_FAULTS
};

/* What is broken for good: negative controls. */
#define FAULT_SWITCHES(X)                                                \
	X(no_log, "the next worker does not read the in-flight log")     \
	X(no_interlock, "overlapping writes do not wait")                \
	X(answer_twice, "every 20th answer is given twice")              \
	X(flush_lies, "a flush that fails is taken for one that worked") \
	X(write_lies, "a write that fails is taken for one that worked")

enum fault_switch {
#define X(name, help) SWITCH_##name,
	FAULT_SWITCHES(X)
#undef X
		NR_SWITCHES
};

enum fault_action {
	ORDER_PASS, /* only counts */
	ORDER_KILL, /* value: ms to sleep before */
	ORDER_GHOST, /* dies, and the write lands value ms later */
	ORDER_FAIL, /* value: errno, FAULT_SHORT or FAULT_STATUS */
};
#define FAULT_SHORT  10000
#define FAULT_STATUS 10001

struct fault_order {
	uint32_t action;
	uint32_t what; /* crash point or failure */
	uint64_t nth; /* from 1 */
	uint32_t value;
	uint64_t passed; /* atomic */
};

#define FAULT_MAGIC  0x746c7561466b6458ull
#define FAULT_ORDERS 8

struct fault_file {
	uint64_t magic;
	uint32_t switches; /* mask of 1 << enum fault_switch */
	uint32_t nr_orders;
	uint32_t done; /* orders carried out; atomic */
	uint32_t lost_flushes; /* that were made to fail for good; atomic */
	uint64_t passed[NR_FAULTS]; /* by anybody, ever; atomic */
	struct fault_order order[FAULT_ORDERS];
};

/* --- For wraps.c ----------------------------------------------------------- */

/* Must this call fail?  0, an errno, or FAULT_SHORT or FAULT_STATUS. */
uint32_t fault_of(enum failure failure);
bool fault_switched(enum fault_switch which);
/* A flush was made to fail: somebody must hear of it. */
void fault_lost_flush(void);
/* Is a write to become a ghost?  Does not return if so. */
struct iovec;
void fault_ghost(enum failure failure, int fd, const struct iovec *iov,
		 unsigned int iovcnt, uint64_t offset);

#endif
