/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-restore.c - what the server may have forgotten, before a new connection is
 * used.
 *
 * Theory of operation
 *
 * Between the handshake and the first request (NBD_RESTORING) either the kept
 * writes are sent again, all of them and in their order, or the blocks that are
 * remembered are read back and compared.  Meanwhile requests wait, with those
 * that were under way when the connection broke: these come after what was
 * answered before them.
 *
 * Up to WINDOW pieces are with the server at a time.  It may do them in any
 * order, so a kept write that overlaps one of them waits until they are all
 * back.
 *
 * What fails because the connection breaks again is done again on the next one,
 * from the beginning.  A server that refuses a write it had taken before cannot
 * be helped: as with a block that has changed, the next flush fails
 * (nbd->forgot).  No space is an error that passes, and it is tried again.
 *
 * Callbacks only take note; nbd_restore_step() acts.
 */
#include "config.h"

#include <string.h>

#include "common/util.h"
#include "nbd.h"

#define WINDOW 16u

struct piece {
	struct nbd_restore *restore;
	bool busy;
	bool discards; /* and may fail: nothing is lost by that */
	unsigned int left; /* commands; and 1 while they are made */
	int err; /* the first command's that failed */
	uint64_t begin, end;
	struct nbd_recalled recalled;
	unsigned char *block; /* where one is read: room bytes, whole blocks of */
	uint32_t room; /* the server; and ours is skip bytes after them */
	uint32_t skip;
};

struct nbd_restore {
	uint64_t kept_at; /* nbd_keep_next() */
	struct nbd_kept kept; /* the rest of the one that goes out */
	unsigned int note_at; /* nbd_recall_next() */
	unsigned int busy;
	bool failed; /* it is tried again on another connection */
	struct piece pieces[WINDOW];
};

static bool make_room(struct piece *piece, uint32_t room)
{
	unsigned char *block;

	if (room <= piece->room)
		return true;
	block = realloc(piece->block, room);
	if (!block)
		return false;
	piece->block = block;
	piece->room = room;
	return true;
}

int nbd_restore_open(struct nbd_link *link)
{
	struct nbd_restore *restore;
	int r = 0;

	if (!link->nbd->keep && !link->nbd->recall)
		return 0;
	restore = calloc(1, sizeof(*restore));
	if (!restore)
		return -ENOMEM;
	link->restore = restore;
	for (unsigned int i = 0; i < WINDOW && link->nbd->recall; i++)
		if (!make_room(&restore->pieces[i], NBD_RECALL_BLOCK))
			r = -ENOMEM;
	return r;
}

void nbd_restore_close(struct nbd_link *link)
{
	struct nbd_restore *restore = link->restore;

	for (unsigned int i = 0; restore && i < WINDOW; i++)
		free(restore->pieces[i].block);
	free(TAKE_PTR(link->restore));
}

void nbd_restore_begin(struct nbd_link *link)
{
	struct nbd_restore *restore = link->restore;

	if (!restore)
		return;
	restore->kept_at = 0;
	restore->kept.length = 0;
	restore->note_at = 0;
	restore->busy = 0;
	restore->failed = false;
	for (unsigned int i = 0; i < WINDOW; i++)
		restore->pieces[i].busy = false;
}

bool nbd_restore_is_busy(const struct nbd_link *link)
{
	return link->restore && link->restore->busy;
}

/* --- Pieces --------------------------------------------------------------- */

static int on_answer(void *data, int *error)
{
	struct piece *piece = data;

	if (*error && !piece->err)
		piece->err = *error;
	piece->left--;
	return 1; /* libnbd may forget it */
}

static struct piece *free_piece(struct nbd_restore *restore)
{
	for (unsigned int i = 0; i < WINDOW; i++)
		if (!restore->pieces[i].busy)
			return &restore->pieces[i];
	return NULL;
}

static void take_off(struct nbd_restore *restore, struct piece *piece)
{
	piece->busy = true;
	piece->left = 1;
	piece->err = 0;
	restore->busy++;
}

/* libnbd did not take a command, and on_answer() is not called for it. */
static void not_taken(struct piece *piece)
{
	piece->left--;
	if (!piece->err)
		piece->err = nbd_get_errno() ? nbd_get_errno() : EIO;
}

static bool is_under_way(const struct nbd_restore *restore, uint64_t begin,
			 uint64_t end)
{
	for (unsigned int i = 0; i < WINDOW; i++)
		if (restore->pieces[i].busy && restore->pieces[i].begin < end &&
		    begin < restore->pieces[i].end)
			return true;
	return false;
}

/* --- Kept writes ---------------------------------------------------------- */

