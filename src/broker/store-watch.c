/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * store-watch.c - watches without a queue.
 *
 * libxenstore keeps the watch events that nobody has taken in a list without a
 * limit: a guest that writes its state in a loop while the broker is busy would
 * eat the memory of dom0.  So a thread takes them at once and remembers only
 * that something has changed: one dirty bit per mark, and an eventfd that wakes
 * the broker's loop.  However often a guest writes, this costs the same.  A mark
 * may remember a few places as well, and that there were too many.
 *
 * Each event costs its reader a wake-up, and libxenstore's own thread, and the loop.
 * In a storm the thread rests for some milliseconds each time it has caught up, so
 * that those come for many events at once; who else has something to tell waits for
 * as long.
 *
 * The thread touches nothing but the table of marks, under `lock`.  A watch's
 * token says which mark it belongs to: "SLOT.GENERATION.WATCH"; the generation
 * tells an event that was on its way when a mark was freed from one for the mark
 * that took its slot.
 *
 * xenstored goes through all watches with every write of anybody, and sends an
 * event for each that matches.  So where there is a roof, a watch whose events
 * come anyway, those below it are not made known to xenstored: the thread finds
 * them by the event's path.  With 500 disks that is a third of all watches.
 */
#include <string.h>

#include "broker/pace.h"
#include "broker/store-private.h"

#define WATCHES_PER_MARK 4
#define STOP_TOKEN	 "stop"

