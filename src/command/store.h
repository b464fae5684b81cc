/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * store.h - xenstore as the command needs it.
 */
#ifndef XENDISK_COMMAND_STORE_H
#define XENDISK_COMMAND_STORE_H

#include <stdbool.h>
#include <xenstore.h>

#include "command/command.h"

/* Says itself why there is none. */
enum status store_open(const struct invocation *call, struct xs_handle **ret);

/* NULL when the key is not there; to be freed.  No NUL is inside. */
char *store_read(struct xs_handle *store, xs_transaction_t t, const char *fmt,
		 ...) PRINTF(3, 4);
bool store_exists(struct xs_handle *store, const char *fmt, ...) PRINTF(2, 3);
bool store_write(struct xs_handle *store, xs_transaction_t t, const char *dir,
		 const char *key, const char *value);

/* A state key as its number; 0 when it is missing or no number. */
int store_state(struct xs_handle *store, const char *dir);

/*
 * Waits until done(ctx) says so: it is asked at the start and after every
 * change below path.  false: timeout_s seconds have passed, or cancel_fd (-1:
 * none) is readable.
 */
bool store_wait(struct xs_handle *store, const char *path,
		unsigned int timeout_s, int cancel_fd, bool (*done)(void *ctx),
		void *ctx);

#endif
