/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/tcp.h"

#include <linux/tcp.h> /* not netinet/tcp.h: its tcp_info is an old one */
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

#include "common/util.h"

#define BACKLOG 64

int tcp_listen(const struct addrinfo *address, int flags)
{
	cleanup_close int fd = socket(
		address->ai_family, address->ai_socktype | SOCK_CLOEXEC | flags,
		address->ai_protocol);
	int one = 1;

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (address->ai_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one,
				 sizeof(one));
	if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 ||
	    listen(fd, BACKLOG) < 0)
		return -errno;
	return TAKE_FD(fd);
}

void tcp_watch_client(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, 60 },
		{ IPPROTO_TCP, TCP_KEEPINTVL, 15 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 4 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		(void)setsockopt(fd, options[i].level, options[i].name,
				 &options[i].value, sizeof(int));
}

/* Each probe of a window that is closed is answered, where somebody is. */
enum tcp_peer tcp_look(int fd, unsigned int ms)
{
	struct tcp_info info = { 0 }; /* an older kernel fills less of it */
	socklen_t length = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
		return TCP_NONE;
	if ((info.tcpi_unacked > 0 || info.tcpi_probes > 1) &&
	    info.tcpi_last_ack_recv > ms)
		return TCP_DEAF;
	return info.tcpi_unacked > 0 || info.tcpi_notsent_bytes > 0 ?
		       TCP_WAITING :
		       TCP_IDLE;
}
