/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * inquiry.h - what a disk's backends are asked, one question after the other.
 *
 * A worker answers one at a time (worker_control()), and several clients may ask
 * at once.  Broker thread only.
 */
#ifndef XENDISK_INQUIRY_H
#define XENDISK_INQUIRY_H

#include <stdbool.h>

struct inquiry;
struct worker;

/* text: the answer (pairs.h) when err is 0, or why there is none; it may be "",
 * with -EOPNOTSUPP: no backend of the disk knows the verb. */
typedef void (*inquiry_fn)(void *ctx, int err, const char *text);

/* All 0: nothing is asked. */
struct inquiries {
	struct inquiry *list; /* the first is asked now, if busy */
	unsigned int nr;
	bool busy;
};

/* 0: done will be called once, from the event loop.  Else it will not: -EBUSY,
 * too many wait, or -errno of worker_control(). */
int inquiries_add(struct inquiries *inquiries, struct worker *worker,
		  const char *verb, const char *text, inquiry_fn done,
		  void *ctx);
/* The worker's event controlled(). */
void inquiries_answered(struct inquiries *inquiries, struct worker *worker,
			int err, const char *text);
/* The process is gone: all inquiries end with that error. */
void inquiries_fail(struct inquiries *inquiries, int err, const char *why);

#endif
