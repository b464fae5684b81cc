/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * erofs.h - an EROFS file system of a vtree, for guests that know modes, symbolic
 * links and files of any size (Linux 5.4 and later): erofs_ops of layout.h.
 * These are its numbers, for those who read it back.
 */
#ifndef XENDISK_GIT_EROFS_H
#define XENDISK_GIT_EROFS_H

#include "layout.h"

#define EROFS_BLOCK	  4096u
#define EROFS_NAME_BYTES  255u
#define EROFS_LABEL_BYTES 15u /* and a NUL */

/* Linux, fs/erofs/erofs_fs.h; all numbers are little endian. */
#define EROFS_SUPER_AT	   1024u
#define EROFS_SUPER_BYTES  128u
#define EROFS_MAGIC	   0xe0f5e1e2u
#define EROFS_SLOT	   32u /* bytes; inodes are counted in these */
#define EROFS_DIRENT_BYTES 12u

#endif
