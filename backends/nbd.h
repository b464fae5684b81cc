/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd.h - an export of an NBD server.  nbd.c is the disk; nbd-uri.c, nbdkit.c and
 * image.c are the backends that are made of it.  nbd-facts.c is what a server says
 * of its export, nbd-link.c one connection and its return, nbd-io.c the requests
 * and nbd-command.c what the server is told, nbd-fence.c what a broken connection
 * may still do, nbd-generation.c which connections are of one time, nbd-tls.c
 * certificates.  What the server may have forgotten: nbd-unflushed.c, nbd-keep.c,
 * nbd-recall.c, nbd-restore.c.
 */
#ifndef XENDISK_NBD_H
#define XENDISK_NBD_H

#include <libnbd.h>
#include <poll.h>
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
	bool child; /* a server of our own, which has no address */
	unsigned int spawn_flags; /* of xd_spawn() */
	char place[300]; /* where the server is, for people */
	char psk[512], user[512]; /* TLS: file of keys, and which one */
	struct nbd_certs *certs; /* ... or these */
	struct nbd_facts facts; /* as they were at open() */
	uint32_t sector;
	bool rmw; /* a block may be read, changed and written back */
	bool readonly;
	bool write_through; /* no flush, but FUA: on every write */
	uint64_t fence_ns;
	const char *unflushed; /* check, keep or trust */
	uint64_t keep_limit; /* bytes */
	uint64_t handshake_ns; /* longest */
	uint64_t give_up_ns; /* 0: never */
	pthread_mutex_t lock; /* of the list */
	struct nbd_fence *fences;
	_Atomic(unsigned int) nr_fences;
	/* Changes that were answered and are not durable by themselves, counted
	 * from the beginning; and how many of them a flush has covered. */
	_Atomic(uint64_t) written, flushed;
	struct nbd_keep *keep; /* NULL: not unflushed=keep */
	struct nbd_recall *recall; /* NULL: not unflushed=check */
	_Atomic(bool) forgot; /* the server; the next flush fails */
	_Atomic(uint64_t) generation; /* changed under the lock */
};

/* --- nbd.c: the disk ------------------------------------------------------ */

/* Parameters that all these backends have.  unflushed: the preset. */
#define NBD_OPTIONS(unflushed)                                                  \
	{ "sector-size", XD_ENUM, 0,                                            \
	  "512|4096",	 "512",	  "size of a sector for the guest" },           \
		{ "rmw",                                                        \
		  XD_BOOL,                                                      \
		  0,                                                            \
		  NULL,                                                         \
		  "yes",                                                        \
		  "read and write back blocks that are larger than a sector" }, \
		{ "fence", XD_TIME,                                             \
		  0,	   NULL,                                                \
		  "1s",	   "how long a broken connection may go on writing" },  \
		{ "handshake", XD_TIME, 0,                                      \
		  NULL,	       "20s",	"how long a handshake may take" },      \
		{ "unflushed",                                                  \
		  XD_ENUM,                                                      \
		  0,                                                            \
		  "check|keep|trust",                                           \
		  unflushed,                                                    \
		  "writes that the server may forget until it is flushed" },    \
		{ "keep-limit",                                                 \
		  XD_SIZE,                                                      \
		  0,                                                            \
		  NULL,                                                         \
		  "32M",                                                        \
		  "unflushed=keep: memory for them; a flush empties it" },      \
	{                                                                       \
		"give-up", XD_TIME, 0, NULL, NULL,                              \
			"server away for so long: requests fail (see on-error)" \
	}

/* And members: of these, name, summary, params, schemes, server and open differ. */
#define NBD_MEMBERS                                                           \
	.size = sizeof(struct xd_backend), .version = XD_API_VERSION,         \
	.close = nbd_close_disk, .activate = nbd_activate,                    \
	.channel_open = nbd_link_open, .channel_close = nbd_link_close,       \
	.submit = nbd_io_submit, .kick = nbd_link_kick, .resize = nbd_resize, \
	.resized = nbd_resized, .extents = nbd_io_submit,                     \
	.stop = nbd_link_stop

