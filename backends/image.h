/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image.h - disks in formats that qemu-nbd reads and writes: qcow2.c, vhd.c and
 * vmdk.c say which, image.c does what they have in common.
 */
#ifndef XENDISK_IMAGE_H
#define XENDISK_IMAGE_H

#include "nbd.h"

/* Parameters.  What qemu-nbd has in its own memory is lost with it. */
#define IMAGE_PARAMS                                          \
	{                                                     \
		"path", XD_PATH, XD_POSITIONAL | XD_REQUIRED, \
		NULL,	NULL,	 "the image"                  \
	},                                                    \
		NBD_OPTIONS("keep")

/* The command line: the format is never probed, and nothing but this file is
 * opened for it, whatever is written there. */
#define IMAGE_SERVER(driver)                                    \
	"qemu-nbd\0--persistent\0--shared=0\0--discard=unmap\0" \
	"{?readonly}--read-only\0json:{{\"driver\":\"" driver   \
	"\",\"backing\":null,\"file\":{{\"filename\":\"{path}\"}}}}\0"

/* Looks at the image: 0, or -errno and why in ret_why (NBD_WHY_MAX bytes), without
 * the path.  size: of the file or device. */
typedef int (*image_check_fn)(int fd, uint64_t size, char *ret_why);

/* struct xd_backend: open. */
int image_open(struct xd_disk *disk, struct xd_limits *ret_limits,
	       image_check_fn check);

int image_refuse(char *ret_why, const char *why);
uint32_t image_be32(const unsigned char *at);
uint64_t image_be64(const unsigned char *at);
uint64_t image_le64(const unsigned char *at);

#endif
