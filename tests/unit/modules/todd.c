/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * todd.c - modules that are not what the host expects; TODD says how.
 */
#include "xendisk-backend.h"

#include <stddef.h>

#define TODD_OLD     1 /* fewer members than today: may be used */
#define TODD_VERSION 2
#define TODD_SMALL   3 /* fewer members than version 1 ever had */
#define TODD_NAME    4
#define TODD_MAP     5 /* map() without unmap() */
#define TODD_RESIZED 8 /* resized() without resize() */
#define TODD_BEFORE  9 /* made before there was a resize(); it has the rest */

/* Nothing of it may be called when the module is old and so says it is not
 * there. */
static int todd_activate(struct xd_disk *disk, bool recover)
{
	(void)disk;
	(void)recover;
	return 0;
}

static int todd_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	(void)disk;
	ret_limits->size = 4096;
	ret_limits->sector_size = 512;
	return 0;
}

static void todd_close(struct xd_disk *disk)
{
	(void)disk;
}

static void todd_submit(struct xd_channel *ch, struct xd_request *req)
{
	(void)ch;
	xd_complete(req, 0);
}

static __attribute__((unused)) void trap(struct xd_channel *ch)
{
	(void)ch;
	__builtin_trap();
}

static __attribute__((unused)) int
trap_resize(struct xd_disk *disk, uint64_t size, uint64_t *ret_size)
{
	(void)disk;
	(void)size;
	(void)ret_size;
	__builtin_trap();
}

static void trap_resized(struct xd_disk *disk)
{
	(void)disk;
	__builtin_trap();
}

#if TODD == TODD_MAP
static int todd_map(struct xd_channel *ch, struct xd_request *req,
		    struct iovec *ret_iov, unsigned int *io_iovcnt)
{
	(void)ch;
	(void)req;
	(void)ret_iov;
	(void)io_iovcnt;
	return 0;
}
#endif

static const struct xd_param params[] = {
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

const struct xd_backend xendisk_backend_v1 = {
#if TODD == TODD_OLD
	.size = offsetof(struct xd_backend, kick),
#elif TODD == TODD_BEFORE
	.size = offsetof(struct xd_backend, resize),
#elif TODD == TODD_SMALL
	.size = offsetof(struct xd_backend, submit),
#else
	.size = sizeof(struct xd_backend),
#endif
	.version = TODD == TODD_VERSION ? XD_API_VERSION + 1 : XD_API_VERSION,
	.name = TODD == TODD_NAME ? "another" : TODD_FILE,
	.summary = "an odd one",
	.params = params,
	.open = todd_open,
	.close = todd_close,
	.activate = todd_activate,
	.submit = todd_submit,
#if TODD != TODD_BEFORE
	.kick = trap,
#endif
#if TODD != TODD_RESIZED
	.resize = trap_resize,
#endif
	.resized = trap_resized,
#if TODD == TODD_MAP
	.map = todd_map,
#endif
};
