/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The handshake runs in the caller's thread: write our state, wait until the
 * backend's is one of a set.  While connected, a monitor thread owns the
 * watch on the backend's state; it only sets two words (closing, sectors) and
 * kicks the queues.  It is stopped before the handshake goes on.
 *
 * Keys of an earlier connection stay in the frontend's directory, as a real
 * blkfront leaves them; those that count queues or ring pages are rewritten
 * when they exist, because stale ones would lie.
 */
#include "config.h"

#include "simfront.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <xen/io/xenbus.h>
#include <xenstore.h>

#define LOOK_MS	      200
#define PATH_SIZE     256
#define BIT(state)    (1u << (state))
#define BACKEND_GONE  BIT(XenbusStateUnknown)
#define BACKEND_READY (BIT(XenbusStateInitWait) | BIT(XenbusStateConnected))
#define BACKEND_ENDS \
	(BIT(XenbusStateClosing) | BIT(XenbusStateClosed) | BACKEND_GONE)

struct simfront {
	struct xensim *machine;
	struct xensim_guest *guest;
	struct xs_handle *xs;
	uint32_t devid;
	uint32_t backend_domid;
	int timeout_s;
	char path[PATH_SIZE]; /* our directory */
	char backend[PATH_SIZE]; /* the other end's */
	struct simfront_shape shape;
	struct simfront_disk disk;
	struct simqueue *queues[SIMFRONT_MAX_QUEUES];

	pthread_t monitor;
	bool monitoring;
	int stop_fd; /* ends the monitor */
	bool closing; /* atomic */
	uint64_t sectors; /* atomic */
	char error[320];
};

__attribute__((format(printf, 3, 4))) static int fail(struct simfront *f, int r,
						      const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(f->error, sizeof(f->error), format, args);
	va_end(args);
	return r;
}

/* --- Xenstore ------------------------------------------------------------- */

static char *read_key(struct simfront *f, const char *dir, const char *key)
{
	char path[2 * PATH_SIZE];
	unsigned int len;

	snprintf(path, sizeof(path), "%s/%s", dir, key);
	return xs_read(f->xs, XBT_NULL, path, &len);
}

static uint64_t read_number(struct simfront *f, const char *dir,
			    const char *key)
{
	char *text = read_key(f, dir, key);
	uint64_t value = text ? strtoull(text, NULL, 0) : 0;

	free(text);
	return value;
}

static bool has_key(struct simfront *f, const char *key)
{
	char *text = read_key(f, f->path, key);

	free(text);
	return text != NULL;
}

__attribute__((format(printf, 4, 5))) static bool
write_key(struct simfront *f, xs_transaction_t t, const char *key,
	  const char *format, ...)
{
	char path[2 * PATH_SIZE];
	char value[64];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(value, sizeof(value), format, args);
	va_end(args);
	snprintf(path, sizeof(path), "%s/%s", f->path, key);
	return xs_write(f->xs, t, path, value, (unsigned int)len);
}

static int set_state(struct simfront *f, enum xenbus_state state)
{
	if (!write_key(f, XBT_NULL, "state", "%d", state))
		return fail(f, -EIO, "cannot write our state %d: %s", state,
			    strerror(errno));
	return 0;
}

static unsigned int own_state(struct simfront *f)
{
	return (unsigned int)read_number(f, f->path, "state");
}

