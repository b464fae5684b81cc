/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The broker's store.c on the real xenstored: that changes are folded, that
 * nobody is told of what is not wanted or of what was freed, and that a
 * neighbour who writes and writes costs no memory while the broker is busy.
 */
#include "config.h"

#include <malloc.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <xenstore.h>

#include "../unit/leave-out.h"
#include "broker/store.h"
#include "test-sim.h"

#define FLAPS 20000

struct world {
	struct store *store;
	struct store_mark *last; /* of "/last": see seen() */
	struct xs_handle *other; /* another party */
	unsigned int told;
	unsigned int told_too;
};

static void ignore(void *ctx)
{
	(void)ctx;
}

static void open_store(struct world *w)
{
	assert_int_equal(store_open(&w->store), 0);
	assert_int_equal(store_mark_new(&w->last, w->store, ignore, NULL), 0);
	assert_int_equal(store_mark_remember(w->last), 0);
	assert_int_equal(store_watch(w->last, "/last", NULL), 0);
}

static void close_store(struct world *w)
{
	store_mark_free(w->last);
	store_close(w->store);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	open_store(w);
	w->other = xs_open(0);
	assert_non_null(w->other);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	close_store(w);
	(void)xs_rm(w->other, XBT_NULL, "/test");
	(void)xs_rm(w->other, XBT_NULL, "/last");
	xs_close(w->other);
	free(w);
	return 0;
}

static void put(struct world *w, const char *path, const char *value)
{
	assert_true(xs_write(w->other, XBT_NULL, path, value,
			     (unsigned int)strlen(value)));
}

static void count(void *ctx)
{
	(*(unsigned int *)ctx)++;
}

static bool has_seen(struct world *w, const char *path)
{
	struct store_places places;

	(void)store_mark_places(w->last, &places);
	for (unsigned int i = 0; i < places.nr; i++)
		if (strcmp(places.path[i], path) == 0)
			return true;
	return false;
}

/* Until the store's thread has taken all events there are, undispatched: xenstored
 * sends them in order, and the thread has met one that was made last.  However slow
 * the machine is; a minute means that it never comes. */
static void seen(struct world *w)
{
	static unsigned int nr;
	char path[32];

	(void)snprintf(path, sizeof(path), "/last/%u", nr++);
	(void)has_seen(w, path); /* what it had is forgotten: there is room */
	put(w, path, "1");
	for (int i = 0; i < 60000; i++) {
		if (has_seen(w, path))
			return;
		(void)usleep(1000);
	}
	fail_msg("the store's thread has not seen %s", path);
}

/* Dispatches all that has happened. */
static void quiet(struct world *w)
{
	struct pollfd pfd = { .fd = store_fd(w->store), .events = POLLIN };

	seen(w);
	while (poll(&pfd, 1, 0) > 0)
		assert_int_equal(store_dispatch(w->store), 0);
}

static struct store_mark *watch(struct world *w, const char *path,
				bool (*wanted)(const char *below),
				unsigned int *counter)
{
	struct store_mark *mark;

	assert_int_equal(store_mark_new(&mark, w->store, count, counter), 0);
	assert_int_equal(store_watch(mark, path, wanted), 0);
	quiet(w); /* a new watch fires */
	*counter = 0;
	return mark;
}

static bool is_state(const char *below)
{
	return *below == '\0' || strcmp(below, "state") == 0;
}

static void changes_are_folded(void **state)
{
	struct world *w = *state;
	struct store_mark *mark = watch(w, "/test", NULL, &w->told);

	for (int i = 0; i < 100; i++)
		put(w, "/test/a", "1");
	seen(w);
	assert_int_equal(store_dispatch(w->store), 0);
	assert_int_equal(w->told, 1);
	put(w, "/test/b", "1");
	quiet(w);
	assert_int_equal(w->told, 2);
	store_mark_free(mark);
}

