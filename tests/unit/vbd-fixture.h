/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vbd-fixture.h - disks with everything around them played by the test: a
 * xenstore in memory, workers that do nothing until they are told to, a
 * xen-blkback.  The real code is src/broker/vbd*.c, target.c, node.c,
 * frontend.c and publish.c.
 */
#ifndef VBD_FIXTURE_H
#define VBD_FIXTURE_H

#include "broker/broker.h"
#include "broker/bus.h"
#include "fake-store.h"

#define WORLD_MAX_DISKS 4

/* What a worker has been asked, and has not answered yet. */
enum ask { ASK_NOTHING, ASK_OPEN, ASK_CONNECT, ASK_DISCONNECT };

struct worker {
	struct worker_spec spec;
	struct worker_events events;
	enum ask ask;
	bool process;
	bool connected;
	bool held; /* was found connected */
	bool discarded;
	struct msg_connect connect; /* the last one */
};

struct disk {
	struct node_address at;
	struct vbd *vbd; /* NULL: none (any more) */
	struct worker *worker; /* NULL: none */
	char be[96];
	char fe[64];
};

struct world {
	struct broker broker;
	struct settings settings;
	struct store *store;
	struct disk disks[WORLD_MAX_DISKS];
	unsigned int nr_disks;
	bool blkback; /* is loaded */
	bool blkback_owns; /* every device that was not taken */
	unsigned int workers; /* that live */
	unsigned int processes; /* that were started */
	unsigned int discards;
	unsigned int swept; /* times that kept state went without a worker */
	unsigned int exports; /* NBD sockets that there are */
	unsigned int forgotten; /* times that a disk's named exports were */
	bool comma; /* in their paths */
	bool held; /* workers that are opened were found, and serve a guest */
	struct xd_limits limits; /* of what workers open */
	uint64_t resize; /* that a worker was asked for last */
	const char *storage; /* its identity; NULL: none */
	/* What vbd_hotplug_add() and _remove() have said. */
	bool done;
	int done_err;
	char done_why[MSG_TEXT_MAX];
	char resume_why[MSG_TEXT_MAX]; /* what world_resume() was told */
};

extern struct world world;

void world_start(void);
void world_end(void);
/* The same, for cmocka. */
int world_set_up(void **state);
int world_tear_down(void **state);

/* The toolstack's part, as libxl's one transaction. */
struct disk *world_attach(enum node_kind kind, uint32_t domid,
			  const char *target);
/* online=0, state Closing */
void world_detach(struct disk *disk);
/* A broker that starts: makes the vbd, if the node is for us. */
void world_adopt(struct disk *disk);

/* Looks until nothing is marked any more. */
void world_settle(void);
/* The worker answers what it was asked: 0 or -errno. */
void world_answer(struct disk *disk, int err);
void world_worker_dies(struct disk *disk);
/* The worker says that the disk is larger; that a resize has ended. */
void world_grow(struct disk *disk, uint64_t size);
void world_resized(struct disk *disk, int err);
/* The worker answers what its backends were asked; says what they show. */
void world_controlled(struct disk *disk, int err, const char *text);
void world_changed(struct disk *disk, const char *commit, const char *text);
/* Lets the event loop run until the worker is asked something. */
void world_wait_ask(struct disk *disk, enum ask ask);

/* What vbd_resume() has answered; 1: nothing yet. */
int world_resume(struct disk *disk, bool accept_loss);
void world_add(struct disk *disk);
void world_remove(struct disk *disk);

/* The guest's part. */
void world_frontend(struct disk *disk, const char *key, const char *value);
void world_frontend_rings(struct disk *disk, unsigned int queues);
int world_backend_state(struct disk *disk);
/* A key of the backend, or "(none)". */
const char *world_backend(struct disk *disk, const char *key);

/* Attached by xl, opened, connected. */
struct disk *world_connected(uint32_t domid);
/* What xendisk list says. */
const char *world_view(struct disk *disk);

/* For tests, which include <cmocka.h>. */
#define assert_be(disk, n) assert_int_equal(world_backend_state(disk), n)
#define assert_key(disk, key, value) \
	assert_string_equal(world_backend(disk, key), value)
#define assert_asked(disk, what)                             \
	do {                                                 \
		assert_non_null((disk)->worker);             \
		assert_int_equal((disk)->worker->ask, what); \
	} while (0)

#endif