/* The next piece of them; false: there is none, or it has to wait. */
static bool send_kept(struct nbd_link *link, struct piece *piece)
{
	struct nbd_restore *restore = link->restore;
	struct nbd_kept *kept = &restore->kept;
	nbd_completion_callback done = { .callback = on_answer,
					 .user_data = piece };
	uint64_t n;
	int64_t cookie;

	if (!kept->length &&
	    !nbd_keep_next(link->nbd->keep, &restore->kept_at, kept))
		return false;
	n = MIN(kept->length, (uint64_t)link->facts.maximum);
	if (is_under_way(restore, kept->offset, kept->offset + n))
		return false;
	take_off(restore, piece);
	piece->begin = kept->offset;
	piece->end = kept->offset + n;
	piece->discards = kept->op == XD_DISCARD;
	/* What was durable there, as this one or a later one, is so no more. */
	atomic_fetch_add(&link->nbd->written, 1);
	piece->left++;
	if (kept->op == XD_WRITE)
		cookie = nbd_aio_pwrite(link->h, kept->data, n, kept->offset,
					done, 0);
	else if (kept->op == XD_ZERO)
		cookie = nbd_aio_zero(link->h, n, kept->offset, done, 0);
	else
		cookie = nbd_aio_trim(link->h, n, kept->offset, done, 0);
	kept->offset += n;
	kept->length -= n;
	kept->data += kept->op == XD_WRITE ? n : 0;
	if (cookie < 0)
		not_taken(piece);
	piece->left--;
	return true;
}

static bool passes(int err)
{
	return err == ENOTCONN || err == ESHUTDOWN || err == ENOSPC ||
	       err == ENOMEM;
}

static void kept_sent(struct nbd_link *link, const struct piece *piece)
{
	if (passes(piece->err)) {
		link->restore->failed = true;
		return;
	}
	if (!piece->err || piece->discards)
		return;
	nbd_keep_set_lost(link->nbd->keep, true);
	atomic_store(&link->nbd->forgot, true);
}

/* --- Blocks that are remembered ------------------------------------------- */

/* In whole blocks of the server, and no more of them at a time than it takes. */
static void read_around(struct nbd_link *link, struct piece *piece,
			uint32_t room)
{
	nbd_completion_callback done = { .callback = on_answer,
					 .user_data = piece };
	uint64_t begin = piece->recalled.offset / room * room;
	uint32_t n;

	take_off(link->restore, piece);
	piece->skip = (uint32_t)(piece->recalled.offset - begin);
	for (uint32_t at = 0; at < room; at += n) {
		n = MIN(room - at, link->facts.maximum);
		piece->left++;
		if (nbd_aio_pread(link->h, piece->block + at, n, begin + at,
				  done, 0) < 0)
			not_taken(piece);
	}
	piece->left--;
}

static bool read_back(struct nbd_link *link, struct piece *piece)
{
	uint32_t room = MAX(NBD_RECALL_BLOCK, link->facts.minimum);
	struct nbd_disk *nbd = link->nbd;
	bool more;

	if (!make_room(piece, room)) {
		link->restore->failed = true;
		return false;
	}
	(void)pthread_mutex_lock(&nbd->lock);
	more = nbd_recall_next(nbd->recall, &link->restore->note_at,
			       link->facts.size, &piece->recalled);
	(void)pthread_mutex_unlock(&nbd->lock);
	if (more)
		read_around(link, piece, room);
	return more;
}

/* One that cannot be read is not known to be another. */
static void was_read_back(struct nbd_link *link, const struct piece *piece)
{
	struct nbd_disk *nbd = link->nbd;

	if (passes(piece->err))
		link->restore->failed = true;
	if (piece->err)
		return;
	(void)pthread_mutex_lock(&nbd->lock);
	if (nbd_recall_differs(nbd->recall, &piece->recalled,
			       piece->block + piece->skip))
		atomic_store(&nbd->forgot, true);
	(void)pthread_mutex_unlock(&nbd->lock);
}

/* --- Both ----------------------------------------------------------------- */

/* True: some are over. */
static bool settle(struct nbd_link *link)
{
	struct nbd_restore *restore = link->restore;
	bool any = false;

	for (unsigned int i = 0; i < WINDOW; i++) {
		struct piece *piece = &restore->pieces[i];

		if (!piece->busy || piece->left > 0)
			continue;
		piece->busy = false;
		restore->busy--;
		if (link->nbd->keep)
			kept_sent(link, piece);
		else
			was_read_back(link, piece);
		any = true;
	}
	return any;
}

int nbd_restore_step(struct nbd_link *link)
{
	struct nbd_restore *restore = link->restore;
	struct piece *piece;

	if (!restore)
		return 0;
	/* What libnbd did not take is over at once, and nothing will tell of it. */
	do
		while (!restore->failed && (piece = free_piece(restore)) &&
		       (link->nbd->keep ? send_kept(link, piece) :
					  read_back(link, piece)))
			;
	while (settle(link));
	if (restore->busy)
		return -EAGAIN;
	return restore->failed ? -EIO : 0;
}
