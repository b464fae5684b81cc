/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fake-bus.h - two disks that are made up, in place of xenstore and workers, for
 * tests of the control socket.
 */
#ifndef FAKE_BUS_H
#define FAKE_BUS_H

#include "broker/bus.h"

/* A call of the hotplug script that has not been answered; NULL: none. */
extern vbd_done_fn fake_pending_done;
extern void *fake_pending_ctx;

/* What backends were asked last: the text; the answer is in the fake's hands, by
 * the verb: snapshots of 5/51728 have the number 7, 7/51712 has none. */
extern char fake_asked[MSG_CONTROL_MAX];

#endif
