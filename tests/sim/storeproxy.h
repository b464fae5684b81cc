/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A domain's xenstore ring, offered as a unix socket: plain libxenstore on
 * that socket has the identity of the domain.
 */
#ifndef XENSIM_STOREPROXY_H
#define XENSIM_STOREPROXY_H

#include "hv.h"

struct storeproxy;

/*
 * Give the domain in `slot` a ring and a port, and a thread that serves
 * DIR/xenstore-DOMID.  What xenstored is told: the port.
 */
int storeproxy_start(struct hv *hv, uint32_t slot,
		     struct storeproxy **ret_proxy, uint32_t *ret_port);
void storeproxy_stop(struct storeproxy *proxy);

/* Does the domain that it was started for still live? */
bool storeproxy_wanted(const struct storeproxy *proxy);

#endif
