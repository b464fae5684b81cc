/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bus.h - xenstore: which disks should exist?
 */
#ifndef XENDISK_BUS_H
#define XENDISK_BUS_H

#include <stdint.h>

#include "broker/vbd.h"

struct broker;
struct bus;
struct store;

/*
 * Opens xenstore, loads xen-blkback where it can be loaded (it must be there
 * before the first disk, see blkback.h), watches, and looks at what exists
 * already.  Broker thread; hooks itself into the broker's event loop.
 */
int bus_start(struct broker *broker, struct bus **ret);
/* Leaves the disks as they are in xenstore: the next broker takes them up. */
void bus_stop(struct bus *bus);

/* This domain: 0 in dom0, another number in a driver domain. */
uint32_t bus_domid(const struct bus *bus);
/* For single questions; watches are the bus's own. */
struct store *bus_store(struct bus *bus);

/* Every disk, in order of domid and devid; return false to stop.  fn must not
 * make or free disks. */
void bus_each(struct bus *bus, bool (*fn)(void *ctx, struct vbd *vbd),
	      void *ctx);
/* By its number; of several directories, which are of other kinds, the one whose disk
 * is in use. */
struct vbd *bus_find(struct bus *bus, uint32_t domid, uint32_t devid);

/* The disk at that place; known only, or looked for in xenstore as well.
 * -ENOENT: there is no such directory; -ENODEV: it is not for us. */
struct vbd *bus_known(struct bus *bus, const struct node_address *at);
int bus_get(struct bus *bus, const struct node_address *at, struct vbd **ret);

/* For vbd.c: this disk has ended.  Frees it. */
void bus_forget(struct bus *bus, struct vbd *vbd);

#endif
