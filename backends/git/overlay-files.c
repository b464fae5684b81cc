/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-files.c - the files of an overlay's folder.
 *
 * All of them are made and opened at once, and none is ever made or removed later,
 * so that an isolated worker can do all else by descriptors: fallocate() makes
 * files larger, and holes; there is no need to cut one off.
 *
 * "lock" is the lock that keeps others out.  The data and map files are locked as
 * well, as a fence (see raw-lock.c): a write that a killed worker left in the
 * kernel holds on to its open file description, and with it to the lock.  Only
 * these are written to by io_uring; meta is written by system calls that end
 * before their process does.  Whoever reads the files beside us gets descriptions
 * of its own, which hold no lock.
 */
#include "config.h"

#include "overlay-files.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "common/util.h"
#include "overlay-layer.h"

#define HOLDER_MAX     200u /* the text in "lock" */
#define HOLDER_AT_MOST 4096 /* no byte of it is beyond this */

/* --- Calls, again after a signal ---------------------------------------------- */

static int allocate(int fd, int mode, off_t at, off_t length)
{
	while (fallocate(fd, mode, at, length) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int punch(int fd, off_t at, off_t length)
{
	return allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
			length);
}

static int sync_one(int fd)
{
	while (fdatasync(fd) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* --- Opening ------------------------------------------------------------------- */

static int say(const struct overlay_files *files, int err, const char *what,
	       const char *name, char *ret_why)
{
	return why(ret_why, err, "cannot %s %s/%s: %s", what, files->folder,
		   name, strerror(-err));
}

static int open_file(struct overlay_files *files, int dir, const char *name,
		     int flags, int *ret, char *ret_why)
{
	struct stat st;
	int fd = openat(dir, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
			0600);

	if (fd < 0)
		return say(files, -errno, "open", name, ret_why);
	*ret = fd;
	if (fstat(fd, &st) < 0)
		return say(files, -errno, "look at", name, ret_why);
	if (!S_ISREG(st.st_mode))
		return why(ret_why, -EBADMSG, "%s/%s is no regular file",
			   files->folder, name);
	return 0;
}

static int open_slot(struct overlay_files *files, int dir, unsigned int number,
		     char *ret_why)
{
	struct overlay_slot_files *slot = &files->slot[number];
	char data[16], map[16];
	int err;

	(void)snprintf(data, sizeof(data), "data%u", number);
	(void)snprintf(map, sizeof(map), "map%u", number);
	err = open_file(files, dir, data, O_RDWR | O_CREAT, &slot->data,
			ret_why);
	if (err == 0)
		err = open_file(files, dir, map, O_RDWR | O_CREAT, &slot->map,
				ret_why);
	if (err == 0)
		err = open_file(files, dir, data, O_RDONLY, &slot->read_data,
				ret_why);
	if (err == 0)
		err = open_file(files, dir, map, O_RDONLY, &slot->read_map,
				ret_why);
	return err;
}

/* Space that is given up must be free then, and not come back. */
static int check_holes(const struct overlay_files *files, char *ret_why)
{
	int err = punch(files->lock, HOLDER_AT_MOST, HOLDER_AT_MOST);

	if (err == 0)
		return 0;
	return why(ret_why, err,
		   "the file system of %s cannot make holes in files "
		   "(fallocate: %s): ext4, XFS, btrfs and tmpfs can",
		   files->folder, strerror(-err));
}

/* By where it is now: only for people. */
static void name_folder(struct overlay_files *files, int dir)
{
	char link[32];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	n = readlink(link, files->folder, sizeof(files->folder) - 1);
	files->folder[MAX(n, 0)] = '\0';
}

int files_open(struct overlay_files *files, int dir, char *ret_why)
{
	int err;

	memset(files, 0xff, offsetof(struct overlay_files, folder)); /* -1 */
	name_folder(files, dir);
	err = open_file(files, dir, "lock", O_RDWR | O_CREAT, &files->lock,
			ret_why);
	if (err == 0)
		err = open_file(files, dir, "meta", O_RDWR | O_CREAT,
				&files->meta, ret_why);
	for (unsigned int i = 0; err == 0 && i < OVERLAY_SLOTS; i++)
		err = open_slot(files, dir, i, ret_why);
	if (err == 0)
		err = check_holes(files, ret_why);
	if (err == 0 && fsync(dir) < 0)
		err = say(files, -errno, "make", "its files", ret_why);
	if (err < 0)
		files_close(files);
	return err;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

void files_close(struct overlay_files *files)
{
	close_one(&files->meta);
	for (unsigned int i = 0; i < OVERLAY_SLOTS; i++) {
		close_one(&files->slot[i].data);
		close_one(&files->slot[i].map);
		close_one(&files->slot[i].read_data);
		close_one(&files->slot[i].read_map);
	}
	close_one(&files->lock); /* the last: it stands for the others */
}

/* --- Locks --------------------------------------------------------------------- */

static int lock_one(int fd, bool wait)
{
	while (flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* Who has it, as it said itself. */
static void read_holder(const struct overlay_files *files,
			char ret[HOLDER_MAX + 1])
{
	ssize_t n = pread(files->lock, ret, HOLDER_MAX, 0);

	ret[MAX(n, 0)] = '\0';
	for (char *c = ret; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = *c == '\n' ? '\0' : '?';
	if (!*ret)
		(void)snprintf(ret, HOLDER_MAX,
			       "somebody who has not said who");
}

static void write_holder(const struct overlay_files *files, const char *holder)
{
	char text[HOLDER_MAX] = "";

	(void)snprintf(text, sizeof(text) - 1, "process %d, %s\n",
		       (int)getpid(), holder);
	(void)!pwrite(files->lock, text, sizeof(text), 0);
}

static int lock_main(const struct overlay_files *files, bool wait,
		     char *ret_why)
{
	char holder[HOLDER_MAX + 1];
	int err = lock_one(files->lock, wait);

	if (err == -EWOULDBLOCK) {
		read_holder(files, holder);
		return why(ret_why, -EBUSY, "%s is in use: %s has locked it",
			   files->folder, holder);
	}
	return err < 0 ? say(files, err, "lock", "lock", ret_why) : 0;
}

static int lock_slot(const struct overlay_files *files, unsigned int number,
		     bool wait, char *ret_why)
{
	const struct overlay_slot_files *slot = &files->slot[number];
	int err = lock_one(slot->data, wait);

	if (err == 0)
		err = lock_one(slot->map, wait);
	if (err == -EWOULDBLOCK)
		return why(ret_why, -EBUSY,
			   "%s is in use: data%u or map%u is still written to "
			   "by what a dead worker left, or locked by another "
			   "program",
			   files->folder, number, number);
	return err < 0 ?
		       say(files, err, "lock", "data and map files", ret_why) :
		       0;
}

int files_lock(struct overlay_files *files, const char *holder, bool wait,
	       char *ret_why)
{
	int err = lock_main(files, wait, ret_why);

	if (err < 0)
		return err;
	for (unsigned int i = 0; err == 0 && i < OVERLAY_SLOTS; i++)
		err = lock_slot(files, i, wait, ret_why);
	if (err < 0)
		files_unlock(files);
	else
		write_holder(files, holder);
	return err;
}

void files_unlock(struct overlay_files *files)
{
	for (unsigned int i = 0; i < OVERLAY_SLOTS; i++) {
		(void)flock(files->slot[i].data, LOCK_UN);
		(void)flock(files->slot[i].map, LOCK_UN);
	}
	(void)flock(files->lock, LOCK_UN);
}

/* --- Sizes and space ------------------------------------------------------------ */

static int check_one(const struct overlay_files *files, int fd,
		     const char *kind, unsigned int slot, uint64_t size,
		     char *ret_why)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return say(files, -errno, "look at", kind, ret_why);
	if ((uint64_t)st.st_size >= size)
		return 0;
	return why(ret_why, -EBADMSG,
		   "%s/%s%u has been cut off: it has %llu bytes, and had %llu "
		   "or more",
		   files->folder, kind, slot, (unsigned long long)st.st_size,
		   (unsigned long long)size);
}

int files_check(const struct overlay_files *files, unsigned int slot,
		uint64_t size, char *ret_why)
{
	int err = check_one(files, files->slot[slot].data, "data", slot, size,
			    ret_why);

	return err < 0 ? err :
			 check_one(files, files->slot[slot].map, "map", slot,
				   map_file_size(size / LAYER_SECTOR), ret_why);
}

/*
 * One byte where it shall end, which then is a hole as the rest is.  It stands
 * behind the end that the file had, so nothing is lost of what was there.  A file
 * that is long enough may be so in the page cache only, and is synced, too.
 */
static int extend_one(int fd, uint64_t size)
{
	struct stat st;
	int err = 0;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size < size)
		err = allocate(fd, 0, (off_t)size - 1, 1);
	if (err == 0 && (uint64_t)st.st_size < size)
		err = punch(fd, st.st_size, (off_t)size - st.st_size);
	return err < 0 ? err : sync_one(fd);
}

static int say_slot(const struct overlay_files *files, int err,
		    const char *what, unsigned int slot, char *ret_why)
{
	return why(ret_why, err, "cannot %s %s/data%u and map%u: %s", what,
		   files->folder, slot, slot, strerror(-err));
}

int files_extend(const struct overlay_files *files, unsigned int slot,
		 uint64_t size, char *ret_why)
{
	int err = extend_one(files->slot[slot].data, size);

	if (err == 0)
		err = extend_one(files->slot[slot].map,
				 map_file_size(size / LAYER_SECTOR));
	return err < 0 ? say_slot(files, err, "make larger", slot, ret_why) : 0;
}

static int empty_one(int fd)
{
	struct stat st;
	int err;

	if (fstat(fd, &st) < 0)
		return -errno;
	err = st.st_size > 0 ? punch(fd, 0, st.st_size) : 0;
	return err < 0 ? err : sync_one(fd);
}

/* The map first: without it the data means nothing. */
int files_empty(const struct overlay_files *files, unsigned int slot,
		char *ret_why)
{
	int err = empty_one(files->slot[slot].map);

	if (err == 0)
		err = empty_one(files->slot[slot].data);
	return err < 0 ? say_slot(files, err, "empty", slot, ret_why) : 0;
}

bool files_has_space(const struct overlay_files *files, unsigned int slot)
{
	struct stat data, map;

	return fstat(files->slot[slot].data, &data) < 0 ||
	       fstat(files->slot[slot].map, &map) < 0 || data.st_blocks > 0 ||
	       map.st_blocks > 0;
}
