/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vbd-fixture.h"

#include <assert.h>
#include <string.h>

#include "broker/blkback.h"
#include "broker/export.h"
#include "broker/exports.h"
#include "broker/keep.h"
#include "broker/supervise.h"

struct world world;

/* --- Workers -------------------------------------------------------------- */

static struct disk *disk_of(uint32_t domid)
{
	for (unsigned int i = 0; i < world.nr_disks; i++)
		if (world.disks[i].at.domid == domid)
			return &world.disks[i];
	return NULL;
}

int worker_new(struct worker **ret, struct broker *broker,
	       const struct worker_spec *spec,
	       const struct worker_events *events)
{
	struct worker *worker = calloc(1, sizeof(*worker));

	assert(broker == &world.broker);
	worker->spec = *spec;
	worker->events = *events;
	disk_of(spec->id.domid)->worker = worker;
	world.workers++;
	*ret = worker;
	return 0;
}

void worker_free(struct worker *worker)
{
	if (!worker)
		return;
	disk_of(worker->spec.id.domid)->worker = NULL;
	world.workers--;
	free(worker);
}

void worker_discard_kept(struct worker *worker)
{
	assert(!worker->connected);
	world.discards++;
}

char *keep_expression(struct keep *keep, const struct msg_identity *id)
{
	(void)keep;
	(void)id;
	return NULL;
}

void keep_discard(struct keep *keep, uint32_t domid, uint32_t devid)
{
	(void)keep;
	(void)domid;
	(void)devid;
	world.swept++;
}

static int ask(struct worker *worker, enum ask what)
{
	assert(worker->ask == ASK_NOTHING);
	worker->ask = what;
	return 0;
}

int worker_open(struct worker *worker)
{
	assert(!worker->process);
	worker->process = true;
	world.processes++;
	return ask(worker, ASK_OPEN);
}

int worker_connect(struct worker *worker, const struct msg_connect *connect)
{
	assert(worker->process && !worker->connected);
	worker->connect = *connect;
	worker->held = false;
	return ask(worker, ASK_CONNECT);
}

int worker_disconnect(struct worker *worker)
{
	assert(worker->process &&
	       (worker->connected || worker->ask == ASK_CONNECT));
	/* The answer to a connect that is overtaken is not heard any more. */
	worker->ask = ASK_NOTHING;
	return ask(worker, ASK_DISCONNECT);
}

int worker_resume(struct worker *worker, bool accept_loss)
{
	(void)worker;
	(void)accept_loss;
	return -EOPNOTSUPP;
}

int worker_resize(struct worker *worker, uint64_t size)
{
	if (!worker->process)
		return -ENOTCONN;
	world.resize = size;
	return 0;
}

int worker_control(struct worker *worker, const char *verb, const char *text)
{
	(void)verb;
	(void)text;
	return worker->process ? 0 : -ENOTCONN;
}

bool worker_takes_clients(const struct worker *worker)
{
	return worker->process;
}

int worker_client(struct worker *worker, const char *name, uint32_t flags,
		  int fd)
{
	(void)worker;
	(void)name;
	(void)flags;
	(void)fd;
	return 0;
}

/* A socket that nobody calls. */
struct export
{
	char path[64];
};

int export_new(struct export **ret, struct broker *broker,
	       const struct export_spec *spec, char *ret_why)
{
	struct export *export = calloc(1, sizeof(*export));

	(void)broker;
	(void)ret_why;
	assert(export);
	(void)snprintf(export->path, sizeof(export->path), "%s", spec->path);
	world.exports++;
	*ret = export;
	return 0;
}

char *export_path_of(const char *run_dir, const char *name)
{
	(void)run_dir;
	return xasprintf("/run%s/%s.sock", world.comma ? "," : "", name);
}

void export_free(struct export *export)
{
	world.exports -= export != NULL;
	free(export);
}

void exports_forget(struct exports *exports, uint32_t domid, uint32_t devid)
{
	(void)exports;
	(void)domid;
	(void)devid;
	world.forgotten++;
}

const char *export_path(const struct export *export)
{
	return export->path;
}

