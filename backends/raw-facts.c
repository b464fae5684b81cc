/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw-facts.c - what the kernel says about an image: how large it is, in which
 * units it wants to be asked, and what it is called for good.
 *
 * From open(), before the process is isolated: sysfs is still to be seen.
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "common/util.h"
#include "raw.h"

#ifndef BLKGETDISKSEQ /* Linux 5.15 */
#define BLKGETDISKSEQ _IOR(0x12, 128, uint64_t)
#endif

/* An attribute in sysfs, of the device or of the one that it is part of. */
static FILE *open_attribute(dev_t dev, const char *name)
{
	static const char *const places[] = { ".", "queue", "..", "../queue" };

	for (unsigned int i = 0; i < ARRAY_SIZE(places); i++) {
		char path[128];
		FILE *f;

		(void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s",
			       major(dev), minor(dev), places[i], name);
		f = fopen(path, "re");
		if (f)
			return f;
	}
	return NULL;
}

static uint64_t device_number(dev_t dev, const char *name)
{
	cleanup_file FILE *f = open_attribute(dev, name);
	uint64_t value;

	return f && fscanf(f, "%" SCNu64, &value) == 1 ? value : 0;
}

/* False: it has none.  The line without its end. */
static bool device_text(dev_t dev, const char *name, char *buf, size_t size)
{
	cleanup_file FILE *f = open_attribute(dev, name);

	if (!f || !fgets(buf, (int)size, f))
		return false;
	buf[strcspn(buf, "\n")] = '\0';
	return buf[0] != '\0';
}

int raw_device_facts(int fd, struct raw_facts *facts)
{
	unsigned int physical = 0;

	if (ioctl(fd, BLKGETSIZE64, &facts->size) < 0 ||
	    ioctl(fd, BLKPBSZGET, &physical) < 0)
		return -errno;
	if (ioctl(fd, BLKGETDISKSEQ, &facts->diskseq) < 0)
		facts->diskseq = 0;
	facts->physical = physical;
	return 0;
}

void raw_find_home(int fd, bool *ret_local, bool *ret_memory)
{
	static const struct {
		long magic;
		bool memory;
	} local[] = {
		{ EXT4_SUPER_MAGIC, false },
		{ XFS_SUPER_MAGIC, false },
		{ BTRFS_SUPER_MAGIC, false },
		{ F2FS_SUPER_MAGIC, false },
		{ TMPFS_MAGIC, true },
		{ RAMFS_MAGIC, true },
		{ OVERLAYFS_SUPER_MAGIC, false },
	};
	struct statfs fs;

	*ret_local = false;
	*ret_memory = false;
	if (fstatfs(fd, &fs) < 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(local); i++) {
		if ((long)fs.f_type != local[i].magic)
			continue;
		*ret_local = true;
		*ret_memory = local[i].memory;
	}
}

static void discard_facts(struct raw_facts *facts)
{
	dev_t dev = facts->st.st_rdev;

	/* Discards are made by punching holes, which a device does with its
	 * command for writing zeroes. */
	if (device_number(dev, "discard_max_bytes") &&
	    device_number(dev, "write_zeroes_max_bytes"))
		facts->discard_granularity =
			device_number(dev, "discard_granularity");
	facts->discard_alignment = device_number(dev, "discard_alignment");
}

static void file_facts(struct raw_facts *facts)
{
	uint32_t block = facts->st.st_blksize;

	if (block < 512 || !is_power_of_2(block))
		block = 4096;
	facts->size = facts->st.st_size;
	facts->physical = MIN(block, 4096u);
	facts->discard_granularity = block;
}

/* What O_DIRECT demands; 0: it is refused or nobody can tell. */
static void direct_facts(int fd, struct raw_facts *facts)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    (stx.stx_mask & STATX_DIOALIGN)) {
		facts->logical = stx.stx_dio_offset_align;
		facts->memory = stx.stx_dio_mem_align;
		return;
	}
#endif
	facts->logical = 0;
	(void)fd;
}

/* Linux before 6.1, or a file system that does not say: tries to read. */
static void direct_probe(struct xd_disk *disk, struct raw_facts *facts)
{
	void *buf __attribute__((cleanup(cleanup_freep))) = NULL;
	cleanup_close int fd = xd_open(disk, "path", O_RDONLY | O_DIRECT);

	if (fd < 0 || posix_memalign(&buf, 4096, 4096) != 0)
		return;
	for (uint32_t unit = 512; unit <= 4096; unit *= 8)
		if (pread(fd, buf, unit, 0) == unit) {
			facts->logical = unit;
			facts->memory = unit;
			return;
		}
}

int raw_find_facts(struct xd_disk *disk, int fd, struct raw_facts *facts)
{
	int err = 0;

	if (fstat(fd, &facts->st) < 0)
		return -errno;
	if (S_ISBLK(facts->st.st_mode)) {
		err = raw_device_facts(fd, facts);
		discard_facts(facts);
	} else if (S_ISREG(facts->st.st_mode)) {
		file_facts(facts);
	} else {
		xd_error(disk, "%s is neither a file nor a block device",
			 xd_arg_string(disk, "path"));
		return -EINVAL;
	}
	if (err < 0) {
		xd_error(disk, "cannot examine %s: %s",
			 xd_arg_string(disk, "path"), strerror(-err));
		return err;
	}
	direct_facts(fd, facts);
	if (facts->logical == 0)
		direct_probe(disk, facts);
	return 0;
}

/*
 * A device's number and path are another's after a reboot: its world-wide name
 * or device-mapper's UUID stay, where it has one.
 */
static int identify_device(struct xd_disk *disk, dev_t dev)
{
	static const char *const names[] = { "dm/uuid", "wwid", "device/wwid" };
	char text[256];

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++)
		if (device_text(dev, names[i], text, sizeof(text)))
			return xd_identify(
				disk, "device:%s part %ju", text,
				(uintmax_t)device_number(dev, "partition"));
	return xd_identify(disk, "device:%.400s", xd_arg_string(disk, "path"));
}

/* An inode and its birth name a file for good.  (Not the file system's id: XFS
 * makes it of the device's number.)  Without a birth the path has to help. */
int raw_identify(struct xd_disk *disk, int fd, const struct raw_facts *facts)
{
	uintmax_t ino = facts->st.st_ino;
	struct statx stx = { 0 };

	if (S_ISBLK(facts->st.st_mode))
		return identify_device(disk, facts->st.st_rdev);
	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) == 0 &&
	    (stx.stx_mask & STATX_BTIME))
		return xd_identify(disk, "file:inode %ju born %jd.%09u", ino,
				   (intmax_t)stx.stx_btime.tv_sec,
				   stx.stx_btime.tv_nsec);
	return xd_identify(disk, "file:%.400s inode %ju",
			   xd_arg_string(disk, "path"), ino);
}