/* prepare() says where the server is, before it is asked: sets server or child,
 * and place; identifies the storage.  On failure it has said why. */
int nbd_open(struct xd_disk *disk, struct xd_limits *ret_limits,
	     int (*prepare)(struct nbd_disk *nbd));
void nbd_close_disk(struct xd_disk *disk);
int nbd_activate(struct xd_disk *disk, bool recover);
int nbd_resize(struct xd_disk *disk, uint64_t size, uint64_t *ret_size);
void nbd_resized(struct xd_disk *disk);

/* Begins to connect, as xd_connect() does. */
static inline int nbd_call(const struct nbd_disk *nbd)
{
	return nbd->child ? xd_spawn(nbd->disk, nbd->spawn_flags) :
			    xd_connect(nbd->disk, "uri");
}

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
/* unflushed=keep: what was written in smaller blocks than there were at first could not
 * be sent again to a server that has those once more.  So smaller ones are not used. */
void nbd_facts_keep_blocks(const struct nbd_disk *nbd,
			   struct nbd_facts *io_now);

/* --- nbd-tls.c: certificates ------------------------------------------------ */

struct nbd_tls;

/* Main thread, in open(): ca-cert.pem and what else there is in the folder;
 * servers are known as host, a name or an address.  -errno: xd_error() has said
 * why. */
int nbd_certs_load(struct nbd_certs **ret, struct xd_disk *disk,
		   const char *dir, const char *host);
void nbd_certs_free(struct nbd_certs *certs);

/* Takes fd, which is connected to a server.  Returns the socket on which libnbd
 * talks to it, in clear; or -errno. */
int nbd_tls_new(struct nbd_tls **ret, const struct nbd_certs *certs, int fd);
void nbd_tls_free(struct nbd_tls *tls);
/* Goes as far as it can.  When it is over it has shut both sockets down. */
void nbd_tls_pump(struct nbd_tls *tls);
void nbd_tls_shut(struct nbd_tls *tls);
/* The server's socket and that to libnbd, and what to poll for. */
void nbd_tls_wants(const struct nbd_tls *tls, struct pollfd ret[2]);
/* Why it is over; NULL: nothing is wrong, or the server has hung up. */
const char *nbd_tls_why(const struct nbd_tls *tls);

/* --- nbd-link.c: a connection --------------------------------------------- */

enum nbd_phase {
	NBD_DOWN, /* the timer `again` runs */
	NBD_CALLING, /* the broker connects */
	NBD_GREETING, /* the handshake */
	NBD_RESTORING, /* what the server may have forgotten */
	NBD_UP,
	NBD_ENDING, /* the polls come back, then DOWN */
};

struct nbd_io;
struct nbd_restore;

/* For one event of one of the sockets of link->tls. */
struct nbd_tls_poll {
	struct xd_sys sys;
	struct nbd_link *link;
	bool armed;
};

/* ch->data: the connection of a lane, or the attempts to have one. */
struct nbd_link {
	struct xd_channel *ch;
	struct nbd_disk *nbd;
	enum nbd_phase phase;
	struct nbd_tls *tls; /* between libnbd and the server; or NULL */
	struct nbd_tls_poll tls_polls[4];
	struct nbd_handle *h; /* GREETING, RESTORING, UP; else NULL */
	int fd; /* ours, of the same socket; or the one CALLING waits for */
	struct nbd_facts facts; /* UP: of this connection */
	/* Of libnbd's last step: the bytes that it took from the socket, at most. */
	uint64_t took;
	struct xd_sys in, out, again, limit, patience, watch;
	bool in_armed, out_armed, again_armed, limit_armed, patience_armed;
	bool watch_armed;
	bool deaf; /* its host, when it was looked at the last time */
	bool closing; /* the channel */
	bool stopping; /* the guest goes */
	bool impatient; /* ... and the server was away for too long then */
	bool leaving; /* the server is about to shut down; or it is stale */
	bool given_up; /* requests fail until it is UP again */
	bool answered; /* since then: a request */
	uint64_t generation; /* of the connection, or the attempt */
	uint64_t broke_in; /* the last one that came to an end; 0: none has */
	bool outdated; /* an attempt that ends for its generation */
	unsigned int useless; /* connections in a row that answered nothing */
	unsigned int brief; /* ... that did not last */
	uint64_t up_since; /* 0: it has not been UP since it was DOWN */
	uint64_t delay_ns; /* before the next attempt */
	uint64_t greet_until;
	uint64_t down_since;
	char why[NBD_WHY_MAX]; /* it was lost, or does not come */

