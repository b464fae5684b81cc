/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd.h - an export of an NBD server.  nbd.c is the disk, nbd-facts.c what a
 * server says of its export, nbd-link.c one connection and its return,
 * nbd-io.c the requests, nbd-fence.c what a broken connection may still do.
 */
#ifndef XENDISK_NBD_H
#define XENDISK_NBD_H

#include <libnbd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/server.h"
#include "xendisk-backend.h"

#define NBD_WHY_MAX 512 /* of a sentence */

/* What the server says at the end of a handshake. */
struct nbd_facts {
	uint64_t size;
	uint32_t minimum; /* unit of every offset and length */
	uint32_t preferred;
	uint32_t maximum; /* longest command with data */
	bool readonly;
	bool flush;
	bool fua;
	bool trim;
	bool zero;
	bool fast_zero;
	bool extents; /* base:allocation */
	bool multi_conn; /* a flush covers what other connections wrote */
};

/* A write that a broken connection may still carry out (nbd-fence.c). */
struct nbd_fence {
	struct nbd_fence *next;
	uint64_t begin, end; /* bytes */
	uint64_t until; /* now_ns() */
};

/* disk->data.  Set by the main thread while no lane runs, but for fences. */
struct nbd_disk {
	struct xd_disk *disk;
	struct server server;
	char place[300]; /* where the server is, for people */
	char psk[512], user[512]; /* TLS: file of keys, and which one */
	struct nbd_facts facts; /* as they were at open() */
	uint32_t sector;
	bool rmw; /* a block may be read, changed and written back */
	bool readonly;
	bool write_through; /* no flush, but FUA: on every write */
	uint64_t fence_ns;
	uint64_t give_up_ns; /* 0: never */
	pthread_mutex_t lock; /* of the list */
	struct nbd_fence *fences;
	_Atomic(unsigned int) nr_fences;
};

/* --- nbd-facts.c: a handle, and what it learned --------------------------- */

/* A handle for the disk's export, not connected yet; NULL: see
 * nbd_get_error(). */
struct nbd_handle *nbd_facts_handle(const struct nbd_disk *nbd);

/* After the handshake.  -EINVAL and why: it cannot be used. */
int nbd_facts_read(struct nbd_handle *h, struct nbd_facts *ret, char *ret_why);

/* What a server says may be no text. */
void nbd_printable(char *text);

/* Main thread, may block: what is there?  On failure xd_error() has said
 * why. */
int nbd_facts_probe(const struct nbd_disk *nbd, struct nbd_facts *ret);

/* Can a guest that was promised the disk's facts go on with these?  -EINVAL and
 * why if not. */
int nbd_facts_compare(const struct nbd_disk *nbd, const struct nbd_facts *now,
		      char *ret_why);

/* --- nbd-link.c: a connection --------------------------------------------- */

enum nbd_phase {
	NBD_DOWN, /* the timer `again` runs */
	NBD_CALLING, /* the broker connects */
	NBD_GREETING, /* the handshake */
	NBD_UP,
	NBD_ENDING, /* the polls come back, then DOWN */
};

struct nbd_io;

/* ch->data: the connection of a lane, or the attempts to have one. */
struct nbd_link {
	struct xd_channel *ch;
	struct nbd_disk *nbd;
	enum nbd_phase phase;
	struct nbd_handle *h; /* GREETING, UP; else NULL */
	int fd; /* ours, of the same socket; or the one CALLING waits for */
	struct nbd_facts facts; /* UP: of this connection */
	struct xd_sys in, out, again, limit;
	bool in_armed, out_armed, again_armed, limit_armed;
	bool closing; /* the channel */
	bool leaving; /* the server is about to shut down */
	bool given_up; /* requests fail until it is UP again */
	uint64_t delay_ns; /* before the next attempt */
	uint64_t greet_until;
	uint64_t down_since;
	char why[NBD_WHY_MAX]; /* it was lost, or does not come */

	/* nbd-io.c */
	struct nbd_io *waiting; /* for the connection */
	struct nbd_io *flying; /* commands are under way */
	struct nbd_io *over; /* no command is under way any more */
	struct nbd_io *blocked; /* by another write to the same block */
	struct nbd_io *fenced;
	struct xd_sys fence_timer;
	bool fence_armed;
};

int nbd_link_open(struct xd_channel *ch);
void nbd_link_close(struct xd_channel *ch);
/* After commands were given to the handle: has it broken, what to poll for? */
void nbd_link_pump(struct nbd_link *link);

/* --- nbd-io.c: requests --------------------------------------------------- */

void nbd_io_submit(struct xd_channel *ch, struct xd_request *req);
/* The connection is up: what waited goes out. */
void nbd_io_up(struct nbd_link *link);
/* Some commands may be over. */
void nbd_io_reap(struct nbd_link *link);
/* It has broken, and the handle is closed. */
void nbd_io_down(struct nbd_link *link);
/* It does not come back: what waits ends with -EAGAIN. */
void nbd_io_give_up(struct nbd_link *link);

/* --- nbd-fence.c ---------------------------------------------------------- */

/* Any lane. */
void nbd_fence_add(struct nbd_disk *nbd, uint64_t begin, uint64_t end);
/* 0, or until when a write there has to wait.  Drops those that are over. */
uint64_t nbd_fence_check(struct nbd_disk *nbd, uint64_t begin, uint64_t end);
void nbd_fence_clear(struct nbd_disk *nbd);

#endif