/* XenbusStateUnknown (0) also when the backend's directory is gone. */
static unsigned int backend_state(struct simfront *f)
{
	return (unsigned int)read_number(f, f->backend, "state");
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void drain_watches(struct simfront *f)
{
	char **event;

	while ((event = xs_check_watch(f->xs)))
		free(event);
}

/* Waits until the backend is in one of the states; its bit, or -ETIMEDOUT. */
static int wait_backend(struct simfront *f, unsigned int states)
{
	int64_t end = now_ms() + (int64_t)f->timeout_s * 1000;
	struct pollfd pfd = { .fd = xs_fileno(f->xs), .events = POLLIN };

	for (;;) {
		unsigned int state = backend_state(f);
		int64_t left = end - now_ms();

		if (state < 9 && (states & BIT(state)))
			return (int)BIT(state);
		if (left <= 0)
			return fail(f, -ETIMEDOUT,
				    "the backend stays in state %u", state);
		poll(&pfd, 1, (int)left);
		drain_watches(f);
	}
}

static int watch_backend(struct simfront *f)
{
	char path[2 * PATH_SIZE];

	snprintf(path, sizeof(path), "%s/state", f->backend);
	if (!xs_watch(f->xs, path, "state"))
		return fail(f, -errno, "cannot watch %s: %s", path,
			    strerror(errno));
	return 0;
}

static int find_backend(struct simfront *f)
{
	char *backend = read_key(f, f->path, "backend");
	size_t len;

	if (!backend)
		return fail(f, -ENODEV, "domain %u has no disk %u",
			    xensim_guest_domid(f->guest), f->devid);
	len = strnlen(backend, PATH_SIZE);
	if (len == PATH_SIZE) {
		free(backend);
		return fail(f, -ENAMETOOLONG, "the backend's path is too long");
	}
	memcpy(f->backend, backend, len + 1);
	free(backend);
	f->backend_domid = (uint32_t)read_number(f, f->path, "backend-id");
	return watch_backend(f);
}

/* --- Opening ------------------------------------------------------------- */

static int become_domain(struct simfront *f, uint32_t domid)
{
	int r = xensim_open(NULL, &f->machine);

	if (r < 0)
		return fail(f, r, "no simulated machine: %s", strerror(-r));
	r = xensim_guest_open(f->machine, domid, &f->guest);
	if (r < 0)
		return fail(f, r, "domain %u: %s", domid, strerror(-r));
	f->xs = xensim_guest_xs_open(f->guest);
	if (!f->xs)
		return fail(f, -errno, "domain %u: xenstore: %s", domid,
			    strerror(errno));
	snprintf(f->path, sizeof(f->path), "/local/domain/%u/device/vbd/%u",
		 domid, f->devid);
	return find_backend(f);
}

int simfront_open(uint32_t domid, uint32_t devid, int timeout_s,
		  struct simfront **ret_front)
{
	struct simfront *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->devid = devid;
	f->timeout_s = timeout_s;
	f->stop_fd = eventfd(0, EFD_CLOEXEC);
	*ret_front = f; /* also on failure: it has the text */
	if (f->stop_fd < 0)
		return fail(f, -errno, "eventfd: %s", strerror(errno));
	return become_domain(f, domid);
}

static void stop_monitor(struct simfront *f)
{
	eventfd_t value;

	if (!f->monitoring)
		return;
	eventfd_write(f->stop_fd, 1);
	pthread_join(f->monitor, NULL);
	eventfd_read(f->stop_fd, &value);
	f->monitoring = false;
}

/* 0, or -EBUSY when the backend still maps something. */
static int free_queues(struct simfront *f)
{
	int result = 0;

	for (unsigned int i = 0; i < SIMFRONT_MAX_QUEUES; i++) {
		int r = simqueue_destroy(f->queues[i]);

		f->queues[i] = NULL;
		if (r < 0)
			result = r;
	}
	return result;
}

void simfront_free(struct simfront *front)
{
	if (!front)
		return;
	stop_monitor(front);
	free_queues(front);
	if (front->xs)
		xs_close(front->xs);
	if (front->guest)
		xensim_guest_close(front->guest);
	if (front->machine)
		xensim_close(front->machine);
	if (front->stop_fd >= 0)
		close(front->stop_fd);
	free(front);
}

/* --- Connecting ----------------------------------------------------------- */

/* To Initialising, through Closing and Closed if there was a connection. */
static int reset(struct simfront *f)
{
	unsigned int state = own_state(f);
	int r = 0;

	if (state == XenbusStateInitialising)
		return 0;
	if (state != XenbusStateClosed) {
		r = set_state(f, XenbusStateClosing);
		if (r == 0)
			r = wait_backend(f, BACKEND_ENDS);
		if (r >= 0)
			r = set_state(f, XenbusStateClosed);
	}
	if (r >= 0)
		r = wait_backend(f, BIT(XenbusStateClosed) | BACKEND_GONE |
					    BIT(XenbusStateInitWait));
	if (r >= 0 && r == (int)BACKEND_GONE)
		return fail(f, -ENODEV, "the backend is gone");
	return r < 0 ? r : set_state(f, XenbusStateInitialising);
}

static unsigned int least(unsigned int wanted, uint64_t offered)
{
	return offered < wanted ? (unsigned int)offered : wanted;
}

/* The largest order that the backend offers, in either of its spellings. */
static uint64_t offered_order(struct simfront *f)
{
	uint64_t order = read_number(f, f->backend, "max-ring-page-order");
	uint64_t pages = read_number(f, f->backend, "max-ring-pages");

	if (f->shape.ring_key == SIMFRONT_RING_PAGE_ORDER || pages == 0)
		return order;
	for (order = 0; (2ull << order) <= pages;)
		order++;
	return order;
}

static int create_queues(struct simfront *f)
{
	struct simqueue_config config = {
		.guest = f->guest,
		.backend_domid = f->backend_domid,
		.abi = f->shape.abi,
		.order = f->shape.order,
		.handle = (uint16_t)f->devid,
	};

	for (unsigned int i = 0; i < f->shape.queues; i++) {
		int r = simqueue_create(&config, &f->queues[i]);

		if (r < 0)
			return fail(f, r, "queue %u: %s", i, strerror(-r));
	}
	return 0;
}

/* A page of a ring: ring-ref of a single one, ring-refN of several. */
static bool write_ref(struct simfront *f, xs_transaction_t t,
		      const char *prefix, unsigned int index, uint32_t ref)
{
	char single[64], numbered[64];
	bool ok = true;

	snprintf(single, sizeof(single), "%sring-ref", prefix);
	snprintf(numbered, sizeof(numbered), "%sring-ref%u", prefix, index);
	if (f->shape.order == 0)
		ok = write_key(f, t, single, "%u", ref);
	/* With ring-page-order=0 QEMU reads ring-ref0: it may not be stale. */
	if (f->shape.order > 0 || has_key(f, numbered))
		ok = ok && write_key(f, t, numbered, "%u", ref);
	return ok;
}

/* The keys of one ring, at the top level or below queue-N. */
static bool write_queue(struct simfront *f, xs_transaction_t t,
			const char *prefix, const struct simqueue *queue)
{
	const uint32_t *refs = simqueue_ring_refs(queue);
	char key[64];
	bool ok = true;

	for (unsigned int i = 0; ok && i < 1u << f->shape.order; i++)
		ok = write_ref(f, t, prefix, i, refs[i]);
	snprintf(key, sizeof(key), "%sevent-channel", prefix);
	return ok && write_key(f, t, key, "%u", simqueue_port(queue));
}

static bool write_queues(struct simfront *f, xs_transaction_t t)
{
	char prefix[32];
	bool ok = true;

	if (f->shape.queues == 1)
		return write_queue(f, t, "", f->queues[0]);
	for (unsigned int i = 0; ok && i < f->shape.queues; i++) {
		snprintf(prefix, sizeof(prefix), "queue-%u/", i);
		ok = write_queue(f, t, prefix, f->queues[i]);
	}
	return ok;
}

/* A key that counts: written when it is needed, or would lie. */
static bool write_count(struct simfront *f, xs_transaction_t t, const char *key,
			bool needed, unsigned int value)
{
	if (!needed && !has_key(f, key))
		return true;
	return write_key(f, t, key, "%u", value);
}

static bool write_keys(struct simfront *f, xs_transaction_t t)
{
	const struct simfront_shape *s = &f->shape;
	bool multi = s->order > 0;
	bool by_order = s->ring_key == SIMFRONT_RING_PAGE_ORDER;
	bool ok = write_queues(f, t) &&
		  write_count(f, t, "multi-queue-num-queues", s->queues > 1,
			      s->queues) &&
		  write_count(f, t, "ring-page-order", multi && by_order,
			      s->order) &&
		  write_count(f, t, "num-ring-pages", multi && !by_order,
			      1u << s->order) &&
		  write_key(f, t, "feature-persistent", "%d", s->persistent);

	if (ok && s->abi->protocol)
		return write_key(f, t, "protocol", "%s", s->abi->protocol);
	return ok;
}

/* The protocol key of an earlier connection must not outlive it. */
static void remove_stale_protocol(struct simfront *f)
{
	char path[2 * PATH_SIZE];

	snprintf(path, sizeof(path), "%s/protocol", f->path);
	if (!f->shape.abi->protocol)
		xs_rm(f->xs, XBT_NULL, path);
}

static int publish(struct simfront *f)
{
	remove_stale_protocol(f);
	for (;;) {
		xs_transaction_t t = xs_transaction_start(f->xs);
		bool ok = t != XBT_NULL && write_keys(f, t);

		if (xs_transaction_end(f->xs, t, !ok) && ok)
			return set_state(f, XenbusStateInitialised);
		if (!ok || errno != EAGAIN)
			return fail(f, -EIO, "cannot write our keys: %s",
				    strerror(errno));
	}
}

static void read_disk(struct simfront *f)
{
	const char *dir = f->backend;

	f->disk = (struct simfront_disk){
		.sectors = read_number(f, dir, "sectors"),
		.sector_size = (uint32_t)read_number(f, dir, "sector-size"),
		.physical_sector_size =
			(uint32_t)read_number(f, dir, "physical-sector-size"),
		.info = (uint32_t)read_number(f, dir, "info"),
		.flush = read_number(f, dir, "feature-flush-cache") != 0,
		.barrier = read_number(f, dir, "feature-barrier") != 0,
		.discard = read_number(f, dir, "feature-discard") != 0,
		.discard_secure = read_number(f, dir, "discard-secure") != 0,
		.discard_granularity =
			(uint32_t)read_number(f, dir, "discard-granularity"),
		.discard_alignment =
			(uint32_t)read_number(f, dir, "discard-alignment"),
		.max_indirect = (uint32_t)read_number(
			f, dir, "feature-max-indirect-segments"),
	};
	if (f->disk.discard && f->disk.discard_granularity == 0)
		f->disk.discard_granularity = f->disk.sector_size;
	__atomic_store_n(&f->sectors, f->disk.sectors, __ATOMIC_RELEASE);
}

static int check_disk(struct simfront *f)
{
	uint32_t size = f->disk.sector_size;

	if (size < SIMABI_SECTOR || (size & (size - 1)) != 0)
		return fail(f, -EPROTO, "sector-size is %u", size);
	if (f->disk.sectors == 0)
		return fail(f, -EPROTO, "sectors is missing or 0");
	if (f->disk.sectors * SIMABI_SECTOR % size != 0)
		return fail(f, -EPROTO,
			    "%" PRIu64 " sectors are no multiple of %u bytes",
			    f->disk.sectors, size);
	return 0;
}

/* --- While connected ------------------------------------------------------ */

static void look_at_backend(struct simfront *f)
{
	unsigned int state = XenbusStateUnknown;

	if (xensim_guest_alive(f->guest))
		state = backend_state(f);
	if (state == XenbusStateConnected)
		__atomic_store_n(&f->sectors,
				 read_number(f, f->backend, "sectors"),
				 __ATOMIC_RELEASE);
	if (state >= 9 || !(BACKEND_ENDS & BIT(state)))
		return;
	__atomic_store_n(&f->closing, true, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < f->shape.queues; i++)
		simqueue_kick(f->queues[i]);
}

static void *monitor_main(void *arg)
{
	struct simfront *f = arg;
	struct pollfd pfds[] = {
		{ .fd = f->stop_fd, .events = POLLIN },
		{ .fd = xs_fileno(f->xs), .events = POLLIN },
	};

	look_at_backend(f);
	/* Nobody tells a domain that it is destroyed: look now and then. */
	while (poll(pfds, 2, LOOK_MS) >= 0 || errno == EINTR) {
		if (pfds[0].revents || !xensim_guest_alive(f->guest))
			break;
		if (!pfds[1].revents)
			continue;
		drain_watches(f);
		look_at_backend(f);
	}
	look_at_backend(f);
	return NULL;
}

static int start_monitor(struct simfront *f)
{
	int r = pthread_create(&f->monitor, NULL, monitor_main, f);

	if (r > 0)
		return fail(f, -r, "thread: %s", strerror(r));
	f->monitoring = true;
	return 0;
}

static int handshake(struct simfront *f)
{
	int r = wait_backend(f, BACKEND_READY | BACKEND_GONE);

	if (r >= 0 && !(r & (int)BACKEND_READY))
		return fail(f, -ENODEV, "the backend is gone");
	if (r < 0)
		return r;
	f->shape.order = least(f->shape.order, offered_order(f));
	if (f->shape.queues > 1)
		f->shape.queues = least(f->shape.queues,
					read_number(f, f->backend,
						    "multi-queue-max-queues"));
	if (f->shape.queues == 0)
		f->shape.queues = 1;
	r = create_queues(f);
	if (r == 0)
		r = publish(f);
	if (r == 0)
		r = wait_backend(f, BIT(XenbusStateConnected) | BACKEND_ENDS);
	if (r >= 0 && !(r & (int)BIT(XenbusStateConnected)))
		return fail(f, -ECONNREFUSED, "the backend refused our ring");
	return r < 0 ? r : 0;
}

/* Read as late as Linux does: when the backend is Connected. */
static int agree_on_grants(struct simfront *f)
{
	int r = 0;

	f->shape.persistent =
		f->shape.persistent &&
		read_number(f, f->backend, "feature-persistent") == 1;
	for (unsigned int i = 0;
	     f->shape.persistent && i < f->shape.queues && r == 0; i++)
		r = simqueue_make_persistent(f->queues[i]);
	return r < 0 ? fail(f, r, "persistent grants: %s", strerror(-r)) : 0;
}

int simfront_connect(struct simfront *front, const struct simfront_shape *shape)
{
	int r;

	front->shape = *shape;
	front->closing = false;
	r = reset(front);
	if (r == 0)
		r = handshake(front);
	if (r < 0)
		return r;
	read_disk(front);
	r = check_disk(front);
	if (r == 0)
		r = agree_on_grants(front);
	if (r == 0)
		r = set_state(front, XenbusStateConnected);
	return r < 0 ? r : start_monitor(front);
}

unsigned int simfront_pending(const struct simfront *front)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < SIMFRONT_MAX_QUEUES; i++)
		if (front->queues[i])
			count += simqueue_pending(front->queues[i]);
	return count;
}

