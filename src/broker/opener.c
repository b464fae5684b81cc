/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/opener.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "broker/broker.h"
#include "common/reopen.h"
#include "common/util.h"

/* A worker waits 30 s for its disk to open: say why before that. */
#define RESOLVE_TIMEOUT_S 25
/* Also in activate(), which may wait for a server to come back. */
#define REOPEN_TIMEOUT_S 25
/* Freeing much space takes a while, and nobody waits for it. */
#define EMPTY_TIMEOUT_S 300

#define FLAGS_ALLOWED                                                       \
	(O_ACCMODE | O_DIRECT | O_SYNC | O_DSYNC | O_CLOEXEC | O_NOFOLLOW | \
	 O_NOATIME | O_NONBLOCK | O_DIRECTORY | O_EXCL | O_LARGEFILE)

int opener_check_flags(int flags, bool read_only)
{
	int mode = flags & O_ACCMODE;

	if (flags & ~FLAGS_ALLOWED)
		return -EINVAL;
	if (mode != O_RDONLY && mode != O_RDWR)
		return -EINVAL;
	return mode == O_RDWR && read_only ? -EROFS : 0;
}

/* --- In the child -------------------------------------------------------- */

struct resolve {
	const char *const *paths;
	size_t nr_paths;
	char *const *roots;
	size_t nr_roots;
};

/* The part of path below root, or NULL. */
static const char *below(const char *root, const char *path)
{
	size_t length = strlen(root);

	while (length > 0 && root[length - 1] == '/')
		length--;
	if (strncmp(path, root, length) != 0 || path[length] != '/')
		return NULL;
	path += length;
	while (*path == '/')
		path++;
	return *path ? path : ".";
}

/* The kernel refuses every ".." and link that would leave the root. */
static int open_below(const char *root, const char *path)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC,
				.resolve = RESOLVE_BENEATH |
					   RESOLVE_NO_MAGICLINKS };
	cleanup_close int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	long fd;

	if (dir < 0)
		return -errno;
	fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));
	if (fd < 0)
		return -errno;
	return (int)fd;
}

static int open_path(const struct resolve *job, const char *path)
{
	int fd = -EXDEV;

	if (job->nr_roots == 0) {
		fd = open(path, O_PATH | O_CLOEXEC);
		return fd < 0 ? -errno : fd;
	}
	for (size_t i = 0; i < job->nr_roots && fd < 0; i++) {
		const char *rest = below(job->roots[i], path);

		if (rest)
			fd = open_below(job->roots[i], rest);
	}
	return fd;
}

static void resolve_work(const void *arg)
{
	const struct resolve *job = arg;

	for (size_t i = 0; i < job->nr_paths; i++) {
		int fd = open_path(job, job->paths[i]);

		errand_report((uint32_t)i, MIN(fd, 0), fd);
		if (fd >= 0)
			(void)close(fd);
	}
}

static void reopen_work(const void *arg)
{
	int fd = reopen(ERRAND_FD, *(const int *)arg);

	errand_report(0, MIN(fd, 0), fd);
}

/* The worker that wrote to it may be dying just now; and whoever has the lock
 * after that has begun to use it. */
static bool lock_within_a_second(int fd)
{
	const struct timespec pause = { .tv_nsec = 50000000 };

	for (int i = 0; i < 20; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return true;
		(void)nanosleep(&pause, NULL);
	}
	return false;
}

/* QEMU, and what else locks bytes, does not look at flock(): a guest of ours was
 * kept waiting for an image that is in use there. */
static bool is_locked(int fd)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return fcntl(fd, F_OFD_SETLK, &whole) < 0 &&
	       (errno == EAGAIN || errno == EACCES);
}

static void free_content(int fd, off_t size)
{
	if (is_locked(fd))
		return;
	(void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			size);
}

static void empty_work(const void *arg)
{
	int fd = reopen(ERRAND_FD, O_RDWR | O_NONBLOCK);
	struct stat st;

	(void)arg;
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    !lock_within_a_second(fd))
		return;
	free_content(fd, st.st_size);
}

/* Which file it is: numbers are used again, but not at the same time. */
struct file_name {
	uint64_t device, inode;
	int64_t made_s;
	uint32_t made_ns;
	const char *path;
};

