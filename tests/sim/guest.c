/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sim.h: the machine and a guest's kernel.  Xenstore is in store.c.
 */
#include "config.h"

#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct xensim_events {
	struct hv_device dev;
	struct xensim_guest *guest;
	struct xensim_events *next;
	int fd; /* of the bridge, or -1 */
	_Atomic bool stop;
	pthread_t bridge;
};

/* --- The machine ------------------------------------------------------------ */

int xensim_open(const char *dir, struct xensim **ret_machine)
{
	struct xensim *m = calloc(1, sizeof(*m));
	int r = m ? hv_open(dir, &m->hv) : -ENOMEM;

	if (r < 0) {
		free(m);
		return r;
	}
	snprintf(m->store_path, sizeof(m->store_path), "%s/xenstored/socket",
		 m->hv->dir);
	*ret_machine = m;
	return 0;
}

void xensim_close(struct xensim *m)
{
	if (!m)
		return;
	hv_close(m->hv);
	free(m);
}

const char *xensim_dir(const struct xensim *m)
{
	return m->hv->dir;
}

void xensim_counters(struct xensim *m, struct xensim_counters *ret_counters)
{
	uint64_t values[sizeof(*ret_counters) / 8];

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		values[i] = m->hv->shared->counters[i];
	memcpy(ret_counters, values, sizeof(values));
}

/* --- Domains ------------------------------------------------------------------ */

int xensim_domain_create_bare(struct xensim *m, uint32_t domid,
			      uint32_t *ret_domid)
{
	uint8_t uuid[16] = { 0 };
	uint32_t slot;
	int r = hv_domain_create(m->hv, domid, uuid, &slot);

	if (r == 0)
		*ret_domid = hv_domain(m->hv, slot)->domid;
	return r;
}

int xensim_domain_destroy(struct xensim *m, uint32_t domid)
{
	return hv_domain_destroy(m->hv, domid);
}

int xensim_domain_shutdown(struct xensim *m, uint32_t domid, unsigned reason)
{
	return hv_domain_shutdown(m->hv, domid, reason);
}

int xensim_domain_list(struct xensim *m, uint32_t first,
		       struct xensim_domain_info *infos, int max)
{
	hv_reap(m->hv);
	return hv_domain_list(m->hv, first, infos, max);
}

int xensim_domain_info(struct xensim *m, uint32_t domid,
		       struct xensim_domain_info *ret_info)
{
	struct xensim_domain_info info;

	if (xensim_domain_list(m, domid, &info, 1) != 1 || info.domid != domid)
		return -ESRCH;
	*ret_info = info;
	return 0;
}

/* --- A guest -------------------------------------------------------------------- */

int xensim_guest_open(struct xensim *m, uint32_t domid,
		      struct xensim_guest **ret_guest)
{
	uint32_t slot = hv_domain_find(m->hv, domid);
	struct xensim_guest *g;

	if (slot == HV_NONE)
		return -ESRCH;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	g->machine = m;
	g->hv = m->hv;
	g->slot = slot;
	g->domid = domid;
	g->generation = hv_domain(m->hv, slot)->generation;
	/* Domain 0 is a guest of its own at times (pygrub), and has no ring. */
	if (domid == 0)
		snprintf(g->store_path, sizeof(g->store_path), "%s",
			 m->store_path);
	else
		snprintf(g->store_path, sizeof(g->store_path), "%s/xenstore-%u",
			 m->hv->dir, domid);
	pthread_mutex_init(&g->lock, NULL);
	*ret_guest = g;
	return 0;
}

