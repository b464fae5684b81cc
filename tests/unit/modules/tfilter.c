/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tfilter.c - a filter for tests of the stack: the second disk takes the
 * writes, the first one the reads of odd sectors; each request becomes one
 * child per sector.  fault= breaks the contract in one of many ways.
 */
#include "xendisk-backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LEFT, RIGHT };

struct progress {
	unsigned int pending;
	int err;
	struct iovec *iov; /* one per sector */
};

static struct progress *progress_of(struct xd_request *req)
{
	return (struct progress *)req->scratch;
}

static int tfilter_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	*ret_limits = disk->below[RIGHT]->limits;
	ret_limits->max_channels = 0;
	xd_note(disk, "left %llu bytes",
		(unsigned long long)disk->below[LEFT]->limits.size);
	return 0;
}

static void tfilter_close(struct xd_disk *disk)
{
	(void)disk;
}

static void put(struct xd_request *req, int err)
{
	struct progress *p = progress_of(req);

	if (err && !p->err)
		p->err = err;
	if (--p->pending > 0)
		return;
	free(p->iov);
	xd_complete(req, p->err);
}

static void sector_done(struct xd_request *child, int err)
{
	put(child->owner, err);
}

static void sector(struct xd_channel *ch, struct xd_request *req,
		   struct iovec *iov, uint64_t at)
{
	bool odd = req->op == XD_READ && at / 512 % 2;
	struct xd_request *child = xd_child(ch, req);

	if (!child) {
		put(req, -ENOMEM);
		return;
	}
	child->op = req->op;
	child->offset = at;
	child->length = 512;
	child->iov = iov;
	child->iovcnt = 1;
	child->done = sector_done;
	xd_submit(ch->below[odd ? LEFT : RIGHT], child);
}

/* Breaks the contract: the host is expected to stop us. */
static bool break_contract(struct xd_channel *ch, struct xd_request *req)
{
	const char *fault = xd_arg_string(ch->disk, "fault");

	if (strcmp(fault, "range") == 0)
		req->offset = ch->disk->limits.size;
	else if (strcmp(fault, "alignment") == 0)
		req->offset = 100;
	else if (strcmp(fault, "sum") == 0)
		req->length += 512;
	else if (strcmp(fault, "zero") == 0)
		req->op = XD_ZERO;
	else if (strcmp(fault, "fua") == 0)
		req->flags = XD_FUA;
	else if (strcmp(fault, "twice") == 0)
		xd_complete(req, 0);
	else if (strcmp(fault, "positive") == 0)
		xd_complete(req, EIO);
	else if (strcmp(fault, "sideways") == 0)
		xd_submit(ch, req);
	else if (strcmp(fault, "readonly") == 0)
		xd_submit(ch->below[LEFT], req);
	else
		return false;
	if (strcmp(fault, "sideways") != 0)
		xd_submit(ch->below[RIGHT], req);
	return true;
}

static void tfilter_submit(struct xd_channel *ch, struct xd_request *req)
{
	struct progress *p = progress_of(req);
	unsigned char *data;

	if (break_contract(ch, req))
		return;
	if (req->op != XD_READ && req->op != XD_WRITE) {
		xd_submit(ch->below[RIGHT], req);
		return;
	}
	*p = (struct progress){ .pending = 1 };
	p->iov = calloc(req->length / 512, sizeof(*p->iov));
	data = req->iov[0].iov_base;
	for (uint64_t i = 0; p->iov && i < req->length / 512; i++) {
		p->iov[i] = (struct iovec){ data + i * 512, 512 };
		p->pending++;
		sector(ch, req, &p->iov[i], req->offset + i * 512);
	}
	put(req, 0);
}

static int tfilter_map(struct xd_channel *ch, struct xd_request *req,
		       struct iovec *ret_iov, unsigned int *io_iovcnt)
{
	return xd_map(ch->below[RIGHT], req, ret_iov, io_iovcnt);
}

static void tfilter_unmap(struct xd_channel *ch, struct xd_request *req,
			  int err)
{
	xd_unmap(ch->below[RIGHT], req, err);
}

static const struct xd_param params[] = {
	{ "left", XD_DISK, XD_POSITIONAL | XD_REQUIRED | XD_READ_ONLY, NULL,
	  NULL, "odd sectors are read from it" },
	{ "right", XD_DISK, XD_POSITIONAL | XD_REQUIRED | XD_WRITTEN, NULL,
	  NULL, "takes the writes" },
	{ "fault", XD_ENUM, 0,
	  "none|range|alignment|sum|zero|fua|twice|positive|sideways|readonly",
	  "none", "how it breaks the contract" },
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

const struct xd_backend xendisk_backend_v1 = {
	.size = sizeof(struct xd_backend),
	.version = XD_API_VERSION,
	.name = "tfilter",
	.summary = "a filter for tests",
	.params = params,
	.open = tfilter_open,
	.close = tfilter_close,
	.submit = tfilter_submit,
	.map = tfilter_map,
	.unmap = tfilter_unmap,
};
