/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-flush.c - what a layer has becomes durable.
 *
 *   begin	copies the pages that are unsaved
 *   SYNC	fdatasync of the data file
 *   WRITE	... of those copies to the map file, each over its older copy
 *   SYNC	fdatasync of the map file; not where the caller can make a write durable
 *		(RWF_DSYNC) and one is all: that saves a system call, and the way to
 *		whoever makes it and back
 *   end	the pages are no longer unsaved, but for bits that were set since
 *
 * Copied first, since a bit must not become durable before its data is: after a
 * crash it would show zeroes, or old bytes of the data file, in place of what
 * was there before.  A bit that was set later may be one whose data the first
 * fdatasync did not reach.
 *
 * A page stays unsaved until then, so a flush that finds no such page when it
 * begins has nothing to wait for but its data: that is all that overwriting
 * costs.  Flushes of several lanes each copy what is unsaved, and sync the data,
 * side by side; but only one at a time, the `writer`, is at the map file, so that
 * of each page one copy is durable at any moment.  The others wait.  They have
 * numbers (`ticket`) in the order in which they began, and what one of them has
 * copied has all that the ones before it had: so whoever writes next takes the
 * copies of the newest that waits, and when that is durable the older ones are,
 * too.
 */
#include "config.h"

#include <assert.h>
#include <semaphore.h>
#include <string.h>

#include "common/crash.h"
#include "common/util.h"
#include "overlay-layer.h"

enum { DATA, WAITING, WRITING, MAP };

static void save_free(struct map_save *save)
{
	if (!save)
		return;
	free(save->place);
	free(save->pages);
	free(save);
}

static bool is_unsaved(const struct layer_table *table, uint32_t page)
{
	return __atomic_load_n(&table->unsaved[page / MAP_WORD_BITS],
			       __ATOMIC_SEQ_CST) >>
		       page % MAP_WORD_BITS &
	       1;
}

/* As they are now: pages that become unsaved from here on are of no concern. */
static unsigned int list_unsaved(const struct layer_table *table,
				 uint64_t *ret_words)
{
	unsigned int nr = 0;

	for (uint32_t i = 0; i < DIV_ROUND_UP(table->nr_pages, MAP_WORD_BITS);
	     i++) {
		ret_words[i] =
			__atomic_load_n(&table->unsaved[i], __ATOMIC_SEQ_CST);
		nr += (unsigned int)__builtin_popcountll(ret_words[i]);
	}
	return nr;
}

static void copy_page(struct map_page *to, const uint64_t *words, uint32_t page)
{
	for (size_t i = 0; i < MAP_PAGE_WORDS; i++)
		to->words[i] = __atomic_load_n(&words[i], __ATOMIC_ACQUIRE);
	to->end.page = page;
}

static int save_pages(struct map_save *save, const struct layer_table *table,
		      const uint64_t *list, unsigned int room)
{
	if (room == 0)
		return 0;
	save->place = malloc(room);
	save->pages = malloc(room * sizeof(*save->pages));
	if (!save->place || !save->pages)
		return -ENOMEM;
	for (uint32_t w = 0; save->nr < room; w++)
		for (uint64_t left = list[w]; left; left &= left - 1) {
			uint32_t page = w * MAP_WORD_BITS +
					(uint32_t)__builtin_ctzll(left);

			copy_page(&save->pages[save->nr++],
				  layer_words(table, page), page);
		}
	return 0;
}

/* What is unsaved. */
static struct map_save *save_new(const struct layer_table *table)
{
	struct map_save *save = calloc(1, sizeof(*save));
	uint64_t *list = malloc(DIV_ROUND_UP(table->nr_pages, MAP_WORD_BITS) *
				sizeof(*list));

	if (!save || !list ||
	    save_pages(save, table, list, list_unsaved(table, list)) < 0) {
		save_free(save);
		save = NULL;
	}
	free(list);
	return save;
}

/* --- Steps ------------------------------------------------------------------- */

static enum layer_step step_done(struct layer_flush *flush, int err)
{
	save_free(TAKE_PTR(flush->save));
	flush->err = err;
	return LAYER_DONE;
}

