/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Grant tables (version 1): entries, pins, mappings.
 */
#include "config.h"

#include "hv.h"

#include <errno.h>
#include <xen/xen.h>
#include <xen/grant_table.h>

/* --- The granting side ------------------------------------------------------ */

static bool set_entry(_Atomic uint64_t *entry, uint64_t expected, uint64_t word)
{
	return atomic_compare_exchange_strong(entry, &expected, word);
}

/* An entry that is free, the table grown by a frame when there is none. */
static int take_free(struct hv_domain *d, uint64_t word, uint32_t *ret_ref)
{
	for (;;) {
		uint32_t n = d->nr_grants, hint = d->grant_hint;

		for (uint32_t k = 0; k < n; k++) {
			uint32_t i = (hint + k) % n;

			if (i < HV_GRANT_FIRST || d->grants[i] ||
			    !set_entry(&d->grants[i], 0, word))
				continue;
			d->grant_hint = i + 1;
			*ret_ref = i;
			return 0;
		}
		if (n >= HV_GRANTS)
			return -ENOSPC;
		d->grant_hint = n;
		atomic_compare_exchange_strong(&d->nr_grants, &n,
					       n + HV_GRANT_FRAME);
	}
}

static int take_chosen(struct hv_domain *d, uint32_t ref, uint64_t word)
{
	uint64_t old;

	if (ref >= HV_GRANTS)
		return -EINVAL;
	while (ref >= d->nr_grants)
		d->nr_grants += HV_GRANT_FRAME;
	do {
		old = d->grants[ref];
		if (old & HV_GRANT_PIN_MASK)
			return -EBUSY;
	} while (!set_entry(&d->grants[ref], old, word));
	return 0;
}

int hv_grant_set(struct hv *hv, uint32_t slot, uint32_t ref, uint32_t domid,
		 uint32_t frame, bool readonly, uint32_t *ret_ref)
{
	struct hv_domain *d = hv_domain(hv, slot);
	uint64_t word = (uint64_t)frame << 32 | HV_GRANT_PERMIT |
			(readonly ? HV_GRANT_READONLY : 0) | (domid & 0xffff);
	int r;

	if (ref == HV_NONE)
		return take_free(d, word, ret_ref);
	r = take_chosen(d, ref, word);
	if (r == 0 && ret_ref)
		*ret_ref = ref;
	return r;
}

int hv_grant_end(struct hv *hv, uint32_t slot, uint32_t ref)
{
	struct hv_domain *d = hv_domain(hv, slot);
	uint64_t old;

	if (ref >= d->nr_grants)
		return -ENOENT;
	do {
		old = d->grants[ref];
		if (!old)
			return -ENOENT;
		if (old & HV_GRANT_PIN_MASK)
			return -EBUSY;
	} while (!set_entry(&d->grants[ref], old, 0));
	d->grant_hint = ref;
	return 0;
}

/* --- The using side ----------------------------------------------------------- */

/* As Xen checks it: which failures are bad_gntref and which general_error. */
static int check_entry(struct hv *hv, uint32_t caller, uint32_t slot,
		       uint32_t ref, bool write, uint64_t *ret_word)
{
	struct hv_domain *d = hv_domain(hv, slot);
	uint64_t word;

	if (ref >= d->nr_grants)
		return GNTST_bad_gntref;
	word = d->grants[ref];
	if (!(word & HV_GRANT_PERMIT) ||
	    HV_GRANT_DOMID(word) != hv_domain(hv, caller)->domid)
		return GNTST_general_error;
	if (write && (word & HV_GRANT_READONLY))
		return GNTST_general_error;
	*ret_word = word;
	return GNTST_okay;
}

static uint32_t granter(struct hv *hv, uint32_t caller, uint32_t domid)
{
	return domid == DOMID_SELF ? caller : hv_domain_find(hv, domid);
}

int hv_grant_lookup(struct hv *hv, uint32_t caller, uint32_t domid,
		    uint32_t ref, bool write, uint32_t *ret_frame)
{
	uint32_t slot = granter(hv, caller, domid);
	uint64_t word;
	int status;

	if (slot == HV_NONE)
		return GNTST_bad_domain;
	status = check_entry(hv, caller, slot, ref, write, &word);
	if (status == GNTST_okay)
		*ret_frame = HV_GRANT_FRAME_OF(word);
	return status;
}

