/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * git.c - a disk in a git repository.
 *
 * Theory of operation
 *
 * What the disk holds is a commit, and what was written since: layers, in the
 * state folder of the disk (overlay.h).  The worker knows nothing of repositories:
 * a process beside it, the committer, says what a revision is, hands packs over
 * as descriptors, and makes commits of layers (committer.h).  Both are there
 * before the worker is isolated; from then on all is done by descriptors.
 *
 *   git.c       parameters; open, activate, and the way back
 *   git-io.c    reading: layers, then the base           lanes
 *   git-change.c  writing, zeroes, flush; the gate       lanes
 *   live.c      what was written, for the next worker    lanes
 *   jobs.c      what has to wait: base.c                 threads
 *   client.c    the committer; snapshot.c: layers        a thread, and the main one
 *   client-use.c  a guest comes and goes                the main one
 *   client-control.c  what the operator wants           the main one
 *
 * Read-only there is no state folder and no layer, and the commit stays the same
 * one, also for the worker that may take this one's place.
 */
#include "config.h"

#include "git.h"
#include "overlay-key.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/vfs.h>

#include "client.h"
#include "common/crash.h"
#include "common/util.h"

#define PHYSICAL     4096u
#define CACHE_MOST   (8ull << 30)
#define TMPFS_MAGIC_ 0x01021994
#define RAMFS_MAGIC_ 0x858458f6

/* --- Which disk ----------------------------------------------------------------- */

static int fill(struct xd_disk *disk, char *ret, size_t size, const char *name)
{
	const char *value = xd_arg_string(disk, name);
	int n = snprintf(ret, size, "%s", value ? value : "");

	if (n >= 0 && (size_t)n < size)
		return 0;
	xd_error(disk, "%s: it has more than %zu bytes", name, size - 1);
	return -ENAMETOOLONG;
}

/* A revision is read-only, but for a fork. */
static int get_options(struct xd_disk *disk, struct cm_open *ret)
{
	bool fork = xd_arg_set(disk, "fork");
	bool rev = xd_arg_set(disk, "rev");
	int r;

	*ret = (struct cm_open){ .flags = 0 };
	if (fork && !rev) {
		xd_error(disk, "fork: it needs rev=, where it begins");
		return -EINVAL;
	}
	if (fork)
		ret->flags |= CM_OPEN_FORK;
	if ((rev && !fork) || xd_readonly(disk))
		ret->flags |= CM_OPEN_READONLY;
	if (strcmp(xd_arg_string(disk, "compress"), "none") == 0)
		ret->flags |= CM_OPEN_STORE;
	if (fork && ret->flags & CM_OPEN_READONLY) {
		xd_error(disk, "fork: a branch is made by who may write to it; "
			       "rev= without fork= only reads");
		return -EROFS;
	}
	r = fill(disk, ret->branch, sizeof(ret->branch),
		 fork ? "fork" : "branch");
	if (r == 0)
		r = fill(disk, ret->rev, sizeof(ret->rev), "rev");
	return r < 0 ? r : fill(disk, ret->keep, sizeof(ret->keep), "keep");
}

/* The commit that an earlier worker has shown: "" if this is the first one. */
static int read_kept(struct xd_disk *disk, int *ret_fd, char ret[OID_HEX + 1])
{
	bool kept;
	int fd = xd_keep(disk, "commit", XD_KEEP_STATE, OID_HEX, &kept);
	ssize_t n;

	if (fd < 0)
		return fd; /* xd_keep() has said why */
	n = pread(fd, ret, OID_HEX, 0);
	ret[n == OID_HEX ? OID_HEX : 0] = '\0';
	if (strspn(ret, "0123456789abcdef") != OID_HEX)
		ret[0] = '\0';
	*ret_fd = fd;
	return 0;
}

/* --- Opening ------------------------------------------------------------------------ */

static int real_path(struct xd_disk *disk, int dir, char ret[PATH_MAX])
{
	char link[32];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	n = readlink(link, ret, PATH_MAX - 1);
	if (n < 0) {
		n = -errno;
		xd_error(disk, "%s: %s", xd_arg_string(disk, "repo"),
			 strerror(errno));
		return (int)n;
	}
	ret[n] = '\0';
	return 0;
}

static int fails(struct xd_disk *disk, int err, const char *reason)
{
	xd_error(disk, "%s: %s", xd_arg_string(disk, "repo"), reason);
	return err;
}

/* Before the committer says where the branch is: what it says is the newer. */
static int open_overlay(struct git *git, int state, const char *repo,
			const char *branch, struct overlay **ret,
			bool *ret_found, struct overlay_facts *ret_facts)
{
	char holder[32], reason[WHY_MAX] = "";
	const struct overlay_of of = { .repo = repo,
				       .branch = branch,
				       .holder = holder };
	struct statfs fs;
	int r;

	(void)snprintf(holder, sizeof(holder), "process %d", (int)getpid());
	r = overlay_open(ret, state, &of, ret_found, ret_facts, reason);
	if (r < 0)
		return fails(git->disk, r, reason);
	git->in_memory =
		fstatfs(state, &fs) == 0 &&
		(fs.f_type == TMPFS_MAGIC_ || fs.f_type == RAMFS_MAGIC_);
	return 0;
}

