/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * crash.h - named places in which a worker's death is tried.
 *
 * A worker may be killed between any two instructions.  What that means changes
 * only where something becomes visible outside of the process: in the log, on
 * the ring, in kept state, on the storage.  CRASH_POINT(name) stands between any
 * two such steps, and is nothing at all in the program that is installed; in the
 * one that the tests build of the same sources (tests/faults) the process kills
 * itself there when it is told to.
 */
#ifndef XENDISK_CRASH_H
#define XENDISK_CRASH_H

#ifdef XENDISK_FAULTS

enum crash_point {
#define CRASH(name, where) CRASH_##name,
#include "common/crash-points.def"
#undef CRASH
	NR_CRASH_POINTS
};

void crash_point(enum crash_point point);

#define CRASH_POINT(name) crash_point(CRASH_##name)

#else

#define CRASH_POINT(name) ((void)0)

#endif
#endif
