/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "command/store.h"

#include <poll.h>
#include <stdarg.h>
#include <string.h>

enum status store_open(const struct invocation *call, struct xs_handle **ret)
{
	*ret = xs_open(0);
	if (*ret)
		return STATUS_DONE;
	return fail(STATUS_FAILED, "%s: cannot reach xenstore: %m",
		    call->verb->name);
}

char *store_read(struct xs_handle *store, xs_transaction_t t, const char *fmt,
		 ...)
{
	char path[XENSTORE_ABS_PATH_MAX + 1];
	unsigned int length;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	return xs_read(store, t, path, &length);
}

bool store_exists(struct xs_handle *store, const char *fmt, ...)
{
	char path[XENSTORE_ABS_PATH_MAX + 1];
	cleanup_free char *value = NULL;
	unsigned int length;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	value = xs_read(store, XBT_NULL, path, &length);
	return value != NULL;
}

bool store_write(struct xs_handle *store, xs_transaction_t t, const char *dir,
		 const char *key, const char *value)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, key);

	return path &&
	       xs_write(store, t, path, value, (unsigned int)strlen(value));
}

int store_state(struct xs_handle *store, const char *dir)
{
	cleanup_free char *text = store_read(store, XBT_NULL, "%s/state", dir);
	uint32_t state;

	return text && parse_u32(text, 16, &state) == 0 ? (int)state : 0;
}

static bool wait_for_event(struct xs_handle *store, uint64_t deadline,
			   int cancel_fd)
{
	struct pollfd p[] = {
		{ .fd = xs_fileno(store), .events = POLLIN },
		{ .fd = cancel_fd, .events = POLLIN },
	};
	uint64_t now = now_ns();
	unsigned int count;
	char **event;

	if (now >= deadline)
		return false;
	if (poll(p, ARRAY_SIZE(p), (int)((deadline - now) / 1000000u) + 1) <= 0)
		return true; /* the deadline is looked at again */
	if (p[1].revents)
		return false;
	event = xs_read_watch(store, &count);
	free(event);
	return true;
}

bool store_wait(struct xs_handle *store, const char *path,
		unsigned int timeout_s, int cancel_fd, bool (*done)(void *ctx),
		void *ctx)
{
	uint64_t deadline = now_ns() + timeout_s * 1000000000ull;
	bool ok;

	if (!xs_watch(store, path, "wait"))
		return false;
	while (!(ok = done(ctx)) && wait_for_event(store, deadline, cancel_fd))
		;
	xs_unwatch(store, path, "wait");
	return ok;
}
