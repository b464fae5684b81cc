/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-page.c - the map of a layer, in its file.
 *
 * A page is written over the older of its two copies, and only when the newer one
 * is durable; so whatever a crash leaves of a page, one copy is whole, or it was
 * never durable.  Which of these it is need not be known to read it: bits are only
 * ever set, and a copy has a bit only when that sector's data was durable before.
 * So the union of all copies that are whole is right.
 *
 * A copy is
 *   absent	all zero, where the file has a hole; or whole, but of an earlier
 *		layer that had this slot, or of an overlay that was given up;
 *   whole	its check sum is right;
 *   damaged	else: a crash while it was written, or worse.
 *
 * Two damaged copies are worse, for sure.  One is taken for a crash only where
 * there may have been one, which meta knows: in the active layer of an overlay
 * that was not closed.  Anything that no crash can have made refuses the layer: to
 * go on without its bits would show old content, or zeroes, for new.
 */
#include "config.h"

#include <libdeflate.h>
#include <string.h>

#include "common/util.h"
#include "odb.h"
#include "overlay-layer.h"

/* Of a sequence; more than can be written in a lifetime. */
#define SEQUENCE_MAX (UINT64_MAX / 4)

enum copy { ABSENT, WHOLE, DAMAGED };

struct loading {
	struct layer *layer;
	struct map_page *buffer;
	/* Of each page, by place. */
	struct {
		uint8_t copy[2];
		uint64_t sequence[2];
	} * found;
};

uint64_t map_page_offset(uint32_t page, unsigned int place)
{
	uint64_t group = page / MAP_GROUP * 2 + place;

	return (group * MAP_GROUP + page % MAP_GROUP) * MAP_PAGE_BYTES;
}

uint64_t map_file_size(uint64_t sectors)
{
	uint64_t pages = DIV_ROUND_UP(sectors, MAP_PAGE_SECTORS);

	return ALIGN_UP(pages, MAP_GROUP) * 2 * MAP_PAGE_BYTES;
}

static uint32_t check_of(const struct map_page *page)
{
	return libdeflate_crc32(0, page,
				MAP_PAGE_BYTES - sizeof(page->end.check));
}

void map_page_seal(const struct layer *layer, struct map_page *page,
		   uint64_t sequence)
{
	page->end.tag = layer->tag;
	page->end.generation = layer->generation;
	page->end.sequence = sequence;
	page->end.check = check_of(page);
}

static bool is_zero(const struct map_page *page)
{
	const uint64_t *words = (const uint64_t *)(const void *)page;

	for (size_t i = 0; i < MAP_PAGE_BYTES / sizeof(*words); i++)
		if (words[i])
			return false;
	return true;
}

/*
 * The next page of the file at or after *io_at that is no hole.  -ENODATA: none;
 * what is cut off by the end of the file is read as zeroes.
 */
static int next_page(int fd, uint64_t *io_at, struct map_page *ret)
{
	off_t data = lseek(fd, (off_t)*io_at, SEEK_DATA);
	size_t have = 0;
	ssize_t n = 1;

	if (data < 0)
		return errno == ENXIO ? -ENODATA : -errno;
	*io_at = (uint64_t)data / MAP_PAGE_BYTES * MAP_PAGE_BYTES;
	memset(ret, 0, sizeof(*ret));
	while (have < sizeof(*ret) && n > 0) {
		n = pread(fd, (char *)ret + have, sizeof(*ret) - have,
			  (off_t)(*io_at + have));
		if (n < 0 && errno != EINTR)
			return -errno;
		have += n > 0 ? (size_t)n : 0;
		n = n < 0 ? 1 : n;
	}
	return 0;
}

/* --- Reading a layer ----------------------------------------------------------- */

/* Bits of the page that stand for no sector. */
static bool has_rest(const struct layer_table *table,
		     const struct map_page *page)
{
	uint64_t left = table->sectors - page->end.page * MAP_PAGE_SECTORS;

	for (uint64_t word = left / MAP_WORD_BITS; word < MAP_PAGE_WORDS;
	     word++) {
		unsigned int used =
			word == left / MAP_WORD_BITS ? left % MAP_WORD_BITS : 0;

		if (page->words[word] >> used)
			return true;
	}
	return false;
}

