/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fake-store.h - src/broker/store.h over a list in memory, for unit tests.
 *
 * A program that links fake-store.c gets none of store.c.  Marks are set by
 * writes to what they watch; nobody is told, the test asks.
 */
#ifndef FAKE_STORE_H
#define FAKE_STORE_H

#include "broker/store.h"

/* As another party: the guest or the toolstack. */
void fake_set(struct store *store, const char *path, const char *value);
void fake_set_bytes(struct store *store, const char *path, const char *value,
		    size_t length);
void fake_remove(struct store *store, const char *path);
/* The value, or NULL; until the next change. */
const char *fake_get(struct store *store, const char *path);
bool fake_is_hidden(struct store *store, const char *path);

/* All domains live but this one. */
void fake_end_domain(struct store *store, uint32_t domid);

/* Takes the bit off; was it set? */
bool fake_take_mark(struct store_mark *mark);
/* The mark whose ctx that is. */
struct store_mark *fake_mark_of(struct store *store, void *ctx);

/* Called before a transaction would end, which then has to be run again: the
 * chance for somebody else to interfere.  NULL: nobody does. */
void fake_interfere(struct store *store, void (*fn)(void *ctx), void *ctx);
/* How many transactions have been tried. */
unsigned int fake_transactions(const struct store *store);

#endif
