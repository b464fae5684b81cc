/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fds.h - messages with descriptors over Unix sockets: the one place that knows
 * how the kernel wants them (unix(7), SCM_RIGHTS).  What is in a message is its
 * user's business.
 */
#ifndef XENDISK_FDS_H
#define XENDISK_FDS_H

#include <stddef.h>
#include <sys/types.h>

#define FDS_MAX 16u /* descriptors with one message */

/*
 * Sends all of it, by any thread; the descriptors stay the caller's.  flags: of
 * sendmsg(2), beside MSG_NOSIGNAL.  0; -EAGAIN with MSG_DONTWAIT; -ECONNRESET: the
 * peer is gone.
 */
int fds_send(int sock, const void *msg, size_t n, const int *fds,
	     unsigned int nr_fds, int flags);

/*
 * Receives one message of up to size bytes, and up to max (at most FDS_MAX)
 * descriptors, which are the caller's then and close on exec.  flags: of
 * recvmsg(2).  Returns the number of bytes, or -errno, and then leaves no
 * descriptor open; -ECONNRESET: the peer is gone; -EPROTO: the message is larger,
 * or brings more descriptors, or has descriptors but no bytes.
 */
ssize_t fds_receive(int sock, void *buf, size_t size, int *ret_fds,
		    unsigned int max, unsigned int *ret_nr, int flags);
/* Closes those of them that are not -1. */
void fds_close(int *fds, unsigned int nr);

#endif