void world_grow(struct disk *disk, uint64_t size)
{
	disk->worker->events.grew(disk->worker->spec.ctx, size);
}

void world_controlled(struct disk *disk, int err, const char *text)
{
	disk->worker->events.controlled(disk->worker->spec.ctx, err, text);
}

void world_changed(struct disk *disk, const char *commit, const char *text)
{
	disk->worker->events.changed(disk->worker->spec.ctx, 0, commit, text);
}

void world_resized(struct disk *disk, int err)
{
	disk->worker->events.resized(disk->worker->spec.ctx, err, "no room");
}

pid_t worker_pid(const struct worker *worker)
{
	return worker->process ? 4242 : 0;
}

unsigned int worker_restarts(const struct worker *worker)
{
	(void)worker;
	return 0;
}

bool worker_is_adopting(const struct worker *worker)
{
	(void)worker;
	return false;
}

void supervisor_end_orphan(struct supervisor *supervisor,
			   const struct msg_identity *id)
{
	(void)supervisor;
	(void)id;
}

bool worker_is_held(const struct worker *worker)
{
	return worker->held;
}

static void answer_open(struct worker *worker, int err)
{
	struct msg_opened opened = { .limits = world.limits };

	worker->process = err == 0;
	worker->held = worker->process && world.held;
	if (world.storage) {
		opened.nr_identities = 1;
		(void)snprintf(opened.identity[0], sizeof(opened.identity[0]),
			       "%s", world.storage);
	}
	worker->events.opened(worker->spec.ctx, err, err ? NULL : &opened,
			      err ? "raw: /srv/a.img: No such file" : "");
}

void world_answer(struct disk *disk, int err)
{
	struct worker *worker = disk->worker;
	enum ask asked = worker->ask;

	worker->ask = ASK_NOTHING;
	if (asked == ASK_OPEN) {
		answer_open(worker, err);
	} else if (asked == ASK_CONNECT) {
		worker->connected = err == 0;
		worker->events.connected(worker->spec.ctx, err, "no such page");
	} else if (asked == ASK_DISCONNECT) {
		worker->connected = false;
		worker->events.disconnected(worker->spec.ctx, err, "EIO");
	}
	world_settle();
}

void world_worker_dies(struct disk *disk)
{
	struct worker *worker = disk->worker;
	bool opening = worker->ask == ASK_OPEN;

	worker->ask = ASK_NOTHING;
	worker->process = worker->connected = worker->held = false;
	if (opening)
		worker->events.opened(worker->spec.ctx, -EIO, NULL, "it died");
	else
		worker->events.died(worker->spec.ctx, "killed by signal 9");
	world_settle();
}

void world_wait_ask(struct disk *disk, enum ask ask)
{
	for (int i = 0; i < 100 && disk->worker && disk->worker->ask != ask;
	     i++) {
		(void)event_base_loop(world.broker.base, EVLOOP_ONCE);
		world_settle();
	}
	assert(disk->worker && disk->worker->ask == ask);
}

/* --- The bus and xen-blkback ---------------------------------------------- */

uint32_t bus_domid(const struct bus *bus)
{
	(void)bus;
	return 0;
}

void bus_each(struct bus *bus, bool (*fn)(void *ctx, struct vbd *vbd),
	      void *ctx)
{
	(void)bus;
	for (unsigned int i = 0; i < world.nr_disks; i++)
		if (world.disks[i].vbd && !fn(ctx, world.disks[i].vbd))
			return;
}

struct vbd *bus_known(struct bus *bus, const struct node_address *at)
{
	struct disk *disk = disk_of(at->domid);

	(void)bus;
	return disk ? disk->vbd : NULL;
}

int bus_get(struct bus *bus, const struct node_address *at, struct vbd **ret)
{
	*ret = bus_known(bus, at);
	return *ret ? 0 : -ENODEV;
}

void bus_forget(struct bus *bus, struct vbd *vbd)
{
	struct disk *disk = disk_of(vbd_address(vbd)->domid);

	(void)bus;
	vbd_free(vbd);
	disk->vbd = NULL;
}

bool blkback_present(void)
{
	return world.blkback;
}

bool blkback_owns(uint32_t domid, uint32_t devid)
{
	(void)domid;
	(void)devid;
	return world.blkback_owns;
}

