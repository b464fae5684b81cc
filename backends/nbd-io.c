/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-io.c - requests on their way to the server, once or more than once.
 *
 * Theory of operation
 *
 * A request is in one list of its lane's link at a time:
 *
 *   waiting   for the connection
 *   fenced    until an old write to the same place cannot come any more
 *   blocked   while another write to one of its blocks is under way, or one that is
 *             sent again
 *   crowded   for room among the writes that are kept (unflushed=keep)
 *   flying    its commands are with libnbd; `left` counts them
 *   over      they have all come back
 *
 * What does not fill whole blocks of the server is read, changed and written back
 * (nbd-command.c).  Two such writes to one block must not overlap: hence
 * `blocked`.  (The host keeps apart only what overlaps in bytes; and the disk has
 * but one lane then.)
 *
 * When the connection breaks, libnbd calls back for each command with ENOTCONN.
 * A request with such a command is sent again as a whole on the next connection,
 * before anything else, in the order in which the requests came.  A server that
 * says ESHUTDOWN has not done it, so it is sent again, too; and so is what was answered
 * when the answer did not count any more (nbd-generation.c).  A guest may have read
 * already what such a write has written, from a server that has forgotten it since; so
 * a read of the same place waits until the write is done once more.
 *
 * When there is no room for another write to be kept, and no flush is under way
 * that will make some, one is sent that nobody has asked for.  No other flush runs
 * beside it: a server may tell of a failure once, and must be believed then.
 */
#include "config.h"

#include <utlist.h>

#include "nbd-io.h"

static void start(struct nbd_link *link, struct nbd_io *io);

/* --- The end -------------------------------------------------------------- */

static void complete(struct nbd_io *io, int err)
{
	free(io->bounce);
	io->bounce = NULL;
	xd_complete(nbd_request_of(io), err);
}

/* A flush of a server that has forgotten what it should cover is none.  That is
 * told once: from then on it is the host's to remember. */
static void carried_out(struct nbd_io *io)
{
	const struct xd_request *req = nbd_request_of(io);
	struct nbd_disk *nbd = io->link->nbd;
	bool told = false;

	if (req->op == XD_FLUSH && !io->err) {
		nbd_note_flushed(nbd, io->written, io->mark);
		told = atomic_exchange(&nbd->forgot, false);
		if (told)
			io->err = -EREMOTEIO;
	}
	/* What it cannot tell of extents is data. */
	complete(io, req->op == XD_EXTENTS ? 0 : io->err);
	if (told && nbd->keep)
		nbd_keep_set_lost(nbd->keep, false);
}

/* For the connection.  When the guest goes only the last flush does, for a
 * while, and only if it has something to cover. */
static void wait_for_link(struct nbd_link *link, struct nbd_io *io)
{
	bool last = io->late && nbd_request_of(io)->op == XD_FLUSH;
	bool dirty = last && nbd_is_dirty(link->nbd);

	if (!link->stopping || (dirty && !link->impatient))
		DL_APPEND(link->waiting, io);
	else
		complete(io, dirty ? -ENOTCONN : last ? 0 : -ECANCELED);
}

/* Makes commands by make(); the last one to come back, or nobody if there are
 * none, puts it where nbd_io_reap() finds it. */
static void fly(struct nbd_link *link, struct nbd_io *io,
		void (*make)(struct nbd_io *io, const struct xd_request *req))
{
	DL_APPEND(link->flying, io);
	io->left = 1;
	make(io, nbd_request_of(io));
	if (--io->left == 0) {
		DL_DELETE(link->flying, io);
		DL_APPEND(link->over, io);
	}
}

/* Has it been answered?  What is remembered of a change is noted in the same
 * moment. */
static bool counts(struct nbd_io *io, const struct xd_request *req)
{
	if (nbd_changes(req))
		return nbd_note_changed(io, req);
	return req->op != XD_FLUSH || !nbd_is_stale(io->link);
}

static void settle(struct nbd_link *link, struct nbd_io *io)
{
	struct xd_request *req = nbd_request_of(io);

	if (io->missing && !io->err && !io->lost)
		io->err = -EIO;
	if (!io->lost && (io->err || !io->filling) && !counts(io, req)) {
		io->lost = true;
		link->leaving = true;
	}
	if (io->again && (io->lost || io->err || !io->filling)) {
		io->again = false;
		link->nr_again--;
	}
	if (io->lost) {
		if (nbd_changes(req))
			nbd_fence_add(link->nbd, io->begin, io->end);
		nbd_unreserve(io);
		/* The next connection may have other blocks. */
		free(io->bounce);
		io->bounce = NULL;
		wait_for_link(link, io);
	} else if (io->filling && !io->err) {
		fly(link, io, nbd_write_back);
	} else {
		if (io->bounce && !io->err && req->op == XD_READ)
			nbd_copy_part(io, req);
		carried_out(io);
	}
}

