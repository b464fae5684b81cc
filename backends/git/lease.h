/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lease.h - which repository may push a disk.
 *
 * A blob that refs/xendisk/lease/DISK of the common remote leads to, as text:
 *
 *     xendisk-lease 1
 *     holder 3f6a0c2d9b1e4f57
 *     host dom0-a
 *     sequence 17
 *     expires 1764100612
 *
 * The holder is a repository, by a number of its own; the host is for people.  The
 * server's compare and swap of that reference is what decides; the text says only
 * whether to try.
 */
#ifndef XENDISK_GIT_LEASE_H
#define XENDISK_GIT_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pins.h"

#define REFS_LEASE   "refs/xendisk/lease/"
#define LEASE_HOLDER 17u /* 16 hexadecimal digits and a NUL */
#define LEASE_TEXT   256u /* with a NUL; longer ones are refused */

struct lease {
	char holder[LEASE_HOLDER];
	char host[PIN_HOST_MAX];
	uint64_t sequence; /* goes up with each push */
	uint64_t expires; /* Unix; 0: it has been given up */
};

bool lease_is_holder(const char *text);
/* -EBADMSG: it is none. */
int lease_parse(const char *text, size_t n, struct lease *ret);
/* Returns the bytes, without the NUL. */
size_t lease_print(const struct lease *lease, char ret[LEASE_TEXT]);

#endif
