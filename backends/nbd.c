/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd.c - a disk that lives on an NBD server: one that runs somewhere (nbd-uri.c),
 * or one of its own (nbdkit.c, image.c).
 *
 * open() connects once, to learn what is there; each lane then has a connection
 * of its own, made when a guest comes (nbd-link.c).  A server that goes away
 * costs the guest time only: requests wait, and those that were under way are
 * sent again.
 */
#include "config.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "common/util.h"
#include "nbd.h"

static int take_parameters(struct nbd_disk *nbd)
{
	struct xd_disk *disk = nbd->disk;

	nbd->sector = strcmp(xd_arg_string(disk, "sector-size"), "4096") ? 512 :
									   4096;
	nbd->rmw = xd_arg_bool(disk, "rmw");
	nbd->unflushed = xd_arg_string(disk, "unflushed");
	nbd->keep_limit = ALIGN_UP(xd_arg_u64(disk, "keep-limit"),
				   (uint64_t)NBD_KEEP_UNIT);
	nbd->fence_ns = xd_arg_u64(disk, "fence");
	nbd->handshake_ns = xd_arg_u64(disk, "handshake");
	nbd->give_up_ns = xd_arg_u64(disk, "give-up");
	if (!nbd->handshake_ns)
		xd_error(disk, "handshake=0s: no server is so fast");
	else if (nbd->keep_limit < NBD_KEEP_LEAST ||
		 nbd->keep_limit > NBD_KEEP_MOST)
		xd_error(disk, "keep-limit is 1M at least, and 16G at most");
	else
		return 0;
	return -EINVAL;
}

static int check_sizes(struct nbd_disk *nbd)
{
	const struct nbd_facts *facts = &nbd->facts;

	if (facts->size % nbd->sector) {
		xd_error(nbd->disk,
			 "%s: the size of the export, %" PRIu64
			 " bytes, is no multiple of the sector size %u",
			 nbd->place, facts->size, nbd->sector);
		return -EINVAL;
	}
	if (facts->minimum > nbd->sector && !nbd->rmw) {
		xd_error(nbd->disk,
			 "%s: the server takes blocks of %u bytes or more, "
			 "the guest's sectors have %u, and rmw=no forbids to "
			 "write back whole blocks",
			 nbd->place, facts->minimum, nbd->sector);
		return -EINVAL;
	}
	return 0;
}

static int open_keep(struct nbd_disk *nbd)
{
	bool found;

	if (!nbd->facts.flush) {
		xd_error(nbd->disk,
			 "%s: unflushed=keep is of no use, since the server "
			 "knows no flush",
			 nbd->place);
		return -EINVAL;
	}
	return nbd_keep_open(&nbd->keep, nbd->disk, nbd->keep_limit, &found);
}

/* Where all is durable when it is answered, there is nothing to lose. */
static int open_unflushed(struct nbd_disk *nbd)
{
	if (nbd->readonly)
		return 0;
	if (strcmp(nbd->unflushed, "keep") == 0)
		return open_keep(nbd);
	if (strcmp(nbd->unflushed, "trust") == 0 || !nbd->facts.flush)
		return 0;
	return nbd_recall_open(&nbd->recall, nbd->disk);
}

static struct xd_limits make_limits(const struct nbd_disk *nbd)
{
	const struct nbd_facts *facts = &nbd->facts;
	uint32_t unit = MAX(nbd->sector, facts->minimum);
	bool whole = facts->minimum <= nbd->sector;
	bool writes = !nbd->readonly;
	uint32_t most = facts->maximum;

	/* What is kept is in one piece, and others want room, too. */
	if (nbd->keep)
		most = (uint32_t)MIN(most, nbd->keep_limit / 4);
	/* Several commands then; but of parts of a block nothing is recalled. */
	most = MAX(most, NBD_RECALL_BLOCK);
	return (struct xd_limits){
		.size = facts->size,
		.sector_size = nbd->sector,
		.physical_sector_size =
			MAX(unit,
			    MIN(facts->preferred & ~(nbd->sector - 1), 4096u)),
		.discard_granularity = writes && facts->trim ? unit : 0,
		/* A command per piece, each of whole sectors. */
		.memory_alignment = nbd->sector,
		.max_transfer = most & ~(nbd->sector - 1),
		/* Of blocks that are written back, one lane keeps watch; and
		 * what is kept has one order. */
		.max_channels = facts->multi_conn && whole && !nbd->keep ? 0 :
									   1,
		.readonly = nbd->readonly,
		.flush = writes && facts->flush,
		.fua = writes && facts->fua,
		.zero = writes && facts->zero && whole,
		.fast_zero = writes && facts->fast_zero && whole,
	};
}

