/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-unflushed.c - what a flush has to cover, and what is remembered until then:
 * how many changes there were, and with unflushed=keep or check what they were.
 */
#include "config.h"

#include "nbd-io.h"

static bool is_durable(const struct nbd_io *io, const struct xd_request *req)
{
	return io->link->nbd->write_through || !io->link->nbd->facts.flush ||
	       req->flags & XD_FUA;
}

bool nbd_is_dirty(const struct nbd_disk *nbd)
{
	return atomic_load(&nbd->flushed) < atomic_load(&nbd->written) ||
	       atomic_load(&nbd->forgot);
}

/* Of one lane after the other: the host has one flush at a time. */
void nbd_note_flushed(struct nbd_disk *nbd, uint64_t written, uint64_t mark)
{
	if (atomic_load(&nbd->flushed) < written)
		atomic_store(&nbd->flushed, written);
	if (nbd->keep)
		nbd_keep_flushed(nbd->keep, mark);
	if (!nbd->recall)
		return;
	(void)pthread_mutex_lock(&nbd->lock);
	nbd_recall_flushed(nbd->recall, written);
	(void)pthread_mutex_unlock(&nbd->lock);
}

/* A change is about to be sent. */
void nbd_note_sent(const struct nbd_io *io)
{
	struct nbd_disk *nbd = io->link->nbd;

	if (!nbd->recall)
		return;
	(void)pthread_mutex_lock(&nbd->lock);
	nbd_recall_strike(nbd->recall, io->begin, io->end);
	(void)pthread_mutex_unlock(&nbd->lock);
}

void nbd_unreserve(struct nbd_io *io)
{
	if (io->kept)
		nbd_keep_unreserve(io->link->nbd->keep, nbd_request_of(io)->op,
				   io->end - io->begin);
	io->kept = false;
}

/* Before it is answered, and its memory is the owner's again. */
static void keep(struct nbd_io *io, const struct xd_request *req)
{
	const struct iovec whole = { io->bounce, io->end - io->begin };

	io->kept = false;
	nbd_keep_add(io->link->nbd->keep, req->op, io->begin,
		     io->end - io->begin, io->bounce ? &whole : req->iov,
		     io->bounce ? 1 : req->iovcnt);
}

static void note(struct nbd_io *io, const struct xd_request *req)
{
	struct nbd_disk *nbd = io->link->nbd;
	uint64_t written;

	if (io->kept && !io->err)
		keep(io, req);
	nbd_unreserve(io);
	if (!io->err && is_durable(io, req))
		return;
	written = atomic_fetch_add(&nbd->written, 1) + 1;
	if (nbd->recall && !io->err && req->op == XD_WRITE)
		nbd_recall_note(nbd->recall, req, written);
}

/* Where it is read back, whoever does that has begun a generation before. */
bool nbd_note_changed(struct nbd_io *io, const struct xd_request *req)
{
	struct nbd_disk *nbd = io->link->nbd;
	bool fresh;

	if (nbd->recall)
		(void)pthread_mutex_lock(&nbd->lock);
	fresh = !nbd_is_stale(io->link);
	if (fresh)
		note(io, req);
	if (nbd->recall)
		(void)pthread_mutex_unlock(&nbd->lock);
	return fresh;
}
