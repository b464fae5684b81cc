/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reach.h - a process that connects to one server, for one that is isolated and may
 * not do it again itself.
 *
 * It has the rights that were there when it was made, and no use for anything that it
 * is told: whoever has taken over the other end gets connections to that server, which
 * is what he has anyway.  It ends with its other end.
 */
#ifndef XENDISK_SERVE_REACH_H
#define XENDISK_SERVE_REACH_H

/* Before isolate().  A socket of the caller's for reach_call(), or -errno; uri is
 * known to be one. */
int reach_new(const char *uri);
/* A connection, or -errno and why (MSG_TEXT_MAX bytes). */
int reach_call(int sock, char *ret_why);

#endif
