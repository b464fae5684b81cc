/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tcp.h - where NBD clients come in by TCP, how their sockets are set, and whether
 * there is somebody at the other end of one.
 */
#ifndef XENDISK_TCP_H
#define XENDISK_TCP_H

#include <netdb.h>

/* A socket that listens at that address (the first of a list), IPv6 only where it
 * is one; flags: SOCK_NONBLOCK or 0.  Owned by the caller; or -errno. */
int tcp_listen(const struct addrinfo *address, int flags);

/* Sets a client's socket so that replies go out at once, and that a client which is
 * gone without a word is noticed after two minutes; not while something is on its
 * way to it, see tcp_look().  Harmless with other sockets, whose peers the kernel
 * knows. */
void tcp_watch_client(int fd);

enum tcp_peer {
	TCP_NONE, /* the socket is none of TCP's */
	TCP_IDLE, /* the peer has all that it was sent */
	TCP_WAITING, /* some is on its way, or waits for the peer to make room */
	TCP_DEAF, /* its host acknowledges nothing, although it is asked to */
};

/* TCP_DEAF: nothing was acknowledged for more than ms.  That is also the answer for
 * a moment after something was sent to a peer which had been sent nothing for that
 * long, until its host has had the time to acknowledge it. */
enum tcp_peer tcp_look(int fd, unsigned int ms);

#endif
