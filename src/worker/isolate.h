/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * isolate.h - a worker gives up what it does not need.
 */
#ifndef XENDISK_ISOLATE_H
#define XENDISK_ISOLATE_H

#include <stdint.h>

/* Should: be called once, when the devices, the engines and the stack are
 * open and before a guest's memory is touched.  Mustn't: be followed by any
 * open, connect, exec or fork.  uid: 0 leaves the user alone (not root).
 * -errno: the worker must exit. */
int isolate(uint32_t uid, char *ret_why);

#endif
