/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-map.c - the map of a layer, in memory.
 *
 * Pages of it are made when a bit is set in them, so that a disk of a terabyte
 * costs nothing where nothing was written.  Bits are set by atomic operations and
 * tested without a lock; a page in which one was set is `unsaved` until a flush
 * has made it durable (overlay-flush.c).
 *
 * The bit first, then `unsaved`: whoever clears `unsaved` looks at the bits once
 * more afterwards, so that none is forgotten.  That two requests set the same bit
 * at the same time, and one is answered by what the other has only half done,
 * cannot be: the host lets no two writes of the same bytes be in flight.
 */
#include "config.h"

#include <string.h>

#include "common/util.h"
#include "overlay-layer.h"

static void table_free(struct layer_table *table)
{
	if (!table)
		return;
	free(table->pages);
	free(table->unsaved);
	free(table->place);
	free(table);
}

static struct layer_table *table_new(uint64_t sectors)
{
	struct layer_table *table = calloc(1, sizeof(*table));
	uint64_t nr = DIV_ROUND_UP(sectors, MAP_PAGE_SECTORS);

	if (!table || nr > UINT32_MAX)
		goto failed;
	table->sectors = sectors;
	table->nr_pages = (uint32_t)nr;
	table->pages = calloc(nr, sizeof(*table->pages));
	table->unsaved =
		calloc(DIV_ROUND_UP(nr, MAP_WORD_BITS), sizeof(uint64_t));
	table->place = malloc(nr);
	if (!table->pages || !table->unsaved || !table->place)
		goto failed;
	memset(table->place, PLACE_NONE, nr);
	return table;

failed:
	table_free(table);
	return NULL;
}

int layer_new(struct layer **ret, int data_fd, int map_fd, uint64_t tag,
	      uint64_t generation, uint64_t sectors)
{
	struct layer *layer = calloc(1, sizeof(*layer));

	if (!layer)
		return -ENOMEM;
	layer->table = table_new(sectors);
	if (!layer->table) {
		free(layer);
		return -ENOMEM;
	}
	layer->data_fd = data_fd;
	layer->map_fd = map_fd;
	layer->tag = tag;
	layer->generation = generation;
	pthread_mutex_init(&layer->lock, NULL);
	*ret = layer;
	return 0;
}

void layer_close(struct layer *layer)
{
	struct layer_table *older;

	if (!layer)
		return;
	for (uint32_t i = 0; i < layer->table->nr_pages; i++)
		free(layer->table->pages[i]);
	for (struct layer_table *t = layer->table; t; t = older) {
		older = t->older;
		table_free(t);
	}
	table_free(layer->next_table);
	pthread_mutex_destroy(&layer->lock);
	free(layer);
}

uint64_t layer_generation(const struct layer *layer)
{
	return layer->generation;
}

int layer_data_fd(const struct layer *layer)
{
	return layer->data_fd;
}

uint64_t layer_sectors(const struct layer *layer)
{
	return __atomic_load_n(&layer->count, __ATOMIC_RELAXED);
}

/* --- Growing ----------------------------------------------------------------- */

int layer_grow(struct layer *layer, uint64_t sectors)
{
	struct layer_table *table = NULL;

	if (sectors > layer_table(layer)->sectors) {
		table = table_new(sectors);
		if (!table)
			return -ENOMEM;
	}
	table_free(layer->next_table);
	layer->next_table = table;
	return 0;
}

void layer_grown(struct layer *layer)
{
	struct layer_table *old, *table = TAKE_PTR(layer->next_table);

	if (!table)
		return;
	pthread_mutex_lock(&layer->lock);
	old = layer->table;
	memcpy(table->pages, old->pages, old->nr_pages * sizeof(*old->pages));
	memcpy(table->unsaved, old->unsaved,
	       DIV_ROUND_UP(old->nr_pages, MAP_WORD_BITS) * sizeof(uint64_t));
	memcpy(table->place, old->place, old->nr_pages);
	table->older = old;
	__atomic_store_n(&layer->table, table, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&layer->lock);
}

/* --- Looking ----------------------------------------------------------------- */

