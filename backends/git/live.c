/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "live.h"

#include "kept-map.h"
#include "common/util.h"
#include "overlay-map.h"
#include "xendisk-backend.h"

/* Ours to trust no more than a stranger's: a number. */
struct kept_generation {
	uint64_t generation;
};

static const char *const names[] = { "live0", "live1" };

int live_open(struct live *live, struct xd_disk *disk, uint64_t bytes)
{
	bool kept;
	int r = live->fd = xd_keep(disk, "livegen", XD_KEEP_STATE,
				   sizeof(struct kept_generation), &live->kept);

	for (unsigned int i = 0; i < 2 && r >= 0; i++)
		r = kept_map_open(&live->map[i], disk, names[i],
				  bytes / LAYER_SECTOR, LAYER_SECTOR, &kept);
	return r < 0 ? r : 0;
}

void live_close(struct live *live)
{
	for (unsigned int i = 0; i < 2; i++)
		kept_map_close(TAKE_PTR(live->map[i]));
	if (live->fd >= 0)
		(void)close(TAKE_FD(live->fd));
}

static int clear(struct kept_map *map)
{
	return kept_map_clear(map, 0, kept_map_blocks(map), NULL);
}

/* The map may be larger than the disk, when growing has failed in between. */
static int give_back(const struct kept_map *map, struct layer *layer,
		     uint64_t sectors)
{
	uint64_t end = MIN(kept_map_blocks(map), sectors), n;
	int r = 0;

	for (uint64_t at = 0; at < end && r == 0; at += n) {
		bool set;

		n = kept_map_run(map, at, end, &set);
		if (set)
			r = layer_mark(layer, at, at + n);
	}
	return r;
}

int live_recover(struct live *live, struct layer *layer, uint64_t bytes)
{
	struct kept_generation of = { .generation = layer_generation(layer) };
	unsigned int now = of.generation & 1;
	struct kept_generation found;
	int r = pread_all(live->fd, &found, sizeof(found), 0);

	if (r == 0 && found.generation == of.generation)
		r = give_back(live->map[now], layer, bytes / LAYER_SECTOR);
	else if (r == 0)
		r = clear(live->map[now]);
	if (r == 0)
		r = clear(live->map[!now]);
	if (r == 0)
		r = pwrite_all(live->fd, &of, sizeof(of), 0);
	atomic_store(&live->now, now);
	live->stale = false;
	return r;
}

int live_next(struct live *live, uint64_t generation)
{
	struct kept_generation of = { .generation = generation };
	int r;

	live_clean(live);
	if (live->stale)
		return -ENOSPC;
	r = pwrite_all(live->fd, &of, sizeof(of), 0);
	if (r < 0)
		return r;
	atomic_store(&live->now, generation & 1);
	live->stale = true;
	return 0;
}

void live_clean(struct live *live)
{
	pthread_mutex_lock(&live->lock);
	if (live->stale)
		live->stale = clear(live->map[!atomic_load(&live->now)]) < 0;
	pthread_mutex_unlock(&live->lock);
}

int live_grow(struct live *live, struct xd_disk *disk, uint64_t bytes)
{
	int r = 0;

	for (unsigned int i = 0; i < 2 && r == 0; i++)
		r = kept_map_grow(live->map[i], disk, names[i],
				  bytes / LAYER_SECTOR, LAYER_SECTOR);
	return r;
}

void live_grown(struct live *live)
{
	pthread_mutex_lock(&live->lock);
	for (unsigned int i = 0; i < 2; i++)
		kept_map_grown(live->map[i]);
	pthread_mutex_unlock(&live->lock);
}

int live_mark(struct live *live, uint64_t first, uint64_t end)
{
	return kept_map_set(live->map[atomic_load(&live->now)], first, end,
			    NULL);
}
