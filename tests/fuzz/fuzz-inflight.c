/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-inflight.c - an in-flight log that somebody has tampered with.
 *
 * Input: a ring's order, changes to the file's head, and a log.  A head that
 * differs in anything but its notes is refused with a sentence.  A plan that is
 * made gives each request that is taken and not published to exactly one of
 * publish and replay, in the right order; and the log that adopts it makes the
 * same plan again.
 */
#define _GNU_SOURCE
#include "config.h"

#include "hostile-log.h"

#include <sys/mman.h>
#include <unistd.h>

#include "common/util.h"

/* Of the file: what says whose log it is. */
#define IDENTITY_BYTES (16 + sizeof(struct inflight_id))

static const struct inflight_id the_id = {
	.domid = 5,
	.devid = 51728,
	.vm = "uuid",
	.layout = BLKIF_X86_64,
	.nr_rings = 1,
	.ring = { { .event_channel = 3, .nr_refs = 1, .ref = { 8 } } },
	.storage = 77,
};

/* --- The head ------------------------------------------------------------------- */

/* Changes some of its bytes; true: it is another log now. */
static bool change_head(struct input *in, int fd)
{
	uint8_t head[IDENTITY_BYTES + 4], pristine[IDENTITY_BYTES];
	unsigned int changes = input_u8(in) & 3;

	HOLDS(pread(fd, head, sizeof(head), 0) == sizeof(head), "own file");
	memcpy(pristine, head, sizeof(pristine));
	while (changes-- > 0) {
		size_t at = input_u16(in) % sizeof(head);

		head[at] = input_u8(in);
	}
	HOLDS(pwrite(fd, head, sizeof(head), 0) == sizeof(head), "own file");
	return memcmp(head, pristine, sizeof(pristine)) != 0;
}

static struct inflight_image *load(const struct inflight *log,
				   const struct inflight_id *id, bool other)
{
	struct inflight_image *image = NULL;
	char why[MSG_TEXT_MAX] = "";
	int r = inflight_load(log, id, &image, why);

	HOLDS((r != 0) == other, "%d: %s", r, why);
	if (r == 0)
		return image;
	HOLDS(r == -ENOENT || r == -ESTALE || r == -EXDEV || r == -EPROTO,
	      "%d: %s", r, why);
	HOLDS(why[0] != '\0' && strnlen(why, sizeof(why)) < sizeof(why),
	      "a sentence");
	HOLDS(!image, "no image");
	return NULL;
}

/* --- What a plan promises ----------------------------------------------------------- */

enum fate { NOTHING, PUBLISH, REPLAY };

static void check_lists(const struct inflight_entry *entries, uint32_t nr_slots,
			uint32_t rsp_prod, const struct inflight_plan *plan,
			uint8_t *fate)
{
	uint32_t before = 0;

	for (uint32_t i = 0; i < plan->nr_publish; i++) {
		uint16_t n = plan->publish[i];

		HOLDS(n < nr_slots && fate[n] == NOTHING, "entry %u", n);
		fate[n] = PUBLISH;
		HOLDS(entries[n].state == INFLIGHT_RESPONDING, "entry %u", n);
		HOLDS(entries[n].rsp_index == rsp_prod + i,
		      "response %u is where %u should be", entries[n].rsp_index,
		      rsp_prod + i);
	}
	for (uint32_t i = 0; i < plan->nr_replay; i++) {
		uint16_t n = plan->replay[i];
		uint32_t age;

		HOLDS(n < nr_slots && fate[n] == NOTHING, "entry %u", n);
		fate[n] = REPLAY;
		HOLDS(entries[n].state == INFLIGHT_TAKEN, "entry %u", n);
		age = plan->req_cons - entries[n].req_index;
		HOLDS(i == 0 || age < before, "the oldest first, each once");
		before = age;
	}
}

