/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/fds.h"

#include <assert.h>
#include <string.h>
#include <sys/socket.h>

#include "common/util.h"

union space {
	struct cmsghdr align;
	char buf[CMSG_SPACE(FDS_MAX * sizeof(int))];
};

int fds_send(int sock, const void *msg, size_t n, const int *fds,
	     unsigned int nr_fds, int flags)
{
	union space control = { .buf = { 0 } };
	struct iovec iov = { (void *)(uintptr_t)msg, n };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t sent;

	assert(nr_fds <= FDS_MAX);
	if (nr_fds > 0) {
		struct cmsghdr *cmsg;

		mh.msg_control = control.buf;
		mh.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&mh);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
	}
	do
		sent = sendmsg(sock, &mh, MSG_NOSIGNAL | flags);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == EPIPE ? -ECONNRESET : -errno;
	return 0;
}

/* Counts all that came; those for which there is no room are closed. */
static unsigned int take(struct msghdr *mh, int *ret, unsigned int max)
{
	unsigned int nr = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (nr < max)
				ret[nr] = fd;
			else
				(void)close(fd);
			nr++;
		}
	}
	return nr;
}

void fds_close(int *fds, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++)
		if (fds[i] >= 0)
			(void)close(TAKE_FD(fds[i]));
}

ssize_t fds_receive(int sock, void *buf, size_t size, int *ret_fds,
		    unsigned int max, unsigned int *ret_nr, int flags)
{
	union space control;
	struct iovec iov = { buf, size };
	struct msghdr mh = { .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf) };
	unsigned int nr;
	ssize_t n;

	assert(max <= FDS_MAX);
	do
		n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC | flags);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	nr = take(&mh, ret_fds, max);
	if (n == 0 && nr == 0)
		return -ECONNRESET;
	if (n == 0 || nr > max || mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		fds_close(ret_fds, MIN(nr, max));
		return -EPROTO;
	}
	*ret_nr = nr;
	return n;
}
