/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "overlay-meta.h"

#include <libdeflate.h>
#include <string.h>

#include "common/crash.h"
#include "common/util.h"

static uint32_t check_of(const struct meta *meta)
{
	return libdeflate_crc32(0, meta, offsetof(struct meta, check));
}

/* --- What it says must be possible --------------------------------------------- */

static bool ends(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

static bool disk_is_possible(const struct meta *meta)
{
	return meta->size > 0 && meta->size <= INT64_MAX &&
	       meta->size % LAYER_SECTOR == 0 &&
	       meta->base_size <= meta->size &&
	       meta->base_size % LAYER_SECTOR == 0 && meta->chunk > 0 &&
	       meta->chunk % LAYER_SECTOR == 0 && meta->next_gen > 1 &&
	       meta->next_gen < INT64_MAX && meta->base_gen < meta->next_gen &&
	       meta->closed <= 1 && meta->diverged <= 1 &&
	       ends(meta->branch, sizeof(meta->branch)) &&
	       ends(meta->repo, sizeof(meta->repo));
}

/* Frozen layers are newer than the base, clean ones are not. */
static bool slot_is_possible(const struct meta *meta,
			     const struct meta_slot *slot)
{
	if (slot->generation == 0 || slot->generation >= meta->next_gen)
		return false;
	if (slot->state == LAYER_ACTIVE)
		return slot->generation == meta->next_gen - 1;
	return (slot->state == LAYER_FROZEN || slot->state == LAYER_CLEAN) &&
	       (slot->state == LAYER_FROZEN) ==
		       (slot->generation > meta->base_gen) &&
	       slot->size > 0 && slot->size <= meta->size &&
	       slot->size % LAYER_SECTOR == 0 &&
	       ends(slot->domain, sizeof(slot->domain)) &&
	       ends(slot->message, sizeof(slot->message));
}

static bool slots_are_possible(const struct meta *meta)
{
	unsigned int order[OVERLAY_SLOTS];
	unsigned int nr = meta_order(meta, order);

	for (unsigned int i = 0; i < nr; i++) {
		if (!slot_is_possible(meta, &meta->slot[order[i]]))
			return false;
		if (i > 0 && meta->slot[order[i]].generation ==
				     meta->slot[order[i - 1]].generation)
			return false;
	}
	return meta_count(meta, LAYER_ACTIVE, NULL) == 1 &&
	       meta_count(meta, LAYER_FROZEN, NULL) <= OVERLAY_MAX_FROZEN;
}

unsigned int meta_order(const struct meta *meta,
			unsigned int ret[OVERLAY_SLOTS])
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < OVERLAY_SLOTS; i++) {
		unsigned int at = nr;

		if (meta->slot[i].state == LAYER_FREE)
			continue;
		for (; at > 0 && meta->slot[ret[at - 1]].generation <
					 meta->slot[i].generation;
		     at--)
			ret[at] = ret[at - 1];
		ret[at] = i;
		nr++;
	}
	return nr;
}

unsigned int meta_count(const struct meta *meta, enum layer_state state,
			unsigned int *ret_oldest)
{
	unsigned int order[OVERLAY_SLOTS];
	unsigned int all = meta_order(meta, order), nr = 0;

	for (unsigned int i = 0; i < all; i++) {
		if (meta->slot[order[i]].state != (uint32_t)state)
			continue;
		nr++;
		if (ret_oldest)
			*ret_oldest = order[i];
	}
	return nr;
}

/* --- The file ------------------------------------------------------------------ */

enum judgement { EMPTY, RIGHT, NEWER, WRONG };

static bool is_zero(const void *place)
{
	const unsigned char *bytes = place;

	return bytes[0] == 0 && memcmp(bytes, bytes + 1, META_BYTES - 1) == 0;
}

static enum judgement judge(const void *place, unsigned int number)
{
	const struct meta *meta = place;

	if (is_zero(place))
		return EMPTY;
	if (meta->magic == META_MAGIC && meta->version > META_VERSION)
		return NEWER;
	if (meta->magic != META_MAGIC || meta->version != META_VERSION ||
	    meta->bytes != sizeof(*meta) || meta->check != check_of(meta) ||
	    meta->sequence % 2 != number || meta->sequence == 0 ||
	    meta->sequence >= INT64_MAX)
		return WRONG;
	return disk_is_possible(meta) && slots_are_possible(meta) ? RIGHT :
								    WRONG;
}

/* What is beyond the end of the file is zero. */
static int read_places(int fd, char *places)
{
	size_t have = 0;

	memset(places, 0, META_FILE);
	while (have < META_FILE) {
		ssize_t n =
			pread(fd, places + have, META_FILE - have, (off_t)have);

		if (n == 0)
			break;
		if (n < 0 && errno != EINTR)
			return -errno;
		have += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int choose(const char *places, struct meta *ret, char *ret_why)
{
	const struct meta *newest = NULL;
	enum judgement found[2];

	for (unsigned int i = 0; i < 2; i++) {
		const void *place = places + i * (size_t)META_BYTES;
		const struct meta *meta = place;

		found[i] = judge(place, i);
		if (found[i] == RIGHT &&
		    (!newest || meta->sequence > newest->sequence))
			newest = meta;
	}
	if (found[0] == NEWER || found[1] == NEWER)
		return why(ret_why, -EOPNOTSUPP,
			   "meta was written by a later version of xendisk");
	if (newest) {
		*ret = *newest;
		return 0;
	}
	if (found[0] == EMPTY && found[1] == EMPTY)
		return -ENODATA;
	return why(ret_why, -EBADMSG, "meta is damaged in both of its places");
}

int meta_read(int fd, struct meta *ret, char *ret_why)
{
	cleanup_free char *places = malloc(META_FILE);
	int err;

	if (!places)
		return why(ret_why, -ENOMEM, "no memory to read meta");
	err = read_places(fd, places);
	if (err < 0)
		return why(ret_why, err, "cannot read meta: %s",
			   strerror(-err));
	return choose(places, ret, ret_why);
}

static int sync_meta(int fd)
{
	while (fdatasync(fd) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

int meta_write(int fd, struct meta *io_meta, bool *ret_unknown, char *ret_why)
{
	cleanup_free char *place = calloc(1, META_BYTES);
	uint64_t at;
	int err;

	*ret_unknown = false;
	if (!place)
		return why(ret_why, -ENOMEM, "no memory to write meta");
	io_meta->magic = META_MAGIC;
	io_meta->version = META_VERSION;
	io_meta->bytes = sizeof(*io_meta);
	io_meta->sequence++;
	io_meta->check = check_of(io_meta);
	memcpy(place, io_meta, sizeof(*io_meta));
	at = io_meta->sequence % 2 * META_BYTES;
	err = pwrite_all(fd, place, META_BYTES, at);
	if (err < 0)
		return why(ret_why, err, "cannot write meta: %s",
			   strerror(-err));
	CRASH_POINT(overlay_meta_written);
	err = sync_meta(fd);
	*ret_unknown = err < 0;
	if (err < 0)
		return why(ret_why, err, "cannot write meta (fdatasync): %s",
			   strerror(-err));
	CRASH_POINT(overlay_meta_synced);
	return 0;
}