static void only_what_is_wanted(void **state)
{
	struct world *w = *state;
	struct store_mark *mark = watch(w, "/test/d", is_state, &w->told);

	put(w, "/test/d/sectors", "1");
	put(w, "/test/d/state/below", "1");
	put(w, "/test/dd/state", "1");
	quiet(w);
	assert_int_equal(w->told, 0);
	put(w, "/test/d/state", "1");
	quiet(w);
	assert_int_equal(w->told, 1);
	assert_true(xs_rm(w->other, XBT_NULL, "/test"));
	quiet(w);
	assert_true(w->told > 1); /* it is gone with its parent */
	store_mark_free(mark);
}

static bool nothing(const char *below)
{
	(void)below;
	return false;
}

/* Watches that xenstored does not know: the roof's events serve them. */
static void below_a_roof(void **state)
{
	struct world *w = *state;
	struct store_mark *roof, *covered, *second;
	unsigned int told_second = 0;

	assert_int_equal(store_mark_new(&roof, w->store, count, &w->told), 0);
	assert_int_equal(store_watch_roof(roof, "/test/k", nothing), 0);
	quiet(w); /* its first event is about all below it */
	assert_int_equal(
		store_mark_new(&covered, w->store, count, &w->told_too), 0);
	assert_int_equal(store_watch(covered, "/test/k/1/d", is_state), 0);
	quiet(w);
	assert_int_equal(w->told_too, 1); /* a new watch fires */
	second = watch(w, "/test/k/1/d", is_state, &told_second);
	w->told_too = 0;
	put(w, "/test/k/1/d/sectors", "1");
	put(w, "/test/k/1/dd/state", "1");
	put(w, "/test/k/2/d/state", "1");
	quiet(w);
	assert_int_equal(w->told_too, 0);
	put(w, "/test/k/1/d/state", "1");
	quiet(w);
	assert_int_equal(w->told_too, 1);
	assert_int_equal(told_second, 1); /* both are at one place */
	assert_true(xs_rm(w->other, XBT_NULL, "/test/k/1"));
	quiet(w);
	assert_int_equal(w->told_too, 2); /* it is gone with its parent */
	assert_true(xs_rm(w->other, XBT_NULL, "/test"));
	quiet(w);
	assert_int_equal(w->told_too, 3); /* or with the roof's */
	store_mark_free(covered);
	put(w, "/test/k/1/d/state", "1");
	quiet(w);
	assert_int_equal(w->told_too, 3);
	assert_int_equal(w->told, 0);
	store_mark_free(second);
	store_mark_free(roof);
}

static void places_are_remembered(void **state)
{
	struct world *w = *state;
	struct store_mark *mark = watch(w, "/test", NULL, &w->told);
	struct store_places places;

	assert_int_equal(store_mark_remember(mark), 0);
	store_mark_set_at(mark, "/by/hand");
	put(w, "/test/a", "1");
	put(w, "/test/b/c", "1");
	put(w, "/test/a", "2");
	quiet(w);
	assert_true(store_mark_places(mark, &places));
	assert_int_equal(places.nr, 3);
	assert_string_equal(places.path[0], "/by/hand");
	assert_string_equal(places.path[1], "/test/a");
	assert_string_equal(places.path[2], "/test/b/c");
	assert_true(store_mark_places(mark, &places));
	assert_int_equal(places.nr, 0);
	store_mark_set(mark);
	assert_false(store_mark_places(mark, &places));
	for (unsigned int i = 0; i <= STORE_MAX_PLACES; i++) {
		char path[32];

		snprintf(path, sizeof(path), "/test/%u", i);
		put(w, path, "1");
	}
	quiet(w);
	assert_false(store_mark_places(mark, &places));
	assert_true(store_mark_places(mark, &places));
	store_mark_free(mark);
}

static void a_freed_mark_is_silent(void **state)
{
	struct world *w = *state;
	struct store_mark *mark = watch(w, "/test", NULL, &w->told);
	struct store_mark *next;

	put(w, "/test/a", "1");
	seen(w);
	store_mark_free(mark); /* dirty, and not told yet */
	next = watch(w, "/else", NULL, &w->told_too); /* takes its slot */
	put(w, "/test/a", "2");
	quiet(w);
	assert_int_equal(w->told, 0);
	assert_int_equal(w->told_too, 0);
	store_mark_free(next);
}