static void describe(const struct nbd_disk *nbd)
{
	const struct nbd_facts *facts = &nbd->facts;

	xd_note(nbd->disk, "%s%s%s%s; blocks of %u to %u bytes%s", nbd->place,
		nbd->server.tls ? ", TLS" : "",
		facts->readonly ? ", read-only" : "",
		facts->multi_conn ? ", several connections" : "",
		facts->minimum, facts->maximum,
		facts->minimum > nbd->sector ?
			", read and written back for smaller sectors" :
			"");
	if (nbd->keep)
		xd_note(nbd->disk,
			"what is not flushed is kept, %" PRIu64
			" bytes at most, and sent again to a server that "
			"comes back",
			nbd->keep_limit);
	if (!nbd->readonly && !facts->flush)
		xd_note(nbd->disk, "the server knows no flush: %s",
			facts->fua ? "every write is FUA" :
				     "what it answers is taken as durable");
}

void nbd_close_disk(struct xd_disk *disk)
{
	struct nbd_disk *nbd = disk->data;

	nbd_keep_close(nbd->keep);
	nbd_recall_close(nbd->recall);
	nbd_certs_free(nbd->certs);
	nbd_fence_clear(nbd);
	(void)pthread_mutex_destroy(&nbd->lock);
	free(nbd);
}

static int look_at_server(struct nbd_disk *nbd)
{
	int r = nbd_facts_probe(nbd, &nbd->facts);

	if (r == 0)
		r = check_sizes(nbd);
	nbd->readonly = nbd->facts.readonly || xd_readonly(nbd->disk);
	nbd->write_through = !nbd->facts.flush && nbd->facts.fua;
	return r;
}

int nbd_open(struct xd_disk *disk, struct xd_limits *ret_limits,
	     int (*prepare)(struct nbd_disk *nbd))
{
	struct nbd_disk *nbd = calloc(1, sizeof(*nbd));
	int r;

	if (!nbd)
		return -ENOMEM;
	nbd->disk = disk;
	disk->data = nbd;
	(void)pthread_mutex_init(&nbd->lock, NULL);
	atomic_store(&nbd->generation, 1);
	r = take_parameters(nbd);
	if (r == 0)
		r = prepare(nbd);
	if (r == 0)
		r = look_at_server(nbd);
	if (r == 0)
		r = open_unflushed(nbd);
	if (r < 0) {
		nbd_close_disk(disk);
		return r;
	}
	describe(nbd);
	*ret_limits = make_limits(nbd);
	return 0;
}

/* An earlier guest's writes are of no concern any more: they were flushed, or
 * the disk is poisoned. */
static void forget_unflushed(struct nbd_disk *nbd)
{
	if (nbd->keep)
		nbd_keep_clear(nbd->keep);
	if (nbd->recall)
		nbd_recall_clear(nbd->recall);
	atomic_store(&nbd->forgot, false);
}

/* What the dead worker has left.  Something may be unflushed. */
static void find_unflushed(struct nbd_disk *nbd)
{
	if (nbd->keep &&
	    nbd_keep_find(nbd->keep, nbd->facts.size, nbd->sector) < 0) {
		nbd_keep_clear(nbd->keep);
		nbd_keep_set_lost(nbd->keep, true);
	}
	if (nbd->keep && nbd_keep_has_lost(nbd->keep))
		atomic_store(&nbd->forgot, true);
	if (nbd->recall)
		atomic_store(&nbd->written, nbd_recall_find(nbd->recall));
	atomic_fetch_add(&nbd->written, 1);
}

/* The connections of the dead worker are closed; what the server had received
 * by then gets the same time as after any break. */
int nbd_activate(struct xd_disk *disk, bool recover)
{
	struct nbd_disk *nbd = disk->data;
	struct timespec left = {
		.tv_sec = (time_t)(nbd->fence_ns / 1000000000),
		.tv_nsec = (long)(nbd->fence_ns % 1000000000),
	};

	if (recover)
		find_unflushed(nbd);
	else
		forget_unflushed(nbd);
	if (!recover || nbd->readonly)
		return 0;
	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
	return 0;
}

/* By a connection of its own: those of the lanes learned it when they were made,
 * and go on.  A server cannot be told to make it larger. */
int nbd_resize(struct xd_disk *disk, uint64_t size, uint64_t *ret_size)
{
	const struct nbd_disk *nbd = disk->data;
	struct nbd_facts facts;
	uint64_t now;
	int r = nbd_facts_probe(nbd, &facts);

	if (r < 0)
		return r;
	now = facts.size / nbd->sector * nbd->sector;
	if (now < disk->limits.size || now < size) {
		xd_error(disk, "%s: the export has %" PRIu64 " bytes",
			 nbd->place, facts.size);
		return -EINVAL;
	}
	*ret_size = now;
	return 0;
}

void nbd_resized(struct xd_disk *disk)
{
	struct nbd_disk *nbd = disk->data;

	nbd->facts.size = disk->limits.size;
}
