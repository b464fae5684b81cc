/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-kept-map.c - the kept state of cow and mem, as a file that somebody else
 * has made, and then any changes to the map.
 *
 * Input: blocks, changes to the file, then changes to the map.  Either the map
 * is refused, with a sentence, or its bits are those of the file; and from then
 * on map and file are what a plain array says.
 */
#define _GNU_SOURCE
#include "config.h"

#include "fuzz.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../backends/kept-map.h"

#define BLOCKS_MAX 600u
#define BITS_AT	   4096u
#define WORDS_MAX  ((BLOCKS_MAX + 63) / 64)
#define HEAD_BYTES 32u

static uint8_t file[BITS_AT + WORDS_MAX * 8];
static size_t file_bytes; /* as many as the map asks for */

/* --- In place of the worker -------------------------------------------------------- */

static int kept_fd = -1;
static char said[256];

int xd_keep(struct xd_disk *disk, const char *name, enum xd_keep_kind kind,
	    uint64_t size, bool *ret_kept)
{
	(void)disk;
	(void)name;
	HOLDS(kind == XD_KEEP_STATE && size == file_bytes, "what it asks for");
	*ret_kept = true;
	return dup(kept_fd);
}

void xd_error(struct xd_disk *disk, const char *fmt, ...)
{
	va_list ap;

	(void)disk;
	va_start(ap, fmt);
	(void)vsnprintf(said, sizeof(said), fmt, ap);
	va_end(ap);
}

/* --- The file ------------------------------------------------------------------------ */

static void read_file(void)
{
	HOLDS(pread(kept_fd, file, file_bytes, 0) == (ssize_t)file_bytes,
	      "own file");
}

static bool file_bit(unsigned int block)
{
	return file[BITS_AT + block / 8] >> block % 8 & 1;
}

static void clear_file(void)
{
	HOLDS(ftruncate(kept_fd, 0) == 0 &&
		      ftruncate(kept_fd, (off_t)file_bytes) == 0,
	      "own file");
}

/* A few bytes here and there, in the head and in the bits. */
static void change_file(struct input *in)
{
	unsigned int changes = input_u8(in) & 7;

	while (changes-- > 0) {
		uint16_t where = input_u16(in);
		size_t at = where & 0x8000 ?
				    where % HEAD_BYTES :
				    BITS_AT + where % (file_bytes - BITS_AT);
		uint8_t byte = input_u8(in);

		HOLDS(pwrite(kept_fd, &byte, 1, (off_t)at) == 1, "own file");
	}
}

/* --- The map against an array -------------------------------------------------------- */

static void check_runs(const struct kept_map *map, const bool *model,
		       unsigned int blocks)
{
	for (unsigned int first = 0; first < blocks;) {
		unsigned int end = first;
		uint64_t n;
		bool set;

		while (end < blocks && model[end] == model[first])
			end++;
		n = kept_map_run(map, first, blocks, &set);
		HOLDS(set == model[first], "block %u", first);
		HOLDS(n == end - first, "%u blocks from %u on", (unsigned)n,
		      first);
		HOLDS(kept_map_all(map, first, end) == model[first], "all");
		first = end;
	}
}

static void check_file(const bool *model, unsigned int blocks)
{
	read_file();
	for (unsigned int i = 0; i < (file_bytes - BITS_AT) * 8; i++)
		HOLDS(file_bit(i) == (i < blocks && model[i]), "bit %u", i);
}

static void change_map(struct kept_map *map, struct input *in, bool *model,
		       unsigned int blocks)
{
	while (in->left > 0) {
		bool set = input_u8(in) & 1;
		unsigned int first = input_u16(in) % blocks;
		unsigned int end = first + 1 + input_u16(in) % (blocks - first);
		unsigned int expected = 0;
		uint64_t changed;
		int r;

		for (unsigned int i = first; i < end; i++) {
			expected += model[i] != set;
			model[i] = set;
		}
		r = set ? kept_map_set(map, first, end, &changed) :
			  kept_map_clear(map, first, end, &changed);
		HOLDS(r == 0, "%d", r);
		HOLDS(changed == expected, "%u changed, not %u",
		      (unsigned)changed, expected);
	}
}

static struct kept_map *open_map(unsigned int blocks, bool *ret_kept)
{
	struct kept_map *map = NULL;
	int r;

	said[0] = '\0';
	r = kept_map_open(&map, NULL, "map", blocks, 4096, ret_kept);
	HOLDS((r == 0) == (map != NULL), "%d", r);
	HOLDS(r == 0 || said[0] != '\0', "a sentence");
	return map;
}

static void live(struct kept_map *map, struct input *in, unsigned int blocks)
{
	bool model[BLOCKS_MAX] = { false }, kept;

	read_file();
	for (unsigned int i = 0; i < blocks; i++)
		model[i] = file_bit(i);
	check_file(model, blocks); /* no bit stands for nothing */
	check_runs(map, model, blocks);
	change_map(map, in, model, blocks);
	check_runs(map, model, blocks);
	check_file(model, blocks);
	kept_map_close(map);
	map = open_map(blocks, &kept);
	HOLDS(map && kept, "what was kept is there");
	check_runs(map, model, blocks);
	kept_map_close(map);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned int blocks = 1 + input_u16(&in) % BLOCKS_MAX;
	uint8_t head[HEAD_BYTES];
	struct kept_map *map;
	bool kept;

	if (kept_fd < 0)
		kept_fd = memfd_create("kept", MFD_CLOEXEC);
	file_bytes = BITS_AT + (blocks + 63) / 64 * 8;
	clear_file();
	if (input_u8(&in) & 1) { /* one that was in use */
		map = open_map(blocks, &kept);
		HOLDS(map && !kept, "an empty file is a new map");
		kept_map_close(map);
	}
	read_file();
	memcpy(head, file, sizeof(head));
	change_file(&in);
	map = open_map(blocks, &kept);
	if (!map)
		return 0;
	if (kept) {
		read_file();
		HOLDS(memcmp(head, file, sizeof(head)) == 0, "another head");
	}
	live(map, &in, blocks);
	return 0;
}
