/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bus.c - the disks of this backend domain.
 *
 * A disk begins when its directory is seen under backend/KIND and ends when
 * that has been removed.  New directories are found by scanning: a watch on
 * each kind says only that there is something new.  Each disk then watches its
 * own directory.  Disks of others (xen-blkback's) are left alone, and looked at
 * again with every scan, since a directory may be removed and made anew.
 *
 * Guests do not need xenstored while they are connected, so nothing ends with
 * it.  When it is back, all is looked at again; a store that has lost its content
 * is no reason to take a disk from its guest.
 *
 * What a broker that died has left, and no disk has taken over, is ended CLAIM_TIMEOUT_S
 * after all disks have been seen.  As long as they cannot be seen, it may serve one.
 */
#include <string.h>
/* The usual one falls through its cases, which clang takes ill. */
#define HASH_FUNCTION HASH_SAX
#include <uthash.h>

#include "broker/blkback.h"
#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/nursery.h"
#include "broker/supervise.h"
#include "broker/target.h"
#include "common/log.h"

#define RECONNECT_MS	500
#define CLAIM_TIMEOUT_S 10

struct entry {
	struct node_address at; /* the key; has no padding */
	struct vbd *vbd;
	UT_hash_handle hh;
};

struct bus {
	struct broker *broker;
	struct store *store;
	struct event *wake;
	struct event *reconnect; /* a timer */
	char marker[48]; /* see is_new_store() */
	struct store_mark *scan; /* something new */
	struct store_mark *release; /* a domain has ended */
	uint32_t domid;
	struct entry *disks; /* by domid, devid, kind */
	struct event *claims; /* a timer */
	bool claimed; /* it is over, or never will be */
	bool overlooked; /* by this scan: there may be more disks */
};

_Static_assert(sizeof(struct node_address) ==
		       sizeof(enum node_kind) + 2 * sizeof(uint32_t),
	       "a hash key must not have padding");

/* --- The list ------------------------------------------------------------- */

static int compare(const struct entry *a, const struct entry *b)
{
	if (a->at.domid != b->at.domid)
		return a->at.domid < b->at.domid ? -1 : 1;
	if (a->at.devid != b->at.devid)
		return a->at.devid < b->at.devid ? -1 : 1;
	return (int)a->at.kind - (int)b->at.kind;
}

static struct entry *find(struct bus *bus, const struct node_address *at)
{
	struct entry *entry;

	HASH_FIND(hh, bus->disks, at, sizeof(*at), entry);
	return entry;
}

struct vbd *bus_known(struct bus *bus, const struct node_address *at)
{
	struct entry *entry = find(bus, at);

	return entry ? entry->vbd : NULL;
}

static int add(struct bus *bus, const struct node_address *at, struct vbd **ret)
{
	struct entry *entry = calloc(1, sizeof(*entry));
	int r;

	if (!entry)
		return -ENOMEM;
	entry->at = *at;
	r = vbd_new(&entry->vbd, bus->broker, bus->store, at);
	if (r < 0) {
		free(entry);
		return r;
	}
	HASH_ADD_INORDER(hh, bus->disks, at, sizeof(entry->at), entry, compare);
	*ret = entry->vbd;
	return 0;
}

void bus_forget(struct bus *bus, struct vbd *vbd)
{
	struct entry *entry = find(bus, vbd_address(vbd));
	cleanup_free char *path = node_backend_path(&entry->at, bus->domid);

	HASH_DEL(bus->disks, entry);
	vbd_free(vbd);
	free(entry);
	/* There may be a new one at its place. */
	if (path)
		store_mark_set_at(bus->scan, path);
	else
		store_mark_set(bus->scan);
}

void bus_each(struct bus *bus, bool (*fn)(void *ctx, struct vbd *vbd),
	      void *ctx)
{
	struct entry *entry, *next;

	HASH_ITER(hh, bus->disks, entry, next) {
		if (!fn(ctx, entry->vbd))
			return;
	}
}

/* Of those of one number at most one is; the others were refused for that reason. */
static bool is_in_use(const struct vbd *vbd)
{
	enum target_state state = target_state(vbd_target(vbd));

	return state == TARGET_OPENING || state == TARGET_OPEN;
}

struct vbd *bus_find(struct bus *bus, uint32_t domid, uint32_t devid)
{
	struct node_address at = { .domid = domid, .devid = devid };
	struct vbd *found = NULL;

	for (int kind = 0; kind < NODE_NR_KINDS; kind++) {
		struct vbd *vbd;

		at.kind = kind;
		vbd = bus_known(bus, &at);
		if (vbd && (!found || is_in_use(vbd)))
			found = vbd;
	}
	return found;
}

uint32_t bus_domid(const struct bus *bus)
{
	return bus->domid;
}

struct store *bus_store(struct bus *bus)
{
	return bus->store;
}

/* --- Looking for new ones ------------------------------------------------- */

int bus_get(struct bus *bus, const struct node_address *at, struct vbd **ret)
{
	struct vbd *known = bus_known(bus, at);
	cleanup_free char *path = NULL;
	bool ours;
	int r;

	if (known && !vbd_is_gone(known)) {
		*ret = known;
		return 0;
	}
	path = node_backend_path(at, bus->domid);
	if (!path)
		return -ENOMEM;
	r = node_is_ours(bus->store, at, path, &ours);
	if (r < 0)
		return r;
	if (!ours)
		return -ENODEV;
	if (known)
		bus_forget(bus, known);
	return add(bus, at, ret);
}

static void look_at(struct bus *bus, const struct node_address *at)
{
	struct vbd *vbd;
	int r;

	if (bus_known(bus, at))
		return;
	r = bus_get(bus, at, &vbd);
	if (r == 0)
		vbd_look(vbd);
	if (r == 0 || r == -ENODEV || r == -ENOENT)
		return;
	bus->overlooked = true;
	log_error("backend/%s/%u/%u cannot be served: %s",
		  node_kind_name(at->kind), at->domid, at->devid, strerror(-r));
}

/* Calls fn for each child of dir whose name is a number. */
static void each_number(struct bus *bus, const char *dir,
			struct node_address *at,
			void (*fn)(struct bus *bus, struct node_address *at,
				   uint32_t number))
{
	cleanup_free char **names = NULL;
	unsigned int nr;
	uint32_t number;
	int r = store_list(bus->store, dir, &names, &nr);

	if (r < 0 && r != -ENOENT)
		log_error("%s cannot be read: %s", dir, strerror(-r));
	bus->overlooked |= r < 0 && r != -ENOENT && r != -EACCES;
	for (unsigned int i = 0; r == 0 && i < nr; i++)
		if (parse_u32(names[i], UINT32_MAX, &number) == 0)
			fn(bus, at, number);
}

static void scan_device(struct bus *bus, struct node_address *at,
			uint32_t devid)
{
	at->devid = devid;
	look_at(bus, at);
}

static void scan_domain(struct bus *bus, struct node_address *at,
			uint32_t domid)
{
	char dir[STORE_PATH_MAX];

	at->domid = domid;
	(void)snprintf(dir, sizeof(dir), "/local/domain/%u/backend/%s/%u",
		       bus->domid, node_kind_name(at->kind), domid);
	each_number(bus, dir, at, scan_device);
}

static void print_base(char *buf, const struct bus *bus, enum node_kind kind)
{
	(void)snprintf(buf, STORE_PATH_MAX, "/local/domain/%u/backend/%s",
		       bus->domid, node_kind_name(kind));
}

static void on_claims(evutil_socket_t fd, short what, void *arg)
{
	struct bus *bus = arg;

	(void)fd;
	(void)what;
	if (bus->claimed || event_pending(bus->reconnect, EV_TIMEOUT, NULL))
		return;
	bus->claimed = true;
	supervisor_end_unclaimed(bus->broker->supervisor);
	nursery_end_unclaimed(bus->broker->nursery);
}

/* All disks that there are have been looked at. */
static void begin_claims(struct bus *bus)
{
	const struct timeval timeout = { .tv_sec = CLAIM_TIMEOUT_S };

	if (!bus->claimed && !event_pending(bus->claims, EV_TIMEOUT, NULL))
		(void)evtimer_add(bus->claims, &timeout);
}

static void scan_all(struct bus *bus)
{
	struct node_address at;
	char dir[STORE_PATH_MAX];

	bus->overlooked = false;
	for (int kind = 0; kind < NODE_NR_KINDS; kind++) {
		at.kind = kind;
		print_base(dir, bus, kind);
		each_number(bus, dir, &at, scan_domain);
	}
	if (!bus->overlooked)
		begin_claims(bus);
}

/* A place where something is new; false: it may be anywhere. */
static bool scan_place(struct bus *bus, const char *path)
{
	for (int kind = 0; kind < NODE_NR_KINDS; kind++) {
		struct node_address at = { .kind = kind };
		char base[STORE_PATH_MAX];
		int n;

		print_base(base, bus, kind);
		if (strncmp(path, base, strlen(base)) != 0)
			continue;
		n = sscanf(path + strlen(base), "/%u/%u", &at.domid, &at.devid);
		if (n == 2)
			look_at(bus, &at);
		else if (n == 1)
			scan_domain(bus, &at, at.domid);
		if (n >= 1)
			return true;
	}
	return false;
}

/* There may be many domains, and something new in one of them. */
static void scan(void *ctx)
{
	struct bus *bus = ctx;
	struct store_places places;
	bool found = store_mark_places(bus->scan, &places);

	for (unsigned int i = 0; found && i < places.nr; i++)
		found = scan_place(bus, places.path[i]);
	if (!found)
		scan_all(bus);
}

/*
 * Is this event news to scan()?  "", DOMID and DOMID/DEVID are: directories
 * come and go.  Of the keys below only "frontend" and "script", by which a disk
 * of ours is known, and which every toolstack writes once: some write them
 * without making the directory first, or one by one.
 */
static bool is_new(const char *below)
{
	unsigned int depth = 0;

	for (const char *p = below; *p; p++) {
		if (*p == '/' && ++depth == 2)
			return strcmp(p, "/frontend") == 0 ||
			       strcmp(p, "/script") == 0;
	}
	return true;
}

static bool touch(void *ctx, struct vbd *vbd)
{
	(void)ctx;
	vbd_touch(vbd);
	return true;
}

static void on_release(void *ctx)
{
	bus_each(ctx, touch, NULL);
}

/* --- What stood there of disks that have gone ------------------------------ */

static void sweep_error(struct bus *bus, struct node_address *at,
			uint32_t devid)
{
	cleanup_free char *frontend = NULL, *path = NULL;
	char dir[STORE_PATH_MAX];

	at->devid = devid;
	path = node_backend_path(at, bus->domid);
	if (!path ||
	    store_read(bus->store, path, "frontend", &frontend) != -ENOENT)
		return;
	node_print_error_dir(dir, at, bus->domid);
	(void)store_remove_branch(bus->store, dir, 3); /* up to error/ */
}

static void sweep_domain(struct bus *bus, struct node_address *at,
			 uint32_t domid)
{
	char dir[STORE_PATH_MAX];

	at->domid = domid;
	(void)snprintf(dir, sizeof(dir), "/local/domain/%u/error/backend/%s/%u",
		       bus->domid, node_kind_name(at->kind), domid);
	each_number(bus, dir, at, sweep_error);
}

/* Disks may have gone while no daemon ran, and with them whoever would remove what
 * was said of them. */
static void sweep_errors(struct bus *bus)
{
	struct node_address at;
	char dir[STORE_PATH_MAX];

	for (int kind = 0; kind < NODE_NR_KINDS; kind++) {
		at.kind = kind;
		(void)snprintf(dir, sizeof(dir),
			       "/local/domain/%u/error/backend/%s", bus->domid,
			       node_kind_name(at.kind));
		each_number(bus, dir, &at, sweep_domain);
	}
}

/* --- When xenstored goes -------------------------------------------------- */

/* A key that a store which has begun anew does not have. */
#define MARKER_DIR "data"
#define MARKER_KEY "xendiskd"

static void write_marker(struct bus *bus)
{
	(void)snprintf(bus->marker, sizeof(bus->marker), "%d %llu",
		       (int)getpid(), (unsigned long long)now_ns());
	if (store_write(bus->store, MARKER_DIR, MARKER_KEY, "%s", bus->marker) <
	    0)
		bus->marker[0] = '\0';
}

/* 1: this store has not known us before; 0: it has; -errno: it does not answer.  In a
 * driver domain what is not there may not be read either. */
static int is_new_store(struct bus *bus)
{
	cleanup_free char *value = NULL;
	int r = store_read(bus->store, MARKER_DIR, MARKER_KEY, &value);

	if (r < 0 && r != -ENOENT && r != -EACCES)
		return r;
	return !value || !bus->marker[0] || strcmp(value, bus->marker) != 0;
}

static bool set_adrift(void *ctx, struct vbd *vbd)
{
	(void)ctx;
	vbd_set_adrift(vbd);
	return true;
}

static void try_later(struct bus *bus)
{
	struct timeval tv = { .tv_usec = RECONNECT_MS * 1000 };

	(void)event_add(bus->reconnect, &tv);
}

/* A xenstored that has only just begun does not know this domain yet.  Marks are heeded
 * until it does: no disk may be taken for removed then. */
static void on_reconnect(evutil_socket_t fd, short what, void *arg)
{
	struct bus *bus = arg;
	int r = store_reconnect(bus->store);
	uint32_t domid;

	(void)fd;
	(void)what;
	if (r == 0)
		r = is_new_store(bus);
	if (r > 0) {
		bus_each(bus, set_adrift, NULL);
		bus->claimed = true; /* whose the others are is forgotten */
	}
	if (r < 0 ||
	    store_read_u32(bus->store, "domid", NULL, UINT32_MAX, &domid) < 0) {
		try_later(bus);
		return;
	}
	if (r == 0) {
		log_info("connected to xenstored again");
		return;
	}
	log_warning("connected to xenstored again, which has forgotten "
		    "everything: connected disks are served until "
		    "xendiskd is restarted");
	write_marker(bus);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct bus *bus = arg;
	int r = store_dispatch(bus->store);

	(void)fd;
	(void)what;
	/* Workers die without xenstored, too: marks are heeded while it is away. */
	if (r == 0 || event_pending(bus->reconnect, EV_TIMEOUT, NULL))
		return;
	log_error("the connection to xenstored is lost: disks go on, but none "
		  "can be attached or detached until it is back");
	(void)evtimer_del(bus->claims);
	try_later(bus);
}

/* --- Life ----------------------------------------------------------------- */

static int watch_all(struct bus *bus)
{
	char base[STORE_PATH_MAX];
	int r = store_mark_new(&bus->scan, bus->store, scan, bus);

	if (r == 0)
		r = store_mark_remember(bus->scan);
	if (r == 0)
		r = store_mark_new(&bus->release, bus->store, on_release, bus);
	if (r == 0)
		r = store_watch(bus->release, "@releaseDomain", NULL);
	for (int kind = 0; kind < NODE_NR_KINDS && r == 0; kind++) {
		print_base(base, bus, kind);
		r = store_watch_roof(bus->scan, base, is_new);
	}
	return r;
}

/* A relative path is one below this domain's own directory. */
static int read_domid(struct bus *bus)
{
	int r = store_read_u32(bus->store, "domid", NULL, UINT32_MAX,
			       &bus->domid);

	if (r < 0)
		log_error("xenstore does not say which domain this is (key "
			  "domid): %s",
			  strerror(-r));
	return r;
}

static void load_blkback(void)
{
	uint32_t queues = 0;
	int r = blkback_load(XD_MAX_RINGS, &queues);

	if (r < 0)
		log_info("xen-blkback was not loaded (%s): it must not be "
			 "loaded later, while disks are attached",
			 strerror(-r));
	if (queues > XD_MAX_RINGS)
		log_warning("xen-blkback offers %u queues; a running guest "
			    "that takes more than %u cannot be given a disk: "
			    "load it with max_queues=%u",
			    queues, XD_MAX_RINGS, XD_MAX_RINGS);
}

static int start(struct bus *bus)
{
	int r = store_open(&bus->store);

	if (r < 0)
		log_error("xenstore cannot be reached: %s", strerror(-r));
	if (r == 0)
		r = read_domid(bus);
	if (r < 0)
		return r;
	load_blkback();
	bus->wake = event_new(bus->broker->base, store_fd(bus->store),
			      EV_READ | EV_PERSIST, on_wake, bus);
	bus->reconnect = evtimer_new(bus->broker->base, on_reconnect, bus);
	bus->claims = evtimer_new(bus->broker->base, on_claims, bus);
	if (!bus->wake || !bus->reconnect || !bus->claims ||
	    event_add(bus->wake, NULL) < 0)
		return -ENOMEM;
	write_marker(bus);
	r = watch_all(bus);
	if (r < 0)
		log_error("xenstore cannot be watched: %s", strerror(-r));
	else
		sweep_errors(bus);
	return r;
}

int bus_start(struct broker *broker, struct bus **ret)
{
	struct bus *bus = calloc(1, sizeof(*bus));
	int r;

	if (!bus)
		return -ENOMEM;
	bus->broker = broker;
	r = start(bus);
	if (r < 0) {
		bus_stop(bus);
		return r;
	}
	*ret = bus; /* the watches' first events make the first scan */
	return 0;
}

void bus_stop(struct bus *bus)
{
	struct entry *entry, *next;

	if (!bus)
		return;
	HASH_ITER(hh, bus->disks, entry, next) {
		HASH_DEL(bus->disks, entry);
		vbd_free(entry->vbd);
		free(entry);
	}
	if (bus->wake)
		event_free(bus->wake);
	if (bus->reconnect)
		event_free(bus->reconnect);
	if (bus->claims)
		event_free(bus->claims);
	store_mark_free(bus->scan);
	store_mark_free(bus->release);
	store_close(bus->store);
	free(bus);
}
