/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Event channels.
 *
 * A port's two bits are Xen's: sending sets `pending`; a port that is pending
 * and not masked fires.  To a backend (FIFO) firing masks the port and queues
 * its number, as Linux's evtchn driver does, until the number is written back
 * (unmask).  To a guest (futex) it only sets a bit in the handle and wakes it,
 * out of the futex or the domain's bell (hv-bell.c).
 */
#include "config.h"

#include "hv.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <xen/xen.h>

static struct hv_port *port_of(struct hv *hv, uint32_t slot, uint32_t port)
{
	if (port == 0 || port >= HV_PORTS)
		return NULL;
	return &hv_domain(hv, slot)->ports[port];
}

static long futex(_Atomic uint32_t *word, int op, uint32_t val,
		  const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, val, timeout, NULL, 0);
}

/* --- Delivery: no lock -------------------------------------------------------- */

static void ring_doorbell(struct hv *hv, struct hv_handle *h)
{
	h->doorbell++;
	if (h->waiting)
		futex(&h->doorbell, FUTEX_WAKE, INT_MAX, NULL);
	hv_bell_ring(hv, h);
}

static void fire_futex(struct hv *hv, struct hv_handle *h, uint32_t port)
{
	h->pending[port / 64] |= 1ull << port % 64;
	h->summary[port / 4096] |= 1ull << port / 64 % 64;
	ring_doorbell(hv, h);
}

/* The FIFO holds a port at most once, since firing masks it: it never fills. */
static void fire_fifo(struct hv *hv, struct hv_port *p, uint32_t port)
{
	uint32_t bits = HV_PORT_PENDING;
	int fd;

	if (!atomic_compare_exchange_strong(&p->bits, &bits, HV_PORT_MASKED))
		return;
	fd = hv_writer(hv, p->owner_index, p->owner);
	if (fd < 0 || write(fd, &port, sizeof(port)) != sizeof(port))
		return; /* its reader died: nobody is there to be told */
}

static void fire(struct hv *hv, struct hv_port *p, uint32_t port)
{
	struct hv_handle *h = &hv->shared->handles[p->owner_index];

	if (h->serial != p->owner)
		return;
	if (h->kind == HV_EVENTS_FIFO)
		fire_fifo(hv, p, port);
	else if (h->kind == HV_EVENTS_FUTEX)
		fire_futex(hv, h, port);
}

static void raise_port(struct hv *hv, struct hv_port *p, uint32_t port)
{
	uint32_t old = atomic_fetch_or(&p->bits, HV_PORT_PENDING);

	if (!(old & HV_PORT_PENDING))
		fire(hv, p, port);
}

int hv_evtchn_send(struct hv *hv, uint32_t slot, uint32_t port)
{
	struct hv_port *p = port_of(hv, slot, port);
	uint64_t link = p ? p->link : 0;

	switch (HV_LINK_STATE(link)) {
	case XENSIM_EVTCHN_INTERDOMAIN:
		raise_port(hv,
			   port_of(hv, HV_LINK_SLOT(link), HV_LINK_PORT(link)),
			   HV_LINK_PORT(link));
		return 0;
	case XENSIM_EVTCHN_UNBOUND:
		return 1;
	default:
		return -EINVAL;
	}
}

void hv_evtchn_unmask(struct hv *hv, uint32_t slot, uint32_t port)
{
	struct hv_port *p = port_of(hv, slot, port);

	if (!p)
		return;
	atomic_fetch_and(&p->bits, ~HV_PORT_MASKED);
	if (p->bits & HV_PORT_PENDING)
		fire(hv, p, port);
}

void hv_evtchn_virq(struct hv *hv, uint32_t virq)
{
	uint32_t slot = hv_domain_find(hv, 0);
	uint32_t port = hv_domain(hv, slot)->virqs[virq];

	if (port)
		raise_port(hv, port_of(hv, slot, port), port);
}

/* --- Binding and closing: under the lock ---------------------------------------- */

/* Locked.  A free port, bound to the device but linked to nothing yet. */
static int take_port(struct hv_device *dev, uint32_t *ret_port)
{
	uint32_t slot = hv_device_handle(dev)->slot;
	struct hv_domain *d = hv_domain(dev->hv, slot);

	if (d->state != HV_DOMAIN_LIVE ||
	    d->generation != hv_device_handle(dev)->generation)
		return -ESRCH;
	for (uint32_t i = 1; i < HV_PORTS; i++) {
		if (d->ports[i].link)
			continue;
		if (i >= d->nr_ports)
			d->nr_ports = i + 1;
		d->ports[i].bits = 0;
		d->ports[i].owner = dev->serial;
		d->ports[i].owner_index = dev->index;
		*ret_port = i;
		return 0;
	}
	return -ENOSPC;
}

