/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw-lock.c - keeps others off an image, in two ways.
 *
 * flock() is between disks of ours, and fences: a request that a killed worker
 * left in the kernel (io_uring does not wait for them) holds on to the open
 * file description, and with it to the lock.  So a new description that was
 * granted LOCK_EX knows that nothing old can reach the image any more.
 *
 * Byte locks are those that QEMU's tools take and look for: byte 100 + p is
 * locked (for reading, so that many can) by who uses permission p, byte 200 + p
 * by who does not share p with others.  Who wants p looks whether somebody
 * holds 200 + p; who does not share p, whether somebody holds 100 + p.
 * (QEMU, block/file-posix.c and docs/interop; checked against qemu-img 7.2.)
 * They belong to the open file description too (F_OFD_SETLK).
 */
#include "config.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "common/util.h"
#include "raw.h"

enum {
	USED_BASE = 100,
	UNSHARED_BASE = 200,
};

/* The permissions that matter to a whole image. */
enum {
	PERM_READ = 0, /* consistent content */
	PERM_WRITE = 1,
	PERM_RESIZE = 3,
};
#define P(perm) (1u << (perm))

static const struct {
	int flock;
	unsigned int uses;
	unsigned int keeps; /* does not share */
} modes[] = {
	[RAW_WRITER] = { LOCK_EX, P(PERM_READ) | P(PERM_WRITE),
			 P(PERM_WRITE) | P(PERM_RESIZE) },
	[RAW_READER] = { LOCK_SH, P(PERM_READ),
			 P(PERM_WRITE) | P(PERM_RESIZE) },
	[RAW_SHARED] = { LOCK_SH, P(PERM_READ) | P(PERM_WRITE), 0 },
};

static const char *const perm_name[] = {
	[PERM_READ] = "reading",
	[PERM_WRITE] = "writing",
	[PERM_RESIZE] = "resizing",
};

static int busy(struct xd_disk *disk, const char *why)
{
	xd_error(disk, "%s is in use: %s", xd_arg_string(disk, "path"), why);
	return -EBUSY;
}

static int refused(struct xd_disk *disk)
{
	int err = -errno;

	xd_error(disk, "cannot lock %s (lock=no goes without): %s",
		 xd_arg_string(disk, "path"), strerror(-err));
	return err;
}

static int lock_whole(struct xd_disk *disk, int fd, int how, bool wait)
{
	while (flock(fd, wait ? how : how | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return busy(disk, how == LOCK_EX ?
						  "another process has locked "
						  "it (flock)" :
						  "another process has locked "
						  "it for writing (flock)");
		if (errno != EINTR)
			return refused(disk);
	}
	return 0;
}

static int take_bytes(struct xd_disk *disk, int fd, off_t base,
		      unsigned int perms)
{
	for (unsigned int p = 0; p < ARRAY_SIZE(perm_name); p++) {
		struct flock lock = {
			.l_type = F_RDLCK,
			.l_whence = SEEK_SET,
			.l_start = base + p,
			.l_len = 1,
		};

		if (!(perms & P(p)) || fcntl(fd, F_OFD_SETLK, &lock) == 0)
			continue;
		if (errno != EAGAIN && errno != EACCES)
			return refused(disk);
		return busy(disk, "another process locks all of it");
	}
	return 0;
}

/* Is a byte of somebody else's locked that contradicts us? */
static int check_bytes(struct xd_disk *disk, int fd, off_t base,
		       unsigned int perms)
{
	for (unsigned int p = 0; p < ARRAY_SIZE(perm_name); p++) {
		struct flock lock = {
			.l_type = F_WRLCK,
			.l_whence = SEEK_SET,
			.l_start = base + p,
			.l_len = 1,
		};
		char why[128];

		if (!(perms & P(p)))
			continue;
		if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
			return refused(disk);
		if (lock.l_type == F_UNLCK)
			continue;
		(void)snprintf(why, sizeof(why),
			       base == USED_BASE ?
				       "QEMU or another program has it open "
				       "for %s" :
				       "QEMU or another program keeps others "
				       "from %s",
			       perm_name[p]);
		return busy(disk, why);
	}
	return 0;
}

int raw_lock(struct xd_disk *disk, int fd, enum raw_sharing sharing, bool wait)
{
	unsigned int uses = modes[sharing].uses;
	unsigned int keeps = modes[sharing].keeps;
	int err;

	err = lock_whole(disk, fd, modes[sharing].flock, wait);
	/* Take first, look then: of two who do so at once, one sees it. */
	if (err == 0)
		err = take_bytes(disk, fd, USED_BASE, uses);
	if (err == 0)
		err = take_bytes(disk, fd, UNSHARED_BASE, keeps);
	if (err == 0)
		err = check_bytes(disk, fd, UNSHARED_BASE, uses);
	if (err == 0)
		err = check_bytes(disk, fd, USED_BASE, keeps);
	return err;
}