/*
 * -EBUSY from a backend that is not Closed yet only means that it is slow;
 * afterwards it holds memory of a guest that it has let go.
 */
static int finish(struct simfront *f)
{
	unsigned int pending = simfront_pending(f);

	if (free_queues(f) < 0)
		return fail(f, -EPROTO,
			    "the backend is closed and still maps our pages");
	if (pending > 0)
		return fail(f, -EPROTO, "%u requests were never answered",
			    pending);
	return 0;
}

int simfront_disconnect(struct simfront *front)
{
	int r;

	stop_monitor(front);
	r = set_state(front, XenbusStateClosing);
	if (r == 0)
		r = wait_backend(front, BACKEND_ENDS);
	if (r >= 0)
		r = set_state(front, XenbusStateClosed);
	if (r >= 0)
		r = wait_backend(front, BIT(XenbusStateClosed) |
						BIT(XenbusStateInitWait) |
						BACKEND_GONE);
	return r < 0 ? r : finish(front);
}

/* --- Looking -------------------------------------------------------------- */

const char *simfront_error(const struct simfront *front)
{
	return front->error;
}

struct xensim_guest *simfront_guest(struct simfront *front)
{
	return front->guest;
}

const struct simfront_disk *simfront_disk(const struct simfront *front)
{
	return &front->disk;
}

const struct simfront_shape *simfront_shape(const struct simfront *front)
{
	return &front->shape;
}

struct simqueue *simfront_queue(struct simfront *front, unsigned int index)
{
	return front->queues[index];
}

bool simfront_closing(const struct simfront *front)
{
	return __atomic_load_n(&front->closing, __ATOMIC_ACQUIRE) ||
	       !xensim_guest_alive(front->guest);
}

uint64_t simfront_sectors(const struct simfront *front)
{
	return __atomic_load_n(&front->sectors, __ATOMIC_ACQUIRE);
}

int simfront_each_key(struct simfront *front,
		      void (*fn)(const char *key, const char *value))
{
	unsigned int count;
	char **keys = xs_directory(front->xs, XBT_NULL, front->backend, &count);

	if (!keys)
		return fail(front, -errno, "cannot list %s: %s", front->backend,
			    strerror(errno));
	for (unsigned int i = 0; i < count; i++) {
		char *value = read_key(front, front->backend, keys[i]);

		if (value)
			fn(keys[i], value);
		free(value);
	}
	free(keys);
	return 0;
}
