/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/opener.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>

#include "broker/broker.h"
#include "common/reopen.h"
#include "common/util.h"

/* A worker waits 30 s for its disk to open: say why before that. */
#define RESOLVE_TIMEOUT_S 25
/* Also in activate(), which may wait for a server to come back. */
#define REOPEN_TIMEOUT_S 25

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
	const struct settings_root *roots;
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
		const char *rest = below(job->roots[i].path, path);

		if (rest)
			fd = open_below(job->roots[i].path, rest);
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
