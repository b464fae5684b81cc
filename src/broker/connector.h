/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * connector.h - connecting to the servers that expressions name, without
 * blocking the broker.
 *
 * The name of a host is looked up, and a server that does not answer waited
 * for, by a child: this program again, as `xendiskd --connect URI`.  The asker
 * gets one end of a socket pair at once; the child sends what became of it
 * (MSG_REACHED) to the other.  So neither broker nor lane waits.
 */
#ifndef XENDISK_CONNECTOR_H
#define XENDISK_CONNECTOR_H

#include "broker/errand.h"

struct broker;

/*
 * *ret_pending is the asker's end.  A child that is killed, because its time
 * was over or by errand_cancel(), shows there as the end of the connection.
 */
int connector_start(struct errand **ret, struct broker *broker, const char *uri,
		    int *ret_pending,
		    void (*done)(void *ctx, struct errand_result *results),
		    void *ctx);

/* The child: returns its exit status. */
int connector_main(const char *uri);

#endif
