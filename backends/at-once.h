/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * at-once.h - what the page cache gives or takes without waiting, on a lane.
 */
#ifndef XENDISK_AT_ONCE_H
#define XENDISK_AT_ONCE_H

#include <stdbool.h>
#include <stddef.h>

struct xd_sys;

/*
 * READV or WRITEV as far as it goes at once; returns the bytes, and 0 when it has to
 * go to xd_sys().  in_memory: the page cache is all there is of the file.  Then
 * there is no need to ask, and tmpfs cannot be asked: it refuses RWF_NOWAIT, and
 * io_uring hands each request to a thread.  *io_may is what the lane knows: whether
 * files of this kind can be asked; nothing is tried when it is false.
 */
size_t at_once(const struct xd_sys *sys, bool in_memory, bool *io_may);

#endif