/* Those that have to wait still are in the list again afterwards. */
static void retry(struct nbd_link *link, struct nbd_io **head)
{
	struct nbd_io *list = *head, *io;

	*head = NULL;
	while ((io = list)) {
		DL_DELETE(list, io);
		start(link, io);
	}
}

/* --- Room for writes that are kept ---------------------------------------- */

static int on_forced(void *data, int *error)
{
	struct nbd_link *link = data;

	link->force_err = *error;
	link->force_over = true;
	return 1;
}

static bool is_flushing(const struct nbd_link *link)
{
	struct nbd_io *io;

	DL_FOREACH(link->flying, io)
		if (nbd_request_of(io)->op == XD_FLUSH)
			return true;
	return false;
}

static void force_flush(struct nbd_link *link)
{
	nbd_completion_callback done = { .callback = on_forced,
					 .user_data = link };

	link->forcing = true;
	link->force_over = false;
	link->force_mark = nbd_keep_mark(link->nbd->keep);
	link->force_written = atomic_load(&link->nbd->written);
	if (nbd_aio_flush(link->h, done, 0) < 0) {
		link->force_err = ENOTCONN;
		link->force_over = true;
	}
}

/* One that failed is told to the guest with its next flush. */
static void end_forced(struct nbd_link *link)
{
	link->forcing = false;
	if (link->force_err == ENOTCONN || link->force_err == ESHUTDOWN)
		return;
	if (link->force_err) {
		nbd_keep_set_lost(link->nbd->keep, true);
		atomic_store(&link->nbd->forgot, true);
	}
	nbd_note_flushed(link->nbd, link->force_written, link->force_mark);
}

static void relieve(struct nbd_link *link)
{
	if (link->forcing && link->force_over)
		end_forced(link);
	if (link->crowded && !link->forcing)
		retry(link, &link->crowded);
	if (link->crowded && !link->forcing && link->phase == NBD_UP &&
	    !is_flushing(link))
		force_flush(link);
}

/* Nobody overtakes those that wait. */
static bool has_room(const struct nbd_link *link, struct nbd_io *io,
		     const struct xd_request *req)
{
	struct nbd_keep *keep = link->nbd->keep;

	if (!keep)
		return true;
	if (req->op == XD_FLUSH)
		return !link->forcing;
	if (!nbd_changes(req))
		return true;
	io->kept = !link->crowded &&
		   nbd_keep_reserve(keep, req->op, io->end - io->begin);
	return io->kept;
}

void nbd_io_reap(struct nbd_link *link)
{
	struct nbd_io *io;
	bool any = link->over;

	while ((io = link->over)) {
		DL_DELETE(link->over, io);
		settle(link, io);
	}
	if (any && link->blocked)
		retry(link, &link->blocked);
	if (link->crowded || link->forcing)
		relieve(link);
}

/* --- The beginning -------------------------------------------------------- */

static bool looks(const struct xd_request *req)
{
	return req->op == XD_READ || req->op == XD_EXTENTS;
}

static bool is_blocked(const struct nbd_link *link, struct nbd_io *io)
{
	struct xd_request *req = nbd_request_of(io);
	bool parts = link->facts.minimum > link->nbd->sector;
	struct nbd_io *other;

	if (!(parts && nbd_changes(req)) && !(link->nr_again && looks(req)))
		return false;
	DL_FOREACH(link->flying, other)
		if (nbd_changes(nbd_request_of(other)) &&
		    (!looks(req) || other->again) && other->begin < io->end &&
		    io->begin < other->end)
			return true;
	return false;
}

static void on_fence(struct xd_sys *sys, int64_t res)
{
	struct nbd_link *link = container_of(sys, struct nbd_link, fence_timer);

	link->fence_armed = false;
	if (res < 0 || link->closing)
		return;
	retry(link, &link->fenced);
	if (!link->fenced && link->phase == NBD_UP)
		xd_paused(link->ch, NULL);
	nbd_link_pump(link);
}

/* Each is looked at when the timer ends; it is set for the first of them. */
static void wait_behind_fence(struct nbd_link *link, struct nbd_io *io,
			      uint64_t until)
{
	uint64_t now = now_ns();

	if (!link->fenced)
		xd_paused(link->ch,
			  "writes wait until what the server may still do of a "
			  "broken connection is over (fence)");
	DL_APPEND(link->fenced, io);
	if (link->fence_armed)
		return;
	link->fence_armed = true;
	link->fence_timer = (struct xd_sys){
		.op = XD_SYS_TIMER,
		.length = until > now ? until - now : 0,
		.done = on_fence,
	};
	xd_sys(link->ch, &link->fence_timer);
}