	/* nbd-io.c */
	struct nbd_io *waiting; /* for the connection */
	struct nbd_io *flying; /* commands are under way */
	unsigned int nr_again; /* of these, changes that another server had */
	uint64_t requests; /* that came */
	struct nbd_io *over; /* no command is under way any more */
	struct nbd_io *blocked; /* by another write to the same block */
	struct nbd_io *fenced;
	struct xd_sys fence_timer;
	bool fence_armed;
	struct nbd_io *crowded; /* for room in nbd->keep, or the flush for it */
	bool forcing; /* that flush is under way */
	bool force_over; /* it is over, with: */
	int force_err;
	uint64_t force_mark, force_written; /* what it covers */

	struct nbd_restore *restore; /* NULL: there is nothing to restore */
};

int nbd_link_open(struct xd_channel *ch);
void nbd_link_close(struct xd_channel *ch);
/* The guest goes: a server that is away gets little more time. */
void nbd_link_stop(struct xd_channel *ch);
/* A burst of requests has ended. */
void nbd_link_kick(struct xd_channel *ch);
/* After commands were given to the handle: has it broken, what to poll for? */
void nbd_link_pump(struct nbd_link *link);

/* --- nbd-io.c: requests --------------------------------------------------- */

void nbd_io_submit(struct xd_channel *ch, struct xd_request *req);
/* The connection is good: what waited goes out. */
void nbd_io_up(struct nbd_link *link);
/* Some commands may be over. */
void nbd_io_reap(struct nbd_link *link);
/* It has broken, and the handle is closed. */
void nbd_io_down(struct nbd_link *link);
/* It does not come back: what waits ends with -EAGAIN. */
void nbd_io_give_up(struct nbd_link *link);
/* link->stopping: what waits ends, but for the last flush; and link->impatient:
 * that, too. */
void nbd_io_stop(struct nbd_link *link);

/* --- nbd-generation.c ----------------------------------------------------- */

/* Have others begun a new one?  Then no answer counts, and none is asked for. */
static inline bool nbd_is_stale(const struct nbd_link *link)
{
	return atomic_load(&link->nbd->generation) != link->generation;
}

/* An attempt to connect begins. */
void nbd_generation_call(struct nbd_link *link);
/* The handshake is over.  False: it may be with the server of before. */
bool nbd_generation_join(struct nbd_link *link);
/* The connection has broken, or the attempt has failed. */
void nbd_generation_lost(struct nbd_link *link);

/* --- nbd-fence.c ---------------------------------------------------------- */

/* Any lane. */
void nbd_fence_add(struct nbd_disk *nbd, uint64_t begin, uint64_t end);
/* 0, or until when a write there has to wait.  Drops those that are over. */
uint64_t nbd_fence_check(struct nbd_disk *nbd, uint64_t begin, uint64_t end);
void nbd_fence_clear(struct nbd_disk *nbd);

/* --- nbd-keep.c: writes that are sent again --------------------------------- */

#define NBD_KEEP_LEAST (1ull << 20)
#define NBD_KEEP_MOST  (16ull << 30)
#define NBD_KEEP_UNIT  (64u << 10) /* limits are multiples */