/* False: the file system does not tell, or it is none.  Asks no server. */
static bool name_of(int fd, struct file_name *ret)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
		  STATX_TYPE | STATX_INO | STATX_BTIME, &st) < 0 ||
	    !S_ISREG(st.stx_mode) || !(st.stx_mask & STATX_BTIME))
		return false;
	ret->device = makedev(st.stx_dev_major, st.stx_dev_minor);
	ret->inode = st.stx_ino;
	ret->made_s = st.stx_btime.tv_sec;
	ret->made_ns = st.stx_btime.tv_nsec;
	return true;
}

static bool is_same(int fd, const struct file_name *name)
{
	struct file_name now;

	return name_of(fd, &now) && now.device == name->device &&
	       now.inode == name->inode && now.made_s == name->made_s &&
	       now.made_ns == name->made_ns;
}

/* Such a lease is given to nobody as long as another one has the file open. */
static bool is_alone(int fd)
{
	return fcntl(fd, F_SETLEASE, F_WRLCK) == 0 &&
	       fcntl(fd, F_SETLEASE, F_UNLCK) == 0;
}

/* Some time has passed, in which it may have become somebody else's: an image that
 * a virtual machine uses, whose program has locks of another kind. */
static void empty_left_work(const void *arg)
{
	const struct file_name *name = arg;
	int path_fd = open(name->path, O_PATH | O_CLOEXEC);
	int fd = -1;
	struct stat st;

	if (path_fd >= 0 && is_same(path_fd, name))
		fd = reopen(path_fd, O_RDWR | O_NONBLOCK);
	if (fd >= 0 && fstat(fd, &st) == 0 && lock_within_a_second(fd) &&
	    is_alone(fd))
		free_content(fd, st.st_size);
}

/* --- In the broker ------------------------------------------------------- */

int opener_resolve(struct errand **ret, struct broker *broker,
		   const char *const *paths, size_t nr_paths,
		   void (*done)(void *ctx, struct errand_result *results),
		   void *ctx)
{
	const struct resolve job = {
		.paths = paths,
		.nr_paths = nr_paths,
		.roots = broker->settings->image_roots,
		.nr_roots = broker->settings->nr_image_roots,
	};
	const struct errand_spec spec = {
		.work = resolve_work,
		.arg = &job,
		.fd = -1,
		.nr_results = nr_paths,
		.timeout_s = RESOLVE_TIMEOUT_S,
		.done = done,
		.ctx = ctx,
	};

	return errand_start(ret, broker, &spec);
}

int opener_reopen(struct errand **ret, struct broker *broker, int path_fd,
		  int flags,
		  void (*done)(void *ctx, struct errand_result *results),
		  void *ctx)
{
	const struct errand_spec spec = {
		.work = reopen_work,
		.arg = &flags,
		.fd = path_fd,
		.nr_results = 1,
		.timeout_s = REOPEN_TIMEOUT_S,
		.done = done,
		.ctx = ctx,
	};

	return errand_start(ret, broker, &spec);
}

static void emptied(void *ctx, struct errand_result *results)
{
	(void)ctx;
	(void)results;
}

void opener_empty(struct broker *broker, int path_fd)
{
	const struct errand_spec spec = {
		.work = empty_work,
		.fd = path_fd,
		.nr_results = 1,
		.timeout_s = EMPTY_TIMEOUT_S,
		.done = emptied,
	};
	struct errand *errand;

	(void)errand_start(&errand, broker, &spec);
}

char *opener_name(int path_fd, const char *path)
{
	struct file_name name;

	if (strchr(path, '\n') || !name_of(path_fd, &name))
		return NULL;
	return xasprintf("%" PRIu64 " %" PRIu64 " %" PRId64 ".%" PRIu32 " %s",
			 name.device, name.inode, name.made_s, name.made_ns,
			 path);
}

void opener_empty_left(struct broker *broker, const char *text)
{
	struct file_name name;
	const struct errand_spec spec = {
		.work = empty_left_work,
		.arg = &name,
		.fd = -1,
		.nr_results = 1,
		.timeout_s = EMPTY_TIMEOUT_S,
		.done = emptied,
	};
	struct errand *errand;
	int end = 0;

	if (sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNd64 ".%" SCNu32 " %n",
		   &name.device, &name.inode, &name.made_s, &name.made_ns,
		   &end) != 4 ||
	    !end)
		return;
	name.path = text + end;
	(void)errand_start(&errand, broker, &spec);
}