static enum layer_step step_sync(struct layer_flush *flush, int fd)
{
	flush->fd = fd;
	flush->iovcnt = 0;
	flush->length = 0;
	flush->dsync = false;
	return LAYER_SYNC;
}

/* Those that stand side by side in the file. */
static enum layer_step step_write(struct layer_flush *flush)
{
	const struct map_save *save = flush->save;
	unsigned int n = 0, first = flush->at;
	uint64_t at = map_page_offset(save->pages[first].end.page,
				      save->place[first]);

	do {
		flush->rest[n] = (struct iovec){ &save->pages[first + n],
						 MAP_PAGE_BYTES };
		n++;
	} while (first + n < save->nr && n < ARRAY_SIZE(flush->rest) &&
		 map_page_offset(save->pages[first + n].end.page,
				 save->place[first + n]) ==
			 at + n * (uint64_t)MAP_PAGE_BYTES);
	flush->pages = n;
	flush->fd = flush->layer->map_fd;
	flush->iov = flush->rest;
	flush->iovcnt = n;
	flush->offset = at;
	flush->length = n * (uint64_t)MAP_PAGE_BYTES;
	flush->dsync = flush->can_dsync && n == save->nr;
	return LAYER_WRITE;
}

/* A short count: what is left of it. */
static enum layer_step step_rest(struct layer_flush *flush, size_t n)
{
	struct iovec *iov = &flush->rest[flush->iov - flush->rest];

	flush->offset += n;
	flush->length -= n;
	while (n >= iov->iov_len) {
		n -= iov->iov_len;
		iov++;
		flush->iovcnt--;
	}
	iov->iov_base = (char *)iov->iov_base + n;
	iov->iov_len -= n;
	flush->iov = iov;
	return LAYER_WRITE;
}

/* --- Whose turn it is (layer->lock) ------------------------------------------ */

/* They stay in the queue, where the next writer finds them.  Nobody is woken
 * again before it has looked. */
static void wake_all(struct layer *layer)
{
	for (struct layer_flush *f = layer->waiting; f; f = f->next) {
		if (f->wake && !f->woken)
			f->wake(f);
		f->woken = true;
	}
}

static void unqueue(struct layer *layer, struct layer_flush *flush)
{
	struct layer_flush **p = &layer->waiting;

	if (!flush->queued)
		return;
	while (*p != flush)
		p = &(*p)->next;
	*p = flush->next;
	flush->queued = false;
}

static void enqueue(struct layer *layer, struct layer_flush *flush)
{
	flush->woken = false;
	if (flush->queued)
		return;
	flush->next = layer->waiting;
	layer->waiting = flush;
	flush->queued = true;
}

/* The flush writes the copies of the newest that waits, who gets its own. */
static void take_newest(struct layer *layer, struct layer_flush *flush)
{
	struct layer_flush *newest = flush;
	struct map_save *save;

	for (struct layer_flush *f = layer->waiting; f; f = f->next)
		if (f->save_ticket > newest->save_ticket)
			newest = f;
	save = flush->save;
	flush->save = newest->save;
	newest->save = save;
	layer->writer = flush;
	flush->state = WRITING;
	if (newest != flush) {
		uint64_t ticket = flush->save_ticket;

		flush->save_ticket = newest->save_ticket;
		newest->save_ticket = ticket;
	}
}

/* Pages that somebody else has made durable in the meantime need no writing. */
static void leave_out_saved(const struct layer_table *table,
			    struct map_save *save)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < save->nr; i++) {
		uint32_t page = save->pages[i].end.page;

		if (!is_unsaved(table, page))
			continue;
		if (nr != i)
			save->pages[nr] = save->pages[i];
		save->place[nr++] = table->place[page] == PLACE_A ? PLACE_B :
								    PLACE_A;
	}
	save->nr = nr;
}

static void writer_ends(struct layer *layer, int err)
{
	if (err == 0)
		layer->saved = MAX(layer->saved, layer->writer->save_ticket);
	else
		layer->write_err = err;
	layer->writer = NULL;
	wake_all(layer);
}

