/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay.c - what was written to a git disk and is in no commit yet.
 *
 * The folder of one writable disk:
 *
 *   meta		which slot is what, and what all of it stands on
 *   data0 .. data7	slots for layers: a sparse file as large as the disk,
 *   map0 .. map7	and the sectors that it has
 *   lock, commit.lock	one worker, one committer
 *
 * A slot goes round: free -> active -> frozen -> clean -> free, each step by one
 * write of meta, which is durable before the step is taken.  What may be lost by
 * a crash is therefore only what comes after a write of meta, and overlay_lock()
 * does that again: a free slot that still uses space is emptied, a file that is
 * not as large as the disk is extended (before meta says so), the copies of map
 * pages that were being written are written again.  A frozen layer is there until
 * meta knows its commit; whoever asks for that commit asks again after a crash.
 *
 * What is in the folder is not believed.  Files are of this overlay and this
 * time, or it is refused: pages of a map carry the overlay's uuid and the layer's
 * generation, which never comes again; and a page that is newer than meta shows
 * that meta is the older of two, which would forget a layer.
 */
#include "config.h"

#include "overlay.h"

#include <string.h>

#include "common/crash.h"
#include "common/util.h"
#include "overlay-state.h"

/* --- Opening ------------------------------------------------------------------- */

static int set_of(struct overlay *overlay, const struct overlay_of *of,
		  char *ret_why)
{
	if (strlen(of->repo) >= sizeof(overlay->repo) ||
	    strlen(of->branch) >= sizeof(overlay->branch))
		return why(ret_why, -ENAMETOOLONG,
			   "the name of the repository or of the branch is too "
			   "long");
	(void)strcpy(overlay->repo, of->repo);
	(void)strcpy(overlay->branch, of->branch);
	(void)snprintf(overlay->holder, sizeof(overlay->holder), "%s",
		       of->holder);
	return 0;
}

int overlay_open(struct overlay **ret, int dir, const struct overlay_of *of,
		 bool *ret_found, struct overlay_facts *ret_facts,
		 char *ret_why)
{
	struct overlay *overlay = calloc(1, sizeof(*overlay));
	struct meta meta;
	int err;

	if (!overlay)
		return why(ret_why, -ENOMEM, "no memory for an overlay");
	err = set_of(overlay, of, ret_why);
	if (err == 0)
		err = files_open(&overlay->files, dir, ret_why);
	if (err < 0) {
		free(overlay);
		return err;
	}
	pthread_mutex_init(&overlay->grow_lock, NULL);
	err = overlay_find_meta(overlay, &meta, ret_why);
	if (err < 0 && err != -ENODATA) {
		overlay_close(overlay);
		return err;
	}
	*ret_found = err == 0;
	if (err == 0)
		*ret_facts = overlay_facts_of(&meta);
	*ret = overlay;
	return 0;
}

void overlay_close(struct overlay *overlay)
{
	if (!overlay)
		return;
	for (unsigned int i = 0; i < OVERLAY_SLOTS; i++)
		layer_close(overlay->layer[i]);
	files_close(&overlay->files);
	pthread_mutex_destroy(&overlay->grow_lock);
	free(overlay);
}

/* --- Looking ---------------------------------------------------------------------- */

const struct overlay_facts *overlay_facts(const struct overlay *overlay)
{
	return &overlay->facts;
}

static unsigned int active_slot(const struct overlay *overlay)
{
	unsigned int slot = 0;

	(void)meta_count(&overlay->meta, LAYER_ACTIVE, &slot);
	return slot;
}

struct layer *overlay_active(const struct overlay *overlay)
{
	return overlay->layer[active_slot(overlay)];
}

static void copy_info(struct snapshot_info *ret, const struct meta_slot *slot)
{
	*ret = (struct snapshot_info){
		.kind = slot->kind,
		.consistency = slot->consistency,
		.time = slot->time,
		.dirty = slot->dirty,
	};
	memcpy(ret->domain, slot->domain, sizeof(ret->domain));
	memcpy(ret->message, slot->message, sizeof(ret->message));
}

unsigned int overlay_layers(const struct overlay *overlay,
			    struct overlay_layer ret[OVERLAY_SLOTS])
{
	unsigned int order[OVERLAY_SLOTS];
	unsigned int nr = meta_order(&overlay->meta, order);

	for (unsigned int i = 0; i < nr; i++) {
		const struct meta_slot *slot = &overlay->meta.slot[order[i]];

		ret[i] = (struct overlay_layer){
			.layer = overlay->layer[order[i]],
			.slot = order[i],
			.state = (enum layer_state)slot->state,
			.generation = slot->generation,
			.data_fd = overlay->files.slot[order[i]].read_data,
			.map_fd = overlay->files.slot[order[i]].read_map,
			.size = slot->size,
		};
		memcpy(ret[i].commit, slot->commit, OID_BYTES);
		copy_info(&ret[i].info, slot);
	}
	return nr;
}

