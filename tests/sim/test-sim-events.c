/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The stand-in's event channels, and a backend that has locked itself down. */
#include "config.h"

#include <seccomp.h>

#include "hv.h"
#include "test-sim.h"

/* The sanitizer's own system calls would be taken for the library's. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static bool readable(int fd, int timeout_ms)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, timeout_ms) == 1;
}

static bool backend_hears(struct both *b, int port)
{
	return readable(xenevtchn_fd(b->evtchn), 0) &&
	       xenevtchn_pending(b->evtchn) == port;
}

static bool guest_hears(struct both *b, uint32_t port)
{
	uint32_t heard = 0;

	return xensim_events_wait(b->events, 1000, &heard) == 0 &&
	       heard == port;
}

static bool guest_hears_nothing(struct both *b)
{
	uint32_t heard;

	return xensim_events_wait(b->events, 0, &heard) == -ETIMEDOUT;
}

static uint32_t guest_port(struct both *b)
{
	uint32_t port;

	assert_int_equal(xensim_evtchn_alloc_unbound(b->events, 0, &port), 0);
	return port;
}

/* Both ends bound, and the first, spurious event taken. */
static int bind_both(struct both *b, uint32_t theirs)
{
	int ours = xenevtchn_bind_interdomain(b->evtchn, b->domid, theirs);

	assert_true(ours > 0);
	assert_true(backend_hears(b, ours));
	assert_int_equal(xenevtchn_unmask(b->evtchn, (unsigned)ours), 0);
	return ours;
}

static void test_there_and_back(void **state)
{
	struct both *b = *state;
	uint32_t theirs = guest_port(b);
	int ours = bind_both(b, theirs);

	assert_int_equal(xensim_evtchn_send(b->guest, theirs), 0);
	assert_true(backend_hears(b, ours));
	assert_int_equal(xenevtchn_notify(b->evtchn, (unsigned)ours), 0);
	assert_true(guest_hears(b, theirs));
	assert_true(guest_hears_nothing(b));
}

static void test_masked_until_unmasked(void **state)
{
	struct both *b = *state;
	uint32_t theirs = guest_port(b);
	int ours = bind_both(b, theirs);

	for (int i = 0; i < 3; i++)
		xensim_evtchn_send(b->guest, theirs);
	assert_true(backend_hears(b, ours));
	assert_false(readable(xenevtchn_fd(b->evtchn), 0));
	xensim_evtchn_send(b->guest, theirs);
	assert_false(readable(xenevtchn_fd(b->evtchn), 0));
	xenevtchn_unmask(b->evtchn, (unsigned)ours);
	assert_true(backend_hears(b, ours));
	assert_false(readable(xenevtchn_fd(b->evtchn), 0));
}

