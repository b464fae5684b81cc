/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-overlay.c - the folder of a git disk's overlay, as somebody else has made
 * it: what is in meta and in the maps.
 *
 * Input: how far the overlay was when it was left, then changes to its files, with
 * the check sums made right again or not.  Either it is refused, with a sentence;
 * or its layers are possible ones, and what they have they still have when it goes
 * on, is left and opened again.  What was not changed at all is as it was.
 */
#define _GNU_SOURCE
#include "config.h"

#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <libdeflate.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../backends/git/overlay-layer.h"
#include "../../backends/git/overlay-meta.h"

#define SECTORS	    (MAP_PAGE_SECTORS + 1000)
#define SIZE	    (SECTORS * LAYER_SECTOR)
#define MAX_CHANGES 64u

static char folder[64];
static int dir = -1;
static char reason[WHY_MAX];
static struct overlay_facts facts;

static const struct overlay_of of = { "/srv/repo.git", "web", "a fuzzer" };

void fuzz_leave(void)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	if (folder[0])
		(void)!system(command);
}

static void make_folder(void)
{
	(void)snprintf(folder, sizeof(folder), "%s/xendisk-fuzz-XXXXXX",
		       access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	HOLDS(mkdtemp(folder), "own folder");
	(void)atexit(fuzz_leave);
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	HOLDS(dir >= 0, "own folder");
}

static int open_file(unsigned int number)
{
	char name[16];
	int fd;

	if (number == 0)
		(void)snprintf(name, sizeof(name), "meta");
	else
		(void)snprintf(name, sizeof(name), "map%u",
			       (number - 1) % OVERLAY_SLOTS);
	fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	HOLDS(fd >= 0, "own file");
	return fd;
}

static void clear_files(void)
{
	for (unsigned int i = 0; i <= OVERLAY_SLOTS; i++) {
		int fd = open_file(i);

		HOLDS(ftruncate(fd, 0) == 0, "own file");
		(void)close(fd);
	}
}

/* NULL: refused, and then there must be a sentence. */
static struct overlay *start(void)
{
	struct overlay_facts wanted = { .size = SIZE,
					.base_size = SIZE,
					.chunk = 65536 };
	struct overlay *overlay;
	bool found;
	int r;

	reason[0] = '\0';
	r = overlay_open(&overlay, dir, &of, &found, &facts, reason);
	HOLDS(r == 0 || reason[0], "a sentence");
	if (r < 0)
		return NULL;
	if (!found)
		facts = wanted;
	reason[0] = '\0';
	r = overlay_lock(overlay, &facts, true, reason);
	HOLDS(r == 0 || reason[0], "a sentence");
	if (r == 0)
		return overlay;
	overlay_close(overlay);
	return NULL;
}

/* --- As it was left --------------------------------------------------------------- */

static void mark(struct overlay *overlay, uint64_t first, uint64_t n)
{
	HOLDS(layer_mark(overlay_active(overlay), first, first + n) == 0 &&
		      layer_flush(overlay_active(overlay)) == 0,
	      "marks");
}

static void step(struct overlay *overlay, unsigned int what)
{
	struct snapshot_info info = { .message = "fuzz" };
	uint8_t commit[OID_BYTES] = { 1 };
	uint64_t gen = overlay_facts(overlay)->base_gen + 1;

	switch (what) {
	case 0:
		mark(overlay, 5, 100);
		break;
	case 1:
		mark(overlay, MAP_PAGE_SECTORS - 7, 14);
		break;
	case 2:
		(void)overlay_freeze(overlay, &info, &gen, reason);
		break;
	case 3:
		(void)overlay_committed(overlay, gen, commit, OVERLAY_ON_BRANCH,
					reason);
		break;
	default:
		if (overlay_drop(overlay, &gen, reason) == 0)
			(void)overlay_empty(overlay, gen, reason);
		break;
	}
}

/* Sectors of all layers, the count of which is the number of layers. */
struct seen {
	unsigned int nr;
	uint64_t gen[OVERLAY_SLOTS], sectors[OVERLAY_SLOTS];
};

static struct seen look(const struct overlay *overlay)
{
	struct overlay_layer layers[OVERLAY_SLOTS];
	struct seen seen = { .nr = overlay_layers(overlay, layers) };
	const struct overlay_facts *now = overlay_facts(overlay);
	uint64_t end = now->size / LAYER_SECTOR;

	HOLDS(now->size > 0 && now->base_size <= now->size, "sizes");
	HOLDS(seen.nr > 0 && layers[0].layer == overlay_active(overlay),
	      "the active one is the newest");
	for (unsigned int i = 0; i < seen.nr; i++) {
		uint64_t count = 0, a = 0, b = 0;

		HOLDS(layers[i].layer &&
			      (layers[i].state == LAYER_ACTIVE) == (i == 0),
		      "layer %u", i);
		HOLDS(i == 0 || layers[i].generation < seen.gen[i - 1],
		      "newest first");
		HOLDS((layers[i].state == LAYER_CLEAN) ==
			      (layers[i].generation <= now->base_gen),
		      "what is in the base");
		while (layer_next(layers[i].layer, b, UINT64_MAX / 1024, &a,
				  &b)) {
			HOLDS(a < b && b <= end, "inside the disk");
			count += b - a;
		}
		HOLDS(count == layer_sectors(layers[i].layer), "counted");
		seen.gen[i] = layers[i].generation;
		seen.sectors[i] = count;
	}
	return seen;
}

static struct seen leave(struct input *in)
{
	struct overlay *overlay = start();
	unsigned int steps = input_u8(in) & 15;
	struct seen seen;

	HOLDS(overlay, "a new one: %s", reason);
	while (steps-- > 0)
		step(overlay, input_u8(in) % 5);
	seen = look(overlay);
	if (input_u8(in) & 1)
		HOLDS(overlay_unlock(overlay, reason) == 0, "%s", reason);
	overlay_close(overlay);
	return seen;
}

/* --- Changed ------------------------------------------------------------------------- */

static void reseal(int fd, bool meta, uint64_t piece)
{
	static union {
		struct meta meta;
		struct map_page page;
		char bytes[MAP_PAGE_BYTES];
	} u;
	ssize_t n = pread(fd, &u, sizeof(u), (off_t)(piece * sizeof(u)));

	if (n != sizeof(u))
		return;
	if (meta)
		u.meta.check =
			libdeflate_crc32(0, &u, offsetof(struct meta, check));
	else
		u.page.end.check = libdeflate_crc32(
			0, &u, offsetof(struct map_page, end.check));
	HOLDS(pwrite(fd, &u, sizeof(u), (off_t)(piece * sizeof(u))) == n,
	      "own file");
}

static void change(struct input *in)
{
	unsigned int file = input_u8(in) % (1 + OVERLAY_SLOTS);
	unsigned int how = input_u8(in);
	unsigned int piece = how / 8 % (file ? 2 * MAP_GROUP : 2);
	uint16_t at = input_u16(in) % META_BYTES;
	uint8_t byte = input_u8(in);
	int fd = open_file(file);

	if (how & 4) /* where something is, mostly */
		at = file ? MAP_PAGE_BYTES - 1 - at % 64 : at % 256;
	if ((how & 3) == 3)
		(void)!ftruncate(fd, at * (off_t)byte);
	else
		HOLDS(pwrite(fd, &byte, 1,
			     (off_t)piece * (off_t)META_BYTES + at) == 1,
		      "own file");
	if (how & 1)
		reseal(fd, file == 0, piece);
	(void)close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct seen before, seen, again;
	struct overlay *overlay;
	unsigned int changes = 0;

	if (dir < 0)
		make_folder();
	clear_files();
	before = leave(&in);
	for (; in.left > 0 && changes < MAX_CHANGES; changes++)
		change(&in);
	overlay = start();
	HOLDS(overlay || changes > 0, "its own: %s", reason);
	if (!overlay)
		return 0;
	seen = look(overlay);
	HOLDS(changes || memcmp(&seen, &before, sizeof(seen)) == 0,
	      "as it was");
	mark(overlay, 77, 1);
	seen = look(overlay);
	overlay_close(overlay);
	overlay = start();
	HOLDS(overlay, "once more: %s", reason);
	again = look(overlay);
	HOLDS(memcmp(&seen, &again, sizeof(seen)) == 0, "as it was left");
	overlay_close(overlay);
	return 0;
}
