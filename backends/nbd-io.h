/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-io.h - a request on its way, for those that carry it: nbd-io.c, which says
 * when, nbd-command.c, what the server is told, and nbd-unflushed.c, what has to
 * be remembered of it.
 */
#ifndef XENDISK_NBD_IO_H
#define XENDISK_NBD_IO_H

#include "common/util.h"
#include "nbd.h"

/* req->scratch */
struct nbd_io {
	struct nbd_io *prev, *next;
	struct nbd_link *link;
	unsigned char *bounce; /* whole blocks; or NULL */
	uint64_t begin, end; /* in whole blocks */
	uint64_t number; /* of the link's requests, as they came */
	uint64_t written; /* FLUSH: what it covers */
	uint64_t mark; /* ... of the writes that are kept */
	uint64_t missing; /* bytes that reads have not brought yet */
	uint32_t left; /* commands; and 1 while they are made */
	int err; /* the first command's that failed */
	bool lost; /* at least one was not answered */
	bool sent; /* to a server, at some time: no fence any more */
	bool again; /* and is now sent to another: nr_again counts it */
	bool told; /* EXTENTS: an answer came */
	bool late; /* came when the guest was going: the last flush */
	bool kept; /* there is room reserved for it */
	bool filling; /* the bounce buffer of a write */
};
_Static_assert(sizeof(struct nbd_io) <= XD_SCRATCH, "scratch is too small");

static inline struct nbd_io *nbd_io_of(struct xd_request *req)
{
	return (struct nbd_io *)(void *)req->scratch;
}

static inline struct xd_request *nbd_request_of(struct nbd_io *io)
{
	return container_of((unsigned char(*)[XD_SCRATCH])(void *)io,
			    struct xd_request, scratch);
}

static inline bool nbd_changes(const struct xd_request *req)
{
	return req->op == XD_WRITE || req->op == XD_ZERO ||
	       req->op == XD_DISCARD;
}

/* --- nbd-command.c ---------------------------------------------------------- */

/* Is it of whole blocks of this server, and so is each piece of its memory? */
bool nbd_is_whole(const struct nbd_io *io, const struct xd_request *req);
/* Gives libnbd its commands, for nbd_fly(); io->left counts them. */
void nbd_make_commands(struct nbd_io *io, const struct xd_request *req);
/* io->filling, and what was missing has come: the commands that write. */
void nbd_write_back(struct nbd_io *io, const struct xd_request *req);
/* A read that took the detour: its part of the blocks. */
void nbd_copy_part(struct nbd_io *io, const struct xd_request *req);

/* --- nbd-unflushed.c -------------------------------------------------------- */

/* Is there something that no flush has covered, or a loss that none has told? */
bool nbd_is_dirty(const struct nbd_disk *nbd);
/* A flush has succeeded that covers so many changes, and what was kept before
 * the mark. */
void nbd_note_flushed(struct nbd_disk *nbd, uint64_t written, uint64_t mark);
/* A change is about to be sent. */
void nbd_note_sent(const struct nbd_io *io);
/* It has been carried out, or part of it if there was an error.  False: that does not
 * count (nbd-generation.c), and nothing is noted. */
bool nbd_note_changed(struct nbd_io *io, const struct xd_request *req);
/* It has not: the room that was reserved to keep it is free. */
void nbd_unreserve(struct nbd_io *io);

#endif
