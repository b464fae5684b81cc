/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-lock.c - one writer: takes an overlay over, as a crash may have left it,
 * and lets go of it.  See overlay.c for what a crash can leave.
 */
#include "config.h"

#include <string.h>
#include <sys/random.h>

#include "common/crash.h"
#include "common/util.h"
#include "overlay-state.h"

/* --- Meta ------------------------------------------------------------------------ */

static uint64_t tag_of(const struct meta *meta)
{
	uint64_t tag;

	memcpy(&tag, meta->uuid, sizeof(tag));
	return tag;
}

struct overlay_facts overlay_facts_of(const struct meta *meta)
{
	struct overlay_facts facts = {
		.size = meta->size,
		.base_size = meta->base_size,
		.chunk = meta->chunk,
		.base_gen = meta->base_gen,
		.diverged = meta->diverged,
	};

	memcpy(facts.base, meta->base, OID_BYTES);
	memcpy(facts.head, meta->head, OID_BYTES);
	memcpy(facts.uuid, meta->uuid, sizeof(facts.uuid));
	return facts;
}

static void set_meta(struct overlay *overlay, const struct meta *meta)
{
	overlay->meta = *meta;
	overlay->facts = overlay_facts_of(meta);
}

/* The kernel tells of it once.  What was answered, and not durable yet, may be lost
 * by that: whoever asks for a flush has to hear it, now or after another lock. */
static void lose(struct overlay *overlay, int err)
{
	unsigned int slot;

	if (overlay->sync_err == 0)
		overlay->sync_err = err;
	if (meta_count(&overlay->meta, LAYER_ACTIVE, &slot) > 0 &&
	    overlay->layer[slot])
		layer_fail(overlay->layer[slot], overlay->sync_err);
}

/* Durable before it is believed. */
int overlay_store_meta(struct overlay *overlay, struct meta *meta,
		       char *ret_why)
{
	bool unknown;
	int err;

	if (overlay->meta_err < 0)
		return why(ret_why, overlay->meta_err,
			   "%s/meta could not be made durable before: %s",
			   overlay->files.folder, strerror(-overlay->meta_err));
	err = meta_write(overlay->files.meta, meta, &unknown, ret_why);
	if (unknown) {
		overlay->meta_err = err;
		lose(overlay, err);
	}
	if (err == 0)
		set_meta(overlay, meta);
	return err;
}

/* A page in a map: something was flushed here. */
static int find_page(const struct overlay *overlay, bool *ret, char *ret_why)
{
	*ret = false;
	for (unsigned int i = 0; i < OVERLAY_SLOTS && !*ret; i++) {
		int err = map_has_page(overlay->files.slot[i].map, ret);

		if (err < 0)
			return why(ret_why, err, "cannot read %s/map%u: %s",
				   overlay->files.folder, i, strerror(-err));
	}
	return 0;
}

static int check_of(const struct overlay *overlay, const struct meta *meta,
		    char *ret_why)
{
	if (strcmp(meta->repo, overlay->repo) == 0 &&
	    strcmp(meta->branch, overlay->branch) == 0)
		return 0;
	return why(ret_why, -EINVAL,
		   "%s is that of branch %.100s of %.200s, and of no other",
		   overlay->files.folder, meta->branch, meta->repo);
}

/* -ENODATA: nothing is there yet.  A crash while the very first meta was written
 * is that, too; but meta does not go by a crash. */
int overlay_find_meta(const struct overlay *overlay, struct meta *ret,
		      char *ret_why)
{
	char damaged[WHY_MAX] = "meta is empty";
	int err = meta_read(overlay->files.meta, ret, damaged);
	bool pages;

	if (err == 0)
		return check_of(overlay, ret, ret_why);
	if (err != -ENODATA && err != -EBADMSG)
		return why(ret_why, err, "%s: %.400s", overlay->files.folder,
			   damaged);
	err = find_page(overlay, &pages, ret_why);
	if (err < 0)
		return err;
	if (!pages)
		return -ENODATA;
	return why(ret_why, -EBADMSG,
		   "%s: %.100s, but layers are there: put the folder back from "
		   "a copy, or move it away and go back to the last commit",
		   overlay->files.folder, damaged);
}