struct nbd_kept {
	enum xd_op op; /* XD_WRITE, XD_ZERO, XD_DISCARD */
	uint64_t offset, length;
	unsigned char *data; /* XD_WRITE; until it is flushed */
};

/* Main thread; -errno: xd_error() has said why.  *ret_found: there may be what
 * another worker has left; look at it with nbd_keep_find(), or clear it. */
int nbd_keep_open(struct nbd_keep **ret, struct xd_disk *disk, uint64_t limit,
		  bool *ret_found);
void nbd_keep_close(struct nbd_keep *keep);
void nbd_keep_clear(struct nbd_keep *keep);
/* -EBADMSG: it makes no sense for a disk of this size. */
int nbd_keep_find(struct nbd_keep *keep, uint64_t size, uint32_t sector);

/* Before a write is sent.  False: there is no room. */
bool nbd_keep_reserve(struct nbd_keep *keep, enum xd_op op, uint64_t length);
void nbd_keep_unreserve(struct nbd_keep *keep, enum xd_op op, uint64_t length);
/* When it has been answered, in the room that was reserved. */
void nbd_keep_add(struct nbd_keep *keep, enum xd_op op, uint64_t offset,
		  uint64_t length, const struct iovec *iov,
		  unsigned int iovcnt);
/* Of a flush: what it covers, when it begins; and that it has succeeded. */
uint64_t nbd_keep_mark(const struct nbd_keep *keep);
void nbd_keep_flushed(struct nbd_keep *keep, uint64_t mark);

/* Something has been lost that a flush was to cover: the next worker has to know,
 * too, until a flush has told it. */
void nbd_keep_set_lost(struct nbd_keep *keep, bool lost);
bool nbd_keep_has_lost(const struct nbd_keep *keep);
/* One after the other, the oldest first: *io_at is 0 at first. */
bool nbd_keep_next(const struct nbd_keep *keep, uint64_t *io_at,
		   struct nbd_kept *ret);

/* --- nbd-recall.c: does the server still have it? --------------------------- */

#define NBD_RECALL_BLOCK 4096u
#define NBD_RECALL_NOTES 1024u

struct nbd_recalled {
	unsigned int place;
	uint64_t offset; /* of the block */
	uint64_t written;
};

/* Main thread; -errno: xd_error() has said why. */
int nbd_recall_open(struct nbd_recall **ret, struct xd_disk *disk);
void nbd_recall_close(struct nbd_recall *recall);
void nbd_recall_clear(struct nbd_recall *recall);
/* What a worker has left; returns the highest count in it. */
uint64_t nbd_recall_find(struct nbd_recall *recall);

/* Under the disk's lock, as all below.  A change of these bytes is sent. */
void nbd_recall_strike(struct nbd_recall *recall, uint64_t begin, uint64_t end);
/* A write was answered, and was the written-th. */
void nbd_recall_note(struct nbd_recall *recall, const struct xd_request *req,
		     uint64_t written);
void nbd_recall_flushed(struct nbd_recall *recall, uint64_t written);
/* The next block, within the size, that no flush has covered. */
bool nbd_recall_next(const struct nbd_recall *recall, unsigned int *io_at,
		     uint64_t size, struct nbd_recalled *ret);
/* Now that it was read back: is it another one, although nobody has written? */
bool nbd_recall_differs(const struct nbd_recall *recall,
			const struct nbd_recalled *recalled,
			const unsigned char *block);

/* --- nbd-restore.c: before a new connection is used ------------------------- */

/* Main thread.  NULL in link->restore afterwards: nothing to do, ever. */
int nbd_restore_open(struct nbd_link *link);
void nbd_restore_close(struct nbd_link *link);

/* The handshake is over. */
void nbd_restore_begin(struct nbd_link *link);
/* Does the next things.  0: all is done, the connection may be used; -EAGAIN:
 * not yet; -EIO: it is not to be used. */
int nbd_restore_step(struct nbd_link *link);
/* Are there commands under way? */
bool nbd_restore_is_busy(const struct nbd_link *link);

#endif
