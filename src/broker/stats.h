/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stats.h - a disk's counters as the control socket shows them.
 */
#ifndef XENDISK_BROKER_STATS_H
#define XENDISK_BROKER_STATS_H

#include <jansson.h>

struct broker;
struct vbd;

/* The type DiskStats of io.xendisk.varlink, a new reference; no queues before
 * the first connection.  -EPROTO: what the worker left is not understood. */
int stats_view(struct broker *broker, const struct vbd *vbd, json_t **ret);

#endif
