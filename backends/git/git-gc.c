/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git-gc.c - fewer packs, and fewer snapshots beside the branch: gc and thin.
 *
 * Packs are combined by the git of the system, which is careful with what others do
 * meanwhile; writers of ours have a ".keep" until a reference leads to what they
 * wrote, and what is open is pinned.
 */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "command/tables.h"
#include "git-tool.h"
#include "packed-refs.h"
#include "repo-confine.h"
#include "retention.h"
#include "safe-git.h"

/* Chunks, of which the smallest have 16 KiB, are not compared with each other;
 * trees, which have less than 8, are. */
#define THRESHOLD "core.bigFileThreshold=8192"
/* What nothing leads to is freed after that time, so that a reference which was
 * removed by mistake can be set again, and a push that has just come is safe. */
#define FREED "--cruft-expiration=1.hour.ago"

struct packed {
	uint64_t packs;
	uint64_t bytes;
};

uint64_t tool_count_packs(const struct tool_repo *repo, uint64_t *ret_bytes)
{
	int fd = openat(repo->packs, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	uint64_t packs = 0;
	struct stat st;

	*ret_bytes = 0;
	while (dir && (entry = readdir(dir))) {
		const char *dot = strrchr(entry->d_name, '.');

		if (fstatat(repo->packs, entry->d_name, &st,
			    AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode))
			*ret_bytes += (uint64_t)st.st_size;
		packs += dot && strcmp(dot, ".pack") == 0;
	}
	if (dir)
		(void)closedir(dir);
	else if (fd >= 0)
		(void)close(fd);
	return packs;
}

/* With a bar, where there is a terminal. */
static int run(struct tool_repo *repo, const char *const *args, char *ret_why)
{
	struct meter meter = { .passes_on = false };
	int r;

	if (!isatty(STDERR_FILENO))
		return safe_git(repo->dir, args, tool_interrupted, ret_why);
	r = safe_git_told(repo->dir, args, meter_take, &meter, tool_interrupted,
			  ret_why);
	meter_end(&meter);
	return r;
}

static int collect(struct tool_repo *repo, bool full, char *ret_why)
{
	static const char *const refs[] = { "pack-refs", "--all", "--prune",
					    NULL };
	const char *quiet = isatty(STDERR_FILENO) ? "--no-quiet" : "--quiet";
	const char *const combine[] = { "-c",		THRESHOLD,
					"repack",	"-d",
					quiet,		"--geometric=2",
					"--write-midx", NULL };
	const char *const all[] = { "-c",  THRESHOLD,	   "repack",
				    "-d",  quiet,	   "--cruft",
				    FREED, "--write-midx", NULL };
	int r;

	/* The committer of a disk takes it as well. */
	if (flock(repo->packs, LOCK_EX | LOCK_NB) < 0)
		return why(ret_why, -EBUSY, "somebody else is at it");
	repo_stand_back();
	(void)tool_interrupted(); /* from now on a signal only says so */
	(void)packed_refs_clean(repo->dir);
	r = safe_git(repo->dir, refs, tool_interrupted, ret_why);
	if (r == 0)
		r = run(repo, full ? all : combine, ret_why);
	(void)flock(repo->packs, LOCK_UN);
	if (r < 0 && tool_interrupted())
		return why(ret_why, -EINTR, "interrupted");
	return r == -ENOENT ?
		       why(ret_why, -EOPNOTSUPP, "git is not installed") :
		       r;
}

static enum status print_packed(const struct invocation *call,
				const struct packed *before,
				const struct packed *after)
{
	if (call->json)
		return print_json(json_pack(
			"{s:[I,I],s:[I,I]}", "packs", (json_int_t)before->packs,
			(json_int_t)after->packs, "bytes",
			(json_int_t)before->bytes, (json_int_t)after->bytes));
	printf("packs: %" PRIu64 " of %" PRIu64 " bytes; before: %" PRIu64
	       " of %" PRIu64 " bytes\n",
	       after->packs, after->bytes, before->packs, before->bytes);
	return STATUS_DONE;
}

enum status verb_gc(const struct invocation *call)
{
	struct packed before, after;
	struct tool_repo repo;
	char reason[WHY_MAX];
	enum status status = tool_open(call, call->args[0], &repo);
	int r;

	if (status != STATUS_DONE)
		return status;
	before.packs = tool_count_packs(&repo, &before.bytes);
	r = collect(&repo, option(call, "full"), reason);
	after.packs = tool_count_packs(&repo, &after.bytes);
	status = r < 0 ? tool_fail(call, r, call->args[0], reason) :
			 print_packed(call, &before, &after);
	tool_close(&repo);
	return status;
}

enum status verb_thin(const struct invocation *call)
{
	const char *rules = option(call, "keep");
	const char *disk = call->args[1];
	struct tool_repo repo;
	char reason[WHY_MAX];
	unsigned int removed = 0;
	enum status status;
	struct keep keep;
	int r;

	if (!rules || !*rules)
		return tool_usage(call, "--keep is missing");
	if (keep_parse(rules, &keep, reason) < 0)
		return tool_usage(call, "--%s", reason); /* "keep: ..." */
	if (refs_check_branch(disk, reason) < 0)
		return tool_usage(call, "%s", reason);
	status = tool_open(call, call->args[0], &repo);
	if (status != STATUS_DONE)
		return status;
	r = retention_thin(repo.git, disk, &keep, &removed, reason);
	if (r < 0)
		status = tool_fail(call, r, disk, reason);
	else if (call->json)
		status = print_json(
			json_pack("{s:I}", "removed", (json_int_t)removed));
	else
		printf("%u removed\n", removed);
	tool_close(&repo);
	return status;
}