/* What the overlay stands on; *facts of one that is not there yet. */
static void set_facts(struct client *client, bool found,
		      struct overlay_facts *facts)
{
	const struct cm_opened *opened = &client->opened;

	if (!found) {
		*facts = (struct overlay_facts){ .size = opened->size,
						 .base_size = opened->size,
						 .chunk = opened->chunk };
		memcpy(facts->base, opened->commit, OID_BYTES);
		memcpy(facts->head, opened->commit, OID_BYTES);
	}
	client->facts = *facts;
	memcpy(client->found_head, facts->head, OID_BYTES);
}

static void note(struct git *git)
{
	const struct client *client = git->client;
	char id[OID_HEX + 1];

	oid_hex(client->opened.commit, id);
	if (client->overlay)
		xd_note(git->disk, "branch %s, commit %s; chunks of %u KiB",
			client->open.branch, id, client->opened.chunk >> 10);
	else
		xd_note(git->disk, "commit %s, read-only; chunks of %u KiB", id,
			client->opened.chunk >> 10);
}

static int open_readonly(struct git *git, int dir, struct cm_open *open)
{
	char reason[WHY_MAX] = "", kept[OID_HEX + 1], id[OID_HEX + 1];
	cleanup_close int fd = -1;
	int r = read_kept(git->disk, &fd, kept);

	if (r < 0)
		return r;
	if (*kept)
		(void)snprintf(open->rev, sizeof(open->rev), "%s", kept);
	r = client_new(&git->client, git, -1, dir, open, reason);
	if (r < 0)
		return fails(git->disk, r, reason);
	oid_hex(git->client->opened.commit, id);
	r = pwrite_all(fd, id, OID_HEX, 0);
	return r < 0 ? fails(git->disk, r, strerror(-r)) : 0;
}

static int open_writable(struct git *git, int dir, struct cm_open *open)
{
	char repo[PATH_MAX], key[OVERLAY_KEY_MAX], reason[WHY_MAX] = "";
	cleanup_close int state = -1;
	struct overlay_facts facts;
	struct overlay *overlay;
	bool found;
	int r = real_path(git->disk, dir, repo);

	if (r < 0)
		return r;
	overlay_key(repo, open->branch, key);
	state = xd_state(git->disk, key);
	if (state < 0)
		return state; /* xd_state() has said why */
	r = open_overlay(git, state, repo, open->branch, &overlay, &found,
			 &facts);
	if (r < 0)
		return r;
	r = client_new(&git->client, git, state, dir, open, reason);
	if (r < 0) {
		overlay_close(overlay);
		return fails(git->disk, r, reason);
	}
	git->client->overlay = overlay;
	set_facts(git->client, found, &facts);
	r = live_open(&git->live, git->disk, git->client->facts.size);
	if (r < 0)
		return r;
	r = client_follow(git->client, reason);
	if (r < 0)
		return fails(git->disk, r, reason);
	r = live_grow(&git->live, git->disk, git->client->facts.size);
	if (r < 0)
		return r;
	live_grown(&git->live);
	return xd_identify(git->disk, "git:%.300s branch %.190s", repo,
			   open->branch);
}

static void set_policy(struct git *git)
{
	struct client *client = git->client;
	struct xd_disk *disk = git->disk;
	uint64_t quarter = client->facts.size / 4;

	client->interval = xd_arg_u64(disk, "snapshot");
	client->snapshot_at_end =
		strcmp(xd_arg_string(disk, "on-detach"), "snapshot") == 0;
	client->cache = xd_arg_set(disk, "cache") ? xd_arg_u64(disk, "cache") :
						    MIN(quarter, CACHE_MOST);
}

static int open_disk(struct git *git)
{
	struct xd_disk *disk = git->disk;
	cleanup_close int dir = xd_open(disk, "repo", O_RDONLY | O_DIRECTORY);
	struct cm_open open;
	int r;

	if (dir < 0)
		return dir; /* xd_open() has said why */
	r = get_options(disk, &open);
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < GIT_LANES; i++) {
		git->wake[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (git->wake[i] < 0)
			return -errno;
	}
	if (open.flags & CM_OPEN_READONLY)
		r = open_readonly(git, dir, &open);
	else
		r = open_writable(git, dir, &open);
	if (r < 0)
		return r;
	git->jobs.asker =
		(struct asker){ .ask = client_ask, .ctx = git->client };
	set_policy(git);
	note(git);
	return 0;
}

/* --- Members of struct xd_backend ------------------------------------------------------ */

