/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * module.h - backends loaded by name: BACKEND_DIR/NAME.so.
 *
 * A module is loaded when an expression names it and stays until
 * modules_free(): heavy libraries come only into the workers that use them.
 * Main thread, before isolate().
 */
#ifndef XENDISK_MODULE_H
#define XENDISK_MODULE_H

#include "common/expr.h"

struct modules;

/* Borrows dir.  NULL: no memory. */
struct modules *modules_new(const char *dir);
void modules_free(struct modules *modules);

/* NULL: there is none, or it cannot be used; see modules_error(). */
const struct backend_info *modules_info(struct modules *modules,
					const char *name);
/* Of a module that modules_info() has loaded: with the members that its
 * author did not know of yet set to 0. */
const struct xd_backend *modules_backend(const struct modules *modules,
					 const struct backend_info *info);

/* Why the last module that is there could not be used; "" when none was. */
const char *modules_error(const struct modules *modules);

#endif
