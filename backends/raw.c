/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw.c - an image file or a block device, byte for byte.
 *
 * open() finds out what the path names, how large it is and in which units the
 * kernel wants to be asked, and lets go of it: a restored or migrated guest's
 * two halves may both have it open.  activate() opens the very same file
 * again, locks it, and keeps that one descriptor for writes and flushes alike:
 * the kernel reports a lost write once per open file description, so that a
 * flush on another might never hear of it.
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "common/crash.h"
#include "common/util.h"
#include "raw.h"

static uint32_t sector_size(const struct xd_disk *disk)
{
	return strcmp(xd_arg_string(disk, "sector-size"), "4096") ? 512 : 4096;
}

/*
 * The size that a guest may know outlives the worker: a disk never shrinks, and
 * an image that has got an odd size meanwhile must not keep its guest waiting.
 */
struct kept_size {
	uint64_t size;
	uint64_t inverse; /* ~size */
};

/* 0: this is the first worker. */
static int open_kept_size(struct xd_disk *disk, struct raw *raw,
			  uint64_t *ret_size)
{
	struct kept_size found = { 0 };
	bool kept;

	raw->kept = xd_keep(disk, "size", XD_KEEP_STATE, sizeof(found), &kept);
	if (raw->kept < 0)
		return raw->kept; /* xd_keep() has said why */
	if (kept && pread(raw->kept, &found, sizeof(found), 0) != sizeof(found))
		return -EIO;
	if (found.size != ~found.inverse || found.size > INT64_MAX)
		found.size = 0;
	*ret_size = found.size - found.size % sector_size(disk);
	return 0;
}

static int keep_size(const struct raw *raw, uint64_t size)
{
	struct kept_size now = { size, ~size };

	return pwrite(raw->kept, &now, sizeof(now), 0) == sizeof(now) ? 0 :
									-EIO;
}

static int check_size(struct xd_disk *disk, uint64_t size)
{
	const char *path = xd_arg_string(disk, "path");
	uint32_t sector = sector_size(disk);

	if (size == 0) {
		xd_error(disk, "%s is empty", path);
		return -EINVAL;
	}
	if (size % sector) {
		xd_error(disk,
			 "the size of %s, %" PRIu64
			 " bytes, is no multiple of the sector size %u",
			 path, size, sector);
		return -EINVAL;
	}
	return 0;
}

/* What a guest knows already counts; else the image has to be fit.  ret_before: the
 * size that it knows, 0: none. */
static int settle_size(struct xd_disk *disk, struct raw *raw, uint64_t *io_size,
		       uint64_t *ret_before)
{
	uint64_t before;
	int err = open_kept_size(disk, raw, &before);

	if (err < 0)
		return err;
	*ret_before = before;
	if (before == 0) {
		err = check_size(disk, *io_size);
		return err < 0 ? err : keep_size(raw, *io_size);
	}
	*io_size -= *io_size % sector_size(disk);
	if (*io_size < before)
		xd_note(disk,
			"has shrunk to %" PRIu64 " bytes: what lies beyond is "
			"answered with errors",
			*io_size);
	*io_size = MAX(*io_size, before);
	return keep_size(raw, *io_size);
}

/* Page cache or not?  Sets direct and sync. */
static int choose_cache(struct xd_disk *disk, struct raw *raw,
			const struct raw_facts *facts)
{
	const char *cache = xd_arg_string(disk, "cache");
	uint32_t sector = sector_size(disk);
	bool fits = facts->logical && facts->logical <= sector &&
		    facts->memory <= sector;
	const char *how = "page cache";
	const char *why = "";

	if (cache && strcmp(cache, "none") == 0 && !fits) {
		xd_error(disk,
			 "cache=none: %s has no O_DIRECT for sectors of %u "
			 "bytes (it needs %u)",
			 raw->path, sector, facts->logical);
		return -EINVAL;
	}
	raw->sync = cache && strcmp(cache, "writethrough") == 0;
	raw->direct = fits && (!cache || strcmp(cache, "none") == 0);
	if (raw->direct)
		how = "O_DIRECT";
	else if (raw->sync)
		how = "page cache, written through";
	else if (!cache)
		why = facts->logical ? ", O_DIRECT needs larger sectors" :
				       ", O_DIRECT is refused";
	xd_note(disk, "%s%s; %s, sectors of %u/%u bytes", how, why,
		raw->is_device ? "block device" : "file", sector,
		facts->physical);
	return 0;
}

