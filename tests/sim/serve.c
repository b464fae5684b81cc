/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The machine's server: what must happen in a process that lives as long as
 * the machine and may open files.  It connects new domains to xenstored, and
 * reaps and rings for processes that have locked themselves down.  The hypervisor itself
 * needs no process (hv.h).
 */
#include "config.h"

#include "serve.h"
#include "storeproxy.h"

#include <errno.h>
#include <stdlib.h>
#include <xenstore.h>

static void introduce(struct hv *hv, struct xs_handle *xs, uint32_t slot,
		      struct storeproxy **proxy)
{
	struct hv_domain *d = hv_domain(hv, slot);
	uint32_t port;

	if (storeproxy_start(hv, slot, proxy, &port) < 0) {
		d->store = HV_STORE_NONE;
		return;
	}
	/* The frame number is for other times: xenstored maps the grant. */
	if (xs_introduce_domain(xs, d->domid, 0, port)) {
		d->store = HV_STORE_READY;
		return;
	}
	storeproxy_stop(*proxy);
	*proxy = NULL;
	d->store = HV_STORE_NONE;
}

int serve(struct hv *hv, struct xs_handle *xs)
{
	struct storeproxy **proxies = calloc(HV_DOMAINS, sizeof(*proxies));

	if (!proxies)
		return -ENOMEM;
	for (;;) {
		uint32_t bell = hv_server_wait(hv);

		hv_reap(hv);
		hv_bell_serve(hv);
		for (uint32_t slot = 0; slot < HV_DOMAINS; slot++) {
			if (proxies[slot] &&
			    !storeproxy_wanted(proxies[slot])) {
				storeproxy_stop(proxies[slot]);
				proxies[slot] = NULL;
			}
			if (hv_domain(hv, slot)->state == HV_DOMAIN_LIVE &&
			    hv_domain(hv, slot)->store == HV_STORE_WANTED)
				introduce(hv, xs, slot, &proxies[slot]);
		}
		hv_server_done(hv, bell);
	}
}
