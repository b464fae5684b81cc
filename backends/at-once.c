/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "at-once.h"

#include <errno.h>
#include <sys/uio.h>

#include "xendisk-backend.h"

size_t at_once(const struct xd_sys *sys, bool in_memory, bool *io_may)
{
	int flags = in_memory ? 0 : RWF_NOWAIT;
	int iovcnt = (int)sys->iovcnt;
	off_t at = (off_t)sys->offset;
	ssize_t n;

	/* RWF_DSYNC waits. */
	if (!*io_may || sys->flags)
		return 0;
	if (sys->op == XD_SYS_READV)
		n = preadv2(sys->fd, sys->iov, iovcnt, at, flags);
	else
		n = pwritev2(sys->fd, sys->iov, iovcnt, at, flags);
	if (n < 0 && errno != EAGAIN && !in_memory)
		*io_may = false;
	return n < 0 ? 0 : (size_t)n;
}
