/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * commit-points.h - named places in which the death of whoever makes a commit is
 * tried; as common/crash.h for the worker.
 *
 * COMMIT_POINT(name) stands behind each step that can be seen outside of the
 * process, and is nothing at all in the program that is installed.  In the one
 * that the tests build (tests/faults) XENDISK_COMMIT_POINT=NAME[:N] kills the
 * process when it passes there for the Nth time (tests/faults/commit-point.c).
 */
#ifndef XENDISK_GIT_COMMIT_POINTS_H
#define XENDISK_GIT_COMMIT_POINTS_H

#ifdef XENDISK_COMMIT_FAULTS
void commit_point(const char *name); /* tests/faults/commit-point.c */
#define COMMIT_POINT(name) commit_point(#name)
#else
#define COMMIT_POINT(name) ((void)0)
#endif
#endif
