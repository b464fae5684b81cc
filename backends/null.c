/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * null.c - answers everything and stores nothing: what is left is the cost of
 * the protocol.
 *
 * Reads are zeroes, never what happened to lie in a buffer: that might be
 * another guest's.  Memory is lent where the host asks for it: the kernel's
 * zero page for reads, a small area per lane that nobody reads for writes.
 */
#include "config.h"

#include <string.h>
#include <sys/mman.h>

#include "common/util.h"
#include "xendisk-backend.h"

/* Lent over and over to fill a request; small enough to stay in the cache. */
#define LOAN (64u << 10)

static int null_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	uint64_t size = xd_arg_u64(disk, "size");
	void *zeroes;

	if (size == 0) {
		xd_error(disk, "the size is 0");
		return -EINVAL;
	}
	zeroes =
		mmap(NULL, LOAN, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (zeroes == MAP_FAILED)
		return -errno;
	disk->data = zeroes;
	*ret_limits = (struct xd_limits){
		.size = size,
		.sector_size = 512,
		.physical_sector_size = 512,
		.discard_granularity = 512,
		.memory_alignment = 1,
		.fua = true,
		.zero = true,
		.fast_zero = true,
		.is_volatile = true,
	};
	return 0;
}

static void null_close(struct xd_disk *disk)
{
	(void)munmap(disk->data, LOAN);
}

static int null_channel_open(struct xd_channel *ch)
{
	ch->data = malloc(LOAN);
	return ch->data ? 0 : -ENOMEM;
}

static void null_channel_close(struct xd_channel *ch)
{
	free(ch->data);
}

static void null_submit(struct xd_channel *ch, struct xd_request *req)
{
	(void)ch;
	if (req->op == XD_READ)
		for (unsigned int i = 0; i < req->iovcnt; i++)
			memset(req->iov[i].iov_base, 0, req->iov[i].iov_len);
	xd_complete(req, 0);
}

static int null_map(struct xd_channel *ch, struct xd_request *req,
		    struct iovec *ret_iov, unsigned int *io_iovcnt)
{
	void *loan = req->op == XD_READ ? ch->disk->data : ch->data;
	unsigned int n = DIV_ROUND_UP(req->length, LOAN);

	if (n > *io_iovcnt)
		return -EOPNOTSUPP;
	for (unsigned int i = 0; i < n; i++)
		ret_iov[i] = (struct iovec){ loan, LOAN };
	ret_iov[n - 1].iov_len = req->length - (uint64_t)(n - 1) * LOAN;
	*io_iovcnt = n;
	return 0;
}

static void null_unmap(struct xd_channel *ch, struct xd_request *req, int err)
{
	(void)ch, (void)req, (void)err;
}

static void null_extents(struct xd_channel *ch, struct xd_request *req)
{
	(void)ch;
	(void)xd_extent(req, req->length, XD_EXTENT_HOLE | XD_EXTENT_ZERO);
	xd_complete(req, 0);
}

static const struct xd_param null_params[] = {
	{ "size", XD_SIZE, XD_POSITIONAL | XD_WHOLE_SECTORS, NULL, "1G",
	  "size of the disk" },
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

XD_API const struct xd_backend xendisk_backend_v1 = {
	.size = sizeof(struct xd_backend),
	.version = XD_API_VERSION,
	.name = "null",
	.summary = "answers everything and stores nothing",
	.params = null_params,
	.open = null_open,
	.close = null_close,
	.channel_open = null_channel_open,
	.channel_close = null_channel_close,
	.submit = null_submit,
	.map = null_map,
	.unmap = null_unmap,
	.extents = null_extents,
};
