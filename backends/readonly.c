/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * readonly.c - a disk that cannot be written to, whatever is below.
 */
#include "config.h"

#include "xendisk-backend.h"

static int readonly_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	struct xd_limits limits = disk->below[0]->limits;

	limits.readonly = true;
	limits.discard_granularity = 0;
	limits.flush = false;
	limits.fua = false;
	limits.zero = false;
	limits.fast_zero = false;
	*ret_limits = limits;
	return 0;
}

static void readonly_close(struct xd_disk *disk)
{
	(void)disk;
}

static void readonly_submit(struct xd_channel *ch, struct xd_request *req)
{
	xd_submit(ch->below[0], req);
}

static int readonly_map(struct xd_channel *ch, struct xd_request *req,
			struct iovec *ret_iov, unsigned int *io_iovcnt)
{
	return xd_map(ch->below[0], req, ret_iov, io_iovcnt);
}

static void readonly_unmap(struct xd_channel *ch, struct xd_request *req,
			   int err)
{
	xd_unmap(ch->below[0], req, err);
}

static int readonly_resize(struct xd_disk *disk, uint64_t size,
			   uint64_t *ret_size)
{
	return xd_resize(disk->below[0], size, ret_size);
}

static const struct xd_param readonly_params[] = {
	{ "disk", XD_DISK, XD_POSITIONAL | XD_REQUIRED | XD_READ_ONLY, NULL,
	  NULL, "the disk to protect" },
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

XD_API const struct xd_backend xendisk_backend_v1 = {
	.size = sizeof(struct xd_backend),
	.version = XD_API_VERSION,
	.name = "readonly",
	.summary = "a disk that cannot be written to",
	.params = readonly_params,
	.flags = XD_ALWAYS_READ_ONLY,
	.open = readonly_open,
	.close = readonly_close,
	.submit = readonly_submit,
	.map = readonly_map,
	.unmap = readonly_unmap,
	.resize = readonly_resize,
	.extents = readonly_submit,
};
