/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stream.h - parts of large objects, which are never in memory as a whole.
 * All of it belongs to one thread.
 */
#ifndef XENDISK_GIT_STREAM_H
#define XENDISK_GIT_STREAM_H

#include <stdatomic.h>

#include "odb.h"

struct streams;

int streams_new(struct streams **ret, const struct odb *odb);
void streams_free(struct streams *streams);

/*
 * n bytes of the content of an object that is no delta, all of them inside.
 * The first time this is as slow as inflating all that is in front of them; then
 * no more than a 256th of it.  -ECANCELED once *stop is set.
 */
int streams_read(struct streams *streams, struct place place,
		 const struct object_head *head, uint64_t offset, void *ret,
		 size_t n, const atomic_bool *stop);

#endif