/* The negative control: a port cannot be bound twice, nor by the wrong one. */
static void test_bind_refused(void **state)
{
	struct both *b = *state;
	uint32_t theirs = guest_port(b), foreign;

	bind_both(b, theirs);
	assert_int_equal(
		xenevtchn_bind_interdomain(b->evtchn, b->domid, theirs), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(xensim_evtchn_alloc_unbound(b->events, 7, &foreign),
			 0);
	assert_int_equal(
		xenevtchn_bind_interdomain(b->evtchn, b->domid, foreign), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(xenevtchn_bind_interdomain(b->evtchn, 4000, 1), -1);
	assert_int_equal(errno, ESRCH);
}

static void test_close_leaves_unbound(void **state)
{
	struct both *b = *state;
	uint32_t theirs = guest_port(b);
	int ours = bind_both(b, theirs);
	struct xensim_evtchn_status status;

	assert_int_equal(xenevtchn_unbind(b->evtchn, (unsigned)ours), 0);
	xensim_evtchn_status(b->machine, b->domid, theirs, &status);
	assert_int_equal(status.state, XENSIM_EVTCHN_UNBOUND);
	assert_int_equal(status.remote_domid, 0);
	assert_true(guest_hears_nothing(b));
	assert_int_equal(xensim_evtchn_send(b->guest, theirs), 0);
	assert_int_equal(xenevtchn_notify(b->evtchn, (unsigned)ours), -1);
	assert_int_equal(errno, ENOTCONN);
	assert_int_equal(xenevtchn_unbind(b->evtchn, (unsigned)ours), -1);

	/* And the other way round: the backend's end stays, for this guest. */
	ours = bind_both(b, theirs);
	assert_int_equal(xensim_evtchn_close(b->guest, theirs), 0);
	xensim_evtchn_status(b->machine, 0, (unsigned)ours, &status);
	assert_int_equal(status.state, XENSIM_EVTCHN_UNBOUND);
	assert_int_equal(status.remote_domid, b->domid);
	assert_int_equal(xenevtchn_notify(b->evtchn, (unsigned)ours), 0);
	assert_int_equal(xensim_evtchn_send(b->guest, theirs), -EINVAL);
	assert_int_equal(
		xensim_evtchn_bind(b->events, 0, (unsigned)ours, &theirs), 0);
	assert_true(guest_hears(b, theirs));
}

static void bind_and_stay(void *arg)
{
	uint32_t *args = arg;
	xenevtchn_handle *h = xenevtchn_open(NULL, 0);

	require(xenevtchn_bind_interdomain(h, args[0], args[1]) > 0);
}

/* The dead one's end is found without its successor having to look for it. */
static void test_death_unbinds(void **state)
{
	struct both *b = *state;
	uint32_t theirs = guest_port(b);
	struct xensim_evtchn_status status;
	pid_t pid = spawn(bind_and_stay, (uint32_t[]){ b->domid, theirs });

	xensim_evtchn_status(b->machine, b->domid, theirs, &status);
	assert_int_equal(status.state, XENSIM_EVTCHN_INTERDOMAIN);
	kill_child(pid);
	assert_int_equal(xensim_evtchn_send(b->guest, theirs), 0);
	bind_both(b, theirs);
}

/* A backend that was killed while it sent: the bit is set, nobody was told. */
static void test_death_while_sending(void **state)
{
	struct both *b = *state;
	uint32_t theirs = guest_port(b);
	struct hv *hv;

	assert_int_equal(hv_open(NULL, &hv), 0);
	hv_domain(hv, hv_domain_find(hv, b->domid))->ports[theirs].bits |=
		HV_PORT_PENDING;
	hv_close(hv);
	assert_true(guest_hears_nothing(b));
	bind_both(b, theirs);
	assert_true(guest_hears(b, theirs));
}

static void test_descriptor_is_the_device(void **state)
{
	struct both *b = *state;
	xenevtchn_handle *first = xenevtchn_open(NULL, 0), *second;
	uint32_t theirs = guest_port(b);
	int ours = xenevtchn_bind_interdomain(first, b->domid, theirs);
	int fd = dup(xenevtchn_fd(first));

	assert_int_equal(xenevtchn_close(first), 0);
	second = xenevtchn_fdopen(NULL, fd, 0);
	assert_non_null(second);
	assert_int_equal(xenevtchn_pending(second), ours);
	assert_int_equal(xenevtchn_notify(second, (unsigned)ours), 0);
	assert_true(guest_hears(b, theirs));
	assert_int_equal(xenevtchn_close(second), 0);
	bind_both(b, theirs);
	assert_null(xenevtchn_fdopen(NULL, 0, 0));
}

static void test_restrict_and_virq(void **state)
{
	struct both *b = *state;
	xenevtchn_handle *h = xenevtchn_open(NULL, 0);
	int virq = xenevtchn_bind_virq(h, 5);

	assert_true(virq > 0);
	assert_int_equal(xenevtchn_bind_virq(b->evtchn, 5), -1);
	assert_int_equal(errno, EEXIST);
	assert_int_equal(xenevtchn_unbind(h, (unsigned)virq), 0);
	assert_int_equal(xenevtchn_restrict(h, 0), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(xenevtchn_restrict(h, 4), 0);
	assert_int_equal(xenevtchn_restrict(h, 5), -1);
	assert_int_equal(xenevtchn_bind_interdomain(h, b->domid, guest_port(b)),
			 -1);
	assert_int_equal(errno, EACCES);
	assert_int_equal(xenevtchn_bind_virq(h, 5), -1);
	xenevtchn_close(h);
}

static void test_destroyed_guest(void **state)
{
	struct both *b = *state;
	uint32_t theirs = guest_port(b);
	int ours = bind_both(b, theirs);

	assert_int_equal(xensim_domain_destroy(b->machine, b->domid), 0);
	assert_int_equal(xenevtchn_notify(b->evtchn, (unsigned)ours), 0);
	assert_int_equal(xensim_evtchn_send(b->guest, theirs), -ESRCH);
	assert_int_equal(xensim_evtchn_alloc_unbound(b->events, 0, &theirs),
			 -ESRCH);
}

/* --- The guest's waiting --------------------------------------------------------- */

static void *kick_later(void *arg)
{
	usleep(20000);
	xensim_events_kick(arg);
	return NULL;
}

static void test_wait_and_kick(void **state)
{
	struct both *b = *state;
	pthread_t thread;
	uint32_t port;

	assert_int_equal(xensim_events_wait(b->events, 10, &port), -ETIMEDOUT);
	pthread_create(&thread, NULL, kick_later, b->events);
	assert_int_equal(xensim_events_wait(b->events, -1, &port), -EINTR);
	pthread_join(thread, NULL);
}

static void test_many_ports(void **state)
{
	struct both *b = *state;
	int ours[200];
	uint32_t theirs[200], heard;
	bool seen[8192] = { false };

	for (int i = 0; i < 200; i++) {
		theirs[i] = guest_port(b);
		ours[i] = bind_both(b, theirs[i]);
	}
	for (int i = 0; i < 200; i++)
		xenevtchn_notify(b->evtchn, (unsigned)ours[i]);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(xensim_events_wait(b->events, 0, &heard), 0);
		assert_false(seen[heard]);
		seen[heard] = true;
	}
	assert_true(guest_hears_nothing(b));
}

static void test_wait_by_descriptor(void **state)
{
	struct both *b = *state;
	uint32_t theirs = guest_port(b), heard;
	int ours = bind_both(b, theirs), fd = xensim_events_fd(b->events);

	while (readable(fd, 50))
		assert_int_equal(xensim_events_wait(b->events, 0, &heard),
				 -ETIMEDOUT);
	xenevtchn_notify(b->evtchn, (unsigned)ours);
	assert_true(readable(fd, 1000));
	assert_int_equal(xensim_events_wait(b->events, 0, &heard), 0);
	assert_int_equal(heard, theirs);
}

/* --- What the guest sleeps in: the domain's bell, or a futex ------------------------- */

enum place { IN_FUTEX, IN_BELL };

struct watcher {
	struct hv_handle *handle;
	xenevtchn_handle *backend;
	unsigned int port;
	enum place place;
};

/* The events object of the guest that was opened last, as the machine has it. */
static struct hv_handle *guest_handle(struct both *b)
{
	struct hv_handle *found = NULL;
	struct hv *hv;

	assert_int_equal(hv_open(NULL, &hv), 0);
	for (uint32_t i = 0; i < hv->shared->nr_handles; i++) {
		struct hv_handle *h = &hv->shared->handles[i];

		if (h->kind == HV_EVENTS_FUTEX &&
		    h->slot == hv_domain_find(hv, b->domid) &&
		    (!found || h->serial > found->serial))
			found = h;
	}
	hv_close(hv); /* the guest has it open as well */
	assert_non_null(found);
	return found;
}

static void *notify_sleeper(void *arg)
{
	struct watcher *w = arg;

	while (!w->handle->waiting && !w->handle->listening)
		usleep(1000);
	w->place = w->handle->listening ? IN_BELL : IN_FUTEX;
	xenevtchn_notify(w->backend, w->port);
	return NULL;
}

/* Where it slept until the backend's event came. */
static enum place slept(struct both *b, xenevtchn_handle *backend, int ours,
			uint32_t theirs, int timeout_ms)
{
	struct watcher w = { guest_handle(b), backend, (unsigned)ours,
			     IN_BELL };
	pthread_t thread;
	uint32_t heard;

	alarm(60);
	assert_int_equal(pthread_create(&thread, NULL, notify_sleeper, &w), 0);
	assert_int_equal(xensim_events_wait(b->events, timeout_ms, &heard), 0);
	pthread_join(thread, NULL);
	alarm(0);
	assert_int_equal(heard, theirs);
	assert_int_equal(w.handle->listening + w.handle->waiting, 0);
	return w.place;
}

static xenevtchn_handle *restricted(uint32_t domid)
{
	xenevtchn_handle *h = xenevtchn_open(NULL, 0);

	require(h && xenevtchn_restrict(h, (domid_t)domid) == 0);
	return h;
}

/* The same with and without a limit of time. */
static void assert_sleeps(struct both *b, xenevtchn_handle *backend, int ours,
			  uint32_t theirs, enum place place)
{
	for (int i = 0; i < 3; i++) {
		assert_int_equal(slept(b, backend, ours, theirs, -1), place);
		assert_int_equal(slept(b, backend, ours, theirs, 50000), place);
	}
}

static void test_bell(void **state)
{
	struct both *b = *state;
	uint32_t theirs = guest_port(b);
	xenevtchn_handle *h = restricted(b->domid);
	int ours = xenevtchn_bind_interdomain(h, b->domid, theirs);

	assert_sleeps(b, h, ours, theirs, IN_BELL);
	assert_false(guest_handle(b)->deaf);
	xenevtchn_close(h);
}

/* Who does not have the bell is heard all the same, and rings it but once. */
static void test_no_bell(void **state)
{
	struct both *b = *state;
	uint32_t theirs = guest_port(b);
	int ours = bind_both(b, theirs);
	xenevtchn_handle *h;

	assert_int_equal(slept(b, b->evtchn, ours, theirs, -1), IN_BELL);
	assert_true(guest_handle(b)->deaf);
	assert_sleeps(b, b->evtchn, ours, theirs, IN_FUTEX);
	/* For good, also when somebody comes who has it. */
	h = restricted(b->domid);
	assert_sleeps(b, b->evtchn, ours, theirs, IN_FUTEX);
	xenevtchn_close(h);
}

static void test_bell_switched_off(void **state)
{
	struct both *b = *state;
	xenevtchn_handle *h = restricted(b->domid);
	uint32_t theirs;
	int ours;

	xensim_events_close(b->events);
	setenv("XENSIM_FUTEX", "1", 1);
	assert_int_equal(xensim_events_open(b->guest, &b->events), 0);
	unsetenv("XENSIM_FUTEX");
	theirs = guest_port(b);
	ours = xenevtchn_bind_interdomain(h, b->domid, theirs);
	assert_sleeps(b, h, ours, theirs, IN_FUTEX);
	assert_false(guest_handle(b)->deaf);
	xenevtchn_close(h);
}

static void listen_and_stay(void *arg)
{
	struct both *b = arg;
	struct xensim_events *events;

	require(xensim_events_open(b->guest, &events) == 0);
}

/* One has the bell at a time, until it closes or dies. */
static void test_one_listener(void **state)
{
	struct both *b = *state;
	xenevtchn_handle *h = restricted(b->domid);
	struct xensim_events *first = b->events;
	enum place places[] = { IN_FUTEX, IN_BELL, IN_FUTEX, IN_BELL };
	pid_t pid = 0;

	for (int i = 0; i < 4; i++) {
		uint32_t theirs;
		int ours;

		if (i == 1)
			xensim_events_close(first);
		if (i == 2)
			pid = spawn(listen_and_stay, b);
		if (i == 3)
			kill_child(pid);
		assert_int_equal(xensim_events_open(b->guest, &b->events), 0);
		theirs = guest_port(b);
		ours = xenevtchn_bind_interdomain(h, b->domid, theirs);
		assert_sleeps(b, h, ours, theirs, places[i]);
		xensim_events_close(b->events);
	}
	assert_int_equal(xensim_events_open(b->guest, &b->events), 0);
	xenevtchn_close(h);
}

static void echo(void *arg)
{
	uint32_t *args = arg;
	xenevtchn_handle *h = restricted(args[0]);
	int port = xenevtchn_bind_interdomain(h, args[0], args[1]);

	require(port > 0);
	while (xenevtchn_pending(h) == port) {
		xenevtchn_unmask(h, (unsigned)port);
		xenevtchn_notify(h, (unsigned)port);
	}
	_exit(1);
}

/* No wake-up is lost, however the two meet, nor when the backend is killed. */
static void test_echo(void **state)
{
	struct both *b = *state;
	uint32_t theirs = guest_port(b), heard;

	alarm(120);
	for (int life = 0; life < 3; life++) {
		pid_t pid = fork();

		if (pid == 0)
			echo((uint32_t[]){ b->domid, theirs });
		for (int i = 0; i < 2000; i++) {
			assert_int_equal(xensim_events_wait(b->events,
							    i % 2 ? -1 : 100000,
							    &heard),
					 0);
			assert_int_equal(heard, theirs);
			xensim_evtchn_send(b->guest, theirs);
		}
		kill_child(pid);
	}
	alarm(0);
	assert_false(guest_handle(b)->deaf);
}

/* --- A locked-down backend --------------------------------------------------------- */

struct order {
	uint32_t domid, ref, port;
};

/* What a worker may do once it serves, and nothing more. */
static void lock_down(void)
{
	const int allowed[] = {
		SCMP_SYS(read),	      SCMP_SYS(write),	      SCMP_SYS(mmap),
		SCMP_SYS(munmap),     SCMP_SYS(madvise),      SCMP_SYS(futex),
		SCMP_SYS(fcntl),      SCMP_SYS(poll),	      SCMP_SYS(close),
		SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(brk),
		SCMP_SYS(newfstatat), SCMP_SYS(fstat),
	};
	scmp_filter_ctx ctx;

	if (SANITIZED)
		return;
	ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
		require(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0) ==
			0);
	require(seccomp_load(ctx) == 0);
}

/* Serve each order: map, read, answer in the page, copy, notify, let go. */
static void serve_order(xengnttab_handle *gnttab, xenevtchn_handle *evtchn,
			const struct order *o)
{
	char *page = xengnttab_map_grant_ref(gnttab, o->domid, o->ref,
					     PROT_READ | PROT_WRITE);
	int port = xenevtchn_bind_interdomain(evtchn, o->domid, o->port);
	char answer[] = "by copy";
	xengnttab_grant_copy_segment_t seg = {
		.source.virt = answer,
		.dest.foreign = { .ref = o->ref,
				  .offset = 100,
				  .domid = (uint16_t)o->domid },
		.len = sizeof(answer),
		.flags = GNTCOPY_dest_gref,
	};

	require(page && port > 0);
	require(xenevtchn_pending(evtchn) == port);
	require(xenevtchn_unmask(evtchn, (unsigned)port) == 0);
	strcpy(page, "by map");
	require(xengnttab_grant_copy(gnttab, 1, &seg) == 0 && seg.status == 0);
	require(xengnttab_unmap(gnttab, page, 1) == 0);
	require(xenevtchn_notify(evtchn, (unsigned)port) == 0);
	require(xenevtchn_pending(evtchn) == port); /* its last word */
	require(xenevtchn_unmask(evtchn, (unsigned)port) == 0);
	require(xenevtchn_unbind(evtchn, (unsigned)port) == 0);
}

/* A device that was opened elsewhere: nothing may be opened for it here. */
static void check_adoption(int fd)
{
	xenevtchn_handle *h = xenevtchn_fdopen(NULL, fd, 0);

	require(h != NULL);
	require(xenevtchn_close(h) == 0);
}

/* It has the bell of one domain, and not that of a later one. */
static _Noreturn void locked_down_main(int orders, int device, uint32_t domid)
{
	xengnttab_handle *gnttab = xengnttab_open(NULL, 0);
	xenevtchn_handle *evtchn = xenevtchn_open(NULL, 0);
	xenevtchn_handle *own = restricted(domid);
	struct order order;

	require(gnttab && evtchn);
	lock_down();
	check_adoption(device);
	while (read(orders, &order, sizeof(order)) == sizeof(order))
		serve_order(gnttab, order.domid == domid ? own : evtchn,
			    &order);
	require(xenevtchn_close(own) == 0 && xenevtchn_close(evtchn) == 0 &&
		xengnttab_close(gnttab) == 0);
	_exit(0);
}

/* The guest, new each time, born after the backend locked itself down. */
static void order_once(struct both *b, int orders, const struct order *stale)
{
	char *page = xensim_alloc_pages(b->guest, 1);
	struct order o = { .domid = b->domid, .port = guest_port(b) };

	assert_int_equal(xensim_grant(b->guest, 0, page, false, &o.ref), 0);
	if (stale)
		o.port = stale->port;
	assert_int_equal(write(orders, &o, sizeof(o)), sizeof(o));
	assert_true(guest_hears(b, o.port));
	assert_string_equal(page, "by map");
	assert_string_equal(page + 100, "by copy");
	assert_int_equal(xensim_grant_end(b->guest, o.ref), 0);
	assert_int_equal(xensim_evtchn_send(b->guest, o.port), 0);
}

static void test_locked_down(void **state)
{
	struct both *b = *state, *second = NULL;
	struct order stale = { .domid = b->domid };
	int orders[2], status;
	pid_t pid, predecessor;
	assert_int_equal(pipe(orders), 0);
	pid = fork();
	if (pid == 0) {
		close(orders[1]);
		locked_down_main(orders[0], xenevtchn_fd(b->evtchn), b->domid);
	}
	order_once(b, orders[1], NULL);
	both_setup((void **)&second);
	order_once(second, orders[1], NULL);

	/* A port that another backend held, which has just been killed. */
	stale.port = guest_port(b);
	predecessor =
		spawn(bind_and_stay, (uint32_t[]){ stale.domid, stale.port });
	kill_child(predecessor);
	order_once(b, orders[1], &stale);
	assert_false(guest_handle(b)->deaf);

	close(orders[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	both_teardown((void **)&second);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, both_setup, both_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_there_and_back),
		TEST(test_masked_until_unmasked),
		TEST(test_bind_refused),
		TEST(test_close_leaves_unbound),
		TEST(test_death_unbinds),
		TEST(test_death_while_sending),
		TEST(test_descriptor_is_the_device),
		TEST(test_restrict_and_virq),
		TEST(test_destroyed_guest),
		TEST(test_wait_and_kick),
		TEST(test_many_ports),
		TEST(test_wait_by_descriptor),
		TEST(test_bell),
		TEST(test_no_bell),
		TEST(test_bell_switched_off),
		TEST(test_one_listener),
		TEST(test_echo),
		TEST(test_locked_down),
	};

	(void)argc;
	unsetenv("XENSIM_FUTEX"); /* the tests set it where they want it */
	need_machine(argv);
	return cmocka_run_group_tests_name("events", tests, NULL, NULL);
}
