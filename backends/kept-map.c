/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "kept-map.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#include "common/crash.h"
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
	uint64_t *words;
	/* Between kept_map_grow() and kept_map_grown(); else NULL. */
	uint64_t *next_words;
	uint64_t next_blocks;
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

static uint64_t file_size(uint64_t blocks)
{
	return BITS_AT + DIV_ROUND_UP(blocks, WORD_BITS) * sizeof(uint64_t);
}

/*
 * How many blocks it was made for, or has grown to; 0: a header of zeroes is
 * that of a worker which was killed before it could write one, and then there
 * are no bits either.
 */
static int read_header(int fd, const char *name, uint32_t block_size,
		       uint64_t *ret_blocks)
{
	static const struct kept_header none;
	struct kept_header found, expected;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (pread(fd, &found, sizeof(found), 0) != sizeof(found))
		return -EIO;
	if (memcmp(&found, &none, sizeof(found)) == 0) {
		*ret_blocks = 0;
		return 0;
	}
	expected = make_header(name, found.blocks, block_size);
	if (memcmp(&found, &expected, sizeof(found)) != 0 ||
	    found.blocks == 0 || found.blocks > INT64_MAX ||
	    (uint64_t)st.st_size < file_size(found.blocks))
		return -EBADMSG;
	*ret_blocks = found.blocks;
	return 0;
}

static uint64_t *alloc_words(uint64_t blocks)
{
	return calloc(DIV_ROUND_UP(blocks, WORD_BITS), sizeof(uint64_t));
}

static int write_header(const struct kept_map *map, const char *name,
			uint64_t blocks, uint32_t block_size)
{
	struct kept_header header = make_header(name, blocks, block_size);

	return pwrite_whole(map->fd, &header, sizeof(header), 0);
}

/* Bits that stand for no block, or for one that the header does not know of,
 * would be found by nobody but a bug of ours. */
static bool rest_is_clear(const struct kept_map *map, uint64_t known)
{
	unsigned int used = map->blocks % WORD_BITS;
	uint64_t rest = map->blocks - known;
	bool set;

	if (used && map->words[map->nr_words - 1] >> used)
		return false;
	return rest == 0 ||
	       (kept_map_run(map, known, map->blocks, &set) == rest && !set);
}

static int load(struct kept_map *map, const char *name, uint64_t wanted,
		uint32_t block_size, bool *ret_kept)
{
	uint64_t found = 0;
	int err = read_header(map->fd, name, block_size, &found);

	if (err < 0)
		return err;
	map->blocks = MAX(found, wanted);
	map->nr_words = DIV_ROUND_UP(map->blocks, WORD_BITS);
	map->words = alloc_words(map->blocks);
	if (!map->words)
		return -ENOMEM;
	err = read_words(map);
	if (err < 0)
		return err;
	if (!rest_is_clear(map, found))
		return -EBADMSG;
	*ret_kept = found != 0;
	return found < wanted ? write_header(map, name, wanted, block_size) : 0;
}

static struct kept_map *alloc_map(void)
{
	struct kept_map *map = calloc(1, sizeof(*map));

	if (!map)
		return NULL;
	map->batch = malloc(BATCH * sizeof(uint64_t));
	if (!map->batch) {
		free(map);
		return NULL;
	}
	map->fd = -1;
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

static int say(struct xd_disk *disk, const char *name, int err)
{
	xd_error(disk, "kept state \"%s\": %s", name, explain(err));
	return err;
}

int kept_map_open(struct kept_map **ret, struct xd_disk *disk, const char *name,
		  uint64_t blocks, uint32_t block_size, bool *ret_kept)
{
	struct kept_map *map = alloc_map();
	bool there;
	int err;

	if (!map)
		return say(disk, name, -ENOMEM);
	map->fd = xd_keep(disk, name, XD_KEEP_STATE, file_size(blocks), &there);
	err = map->fd < 0 ? map->fd :
			    load(map, name, blocks, block_size, ret_kept);
	if (err < 0) {
		kept_map_close(map);
		return say(disk, name, err);
	}
	*ret = map;
	return 0;
}

uint64_t kept_map_blocks(const struct kept_map *map)
{
	return map->blocks;
}

/*
 * The file first, its header last: a worker that is killed in between has made
 * a file that is longer than its header says, which is fine.
 */
int kept_map_grow(struct kept_map *map, struct xd_disk *disk, const char *name,
		  uint64_t blocks, uint32_t block_size)
{
	bool kept;
	int fd, err;

	if (blocks <= map->blocks)
		return 0;
	free(map->next_words);
	map->next_words = alloc_words(blocks);
	if (!map->next_words)
		return say(disk, name, -ENOMEM);
	fd = xd_keep(disk, name, XD_KEEP_STATE, file_size(blocks), &kept);
	if (fd < 0)
		return say(disk, name, fd);
	(void)close(fd); /* of the same file */
	err = write_header(map, name, blocks, block_size);
	if (err < 0)
		return say(disk, name, err);
	map->next_blocks = blocks;
	return 0;
}

void kept_map_grown(struct kept_map *map)
{
	if (!map->next_words || !map->next_blocks)
		return;
	/* What is zero stays without memory of its own. */
	for (uint64_t w = 0; w < map->nr_words; w++)
		if (map->words[w])
			map->next_words[w] = map->words[w];
	free(map->words);
	map->words = map->next_words;
	map->blocks = map->next_blocks;
	map->nr_words = DIV_ROUND_UP(map->blocks, WORD_BITS);
	map->next_words = NULL;
	map->next_blocks = 0;
}

void kept_map_close(struct kept_map *map)
{
	if (!map)
		return;
	if (map->fd >= 0)
		(void)close(map->fd);
	pthread_mutex_destroy(&map->lock);
	free(map->batch);
	free(map->words);
	free(map->next_words);
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
	CRASH_POINT(map_reserved);
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
	CRASH_POINT(map_written);
	for (uint64_t w = from; w < to; w++)
		__atomic_store_n(&map->words[w], map->batch[w - from],
				 __ATOMIC_RELEASE);
	CRASH_POINT(map_stored);
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