const char *overlay_repaired(const struct overlay *overlay)
{
	return overlay->repaired;
}

int overlay_tidy(struct overlay *overlay, char *ret_why)
{
	unsigned int slot = active_slot(overlay);

	if (layer_sectors(overlay->layer[slot]) > 0 ||
	    !files_has_space(&overlay->files, slot))
		return 0;
	return files_empty(&overlay->files, slot, ret_why);
}

bool overlay_is_dirty(const struct overlay *overlay)
{
	const struct meta *meta = &overlay->meta;
	uint64_t kept = meta->base_size;

	/* A disk never shrinks, so the newest snapshot is the largest. */
	for (unsigned int i = 0; i < OVERLAY_SLOTS; i++)
		if (meta->slot[i].state == LAYER_FROZEN)
			kept = MAX(kept, meta->slot[i].size);
	return layer_sectors(overlay_active(overlay)) > 0 || meta->size > kept;
}

bool overlay_is_empty(const struct overlay *overlay)
{
	return !overlay_is_dirty(overlay) &&
	       meta_count(&overlay->meta, LAYER_FROZEN, NULL) == 0;
}

/* --- The way of a slot ------------------------------------------------------------- */

/* -EAGAIN: none. */
static int free_slot(const struct overlay *overlay, unsigned int *ret,
		     char *ret_why)
{
	for (unsigned int i = 0; i < OVERLAY_SLOTS; i++)
		if (!overlay->layer[i]) {
			*ret = i;
			return 0;
		}
	return why(ret_why, -EAGAIN, "all layers are in use");
}

static void freeze_slot(const struct overlay *overlay, struct meta_slot *slot,
			const struct snapshot_info *info)
{
	slot->state = LAYER_FROZEN;
	slot->size = overlay->meta.size;
	slot->kind = info->kind;
	slot->consistency = info->consistency;
	slot->time = info->time;
	slot->dirty = layer_sectors(overlay_active(overlay)) * LAYER_SECTOR;
	(void)snprintf(slot->domain, sizeof(slot->domain), "%s", info->domain);
	(void)snprintf(slot->message, sizeof(slot->message), "%s",
		       info->message);
}

int overlay_freeze(struct overlay *overlay, const struct snapshot_info *info,
		   uint64_t *ret_gen, char *ret_why)
{
	unsigned int old = active_slot(overlay), fresh;
	struct meta meta = overlay->meta;
	struct layer *layer;
	int err;

	if (meta_count(&meta, LAYER_FROZEN, NULL) == OVERLAY_MAX_FROZEN)
		return why(ret_why, -EBUSY,
			   "%u snapshots wait to be committed already",
			   OVERLAY_MAX_FROZEN);
	err = free_slot(overlay, &fresh, ret_why);
	if (err < 0)
		return err;
	err = overlay_flush_active(overlay, ret_why);
	if (err < 0)
		return err;
	CRASH_POINT(overlay_freeze_flushed);
	freeze_slot(overlay, &meta.slot[old], info);
	overlay_make_active(&meta, fresh);
	err = overlay_new_layer(overlay, &meta, fresh, &layer, ret_why);
	if (err < 0)
		return err;
	err = overlay_store_meta(overlay, &meta, ret_why);
	if (err < 0) {
		layer_close(layer);
		return err;
	}
	overlay->layer[fresh] = layer;
	*ret_gen = meta.slot[old].generation;
	return 0;
}

int overlay_committed(struct overlay *overlay, uint64_t gen,
		      const uint8_t commit[OID_BYTES], enum overlay_place place,
		      char *ret_why)
{
	struct meta meta = overlay->meta;
	struct meta_slot *slot;
	unsigned int oldest;

	if (meta_count(&meta, LAYER_FROZEN, &oldest) == 0 ||
	    meta.slot[oldest].generation != gen)
		return why(ret_why, -EINVAL,
			   "layer %llu is not the one to be committed next",
			   (unsigned long long)gen);
	slot = &meta.slot[oldest];
	slot->state = LAYER_CLEAN;
	memcpy(slot->commit, commit, OID_BYTES);
	memcpy(meta.base, commit, OID_BYTES);
	meta.base_gen = gen;
	meta.base_size = slot->size;
	if (place != OVERLAY_LEAF) {
		memcpy(meta.head, commit, OID_BYTES);
		meta.diverged = place == OVERLAY_DIVERGED;
	}
	return overlay_store_meta(overlay, &meta, ret_why);
}

