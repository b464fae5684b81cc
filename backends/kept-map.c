/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "kept-map.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>

#include "common/util.h"

#define KEPT_VERSION 1
#define BITS_AT	     4096u /* offset of the first word in the file */
#define WORD_BITS    64u
/* Words that one system call changes. */
#define BATCH 4096u

/* At the start of the file; the rest of its page is 0. */
struct kept_header {
	char name[8];
	uint32_t version;
	uint32_t block_size;
	uint64_t blocks;
	uint32_t reserved;
	uint32_t check; /* crc32() of what comes before */
};

struct kept_map {
	int fd;
	uint64_t blocks;
	uint64_t nr_words;
	pthread_mutex_t lock; /* for changes: file, words and batch */
	uint64_t *batch;
	uint64_t words[];
};

static uint32_t crc32(const void *data, size_t length)
{
	const unsigned char *p = data;
	uint32_t crc = UINT32_MAX;

	while (length--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

static struct kept_header make_header(const char *name, uint64_t blocks,
				      uint32_t block_size)
{
	struct kept_header header = {
		.version = KEPT_VERSION,
		.block_size = block_size,
		.blocks = blocks,
	};

	memcpy(header.name, name, strnlen(name, sizeof(header.name)));
	header.check = crc32(&header, offsetof(struct kept_header, check));
	return header;
}

static int pwrite_whole(int fd, const void *buf, size_t length, uint64_t at)
{
	ssize_t n;

	do
		n = pwrite(fd, buf, length, (off_t)at);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == length ? 0 : -ENOSPC;
}

/* The words that are in the file; holes are zero here already. */
static int read_words(struct kept_map *map)
{
	char *words = (char *)map->words;
	off_t end = (off_t)(map->nr_words * sizeof(uint64_t));
	off_t at = 0;

	while (at < end) {
		off_t data = lseek(map->fd, BITS_AT + at, SEEK_DATA);
		ssize_t n;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		at = data - BITS_AT;
		n = pread(map->fd, words + at,
			  MIN((size_t)(end - at), 1u << 20), data);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		at += n;
	}
	return 0;
}

/* Bits beyond the last block would be found by nobody but a bug of ours. */
static bool tail_is_clear(const struct kept_map *map)
{
	unsigned int used = map->blocks % WORD_BITS;

	return used == 0 || map->words[map->nr_words - 1] >> used == 0;
}

/*
 * A header of zeroes is that of a worker which was killed before it could
 * write one: then there are no bits either.
 */
static int load(struct kept_map *map, const struct kept_header *expected,
		bool *ret_kept)
{
	static const struct kept_header none;
	struct kept_header found;
	bool kept, set;
	int err;

	if (pread(map->fd, &found, sizeof(found), 0) != sizeof(found))
		return -EIO;
	kept = memcmp(&found, expected, sizeof(found)) == 0;
	if (!kept && memcmp(&found, &none, sizeof(found)) != 0)
		return -EBADMSG;
	err = read_words(map);
	if (err < 0)
		return err;
	if (!tail_is_clear(map))
		return -EBADMSG;
	if (!kept &&
	    (kept_map_run(map, 0, map->blocks, &set) != map->blocks || set))
		return -EBADMSG;
	*ret_kept = kept;
	return kept ? 0 : pwrite_whole(map->fd, expected, sizeof(*expected), 0);
}

static struct kept_map *alloc_map(uint64_t blocks)
{
	uint64_t nr_words = DIV_ROUND_UP(blocks, WORD_BITS);
	struct kept_map *map =
		calloc(1, sizeof(*map) + nr_words * sizeof(uint64_t));

	if (!map)
		return NULL;
	map->batch = malloc(BATCH * sizeof(uint64_t));
	if (!map->batch) {
		free(map);
		return NULL;
	}
	map->fd = -1;
	map->blocks = blocks;
	map->nr_words = nr_words;
	pthread_mutex_init(&map->lock, NULL);
	return map;
}

static const char *explain(int err)
{
	switch (err) {
	case -EBADMSG:
		return "it is not what this disk has kept";
	case -EINVAL:
		return "the disk is too large";
	default:
		return strerror(-err);
	}
}

int kept_map_open(struct kept_map **ret, struct xd_disk *disk, const char *name,
		  uint64_t blocks, uint32_t block_size, bool *ret_kept)
{
	struct kept_header header = make_header(name, blocks, block_size);
	struct kept_map *map = alloc_map(blocks);
	uint64_t size;
	bool kept;
	int err;

	if (!map) {
		xd_error(disk, "no memory for the map of %s", name);
		return -ENOMEM;
	}
	size = BITS_AT + map->nr_words * sizeof(uint64_t);
	map->fd = xd_keep(disk, name, XD_KEEP_STATE, size, &kept);
	err = map->fd < 0 ? map->fd : load(map, &header, &kept);
	if (err < 0) {
		xd_error(disk, "kept state \"%s\": %s", name, explain(err));
		kept_map_close(map);
		return err;
	}
	*ret = map;
	*ret_kept = kept;
	return 0;
}

void kept_map_close(struct kept_map *map)
{
	if (!map)
		return;
	if (map->fd >= 0)
		(void)close(map->fd);
	pthread_mutex_destroy(&map->lock);
	free(map->batch);
	free(map);
}

static uint64_t get_word(const struct kept_map *map, uint64_t word)
{
	return __atomic_load_n(&map->words[word], __ATOMIC_ACQUIRE);
}

uint64_t kept_map_run(const struct kept_map *map, uint64_t first, uint64_t end,
		      bool *ret_set)
{
	bool set = get_word(map, first / WORD_BITS) >> first % WORD_BITS & 1;
	uint64_t at = first;

	while (at < end) {
		unsigned int shift = at % WORD_BITS;
		uint64_t word = get_word(map, at / WORD_BITS);
		/* A 1 for each block that is unlike the first. */
		uint64_t unlike = (set ? ~word : word) >> shift;

		if (unlike) {
			at += (unsigned int)__builtin_ctzll(unlike);
			break;
		}
		at += WORD_BITS - shift;
	}
	*ret_set = set;
	return MIN(at, end) - first;
}

bool kept_map_all(const struct kept_map *map, uint64_t first, uint64_t end)
{
	bool set;

	return kept_map_run(map, first, end, &set) == end - first && set;
}

int kept_map_reserve(struct kept_map *map, uint64_t first, uint64_t end)
{
	uint64_t from = first / WORD_BITS * sizeof(uint64_t);
	uint64_t to = DIV_ROUND_UP(end, WORD_BITS) * sizeof(uint64_t);
	int r;

	do
		r = fallocate(map->fd, 0, (off_t)(BITS_AT + from),
			      (off_t)(to - from));
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/* The bits of a word that belong to first .. end. */
static uint64_t word_mask(uint64_t word, uint64_t first, uint64_t end)
{
	uint64_t start = word * WORD_BITS;
	uint64_t mask = UINT64_MAX;

	if (first > start)
		mask &= UINT64_MAX << (first - start);
	if (end < start + WORD_BITS)
		mask &= UINT64_MAX >> (start + WORD_BITS - end);
	return mask;
}

/* Changes the words from .. to; the lock is held. */
static int change_batch(struct kept_map *map, uint64_t from, uint64_t to,
			uint64_t first, uint64_t end, bool set,
			uint64_t *changed)
{
	uint64_t nr = 0;
	int err;

	for (uint64_t w = from; w < to; w++) {
		uint64_t mask = word_mask(w, first, end);
		uint64_t old = map->words[w];
		uint64_t new = set ? old | mask : old & ~mask;

		map->batch[w - from] = new;
		nr += (unsigned int)__builtin_popcountll(old ^ new);
	}
	if (nr == 0)
		return 0;
	err = pwrite_whole(map->fd, map->batch, (to - from) * sizeof(uint64_t),
			   BITS_AT + from * sizeof(uint64_t));
	if (err < 0)
		return err;
	for (uint64_t w = from; w < to; w++)
		__atomic_store_n(&map->words[w], map->batch[w - from],
				 __ATOMIC_RELEASE);
	*changed += nr;
	return 0;
}

static int change(struct kept_map *map, uint64_t first, uint64_t end, bool set,
		  uint64_t *ret_changed)
{
	uint64_t last = DIV_ROUND_UP(end, WORD_BITS);
	uint64_t changed = 0;
	int err = 0;

	pthread_mutex_lock(&map->lock);
	for (uint64_t w = first / WORD_BITS; w < last && err == 0; w += BATCH)
		err = change_batch(map, w, MIN(w + BATCH, last), first, end,
				   set, &changed);
	pthread_mutex_unlock(&map->lock);
	if (ret_changed)
		*ret_changed = changed;
	return err;
}

int kept_map_set(struct kept_map *map, uint64_t first, uint64_t end,
		 uint64_t *ret_changed)
{
	return change(map, first, end, true, ret_changed);
}

int kept_map_clear(struct kept_map *map, uint64_t first, uint64_t end,
		   uint64_t *ret_changed)
{
	return change(map, first, end, false, ret_changed);
}
