/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Modules for test-registry.c: one that works, and ways to be wrong. */
#include <errno.h>
#include <stdlib.h>

#include "xendisk-backend.h"

#ifdef MODULE_CRASH
__attribute__((constructor)) static void crash(void)
{
	abort();
}
#endif

#ifdef MODULE_OLD
#define VERSION 0
#else
#define VERSION XD_API_VERSION
#endif

#ifdef MODULE_UNRESOLVED
void nobody_has_this(void);
#endif

#ifndef MODULE_EMPTY
static int module_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	(void)disk;
	(void)ret_limits;
#ifdef MODULE_UNRESOLVED
	nobody_has_this();
#endif
	return -ENOSYS;
}

static void module_close(struct xd_disk *disk)
{
	(void)disk;
}

static void module_submit(struct xd_channel *ch, struct xd_request *req)
{
	(void)ch;
	(void)req;
}

static const struct xd_param module_params[] = {
	{ .name = "below",
	  .type = XD_DISK,
	  .flags = XD_POSITIONAL | XD_REQUIRED,
	  .help = "the disk" },
	{ .name = "size", .type = XD_SIZE, .preset = "4K", .help = "a size" },
	{ .name = "word", .type = XD_ENUM, .choices = "a|b", .help = "a word" },
	{ .type = XD_END },
};

const struct xd_backend xendisk_backend_v1 = {
	.size = sizeof(struct xd_backend),
	.version = VERSION,
	.name = "good",
	.summary = "a backend for tests",
	.params = module_params,
	.schemes = "good\0goods\0",
	.open = module_open,
	.close = module_close,
	.submit = module_submit,
};
#endif
