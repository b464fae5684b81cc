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
 *   blocked   while another write to one of its blocks is under way
 *   crowded   for room among the writes that are kept (unflushed=keep)
 *   flying    its commands are with libnbd; `left` counts them
 *   over      they have all come back
 *
 * Data goes from and to the request's own memory, a command for each piece of
 * it.  Only what does not fill whole blocks of the server takes a detour
 * through a buffer: a read fetches the blocks and copies its part; a write
 * fetches the first and last block, puts its data in between, and writes all;
 * of zeroes (a server's blocks may have become larger) only the ends.
 * Two such writes to one block must not overlap: hence `blocked`.  (The host
 * keeps apart only what overlaps in bytes; and the disk has but one lane then.)
 *
 * When the connection breaks, libnbd calls back for each command with ENOTCONN.
 * A request with such a command is sent again as a whole on the next connection,
 * before anything else, in the order in which the requests came.  A server that
 * says ESHUTDOWN has not done it: the same.
 *
 * When there is no room for another write to be kept, and no flush is under way
 * that will make some, one is sent that nobody has asked for.  It is alone: a
 * server may tell of a failure once, and whoever is told must be believed.
 */
#include "config.h"

#include <string.h>
#include <utlist.h>

#include "common/util.h"
#include "nbd.h"

/* A command without data may be longer, but its length has 32 bits. */
#define LONGEST_COMMAND (1u << 30)

/* req->scratch */
struct nbd_io {
	struct nbd_io *prev, *next;
	struct nbd_link *link;
	unsigned char *bounce; /* whole blocks; or NULL */
	uint64_t begin, end; /* in whole blocks */
	uint64_t written; /* FLUSH: what it covers */
	uint32_t left; /* commands; and 1 while they are made */
	int err; /* the first command's that failed */
	bool lost; /* at least one was not answered */
	bool sent; /* to a server, at some time: no fence any more */
	bool told; /* EXTENTS: an answer came */
	bool late; /* came when the guest was going: the last flush */
	bool kept; /* there is room reserved for it */
	uint64_t mark; /* FLUSH: which kept writes it covers */
	bool filling; /* the bounce buffer of a write */
};
_Static_assert(sizeof(struct nbd_io) <= XD_SCRATCH, "scratch is too small");

static struct nbd_io *io_of(struct xd_request *req)
{
	return (struct nbd_io *)(void *)req->scratch;
}

static struct xd_request *request_of(struct nbd_io *io)
{
	return container_of((unsigned char(*)[XD_SCRATCH])(void *)io,
			    struct xd_request, scratch);
}

static void start(struct nbd_link *link, struct nbd_io *io);

static bool changes(const struct xd_request *req)
{
	return req->op == XD_WRITE || req->op == XD_ZERO ||
	       req->op == XD_DISCARD;
}

/* --- What a flush has to cover -------------------------------------------- */

static bool is_durable(const struct nbd_io *io, const struct xd_request *req)
{
	return io->link->nbd->write_through || !io->link->nbd->facts.flush ||
	       req->flags & XD_FUA;
}

static bool is_dirty(const struct nbd_disk *nbd)
{
	return atomic_load(&nbd->flushed) < atomic_load(&nbd->written);
}

/* Of one lane after the other: the host has one flush at a time. */
static void note_flushed(struct nbd_disk *nbd, uint64_t written, uint64_t mark)
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
static void note_sent(const struct nbd_io *io)
{
	struct nbd_disk *nbd = io->link->nbd;

	if (!nbd->recall)
		return;
	(void)pthread_mutex_lock(&nbd->lock);
	nbd_recall_strike(nbd->recall, io->begin, io->end);
	(void)pthread_mutex_unlock(&nbd->lock);
}

static void unreserve(struct nbd_io *io)
{
	if (io->kept)
		nbd_keep_unreserve(io->link->nbd->keep, request_of(io)->op,
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

/* It has been carried out, or part of it if there was an error. */
static void note_changed(struct nbd_io *io, const struct xd_request *req)
{
	struct nbd_disk *nbd = io->link->nbd;
	uint64_t written;

	if (io->kept && !io->err)
		keep(io, req);
	unreserve(io);
	if (!io->err && is_durable(io, req))
		return;
	written = atomic_fetch_add(&nbd->written, 1) + 1;
	if (!nbd->recall || io->err || req->op != XD_WRITE)
		return;
	(void)pthread_mutex_lock(&nbd->lock);
	nbd_recall_note(nbd->recall, req, written);
	(void)pthread_mutex_unlock(&nbd->lock);
}

/* --- Commands ------------------------------------------------------------- */

static int on_answer(void *data, int *error)
{
	struct nbd_io *io = data;

	if (*error == ENOTCONN || *error == ESHUTDOWN)
		io->lost = true;
	else if (*error && !io->err)
		io->err = -*error;
	if (*error == ESHUTDOWN)
		io->link->leaving = true;
	if (--io->left == 0) {
		DL_DELETE(io->link->flying, io);
		DL_APPEND(io->link->over, io);
	}
	return 1; /* libnbd may forget it */
}

/* What the server says of its blocks, from the first one on.  If the connection
 * breaks after it has said so, that has been said. */
static int on_extents(void *data, const char *context, uint64_t offset,
		      uint32_t *entries, size_t nr_entries, int *error)
{
	struct nbd_io *io = data;
	struct xd_request *req = request_of(io);
	bool more = *error == 0 && !io->told;

	(void)context;
	io->told = true;
	for (size_t i = 0; more && i + 1 < nr_entries; i += 2) {
		uint64_t end = offset + entries[i];
		uint64_t from = MAX(offset, req->offset);

		if (end > from)
			more = xd_extent(req, end - from,
					 entries[i + 1] & (XD_EXTENT_HOLE |
							   XD_EXTENT_ZERO));
		offset = end;
	}
	return 0;
}
_Static_assert(XD_EXTENT_HOLE == LIBNBD_STATE_HOLE &&
		       XD_EXTENT_ZERO == LIBNBD_STATE_ZERO,
	       "the same bits");

static uint32_t flags_of(const struct nbd_io *io, const struct xd_request *req)
{
	uint32_t flags = 0;
	bool writes = req->op == XD_WRITE || req->op == XD_ZERO;

	if (req->flags & XD_FUA || (writes && io->link->nbd->write_through))
		flags |= LIBNBD_CMD_FLAG_FUA;
	if (req->flags & XD_NO_HOLE)
		flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	if (req->flags & XD_FAST)
		flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
	return flags;
}

/* Gives one command to libnbd.  data: NULL where it has none. */
static void command(struct nbd_io *io, enum xd_op op, void *data,
		    uint64_t length, uint64_t offset, uint32_t flags)
{
	struct nbd_handle *h = io->link->h;
	nbd_completion_callback done = { .callback = on_answer,
					 .user_data = io };
	nbd_extent_callback extents = { .callback = on_extents,
					.user_data = io };
	int64_t cookie = -1;

	io->left++;
	switch (op) {
	case XD_READ:
		cookie = nbd_aio_pread(h, data, length, offset, done, 0);
		break;
	case XD_WRITE:
		cookie = nbd_aio_pwrite(h, data, length, offset, done, flags);
		break;
	case XD_FLUSH:
		cookie = nbd_aio_flush(h, done, 0);
		break;
	case XD_DISCARD:
		cookie = nbd_aio_trim(h, length, offset, done, 0);
		break;
	case XD_ZERO:
		cookie = nbd_aio_zero(h, length, offset, done, flags);
		break;
	case XD_EXTENTS:
		cookie = nbd_aio_block_status(h, length, offset, extents, done,
					      0);
		break;
	}
	if (cookie >= 0)
		return;
	/* It was not taken, and on_answer() is not called. */
	io->left--;
	if (nbd_aio_is_dead(h) || nbd_aio_is_closed(h))
		io->lost = true;
	else if (!io->err)
		io->err = nbd_get_errno() ? -nbd_get_errno() : -EIO;
}

/* In commands of at most `most` bytes. */
static void commands(struct nbd_io *io, enum xd_op op, unsigned char *data,
		     uint64_t length, uint64_t offset, uint32_t most)
{
	uint32_t flags = flags_of(io, request_of(io));

	while (length > 0 && !io->lost) {
		uint64_t n = MIN(length, most);

		command(io, op, data, n, offset, flags);
		if (data)
			data += n;
		offset += n;
		length -= n;
	}
}

static void data_commands(struct nbd_io *io, const struct xd_request *req)
{
	uint32_t most = io->link->facts.maximum;
	uint64_t offset = req->offset;

	for (unsigned int i = 0; i < req->iovcnt; i++) {
		commands(io, req->op, req->iov[i].iov_base, req->iov[i].iov_len,
			 offset, most);
		offset += req->iov[i].iov_len;
	}
}

/* --- Parts of blocks ------------------------------------------------------ */

static void copy(struct nbd_io *io, const struct xd_request *req, bool out)
{
	unsigned char *at = io->bounce + (req->offset - io->begin);

	for (unsigned int i = 0; i < req->iovcnt; i++) {
		const struct iovec *iov = &req->iov[i];

		if (out)
			memcpy(iov->iov_base, at, iov->iov_len);
		else
			memcpy(at, iov->iov_base, iov->iov_len);
		at += iov->iov_len;
	}
}

/* The blocks at the ends of which a write has only a part. */
struct ends {
	bool head, tail;
	uint64_t last; /* where the block of the tail is */
	unsigned char *at; /* ... and where in the bounce buffer */
};

static struct ends ends_of(const struct nbd_io *io,
			   const struct xd_request *req)
{
	uint32_t block = io->link->facts.minimum;
	struct ends ends = { .last = io->end - block };

	ends.head = req->offset != io->begin;
	ends.tail = req->offset + req->length != io->end &&
		    (!ends.head || ends.last != io->begin);
	/* Of zeroes only the ends are in the buffer. */
	ends.at = io->bounce +
		  (req->op == XD_ZERO ? block : ends.last - io->begin);
	return ends;
}

static void fetch_ends(struct nbd_io *io, const struct xd_request *req)
{
	struct ends ends = ends_of(io, req);
	uint32_t block = io->link->facts.minimum;

	io->filling = true;
	if (ends.head)
		command(io, XD_READ, io->bounce, block, io->begin, 0);
	if (ends.tail)
		command(io, XD_READ, ends.at, block, ends.last, 0);
}

/* The ends have been fetched; what is between them is zeroed as a whole. */
static void zero_parts(struct nbd_io *io, const struct xd_request *req)
{
	uint64_t block = io->link->facts.minimum,
		 to = req->offset + req->length;
	uint64_t first = ALIGN_UP(req->offset, block);
	uint32_t flags = flags_of(io, req);
	struct ends ends = ends_of(io, req);

	if (ends.head) {
		memset(io->bounce + (req->offset - io->begin), 0,
		       MIN(first, to) - req->offset);
		command(io, XD_WRITE, io->bounce, block, io->begin,
			flags & LIBNBD_CMD_FLAG_FUA);
	}
	if (ends.tail) {
		memset(ends.at, 0, to - ends.last);
		command(io, XD_WRITE, ends.at, block, ends.last,
			flags & LIBNBD_CMD_FLAG_FUA);
	}
	to = to / block * block;
	if (first < to)
		commands(io, XD_ZERO, NULL, to - first, first, LONGEST_COMMAND);
}

static void part_commands(struct nbd_io *io, const struct xd_request *req)
{
	uint64_t room = req->op == XD_ZERO ? 2 * io->link->facts.minimum :
					     io->end - io->begin;

	if (!io->bounce)
		io->bounce = malloc(room);
	if (!io->bounce)
		io->err = -ENOMEM;
	else if (req->op != XD_READ)
		fetch_ends(io, req);
	else
		commands(io, XD_READ, io->bounce, io->end - io->begin,
			 io->begin, io->link->facts.maximum);
}

/* --- The end -------------------------------------------------------------- */

static void complete(struct nbd_io *io, int err)
{
	free(io->bounce);
	io->bounce = NULL;
	xd_complete(request_of(io), err);
}

/* A flush of a server that has forgotten what it should cover is none.  That is
 * told once: from then on it is the host's to remember. */
static void carried_out(struct nbd_io *io)
{
	const struct xd_request *req = request_of(io);
	struct nbd_disk *nbd = io->link->nbd;

	if (changes(req))
		note_changed(io, req);
	if (req->op == XD_FLUSH && !io->err) {
		note_flushed(nbd, io->written, io->mark);
		if (atomic_exchange(&nbd->forgot, false))
			io->err = -EREMOTEIO;
	}
	/* What it cannot tell of extents is data. */
	complete(io, req->op == XD_EXTENTS ? 0 : io->err);
}

/* For the connection.  When the guest goes only the last flush does, for a
 * while, and only if it has something to cover. */
static void wait_for_link(struct nbd_link *link, struct nbd_io *io)
{
	bool last = io->late && request_of(io)->op == XD_FLUSH;
	bool dirty = last && is_dirty(link->nbd);

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
	make(io, request_of(io));
	if (--io->left == 0) {
		DL_DELETE(link->flying, io);
		DL_APPEND(link->over, io);
	}
}

static void write_back(struct nbd_io *io, const struct xd_request *req)
{
	io->filling = false;
	if (req->op == XD_ZERO) {
		zero_parts(io, req);
		return;
	}
	copy(io, req, false);
	commands(io, XD_WRITE, io->bounce, io->end - io->begin, io->begin,
		 io->link->facts.maximum);
}

static void settle(struct nbd_link *link, struct nbd_io *io)
{
	struct xd_request *req = request_of(io);

	if (io->lost) {
		if (changes(req))
			nbd_fence_add(link->nbd, io->begin, io->end);
		unreserve(io);
		/* The next connection may have other blocks. */
		free(io->bounce);
		io->bounce = NULL;
		wait_for_link(link, io);
	} else if (io->filling && !io->err) {
		fly(link, io, write_back);
	} else {
		if (io->bounce && !io->err && req->op == XD_READ)
			copy(io, req, true);
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
		if (request_of(io)->op == XD_FLUSH)
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
	if (link->force_err)
		atomic_store(&link->nbd->forgot, true);
	note_flushed(link->nbd, link->force_written, link->force_mark);
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
	if (req->op != XD_WRITE && req->op != XD_ZERO)
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

static bool is_blocked(const struct nbd_link *link, const struct nbd_io *io)
{
	struct nbd_io *other;

	if (link->facts.minimum <= link->nbd->sector)
		return false;
	DL_FOREACH(link->flying, other)
		if (changes(request_of(other)) && other->begin < io->end &&
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

/* Of whole blocks?  A command for each piece, so each has to be, too. */
static bool is_whole(const struct nbd_io *io, const struct xd_request *req)
{
	uint32_t block = io->link->facts.minimum;

	if (io->begin != req->offset || io->end != req->offset + req->length)
		return false;
	for (unsigned int i = 0; i < req->iovcnt; i++)
		if (req->iov[i].iov_len & (block - 1))
			return false;
	return true;
}

static void make_commands(struct nbd_io *io, const struct xd_request *req)
{
	bool whole = is_whole(io, req);

	if (req->op == XD_FLUSH) {
		io->written = atomic_load(&io->link->nbd->written);
		if (io->link->nbd->keep)
			io->mark = nbd_keep_mark(io->link->nbd->keep);
		command(io, XD_FLUSH, NULL, 0, 0, 0);
		return;
	}
	if (req->op == XD_EXTENTS)
		command(io, XD_EXTENTS, NULL,
			MIN(io->end - io->begin, LONGEST_COMMAND), io->begin,
			0);
	else if (req->op == XD_DISCARD || (req->op == XD_ZERO && whole))
		commands(io, req->op, NULL, io->end - io->begin, io->begin,
			 LONGEST_COMMAND);
	else if (whole)
		data_commands(io, req);
	else
		part_commands(io, req);
}

static void issue(struct nbd_link *link, struct nbd_io *io)
{
	io->err = 0;
	io->lost = false;
	io->filling = false;
	io->sent = true;
	if (changes(request_of(io)))
		note_sent(io);
	fly(link, io, make_commands);
}

static void start(struct nbd_link *link, struct nbd_io *io)
{
	struct xd_request *req = request_of(io);
	uint64_t until = 0;

	if (link->phase != NBD_UP) {
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
	     !(link->facts.fast_zero && is_whole(io, req)))) {
		complete(io, -EOPNOTSUPP);
		return;
	}
	if (req->op == XD_EXTENTS && !link->facts.extents) {
		complete(io, 0);
		return;
	}
	if (changes(req) && !io->sent)
		until = nbd_fence_check(link->nbd, io->begin, io->end);
	if (until && link->stopping)
		complete(io, -ECANCELED);
	else if (until)
		wait_behind_fence(link, io, until);
	else if (changes(req) && is_blocked(link, io))
		DL_APPEND(link->blocked, io);
	else if (!has_room(link, io, req))
		DL_APPEND(link->crowded, io);
	else
		issue(link, io);
}

void nbd_io_submit(struct xd_channel *ch, struct xd_request *req)
{
	struct nbd_link *link = ch->data;
	struct nbd_io *io = io_of(req);

	nbd_io_reap(link);
	*io = (struct nbd_io){ .link = link, .late = link->stopping };
	if (link->given_up && !link->stopping)
		xd_complete(req, -EAGAIN);
	else
		start(link, io);
	nbd_link_pump(link);
}

/* --- Up and down ---------------------------------------------------------- */

void nbd_io_up(struct nbd_link *link)
{
	retry(link, &link->waiting);
	nbd_link_pump(link);
}

/* Those that were under way go before those that were not. */
void nbd_io_down(struct nbd_link *link)
{
	struct nbd_io *rest = link->waiting, *io;

	DL_CONCAT(link->crowded, rest);
	rest = TAKE_PTR(link->crowded);
	link->waiting = NULL;
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
