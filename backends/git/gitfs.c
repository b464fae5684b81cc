/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gitfs.c - a tree of a git repository as a disk with a file system.
 *
 * Theory of operation
 *
 * open() does all that needs a path or a name, before the worker is isolated:
 * libgit2 says which tree the revision is, the tree is walked, each file's place
 * in its pack is found, the file system is laid out: by one of those of layout.h.
 * What stays is a table of where each file is, and the packs' descriptors; with
 * these any read can be answered, whatever becomes of the repository.
 *
 * The disk is a function of the commit, the path and the options: the same on
 * every host.  Which commit (or tree) a revision meant at first is kept for the
 * worker that may take this one's place, so that nothing changes under a guest.
 */
#include "config.h"

#include "gitfs.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>

#include "common/util.h"
#include "gitfs-write.h"
#include "repo.h"

/* --- Which commit ------------------------------------------------------------- */

/* What an earlier worker took down; 0 bytes: it is the first. */
static int read_kept(int fd, char ret[OID_HEX + 1])
{
	ssize_t n = pread(fd, ret, OID_HEX, 0);

	if (n < 0)
		return -errno;
	ret[n == OID_HEX ? OID_HEX : 0] = '\0';
	if (strspn(ret, "0123456789abcdef") != OID_HEX)
		ret[0] = '\0';
	return 0;
}

/* kept: "", or the commit that an earlier worker had. */
static int resolve_kept(struct gitfs *gitfs, int dir, const char *kept,
			struct revision *ret)
{
	struct xd_disk *disk = gitfs->disk;
	const char *rev = xd_arg_string(disk, "rev");
	const char *path = strchr(rev, ':');
	cleanup_free char *name = NULL;
	char reason[WHY_MAX] = "";
	int r;

	if (gitfs->write)
		return write_back_base(gitfs->write, dir, *kept != '\0', ret);
	name = *kept ? xasprintf("%s%s", kept, path ? path : "") : strdup(rev);
	r = name ? repo_resolve(dir, name, ret, reason) : -ENOMEM;
	if (r < 0)
		xd_error(disk, "%s: %s", xd_arg_string(disk, "repo"),
			 *reason ? reason : strerror(-r));
	return r;
}

static int resolve(struct gitfs *gitfs, int dir, struct revision *ret)
{
	char kept[OID_HEX + 1];
	bool was_kept;
	cleanup_close int fd = xd_keep(gitfs->disk, "commit", XD_KEEP_STATE,
				       OID_HEX, &was_kept);
	int r = fd < 0 ? fd : read_kept(fd, kept);

	if (r < 0)
		return r; /* xd_keep() has said why */
	r = resolve_kept(gitfs, dir, kept, ret);
	if (r < 0)
		return r;
	oid_hex(ret->id, kept);
	return pwrite_all(fd, kept, OID_HEX, 0);
}

/* --- Options ---------------------------------------------------------------------- */

enum layout_partition gitfs_partition(const struct xd_disk *disk)
{
	return xd_arg_bool(disk, "esp") ? LAYOUT_ESP :
	       xd_arg_bool(disk, "mbr") ? LAYOUT_MBR :
					  LAYOUT_BARE;
}

static int get_options(const struct gitfs *gitfs, const struct revision *rev,
		       const struct layout_ops **ret_ops,
		       struct layout_options *ret)
{
	struct xd_disk *disk = gitfs->disk;
	const struct layout_ops *ops =
		layout_ops_of(xd_arg_string(disk, "format"));
	char reason[WHY_MAX] = "";
	int r;

	*ret = (struct layout_options){
		.label = xd_arg_string(disk, "label"),
		.partition = gitfs_partition(disk),
		.writable = gitfs->write,
		.size = xd_arg_u64(disk, "size"),
	};
	memcpy(ret->id, rev->id, sizeof(ret->id));
	if (ops->posix && xd_arg_set(disk, "symlinks"))
		r = why(reason, -EINVAL,
			"symlinks: format=%s has them as they are", ops->name);
	else
		r = ops->check(ret, reason);
	if (r < 0)
		xd_error(disk, "%s", reason);
	*ret_ops = ops;
	return r;
}

/* --- Opening ------------------------------------------------------------------------ */

static void note(struct xd_disk *disk, const struct revision *rev,
		 const struct build_counts *counts, const struct layout *layout)
{
	char id[OID_HEX + 1], format[80];

	oid_hex(rev->id, id);
	layout->ops->describe(layout, format, sizeof(format));
	xd_note(disk, "%s %s; %u files, %u folders; %s",
		rev->has_commit ? "commit" : "tree", id, counts->files,
		counts->folders, format);
	if (rev->has_commit)
		xd_changed(disk, id, "pinned to that commit");
	if (counts->renamed)
		xd_note(disk, "%u names are not as in git: /.xendisk/names",
			counts->renamed);
	if (counts->texts)
		xd_note(disk, "%u symbolic links are files with their target",
			counts->texts);
	if (counts->modules)
		xd_note(disk, "%u submodules are empty folders",
			counts->modules);
	if (counts->lfs)
		xd_note(disk, "%u files are objects of Git LFS", counts->lfs);
	if (counts->pointers)
		xd_note(disk,
			"%u files are pointers of Git LFS: their objects are "
			"not in lfs/objects",
			counts->pointers);
}

