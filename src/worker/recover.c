/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "worker/recover.h"

#include <string.h>

#include "common/crash.h"
#include "common/log.h"
#include "common/util.h"

void recover_nothing(struct io_disk *disk, struct io_ring **rings,
		     unsigned int nr_rings, const struct inflight_id *id)
{
	uint32_t rsp_prod[XD_MAX_RINGS] = { 0 };

	for (unsigned int i = 0; i < nr_rings; i++)
		rsp_prod[i] = rings[i]->ring.rsp_prod;
	if (inflight_left_failure(disk->log, id))
		flush_recover(disk, INFLIGHT_FLUSH_FAILED);
	inflight_start(disk->log, id, rsp_prod);
	CRASH_POINT(log_started);
	for (unsigned int i = 0; i < nr_rings; i++)
		io_ring_begin(rings[i], inflight_ring(disk->log, i), NULL);
}

/* All plans first: nothing is changed unless all of it can be believed. */
static int make_plans(struct io_ring **rings, unsigned int nr_rings,
		      const struct inflight_image *image,
		      struct inflight_plan **plans, char *ret_why)
{
	for (unsigned int i = 0; i < nr_rings; i++) {
		const struct ring *ring = &rings[i]->ring;
		int r;

		plans[i] = calloc(1, sizeof(*plans[i]));
		if (!plans[i])
			return msg_why(ret_why, -ENOMEM, "no memory");
		r = inflight_plan(image->entries + (size_t)i * ring->nr_slots,
				  ring->nr_slots, &image->cursor[i],
				  ring->rsp_prod, plans[i]);
		if (r)
			return msg_why(ret_why, r,
				       "the in-flight log of ring %u "
				       "contradicts itself or the ring",
				       i);
	}
	return 0;
}

static void follow_plans(struct io_disk *disk, struct io_ring **rings,
			 unsigned int nr_rings,
			 const struct inflight_image *image,
			 struct inflight_plan **plans)
{
	uint32_t replay = 0, publish = 0;

	for (unsigned int i = 0; i < nr_rings; i++) {
		struct inflight_ring log = inflight_ring(disk->log, i);
		const struct ring *ring = &rings[i]->ring;

		inflight_adopt(&log,
			       image->entries + (size_t)i * ring->nr_slots,
			       plans[i], ring->rsp_prod);
		replay += plans[i]->nr_replay;
		publish += plans[i]->nr_publish;
		io_ring_begin(rings[i], log, TAKE_PTR(plans[i]));
	}
	log_disk(disk->who, LOG_LEVEL_INFO,
		 "goes on after a worker died: %u requests in flight, %u "
		 "answers to be published",
		 replay, publish);
	atomic_store(&disk->nr_recovered, replay);
	if (replay)
		io_condition(disk, MSG_RECOVERING, true,
			     "%u requests were in flight when a worker died",
			     replay);
}

/* A log that cannot be believed now will not be believed next time either: the
 * broker must not try again. */
static int hopeless(int r)
{
	return r == -EPROTO ? -ENOTRECOVERABLE : r;
}

int recover(struct io_disk *disk, struct io_ring **rings, unsigned int nr_rings,
	    const struct inflight_id *id, char *ret_why)
{
	struct inflight_plan *plans[XD_MAX_RINGS] = { NULL };
	cleanup_free struct inflight_image *image = NULL;
	int r;

	r = inflight_load(disk->log, id, &image, ret_why);
	if (r == -ENOENT || r == -ESTALE) {
		log_disk(disk->who, LOG_LEVEL_INFO, "%s: a fresh connection",
			 ret_why);
		recover_nothing(disk, rings, nr_rings, id);
		return 0;
	}
	if (r)
		return hopeless(r);
	CRASH_POINT(log_loaded);
	flush_recover(disk, image->notes);
	r = make_plans(rings, nr_rings, image, plans, ret_why);
	CRASH_POINT(plans_made);
	if (!r)
		follow_plans(disk, rings, nr_rings, image, plans);
	CRASH_POINT(log_adopted);
	for (unsigned int i = 0; i < nr_rings; i++)
		free(plans[i]);
	return hopeless(r);
}