/* A copy that is whole and says that it is of this layer. */
static int judge_whole(const struct loading *load, uint32_t number,
		       char *ret_why)
{
	const struct map_page *page = load->buffer;
	const struct layer_table *table = layer_table(load->layer);

	if (page->end.page != number)
		return why(ret_why, -EBADMSG,
			   "page %u of the map stands in the place of page %u",
			   page->end.page, number);
	if (page->end.sequence == 0 || page->end.sequence > SEQUENCE_MAX)
		return why(ret_why, -EBADMSG,
			   "page %u of the map has no possible sequence number",
			   number);
	if (number >= table->nr_pages || has_rest(table, page))
		return why(
			ret_why, -EBADMSG,
			"page %u of the map speaks of more than the disk has",
			number);
	return 0;
}

static void add_words(uint64_t *words, const struct map_page *page)
{
	for (size_t i = 0; i < MAP_PAGE_WORDS; i++)
		words[i] |= page->words[i];
}

static int load_whole(struct loading *load, uint32_t number, unsigned int place,
		      char *ret_why)
{
	const struct map_end *end = &load->buffer->end;
	struct layer *layer = load->layer;
	uint64_t *words;
	int err;

	if (end->tag != layer->tag || end->generation < layer->generation)
		return 0; /* absent */
	if (end->generation > layer->generation)
		return why(ret_why, -EBADMSG,
			   "the map is of layer %llu, and meta says %llu: one "
			   "of the two is a copy from another time",
			   (unsigned long long)end->generation,
			   (unsigned long long)layer->generation);
	err = judge_whole(load, number, ret_why);
	if (err < 0)
		return err;
	words = layer_page(layer_table(layer), number);
	if (!words)
		return why(ret_why, -ENOMEM, "no memory for the map");
	add_words(words, load->buffer);
	load->found[number].copy[place] = WHOLE;
	load->found[number].sequence[place] = end->sequence;
	layer->sequence = MAX(layer->sequence, end->sequence);
	return 0;
}

static int load_copy(struct loading *load, uint64_t at, char *ret_why)
{
	uint64_t index = at / MAP_PAGE_BYTES;
	unsigned int place = index / MAP_GROUP % 2;
	uint64_t number =
		index / (2 * MAP_GROUP) * MAP_GROUP + index % MAP_GROUP;

	if (is_zero(load->buffer))
		return 0;
	if (load->buffer->end.check == check_of(load->buffer))
		return load_whole(load, (uint32_t)MIN(number, UINT32_MAX),
				  place, ret_why);
	if (number < layer_table(load->layer)->nr_pages)
		load->found[number].copy[place] = DAMAGED;
	return 0;
}

static int load_file(struct loading *load, char *ret_why)
{
	uint64_t at = 0;
	int err;

	for (;; at += MAP_PAGE_BYTES) {
		err = next_page(load->layer->map_fd, &at, load->buffer);
		if (err == -ENODATA)
			return 0;
		if (err < 0)
			return why(ret_why, err, "cannot read the map: %s",
				   strerror(-err));
		err = load_copy(load, at, ret_why);
		if (err < 0)
			return err;
	}
}

static int say_damaged(const struct layer_table *table, uint32_t page,
		       const char *what, char *ret_why)
{
	uint64_t first = page * MAP_PAGE_SECTORS * LAYER_SECTOR;
	uint64_t end = MIN((page + 1ull) * MAP_PAGE_SECTORS, table->sectors) *
		       LAYER_SECTOR;

	return why(ret_why, -EBADMSG,
		   "%s of page %u of the map is damaged, which no crash can "
		   "have done: what was written to bytes %llu to %llu of the "
		   "disk is not known any more",
		   what, page, (unsigned long long)first,
		   (unsigned long long)end);
}

