/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * retention.h - which interval snapshots stay.
 *
 * "24h,7d,4w": of each of the last 24 hours, 7 days and 4 weeks that have any, the
 * newest one; and always the newest of all.  Hours, days and weeks (from Monday) are
 * those of UTC.  Those that have none do not count, so that a disk which was not
 * used for a year has its snapshots still.
 */
#ifndef XENDISK_GIT_RETENTION_H
#define XENDISK_GIT_RETENTION_H

#include "refs.h"

#define KEEP_RULES 4u
#define UTC_TEXT   sizeof("20261231T235960Z")

struct keep {
	unsigned int nr; /* 0: all of them */
	struct keep_rule {
		int64_t seconds; /* of the period */
		int64_t origin; /* when one of them began, Unix */
		uint32_t count;
	} rules[KEEP_RULES];
};

/* "" is none.  -EINVAL and why. */
int keep_parse(const char *text, struct keep *ret, char *ret_why);

/* times: Unix, newest first.  ret_keep[i]: does it stay?  Pure. */
void keep_choose(const struct keep *keep, const int64_t *times, size_t nr,
		 bool *ret_keep);

/* As a part of a reference's name: "20261125T195830Z"; returns ret. */
const char *utc_print(int64_t time, char ret[UTC_TEXT]);
/* The other way; text may go on with anything after a "-".  -EINVAL. */
int utc_parse(const char *text, int64_t *ret);

/* Removes the references of a branch's interval snapshots that do not stay. */
int retention_thin(struct git_repository *repo, const char *branch,
		   const struct keep *keep, unsigned int *ret_removed,
		   char *ret_why);

#endif