/* How many bits from at on, before end, are like the first one, in a page. */
static uint64_t run_in_page(const uint64_t *words, uint64_t first, uint64_t end,
			    bool set)
{
	uint64_t at = first;

	if (!words)
		return set ? 0 : end - first;
	while (at < end) {
		unsigned int shift = at % MAP_WORD_BITS;
		uint64_t word = __atomic_load_n(&words[at / MAP_WORD_BITS],
						__ATOMIC_ACQUIRE);
		/* A 1 for each that is unlike. */
		uint64_t unlike = (set ? ~word : word) >> shift;

		if (unlike) {
			at += (unsigned int)__builtin_ctzll(unlike);
			break;
		}
		at += MAP_WORD_BITS - shift;
	}
	return MIN(at, end) - first;
}

static bool is_set(const struct layer_table *table, uint64_t sector)
{
	const uint64_t *words =
		layer_words(table, (uint32_t)(sector / MAP_PAGE_SECTORS));
	uint64_t bit = sector % MAP_PAGE_SECTORS;

	return words &&
	       __atomic_load_n(&words[bit / MAP_WORD_BITS], __ATOMIC_ACQUIRE) >>
			       bit % MAP_WORD_BITS &
		       1;
}

uint64_t layer_run(const struct layer *layer, uint64_t first, uint64_t end,
		   bool *ret_set)
{
	const struct layer_table *table = layer_table(layer);
	uint64_t known = MIN(end, table->sectors);
	uint64_t at = first;

	*ret_set = first < known && is_set(table, first);
	while (at < known) {
		uint32_t page = (uint32_t)(at / MAP_PAGE_SECTORS);
		uint64_t base = page * MAP_PAGE_SECTORS;
		uint64_t stop = MIN(known - base, MAP_PAGE_SECTORS);
		uint64_t n = run_in_page(layer_words(table, page), at - base,
					 stop, *ret_set);

		at += n;
		if (at < base + stop)
			return at - first;
	}
	return (*ret_set ? MIN(at, known) : end) - first;
}

bool layer_next(const struct layer *layer, uint64_t first, uint64_t end,
		uint64_t *ret_first, uint64_t *ret_end)
{
	bool set;

	while (first < end) {
		uint64_t n = layer_run(layer, first, end, &set);

		if (set) {
			*ret_first = first;
			*ret_end = first + n;
			return true;
		}
		first += n;
	}
	return false;
}

/* --- Setting ----------------------------------------------------------------- */

uint64_t *layer_page(struct layer_table *table, uint32_t page)
{
	uint64_t *words = layer_words(table, page), *fresh;

	if (words)
		return words;
	fresh = calloc(MAP_PAGE_WORDS, sizeof(uint64_t));
	if (!fresh)
		return NULL;
	if (__atomic_compare_exchange_n(&table->pages[page], &words, fresh,
					false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		return fresh;
	free(fresh); /* another lane was faster */
	return words;
}

/* Returns how many were not set before. */
static unsigned int set_bits(uint64_t *words, uint64_t first, uint64_t end)
{
	unsigned int added = 0;

	while (first < end) {
		uint64_t *word = &words[first / MAP_WORD_BITS];
		unsigned int shift = first % MAP_WORD_BITS;
		uint64_t n = MIN(end - first, MAP_WORD_BITS - shift);
		uint64_t mask = (n == MAP_WORD_BITS ? ~0ull : (1ull << n) - 1)
				<< shift;
		uint64_t old = __atomic_load_n(word, __ATOMIC_ACQUIRE);

		first += n;
		if ((old & mask) == mask)
			continue;
		old = __atomic_fetch_or(word, mask, __ATOMIC_SEQ_CST);
		added += (unsigned int)__builtin_popcountll(mask & ~old);
	}
	return added;
}

int layer_mark(struct layer *layer, uint64_t first, uint64_t end)
{
	struct layer_table *table = layer_table(layer);

	while (first < end) {
		uint32_t page = (uint32_t)(first / MAP_PAGE_SECTORS);
		uint64_t base = page * MAP_PAGE_SECTORS;
		uint64_t stop = MIN(end, base + MAP_PAGE_SECTORS);
		uint64_t *words = layer_page(table, page);
		unsigned int added;

		if (!words)
			return -ENOMEM;
		added = set_bits(words, first - base, stop - base);
		if (added) {
			set_unsaved(table, page);
			__atomic_fetch_add(&layer->count, added,
					   __ATOMIC_RELAXED);
		}
		first = stop;
	}
	return 0;
}
