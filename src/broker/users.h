/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * users.h - the user ids that the broker gives to processes, by number.
 *
 * With root's rights each worker and each child server has one of its own, from
 * its start until it is dead, so that none can trace or signal another.  Broker
 * thread only.
 */
#ifndef XENDISK_USERS_H
#define XENDISK_USERS_H

#include <stdbool.h>
#include <stdint.h>

/* -EUSERS: all are taken. */
int users_take(unsigned int *ret_slot);
/* A certain one; false: it is not free, or there is no such number. */
bool users_claim(unsigned int slot);
void users_free(unsigned int slot);

/* 0: ours, which cannot be changed. */
uint32_t users_uid(unsigned int slot);
/* That of all processes in front of exports (front.h), which end after the broker
 * that started them, when the next one has given out all others. */
uint32_t users_front(void);

#endif