void xensim_guest_close(struct xensim_guest *g)
{
	if (!g)
		return;
	while (g->events)
		xensim_events_close(g->events);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

uint32_t xensim_guest_domid(const struct xensim_guest *g)
{
	return g->domid;
}

bool xensim_guest_alive(const struct xensim_guest *g)
{
	const struct hv_domain *d = hv_domain(g->hv, g->slot);

	return d->state == HV_DOMAIN_LIVE && d->generation == g->generation;
}

/* --- Memory ---------------------------------------------------------------------- */

void *xensim_alloc_pages(struct xensim_guest *g, unsigned count)
{
	uint32_t frame;
	int r = -ESRCH;

	hv_lock(g->hv);
	if (xensim_guest_alive(g))
		r = hv_frames_alloc(g->hv, g->slot, count, &frame);
	hv_unlock(g->hv);
	if (r == 0)
		return hv_frame_ptr(g->hv, frame);
	errno = -r;
	return NULL;
}

/* The frame of an address, HV_NONE when it is not this domain's. */
static uint32_t frame_at(struct xensim_guest *g, const void *page)
{
	const uint8_t *p = page;
	size_t frame = (size_t)(p - g->hv->memory) / XENSIM_PAGE_SIZE;

	if (p < g->hv->memory || frame >= g->hv->shared->header.nr_frames)
		return HV_NONE;
	if (g->hv->shared->frames[frame].owner != g->slot + 1)
		return HV_NONE;
	return (uint32_t)frame;
}

void xensim_free_pages(struct xensim_guest *g, void *addr, unsigned count)
{
	uint32_t frame;

	hv_lock(g->hv);
	frame = frame_at(g, addr);
	if (frame != HV_NONE && xensim_guest_alive(g))
		hv_frames_free(g->hv, frame, count);
	hv_unlock(g->hv);
}

/* --- Grants ------------------------------------------------------------------------ */

static int grant(struct xensim_guest *g, uint32_t ref, uint32_t domid,
		 const void *page, bool readonly, uint32_t *ret_ref)
{
	uint32_t frame = frame_at(g, page);

	if (!xensim_guest_alive(g))
		return -ESRCH;
	if (frame == HV_NONE)
		return -EINVAL;
	return hv_grant_set(g->hv, g->slot, ref, domid, frame, readonly,
			    ret_ref);
}

int xensim_grant(struct xensim_guest *g, uint32_t domid, const void *page,
		 bool readonly, uint32_t *ret_ref)
{
	return grant(g, HV_NONE, domid, page, readonly, ret_ref);
}

int xensim_grant_at(struct xensim_guest *g, uint32_t ref, uint32_t domid,
		    const void *page, bool readonly)
{
	if (ref >= HV_GRANTS)
		return -EINVAL;
	return grant(g, ref, domid, page, readonly, NULL);
}

/* A pin may be a dead process's: look only when the answer would be busy. */
int xensim_grant_end(struct xensim_guest *g, uint32_t ref)
{
	int r;

	if (!xensim_guest_alive(g))
		return -ESRCH;
	r = hv_grant_end(g->hv, g->slot, ref);
	if (r != -EBUSY)
		return r;
	hv_reap(g->hv);
	return hv_grant_end(g->hv, g->slot, ref);
}

bool xensim_grant_mapped(struct xensim_guest *g, uint32_t ref)
{
	const struct hv_domain *d = hv_domain(g->hv, g->slot);

	if (ref >= HV_GRANTS || HV_GRANT_PINS(d->grants[ref]) == 0)
		return false;
	hv_reap(g->hv);
	return HV_GRANT_PINS(d->grants[ref]) != 0;
}

unsigned xensim_grants_mapped(struct xensim_guest *g)
{
	const struct hv_domain *d = hv_domain(g->hv, g->slot);
	unsigned n = 0;

	hv_reap(g->hv);
	for (uint32_t i = HV_GRANT_FIRST; i < d->nr_grants; i++)
		n += HV_GRANT_PINS(d->grants[i]) != 0;
	return n;
}

/* --- Event channels ------------------------------------------------------------------ */

int xensim_events_open(struct xensim_guest *g, struct xensim_events **ret_ev)
{
	struct xensim_events *ev;
	int r;

	if (!xensim_guest_alive(g))
		return -ESRCH;
	ev = calloc(1, sizeof(*ev));
	if (!ev)
		return -ENOMEM;
	r = hv_device_open(g->hv, HV_EVENTS_FUTEX, g->slot, &ev->dev);
	if (r < 0) {
		free(ev);
		return r;
	}
	hv_bell_claim(&ev->dev);
	ev->guest = g;
	ev->fd = -1;
	pthread_mutex_lock(&g->lock);
	ev->next = g->events;
	g->events = ev;
	pthread_mutex_unlock(&g->lock);
	*ret_ev = ev;
	return 0;
}

static void stop_bridge(struct xensim_events *ev)
{
	ev->stop = true;
	hv_evtchn_kick(&ev->dev);
	pthread_join(ev->bridge, NULL);
	close(ev->fd);
}

void xensim_events_close(struct xensim_events *ev)
{
	struct xensim_guest *g;
	struct xensim_events **p;

	if (!ev)
		return;
	g = ev->guest;
	pthread_mutex_lock(&g->lock);
	for (p = &g->events; *p != ev;)
		p = &(*p)->next;
	*p = ev->next;
	pthread_mutex_unlock(&g->lock);
	if (ev->fd >= 0)
		stop_bridge(ev);
	hv_device_close(&ev->dev);
	free(ev);
}

int xensim_evtchn_alloc_unbound(struct xensim_events *ev, uint32_t remote_domid,
				uint32_t *ret_port)
{
	return hv_evtchn_alloc_unbound(&ev->dev, remote_domid, ret_port);
}

int xensim_evtchn_bind(struct xensim_events *ev, uint32_t remote_domid,
		       uint32_t remote_port, uint32_t *ret_port)
{
	hv_reap(ev->guest->hv);
	return hv_evtchn_bind_interdomain(&ev->dev, remote_domid, remote_port,
					  ret_port);
}

int xensim_evtchn_send(struct xensim_guest *g, uint32_t port)
{
	int r;

	if (!xensim_guest_alive(g))
		return -ESRCH;
	r = hv_evtchn_send(g->hv, g->slot, port);
	return r < 0 ? r : 0;
}

int xensim_evtchn_close(struct xensim_guest *g, uint32_t port)
{
	if (port == 0 || port >= HV_PORTS ||
	    !hv_domain(g->hv, g->slot)->ports[port].link)
		return -EINVAL;
	hv_evtchn_close(g->hv, g->slot, port);
	return 0;
}

int xensim_events_wait(struct xensim_events *ev, int timeout_ms,
		       uint32_t *ret_port)
{
	uint64_t n;
	int r;

	if (ev->fd >= 0 && read(ev->fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		return -errno;
	while (hv_evtchn_take(&ev->dev, ret_port) < 0) {
		if (timeout_ms == 0)
			return -ETIMEDOUT;
		r = hv_evtchn_sleep(&ev->dev, timeout_ms);
		if (r < 0)
			return r;
	}
	return 0;
}

void xensim_events_kick(struct xensim_events *ev)
{
	hv_evtchn_kick(&ev->dev);
}

/*
 * Every ring of the doorbell becomes one write.  An event that nobody has
 * taken yet does not make the bridge spin: it waits for the next ring.
 */
static void *bridge_main(void *arg)
{
	struct xensim_events *ev = arg;
	const uint64_t one = 1;
	uint32_t seen = 0;

	while (!ev->stop) {
		hv_evtchn_wait_ring(&ev->dev, &seen);
		if (write(ev->fd, &one, sizeof(one)) < 0)
			break;
	}
	return NULL;
}

int xensim_events_fd(struct xensim_events *ev)
{
	int fd, r;

	if (ev->fd >= 0)
		return ev->fd;
	fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	ev->fd = fd;
	r = pthread_create(&ev->bridge, NULL, bridge_main, ev);
	if (r) {
		close(fd);
		ev->fd = -1;
		return -r;
	}
	return fd;
}

/* Locked. */
static void fill_status(struct hv *hv, struct hv_port *p,
			struct xensim_evtchn_status *status)
{
	uint64_t link = p->link;

	*status = (struct xensim_evtchn_status){
		.state = HV_LINK_STATE(link),
		.pending = p->bits & HV_PORT_PENDING,
		.masked = p->bits & HV_PORT_MASKED,
	};
	if (status->state == XENSIM_EVTCHN_UNBOUND)
		status->remote_domid = p->remote_domid;
	if (status->state == XENSIM_EVTCHN_INTERDOMAIN) {
		status->remote_domid = hv_domain(hv, HV_LINK_SLOT(link))->domid;
		status->remote_port = HV_LINK_PORT(link);
	}
}

int xensim_evtchn_status(struct xensim *m, uint32_t domid, uint32_t port,
			 struct xensim_evtchn_status *ret_status)
{
	uint32_t slot;

	if (port == 0 || port >= HV_PORTS)
		return -EINVAL;
	hv_reap(m->hv);
	hv_lock(m->hv);
	slot = hv_domain_find(m->hv, domid);
	if (slot != HV_NONE)
		fill_status(m->hv, &hv_domain(m->hv, slot)->ports[port],
			    ret_status);
	hv_unlock(m->hv);
	return slot == HV_NONE ? -ESRCH : 0;
}
