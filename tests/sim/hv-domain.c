/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Domains: identity, life and the slow death of one whose pages are mapped.
 */
#include "config.h"

#include "hv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xen/xen.h>

uint32_t hv_domain_find(struct hv *hv, uint32_t domid)
{
	uint32_t slot;

	if (domid >= HV_DOMIDS)
		return HV_NONE;
	slot = hv->shared->slot_of[domid];
	if (!slot || hv_domain(hv, slot - 1)->state != HV_DOMAIN_LIVE)
		return HV_NONE;
	return slot - 1;
}

uint32_t hv_domain_self(struct hv *hv)
{
	const char *s = getenv("XENSIM_DOMID");

	return hv_domain_find(hv, s ? (uint32_t)strtoul(s, NULL, 10) : 0);
}

/* Locked.  As Xen does: the next id that is free, starting after the last. */
static int choose_domid(struct hv_shared *s, uint32_t *domid)
{
	for (uint32_t k = 0; k < HV_DOMIDS; k++) {
		uint32_t id = (s->next_domid + k) % HV_DOMIDS;

		if (id == 0 || s->slot_of[id])
			continue;
		s->next_domid = id + 1;
		*domid = id;
		return 0;
	}
	return -ENOSPC;
}

/* Locked. */
static int create_locked(struct hv *hv, uint32_t domid, const uint8_t uuid[16],
			 uint32_t *ret_slot)
{
	struct hv_shared *s = hv->shared;
	bool choose = domid == 0 && s->slot_of[0];
	struct hv_domain *d;
	uint32_t slot = 0;
	int r;

	if (domid >= HV_DOMIDS)
		return -EINVAL;
	r = choose ? choose_domid(s, &domid) : 0;
	if (r < 0)
		return r;
	if (s->slot_of[domid])
		return -EEXIST;
	while (slot < HV_DOMAINS && s->domains[slot].state != HV_DOMAIN_FREE)
		slot++;
	if (slot == HV_DOMAINS)
		return -ENOSPC;

	d = &s->domains[slot];
	d->domid = domid;
	d->generation = ++s->next_generation;
	d->shutdown = 0;
	d->store = HV_STORE_NONE;
	memcpy(d->uuid, uuid, sizeof(d->uuid));
	d->nr_grants = HV_GRANT_FRAME;
	d->grant_hint = HV_GRANT_FIRST;
	d->nr_ports = 1; /* port 0 is never used */
	d->state = HV_DOMAIN_LIVE;
	s->slot_of[domid] = (uint16_t)(slot + 1);
	if (ret_slot)
		*ret_slot = slot;
	return 0;
}

int hv_domain_create(struct hv *hv, uint32_t domid, const uint8_t uuid[16],
		     uint32_t *ret_slot)
{
	int r;

	hv_reap(hv);
	hv_lock(hv);
	r = create_locked(hv, domid, uuid, ret_slot);
	hv_unlock(hv);
	return r;
}

void hv_domain_check_gone(struct hv *hv, uint32_t slot)
{
	struct hv_domain *d = hv_domain(hv, slot);

	if (d->state != HV_DOMAIN_DYING || d->mappings)
		return;
	for (uint32_t i = 0; i < d->nr_grants; i++)
		d->grants[i] = 0;
	hv->shared->slot_of[d->domid] = 0;
	d->pages = 0;
	d->state = HV_DOMAIN_FREE;
}

/* The guest's own use of its memory does not keep a page; a foreign map does. */
int hv_domain_destroy(struct hv *hv, uint32_t domid)
{
	uint32_t slot;

	if (domid == 0)
		return -EINVAL;
	hv_reap(hv);
	hv_lock(hv);
	slot = hv_domain_find(hv, domid);
	if (slot != HV_NONE) {
		hv_domain(hv, slot)->state = HV_DOMAIN_DYING;
		hv_evtchn_close_domain(hv, slot);
		hv_frames_free_all(hv, slot);
		hv_domain_check_gone(hv, slot);
	}
	hv_unlock(hv);
	if (slot == HV_NONE)
		return -ESRCH;
	hv_evtchn_virq(hv, VIRQ_DOM_EXC);
	hv_server_ring(hv);
	return 0;
}

int hv_domain_shutdown(struct hv *hv, uint32_t domid, unsigned reason)
{
	uint32_t slot;

	hv_lock(hv);
	slot = hv_domain_find(hv, domid);
	if (slot != HV_NONE)
		hv_domain(hv, slot)->shutdown = 1 + reason;
	hv_unlock(hv);
	if (slot == HV_NONE)
		return -ESRCH;
	hv_evtchn_virq(hv, VIRQ_DOM_EXC);
	return 0;
}

/* Locked. */
static void fill_info(struct hv_domain *d, struct xensim_domain_info *info)
{
	*info = (struct xensim_domain_info){
		.domid = d->domid,
		.generation = d->generation,
		.dying = d->state == HV_DOMAIN_DYING,
		.shutdown = d->shutdown != 0,
		.shutdown_reason = d->shutdown ? d->shutdown - 1 : 0,
		.pages = d->pages,
	};
	for (uint32_t i = 0; i < d->nr_grants; i++) {
		info->grants += d->grants[i] != 0;
		info->grants_mapped += HV_GRANT_PINS(d->grants[i]) != 0;
	}
}

int hv_domain_list(struct hv *hv, uint32_t first,
		   struct xensim_domain_info *infos, int max)
{
	struct hv_shared *s = hv->shared;
	int n = 0;

	hv_lock(hv);
	for (uint32_t id = first; id < HV_DOMIDS && n < max; id++)
		if (s->slot_of[id])
			fill_info(hv_domain(hv, s->slot_of[id] - 1u),
				  &infos[n++]);
	hv_unlock(hv);
	return n;
}
