/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * store.c - xenstore without a queue.
 *
 * libxenstore keeps the watch events that nobody has taken in a list without a
 * limit: a guest that writes its state in a loop while the broker is busy would
 * eat the memory of dom0.  So a thread takes them at once and remembers only
 * that something has changed: one dirty bit per mark, and an eventfd that wakes
 * the broker's loop.  However often a guest writes, this costs the same.  A mark
 * may remember a few places as well, and that there were too many.
 *
 * Two connections: `xs` for requests, used on the broker's thread only;
 * `events` for watches, read by the thread.  The thread touches nothing but the
 * table of marks, under `lock`.  A watch's token says which mark it belongs to:
 * "SLOT.GENERATION.WATCH"; the generation tells an event that was on its way
 * when a mark was freed from one for the mark that took its slot.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <xenstore.h>

#include "broker/store.h"

#define MAX_RETRIES	 20
#define WATCHES_PER_MARK 4
#define STOP_TOKEN	 "stop"

struct watch {
	char path[STORE_PATH_MAX];
	bool (*wanted)(const char *below);
};

struct store_mark {
	struct store *store;
	unsigned int slot;
	unsigned int generation;
	bool dirty; /* under lock */
	bool anywhere; /* under lock: places are not all */
	struct store_places *places; /* under lock; NULL: not remembered */
	void (*changed)(void *ctx);
	void *ctx;
	unsigned int nr_watches; /* under lock */
	struct watch watches[WATCHES_PER_MARK];
};

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
};

/* --- The thread ----------------------------------------------------------- */

static void wake(struct store *store)
{
	uint64_t one = 1;

	/* It cannot fail but by overflow, and then the loop is awake. */
	if (write(store->wake, &one, sizeof(one)) < 0)
		return;
}

/* Under lock. */
static struct store_mark *mark_of_token(struct store *store, const char *token,
					unsigned int *ret_watch)
{
	unsigned int slot, generation, watch;
	struct store_mark *mark;

	if (sscanf(token, "%u.%u.%u", &slot, &generation, &watch) != 3 ||
	    slot >= store->nr_slots)
		return NULL;
	mark = store->marks[slot];
	if (!mark || mark->generation != generation ||
	    watch >= mark->nr_watches)
		return NULL;
	*ret_watch = watch;
	return mark;
}

static bool is_wanted(const struct watch *watch, const char *path)
{
	size_t length = strlen(watch->path);
	const char *below = "";

	if (!watch->wanted)
		return true;
	/* A path that is not below the watched one: a parent has gone. */
	if (strncmp(path, watch->path, length) == 0)
		below = path + length;
	return watch->wanted(below + (*below == '/'));
}

/* Under lock. */
static void remember(struct store_mark *mark, const char *path)
{
	struct store_places *places = mark->places;

	if (!places || mark->anywhere)
		return;
	for (unsigned int i = 0; i < places->nr; i++)
		if (strcmp(places->path[i], path) == 0)
			return;
	if (places->nr == STORE_MAX_PLACES || strlen(path) >= STORE_PATH_MAX)
		mark->anywhere = true;
	else
		memcpy(places->path[places->nr++], path, strlen(path) + 1);
}

static void fold(struct store *store, const char *path, const char *token)
{
	struct store_mark *mark;
	unsigned int watch = 0;
	bool news = false;

	(void)pthread_mutex_lock(&store->lock);
	mark = mark_of_token(store, token, &watch);
	if (mark && (!mark->dirty || mark->places) &&
	    is_wanted(&mark->watches[watch], path)) {
		remember(mark, path);
		news = !mark->dirty;
		mark->dirty = true;
	}
	(void)pthread_mutex_unlock(&store->lock);
	if (news)
		wake(store);
}

static void *drain(void *arg)
{
	struct store *store = arg;

	for (;;) {
		unsigned int nr;
		cleanup_free char **event = xs_read_watch(store->events, &nr);

		if (!event) {
			if (errno == EINTR)
				continue;
			atomic_store(&store->lost, true);
			wake(store);
			return NULL;
		}
		if (strcmp(event[XS_WATCH_TOKEN], STOP_TOKEN) == 0)
			return NULL;
		fold(store, event[XS_WATCH_PATH], event[XS_WATCH_TOKEN]);
	}
}