static void reads_and_writes(void **state)
{
	struct world *w = *state;
	char *text = NULL;
	uint32_t number = 7;
	bool alive;

	assert_int_equal(store_read(w->store, "/test", "none", &text), -ENOENT);
	assert_int_equal(store_write(w->store, "/test/x/y", "z", "%d", 42), 0);
	assert_int_equal(store_read_u32(w->store, "/test/x/y", "z", 41,
					&number),
			 -EINVAL);
	assert_int_equal(number, 7);
	assert_int_equal(
		store_read_u32(w->store, "/test/x/y", "z", 42, &number), 0);
	assert_int_equal(number, 42);
	assert_true(xs_write(w->other, XBT_NULL, "/test/nul",
			     "4\0"
			     "2",
			     3));
	assert_int_equal(store_read(w->store, "/test", "nul", &text), -EBADMSG);
	assert_true(xs_rm(w->other, XBT_NULL, "/test/nul"));
	put(w, "/test/keep", "1");
	assert_int_equal(store_remove_branch(w->store, "/test/x/y", 5), 0);
	assert_int_equal(store_read(w->store, "/test", "x", &text), -ENOENT);
	assert_int_equal(store_read(w->store, "/test", "keep", &text), 0);
	free(text);
	assert_int_equal(store_remove(w->store, "/test", "none"), 0);
	assert_int_equal(store_domain_alive(w->store, 4711, &alive), 0);
	assert_false(alive);
}

/* --- A lost connection ------------------------------------------------------- */

/* Passes everything on to xenstored, until it is told to end. */
struct relay {
	char path[108];
	const char *upstream;
	pid_t pid;
};

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		_exit(1);
	return fd;
}

static bool pass_on(int from, int to)
{
	char buf[4096];
	ssize_t n = read(from, buf, sizeof(buf));

	return n > 0 && write(to, buf, (size_t)n) == n;
}

/* Pairs of connections: [2n] is of the store, [2n + 1] of xenstored. */
static void relay_main(int listener, const char *upstream)
{
	struct pollfd fds[17] = { 0 };
	nfds_t nr = 0;

	for (;;) {
		fds[nr] = (struct pollfd){ .fd = listener, .events = POLLIN };
		(void)poll(fds, nr + 1, -1);
		for (nfds_t i = 0; i < nr; i++)
			if (fds[i].revents &&
			    !pass_on(fds[i].fd, fds[i ^ 1].fd))
				_exit(0);
		if (!fds[nr].revents || nr == 16)
			continue;
		fds[nr].fd = accept(listener, NULL, NULL);
		fds[nr].events = POLLIN;
		fds[nr + 1] = (struct pollfd){ .fd = connect_to(upstream),
					       .events = POLLIN };
		nr += 2;
	}
}

static void start_relay(struct relay *relay)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, relay->path);
	(void)unlink(relay->path);
	assert_int_equal(bind(listener, (struct sockaddr *)&address,
			      sizeof(address)),
			 0);
	assert_int_equal(listen(listener, 8), 0);
	relay->pid = fork();
	if (relay->pid == 0)
		relay_main(listener, relay->upstream);
	(void)close(listener);
}

static void end_relay(struct relay *relay)
{
	(void)kill(relay->pid, SIGKILL);
	(void)waitpid(relay->pid, NULL, 0);
	(void)unlink(relay->path);
}

