/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * store.c - the connections to xenstored, and requests.
 *
 * Two of them: `xs` for requests, used on the broker's thread only; `events`
 * for watches (store-watch.c).
 */
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>

#include "broker/store-private.h"

#define MAX_RETRIES 20

/* --- Life ----------------------------------------------------------------- */

int store_open(struct store **ret)
{
	struct store *store = calloc(1, sizeof(*store));
	int r;

	if (!store)
		return -ENOMEM;
	(void)pthread_mutex_init(&store->lock, NULL);
	store->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (store->wake < 0)
		goto failed;
	store->xs = xs_open(0);
	if (!store->xs)
		goto failed;
	store->events = xs_open(0);
	if (!store->events)
		goto failed;
	r = store_thread_start(store);
	if (r < 0) {
		store_close(store);
		return r;
	}
	*ret = store;
	return 0;
failed:
	r = -errno;
	store_close(store);
	return r;
}

static void close_handle(struct xs_handle *xs)
{
	if (xs)
		xs_close(xs);
}

void store_close(struct store *store)
{
	if (!store)
		return;
	store_thread_stop(store);
	close_handle(store->events);
	close_handle(store->xs);
	if (store->wake >= 0)
		(void)close(store->wake);
	(void)pthread_mutex_destroy(&store->lock);
	free(store->marks);
	free(store);
}

/* The old handles stay until there are others: requests on them fail. */
int store_reconnect(struct store *store)
{
	struct xs_handle *xs = xs_open(0);
	struct xs_handle *events = xs ? xs_open(0) : NULL;
	int r;

	if (!events || !store_watch_again(store, events)) {
		r = errno ? -errno : -EIO;
		close_handle(events);
		close_handle(xs);
		return r;
	}
	store_thread_stop(store);
	close_handle(store->events);
	close_handle(store->xs);
	store->xs = xs;
	store->events = events;
	r = store_thread_start(store);
	if (r == 0)
		store_set_all_marks(store);
	return r;
}

/* --- Requests ------------------------------------------------------------- */

int store_join(char path[STORE_PATH_MAX], const char *dir, const char *key)
{
	int n = snprintf(path, STORE_PATH_MAX, "%s%s%s", dir, key ? "/" : "",
			 key ? key : "");

	return n < STORE_PATH_MAX ? 0 : -ENAMETOOLONG;
}

int store_read(struct store *store, const char *dir, const char *key,
	       char **ret)
{
	char path[STORE_PATH_MAX];
	cleanup_free char *value = NULL;
	unsigned int length;
	int r = store_join(path, dir, key);

	if (r < 0)
		return r;
	value = xs_read(store->xs, store->transaction, path, &length);
	if (!value)
		return -errno;
	if (strlen(value) != length)
		return -EBADMSG;
	*ret = TAKE_PTR(value);
	return 0;
}

int store_read_u32(struct store *store, const char *dir, const char *key,
		   uint32_t max, uint32_t *ret)
{
	cleanup_free char *text = NULL;
	int r = store_read(store, dir, key, &text);

	if (r < 0)
		return r;
	return parse_u32(text, max, ret) < 0 ? -EINVAL : 0;
}

int store_write(struct store *store, const char *dir, const char *key,
		const char *fmt, ...)
{
	char path[STORE_PATH_MAX];
	char value[XENSTORE_PAYLOAD_MAX - STORE_PATH_MAX];
	va_list ap;
	int r = store_join(path, dir, key);
	int n;

	if (r < 0)
		return r;
	va_start(ap, fmt);
	n = vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(value))
		return -E2BIG;
	if (!xs_write(store->xs, store->transaction, path, value,
		      (unsigned int)n))
		return -errno;
	return 0;
}

int store_remove(struct store *store, const char *dir, const char *key)
{
	char path[STORE_PATH_MAX];
	int r = store_join(path, dir, key);

	if (r < 0)
		return r;
	if (!xs_rm(store->xs, store->transaction, path) && errno != ENOENT)
		return -errno;
	return 0;
}

static bool is_empty(struct store *store, const char *dir)
{
	cleanup_free char **names = NULL;
	unsigned int nr;

	return store_list(store, dir, &names, &nr) == 0 && nr == 0;
}

int store_remove_branch(struct store *store, const char *dir,
			unsigned int levels)
{
	char path[STORE_PATH_MAX];
	char *slash;
	int r = store_join(path, dir, NULL);

	if (r == 0)
		r = store_remove(store, path, NULL);
	for (; r == 0 && levels > 0; levels--) {
		slash = strrchr(path, '/');
		if (!slash || slash == path)
			break;
		*slash = '\0';
		if (!is_empty(store, path))
			break;
		r = store_remove(store, path, NULL);
	}
	return r;
}

int store_list(struct store *store, const char *dir, char ***ret,
	       unsigned int *ret_nr)
{
	unsigned int nr;
	char **names = xs_directory(store->xs, store->transaction, dir, &nr);

	if (!names)
		return -errno;
	*ret = names;
	*ret_nr = nr;
	return 0;
}

int store_hide(struct store *store, const char *dir, const char *key,
	       uint32_t owner)
{
	struct xs_permissions perms = { .id = owner, .perms = XS_PERM_NONE };
	char path[STORE_PATH_MAX];
	int r = store_join(path, dir, key);

	if (r < 0)
		return r;
	if (!xs_set_permissions(store->xs, store->transaction, path, &perms, 1))
		return -errno;
	return 0;
}

int store_domain_alive(struct store *store, uint32_t domid, bool *ret)
{
	bool alive;

	errno = 0; /* "no" and "failed" are both false */
	alive = xs_is_domain_introduced(store->xs, domid);
	if (!alive && errno)
		return -errno;
	*ret = alive;
	return 0;
}

static int try_transaction(struct store *store,
			   int (*body)(struct store *store, void *ctx),
			   void *ctx)
{
	xs_transaction_t transaction = xs_transaction_start(store->xs);
	int r;

	if (transaction == XBT_NULL)
		return -errno;
	store->transaction = transaction;
	r = body(store, ctx);
	store->transaction = XBT_NULL;
	if (!xs_transaction_end(store->xs, transaction, r < 0) && r == 0)
		r = -errno;
	return r;
}

int store_transact(struct store *store,
		   int (*body)(struct store *store, void *ctx), void *ctx)
{
	int r = -EAGAIN;

	for (int i = 0; i < MAX_RETRIES && r == -EAGAIN; i++)
		r = try_transaction(store, body, ctx);
	return r;
}