static void check_plan(const struct inflight_image *image, uint32_t nr_slots,
		       uint32_t rsp_prod, const struct inflight_plan *plan)
{
	const struct inflight_entry *entries = image->entries;
	uint32_t told = image->cursor[0].rsp_prod;
	uint8_t fate[INFLIGHT_MAX_SLOTS] = { NOTHING };

	HOLDS(plan->nr_publish + plan->nr_replay == plan->req_cons - rsp_prod,
	      "exactly what is owed");
	HOLDS(plan->nr_publish + plan->nr_replay <= nr_slots,
	      "what the ring holds");
	check_lists(entries, nr_slots, rsp_prod, plan, fate);
	for (uint32_t i = 0; i < nr_slots; i++) {
		const struct inflight_entry *e = &entries[i];
		bool fresh = e->req_index - plan->req_cons < nr_slots;

		HOLDS(e->state <= INFLIGHT_RESPONDING, "entry %u", i);
		if (e->state == INFLIGHT_TAKEN && !fresh)
			HOLDS(fate[i] == REPLAY, "entry %u is lost", i);
		if (e->state == INFLIGHT_RESPONDING &&
		    e->rsp_index - told < nr_slots &&
		    e->rsp_index - told >= rsp_prod - told)
			HOLDS(fate[i] == PUBLISH, "answer %u is lost", i);
	}
}

/* Another death at once after this: nothing is gone, a try is counted. */
static void check_adopted(struct inflight *log, const struct inflight_id *id,
			  const struct inflight_image *image, uint32_t rsp_prod,
			  const struct inflight_plan *plan)
{
	struct inflight_ring ring = inflight_ring(log, 0);
	struct inflight_image *left;
	struct inflight_plan again;

	inflight_adopt(&ring, image->entries, plan, rsp_prod);
	left = load(log, id, false);
	HOLDS(inflight_plan(left->entries, id->nr_slots, left->cursor, rsp_prod,
			    &again) == 0,
	      "what was adopted makes sense");
	HOLDS(memcmp(plan, &again, sizeof(again)) == 0, "the same plan");
	for (uint32_t i = 0; i < plan->nr_replay; i++) {
		uint16_t n = plan->replay[i];
		uint8_t tries = image->entries[n].tries;

		HOLDS(left->entries[n].tries == tries, "tries of entry %u", n);
		HOLDS(memcmp(left->entries[n].slot, image->entries[n].slot,
			     BLKIF_SLOT_MAX) == 0,
		      "the request of entry %u", n);
		HOLDS(inflight_try(&ring, n) == (tries < INFLIGHT_MAX_TRIES),
		      "entry %u after %u tries", n, tries);
		HOLDS(ring.entries[n].tries ==
			      (tries < INFLIGHT_MAX_TRIES ? tries + 1 : tries),
		      "the next try of entry %u", n);
	}
	free(left);
}

/* --- One input ------------------------------------------------------------------------ */

static struct hostile_log hostile;

static void try_log(struct input *in, struct inflight *log, int fd,
		    const struct inflight_id *id)
{
	struct inflight_plan plan;
	struct inflight_image *image;
	bool other = change_head(in, fd);

	hostile_log_read(in, id->nr_slots, &hostile);
	hostile_log_write(fd, id->nr_slots, &hostile);
	image = load(log, id, other);
	if (!image)
		return;
	/* Unused members are compared, too. */
	memset(&plan, 0, sizeof(plan));
	if (inflight_plan(image->entries, id->nr_slots, image->cursor,
			  hostile.rsp_prod, &plan) == 0) {
		check_plan(image, id->nr_slots, hostile.rsp_prod, &plan);
		check_adopted(log, id, image, hostile.rsp_prod, &plan);
	}
	free(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct input in = { data, size };
	struct inflight_id id = the_id;
	struct inflight *log;
	uint32_t zero = 0;

	if (fd < 0) {
		fd = memfd_create("inflight", MFD_CLOEXEC);
		HOLDS(ftruncate(fd, INFLIGHT_BYTES) == 0, "own file");
	}
	id.nr_slots = 32u << input_u8(&in) % 5;
	if (inflight_open(&log, dup(fd)) < 0)
		return 0;
	inflight_start(log, &id, &zero);
	try_log(&in, log, fd, &id);
	inflight_free(log);
	return 0;
}
