/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse-failfs BACKING MOUNTPOINT - a file system with one file that fails on
 * command.
 *
 *     image     the file BACKING; O_DIRECT, holes and all
 *     control   what is written to it comes true: "OPERATION ERRNO [COUNT]"
 *
 * OPERATION is read, write, fsync or fallocate; ERRNO a number, 0 to end it;
 * COUNT how many times (for ever when left out).  Reading control gives the
 * count of calls so far, a line per operation.  Runs in the foreground until
 * it is unmounted or told to end (SIGTERM).
 */
#define FUSE_USE_VERSION 31
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum op { READ, WRITE, FSYNC, FALLOCATE, NR_OPS };

static const char *const op_name[NR_OPS] = { "read", "write", "fsync",
					     "fallocate" };
static struct {
	int error; /* positive */
	long left; /* failures to come */
	unsigned long calls;
} ops[NR_OPS];
static int image = -1;

/* 0, or the error that this call is to meet. */
static int fate(enum op op)
{
	int error = 0;

	ops[op].calls++;
	if (ops[op].error && ops[op].left > 0) {
		ops[op].left--;
		error = -ops[op].error;
	}
	return error;
}

static int command(const char *text)
{
	char name[16];
	int error, n;
	long count = LONG_MAX;

	n = sscanf(text, "%15s %d %ld", name, &error, &count);
	if (n < 2 || error < 0)
		return -EINVAL;
	for (int op = 0; op < NR_OPS; op++) {
		if (strcmp(name, op_name[op]) != 0)
			continue;
		ops[op].error = error;
		ops[op].left = count;
		return 0;
	}
	return -EINVAL;
}

static int report(char *buf, size_t size, off_t offset)
{
	char text[256];
	int n = 0;

	for (int op = 0; op < NR_OPS; op++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%s %lu\n",
			      op_name[op], ops[op].calls);
	if (offset >= n)
		return 0;
	if (size > (size_t)(n - offset))
		size = (size_t)(n - offset);
	memcpy(buf, text + offset, size);
	return (int)size;
}

static bool is_control(const char *path)
{
	return strcmp(path, "/control") == 0;
}

static int fail_getattr(const char *path, struct stat *st,
			struct fuse_file_info *fi)
{
	(void)fi;
	if (strcmp(path, "/image") == 0)
		return fstat(image, st) < 0 ? -errno : 0;
	memset(st, 0, sizeof(*st));
	st->st_nlink = 1;
	if (strcmp(path, "/") == 0)
		st->st_mode = S_IFDIR | 0755;
	else if (is_control(path))
		st->st_mode = S_IFREG | 0600;
	else
		return -ENOENT;
	return 0;
}

static int fail_readdir(const char *path, void *buf, fuse_fill_dir_t fill,
			off_t offset, struct fuse_file_info *fi,
			enum fuse_readdir_flags flags)
{
	(void)path, (void)offset, (void)fi, (void)flags;
	(void)fill(buf, "image", NULL, 0, 0);
	(void)fill(buf, "control", NULL, 0, 0);
	return 0;
}

static int fail_truncate(const char *path, off_t size,
			 struct fuse_file_info *fi)
{
	(void)fi;
	if (is_control(path))
		return 0; /* as the shell's > does */
	return ftruncate(image, size) < 0 ? -errno : 0;
}

static int fail_open(const char *path, struct fuse_file_info *fi)
{
	/* Each request comes to us, and errors go to who made it. */
	fi->direct_io = is_control(path) || (fi->flags & O_DIRECT) != 0;
	return 0;
}

static int fail_read(const char *path, char *buf, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	ssize_t n;
	int err;

	(void)fi;
	if (is_control(path))
		return report(buf, size, offset);
	err = fate(READ);
	if (err < 0)
		return err;
	n = pread(image, buf, size, offset);
	return n < 0 ? -errno : (int)n;
}

static int fail_write(const char *path, const char *buf, size_t size,
		      off_t offset, struct fuse_file_info *fi)
{
	char text[64];
	ssize_t n;
	int err;

	(void)fi;
	if (is_control(path)) {
		(void)snprintf(text, sizeof(text), "%.*s", (int)size, buf);
		err = command(text);
		return err < 0 ? err : (int)size;
	}
	err = fate(WRITE);
	if (err < 0)
		return err;
	n = pwrite(image, buf, size, offset);
	return n < 0 ? -errno : (int)n;
}

static int fail_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	int err = is_control(path) ? 0 : fate(FSYNC);

	(void)datasync, (void)fi;
	return err;
}

static int fail_fallocate(const char *path, int mode, off_t offset,
			  off_t length, struct fuse_file_info *fi)
{
	int err = fate(FALLOCATE);

	(void)path, (void)fi;
	if (err < 0)
		return err;
	return fallocate(image, mode, offset, length) < 0 ? -errno : 0;
}

static const struct fuse_operations operations = {
	.getattr = fail_getattr,
	.readdir = fail_readdir,
	.truncate = fail_truncate,
	.open = fail_open,
	.read = fail_read,
	.write = fail_write,
	.fsync = fail_fsync,
	.fallocate = fail_fallocate,
};

int main(int argc, char **argv)
{
	char foreground[] = "-f", single_threaded[] = "-s";
	char for_all[] = "-oallow_other";
	char *args[6] = { argv[0], foreground, single_threaded };
	int n = 3;

	if (argc != 3) {
		fprintf(stderr, "usage: %s BACKING MOUNTPOINT\n", argv[0]);
		return 2;
	}
	image = open(argv[1], O_RDWR | O_CLOEXEC);
	if (image < 0) {
		perror(argv[1]);
		return 1;
	}
	args[n++] = argv[2];
	/* Root's workers have users of their own. */
	if (getuid() == 0)
		args[n++] = for_all;
	return fuse_main(n, args, &operations, NULL);
}
