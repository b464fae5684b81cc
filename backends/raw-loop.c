/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw-loop.c - loop devices that an image is behind.
 *
 * A loop device takes no lock on its file, and whoever has it mounted writes
 * there; the device's page cache does not know what a guest writes either.
 *
 * Names are compared first, as the kernel has them now: it takes a question to the
 * file's own file system, which may be a server that is away, to know more, and only
 * the disks of that one are to wait for it.  A hard link is not found by this.
 */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/loop.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "common/util.h"
#include "raw.h"

/* The line without its end, to be freed; NULL: there is none. */
static char *read_line(const char *device, const char *attribute)
{
	cleanup_file FILE *f = NULL;
	cleanup_free char *line = NULL;
	char path[NAME_MAX + 64];
	size_t size = 0;

	(void)snprintf(path, sizeof(path), "/sys/block/%s/%s", device,
		       attribute);
	f = fopen(path, "re");
	if (!f || getline(&line, &size, f) < 0)
		return NULL;
	line[strcspn(line, "\n")] = '\0';
	return TAKE_PTR(line);
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* As the kernel packs it for LOOP_GET_STATUS64, whatever the C library does. */
static dev_t unpack(uint64_t dev)
{
	return makedev((dev & 0xfff00) >> 8,
		       (dev & 0xff) | ((dev >> 12) & 0xfff00));
}

/* Is that file, or device, behind it?  Without its node the name has to do. */
static bool is_behind(const char *device, const char *file,
		      const struct stat *st)
{
	char node[NAME_MAX + 8];
	struct loop_info64 info;
	cleanup_close int fd = -1;
	struct stat there;

	(void)snprintf(node, sizeof(node), "/dev/%s", device);
	fd = open(node, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) == 0)
		return S_ISBLK(st->st_mode) ?
			       unpack(info.lo_rdevice) == st->st_rdev :
			       unpack(info.lo_device) == st->st_dev &&
				       info.lo_inode == st->st_ino;
	if (fd >= 0 || stat(file, &there) < 0)
		return false; /* it has been let go of */
	return S_ISBLK(st->st_mode) ?
		       there.st_rdev == st->st_rdev :
		       there.st_dev == st->st_dev && there.st_ino == st->st_ino;
}

/* Does that device stand in the way of the image, whose name is given? */
static bool stands_in_the_way(const struct xd_disk *disk, const char *device,
			      const char *name, const struct stat *st)
{
	cleanup_free char *file = read_line(device, "loop/backing_file");
	cleanup_free char *ro = read_line(device, "ro");

	if (!file || strcmp(last_part(file), last_part(name)) != 0)
		return false;
	if (xd_readonly(disk) && ro && strcmp(ro, "1") == 0)
		return false;
	return is_behind(device, file, st);
}

/* Not on the stack, here and above: what a worker touches of it stays its own for as
 * long as it lives, and each disk has one. */
static char *name_of(int fd)
{
	cleanup_free char *name = malloc(PATH_MAX);
	char link[32];
	ssize_t length;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = name ? readlink(link, name, PATH_MAX - 1) : -1;
	if (length < 0)
		return NULL;
	name[length] = '\0';
	return TAKE_PTR(name);
}

int raw_check_loops(struct xd_disk *disk, int fd, const struct stat *st)
{
	cleanup_free char *name = name_of(fd);
	DIR *dir = name ? opendir("/sys/block") : NULL;
	struct dirent *entry;
	int err = 0;

	if (!dir)
		return 0;
	while (err == 0 && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, "loop", 4) != 0 ||
		    !stands_in_the_way(disk, entry->d_name, name, st))
			continue;
		xd_error(disk,
			 "%s is in use: it is behind the loop device /dev/%s "
			 "(losetup -d /dev/%s lets go of it, when that is not "
			 "mounted)",
			 xd_arg_string(disk, "path"), entry->d_name,
			 entry->d_name);
		err = -EBUSY;
	}
	(void)closedir(dir);
	return err;
}