static void print_token(char *buf, size_t len, const struct store_mark *mark,
			unsigned int watch)
{
	(void)snprintf(buf, len, "%u.%u.%u", mark->slot, mark->generation,
		       watch);
}

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
	errno = pthread_create(&store->thread, NULL, drain, store);
	if (errno)
		goto failed;
	store->thread_runs = true;
	*ret = store;
	return 0;
failed:
	r = -errno;
	store_close(store);
	return r;
}

/* A new watch fires at once: that wakes the thread out of xs_read_watch(). */
static void stop_thread(struct store *store)
{
	if (!xs_watch(store->events, "@releaseDomain", STOP_TOKEN) &&
	    !atomic_load(&store->lost)) {
		(void)pthread_cancel(store->thread);
	}
	(void)pthread_join(store->thread, NULL);
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
	if (store->thread_runs)
		stop_thread(store);
	close_handle(store->events);
	close_handle(store->xs);
	if (store->wake >= 0)
		(void)close(store->wake);
	(void)pthread_mutex_destroy(&store->lock);
	free(store->marks);
	free(store);
}

/* --- Another life --------------------------------------------------------- */

static bool watch_again(struct store *store, struct xs_handle *events)
{
	for (unsigned int slot = 0; slot < store->nr_slots; slot++) {
		const struct store_mark *mark = store->marks[slot];

		for (unsigned int i = 0; mark && i < mark->nr_watches; i++) {
			char token[48];

			print_token(token, sizeof(token), mark, i);
			if (!xs_watch(events, mark->watches[i].path, token))
				return false;
		}
	}
	return true;
}

/* Under lock. */
static void set_mark(struct store_mark *mark)
{
	mark->dirty = true;
	mark->anywhere = true;
}

static void set_all_marks(struct store *store)
{
	(void)pthread_mutex_lock(&store->lock);
	for (unsigned int slot = 0; slot < store->nr_slots; slot++)
		if (store->marks[slot])
			set_mark(store->marks[slot]);
	(void)pthread_mutex_unlock(&store->lock);
	wake(store);
}

/* The old handles stay until there are others: requests on them fail. */
int store_reconnect(struct store *store)
{
	struct xs_handle *xs = xs_open(0);
	struct xs_handle *events = xs ? xs_open(0) : NULL;
	int r;

	if (!events || !watch_again(store, events)) {
		r = errno ? -errno : -EIO;
		close_handle(events);
		close_handle(xs);
		return r;
	}
	if (store->thread_runs)
		stop_thread(store);
	close_handle(store->events);
	close_handle(store->xs);
	store->xs = xs;
	store->events = events;
	atomic_store(&store->lost, false);
	r = -pthread_create(&store->thread, NULL, drain, store);
	store->thread_runs = r == 0;
	if (r < 0)
		atomic_store(&store->lost, true);
	else
		set_all_marks(store);
	return r;
}

/* --- Requests ------------------------------------------------------------- */

static int join(char *path, const char *dir, const char *key)
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
	int r = join(path, dir, key);

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
	int r = join(path, dir, key);
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
	int r = join(path, dir, key);

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
	int r = join(path, dir, NULL);

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
	int r = join(path, dir, key);

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

/* --- Changes -------------------------------------------------------------- */

int store_fd(const struct store *store)
{
	return store->wake;
}

/* Takes the bit off the first dirty mark at or after *slot. */
static struct store_mark *next_dirty(struct store *store, unsigned int *slot)
{
	struct store_mark *found = NULL;

	(void)pthread_mutex_lock(&store->lock);
	for (; !found && *slot < store->nr_slots; (*slot)++) {
		struct store_mark *mark = store->marks[*slot];

		if (mark && mark->dirty) {
			mark->dirty = false;
			found = mark;
		}
	}
	(void)pthread_mutex_unlock(&store->lock);
	return found;
}

