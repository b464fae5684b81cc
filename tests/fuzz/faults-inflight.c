/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Plans that are wrong, for fuzz-inflight to find. */
#include "config.h"

#include "fuzz.h"
#include "worker/inflight.h"

enum { LOSE, TWICE, NEWEST_FIRST, ANSWER_ORDER, BELIEVE, NO_TRIES };

const char *const fuzz_faults[] = {
	[LOSE] = "a request that is not replayed is noticed",
	[TWICE] = "an answer given twice is noticed",
	[NEWEST_FIRST] = "a replay in the wrong order is noticed",
	[ANSWER_ORDER] = "answers in the wrong order are noticed",
	[BELIEVE] = "a head that is not checked is noticed",
	[NO_TRIES] = "tries that are not counted are noticed",
	NULL,
};

int __real_inflight_plan(const struct inflight_entry *entries,
			 uint32_t nr_slots,
			 const struct inflight_cursor *cursor,
			 uint32_t rsp_prod, struct inflight_plan *ret);
int __wrap_inflight_plan(const struct inflight_entry *entries,
			 uint32_t nr_slots,
			 const struct inflight_cursor *cursor,
			 uint32_t rsp_prod, struct inflight_plan *ret);
int __real_inflight_load(const struct inflight *log,
			 const struct inflight_id *id,
			 struct inflight_image **ret, char *ret_why);
int __wrap_inflight_load(const struct inflight *log,
			 const struct inflight_id *id,
			 struct inflight_image **ret, char *ret_why);
bool __wrap_inflight_try(struct inflight_ring *log, uint32_t entry);
bool __real_inflight_try(struct inflight_ring *log, uint32_t entry);

static void swap(uint16_t *a, uint16_t *b)
{
	uint16_t old = *a;

	*a = *b;
	*b = old;
}

int __wrap_inflight_plan(const struct inflight_entry *entries,
			 uint32_t nr_slots,
			 const struct inflight_cursor *cursor,
			 uint32_t rsp_prod, struct inflight_plan *ret)
{
	int r = __real_inflight_plan(entries, nr_slots, cursor, rsp_prod, ret);

	if (r < 0)
		return r;
	if (fuzz_fault == LOSE && ret->nr_replay)
		ret->nr_replay--;
	if (fuzz_fault == TWICE && ret->nr_publish > 1)
		ret->publish[1] = ret->publish[0];
	if (fuzz_fault == NEWEST_FIRST && ret->nr_replay > 1)
		swap(&ret->replay[0], &ret->replay[1]);
	if (fuzz_fault == ANSWER_ORDER && ret->nr_publish > 1)
		swap(&ret->publish[0], &ret->publish[1]);
	return 0;
}

/* Believes a log of any version that is meant for this guest. */
int __wrap_inflight_load(const struct inflight *log,
			 const struct inflight_id *id,
			 struct inflight_image **ret, char *ret_why)
{
	int r = __real_inflight_load(log, id, ret, ret_why);

	if (r < 0 && fuzz_fault == BELIEVE) {
		*ret = calloc(1, sizeof(**ret) +
					 id->nr_slots * INFLIGHT_ENTRY_BYTES);
		return 0;
	}
	return r;
}

bool __wrap_inflight_try(struct inflight_ring *log, uint32_t entry)
{
	return fuzz_fault == NO_TRIES || __real_inflight_try(log, entry);
}