/* Pieces that begin within a sector, as on a partition that begins at an odd place,
 * cannot be hit by whole sectors. */
static bool can_discard(const struct xd_disk *disk,
			const struct raw_facts *facts)
{
	uint32_t sector = sector_size(disk);
	uint32_t piece = MAX(facts->discard_granularity, sector);

	return !xd_readonly(disk) && xd_arg_bool(disk, "discard") &&
	       facts->discard_granularity && piece % sector == 0 &&
	       facts->discard_alignment % sector == 0 &&
	       facts->discard_alignment < piece;
}

static struct xd_limits make_limits(const struct xd_disk *disk,
				    const struct raw *raw,
				    const struct raw_facts *facts)
{
	uint32_t sector = sector_size(disk);
	bool readonly = xd_readonly(disk);
	bool discard = can_discard(disk, facts);

	return (struct xd_limits){
		.size = facts->size,
		.sector_size = sector,
		.physical_sector_size = MAX(facts->physical, sector),
		.discard_granularity =
			discard ? MAX(facts->discard_granularity, sector) : 0,
		.discard_alignment = discard ? facts->discard_alignment : 0,
		.memory_alignment = raw->direct ? MAX(facts->memory, 512u) : 1,
		.max_channels = raw->sync && !readonly ? 1 :
							 0, /* see raw-io.c */
		.readonly = readonly,
		.flush = !readonly && !raw->sync,
		.fua = !readonly,
		.zero = !readonly,
		.fast_zero = !readonly,
	};
}

static bool keeps_others_off(const struct xd_disk *disk)
{
	return xd_arg_bool(disk, "lock") && !xd_arg_bool(disk, "shared");
}

/* Does it want the image for itself? */
static bool is_sole_writer(const struct xd_disk *disk)
{
	return !xd_readonly(disk) && keeps_others_off(disk);
}

/*
 * A device that is mounted, or part of another one (LVM, RAID), is claimed in
 * the kernel, which flock() knows nothing of; O_EXCL does.  Returns the
 * descriptor that holds our own claim; -1 for a file, which has none.
 */
static int claim(struct xd_disk *disk, const struct raw *raw)
{
	int fd = -1;

	if (raw->is_device && is_sole_writer(disk))
		fd = xd_open(disk, "path", O_RDONLY | O_EXCL);
	if (fd == -EBUSY)
		xd_error(disk,
			 "%s is in use: it is mounted, or part of another "
			 "device",
			 raw->path);
	return fd;
}

/* Who holds the claim may be another disk of ours, which is fine until
 * activate(): then it also holds the flock. */
static int check_claim(struct xd_disk *disk, const struct raw *raw, int fd)
{
	cleanup_close int claimed = claim(disk, raw);

	if (claimed == -EBUSY && flock(fd, LOCK_EX | LOCK_NB) == 0)
		return -EBUSY;
	return 0;
}

/* Linux opens one for writing all the same, and fails each write. */
static int check_writable(struct xd_disk *disk, const struct raw *raw, int fd)
{
	int read_only = 0;

	if (xd_readonly(disk) || !raw->is_device ||
	    ioctl(fd, BLKROGET, &read_only) < 0 || !read_only)
		return 0;
	xd_error(disk,
		 "%s is a read-only device; to read it only: --readonly, or "
		 "readonly(...)",
		 raw->path);
	return -EROFS;
}