static uint32_t resolve(struct hv_device *dev, uint32_t domid)
{
	return domid == DOMID_SELF ? hv_device_handle(dev)->slot :
				     hv_domain_find(dev->hv, domid);
}

static bool allowed(struct hv_device *dev, uint32_t domid)
{
	uint32_t restricted = hv_device_handle(dev)->restricted;

	return restricted == HV_NONE || restricted == domid;
}

int hv_evtchn_alloc_unbound(struct hv_device *dev, uint32_t remote_domid,
			    uint32_t *ret_port)
{
	struct hv *hv = dev->hv;
	struct hv_port *p;
	uint32_t port, slot;
	int r;

	if (!allowed(dev, remote_domid))
		return -EACCES;
	hv_lock(hv);
	r = take_port(dev, &port);
	if (r == 0) {
		slot = hv_device_handle(dev)->slot;
		p = port_of(hv, slot, port);
		p->remote_domid = remote_domid == DOMID_SELF ?
					  hv_domain(hv, slot)->domid :
					  remote_domid;
		p->link = HV_LINK(XENSIM_EVTCHN_UNBOUND, 0, 0);
		*ret_port = port;
	}
	hv_unlock(hv);
	return r;
}

/* Locked. */
static int bind_locked(struct hv_device *dev, uint32_t remote_domid,
		       uint32_t remote_port, uint32_t *ret_port)
{
	uint32_t slot = hv_device_handle(dev)->slot;
	uint32_t remote_slot = resolve(dev, remote_domid);
	struct hv_port *remote;
	int r;

	if (remote_slot == HV_NONE)
		return -ESRCH;
	remote = port_of(dev->hv, remote_slot, remote_port);
	if (!remote || HV_LINK_STATE(remote->link) != XENSIM_EVTCHN_UNBOUND ||
	    remote->remote_domid != hv_domain(dev->hv, slot)->domid)
		return -EINVAL;
	r = take_port(dev, ret_port);
	if (r < 0)
		return r;
	port_of(dev->hv, slot, *ret_port)->link =
		HV_LINK(XENSIM_EVTCHN_INTERDOMAIN, remote_slot, remote_port);
	remote->link = HV_LINK(XENSIM_EVTCHN_INTERDOMAIN, slot, *ret_port);
	/* The hypervisor cannot be killed between the bit and the wake-up. */
	if (remote->bits & HV_PORT_PENDING)
		fire(dev->hv, remote, remote_port);
	return 0;
}

/* The new port is pending at once: something may have been sent before. */
int hv_evtchn_bind_interdomain(struct hv_device *dev, uint32_t remote_domid,
			       uint32_t remote_port, uint32_t *ret_port)
{
	struct hv *hv = dev->hv;
	uint32_t port;
	int r;

	if (!allowed(dev, remote_domid))
		return -EACCES;
	hv_lock(hv);
	r = bind_locked(dev, remote_domid, remote_port, &port);
	hv_unlock(hv);
	if (r < 0)
		return r;
	raise_port(hv, port_of(hv, hv_device_handle(dev)->slot, port), port);
	*ret_port = port;
	return 0;
}

int hv_evtchn_bind_virq(struct hv_device *dev, uint32_t virq,
			uint32_t *ret_port)
{
	struct hv *hv = dev->hv;
	uint32_t slot = hv_device_handle(dev)->slot, port;
	int r;

	if (virq >= HV_VIRQS)
		return -EINVAL;
	if (!allowed(dev, HV_NONE))
		return -EACCES;
	hv_lock(hv);
	r = hv_domain(hv, slot)->virqs[virq] ? -EEXIST : take_port(dev, &port);
	if (r == 0) {
		port_of(hv, slot, port)->virq = virq;
		port_of(hv, slot, port)->link =
			HV_LINK(XENSIM_EVTCHN_VIRQ, 0, 0);
		hv_domain(hv, slot)->virqs[virq] = port;
		*ret_port = port;
	}
	hv_unlock(hv);
	return r;
}

bool hv_evtchn_owned(const struct hv_device *dev, uint32_t port)
{
	struct hv_port *p = port_of(dev->hv, hv_device_handle(dev)->slot, port);

	return p && p->link && p->owner == dev->serial;
}