static bool has_changed(const struct layer_table *table,
			const struct map_page *page)
{
	const uint64_t *words = layer_words(table, page->end.page);

	for (size_t i = 0; i < MAP_PAGE_WORDS; i++)
		if (__atomic_load_n(&words[i], __ATOMIC_SEQ_CST) !=
		    page->words[i])
			return true;
	return false;
}

static void note_saved(struct layer *layer, const struct map_save *save)
{
	struct layer_table *table = layer_table(layer);

	for (unsigned int i = 0; i < save->nr; i++) {
		uint32_t page = save->pages[i].end.page;

		table->place[page] = save->place[i];
		__atomic_fetch_and(&table->unsaved[page / MAP_WORD_BITS],
				   ~(1ull << page % MAP_WORD_BITS),
				   __ATOMIC_SEQ_CST);
		if (has_changed(table, &save->pages[i]))
			set_unsaved(table, page);
	}
}

/* --- What cannot be known any more -------------------------------------------- */

void layer_fail(struct layer *layer, int err)
{
	pthread_mutex_lock(&layer->lock);
	if (layer->err == 0)
		layer->err = err;
	pthread_mutex_unlock(&layer->lock);
}

int layer_error(struct layer *layer)
{
	int err;

	pthread_mutex_lock(&layer->lock);
	err = layer->err;
	pthread_mutex_unlock(&layer->lock);
	return err;
}

/* --- The machine ------------------------------------------------------------- */

/* fdatasync() has failed: nobody knows what is durable. */
static enum layer_step fail_for_good(struct layer_flush *flush, int err)
{
	struct layer *layer = flush->layer;

	pthread_mutex_lock(&layer->lock);
	if (layer->err == 0)
		layer->err = err;
	err = layer->err;
	if (layer->writer == flush)
		writer_ends(layer, err);
	pthread_mutex_unlock(&layer->lock);
	return step_done(flush, err);
}

static void seal(struct layer *layer, struct map_save *save, uint64_t sequence)
{
	for (unsigned int i = 0; i < save->nr; i++)
		map_page_seal(layer, &save->pages[i], sequence);
}

/* Is there nothing to write for it?  *ret_err: how it ends then. */
static bool is_over(const struct layer *layer, const struct layer_flush *flush,
		    int *ret_err)
{
	*ret_err = layer->err;
	if (layer->err < 0 || layer->saved >= flush->ticket ||
	    flush->save->nr == 0)
		return true;
	/* Another one took its copies, and could not write them. */
	if (!layer->writer && flush->save_ticket < flush->ticket)
		*ret_err = layer->write_err;
	return *ret_err < 0;
}

/* The data is durable. */
static enum layer_step map_phase(struct layer_flush *flush)
{
	struct layer *layer = flush->layer;
	uint64_t sequence = 0;
	bool done;
	int err;

	pthread_mutex_lock(&layer->lock);
	done = is_over(layer, flush, &err);
	if (!done && layer->writer) {
		enqueue(layer, flush);
		flush->state = WAITING;
		pthread_mutex_unlock(&layer->lock);
		return LAYER_WAIT;
	}
	unqueue(layer, flush);
	if (!done) {
		take_newest(layer, flush);
		leave_out_saved(layer_table(layer), flush->save);
		sequence = ++layer->sequence;
		done = flush->save->nr == 0;
		if (done)
			writer_ends(layer, 0);
	}
	pthread_mutex_unlock(&layer->lock);
	if (done)
		return step_done(flush, err);
	seal(layer, flush->save, sequence);
	flush->at = 0;
	return step_write(flush);
}

/* For want of space or memory nothing was written; or, where it was to be durable,
 * is not, and will be written again. */
static bool write_may_retry(int err)
{
	return err == -ENOSPC || err == -EDQUOT || err == -ENOMEM;
}

static enum layer_step write_failed(struct layer_flush *flush, int err)
{
	struct layer *layer = flush->layer;

	/* Of a write, or of the fdatasync behind it? */
	if (flush->dsync && !write_may_retry(err))
		return fail_for_good(flush, err);
	pthread_mutex_lock(&layer->lock);
	writer_ends(layer, err);
	pthread_mutex_unlock(&layer->lock);
	return step_done(flush, err);
}

