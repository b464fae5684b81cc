/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* private.h - a served disk from inside; for disk.c and execute.c. */
#ifndef XENDISK_SERVE_PRIVATE_H
#define XENDISK_SERVE_PRIVATE_H

#include <stdatomic.h>

#include "common/util.h"
#include "serve/disk.h"
#include "worker/disk.h"

struct serve_disk {
	char *name;
	char *canonical;
	char *description; /* for clients */
	struct local_host *host;
	struct services *services;
	struct stack *stack;
	const struct xd_limits *limits;
	struct nbd_export export;
	_Atomic(bool) failed; /* a flush has */
};

struct serve_channel {
	struct serve_disk *disk;
	struct engine *engine;
	struct xd_channel *top;
	unsigned int nr_ops; /* under way */
};

#endif