/* What is asked of a disk that no guest has yet: one that has it is not to be kept
 * waiting for good. */
static int check_new(struct xd_disk *disk, const struct raw *raw, int fd,
		     const struct stat *st)
{
	int err = check_writable(disk, raw, fd);

	if (err == 0 && keeps_others_off(disk))
		err = raw_check_loops(disk, fd, st);
	return err;
}

static int probe(struct xd_disk *disk, struct raw *raw,
		 struct xd_limits *ret_limits)
{
	/* A FIFO must not make us wait for its other end. */
	int flags = (xd_readonly(disk) ? O_RDONLY : O_RDWR) | O_NONBLOCK;
	cleanup_close int fd = xd_open(disk, "path", flags);
	struct raw_facts facts = { 0 };
	uint64_t size, before;
	int err;

	if (fd < 0)
		return fd; /* xd_open() has said why */
	err = raw_find_facts(disk, fd, &facts);
	if (err < 0)
		return err;
	size = facts.size;
	err = settle_size(disk, raw, &facts.size, &before);
	if (err < 0)
		return err;

	raw->size = facts.size;
	raw->is_device = S_ISBLK(facts.st.st_mode);
	raw->dev = raw->is_device ? facts.st.st_rdev : facts.st.st_dev;
	raw->ino = raw->is_device ? 0 : facts.st.st_ino;
	raw->diskseq = facts.diskseq;
	if (!raw->is_device)
		raw_find_home(fd, &raw->is_local, &raw->in_memory);
	raw_set_end(raw, size);
	raw->keep_space = !xd_arg_bool(disk, "discard");
	err = check_claim(disk, raw, fd);
	if (err == 0 && before == 0)
		err = check_new(disk, raw, fd, &facts.st);
	if (err == 0)
		err = choose_cache(disk, raw, &facts);
	if (err < 0)
		return err;
	*ret_limits = make_limits(disk, raw, &facts);
	return raw_identify(disk, fd, &facts);
}

static int raw_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	struct raw *raw = calloc(1, sizeof(*raw));
	int err;

	if (!raw)
		return -ENOMEM;
	raw->fd = -1;
	raw->claim = -1;
	raw->kept = -1;
	raw->path = xd_arg_string(disk, "path");
	err = probe(disk, raw, ret_limits);
	if (err < 0) {
		if (raw->kept >= 0)
			(void)close(raw->kept);
		free(raw);
		return err;
	}
	disk->data = raw;
	return 0;
}

/* With the descriptors go the locks. */
static void let_go(struct raw *raw)
{
	if (raw->fd >= 0)
		(void)close(TAKE_FD(raw->fd));
	if (raw->claim >= 0)
		(void)close(TAKE_FD(raw->claim));
}

static void raw_close(struct xd_disk *disk)
{
	struct raw *raw = disk->data;

	let_go(raw);
	(void)close(raw->kept);
	free(raw);
}

/* The path may lead elsewhere by now, or the device may be another.  A guest
 * that comes anew is told of a file that has shrunk by this; one that is there
 * already, by errors. */
static int check_same(struct xd_disk *disk, const struct raw *raw, int fd,
		      bool recover)
{
	struct raw_facts now = { 0 };
	bool same;

	if (fstat(fd, &now.st) < 0)
		return -errno;
	if (raw->is_device)
		same = S_ISBLK(now.st.st_mode) && now.st.st_rdev == raw->dev &&
		       raw_device_facts(fd, &now) == 0 &&
		       now.diskseq == raw->diskseq;
	else
		same = now.st.st_dev == raw->dev && now.st.st_ino == raw->ino;
	if (!same) {
		xd_error(disk, "%s is no longer what was attached", raw->path);
		return -ESTALE;
	}
	if (!raw->is_device)
		now.size = now.st.st_size;
	if (now.size < raw->size && !recover) {
		xd_error(disk, "%s has shrunk below the size of the disk",
			 raw->path);
		return -EIO;
	}
	return 0;
}