/* --- Locking: what is there, and repairs ----------------------------------------- */

static void forget_layers(struct overlay *overlay)
{
	for (unsigned int i = 0; i < OVERLAY_SLOTS; i++)
		layer_close(TAKE_PTR(overlay->layer[i]));
	overlay->growing = NULL;
}

static int new_uuid(uint8_t uuid[16], char *ret_why)
{
	if (getrandom(uuid, 16, 0) != 16)
		return why(ret_why, -EIO, "no random number was to be had");
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* RFC 4122, version 4 */
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
	return 0;
}

int overlay_stand_on(struct meta *meta, const struct overlay_facts *facts,
		     char *ret_why)
{
	if (facts->size == 0 || facts->size % LAYER_SECTOR ||
	    facts->size > INT64_MAX || facts->base_size > facts->size ||
	    facts->chunk == 0)
		return why(ret_why, -EINVAL,
			   "a disk of %llu bytes in chunks of %u is none",
			   (unsigned long long)facts->size, facts->chunk);
	meta->size = facts->size;
	meta->base_size = facts->base_size;
	meta->chunk = facts->chunk;
	meta->base_gen = 0;
	meta->diverged = 0;
	memcpy(meta->base, facts->base, OID_BYTES);
	memcpy(meta->head, facts->head, OID_BYTES);
	return new_uuid(meta->uuid, ret_why);
}

void overlay_make_active(struct meta *meta, unsigned int slot)
{
	meta->slot[slot] = (struct meta_slot){
		.state = LAYER_ACTIVE,
		.generation = meta->next_gen++,
	};
}

/* In memory; nothing is written yet. */
static int make_meta(const struct overlay *overlay, struct meta *ret,
		     const struct overlay_facts *facts, char *ret_why)
{
	memset(ret, 0, sizeof(*ret));
	ret->next_gen = 1;
	(void)strcpy(ret->repo, overlay->repo);
	(void)strcpy(ret->branch, overlay->branch);
	overlay_make_active(ret, 0);
	return overlay_stand_on(ret, facts, ret_why);
}

/* Is it what the caller has prepared for? */
static int compare_facts(const struct overlay *overlay, const struct meta *meta,
			 struct overlay_facts *facts, char *ret_why)
{
	if (memcmp(meta->base, facts->base, OID_BYTES) != 0) {
		*facts = overlay_facts_of(meta);
		return why(ret_why, -ESTALE,
			   "%s stands on another commit by now",
			   overlay->files.folder);
	}
	if (meta->chunk == facts->chunk && meta->base_size == facts->base_size)
		return 0;
	return why(
		ret_why, -EINVAL,
		"%s is for a disk of %llu bytes in chunks of %u; that of its "
		"commit has %llu bytes, and chunks of %u",
		overlay->files.folder, (unsigned long long)meta->base_size,
		meta->chunk, (unsigned long long)facts->base_size,
		facts->chunk);
}

/* A free slot has nothing of this overlay that meta does not know of. */
static int check_free(const struct overlay *overlay, const struct meta *meta,
		      unsigned int slot, char *ret_why)
{
	uint64_t generation;
	int err = map_newest(overlay->files.slot[slot].map, tag_of(meta),
			     &generation);

	if (err < 0)
		return why(ret_why, err, "cannot read %s/map%u: %s",
			   overlay->files.folder, slot, strerror(-err));
	if (generation < meta->next_gen)
		return 0;
	return why(ret_why, -EBADMSG,
		   "%s/map%u is newer than meta, which is a copy from another "
		   "time, or was damaged: put the folder back from a copy, or "
		   "move it away and go back to the last commit",
		   overlay->files.folder, slot);
}

int overlay_extend_all(const struct overlay *overlay, uint64_t size,
		       char *ret_why)
{
	int err = 0;

	for (unsigned int i = 0; err == 0 && i < OVERLAY_SLOTS; i++)
		err = files_extend(&overlay->files, i, size, ret_why);
	return err;
}

