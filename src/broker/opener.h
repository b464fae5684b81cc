/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opener.h - opening what an expression names, without blocking the broker.
 *
 * Two steps.  When a disk is attached, opener_resolve() finds out once which
 * files its paths mean, and the broker holds them by O_PATH descriptors (these
 * keep no lock and no device busy).  Whatever a worker has opened later is one
 * of those, reopened by opener_reopen(): renaming a path changes nothing.
 */
#ifndef XENDISK_OPENER_H
#define XENDISK_OPENER_H

#include <stdbool.h>
#include <stddef.h>

#include "broker/errand.h"

struct broker;

/*
 * One O_PATH descriptor per path.  With image-roots configured, a path must
 * lie below one of them, also when its symbolic links are followed: -EXDEV.
 */
int opener_resolve(struct errand **ret, struct broker *broker,
		   const char *const *paths, size_t nr_paths,
		   void (*done)(void *ctx, struct errand_result *results),
		   void *ctx);

/* flags of open(2): those that opener_check_flags() lets pass. */
int opener_reopen(struct errand **ret, struct broker *broker, int path_fd,
		  int flags,
		  void (*done)(void *ctx, struct errand_result *results),
		  void *ctx);

/* 0; -EINVAL: a flag that creates, truncates or is unknown; -EROFS: writing,
 * which read_only forbids. */
int opener_check_flags(int flags, bool read_only);

#endif