static int lock(struct xd_disk *disk, int fd, bool recover)
{
	if (!xd_arg_bool(disk, "lock"))
		return 0;
	if (xd_readonly(disk))
		return raw_lock(disk, fd, RAW_READER, false);
	if (xd_arg_bool(disk, "shared"))
		return raw_lock(disk, fd, RAW_SHARED, false);
	return raw_lock(disk, fd, RAW_WRITER, recover);
}

/* A write that the kernel has lost, and has told nobody about, would be ours
 * to answer for at the first flush.  To ask is to be the one who is told. */
static int check_written_back(struct xd_disk *disk, const struct raw *raw,
			      int fd)
{
	int r;

	do
		r = fsync(fd);
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return 0;
	xd_error(disk,
		 "an earlier write to %s was lost (%s), and was not reported "
		 "to who wrote it: check the image, then attach again",
		 raw->path, strerror(errno));
	return -EIO;
}

static int raw_activate(struct xd_disk *disk, bool recover)
{
	struct raw *raw = disk->data;
	bool readonly = xd_readonly(disk);
	int flags = (readonly ? O_RDONLY : O_RDWR) |
		    (raw->direct ? O_DIRECT : 0);
	cleanup_close int fd = xd_open(disk, "path", flags);
	cleanup_close int claimed = -1;
	int err;

	if (fd < 0)
		return fd; /* xd_open() has said why */
	err = check_same(disk, raw, fd, recover);
	if (err == 0)
		err = lock(disk, fd, recover);
	CRASH_POINT(image_locked);
	if (err == 0) {
		claimed = claim(disk, raw);
		err = claimed < -1 ? claimed : 0;
	}
	/* After a worker's death it is: the guest had been promised that write, and
	 * its first flush is to fail.  Nobody flushes what is durable at once. */
	if (err == 0 && !readonly && (!recover || raw->sync))
		err = check_written_back(disk, raw, fd);
	if (err < 0)
		return err;
	raw->fd = TAKE_FD(fd);
	raw->claim = TAKE_FD(claimed);
	return 0;
}

/* Nothing is flushed: what a guest is owed when it goes the host has flushed, and
 * when a guest stays, and another worker comes, that one's flush must be told of what
 * was lost. */
static int raw_deactivate(struct xd_disk *disk)
{
	let_go(disk->data);
	return 0;
}

/* --- Growing ------------------------------------------------------------- */

/* What it is open by; or a descriptor of its own, to be closed, while no guest
 * is connected.  -errno: xd_open() has said why. */
static int size_fd(struct xd_disk *disk, const struct raw *raw, int flags,
		   int *ret_own)
{
	if (raw->fd >= 0)
		return raw->fd;
	*ret_own = xd_open(disk, "path", flags | O_NONBLOCK);
	return *ret_own;
}

/* In whole sectors; what is left over does not count. */
static int read_size(struct xd_disk *disk, const struct raw *raw, int fd,
		     uint64_t *ret_size)
{
	struct raw_facts now = { 0 };
	int err = 0;

	if (raw->is_device)
		err = raw_device_facts(fd, &now);
	else if (fstat(fd, &now.st) < 0)
		err = -errno;
	else
		now.size = now.st.st_size;
	if (err < 0) {
		xd_error(disk, "cannot examine %s: %s", raw->path,
			 strerror(-err));
		return err;
	}
	*ret_size = now.size - now.size % sector_size(disk);
	return 0;
}

static int check_may_extend(struct xd_disk *disk, const struct raw *raw)
{
	if (raw->is_device) {
		xd_error(disk,
			 "%s is a block device: make it larger (lvextend, "
			 "...), the disk follows",
			 raw->path);
		return -EOPNOTSUPP;
	}
	if (xd_readonly(disk)) {
		xd_error(disk, "%s is read-only here", raw->path);
		return -EROFS;
	}
	return 0;
}