static int check_used(const struct overlay *overlay, const struct meta *meta,
		      char *ret_why)
{
	int err = 0;

	for (unsigned int i = 0; err == 0 && i < OVERLAY_SLOTS; i++)
		if (meta->slot[i].state == LAYER_ACTIVE ||
		    meta->slot[i].state == LAYER_FROZEN)
			err = files_check(&overlay->files, i, meta->size,
					  ret_why);
	return err;
}

/* All files were made as large as meta says, durably, before it said so. */
static int prepare_free(struct overlay *overlay, const struct meta *meta,
			bool found, unsigned int slot, char *ret_why)
{
	int err = check_free(overlay, meta, slot, ret_why);
	char reason[WHY_MAX];

	if (err == 0 && files_has_space(&overlay->files, slot))
		err = files_empty(&overlay->files, slot, ret_why);
	CRASH_POINT(overlay_emptied);
	if (err < 0 || (found && files_check(&overlay->files, slot, meta->size,
					     reason) == 0))
		return err;
	return files_extend(&overlay->files, slot, meta->size, ret_why);
}

/* Those in use first: what meta says of the size may be believed then. */
static int prepare_slots(struct overlay *overlay, const struct meta *meta,
			 bool found, char *ret_why)
{
	int err = found ? check_used(overlay, meta, ret_why) : 0;

	for (unsigned int i = 0; err == 0 && i < OVERLAY_SLOTS; i++)
		if (!found || meta->slot[i].state == LAYER_FREE)
			err = prepare_free(overlay, meta, found, i, ret_why);
	CRASH_POINT(overlay_prepared);
	return err;
}

int overlay_new_layer(const struct overlay *overlay, const struct meta *meta,
		      unsigned int slot, struct layer **ret, char *ret_why)
{
	const struct overlay_slot_files *files = &overlay->files.slot[slot];
	const struct meta_slot *of = &meta->slot[slot];
	uint64_t size = of->state == LAYER_ACTIVE ? meta->size : of->size;
	int err = layer_new(ret, files->data, files->map, tag_of(meta),
			    of->generation, size / LAYER_SECTOR);

	return err < 0 ? why(ret_why, err, "no memory for a map") : 0;
}

static int load_slot(struct overlay *overlay, const struct meta *meta,
		     unsigned int slot, unsigned int *ret_repaired,
		     char *ret_why)
{
	bool active = meta->slot[slot].state == LAYER_ACTIVE;
	char reason[WHY_MAX] = "";
	int err;

	err = files_check(&overlay->files, slot, meta->size, ret_why);
	if (err == 0)
		err = overlay_new_layer(overlay, meta, slot,
					&overlay->layer[slot], ret_why);
	if (err < 0)
		return err;
	err = layer_load(overlay->layer[slot], !active || meta->closed,
			 ret_repaired, reason);
	if (err == 0)
		return 0;
	layer_close(TAKE_PTR(overlay->layer[slot]));
	return why(ret_why, err,
		   "%s/map%u: %.300s (put the folder back from a copy, or move "
		   "it away and go back to the last commit)",
		   overlay->files.folder, slot, reason);
}

/* What is in a clean layer is in a commit. */
static int give_up_clean(struct overlay *overlay, struct meta *meta,
			 unsigned int slot, char *ret_why)
{
	int err;

	(void)snprintf(overlay->repaired, sizeof(overlay->repaired),
		       "a cache was damaged and is given up: %.450s", ret_why);
	meta->slot[slot] = (struct meta_slot){ .state = LAYER_FREE };
	ret_why[0] = '\0';
	err = overlay_store_meta(overlay, meta, ret_why);
	return err < 0 ? err : prepare_free(overlay, meta, true, slot, ret_why);
}