int store_dispatch(struct store *store)
{
	struct store_mark *mark;
	unsigned int slot = 0;
	uint64_t count;

	if (read(store->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return -errno;
	while ((mark = next_dirty(store, &slot)))
		mark->changed(mark->ctx);
	return atomic_load(&store->lost) ? -ENOTCONN : 0;
}

/* Under lock.  The first free slot, made if need be. */
static int find_slot(struct store *store, unsigned int *ret)
{
	unsigned int slot = 0;

	while (slot < store->nr_slots && store->marks[slot])
		slot++;
	if (slot == store->nr_slots) {
		struct store_mark **marks = reallocarray(
			store->marks, slot + 1, sizeof(struct store_mark *));

		if (!marks)
			return -ENOMEM;
		store->marks = marks;
		store->nr_slots++;
	}
	*ret = slot;
	return 0;
}

int store_mark_new(struct store_mark **ret, struct store *store,
		   void (*changed)(void *ctx), void *ctx)
{
	struct store_mark *mark = calloc(1, sizeof(*mark));
	int r;

	if (!mark)
		return -ENOMEM;
	mark->store = store;
	mark->changed = changed;
	mark->ctx = ctx;
	(void)pthread_mutex_lock(&store->lock);
	mark->generation = store->generation++;
	r = find_slot(store, &mark->slot);
	if (r == 0)
		store->marks[mark->slot] = mark;
	(void)pthread_mutex_unlock(&store->lock);
	if (r < 0) {
		free(mark);
		return r;
	}
	*ret = mark;
	return 0;
}

void store_mark_free(struct store_mark *mark)
{
	struct store *store;
	char token[48];

	if (!mark)
		return;
	store = mark->store;
	for (unsigned int i = 0; i < mark->nr_watches; i++) {
		print_token(token, sizeof(token), mark, i);
		(void)xs_unwatch(store->events, mark->watches[i].path, token);
	}
	(void)pthread_mutex_lock(&store->lock);
	store->marks[mark->slot] = NULL;
	(void)pthread_mutex_unlock(&store->lock);
	free(mark->places);
	free(mark);
}

void store_mark_set(struct store_mark *mark)
{
	(void)pthread_mutex_lock(&mark->store->lock);
	set_mark(mark);
	(void)pthread_mutex_unlock(&mark->store->lock);
	wake(mark->store);
}

void store_mark_set_at(struct store_mark *mark, const char *path)
{
	(void)pthread_mutex_lock(&mark->store->lock);
	remember(mark, path);
	mark->dirty = true;
	(void)pthread_mutex_unlock(&mark->store->lock);
	wake(mark->store);
}

int store_mark_remember(struct store_mark *mark)
{
	struct store_places *places = calloc(1, sizeof(*places));

	if (!places)
		return -ENOMEM;
	(void)pthread_mutex_lock(&mark->store->lock);
	mark->places = places;
	(void)pthread_mutex_unlock(&mark->store->lock);
	return 0;
}

bool store_mark_places(struct store_mark *mark, struct store_places *ret)
{
	bool all;

	(void)pthread_mutex_lock(&mark->store->lock);
	all = !mark->anywhere;
	*ret = *mark->places;
	mark->anywhere = false;
	mark->places->nr = 0;
	(void)pthread_mutex_unlock(&mark->store->lock);
	return all;
}

int store_watch(struct store_mark *mark, const char *path,
		bool (*wanted)(const char *below))
{
	struct store *store = mark->store;
	unsigned int index = mark->nr_watches;
	struct watch *watch = &mark->watches[index];
	char token[48];
	int r;

	if (index == WATCHES_PER_MARK)
		return -ENOSPC;
	r = join(watch->path, path, NULL);
	if (r < 0)
		return r;
	watch->wanted = wanted;
	(void)pthread_mutex_lock(&store->lock);
	mark->nr_watches++; /* before its first event */
	(void)pthread_mutex_unlock(&store->lock);
	print_token(token, sizeof(token), mark, index);
	if (xs_watch(store->events, path, token))
		return 0;
	r = errno == E2BIG || errno == ENOSPC ? -EDQUOT : -errno;
	(void)pthread_mutex_lock(&store->lock);
	mark->nr_watches--;
	(void)pthread_mutex_unlock(&store->lock);
	return r;
}
