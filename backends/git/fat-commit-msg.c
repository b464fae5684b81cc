/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fat-commit.h"

#include <string.h>
#include <sys/socket.h>

#include "common/util.h"

#define NR_FDS 2u /* of a COMMIT */

static size_t length_of(uint16_t type)
{
	switch (type) {
	case FC_OPEN:
		return sizeof(struct fc_open);
	case FC_STAND:
		return sizeof(struct fc_stand);
	case FC_COMMIT:
		return sizeof(struct fc_commit);
	case FC_ANSWER:
		return sizeof(struct fc_answer);
	default:
		return 0;
	}
}

int fc_send(int sock, struct fc_header *msg, enum fc_type type, const int *fds,
	    unsigned int nr_fds)
{
	char room[CMSG_SPACE(NR_FDS * sizeof(int))] = { 0 };
	struct iovec iov = { msg, length_of((uint16_t)type) };
	struct msghdr head = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	*msg = (struct fc_header){ .type = (uint16_t)type,
				   .version = FC_VERSION,
				   .length = (uint32_t)iov.iov_len };
	if (nr_fds > 0) {
		struct cmsghdr *cmsg = (struct cmsghdr *)(void *)room;

		*cmsg = (struct cmsghdr){ CMSG_LEN(nr_fds * sizeof(int)),
					  SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
		head.msg_control = room;
		head.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
	}
	do
		n = sendmsg(sock, &head, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EPIPE ? -ECONNRESET : -errno;
	return 0;
}

/* How many there are; those that have no room are closed. */
static unsigned int take_fds(struct msghdr *head, int ret[NR_FDS])
{
	unsigned int nr = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c;
	     c = CMSG_NXTHDR(head, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (nr < NR_FDS)
				ret[nr] = fd;
			else
				(void)close(fd);
			nr++;
		}
	}
	return nr;
}

#define ENDS(text) (!!memchr(text, '\0', sizeof(text)))

static bool is_sound(const union fc_any *m, size_t n, unsigned int nr_fds)
{
	if (n < sizeof(m->h) || m->h.version != FC_VERSION ||
	    m->h.length != n || length_of(m->h.type) != n ||
	    nr_fds != (m->h.type == FC_COMMIT ? NR_FDS : 0))
		return false;
	switch (m->h.type) {
	case FC_OPEN:
		return ENDS(m->open.branch) && ENDS(m->open.path) &&
		       ENDS(m->open.label);
	case FC_COMMIT:
		return ENDS(m->commit.domain) && ENDS(m->commit.message);
	case FC_ANSWER:
		return m->answer.result <= 0 && ENDS(m->answer.ref) &&
		       ENDS(m->answer.text);
	default:
		return true;
	}
}

int fc_receive(int sock, union fc_any *ret, int ret_fds[2])
{
	char room[CMSG_SPACE(NR_FDS * sizeof(int))] = { 0 };
	struct iovec iov = { ret, sizeof(*ret) };
	struct msghdr head = { .msg_iov = &iov,
			       .msg_iovlen = 1,
			       .msg_control = room,
			       .msg_controllen = sizeof(room) };
	unsigned int nr;
	ssize_t n;

	do
		n = recvmsg(sock, &head, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n == 0 ? -ECONNRESET : -errno;
	ret_fds[0] = ret_fds[1] = -1;
	nr = take_fds(&head, ret_fds);
	if (!(head.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
	    is_sound(ret, (size_t)n, nr))
		return 0;
	for (unsigned int i = 0; i < NR_FDS; i++)
		if (ret_fds[i] >= 0)
			(void)close(ret_fds[i]);
	return -EPROTO;
}
