/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gitfs-open: what it takes to attach a tree of a repository.
 *
 * usage: gitfs-open REPO REV fat|erofs ROUNDS
 *
 * Each round is a process that does what gitfs does when it is opened, from the
 * name of the revision to the layout.  Prints the time that took, the CPU of it,
 * and the most memory that the process had, with the libraries; the best round.
 */
#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "../../backends/git/build.h"
#include "../../backends/git/layout.h"
#include "../../backends/git/repo.h"
#include "common/util.h"

#define CACHE (32u << 20) /* as gitfs has it */

struct figures {
	uint64_t wall_ns, cpu_ns;
	uint64_t peak; /* bytes */
	uint32_t nodes;
	uint64_t disk; /* bytes */
};

static int lay_out(int dir, const char *rev, const struct layout_ops *ops,
		   struct figures *ret, char *ret_why)
{
	struct build_source source = { .about = "bench\n",
				       .follow = true,
				       .posix = ops->posix };
	struct layout_options options = { .label = "GITFS" };
	int objects = openat(dir, "objects", O_RDONLY | O_DIRECTORY);
	struct vtree tree = { 0 };
	struct build_counts counts;
	struct revision revision;
	struct layout *layout;
	struct reader *reader;
	struct cache *cache;
	struct odb *odb;
	int r = repo_resolve(dir, rev, &revision, ret_why);

	if (r == 0)
		r = lfs_open(&source.lfs, dir, NULL, ret_why);
	if (r == 0)
		r = odb_open(&odb, objects, ret_why);
	if (r == 0)
		r = cache_new(&cache, CACHE);
	if (r == 0)
		r = reader_new(&reader, odb, cache);
	if (r < 0)
		return r;
	memcpy(source.tree, revision.tree, sizeof(source.tree));
	r = build_vtree(&tree, odb, reader, cache, &source, &counts, ret_why);
	if (r == 0)
		r = ops->make(&layout, &tree, &options, ret_why);
	if (r < 0)
		return r;
	ret->nodes = tree.nr;
	ret->disk = layout->size;
	return 0; /* the process ends */
}

static uint64_t nanoseconds(const struct timeval *tv)
{
	return (uint64_t)tv->tv_sec * 1000000000u +
	       (uint64_t)tv->tv_usec * 1000u;
}

/* In a process of its own; writes the figures. */
static int run_round(int to, int dir, const char *rev,
		     const struct layout_ops *ops)
{
	char reason[WHY_MAX] = "";
	struct figures figures = { 0 };
	struct rusage before, after;
	uint64_t begin = now_ns();

	(void)getrusage(RUSAGE_SELF, &before);
	if (lay_out(dir, rev, ops, &figures, reason) < 0) {
		(void)fprintf(stderr, "gitfs-open: %s\n", reason);
		return 1;
	}
	figures.wall_ns = now_ns() - begin;
	(void)getrusage(RUSAGE_SELF, &after);
	figures.cpu_ns =
		nanoseconds(&after.ru_utime) + nanoseconds(&after.ru_stime) -
		nanoseconds(&before.ru_utime) - nanoseconds(&before.ru_stime);
	figures.peak = (uint64_t)after.ru_maxrss << 10;
	return write(to, &figures, sizeof(figures)) != sizeof(figures);
}

static int fork_round(int dir, const char *rev, const struct layout_ops *ops,
		      struct figures *ret)
{
	int pipes[2], status;
	ssize_t got;
	pid_t pid;

	if (pipe(pipes) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		_exit(run_round(pipes[1], dir, rev, ops));
	(void)close(pipes[1]);
	got = read(pipes[0], ret, sizeof(*ret));
	(void)close(pipes[0]);
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0 ||
	    got != sizeof(*ret))
		return -EIO;
	return 0;
}

int main(int argc, char **argv)
{
	struct figures best = { .wall_ns = UINT64_MAX, .cpu_ns = UINT64_MAX };
	const struct layout_ops *ops = argc > 3 ? layout_ops_of(argv[3]) : NULL;
	int dir = argc > 1 ? open(argv[1], O_RDONLY | O_DIRECTORY) : -1;
	uint32_t rounds;

	if (argc != 5 || !ops || parse_u32(argv[4], 1000, &rounds) < 0 ||
	    dir < 0) {
		(void)fprintf(stderr, "usage: gitfs-open REPO REV fat|erofs "
				      "ROUNDS\n");
		return 2;
	}
	for (uint32_t i = 0; i < rounds; i++) {
		struct figures figures;

		if (fork_round(dir, argv[2], ops, &figures) < 0)
			return 1;
		best.wall_ns = MIN(best.wall_ns, figures.wall_ns);
		best.cpu_ns = MIN(best.cpu_ns, figures.cpu_ns);
		best.peak = MAX(best.peak, figures.peak);
		best.nodes = figures.nodes;
		best.disk = figures.disk;
	}
	printf("%s: %u files and folders: %.0f ms, CPU %.0f ms, %.1f MB; a "
	       "disk of %" PRIu64 " MB\n",
	       ops->name, best.nodes, (double)best.wall_ns / 1e6,
	       (double)best.cpu_ns / 1e6, (double)best.peak / 1e6,
	       best.disk / 1000000);
	return 0;
}
