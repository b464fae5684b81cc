/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vhd.c - the format of Virtual PC, Hyper-V and XenServer; "Virtual Hard Disk Image
 * Format Specification", Microsoft, 2006. */
#include "config.h"

#include <string.h>

#include "common/util.h"
#include "image.h"

#define COOKIE "conectix"

enum { TYPE = 60, FOOTER = 512 };
enum { TYPE_FIXED = 2, TYPE_DYNAMIC = 3, TYPE_DIFFERENCING = 4 };

static const struct xd_param params[] = {
	IMAGE_PARAMS,
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

static bool is_footer(int fd, uint64_t at, unsigned char *footer)
{
	return pread_all(fd, footer, FOOTER, at) == 0 &&
	       memcmp(footer, COOKIE, sizeof(COOKIE) - 1) == 0;
}

/* The footer is at the end; of all but fixed ones a copy is at the begin, and that
 * is the one which qemu-nbd takes first. */
static int check(int fd, uint64_t size, char *ret_why)
{
	unsigned char footer[FOOTER];

	if (size < FOOTER || (!is_footer(fd, 0, footer) &&
			      !is_footer(fd, size - FOOTER, footer)))
		return image_refuse(ret_why, "it is no VHD image");
	switch (image_be32(footer + TYPE)) {
	case TYPE_FIXED:
	case TYPE_DYNAMIC:
		return 0;
	case TYPE_DIFFERENCING:
		return image_refuse(ret_why,
				    "it is a differencing disk, and its parent "
				    "is not opened");
	default:
		return image_refuse(ret_why, "an unknown type of VHD");
	}
}

static int vhd_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	return image_open(disk, ret_limits, check);
}

XD_API const struct xd_backend xendisk_backend_v1 = {
	NBD_MEMBERS,
	.name = "vhd",
	.summary = "a VHD image, by a qemu-nbd of its own",
	.params = params,
	.server = IMAGE_SERVER("vpc"),
	.open = vhd_open,
};