/* In whole blocks of this connection.  A discard frees only such. */
static bool set_range(struct nbd_link *link, struct nbd_io *io,
		      const struct xd_request *req)
{
	uint64_t block = link->facts.minimum;
	uint64_t end = req->offset + req->length;

	if (req->op == XD_DISCARD) {
		io->begin = ALIGN_UP(req->offset, block);
		io->end = end / block * block;
		return io->begin < io->end;
	}
	io->begin = req->offset / block * block;
	io->end = ALIGN_UP(end, block);
	return true;
}

static void issue(struct nbd_link *link, struct nbd_io *io)
{
	io->err = 0;
	io->lost = false;
	io->filling = false;
	io->missing = 0;
	if (nbd_changes(nbd_request_of(io))) {
		nbd_note_sent(io);
		io->again = io->sent;
		link->nr_again += io->again;
	}
	io->sent = true;
	fly(link, io, nbd_make_commands);
}

static void start(struct nbd_link *link, struct nbd_io *io)
{
	struct xd_request *req = nbd_request_of(io);
	uint64_t until = 0;

	if (link->phase == NBD_UP && nbd_is_stale(link))
		link->leaving = true;
	if (link->phase != NBD_UP || link->leaving) {
		wait_for_link(link, io);
		return;
	}
	if (req->offset + req->length > link->facts.size) {
		/* It has grown since this connection was made, and for this
		 * connection it has not. */
		link->leaving = true;
		wait_for_link(link, io);
		return;
	}
	if (!set_range(link, io, req)) {
		complete(io, 0); /* no whole block to discard */
		return;
	}
	if ((req->op == XD_DISCARD && !link->facts.trim) ||
	    (req->flags & XD_FAST &&
	     !(link->facts.fast_zero && nbd_is_whole(io, req)))) {
		complete(io, -EOPNOTSUPP);
		return;
	}
	if (req->op == XD_EXTENTS && !link->facts.extents) {
		complete(io, 0);
		return;
	}
	if (nbd_changes(req) && !io->sent)
		until = nbd_fence_check(link->nbd, io->begin, io->end);
	if (until && link->stopping)
		complete(io, -ECANCELED);
	else if (until)
		wait_behind_fence(link, io, until);
	else if (is_blocked(link, io))
		DL_APPEND(link->blocked, io);
	else if (!has_room(link, io, req))
		DL_APPEND(link->crowded, io);
	else
		issue(link, io);
}

void nbd_io_submit(struct xd_channel *ch, struct xd_request *req)
{
	struct nbd_link *link = ch->data;
	struct nbd_io *io = nbd_io_of(req);

	nbd_io_reap(link);
	*io = (struct nbd_io){ .link = link,
			       .number = link->requests++,
			       .late = link->stopping };
	if (link->given_up && !link->stopping)
		xd_complete(req, -EAGAIN);
	else
		start(link, io);
}

/* --- Up and down ---------------------------------------------------------- */

static int in_turn(const struct nbd_io *a, const struct nbd_io *b)
{
	if (a->sent != b->sent)
		return a->sent ? -1 : 1;
	return a->number < b->number ? -1 : a->number > b->number;
}

/* libnbd has called back for the last one first. */
void nbd_io_up(struct nbd_link *link)
{
	DL_SORT(link->waiting, in_turn);
	retry(link, &link->waiting);
	nbd_link_pump(link);
}

void nbd_io_down(struct nbd_link *link)
{
	struct nbd_io *rest = link->waiting, *io;

	DL_CONCAT(link->crowded, rest);
	rest = TAKE_PTR(link->crowded);
	link->waiting = NULL;
	/* Not called back for, it would be waited for for ever. */
	if (link->forcing && !link->force_over) {
		link->force_err = ENOTCONN;
		link->force_over = true;
	}
	/* What is fetched for a write, which cannot be sent any more. */
	DL_FOREACH(link->over, io)
		io->lost |= io->filling;
	while ((io = link->flying)) {
		DL_DELETE(link->flying, io);
		io->left = 0;
		io->lost = true;
		DL_APPEND(link->over, io);
	}
	nbd_io_reap(link);
	DL_CONCAT(link->waiting, rest);
}

void nbd_io_give_up(struct nbd_link *link)
{
	struct nbd_io *io;

	while ((io = link->waiting)) {
		DL_DELETE(link->waiting, io);
		complete(io, -EAGAIN);
	}
}

static void stop_all(struct nbd_link *link, struct nbd_io **head)
{
	struct nbd_io *list = *head, *io;

	*head = NULL;
	while ((io = list)) {
		DL_DELETE(list, io);
		wait_for_link(link, io);
	}
}

void nbd_io_stop(struct nbd_link *link)
{
	stop_all(link, &link->waiting);
	stop_all(link, &link->fenced);
	stop_all(link, &link->crowded);
}
