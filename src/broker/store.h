/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * store.h - xenstore: requests, and what has changed.
 *
 * The only part of the broker that calls libxenstore.  Requests are made on the
 * broker's thread and wait for xenstored, which answers at once.  Changes are not
 * queued: they set dirty bits (see store-watch.c).
 *
 * A path is given as DIR and KEY and means DIR/KEY; KEY may be NULL.  What is
 * not there is -ENOENT, what may not be read -EACCES, a dead xenstored -EIO or
 * the like.
 */
#ifndef XENDISK_STORE_H
#define XENDISK_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util.h"

#define STORE_PATH_MAX 512

struct store;
struct store_mark;

int store_open(struct store **ret);
void store_close(struct store *store);

/* --- Requests ------------------------------------------------------------- */

/* The value, to be freed; -EBADMSG when it holds a NUL byte. */
int store_read(struct store *store, const char *dir, const char *key,
	       char **ret);
/* A number as parse_u32() takes it; -EINVAL when it is none, or above max. */
int store_read_u32(struct store *store, const char *dir, const char *key,
		   uint32_t max, uint32_t *ret);
int store_write(struct store *store, const char *dir, const char *key,
		const char *fmt, ...) PRINTF(4, 5);
/* With everything below; 0 also when there was nothing. */
int store_remove(struct store *store, const char *dir, const char *key);
/* The same, and then up to levels parents that are left empty. */
int store_remove_branch(struct store *store, const char *dir,
			unsigned int levels);
/* Names of the children, in one block to be freed. */
int store_list(struct store *store, const char *dir, char ***ret,
	       unsigned int *ret_nr);
/* From now on only the owner and dom0 can read it. */
int store_hide(struct store *store, const char *dir, const char *key,
	       uint32_t owner);
/* Is there a domain of that number? */
int store_domain_alive(struct store *store, uint32_t domid, bool *ret);

/*
 * Runs body() in a transaction: all requests within it belong to that.  It is
 * run again when somebody else interfered, 20 times at most (-EAGAIN then).
 * When it returns an error nothing is changed, and that is the result.
 */
int store_transact(struct store *store,
		   int (*body)(struct store *store, void *ctx), void *ctx);

/* --- Changes -------------------------------------------------------------- */

/* Readable when there is something for store_dispatch() to do, which calls
 * changed() of every mark that is set.  -ENOTCONN: xenstored is gone. */
int store_fd(const struct store *store);
int store_dispatch(struct store *store);
/* After -ENOTCONN: connects again, with all watches, and sets every mark, since
 * anything may have changed.  Until it returns 0 all requests fail. */
int store_reconnect(struct store *store);

/* A dirty bit.  changed() is told, on the broker's thread, that at least one
 * of the watched places has changed since it was told last. */
int store_mark_new(struct store_mark **ret, struct store *store,
		   void (*changed)(void *ctx), void *ctx);
/* Of a new mark: it remembers where something has changed, too.  -ENOMEM. */
int store_mark_remember(struct store_mark *mark);
/* What it has remembered since it was asked last; it begins anew.  False: it may
 * be anywhere, since there was more than fits, the mark was set by hand, or
 * xenstored is another one. */
#define STORE_MAX_PLACES 16
struct store_places {
	unsigned int nr;
	char path[STORE_MAX_PLACES][STORE_PATH_MAX];
};
bool store_mark_places(struct store_mark *mark, struct store_places *ret);
/* With its watches; from within changed(), too. */
void store_mark_free(struct store_mark *mark);
/* Sets it by hand; _at: as if that place had changed. */
void store_mark_set(struct store_mark *mark);
void store_mark_set_at(struct store_mark *mark, const char *path);

/* Watches path and what is below it, or a special one ("@releaseDomain").
 * wanted() picks the events by where they are below path ("" for itself); it
 * runs on the thread of store-watch.c and must be pure.  NULL: all are wanted.  A
 * watch fires once when it is made.  -EDQUOT: xenstored allows no more. */
int store_watch(struct store_mark *mark, const char *path,
		bool (*wanted)(const char *below));
/* The same; and watches of places below it that are made later cost xenstored
 * nothing.  Those must not lie below each other, and the mark outlives them. */
int store_watch_roof(struct store_mark *mark, const char *path,
		     bool (*wanted)(const char *below));

#endif