int blkback_take(uint32_t domid, uint32_t devid)
{
	(void)domid;
	(void)devid;
	world.blkback_owns = false;
	return 0;
}

int blkback_load(uint32_t max_queues, uint32_t *ret_queues)
{
	*ret_queues = max_queues;
	return 0;
}

/* --- Expressions: null(), and file(PATH, shared=) ------------------------- */

static struct backend_info backends[2];

static const struct backend_info *find_backend(void *ctx, const char *name)
{
	(void)ctx;
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
		if (strcmp(backends[i].name, name) == 0)
			return &backends[i];
	return NULL;
}

static const struct backend_info *find_scheme(void *ctx, const char *scheme)
{
	(void)ctx;
	(void)scheme;
	return NULL;
}

struct expr_env broker_expr_env(struct broker *broker)
{
	static char null[] = "null", raw[] = "raw", none[] = "";
	static struct xd_param no_params[] = { { .type = XD_END } };
	static struct xd_param params[] = {
		{ .name = "path",
		  .type = XD_PATH,
		  .flags = XD_POSITIONAL | XD_REQUIRED },
		{ .name = "shared", .type = XD_BOOL, .preset = "no" },
		{ .type = XD_END },
	};

	(void)broker;
	backends[0] = (struct backend_info){ .name = null,
					     .summary = none,
					     .params = no_params };
	backends[1] = (struct backend_info){
		.name = raw, .summary = none, .params = params, .nr_params = 2
	};
	return (struct expr_env){ .backend = find_backend,
				  .scheme = find_scheme };
}

/* --- The world ------------------------------------------------------------ */

void world_start(void)
{
	world = (struct world){
		.limits = { .size = 1 << 20,
			    .sector_size = 512,
			    .physical_sector_size = 4096,
			    .discard_granularity = 4096,
			    .flush = true },
	};
	world.broker.base = event_base_new();
	world.broker.settings = &world.settings;
	(void)store_open(&world.store);
}

void world_end(void)
{
	for (unsigned int i = 0; i < world.nr_disks; i++)
		vbd_free(world.disks[i].vbd);
	assert(world.workers == 0);
	store_close(world.store);
	event_base_free(world.broker.base);
	libevent_global_shutdown();
}

static void on_resumed(void *ctx, int err, const char *why)
{
	*(int *)ctx = err;
	(void)snprintf(world.resume_why, sizeof(world.resume_why), "%s",
		       why ? why : "");
}

int world_resume(struct disk *disk, bool accept_loss)
{
	int err = 1;

	vbd_resume(disk->vbd, accept_loss, on_resumed, &err);
	return err;
}

int world_set_up(void **state)
{
	(void)state;
	world_start();
	return 0;
}

int world_tear_down(void **state)
{
	(void)state;
	world_end();
	return 0;
}

static void put(const char *dir, const char *key, const char *value)
{
	char path[STORE_PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, key);
	fake_set(world.store, path, value);
}

static void write_node(struct disk *disk, const char *target)
{
	char number[16], path[64];

	(void)snprintf(number, sizeof(number), "%u", disk->at.domid);
	put(disk->be, "frontend", disk->fe);
	put(disk->be, "frontend-id", number);
	put(disk->be, "params", target);
	if (disk->at.kind != NODE_XENDISK)
		put(disk->be, "script", "/etc/xen/scripts/block-xendisk");
	put(disk->be, "online", "1");
	put(disk->be, "state", "1");
	put(disk->be, "dev", "xvda");
	put(disk->be, "mode", "w");
	put(disk->be, "discard-enable", "1");
	put(disk->fe, "backend", disk->be);
	put(disk->fe, "state", "1");
	(void)snprintf(path, sizeof(path), "/local/domain/%u/vm",
		       disk->at.domid);
	(void)snprintf(number, sizeof(number), "/vm/%08x", disk->at.domid);
	fake_set(world.store, path, number);
}