/* Locked.  The other end may be bound again, by this domain. */
static void close_locked(struct hv *hv, uint32_t slot, uint32_t port)
{
	struct hv_port *p = port_of(hv, slot, port), *peer;
	uint64_t link = p ? p->link : 0;

	switch (HV_LINK_STATE(link)) {
	case XENSIM_EVTCHN_INTERDOMAIN:
		peer = port_of(hv, HV_LINK_SLOT(link), HV_LINK_PORT(link));
		peer->remote_domid = hv_domain(hv, slot)->domid;
		peer->link = HV_LINK(XENSIM_EVTCHN_UNBOUND, 0, 0);
		break;
	case XENSIM_EVTCHN_VIRQ:
		hv_domain(hv, slot)->virqs[p->virq] = 0;
		break;
	case XENSIM_EVTCHN_UNBOUND:
		break;
	case XENSIM_EVTCHN_FREE:
		return;
	}
	p->owner = 0;
	p->bits = 0;
	p->link = 0;
}

void hv_evtchn_close(struct hv *hv, uint32_t slot, uint32_t port)
{
	hv_lock(hv);
	close_locked(hv, slot, port);
	hv_unlock(hv);
}

void hv_evtchn_close_handle(struct hv *hv, uint32_t handle)
{
	struct hv_handle *h = &hv->shared->handles[handle];
	struct hv_domain *d = hv_domain(hv, h->slot);

	for (uint32_t i = 1; i < d->nr_ports; i++)
		if (d->ports[i].owner == h->serial)
			close_locked(hv, h->slot, i);
}

void hv_evtchn_close_domain(struct hv *hv, uint32_t slot)
{
	for (uint32_t i = 1; i < hv_domain(hv, slot)->nr_ports; i++)
		close_locked(hv, slot, i);
}

/* --- The guest's end -------------------------------------------------------------- */

/* Take the lowest bit of one word, keeping the summary above it true. */
static void take_bit(struct hv_handle *h, uint32_t word, uint32_t *ret_port)
{
	uint64_t bits = h->pending[word];
	uint64_t above = 1ull << word % 64;
	uint32_t bit;

	if (bits) {
		bit = (uint32_t)__builtin_ctzll(bits);
		h->pending[word] &= ~(1ull << bit);
		bits = h->pending[word];
		*ret_port = word * 64 + bit;
	}
	if (!bits) {
		h->summary[word / 64] &= ~above;
		if (h->pending[word])
			h->summary[word / 64] |= above;
	}
}

int hv_evtchn_take(struct hv_device *dev, uint32_t *ret_port)
{
	struct hv_handle *h = hv_device_handle(dev);
	struct hv_port *p;

	for (uint32_t i = 0; i < HV_PORTS / 4096; i++) {
		uint64_t summary;

		while ((summary = h->summary[i])) {
			uint32_t port = 0;

			take_bit(h, i * 64 + (uint32_t)__builtin_ctzll(summary),
				 &port);
			p = port_of(dev->hv, h->slot, port);
			if (!p || p->owner != dev->serial)
				continue;
			atomic_fetch_and(&p->bits, ~HV_PORT_PENDING);
			*ret_port = port;
			return 0;
		}
	}
	return -EAGAIN;
}

static bool anything(struct hv_handle *h)
{
	for (uint32_t i = 0; i < HV_PORTS / 4096; i++)
		if (h->summary[i])
			return true;
	return false;
}

static int futex_sleep(struct hv_handle *h, int timeout_ms)
{
	struct timespec timeout = { .tv_sec = timeout_ms / 1000,
				    .tv_nsec = timeout_ms % 1000 * 1000000L };
	uint32_t seen;
	long r = 0;

	h->waiting++;
	seen = h->doorbell;
	if (!h->kicked && !anything(h))
		r = futex(&h->doorbell, FUTEX_WAIT, seen,
			  timeout_ms < 0 ? NULL : &timeout);
	r = r < 0 && errno != EAGAIN ? -errno : 0;
	h->waiting--;
	return (int)r;
}

int hv_evtchn_sleep(struct hv_device *dev, int timeout_ms)
{
	struct hv_handle *h = hv_device_handle(dev);
	int r = 0;

	if (hv_bell_listen(dev)) {
		if (!h->kicked && !anything(h))
			r = hv_bell_sleep(dev, timeout_ms);
		hv_bell_rest(dev);
	} else {
		r = futex_sleep(h, timeout_ms);
	}
	if (atomic_exchange(&h->kicked, 0))
		return -EINTR;
	return r;
}

void hv_evtchn_kick(struct hv_device *dev)
{
	struct hv_handle *h = hv_device_handle(dev);

	h->kicked = 1;
	ring_doorbell(dev->hv, h);
}

void hv_evtchn_wait_ring(struct hv_device *dev, uint32_t *seen)
{
	struct hv_handle *h = hv_device_handle(dev);

	h->waiting++;
	while (h->doorbell == *seen)
		futex(&h->doorbell, FUTEX_WAIT, *seen, NULL);
	h->waiting--;
	*seen = h->doorbell;
}
