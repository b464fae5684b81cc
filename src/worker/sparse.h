/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sparse.h - memory by the page, of which only what is touched costs anything.
 *
 * For tables that are large and mostly empty.  calloc() clears all of what had
 * another use before; without that an idle worker has a sixth less memory to itself,
 * and each disk has a worker.
 */
#ifndef XENDISK_SPARSE_H
#define XENDISK_SPARSE_H

#include <stddef.h>

/* Any thread.  Zeroed, aligned as malloc() does.  bytes: more than 0.  NULL: no memory. */
void *sparse_new(size_t bytes);
/* As many bytes.  memory may be NULL. */
void sparse_free(void *memory, size_t bytes);

#endif
