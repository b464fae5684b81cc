/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * domain.h - which domain is meant, and does it live?
 *
 * domain.c is the only file that uses libxenctrl, whose ABI is bound to one
 * Xen version.
 */
#ifndef XENDISK_DOMAIN_H
#define XENDISK_DOMAIN_H

#include <stdbool.h>
#include <stdint.h>
#include <xenstore.h>

#include "command/command.h"

/* text is an id, a name or a UUID.  Says itself what is wrong. */
enum status domain_find(const struct invocation *call, struct xs_handle *store,
			const char *text, uint32_t *ret_domid);

/* Not one that is dying, either. */
bool domain_lives(uint32_t domid);

#endif
