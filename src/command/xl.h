/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xl.h - running xl as a child.
 */
#ifndef XENDISK_XL_H
#define XENDISK_XL_H

#include <stdbool.h>

#include "command/command.h"

/* Is this the domain that xl controls guests from?  (xl can be installed on a
 * machine without Xen.) */
bool xl_is_in_charge(void);

/* Runs it with stdout thrown away; its stderr is ours.  argv ends with NULL.
 * STATUS_FAILED when it fails: it has said why. */
enum status xl_run(const struct invocation *call, const char *const *argv);

#endif
