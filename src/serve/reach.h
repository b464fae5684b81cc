/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reach.h - a process that connects to one server, for one that is isolated and may
 * not do it again itself.
 *
 * It has the rights that its maker had then, and takes nothing from what it is sent but
 * that it shall connect: an attacker who has taken over the other end gets connections
 * to that server, which he has anyway.  It ends when the other end is closed.
 */
#ifndef XENDISK_SERVE_REACH_H
#define XENDISK_SERVE_REACH_H

/* Before isolate().  A socket of the caller's for reach_call(), or -errno; uri is
 * known to be one. */
int reach_new(const char *uri);
/* A connection, or -errno and why (MSG_TEXT_MAX bytes). */
int reach_call(int sock, char *ret_why);

#endif
