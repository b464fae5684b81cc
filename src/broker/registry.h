/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * registry.h - which backends exist?
 *
 * The modules BACKEND_DIR/NAME.so, each described by a short-lived child
 * (describe.h): heavy libraries never enter the broker, and a module that
 * crashes or hangs harms nobody.  Built once, when the daemon starts, while it has no
 * threads.
 */
#ifndef XENDISK_REGISTRY_H
#define XENDISK_REGISTRY_H

#include <stddef.h>

#include "common/expr.h"

struct registry;

/* A folder that is not there is -ENOENT; modules that fail are entries with an
 * error.  Waits for the children, up to 10 s each. */
int registry_load(struct registry **ret, const char *backend_dir);
void registry_free(struct registry *registry);

/* NULL when there is none that works. */
const struct backend_info *registry_backend(const struct registry *registry,
					    const char *name);
const struct backend_info *registry_scheme(const struct registry *registry,
					   const char *scheme);

/* Why a backend of that name could not be loaded; NULL: it has been, or there is
 * none. */
const char *registry_error(const struct registry *registry, const char *name);

struct registry_entry {
	const char *name; /* of the file, without .so */
	const struct backend_info *info; /* NULL: error says why */
	const char *error;
};

/* In order of name, the wrapper "disk" at the end; false past that. */
bool registry_entry(const struct registry *registry, size_t i,
		    struct registry_entry *ret);

#endif