static int lay_out(struct gitfs *gitfs, const struct revision *rev, int objects,
		   char *ret_why)
{
	const char *links = xd_arg_string(gitfs->disk, "symlinks");
	cleanup_free char *about = revision_about(rev);
	const struct layout_ops *ops;
	struct layout_options options;
	struct build_counts counts = { 0 };
	struct build_source source = {
		.time = rev->time,
		.about = about,
		.follow = !links || strcmp(links, "follow") == 0,
		.lfs = gitfs->lfs,
	};
	int r = about ? get_options(gitfs, rev, &ops, &options) : -ENOMEM;

	if (r < 0)
		return r;
	source.posix = ops->posix;
	memcpy(source.tree, rev->tree, OID_BYTES);
	r = tree_disk_make(&gitfs->laid, objects, &source, ops, &options,
			   &counts, ret_why);
	if (r < 0)
		return r;
	odb_settle(gitfs->laid.odb);
	if (gitfs->lfs)
		lfs_settle(gitfs->lfs);
	note(gitfs->disk, rev, &counts, gitfs->laid.layout);
	return 0;
}

static int charge(struct gitfs *gitfs)
{
	uint64_t bytes = odb_loose_bytes(gitfs->laid.odb);
	int r = bytes ? xd_budget(gitfs->disk, (int64_t)bytes) : 0;

	if (r < 0)
		xd_error(gitfs->disk,
			 "copying loose objects takes %" PRIu64 " bytes%s",
			 bytes,
			 r == -ENOSPC ? ", which mem-limit does not allow: try "
					"git gc" :
					": the daemon does not answer");
	else
		gitfs->charged = bytes;
	return r;
}

