/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/vdev.h"

#include <inttypes.h>
#include <string.h>

#include "common/util.h"

#define XVD_MAJOR    202u
#define SD_MAJOR     8u
#define HD_MAJOR     3u /* hda, hdb */
#define HD_MAJOR_2   22u /* hdc, hdd */
#define EXTENDED_BIT (1u << 28)
#define MAX_DISKS    (1u << 20)

uint32_t vdev_xvd(uint32_t index)
{
	return index < 16 ? XVD_MAJOR << 8 | index << 4 :
			    EXTENDED_BIT | index << 8;
}

/* "a" is 0, "z" 25, "aa" 26; leaves *text behind the letters. */
static int take_letters(const char **text, uint32_t *ret)
{
	const char *p = *text;
	uint32_t n = 0;

	if (*p < 'a' || *p > 'z')
		return -EINVAL;
	for (; *p >= 'a' && *p <= 'z'; p++) {
		n = n * 26 + (uint32_t)(*p - 'a') + 1;
		if (n > MAX_DISKS)
			return -EINVAL;
	}
	*text = p;
	*ret = n - 1;
	return 0;
}

/* Disks and partitions that a kind of name can have, and their number. */
static int number_of(char kind, uint32_t disk, uint32_t part, uint32_t *ret)
{
	switch (kind) {
	case 'x':
		if (part > (disk < 16 ? 15u : 255u))
			return -EINVAL;
		*ret = vdev_xvd(disk) + part;
		return 0;
	case 's':
		if (disk > 15 || part > 15)
			return -EINVAL;
		*ret = SD_MAJOR << 8 | disk << 4 | part;
		return 0;
	default:
		if (disk > 3 || part > 63)
			return -EINVAL;
		*ret = (disk < 2 ? HD_MAJOR : HD_MAJOR_2) << 8 |
		       (disk & 1) << 6 | part;
		return 0;
	}
}

int vdev_parse(const char *text, uint32_t *ret_devid)
{
	const char *p = text;
	uint32_t disk;
	uint32_t part = 0;

	if (parse_u32(text, UINT32_MAX >> 3, ret_devid) == 0)
		return 0;
	if (strncmp(p, "xvd", 3) == 0)
		p += 3;
	else if (strncmp(p, "hd", 2) == 0 || strncmp(p, "sd", 2) == 0)
		p += 2;
	else
		return -EINVAL;
	if (take_letters(&p, &disk) < 0)
		return -EINVAL;
	if (*p && (parse_u32(p, 255, &part) < 0 || part == 0))
		return -EINVAL;
	return number_of(text[0], disk, part, ret_devid);
}

static void put_name(char *buf, size_t len, const char *prefix, uint32_t disk,
		     uint32_t part)
{
	char letters[8];
	size_t at = sizeof(letters) - 1;

	letters[at] = '\0';
	for (uint32_t n = disk + 1; n > 0 && at > 0; n = (n - 1) / 26)
		letters[--at] = (char)('a' + (n - 1) % 26);
	if (part)
		(void)snprintf(buf, len, "%s%s%" PRIu32, prefix, letters + at,
			       part);
	else
		(void)snprintf(buf, len, "%s%s", prefix, letters + at);
}

void vdev_print(char *buf, size_t len, uint32_t devid)
{
	uint32_t major = devid >> 8;
	uint32_t minor = devid & 0xff;

	if (devid & EXTENDED_BIT)
		put_name(buf, len, "xvd", (devid & ~EXTENDED_BIT) >> 8, minor);
	else if (major == XVD_MAJOR)
		put_name(buf, len, "xvd", minor >> 4, minor & 15);
	else if (major == SD_MAJOR)
		put_name(buf, len, "sd", minor >> 4, minor & 15);
	else if ((major == HD_MAJOR || major == HD_MAJOR_2) && minor < 128)
		put_name(buf, len, "hd",
			 (major == HD_MAJOR ? 0 : 2) + (minor >> 6),
			 minor & 63);
	else
		(void)snprintf(buf, len, "%" PRIu32, devid);
}
