/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grant-keep.h - pages of a guest that stay mapped: persistent grants.
 *
 * Owned by a lane's grant_batch; used by that lane's thread, made and freed by the
 * main thread while it does not run.
 */
#ifndef XENDISK_GRANT_KEEP_H
#define XENDISK_GRANT_KEEP_H

#include <stdint.h>

/* Pages that one lane keeps, at most. */
#define GRANT_KEEP_MAX 512u
/* Maps that may fail in one lane until pages of this guest are given back. */
#define GRANT_KEEP_FAILURES 8u

struct grant;
struct grant_keep;

int grant_keep_new(struct grant_keep **ret, struct grant *grant);
/* Unmaps all of them.  NULL is fine. */
void grant_keep_free(struct grant_keep *keep);

/* The page behind a reference, mapped now unless it was before, to read and to
 * write; may be used until grant_keep_idle().  NULL: it is not kept, and has to be copied
 * by grant copy, which also tells what is wrong with it. */
void *grant_keep_page(struct grant_keep *keep, uint32_t gref);

/* The lane has nothing to do: some of what has not been used for a minute is unmapped.
 * Times are of now_ns(). */
void grant_keep_idle(struct grant_keep *keep, uint64_t now);
/* When that has something to do again; UINT64_MAX: nothing is kept. */
uint64_t grant_keep_next(const struct grant_keep *keep);

#endif
