/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmdk.c - VMware's format, in one file; "Virtual Disk Format 5.0", VMware. */
#include "config.h"

#include <string.h>
#include <strings.h>

#include "common/util.h"
#include "image.h"

#define MAGIC	  "KDMV"
#define NO_PARENT "parentCID=ffffffff"
#define SECTOR	  512

/* Where things are in the header; both little-endian, in sectors. */
enum { CAPACITY = 12, DESCRIPTOR_OFFSET = 28, DESCRIPTOR_SIZE = 36 };
#define HEADER	       512
#define DESCRIPTOR_MAX 20 /* sectors; VMware makes them so */

static const struct xd_param params[] = {
	IMAGE_PARAMS,
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

/* Does the descriptor, some lines of text, say that there is no parent? */
static bool stands_alone(int fd, uint64_t size, uint64_t offset,
			 uint64_t sectors)
{
	char text[DESCRIPTOR_MAX * SECTOR + 1];
	uint64_t length = MIN(sectors, (uint64_t)DESCRIPTOR_MAX) * SECTOR;

	if (offset == 0 || offset > size / SECTOR ||
	    length > size - offset * SECTOR ||
	    pread_all(fd, text, length, offset * SECTOR) < 0)
		return false;
	text[length] = '\0';
	for (char *line = text; line; line = strchr(line, '\n')) {
		line += strspn(line, "\r\n");
		if (strncasecmp(line, NO_PARENT, sizeof(NO_PARENT) - 1) == 0)
			return true;
	}
	return false;
}

static int check(int fd, uint64_t size, char *ret_why)
{
	unsigned char header[HEADER];

	if (size < sizeof(header) ||
	    pread_all(fd, header, sizeof(header), 0) < 0 ||
	    memcmp(header, MAGIC, sizeof(MAGIC) - 1) != 0)
		return image_refuse(ret_why,
				    "it is no VMDK image in one file; one that "
				    "names others is not opened");
	/* Then qemu-nbd takes the descriptor for the image, and opens whatever
	 * files that names. */
	if (image_le64(header + CAPACITY) == 0)
		return image_refuse(ret_why,
				    "it has no data of its own; an image that "
				    "names other files is not opened");
	if (!stands_alone(fd, size, image_le64(header + DESCRIPTOR_OFFSET),
			  image_le64(header + DESCRIPTOR_SIZE)))
		return image_refuse(ret_why,
				    "it has a parent, or does not say that it "
				    "has none; parents are not opened");
	return 0;
}

static int vmdk_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	return image_open(disk, ret_limits, check);
}

/* Streams of compressed data and others cannot be written to, and qemu-nbd finds
 * that out with the first write. */
XD_API const struct xd_backend xendisk_backend_v1 = {
	NBD_MEMBERS,
	.name = "vmdk",
	.summary = "a VMDK image, only read, by a qemu-nbd of its own",
	.params = params,
	.flags = XD_ALWAYS_READ_ONLY,
	.server = IMAGE_SERVER("vmdk"),
	.open = vmdk_open,
};
