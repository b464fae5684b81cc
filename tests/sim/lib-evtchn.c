/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxenevtchn.so.1 on the simulated machine: what Linux's /dev/xen/evtchn does.
 */
#include "config.h"

#include "hv.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <fcntl.h>
#include <xenevtchn.h>

#define REAP_WAIT_MS 100

struct xenevtchn_handle {
	struct hv_device dev;
	uint32_t slot;
};

static int fail(int error)
{
	errno = error;
	return -1;
}

/* fd < 0: a new device. */
static int handle_init(xenevtchn_handle *xce, int fd)
{
	struct hv *hv;
	int r = hv_open(NULL, &hv);

	if (r < 0)
		return r;
	xce->slot = hv_domain_self(hv);
	if (xce->slot == HV_NONE)
		r = -ENOENT;
	else if (fd < 0)
		r = hv_device_open(hv, HV_EVENTS_FIFO, xce->slot, &xce->dev);
	else
		r = hv_device_adopt(hv, fd, &xce->dev);
	if (r < 0)
		hv_close(hv);
	return r;
}

static xenevtchn_handle *handle_new(int fd)
{
	xenevtchn_handle *xce = calloc(1, sizeof(*xce));
	int r;

	if (!xce)
		return NULL;
	r = handle_init(xce, fd);
	if (r == 0)
		return xce;
	free(xce);
	errno = -r;
	return NULL;
}

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger,
				 unsigned int flags)
{
	xenevtchn_handle *xce;

	(void)logger;
	if (flags & ~(unsigned int)XENEVTCHN_NO_CLOEXEC) {
		errno = EINVAL;
		return NULL;
	}
	xce = handle_new(-1);
	if (xce && (flags & XENEVTCHN_NO_CLOEXEC))
		fcntl(xce->dev.fd, F_SETFD, 0);
	return xce;
}

xenevtchn_handle *xenevtchn_fdopen(struct xentoollog_logger *logger, int fd,
				   unsigned int flags)
{
	(void)logger;
	if (flags || fd < 0) {
		errno = EINVAL;
		return NULL;
	}
	return handle_new(fd);
}

int xenevtchn_close(xenevtchn_handle *xce)
{
	struct hv *hv;

	if (!xce)
		return 0;
	hv = xce->dev.hv;
	hv_device_close(&xce->dev);
	hv_close(hv);
	free(xce);
	return 0;
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
	return xce->dev.fd;
}

/* So that what is sent wakes the guest as cheaply as it can be done. */
static void fetch_bell(struct hv *hv, uint32_t domid)
{
	uint32_t slot = hv_domain_find(hv, domid);

	if (slot != HV_NONE)
		(void)hv_bell_fetch(hv, slot);
}

/* Who restricts itself to a domain has not locked itself down yet. */
int xenevtchn_restrict(xenevtchn_handle *xce, domid_t domid)
{
	struct hv_handle *h = hv_device_handle(&xce->dev);

	if (h->restricted != HV_NONE)
		return fail(EACCES);
	if (domid == 0 || domid >= HV_DOMIDS)
		return fail(EINVAL);
	h->restricted = domid;
	fetch_bell(xce->dev.hv, domid);
	return 0;
}

/* Linux ignores what Xen says to a send: to nobody is fine. */
int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
	struct hv *hv = xce->dev.hv;

	if (!hv_evtchn_owned(&xce->dev, port)) {
		HV_COUNT(hv, refusals, 1);
		return fail(ENOTCONN);
	}
	if (hv_evtchn_send(hv, xce->slot, port) == 0)
		HV_COUNT(hv, events_sent, 1);
	else
		HV_COUNT(hv, events_dropped, 1);
	return 0;
}

static xenevtchn_port_or_error_t port_or_error(xenevtchn_handle *xce, int r,
					       uint32_t port)
{
	if (r == 0)
		return (xenevtchn_port_or_error_t)port;
	HV_COUNT(xce->dev.hv, refusals, 1);
	return fail(-r);
}

xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *xce,
						      uint32_t domid)
{
	uint32_t port = 0;
	int r = hv_evtchn_alloc_unbound(&xce->dev, domid, &port);

	return port_or_error(xce, r, port);
}

/*
 * The port may still look bound to a process that has just died.  This one may
 * be unable to open the file that tells, so the machine's server looks.
 */
xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce,
						     uint32_t domid,
						     evtchn_port_t remote_port)
{
	uint32_t port = 0;
	int r = hv_evtchn_bind_interdomain(&xce->dev, domid, remote_port,
					   &port);

	if (getenv("XENSIM_UNCONFINED"))
		fetch_bell(xce->dev.hv, domid);
	if (r == -EINVAL) {
		hv_server_ask(xce->dev.hv, REAP_WAIT_MS);
		r = hv_evtchn_bind_interdomain(&xce->dev, domid, remote_port,
					       &port);
	}
	return port_or_error(xce, r, port);
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *xce,
					      unsigned int virq)
{
	uint32_t port = 0;
	int r = hv_evtchn_bind_virq(&xce->dev, virq, &port);

	return port_or_error(xce, r, port);
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
	if (!hv_evtchn_owned(&xce->dev, port)) {
		HV_COUNT(xce->dev.hv, refusals, 1);
		return fail(ENOTCONN);
	}
	hv_evtchn_close(xce->dev.hv, xce->slot, port);
	return 0;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
	uint32_t port;

	if (read(xce->dev.fd, &port, sizeof(port)) != sizeof(port))
		return -1;
	return (xenevtchn_port_or_error_t)port;
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
	if (hv_evtchn_owned(&xce->dev, port))
		hv_evtchn_unmask(xce->dev.hv, xce->slot, port);
	return 0;
}
