/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2.c - QEMU's format; docs/interop/qcow2.txt in QEMU's sources. */
#include "config.h"

#include <string.h>

#include "common/util.h"
#include "image.h"

#define MAGIC	      0x514649fbu
#define EXTERNAL_DATA (1u << 2) /* of the incompatible features */

/* Where things are in the header; all are big-endian. */
enum { AT_VERSION = 4, AT_BACKING = 8, AT_FEATURES = 72, HEADER = 104 };

static const struct xd_param params[] = {
	IMAGE_PARAMS,
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

static int check(int fd, uint64_t size, char *ret_why)
{
	unsigned char header[HEADER];
	uint32_t version;

	if (size < sizeof(header) ||
	    pread_all(fd, header, sizeof(header), 0) < 0 ||
	    image_be32(header) != MAGIC)
		return image_refuse(ret_why, "it is no qcow2 image");
	version = image_be32(header + AT_VERSION);
	if (version != 2 && version != 3)
		return image_refuse(ret_why, "an unknown version of qcow2");
	if (image_be64(header + AT_BACKING))
		return image_refuse(ret_why,
				    "it has a backing file, and those are not "
				    "opened; see xendisk-qcow2(7)");
	if (version == 3 && image_be64(header + AT_FEATURES) & EXTERNAL_DATA)
		return image_refuse(ret_why,
				    "its data is in another file, and that is "
				    "not opened");
	return 0;
}

static int qcow2_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	return image_open(disk, ret_limits, check);
}

XD_API const struct xd_backend xendisk_backend_v1 = {
	NBD_MEMBERS,
	.name = "qcow2",
	.summary = "a qcow2 image, by a qemu-nbd of its own",
	.params = params,
	.server = IMAGE_SERVER("qcow2"),
	.open = qcow2_open,
};
