/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image.c - a disk in a file of some format, served by a qemu-nbd of its own.
 *
 * An image may name other files: a backing file, a parent, its extents.  Then its
 * maker would choose what a guest gets to read.  So such images are refused here,
 * before a guest is there; qemu-nbd is told to open no backing file; and it runs as a
 * user that owns nothing.
 */
#include "config.h"

#include "image.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "common/util.h"
#include "raw.h"

int image_refuse(char *ret_why, const char *why)
{
	(void)snprintf(ret_why, NBD_WHY_MAX, "%s", why);
	return -EINVAL;
}

uint64_t image_be64(const unsigned char *at)
{
	uint64_t value = 0;

	for (int i = 0; i < 8; i++)
		value = value << 8 | at[i];
	return value;
}

uint64_t image_le64(const unsigned char *at)
{
	uint64_t value = 0;

	for (int i = 7; i >= 0; i--)
		value = value << 8 | at[i];
	return value;
}

uint32_t image_be32(const unsigned char *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 |
	       (uint32_t)at[2] << 8 | at[3];
}

/* It names the storage as raw does, so that two users of one file are noticed. */
static int look_at_image(struct nbd_disk *nbd, image_check_fn check)
{
	struct xd_disk *disk = nbd->disk;
	struct raw_facts facts = { 0 };
	char why[NBD_WHY_MAX] = "";
	cleanup_close int fd =
		xd_open(disk, "path", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int r;

	if (fd < 0)
		return fd;
	r = raw_find_facts(disk, fd, &facts);
	if (r < 0)
		return r;
	r = check(fd, facts.size, why);
	if (r < 0) {
		xd_error(disk, "%s: %s", nbd->place, why);
		return r;
	}
	return raw_identify(disk, fd, &facts);
}

static int prepare(struct nbd_disk *nbd)
{
	const struct xd_disk *disk = nbd->disk;

	nbd->child = true;
	(void)snprintf(nbd->place, sizeof(nbd->place), "%.250s",
		       xd_arg_string(disk, "path"));
	return 0;
}

int image_open(struct xd_disk *disk, struct xd_limits *ret_limits,
	       image_check_fn check)
{
	struct nbd_disk looked = { .disk = disk };
	int r = prepare(&looked);

	if (r == 0)
		r = look_at_image(&looked, check);
	return r < 0 ? r : nbd_open(disk, ret_limits, prepare);
}