static void git_free(struct git *git)
{
	/* Its view is given back to the client. */
	view_slot_destroy(&git->views);
	client_free(git->client);
	live_close(&git->live);
	pthread_mutex_destroy(&git->live.lock);
	for (unsigned int i = 0; i < GIT_LANES; i++)
		if (git->wake[i] >= 0)
			(void)close(git->wake[i]);
	pthread_cond_destroy(&git->gate.news);
	pthread_mutex_destroy(&git->gate.lock);
	git_jobs_destroy(&git->jobs);
	if (git->charged)
		(void)xd_budget(git->disk, -(int64_t)git->charged);
	free(git);
}

static struct git *git_new(struct xd_disk *disk)
{
	struct git *git = calloc(1, sizeof(*git));
	pthread_condattr_t attr;

	if (!git)
		return NULL;
	git->disk = disk;
	git->live.fd = -1;
	pthread_mutex_init(&git->live.lock, NULL);
	for (unsigned int i = 0; i < GIT_LANES; i++)
		git->wake[i] = -1;
	view_slot_init(&git->views);
	git_jobs_init(&git->jobs);
	pthread_mutex_init(&git->gate.lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&git->gate.news, &attr);
	pthread_condattr_destroy(&attr);
	return git;
}

/* The cache of inflated chunks. */
static int charge(struct git *git)
{
	int r = xd_budget(git->disk, GIT_CACHE);

	if (r < 0)
		xd_error(git->disk, "its cache takes %u bytes%s", GIT_CACHE,
			 r == -ENOSPC ? ", which mem-limit does not allow" :
					": the daemon does not answer");
	else
		git->charged = GIT_CACHE;
	return r;
}

static int git_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	struct git *git = git_new(disk);
	bool readonly;
	int r;

	if (!git)
		return -ENOMEM;
	r = charge(git);
	if (r == 0)
		r = open_disk(git);
	if (r < 0) {
		git_free(git);
		return r;
	}
	CRASH_POINT(git_opened);
	disk->data = git;
	readonly = !git->client->overlay;
	*ret_limits = (struct xd_limits){
		.size = readonly ? git->client->opened.size :
				   git->client->facts.size,
		.sector_size = git->client->opened.sector,
		.physical_sector_size = PHYSICAL,
		.discard_granularity = readonly ? 0 :
						  git->client->opened.sector,
		.memory_alignment = 1,
		.max_channels = GIT_LANES,
		.readonly = readonly,
		.flush = !readonly,
		.fua = !readonly,
		.zero = !readonly,
		.fast_zero = !readonly,
	};
	return 0;
}

static void git_close(struct xd_disk *disk)
{
	git_free(disk->data);
}

static int git_activate(struct xd_disk *disk, bool recover)
{
	struct git *git = disk->data;
	char reason[WHY_MAX] = "";
	int r = client_activate(git->client, recover, reason);

	if (r < 0)
		return fails(disk, r, *reason ? reason : strerror(-r));
	CRASH_POINT(git_locked);
	return 0;
}

static int git_deactivate(struct xd_disk *disk)
{
	struct git *git = disk->data;
	char reason[WHY_MAX] = "";
	int r = client_deactivate(git->client, reason);

	return r < 0 ? fails(disk, r, *reason ? reason : strerror(-r)) : 0;
}

static const struct xd_param git_params[] = {
	{ "repo", XD_PATH, XD_POSITIONAL | XD_REQUIRED, NULL, NULL,
	  "the repository: a bare one, or a folder .git" },
	{ "branch", XD_STRING, 0, NULL, "main",
	  "the disk: what is written becomes commits of this branch" },
	{ "rev", XD_STRING, 0, NULL, NULL,
	  "the disk as it is in this commit, read-only; see fork" },
	{ "fork", XD_STRING, 0, NULL, NULL,
	  "a branch to be written to, which begins at rev if it is new" },
	{ "snapshot", XD_TIME, 0, NULL, NULL,
	  "a snapshot each time this has passed, if something was written" },
	{ "keep", XD_STRING, 0, NULL, "24h,7d,4w",
	  "how many of these are kept: hours, days, weeks, months" },
	{ "on-detach", XD_ENUM, 0, "snapshot|keep", "keep",
	  "when the guest goes: a snapshot, or what was written stays as it is" },
	{ "compress", XD_ENUM, 0, "auto|none", "auto",
	  "commits: each chunk that becomes smaller, or all as they are" },
	{ "cache", XD_SIZE, 0, NULL, NULL,
	  "bytes that are kept of what is committed, to be read faster" },
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

XD_API const struct xd_backend xendisk_backend_v1 = {
	.size = sizeof(struct xd_backend),
	.version = XD_API_VERSION,
	.name = "git",
	.summary = "a disk in a git repository, where a snapshot is a commit",
	.params = git_params,
	.open = git_open,
	.close = git_close,
	.activate = git_activate,
	.deactivate = git_deactivate,
	.channel_open = git_channel_open,
	.channel_close = git_channel_close,
	.submit = git_submit,
	.extents = git_extents,
	.control = client_control,
	.resize = client_resize,
	.resized = client_resized,
};