int overlay_set_head(struct overlay *overlay, const uint8_t head[OID_BYTES],
		     char *ret_why)
{
	struct meta meta = overlay->meta;

	memcpy(meta.head, head, OID_BYTES);
	return overlay_store_meta(overlay, &meta, ret_why);
}

int overlay_drop(struct overlay *overlay, uint64_t *ret_gen, char *ret_why)
{
	struct meta meta = overlay->meta;
	unsigned int slot;
	int err;

	if (meta_count(&meta, LAYER_CLEAN, &slot) == 0)
		return why(ret_why, -ENOENT, "no layer is a mere cache");
	*ret_gen = meta.slot[slot].generation;
	meta.slot[slot] = (struct meta_slot){ .state = LAYER_FREE };
	err = overlay_store_meta(overlay, &meta, ret_why);
	CRASH_POINT(overlay_dropped);
	return err;
}

static bool is_dropped(const struct overlay *overlay, unsigned int slot)
{
	return overlay->layer[slot] &&
	       overlay->meta.slot[slot].state == LAYER_FREE;
}

static void forget_layer(struct overlay *overlay, unsigned int slot)
{
	pthread_mutex_lock(&overlay->grow_lock);
	if (overlay->growing == overlay->layer[slot])
		overlay->growing = NULL;
	pthread_mutex_unlock(&overlay->grow_lock);
	layer_close(TAKE_PTR(overlay->layer[slot]));
}

int overlay_empty(struct overlay *overlay, uint64_t gen, char *ret_why)
{
	int err;

	for (unsigned int i = 0; i < OVERLAY_SLOTS; i++) {
		if (!is_dropped(overlay, i) ||
		    layer_generation(overlay->layer[i]) != gen)
			continue;
		err = files_empty(&overlay->files, i, ret_why);
		if (err == 0)
			forget_layer(overlay, i);
		return err;
	}
	return why(ret_why, -ENOENT, "layer %llu was not dropped",
		   (unsigned long long)gen);
}

/* --- Anew --------------------------------------------------------------------------- */

/* Twice, so that nothing leads back to what has been given up. */
static int store_anew(struct overlay *overlay, struct meta *meta, char *ret_why)
{
	int err = overlay_store_meta(overlay, meta, ret_why);

	return err < 0 ? err : overlay_store_meta(overlay, meta, ret_why);
}

/* What cannot be emptied is by the next overlay_lock(): nothing of it counts. */
static void replace_layers(struct overlay *overlay, unsigned int slot,
			   struct layer *layer)
{
	char reason[WHY_MAX];

	for (unsigned int i = 0; i < OVERLAY_SLOTS; i++) {
		forget_layer(overlay, i);
		(void)files_empty(&overlay->files, i, reason);
	}
	overlay->layer[slot] = layer;
}

int overlay_restart(struct overlay *overlay, struct overlay_facts *facts,
		    char *ret_why)
{
	struct meta meta = overlay->meta;
	unsigned int slot = active_slot(overlay);
	struct layer *layer;
	int err = overlay_stand_on(&meta, facts, ret_why);

	memset(meta.slot, 0, sizeof(meta.slot));
	overlay_make_active(&meta, slot);
	if (err == 0)
		err = overlay_extend_all(overlay, facts->size, ret_why);
	if (err == 0)
		err = overlay_new_layer(overlay, &meta, slot, &layer, ret_why);
	if (err < 0)
		return err;
	err = store_anew(overlay, &meta, ret_why);
	if (err < 0) {
		layer_close(layer);
		return err;
	}
	replace_layers(overlay, slot, layer);
	*facts = overlay->facts;
	return 0;
}

/* --- Growing ------------------------------------------------------------------------ */

int overlay_grow(struct overlay *overlay, uint64_t size, char *ret_why)
{
	struct layer *active = overlay_active(overlay);
	struct meta meta = overlay->meta;
	int err;

	if (size <= meta.size)
		return 0;
	if (size % LAYER_SECTOR || size > INT64_MAX)
		return why(ret_why, -EINVAL, "%llu bytes are no disk",
			   (unsigned long long)size);
	err = overlay_extend_all(overlay, size, ret_why);
	if (err < 0)
		return err;
	if (layer_grow(active, size / LAYER_SECTOR) < 0)
		return why(ret_why, -ENOMEM, "no memory for a larger map");
	meta.size = size;
	err = overlay_store_meta(overlay, &meta, ret_why);
	if (err < 0)
		return err;
	pthread_mutex_lock(&overlay->grow_lock);
	overlay->growing = active;
	pthread_mutex_unlock(&overlay->grow_lock);
	return 0;
}

void overlay_grown(struct overlay *overlay)
{
	pthread_mutex_lock(&overlay->grow_lock);
	if (overlay->growing)
		layer_grown(TAKE_PTR(overlay->growing));
	pthread_mutex_unlock(&overlay->grow_lock);
}