struct watch {
	char path[STORE_PATH_MAX];
	bool (*wanted)(const char *below);
	struct store_mark *mark;
	struct watch *next_roof;
	bool covered; /* by a roof: xenstored does not know it */
	UT_hash_handle hh; /* of the covered ones, by path */
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

static bool is_at_or_below(const char *path, const char *place)
{
	size_t length = strlen(place);

	return strncmp(path, place, length) == 0 &&
	       (path[length] == '/' || path[length] == '\0');
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

/* Under lock.  True: the loop is to be woken. */
static bool note(const struct watch *watch, const char *path)
{
	struct store_mark *mark = watch->mark;
	bool news = !mark->dirty;

	if ((mark->dirty && !mark->places) || !is_wanted(watch, path))
		return false;
	remember(mark, path);
	mark->dirty = true;
	return news;
}

/* Under lock.  Covered watches do not lie below each other. */
static bool note_covered(struct store *store, const char *path)
{
	struct watch *watch = NULL, *next;
	size_t end = 0;
	bool news = false;

	/* At it or below it. */
	while (!watch && path[end]) {
		end += 1 + strcspn(path + end + 1, "/");
		HASH_FIND(hh, store->covered, path, end, watch);
	}
	if (watch)
		return note(watch, path);
	/* Above: what is below has gone with it. */
	HASH_ITER(hh, store->covered, watch, next) {
		if (is_at_or_below(watch->path, path))
			news |= note(watch, path);
	}
	return news;
}

static bool is_roof(const struct store *store, const struct watch *watch)
{
	const struct watch *roof = store->roofs;

	while (roof && roof != watch)
		roof = roof->next_roof;
	return roof != NULL;
}

static void fold(struct store *store, const char *path, const char *token)
{
	struct store_mark *mark;
	unsigned int watch = 0;
	bool news = false;

	(void)pthread_mutex_lock(&store->lock);
	mark = mark_of_token(store, token, &watch);
	if (mark)
		news = note(&mark->watches[watch], path);
	if (mark && is_roof(store, &mark->watches[watch]))
		news |= note_covered(store, path);
	(void)pthread_mutex_unlock(&store->lock);
	if (news)
		wake(store);
}

static char **next_event(struct store *store, struct pace *pace)
{
	static const struct timespec rest = { .tv_nsec = PACE_REST_NS };
	char **event = xs_check_watch(store->events);
	unsigned int nr;

	if (!event && pace_is_stormy(pace, now_ns())) {
		(void)nanosleep(&rest, NULL);
		pace_rested(pace, now_ns());
	}
	if (!event)
		event = xs_read_watch(store->events, &nr);
	pace->events++;
	return event;
}

static void *drain(void *arg)
{
	struct store *store = arg;
	struct pace pace = { .since = now_ns() };

	for (;;) {
		cleanup_free char **event = next_event(store, &pace);

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

int store_thread_start(struct store *store)
{
	int r;

	atomic_store(&store->lost, false);
	r = -pthread_create(&store->thread, NULL, drain, store);
	store->thread_runs = r == 0;
	if (r < 0)
		atomic_store(&store->lost, true);
	return r;
}

/* A new watch fires at once: that wakes the thread out of xs_read_watch(). */
void store_thread_stop(struct store *store)
{
	if (!store->thread_runs)
		return;
	if (!xs_watch(store->events, "@releaseDomain", STOP_TOKEN) &&
	    !atomic_load(&store->lost)) {
		(void)pthread_cancel(store->thread);
	}
	(void)pthread_join(store->thread, NULL);
}

/* --- Marks ---------------------------------------------------------------- */

/* Under lock. */
static void set_mark(struct store_mark *mark)
{
	mark->dirty = true;
	mark->anywhere = true;
}

void store_set_all_marks(struct store *store)
{
	(void)pthread_mutex_lock(&store->lock);
	for (unsigned int slot = 0; slot < store->nr_slots; slot++)
		if (store->marks[slot])
			set_mark(store->marks[slot]);
	(void)pthread_mutex_unlock(&store->lock);
	wake(store);
}

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

static void print_token(char *buf, size_t len, const struct store_mark *mark,
			unsigned int watch)
{
	(void)snprintf(buf, len, "%u.%u.%u", mark->slot, mark->generation,
		       watch);
}

/* xenstored's part: none where a roof has covered it. */
static void unwatch(struct store_mark *mark, unsigned int index)
{
	struct watch *watch = &mark->watches[index];
	char token[48];

	print_token(token, sizeof(token), mark, index);
	if (!watch->covered)
		(void)xs_unwatch(mark->store->events, watch->path, token);
}

/* Under lock. */
static void forget_watch(struct store *store, struct watch *watch)
{
	struct watch **roof = &store->roofs;

	if (watch->covered)
		HASH_DELETE(hh, store->covered, watch);
	while (*roof && *roof != watch)
		roof = &(*roof)->next_roof;
	if (*roof)
		*roof = watch->next_roof;
}

void store_mark_free(struct store_mark *mark)
{
	struct store *store;

	if (!mark)
		return;
	store = mark->store;
	for (unsigned int i = 0; i < mark->nr_watches; i++)
		unwatch(mark, i);
	(void)pthread_mutex_lock(&store->lock);
	for (unsigned int i = 0; i < mark->nr_watches; i++)
		forget_watch(store, &mark->watches[i]);
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

/* Under lock.  Does a roof tell of it, and of nobody else at this place? */
static void cover(struct store *store, struct watch *watch)
{
	const struct watch *roof = store->roofs;
	struct watch *other;

	while (roof && !is_at_or_below(watch->path, roof->path))
		roof = roof->next_roof;
	if (!roof)
		return;
	HASH_FIND_STR(store->covered, watch->path, other);
	if (other)
		return;
	HASH_ADD_STR(store->covered, path, watch);
	watch->covered = true;
}

/* The next of the mark's watches, before its first event. */
static int add_watch(struct store_mark *mark, const char *path,
		     bool (*wanted)(const char *below), struct watch **ret)
{
	struct watch *watch = &mark->watches[mark->nr_watches];
	int r;

	if (mark->nr_watches == WATCHES_PER_MARK)
		return -ENOSPC;
	r = store_join(watch->path, path, NULL);
	if (r < 0)
		return r;
	watch->wanted = wanted;
	watch->mark = mark;
	(void)pthread_mutex_lock(&mark->store->lock);
	mark->nr_watches++;
	cover(mark->store, watch);
	(void)pthread_mutex_unlock(&mark->store->lock);
	*ret = watch;
	return 0;
}

int store_watch(struct store_mark *mark, const char *path,
		bool (*wanted)(const char *below))
{
	struct store *store = mark->store;
	struct watch *watch;
	char token[48];
	int r = add_watch(mark, path, wanted, &watch);

	if (r < 0)
		return r;
	if (watch->covered) {
		store_mark_set_at(mark, watch->path);
		return 0;
	}
	print_token(token, sizeof(token), mark, mark->nr_watches - 1);
	if (xs_watch(store->events, path, token))
		return 0;
	r = errno == E2BIG || errno == ENOSPC ? -EDQUOT : -errno;
	(void)pthread_mutex_lock(&store->lock);
	mark->nr_watches--;
	(void)pthread_mutex_unlock(&store->lock);
	return r;
}

int store_watch_roof(struct store_mark *mark, const char *path,
		     bool (*wanted)(const char *below))
{
	struct store *store = mark->store;
	int r = store_watch(mark, path, wanted);
	struct watch *watch;

	if (r < 0)
		return r;
	watch = &mark->watches[mark->nr_watches - 1];
	(void)pthread_mutex_lock(&store->lock);
	watch->next_roof = store->roofs;
	store->roofs = watch;
	(void)pthread_mutex_unlock(&store->lock);
	return 0;
}

bool store_watch_again(struct store *store, struct xs_handle *events)
{
	for (unsigned int slot = 0; slot < store->nr_slots; slot++) {
		const struct store_mark *mark = store->marks[slot];

		for (unsigned int i = 0; mark && i < mark->nr_watches; i++) {
			char token[48];

			if (mark->watches[i].covered)
				continue;
			print_token(token, sizeof(token), mark, i);
			if (!xs_watch(events, mark->watches[i].path, token))
				return false;
		}
	}
	return true;
}