/*
 * By fallocate(), which an isolated worker may call and which, unlike a write of
 * zeroes at the end, cannot hit data of somebody who makes it larger as well.
 * Sparse, but for the last sector, or all of it where space is to be kept.
 */
static int extend(struct xd_disk *disk, const struct raw *raw, int fd,
		  uint64_t from, uint64_t to)
{
	uint64_t start = raw->keep_space ? from : to - sector_size(disk);
	int r;

	do
		r = fallocate(fd, 0, (off_t)start, (off_t)(to - start));
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return 0;
	r = -errno;
	xd_error(disk, "%s cannot be made larger: %s", raw->path,
		 r == -EOPNOTSUPP ? "its file system cannot do that for us; "
				    "try truncate(1), the disk follows" :
				    strerror(-r));
	return r;
}

void raw_set_end(struct raw *raw, uint64_t size)
{
	__atomic_store_n(&raw->end, size < raw->size ? size : UINT64_MAX,
			 __ATOMIC_RELAXED);
}

static int check_not_shrunk(struct xd_disk *disk, struct raw *raw, uint64_t now)
{
	raw_set_end(raw, now);
	if (now >= raw->size)
		return 0;
	xd_error(disk,
		 "%s has shrunk to %" PRIu64 " bytes, but the disk stays as "
		 "large as it was, %" PRIu64
		 ": what lies beyond the end of the file is answered with "
		 "errors",
		 raw->path, now, raw->size);
	return -EPERM;
}

static int raw_resize(struct xd_disk *disk, uint64_t size, uint64_t *ret_size)
{
	struct raw *raw = disk->data;
	bool extends = size && !raw->is_device && !xd_readonly(disk);
	cleanup_close int own = -1;
	int fd = size_fd(disk, raw, extends ? O_RDWR : O_RDONLY, &own);
	uint64_t now;
	int err = fd < 0 ? fd : read_size(disk, raw, fd, &now);

	if (err == 0)
		err = check_not_shrunk(disk, raw, now);
	if (err == 0 && size > now) {
		err = check_may_extend(disk, raw);
		if (err == 0 && own >= 0)
			err = lock(disk, own, false);
		if (err == 0)
			err = extend(disk, raw, fd, now, size);
		if (err == 0)
			err = read_size(disk, raw, fd, &now);
	}
	if (err == 0)
		*ret_size = now;
	return err;
}

static void raw_resized(struct xd_disk *disk)
{
	struct raw *raw = disk->data;

	raw->size = disk->limits.size;
	(void)keep_size(raw, raw->size); /* 16 bytes that are there already */
}

static const struct xd_param raw_params[] = {
	{ "path", XD_PATH, XD_POSITIONAL | XD_REQUIRED, NULL, NULL,
	  "image file or block device" },
	{ "cache", XD_ENUM, 0, "none|writeback|writethrough", NULL,
	  "host page cache; unset: none where O_DIRECT fits, else writeback" },
	{ "discard", XD_BOOL, 0, NULL, "yes", "free what the guest discards" },
	{ "sector-size", XD_ENUM, 0, "512|4096", "512",
	  "bytes of a sector as the guest sees it" },
	{ "lock", XD_BOOL, 0, NULL, "yes", "lock the image while it is used" },
	{ "shared", XD_BOOL, 0, NULL, "no",
	  "others may write too (cluster file systems)" },
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

XD_API const struct xd_backend xendisk_backend_v1 = {
	.size = sizeof(struct xd_backend),
	.version = XD_API_VERSION,
	.name = "raw",
	.summary = "an image file or block device, byte for byte",
	.params = raw_params,
	.flags = XD_MAY_GROW,
	.open = raw_open,
	.close = raw_close,
	.activate = raw_activate,
	.deactivate = raw_deactivate,
	.channel_open = raw_channel_open,
	.channel_close = raw_channel_close,
	.submit = raw_submit,
	.kick = raw_kick,
	.resize = raw_resize,
	.resized = raw_resized,
	.extents = raw_extents,
};