/* What is known of a page once all of the file has been read. */
static int settle(struct loading *load, uint32_t page, bool whole,
		  unsigned int *ret_repaired, char *ret_why)
{
	struct layer_table *table = layer_table(load->layer);
	const uint8_t *copy = load->found[page].copy;
	const uint64_t *sequence = load->found[page].sequence;
	bool newer_b = sequence[PLACE_B] > sequence[PLACE_A];

	if (copy[PLACE_A] == WHOLE || copy[PLACE_B] == WHOLE)
		table->place[page] = newer_b ? PLACE_B : PLACE_A;
	if (copy[PLACE_A] != DAMAGED && copy[PLACE_B] != DAMAGED)
		return 0;
	if (copy[PLACE_A] == copy[PLACE_B])
		return say_damaged(table, page, "each copy", ret_why);
	if (whole)
		return say_damaged(table, page, "a copy", ret_why);
	/* What is written again is written over what is damaged. */
	if (copy[PLACE_A] != WHOLE && copy[PLACE_B] != WHOLE)
		table->place[page] = copy[PLACE_A] == DAMAGED ? PLACE_B :
								PLACE_A;
	if (!layer_page(table, page))
		return why(ret_why, -ENOMEM, "no memory for the map");
	set_unsaved(table, page);
	(*ret_repaired)++;
	return 0;
}

static uint64_t count_bits(const struct layer_table *table)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < table->nr_pages; i++)
		for (size_t w = 0; table->pages[i] && w < MAP_PAGE_WORDS; w++)
			count += (unsigned int)__builtin_popcountll(
				table->pages[i][w]);
	return count;
}

int layer_load(struct layer *layer, bool whole, unsigned int *ret_repaired,
	       char *ret_why)
{
	struct layer_table *table = layer_table(layer);
	struct loading load = {
		.layer = layer,
		.buffer = malloc(sizeof(*load.buffer)),
		.found = calloc(table->nr_pages, sizeof(*load.found)),
	};
	int err;

	*ret_repaired = 0;
	if (load.buffer && load.found)
		err = load_file(&load, ret_why);
	else
		err = why(ret_why, -ENOMEM, "no memory for the map");
	for (uint32_t i = 0; err == 0 && i < table->nr_pages; i++)
		err = settle(&load, i, whole, ret_repaired, ret_why);
	if (err == 0)
		layer->count = count_bits(table);
	free(load.buffer);
	free(load.found);
	return err;
}

int layer_open_frozen(struct layer **ret, int data_fd, int map_fd,
		      const uint8_t uuid[16], uint64_t generation,
		      uint64_t size, char *ret_why)
{
	struct layer *layer;
	unsigned int repaired;
	uint64_t tag;
	int err;

	memcpy(&tag, uuid, sizeof(tag));
	err = layer_new(&layer, data_fd, map_fd, tag, generation,
			size / LAYER_SECTOR);
	if (err < 0)
		return why(ret_why, err, "no memory for the map");
	err = layer_load(layer, true, &repaired, ret_why);
	if (err < 0) {
		layer_close(layer);
		return err;
	}
	*ret = layer;
	return 0;
}

int map_newest(int map_fd, uint64_t tag, uint64_t *ret_generation)
{
	struct map_page *page = malloc(sizeof(*page));
	uint64_t at = 0, newest = 0;
	int err;

	if (!page)
		return -ENOMEM;
	for (;; at += MAP_PAGE_BYTES) {
		err = next_page(map_fd, &at, page);
		if (err < 0)
			break;
		if (page->end.tag == tag && page->end.check == check_of(page) &&
		    !is_zero(page))
			newest = MAX(newest, page->end.generation);
	}
	free(page);
	if (err != -ENODATA)
		return err;
	*ret_generation = newest;
	return 0;
}

int map_has_page(int map_fd, bool *ret)
{
	struct map_page *page = malloc(sizeof(*page));
	uint64_t at = 0;
	int err;

	if (!page)
		return -ENOMEM;
	for (;; at += MAP_PAGE_BYTES) {
		err = next_page(map_fd, &at, page);
		if (err < 0 || !is_zero(page))
			break;
	}
	free(page);
	if (err < 0 && err != -ENODATA)
		return err;
	*ret = err == 0;
	return 0;
}