/* Locked. */
static struct hv_mapping *find_free_mapping(struct hv_shared *s,
					    uint32_t *ret_index)
{
	for (uint32_t k = 0; k < HV_MAPPINGS; k++) {
		uint32_t i = (s->next_mapping + k) % HV_MAPPINGS;

		if (s->mappings[i].handle != HV_NONE)
			continue;
		s->next_mapping = i + 1;
		if (i >= s->nr_mappings)
			s->nr_mappings = i + 1;
		*ret_index = i;
		return &s->mappings[i];
	}
	return NULL;
}

/* Locked.  The counts that one mapping stands for. */
static void pin(struct hv *hv, const struct hv_mapping *map)
{
	struct hv_domain *d = hv_domain(hv, map->slot);

	d->grants[map->ref] += HV_GRANT_PIN;
	d->mappings++;
	hv->shared->frames[map->frame].mappings++;
}

/* Locked.  Pin the entry unless the guest changes it under our hands. */
static int map_locked(struct hv_device *dev, uint32_t domid, uint32_t ref,
		      bool write, uint32_t *ret_mapping)
{
	struct hv *hv = dev->hv;
	uint32_t caller = hv_device_handle(dev)->slot;
	uint32_t slot = granter(hv, caller, domid);
	struct hv_mapping *map;
	uint64_t word;
	int status;

	if (slot == HV_NONE)
		return GNTST_bad_domain;
	map = find_free_mapping(hv->shared, ret_mapping);
	if (!map)
		return GNTST_no_device_space;
	do {
		status = check_entry(hv, caller, slot, ref, write, &word);
		if (status != GNTST_okay)
			return status;
	} while (!set_entry(&hv_domain(hv, slot)->grants[ref], word,
			    word + HV_GRANT_PIN));
	*map = (struct hv_mapping){
		.handle = dev->index,
		.slot = slot,
		.ref = ref,
		.frame = HV_GRANT_FRAME_OF(word),
		.notify_offset = HV_NONE,
		.notify_port = HV_NONE,
	};
	hv_domain(hv, slot)->mappings++;
	hv->shared->frames[map->frame].mappings++;
	return GNTST_okay;
}

int hv_grant_map(struct hv_device *dev, uint32_t domid, uint32_t ref,
		 bool write, uint32_t *ret_mapping)
{
	int status;

	hv_lock(dev->hv);
	status = map_locked(dev, domid, ref, write, ret_mapping);
	hv_unlock(dev->hv);
	return status;
}

/* What the owner asked to be done to its page when the map ends. */
static void notify_unmap(struct hv *hv, const struct hv_mapping *map)
{
	const struct hv_handle *h = &hv->shared->handles[map->handle];

	if (map->notify_offset < XENSIM_PAGE_SIZE)
		hv_frame_ptr(hv, map->frame)[map->notify_offset] = 0;
	if (map->notify_port != HV_NONE)
		hv_evtchn_send(hv, h->slot, map->notify_port);
}

/* Locked. */
static void unmap_locked(struct hv *hv, struct hv_mapping *map)
{
	struct hv_domain *d = hv_domain(hv, map->slot);
	struct hv_frame *frame = &hv->shared->frames[map->frame];
	uint32_t slot = map->slot;

	notify_unmap(hv, map);
	map->handle = HV_NONE;
	d->grants[map->ref] -= HV_GRANT_PIN;
	d->mappings--;
	if (--frame->mappings == 0 && frame->freed) {
		frame->freed = 0;
		hv_frames_free(hv, map->frame, 1);
	}
	hv_domain_check_gone(hv, slot);
}

void hv_grant_unmap(struct hv *hv, uint32_t mapping)
{
	hv_lock(hv);
	unmap_locked(hv, &hv->shared->mappings[mapping]);
	hv_unlock(hv);
}

void hv_grant_unmap_all(struct hv *hv, uint32_t handle)
{
	struct hv_shared *s = hv->shared;

	for (uint32_t i = 0; i < s->nr_mappings; i++)
		if (s->mappings[i].handle == handle)
			unmap_locked(hv, &s->mappings[i]);
}

void hv_grant_recount(struct hv *hv)
{
	struct hv_shared *s = hv->shared;

	for (uint32_t i = 0; i < s->header.nr_frames; i++)
		s->frames[i].mappings = 0;
	for (uint32_t i = 0; i < HV_DOMAINS; i++) {
		struct hv_domain *d = &s->domains[i];

		d->mappings = 0;
		for (uint32_t k = 0; k < d->nr_grants; k++)
			d->grants[k] &= ~HV_GRANT_PIN_MASK;
	}
	for (uint32_t i = 0; i < s->nr_mappings; i++)
		if (s->mappings[i].handle != HV_NONE)
			pin(hv, &s->mappings[i]);
}
