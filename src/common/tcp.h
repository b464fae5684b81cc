/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tcp.h - how the sockets of NBD clients are set.
 */
#ifndef XENDISK_TCP_H
#define XENDISK_TCP_H

/* Replies go out at once, and a client that is gone without a word is noticed after
 * two minutes.  Harmless with other sockets: of those the kernel knows who is
 * there. */
void tcp_watch_client(int fd);

#endif