static int open_wakes(struct gitfs *gitfs)
{
	for (unsigned int i = 0; i < GITFS_LANES; i++) {
		gitfs->wake[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (gitfs->wake[i] < 0)
			return -errno;
	}
	return 0;
}

static bool is_writable(const struct xd_disk *disk)
{
	return xd_arg_bool(disk, "rw") && !xd_readonly(disk);
}

static int check_writing(struct xd_disk *disk)
{
	const char *fault = NULL;

	if (!xd_arg_bool(disk, "rw") && xd_arg_set(disk, "commit"))
		fault = "commit: nothing is written without rw=yes";
	else if (!xd_arg_bool(disk, "rw") && xd_arg_set(disk, "size"))
		fault = "size: there is no use for room without rw=yes";
	else if (xd_arg_bool(disk, "rw") && !xd_arg_set(disk, "commit"))
		fault = "rw: commit= says which branch gets what is written";
	else if (xd_arg_bool(disk, "rw") &&
		 strcmp(xd_arg_string(disk, "format"), "fat") != 0)
		fault = "rw: only format=fat can be written to";
	if (!fault)
		return 0;
	xd_error(disk, "%s", fault);
	return -EINVAL;
}

static int open_lfs(struct gitfs *gitfs, int dir, char *ret_why)
{
	cleanup_free char *storage = NULL;
	int r;

	if (gitfs->write || !xd_arg_bool(gitfs->disk, "lfs"))
		return 0;
	r = repo_setting(dir, "lfs.storage", &storage, ret_why);
	if (r < 0)
		return r;
	if (!storage || *storage != '/')
		return lfs_open(&gitfs->lfs, dir, storage, ret_why);
	xd_note(gitfs->disk,
		"lfs.storage is %.200s, and only what is in the repository is "
		"read: files of Git LFS are pointers",
		storage);
	return 0;
}

static int open_tree(struct xd_disk *disk, struct gitfs *gitfs)
{
	cleanup_close int dir = xd_open(disk, "repo", O_RDONLY | O_DIRECTORY);
	cleanup_close int objects = -1;
	char reason[WHY_MAX] = "";
	struct revision rev;
	int r;

	if (dir < 0)
		return dir; /* xd_open() has said why */
	r = check_writing(disk);
	/* The next worker, and whoever makes a commit, must lay out the same. */
	if (r == 0 && is_writable(disk))
		r = write_back_new(&gitfs->write, gitfs, dir);
	if (r == 0)
		r = resolve(gitfs, dir, &rev);
	if (r < 0)
		return r;
	r = open_lfs(gitfs, dir, reason);
	objects = openat(dir, "objects",
			 O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (objects < 0 && r == 0)
		r = why(reason, -errno, "objects: %s", strerror(errno));
	if (r == 0)
		r = lay_out(gitfs, &rev, objects, reason);
	if (r == -ENOMEM && !*reason)
		(void)why(reason, r, "there is not enough memory");
	if (r < 0 && *reason) /* else a try before the last has failed */
		xd_error(disk, "%s: %s", xd_arg_string(disk, "repo"), reason);
	if (r == 0)
		r = charge(gitfs);
	if (r == 0 && gitfs->write)
		r = write_back_ready(gitfs->write, &rev,
				     gitfs->laid.layout->size);
	return r == 0 ? open_wakes(gitfs) : r;
}

static void gitfs_free(struct gitfs *gitfs)
{
	for (unsigned int i = 0; i < GITFS_LANES; i++)
		if (gitfs->wake[i] >= 0)
			(void)close(gitfs->wake[i]);
	if (gitfs->charged)
		(void)xd_budget(gitfs->disk, -(int64_t)gitfs->charged);
	write_back_free(gitfs->write);
	tree_disk_free(&gitfs->laid);
	lfs_close(gitfs->lfs);
	pthread_cond_destroy(&gitfs->news);
	pthread_mutex_destroy(&gitfs->lock);
	free(gitfs);
}

static int gitfs_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	struct gitfs *gitfs = calloc(1, sizeof(*gitfs));
	int r;

	if (!gitfs)
		return -ENOMEM;
	gitfs->disk = disk;
	for (unsigned int i = 0; i < GITFS_LANES; i++)
		gitfs->wake[i] = -1;
	pthread_mutex_init(&gitfs->lock, NULL);
	pthread_cond_init(&gitfs->news, NULL);
	r = open_tree(disk, gitfs);
	if (r < 0) {
		gitfs_free(gitfs);
		return r;
	}
	disk->data = gitfs;
	*ret_limits = (struct xd_limits){
		.size = gitfs->laid.layout->size,
		.sector_size = LAYOUT_SECTOR,
		.physical_sector_size = 4096,
		.memory_alignment = 1,
		.max_channels = GITFS_LANES,
		.readonly = !gitfs->write,
		.flush = gitfs->write,
		.fua = gitfs->write,
	};
	return 0;
}

static void gitfs_close(struct xd_disk *disk)
{
	gitfs_free(disk->data);
}

static int gitfs_activate(struct xd_disk *disk, bool recover)
{
	struct gitfs *gitfs = disk->data;

	return gitfs->write ? write_back_activate(gitfs->write, recover) : 0;
}

static int gitfs_deactivate(struct xd_disk *disk)
{
	struct gitfs *gitfs = disk->data;

	return gitfs->write ? write_back_deactivate(gitfs->write) : 0;
}

static int gitfs_control(struct xd_disk *disk, const char *verb,
			 const char *text, char *ret_text, size_t size)
{
	struct gitfs *gitfs = disk->data;

	return gitfs->write ? write_back_control(gitfs->write, verb, text,
						 ret_text, size) :
			      -EOPNOTSUPP;
}

static const struct xd_param gitfs_params[] = {
	{ "repo", XD_PATH, XD_POSITIONAL | XD_REQUIRED, NULL, NULL,
	  "the repository: a bare one, or a folder .git" },
	{ "rev", XD_STRING, 0, NULL, "HEAD",
	  "the revision, as git has it, maybe with :PATH of a folder" },
	{ "format", XD_ENUM, 0, "fat|erofs", "fat",
	  "the file system: erofs has modes, symbolic links, large files" },
	{ "label", XD_STRING, 0, NULL, "GITFS", "name of the file system" },
	{ "symlinks", XD_ENUM, 0, "follow|text", NULL,
	  "fat: what a symbolic link to a file is: that file, or its target" },
	{ "mbr", XD_BOOL, 0, NULL, "no",
	  "a partition table in front of the file system" },
	{ "esp", XD_BOOL, 0, NULL, "no",
	  "fat: the same, and an EFI system partition" },
	{ "lfs", XD_BOOL, 0, NULL, "yes",
	  "files of Git LFS whose objects are in the repository are those" },
	{ "rw", XD_BOOL, 0, NULL, "no",
	  "fat: a guest may write, and that becomes commits" },
	{ "commit", XD_STRING, 0, NULL, NULL,
	  "rw: the branch that gets them; it begins at rev" },
	{ "size", XD_SIZE, 0, NULL, NULL,
	  "rw: of the disk; what the files do not take is free" },
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

XD_API const struct xd_backend xendisk_backend_v1 = {
	.size = sizeof(struct xd_backend),
	.version = XD_API_VERSION,
	.name = "gitfs",
	.summary = "a tree of a git repository as a disk, FAT or EROFS",
	.params = gitfs_params,
	.open = gitfs_open,
	.close = gitfs_close,
	.activate = gitfs_activate,
	.deactivate = gitfs_deactivate,
	.control = gitfs_control,
	.channel_open = gitfs_channel_open,
	.channel_close = gitfs_channel_close,
	.submit = gitfs_submit,
};
