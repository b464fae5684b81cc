/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * evtchn.c - the kernel's queue of ports that have fired.
 *
 * It is as long as the bound ports need (64 at least), since a port that has fired
 * stays masked until it is written back.  But a port that is unbound leaves its entry
 * there.  A guest that connects and goes, again and again, before anybody reads would
 * fill the queue, and a queue that has overflown is no use any more: it can always be
 * polled and never be read.  So with the last port goes what is left in it.
 */
#include "worker/evtchn.h"

#include <fcntl.h>

#include <xenevtchn.h>

#include "common/util.h"

struct evtchn {
	xenevtchn_handle *handle;
	uint32_t domid;
	unsigned int bound; /* ports */
};

int evtchn_open(struct evtchn **ret, uint32_t domid)
{
	struct evtchn *evtchn = calloc(1, sizeof(*evtchn));
	int fd, flags, r;

	if (!evtchn)
		return -ENOMEM;
	evtchn->domid = domid;
	evtchn->handle = xenevtchn_open(NULL, 0);
	if (!evtchn->handle) {
		r = errno ? -errno : -ENODEV;
		free(evtchn);
		return r;
	}
	/* A second fence behind isolate(); a kernel without it has the first
	 * one. */
	(void)xenevtchn_restrict(evtchn->handle, (domid_t)domid);
	/* So that an event which went away cannot make a lane sleep. */
	fd = xenevtchn_fd(evtchn->handle);
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		r = -errno;
		evtchn_close(evtchn);
		return r;
	}
	*ret = evtchn;
	return 0;
}

void evtchn_close(struct evtchn *evtchn)
{
	if (!evtchn)
		return;
	(void)xenevtchn_close(evtchn->handle);
	free(evtchn);
}

int evtchn_fd(const struct evtchn *evtchn)
{
	return xenevtchn_fd(evtchn->handle);
}

int evtchn_bind(struct evtchn *evtchn, uint32_t remote_port, uint32_t *ret_port)
{
	xenevtchn_port_or_error_t port = xenevtchn_bind_interdomain(
		evtchn->handle, evtchn->domid, remote_port);

	if (port < 0)
		return -errno;
	evtchn->bound++;
	*ret_port = (uint32_t)port;
	return 0;
}

void evtchn_unbind(struct evtchn *evtchn, uint32_t port)
{
	uint32_t gone;

	(void)xenevtchn_unbind(evtchn->handle, port);
	if (--evtchn->bound > 0)
		return;
	while (evtchn_take(evtchn, &gone) == 0)
		;
}

int evtchn_take(struct evtchn *evtchn, uint32_t *ret_port)
{
	xenevtchn_port_or_error_t port = xenevtchn_pending(evtchn->handle);

	if (port < 0)
		return -errno;
	*ret_port = (uint32_t)port;
	return 0;
}

/* A write(), for which the kernel takes a page. */
int evtchn_unmask(struct evtchn *evtchn, uint32_t port)
{
	int r;

	do
		r = xenevtchn_unmask(evtchn->handle, port);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/* What else fails is a guest that has gone. */
void evtchn_notify(struct evtchn *evtchn, uint32_t port)
{
	int r;

	do
		r = xenevtchn_notify(evtchn->handle, port);
	while (r < 0 && errno == EINTR);
}