struct disk *world_attach(enum node_kind kind, uint32_t domid,
			  const char *target)
{
	struct disk *disk = &world.disks[world.nr_disks++];

	assert(world.nr_disks <= WORLD_MAX_DISKS);
	disk->at = (struct node_address){ kind, domid, 51712 };
	(void)snprintf(disk->be, sizeof(disk->be),
		       "/local/domain/0/backend/%s/%u/51712",
		       node_kind_name(kind), domid);
	(void)snprintf(disk->fe, sizeof(disk->fe),
		       "/local/domain/%u/device/vbd/51712", domid);
	write_node(disk, target);
	world_adopt(disk);
	return disk;
}

void world_adopt(struct disk *disk)
{
	bool ours = false;

	(void)node_is_ours(world.store, &disk->at, disk->be, &ours);
	if (ours) {
		int r = vbd_new(&disk->vbd, &world.broker, world.store,
				&disk->at);

		assert(r == 0);
	}
	world_settle();
}

void world_detach(struct disk *disk)
{
	put(disk->be, "online", "0");
	put(disk->be, "state", "5");
	world_settle();
}

void world_settle(void)
{
	bool again = true;

	for (int looks = 0; again; looks++) {
		assert(looks < 100); /* else it runs in circles */
		again = false;
		for (unsigned int i = 0; i < world.nr_disks; i++) {
			struct vbd *vbd = world.disks[i].vbd;

			if (!vbd ||
			    !fake_take_mark(fake_mark_of(world.store, vbd)))
				continue;
			vbd_look(vbd);
			again = true;
		}
	}
}

static void on_done(void *ctx, int err, const char *why)
{
	(void)ctx;
	assert(!world.done);
	world.done = true;
	world.done_err = err;
	(void)snprintf(world.done_why, sizeof(world.done_why), "%s",
		       why ? why : "");
}

static void print_xenbus_path(const struct disk *disk, char *buf, size_t len)
{
	(void)snprintf(buf, len, "%s", disk->be + strlen("/local/domain/0/"));
}

void world_add(struct disk *disk)
{
	char path[64];

	print_xenbus_path(disk, path, sizeof(path));
	world.done = false;
	vbd_hotplug_add(&world.broker, path, on_done, NULL);
	world_settle();
}

void world_remove(struct disk *disk)
{
	char path[64];

	print_xenbus_path(disk, path, sizeof(path));
	world.done = false;
	vbd_hotplug_remove(&world.broker, path, on_done, NULL);
	world_settle();
}

void world_frontend(struct disk *disk, const char *key, const char *value)
{
	put(disk->fe, key, value);
	world_settle();
}

void world_frontend_rings(struct disk *disk, unsigned int queues)
{
	char key[64], number[16];

	put(disk->fe, "protocol", "x86_64-abi");
	if (queues == 1) {
		put(disk->fe, "ring-ref", "8");
		put(disk->fe, "event-channel", "3");
		return;
	}
	(void)snprintf(number, sizeof(number), "%u", queues);
	put(disk->fe, "multi-queue-num-queues", number);
	for (unsigned int i = 0; i < queues; i++) {
		(void)snprintf(key, sizeof(key), "queue-%u/ring-ref", i);
		put(disk->fe, key, "8");
		(void)snprintf(key, sizeof(key), "queue-%u/event-channel", i);
		put(disk->fe, key, "3");
	}
}

int world_backend_state(struct disk *disk)
{
	return atoi(world_backend(disk, "state"));
}

const char *world_backend(struct disk *disk, const char *key)
{
	char path[STORE_PATH_MAX];
	const char *value;

	(void)snprintf(path, sizeof(path), "%s/%s", disk->be, key);
	value = fake_get(world.store, path);
	return value ? value : "(none)";
}

struct disk *world_connected(uint32_t domid)
{
	struct disk *disk = world_attach(NODE_VBD, domid, "null");

	world_add(disk);
	world_answer(disk, 0);
	world_frontend_rings(disk, 1);
	world_frontend(disk, "state", "3");
	world_answer(disk, 0);
	world_frontend(disk, "state", "4");
	assert(disk->worker->connected && world_backend_state(disk) == 4);
	return disk;
}

const char *world_view(struct disk *disk)
{
	struct vbd_view view;

	vbd_view(disk->vbd, &view);
	return view.state;
}