static void a_lost_connection_is_made_again(void **state)
{
	struct world *w = *state;
	struct world own = *w;
	char *real = strdup(getenv("XENSTORED_PATH")), *text = NULL;
	struct relay relay = { .upstream = real };
	struct store_mark *mark;
	struct pollfd pfd;
	int r;

	(void)snprintf(relay.path, sizeof(relay.path), "%s-relay", real);
	(void)setenv("XENSTORED_PATH", relay.path, 1);
	start_relay(&relay);
	open_store(w);
	mark = watch(w, "/test", NULL, &w->told);
	end_relay(&relay);
	pfd = (struct pollfd){ .fd = store_fd(w->store), .events = POLLIN };
	/* The wake-up of seen()'s place may still be there. */
	while ((r = store_dispatch(w->store)) == 0)
		assert_int_equal(poll(&pfd, 1, 60000), 1);
	assert_int_equal(r, -ENOTCONN);
	assert_true(store_read(w->store, "/test", "a", &text) < 0);
	assert_int_not_equal(store_read(w->store, "/test", "a", &text),
			     -ENOENT); /* nobody knows */
	assert_true(store_reconnect(w->store) < 0); /* nobody is there */
	start_relay(&relay);
	assert_int_equal(store_reconnect(w->store), 0);
	(void)setenv("XENSTORED_PATH", real, 1);
	put(w, "/test/a", "1"); /* what happened meanwhile counts as news */
	quiet(w);
	assert_true(w->told >= 1);
	w->told = 0;
	put(w, "/test/a", "2");
	quiet(w);
	assert_int_equal(w->told, 1);
	assert_int_equal(store_read(w->store, "/test", "a", &text), 0);
	free(text);
	store_mark_free(mark);
	close_store(w);
	end_relay(&relay);
	w->store = own.store;
	w->last = own.last;
	free(real);
}

struct interference {
	struct world *world;
	int times; /* to interfere */
	int runs;
};

static int interfered(struct store *store, void *ctx)
{
	struct interference *in = ctx;
	uint32_t number = 0;

	in->runs++;
	(void)store_read_u32(store, "/test", "n", UINT32_MAX, &number);
	if (in->times-- > 0)
		put(in->world, "/test/n", "100");
	return store_write(store, "/test", "n", "%u", number + 1);
}

static void transactions_are_run_again(void **state)
{
	struct world *w = *state;
	struct interference in = { .world = w, .times = 3 };
	uint32_t number = 0;

	put(w, "/test/n", "1");
	assert_int_equal(store_transact(w->store, interfered, &in), 0);
	assert_int_equal(in.runs, 4);
	assert_int_equal(
		store_read_u32(w->store, "/test", "n", UINT32_MAX, &number), 0);
	assert_int_equal(number, 101);
	in = (struct interference){ .world = w, .times = 1000 };
	assert_int_equal(store_transact(w->store, interfered, &in), -EAGAIN);
	assert_int_equal(in.runs, 20);
}

static ssize_t heap(void)
{
	return (ssize_t)mallinfo2().uordblks;
}

static void flap(struct world *w)
{
	/* xenstored drops an event equal to one that still waits: so others. */
	for (int i = 0; i < FLAPS; i++) {
		char path[32];

		(void)snprintf(path, sizeof(path), "/test/flap/%d", i % 1000);
		put(w, path, "4");
	}
}

/* Sanitizers and valgrind have a heap of their own. */
static bool heap_can_be_measured(void)
{
	size_t before = mallinfo2().uordblks;
	void *volatile block = malloc(64 << 10);
	bool measured = mallinfo2().uordblks >= before + (64 << 10);

	free(block);
	return measured;
}

static void flapping_costs_nothing(void **state)
{
	struct world *w = *state;
	struct store_mark *mark;
	struct xs_handle *queue;
	ssize_t before;

	if (!heap_can_be_measured())
		LEAVE_OUT("malloc is not glibc's");
	mark = watch(w, "/test", NULL, &w->told);
	queue = xs_open(0);
	/* What it is for: libxenstore's own queue, not drained. */
	assert_true(xs_watch(queue, "/test", "token"));
	before = heap();
	flap(w);
	for (int i = 0; i < 60000 && heap() - before < 512 << 10; i++)
		(void)usleep(1000);
	assert_true(heap() - before >= 512 << 10);
	xs_close(queue);
	quiet(w);
	w->told = 0;
	/* Nobody dispatches, but the thread sees the last one. */
	before = heap();
	flap(w);
	seen(w);
	assert_true(heap() - before < 64 << 10);
	quiet(w);
	assert_int_equal(w->told, 1);
	store_mark_free(mark);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(changes_are_folded),
		TEST(only_what_is_wanted),
		TEST(below_a_roof),
		TEST(places_are_remembered),
		TEST(a_freed_mark_is_silent),
		TEST(reads_and_writes),
		TEST(transactions_are_run_again),
		TEST(flapping_costs_nothing),
		TEST(a_lost_connection_is_made_again),
	};

	(void)argc;
	need_machine(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
