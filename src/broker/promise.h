/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * promise.h - somebody is to be told, once, how something has ended.
 *
 * Broker thread only.
 */
#ifndef XENDISK_PROMISE_H
#define XENDISK_PROMISE_H

#include <stddef.h>

/* err: 0 or -errno.  text: a sentence, if it is not 0; else what was asked for, or
 * NULL.  Borrowed. */
typedef void (*promise_fn)(void *ctx, int err, const char *text);

struct promise {
	promise_fn done; /* NULL: nobody waits */
	void *ctx;
};

/* done() may make another promise, or free this one. */
static inline void promise_keep(struct promise *promise, int err,
				const char *text)
{
	struct promise kept = *promise;

	promise->done = NULL;
	if (kept.done)
		kept.done(kept.ctx, err, text);
}

#endif
