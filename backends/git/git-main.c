/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xendisk-git: `xendisk git VERB`, and the companions of git disks, which start it
 * themselves.  The verbs are a table as that of xendisk(1); a test holds it against
 * xendisk-git(7).  Its main() is that of verbs.c.
 */
#include "config.h"

#include "committer-main.h"
#include "fat-commit.h"
#include "git-tool.h"

const struct program program = {
	.name = "xendisk git",
	.prefix = "git ",
	.alone = "git: ",
	.about =
		"REPO is the folder of a bare repository.  DISK is a branch of it, "
		"REV any\n"
		"revision that git knows.  See xendisk-git(7).",
};

static enum status verb_complete(const struct invocation *call)
{
	struct typed typed;

	read_typed(call, &typed);
	if (typed.file)
		return STATUS_DONE;
	if (!typed.verb)
		offer_verbs(typed.last);
	else if (typed.last[0] == '-')
		offer_options(typed.verb, typed.last);
	return STATUS_DONE;
}

/* Its descriptors are in committer.h. */
static enum status verb_committer(const struct invocation *call)
{
	(void)call;
	return committer_main() == 0 ? STATUS_DONE : STATUS_FAILED;
}

/* ... and in fat-commit.h. */
static enum status verb_fat_commit(const struct invocation *call)
{
	(void)call;
	return fat_commit_main() == 0 ? STATUS_DONE : STATUS_FAILED;
}

const struct verb verbs[] = {
	{ .name = "init",
	  .synopsis = "REPO",
	  .min_args = 1,
	  .max_args = 1,
	  .summary = "make a repository for disks",
	  .run = verb_init },
	{ .name = "create",
	  .synopsis = "REPO DISK",
	  .min_args = 2,
	  .max_args = 2,
	  .summary = "make a disk, all zero; prints the commit",
	  .options = { { "message", "TEXT", "of the commit" },
		       { "size", "SIZE", "of the disk" },
		       { "chunk", "SIZE", "16K to 1M; else by its size" } },
	  .letters = "m",
	  .required = "size",
	  .once = true,
	  .run = verb_create },
	{ .name = "import",
	  .synopsis = "REPO DISK IMAGE",
	  .min_args = 3,
	  .max_args = 3,
	  .summary = "make a disk of an image; prints the commit",
	  .options = { { "message", "TEXT", "of the commit" },
		       { "format", "FORMAT",
			 "raw (without one), qcow2, vhd, vmdk" },
		       { "chunk", "SIZE", "16K to 1M; else by its size" },
		       { "compress", "HOW", "auto (without one), none" } },
	  .letters = "m",
	  .once = true,
	  .run = verb_import },
	{ .name = "fork",
	  .synopsis = "REPO REV NEW",
	  .min_args = 3,
	  .max_args = 3,
	  .summary = "make a disk of any revision; prints the commit",
	  .run = verb_fork },
	{ .name = "rollback",
	  .synopsis = "REPO DISK REV",
	  .min_args = 3,
	  .max_args = 3,
	  .summary = "make a disk what it was; prints the commit",
	  .options = { { "message", "TEXT", "of the commit" },
		       { "state-dir", "DIR",
			 "of the daemon [/var/lib/xendisk]" } },
	  .letters = "m",
	  .once = true,
	  .run = verb_rollback },
	{ .name = "export",
	  .synopsis = "REPO REV",
	  .min_args = 2,
	  .max_args = 2,
	  .summary = "write a disk into a raw image",
	  .options = { { "output", "FILE", "the image" },
		       { "force", NULL, "also over a file that is there" } },
	  .letters = "o",
	  .required = "output",
	  .once = true,
	  .run = verb_export },
	{ .name = "log",
	  .synopsis = "REPO DISK",
	  .min_args = 2,
	  .max_args = 2,
	  .summary = "list the snapshots of a disk, the newest first",
	  .options = { { "number", "N", "only so many" } },
	  .letters = "n",
	  .once = true,
	  .run = verb_log },
	{ .name = "diff",
	  .synopsis = "REPO A B",
	  .min_args = 3,
	  .max_args = 3,
	  .summary = "list the bytes and files that differ",
	  .options = { { "bytes", NULL, "only those, not the files" },
		       { "files", NULL, "only those, not the bytes" } },
	  .run = verb_diff },
	{ .name = "push",
	  .synopsis = "REPO REMOTE DISK",
	  .min_args = 3,
	  .max_args = 3,
	  .summary = "bring a disk elsewhere; prints the commit",
	  .options = { { "auto", NULL, "its interval snapshots, too" },
		       { "lease", "TIME", "nobody else for so long (1h)" },
		       { "release", NULL, "others may push from now on" },
		       { "take", NULL, "whoever has the lease" } },
	  .once = true,
	  .run = verb_push },
	{ .name = "pull",
	  .synopsis = "REPO REMOTE DISK",
	  .min_args = 3,
	  .max_args = 3,
	  .summary = "get a disk from there; prints the commit",
	  .options = { { "take", NULL, "and the lease, whoever has it" } },
	  .once = true,
	  .run = verb_pull },
	{ .name = "thin",
	  .synopsis = "REPO DISK",
	  .min_args = 2,
	  .max_args = 2,
	  .summary = "remove interval snapshots that need not stay",
	  .options = { { "keep", "RULES", "24h,7d,4w: those that stay" } },
	  .required = "keep",
	  .once = true,
	  .run = verb_thin },
	{ .name = "gc",
	  .synopsis = "REPO",
	  .min_args = 1,
	  .max_args = 1,
	  .summary = "combine packs; disks may be in use meanwhile",
	  .options = { { "full", NULL,
			 "write all of them anew, free what nothing needs" } },
	  .run = verb_gc },
	{ .name = "doctor",
	  .synopsis = "REPO",
	  .min_args = 1,
	  .max_args = 1,
	  .summary = "look for faults, and mend what can be mended",
	  .options = { { "fix", NULL, "and mend what can be mended" },
		       { "state-dir", "DIR",
			 "of the daemon: also for what disks there left" } },
	  .run = verb_doctor },
	{ .name = "committer",
	  .synopsis = "",
	  .summary = "called by git disks",
	  .run = verb_committer,
	  .hidden = true },
	{ .name = "fat-commit",
	  .synopsis = "",
	  .summary = "called by gitfs disks that may be written",
	  .run = verb_fat_commit,
	  .hidden = true },
	{ .name = "complete",
	  .synopsis = "[WORD...]",
	  .max_args = 64,
	  .summary = "called by the shell's completion",
	  .run = verb_complete,
	  .hidden = true },
	{ .name = NULL },
};