static int load_layers(struct overlay *overlay, struct meta *meta,
		       char *ret_why)
{
	unsigned int order[OVERLAY_SLOTS], repaired;
	unsigned int nr = meta_order(meta, order);
	int err = 0;

	for (unsigned int i = 0; err == 0 && i < nr; i++) {
		err = load_slot(overlay, meta, order[i], &repaired, ret_why);
		if (err == -EBADMSG &&
		    meta->slot[order[i]].state == LAYER_CLEAN) {
			err = give_up_clean(overlay, meta, order[i], ret_why);
		} else if (err == 0 && repaired > 0) {
			(void)snprintf(overlay->repaired,
				       sizeof(overlay->repaired),
				       "%u pages of map%u were being written "
				       "when it ended, and are as before",
				       repaired, order[i]);
		}
	}
	return err;
}

int overlay_flush_active(struct overlay *overlay, char *ret_why)
{
	struct layer *layer = overlay_active(overlay);
	bool told = layer_error(layer) < 0;
	int err = layer_flush(layer);

	if (!told && layer_error(layer) < 0)
		lose(overlay, err);
	return err < 0 ? why(ret_why, err, "cannot make %s durable: %s",
			     overlay->files.folder, strerror(-err)) :
			 0;
}

static int sync_file(struct overlay *overlay, int fd, char *ret_why)
{
	int err;

	while (fdatasync(fd) < 0) {
		if (errno == EINTR)
			continue;
		err = -errno;
		lose(overlay, err);
		return why(ret_why, err, "cannot make %s durable: %s",
			   overlay->files.folder, strerror(-err));
	}
	return 0;
}

/*
 * What was read may be in the page cache only: written by a worker that was killed
 * before its fdatasync.  Nothing may be built on that, and the other copy not be
 * written over, before it is durable.  Meta is written anew then: a failed
 * fdatasync of that worker's would not be told to us.
 */
static int make_durable(struct overlay *overlay, char *ret_why)
{
	struct meta meta = overlay->meta;
	int err;

	err = sync_file(overlay, overlay_active(overlay)->map_fd, ret_why);
	if (err == 0)
		err = overlay_flush_active(overlay, ret_why);
	meta.closed = 0;
	return err < 0 ? err : overlay_store_meta(overlay, &meta, ret_why);
}

static int settle(struct overlay *overlay, struct meta *meta, bool found,
		  char *ret_why)
{
	int err = sync_file(overlay, overlay->files.meta, ret_why);

	if (err == 0)
		err = prepare_slots(overlay, meta, found, ret_why);
	set_meta(overlay, meta);
	if (err == 0)
		err = load_layers(overlay, meta, ret_why);
	return err < 0 ? err : make_durable(overlay, ret_why);
}

int overlay_lock(struct overlay *overlay, struct overlay_facts *facts,
		 bool recover, char *ret_why)
{
	struct meta meta;
	bool found;
	int err =
		files_lock(&overlay->files, overlay->holder, recover, ret_why);

	if (err < 0)
		return err;
	CRASH_POINT(overlay_locked);
	overlay->meta_err = 0;
	overlay->repaired[0] = '\0';
	ret_why[0] = '\0';
	err = overlay_find_meta(overlay, &meta, ret_why);
	found = err == 0;
	if (err == 0)
		err = compare_facts(overlay, &meta, facts, ret_why);
	else if (err == -ENODATA)
		err = make_meta(overlay, &meta, facts, ret_why);
	if (err == 0)
		err = settle(overlay, &meta, found, ret_why);
	if (err < 0) {
		forget_layers(overlay);
		files_unlock(&overlay->files);
		return err;
	}
	if (overlay->sync_err < 0)
		lose(overlay, overlay->sync_err);
	*facts = overlay->facts;
	return 0;
}

int overlay_unlock(struct overlay *overlay, char *ret_why)
{
	struct meta meta = overlay->meta;
	int err = overlay_flush_active(overlay, ret_why);

	if (err == 0) {
		meta.closed = 1;
		err = overlay_store_meta(overlay, &meta, ret_why);
	}
	forget_layers(overlay);
	CRASH_POINT(overlay_closed);
	files_unlock(&overlay->files);
	return err;
}
