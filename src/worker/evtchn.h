/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * evtchn.h - which guest rang?
 *
 * A lane has a handle of its own, since two threads must not consume one
 * port.  Opened by the main thread before isolate() and bound while the lane
 * does not run; the rest is the lane's.
 */
#ifndef XENDISK_EVTCHN_H
#define XENDISK_EVTCHN_H

#include <stdint.h>

struct evtchn;

/* Only good for ports of that domain, as far as the kernel can see to that. */
int evtchn_open(struct evtchn **ret, uint32_t domid);
void evtchn_close(struct evtchn *evtchn);

/* Readable when a port has fired. */
int evtchn_fd(const struct evtchn *evtchn);

/* -EINVAL: the guest does not hold that port for us; -ESRCH: there is no such
 * domain. */
int evtchn_bind(struct evtchn *evtchn, uint32_t remote_port,
		uint32_t *ret_port);
void evtchn_unbind(struct evtchn *evtchn, uint32_t port);

/* The next port that has fired; it stays masked until evtchn_unmask().
 * -EAGAIN: none. */
int evtchn_take(struct evtchn *evtchn, uint32_t *ret_port);
/* -ENOMEM: not now; the port stays masked. */
int evtchn_unmask(struct evtchn *evtchn, uint32_t port);
void evtchn_notify(struct evtchn *evtchn, uint32_t port);

#endif
