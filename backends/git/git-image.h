/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-image.h - images that are imported.
 */
#ifndef XENDISK_GIT_IMAGE_H
#define XENDISK_GIT_IMAGE_H

#include <stdint.h>

#include "why.h"

/* A descriptor of its bytes: "raw" as it is, other formats as a copy without a
 * name, in $TMPDIR or /var/tmp.  -EINVAL: there is no such format. */
int image_open(const char *path, const char *format, char *ret_why);
/* Bytes, a multiple of 512 and not 0. */
int image_size(int fd, uint64_t *ret, char *ret_why);

#endif
