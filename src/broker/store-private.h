/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * store-private.h - xenstore, for the files that make it up.
 *
 *	store.c		the connections and the requests
 *	store-watch.c	watches, the thread that takes their events, and marks
 */
#ifndef XENDISK_STORE_PRIVATE_H
#define XENDISK_STORE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <xenstore.h>
/* The usual one falls through its cases, which clang takes ill. */
#define HASH_FUNCTION HASH_SAX
#include <uthash.h>

#include "broker/store.h"

struct watch;

struct store {
	struct xs_handle *xs;
	struct xs_handle *events;
	xs_transaction_t transaction; /* of all requests, XBT_NULL: none */
	int wake; /* eventfd */
	pthread_t thread;
	bool thread_runs;
	atomic_bool lost; /* xenstored has closed the connection */
	pthread_mutex_t lock;
	struct store_mark **marks; /* NULL: a free slot */
	unsigned int nr_slots;
	unsigned int generation;
	struct watch *roofs; /* under lock, as what follows */
	struct watch *covered; /* hash */
};

/* store.c: dir/key, or dir where key is NULL.  -ENAMETOOLONG. */
int store_join(char path[STORE_PATH_MAX], const char *dir, const char *key);

/* store-watch.c: reads store->events, from the broker's thread on. */
int store_thread_start(struct store *store);
void store_thread_stop(struct store *store);
/* store-watch.c: makes all watches known on another connection. */
bool store_watch_again(struct store *store, struct xs_handle *events);
void store_set_all_marks(struct store *store);

#endif
