/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * isolate.h - a worker gives up what it does not need.
 */
#ifndef XENDISK_ISOLATE_H
#define XENDISK_ISOLATE_H

#include <stdint.h>

/* Main thread, once, when the devices, the engines and the stack are open and
 * before a guest's memory is touched.  No open, connect, exec or fork works
 * afterwards.  uid: the user to become; 0: keep the present one.  On -errno the
 * worker must exit; ret_why (MSG_TEXT_MAX bytes) says why. */
int isolate(uint32_t uid, char *ret_why);

#endif
