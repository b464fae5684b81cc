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
	bool busy, over;
	bool discards; /* and may fail: nothing is lost by that */
	int err;
	uint64_t begin, end;
	struct nbd_recalled recalled;
	unsigned char *block; /* NBD_RECALL_BLOCK bytes, where one is read */
};

struct nbd_restore {
	uint64_t kept_at; /* nbd_keep_next() */
	struct nbd_kept kept; /* the rest of the one that goes out */
	unsigned int note_at; /* nbd_recall_next() */
	unsigned int busy;
	bool failed; /* it is tried again on another connection */
	struct piece pieces[WINDOW];
};

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
	for (unsigned int i = 0; i < WINDOW && link->nbd->recall; i++) {
		restore->pieces[i].block = malloc(NBD_RECALL_BLOCK);
		if (!restore->pieces[i].block)
			r = -ENOMEM;
	}
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
		restore->pieces[i].busy = restore->pieces[i].over = false;
}

bool nbd_restore_is_busy(const struct nbd_link *link)
{
	return link->restore && link->restore->busy;
}

/* --- Pieces --------------------------------------------------------------- */

static int on_answer(void *data, int *error)
{
	struct piece *piece = data;

	piece->err = *error;
	piece->over = true;
	return 1; /* libnbd may forget it */
}

static struct piece *free_piece(struct nbd_restore *restore)
{
	for (unsigned int i = 0; i < WINDOW; i++)
		if (!restore->pieces[i].busy)
			return &restore->pieces[i];
	return NULL;
}

/* cookie: what libnbd said to its command. */
static void take_off(struct nbd_restore *restore, struct piece *piece,
		     int64_t cookie)
{
	piece->busy = true;
	restore->busy++;
	if (cookie < 0) {
		piece->err = nbd_get_errno() ? nbd_get_errno() : EIO;
		piece->over = true;
	}
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
	piece->over = false;
	piece->begin = kept->offset;
	piece->end = kept->offset + n;
	piece->discards = kept->op == XD_DISCARD;
	/* What was durable there, as this one or a later one, is so no more. */
	atomic_fetch_add(&link->nbd->written, 1);
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
	take_off(restore, piece, cookie);
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

static bool read_back(struct nbd_link *link, struct piece *piece)
{
	struct nbd_disk *nbd = link->nbd;
	nbd_completion_callback done = { .callback = on_answer,
					 .user_data = piece };
	bool more;

	if (link->facts.minimum > NBD_RECALL_BLOCK)
		return false; /* it cannot be asked for */
	(void)pthread_mutex_lock(&nbd->lock);
	more = nbd_recall_next(nbd->recall, &link->restore->note_at,
			       link->facts.size, &piece->recalled);
	(void)pthread_mutex_unlock(&nbd->lock);
	if (!more)
		return false;
	piece->over = false;
	take_off(link->restore, piece,
		 nbd_aio_pread(link->h, piece->block, NBD_RECALL_BLOCK,
			       piece->recalled.offset, done, 0));
	return true;
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
	if (nbd_recall_differs(nbd->recall, &piece->recalled, piece->block))
		atomic_store(&nbd->forgot, true);
	(void)pthread_mutex_unlock(&nbd->lock);
}

/* --- Both ----------------------------------------------------------------- */

static void settle(struct nbd_link *link)
{
	struct nbd_restore *restore = link->restore;

	for (unsigned int i = 0; i < WINDOW; i++) {
		struct piece *piece = &restore->pieces[i];

		if (!piece->busy || !piece->over)
			continue;
		piece->busy = false;
		restore->busy--;
		if (link->nbd->keep)
			kept_sent(link, piece);
		else
			was_read_back(link, piece);
	}
}

int nbd_restore_step(struct nbd_link *link)
{
	struct nbd_restore *restore = link->restore;
	struct piece *piece;

	if (!restore)
		return 0;
	settle(link);
	while (!restore->failed && (piece = free_piece(restore)) &&
	       (link->nbd->keep ? send_kept(link, piece) :
				  read_back(link, piece)))
		;
	if (restore->busy)
		return -EAGAIN;
	return restore->failed ? -EIO : 0;
}