static enum layer_step after_map(struct layer_flush *flush);

static enum layer_step after_write(struct layer_flush *flush, int64_t res)
{
	if (res == -EINTR)
		return LAYER_WRITE;
	if (res <= 0)
		return write_failed(flush, res < 0 ? (int)res : -EIO);
	if ((uint64_t)res < flush->length)
		return step_rest(flush, (size_t)res);
	flush->at += flush->pages;
	if (flush->at < flush->save->nr)
		return step_write(flush);
	CRASH_POINT(overlay_map_written);
	if (flush->dsync)
		return after_map(flush);
	flush->state = MAP;
	return step_sync(flush, flush->layer->map_fd);
}

static enum layer_step after_map(struct layer_flush *flush)
{
	struct layer *layer = flush->layer;
	int err;

	CRASH_POINT(overlay_map_synced);
	pthread_mutex_lock(&layer->lock);
	err = layer->err;
	if (err == 0)
		note_saved(layer, flush->save);
	writer_ends(layer, err);
	pthread_mutex_unlock(&layer->lock);
	return step_done(flush, err);
}

enum layer_step layer_flush_begin(struct layer_flush *flush,
				  struct layer *layer)
{
	int err;

	flush->layer = layer;
	flush->queued = false;
	flush->state = DATA;
	pthread_mutex_lock(&layer->lock);
	err = layer->err;
	flush->save = err == 0 ? save_new(layer_table(layer)) : NULL;
	flush->ticket = flush->save_ticket = ++layer->ticket;
	pthread_mutex_unlock(&layer->lock);
	if (!flush->save)
		return step_done(flush, err < 0 ? err : -ENOMEM);
	return step_sync(flush, layer->data_fd);
}

enum layer_step layer_flush_next(struct layer_flush *flush, int64_t res)
{
	switch (flush->state) {
	case DATA:
	case MAP:
		if (res == -EINTR)
			return LAYER_SYNC;
		if (res < 0)
			return fail_for_good(flush, (int)res);
		if (flush->state == MAP)
			return after_map(flush);
		CRASH_POINT(overlay_data_synced);
		return map_phase(flush);
	case WAITING:
		return map_phase(flush);
	default:
		return after_write(flush, res);
	}
}

bool layer_flush_may_retry(const struct layer_flush *flush)
{
	struct layer *layer = flush->layer;
	bool may;

	pthread_mutex_lock(&layer->lock);
	may = flush->err < 0 && layer->err == 0;
	pthread_mutex_unlock(&layer->lock);
	return may;
}

void layer_flush_cancel(struct layer_flush *flush)
{
	struct layer *layer = flush->layer;

	pthread_mutex_lock(&layer->lock);
	assert(layer->writer != flush);
	unqueue(layer, flush);
	pthread_mutex_unlock(&layer->lock);
	(void)step_done(flush, -ECANCELED);
}

/* --- Blocking ---------------------------------------------------------------- */

static void post(struct layer_flush *flush)
{
	(void)sem_post(flush->owner);
}

static int64_t carry_out(const struct layer_flush *flush, enum layer_step step,
			 sem_t *turn)
{
	ssize_t n = 0;

	if (step == LAYER_SYNC)
		n = fdatasync(flush->fd);
	else if (step == LAYER_WRITE)
		n = pwritev(flush->fd, flush->iov, (int)flush->iovcnt,
			    (off_t)flush->offset);
	else
		while (sem_wait(turn) < 0 && errno == EINTR)
			;
	return n < 0 ? -errno : n;
}

int layer_flush(struct layer *layer)
{
	struct layer_flush flush = { .wake = post };
	enum layer_step step;
	sem_t turn;

	(void)sem_init(&turn, 0, 0);
	flush.owner = &turn;
	for (step = layer_flush_begin(&flush, layer); step != LAYER_DONE;
	     step = layer_flush_next(&flush, carry_out(&flush, step, &turn)))
		;
	(void)sem_destroy(&turn);
	return flush.err;
}
