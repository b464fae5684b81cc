/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tcp.h - where NBD clients come in by TCP, and how their sockets are set.
 */
#ifndef XENDISK_TCP_H
#define XENDISK_TCP_H

#include <netdb.h>

/* A socket that listens at that address (the first of a list), IPv6 only where it
 * is one; flags: SOCK_NONBLOCK or 0.  Owned by the caller; or -errno. */
int tcp_listen(const struct addrinfo *address, int flags);

/* Replies go out at once, and a client that is gone without a word is noticed after
 * two minutes.  Harmless with other sockets: of those the kernel knows who is
 * there. */
void tcp_watch_client(int fd);

#endif
