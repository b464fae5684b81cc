/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/keep-private.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
/* The usual one falls through its cases, which clang takes ill. */
#define HASH_FUNCTION HASH_SAX
#include <uthash.h>

#include "broker/broker.h"
#include "common/util.h"

#define SHM_DIR	      "/dev/shm/xendiskd"
#define ID_FILE	      "id"
#define ID_NAME_MAX   32 /* "DOMID-DEVID.id" */
#define FILE_NAME_MAX (40 + KEEP_NAME_MAX) /* "DOMID-DEVID.LAYER.NAME" */
#define TEXT_MAX      (MSG_EXPR_MAX + 256)

/* The files of a disk, so that nobody has to look through all disks' folders
 * for them: what there was at the start, and what has been made since. */
struct kept {
	struct {
		uint32_t domid;
		uint32_t devid;
	} disk;
	unsigned int files;
	bool pages; /* some of them in the second folder */
	UT_hash_handle hh;
};

/* "5-51728.": how the names of a disk's files begin. */
static void print_prefix(char *buf, size_t len, uint32_t domid, uint32_t devid)
{
	(void)snprintf(buf, len, "%" PRIu32 "-%" PRIu32 ".", domid, devid);
}

/* --- Which disks have files ---------------------------------------------- */

static struct kept *find_kept(struct keep *keep, uint32_t domid, uint32_t devid)
{
	struct kept key = { .disk = { domid, devid } };
	struct kept *kept;

	HASH_FIND(hh, keep->kept, &key.disk, sizeof(key.disk), kept);
	return kept;
}

static void count_new(struct keep *keep, uint32_t domid, uint32_t devid,
		      bool pages)
{
	struct kept *kept = find_kept(keep, domid, devid);

	if (!kept) {
		kept = calloc(1, sizeof(*kept));
		if (!kept) {
			keep->unsure = true;
			return;
		}
		kept->disk.domid = domid;
		kept->disk.devid = devid;
		HASH_ADD(hh, keep->kept, disk, sizeof(kept->disk), kept);
	}
	kept->files++;
	kept->pages |= pages;
}

static void forget_kept(struct keep *keep, struct kept *kept)
{
	HASH_DEL(keep->kept, kept);
	free(kept);
}

static void forget_all_kept(struct keep *keep)
{
	struct kept *kept;
	struct kept *next;

	HASH_ITER(hh, keep->kept, kept, next)
		forget_kept(keep, kept);
}

/* --- The two folders ----------------------------------------------------- */

/* Opens a private folder, making it if need be.  In /dev/shm anybody could
 * have made one of that name before us: a stranger's is refused. */
static int open_private_dir(const char *path)
{
	cleanup_close int fd = -1;
	struct stat st;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ELOOP || errno == ENOTDIR ? -EPERM : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_uid != geteuid() || (st.st_mode & 077))
		return -EPERM;
	return TAKE_FD(fd);
}

/* FNV-1a, to tell run directories apart. */
static uint64_t hash_text(const char *text)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3ull;
	return hash;
}

static char *pages_path(const char *run_dir)
{
	cleanup_free char *real = realpath(run_dir, NULL);

	if (strcmp(run_dir, BROKER_RUN_DIR) == 0)
		return strdup(SHM_DIR);
	return real ? xasprintf(SHM_DIR "-%016" PRIx64, hash_text(real)) : NULL;
}

/* For people and scripts that look for it. */
static int link_pages(const char *run_dir, const char *pages)
{
	cleanup_free char *path = xasprintf("%s/pages", run_dir);

	if (!path)
		return -ENOMEM;
	(void)unlink(path);
	return symlink(pages, path) < 0 ? -errno : 0;
}

static int load_kept(struct keep *keep);

int keep_new(struct keep **ret, const char *run_dir, uint64_t mem_limit)
{
	cleanup_free char *path = xasprintf("%s/keep", run_dir);
	struct keep *keep = calloc(1, sizeof(*keep));
	int r = -ENOMEM;

	if (!keep || !path)
		goto failed;
	keep->limit = mem_limit;
	keep->dirs[XD_KEEP_PAGES] = -1;
	r = keep->dirs[XD_KEEP_STATE] = open_private_dir(path);
	if (r >= 0) {
		keep->pages_path = pages_path(run_dir);
		r = keep->pages_path ? open_private_dir(keep->pages_path) :
				       -ENOMEM;
		keep->dirs[XD_KEEP_PAGES] = r;
	}
	if (r >= 0)
		r = link_pages(run_dir, keep->pages_path);
	if (r >= 0)
		r = load_kept(keep);
	if (r < 0)
		goto failed;
	*ret = keep;
	return 0;

failed:
	if (keep)
		keep_free(keep);
	return r;
}

void keep_free(struct keep *keep)
{
	if (!keep)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(keep->dirs); i++)
		if (keep->dirs[i] >= 0)
			(void)close(keep->dirs[i]);
	if (keep->pages_path)
		(void)rmdir(keep->pages_path);
	forget_all_kept(keep);
	free(keep->pages_path);
	free(keep);
}

/* --- Walking through the files ------------------------------------------- */

int keep_each_file(struct keep *keep, keep_file_fn fn, void *ctx)
{
	for (size_t i = 0; i < ARRAY_SIZE(keep->dirs); i++) {
		int fd = openat(keep->dirs[i], ".",
				O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		DIR *dir = fd < 0 ? NULL : fdopendir(fd);
		struct dirent *entry;

		if (!dir) {
			int r = -errno;

			if (fd >= 0)
				(void)close(fd);
			return r;
		}
		while ((entry = readdir(dir)))
			if (entry->d_name[0] != '.')
				fn(ctx, keep->dirs[i], entry->d_name);
		(void)closedir(dir);
	}
	return 0;
}

char *keep_read_text(int dir, const char *name)
{
	cleanup_close int fd =
		openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_free char *text = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size > TEXT_MAX)
		return NULL;
	text = calloc(1, (size_t)st.st_size + 1);
	if (!text || pread_all(fd, text, (size_t)st.st_size, 0) < 0)
		return NULL;
	return TAKE_PTR(text);
}

/* A walk over the files whose names begin with prefix. */
struct walk {
	char prefix[32];
	int only; /* count_file(): this folder; -1: both */
	uint64_t bytes;
	unsigned int files;
};

static bool of_disk(const struct walk *walk, const char *name)
{
	return strncmp(name, walk->prefix, strlen(walk->prefix)) == 0;
}

static void remove_file(void *ctx, int dir, const char *name)
{
	const struct walk *walk = ctx;

	if (of_disk(walk, name))
		(void)unlinkat(dir, name, 0);
}

static void count_file(void *ctx, int dir, const char *name)
{
	struct walk *walk = ctx;
	struct stat st;

	if ((walk->only >= 0 && walk->only != dir) || !of_disk(walk, name) ||
	    fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	walk->files++;
	walk->bytes += (uint64_t)st.st_blocks * 512;
}

/* --- What goes ------------------------------------------------------------ */

static bool is_another(void *ctx, uint32_t domid, uint32_t devid)
{
	const struct kept *gone = ctx;

	return domid != gone->disk.domid || devid != gone->disk.devid;
}

static void discard(struct keep *keep, uint32_t domid, uint32_t devid)
{
	struct kept *kept = find_kept(keep, domid, devid);
	struct walk walk = { .only = -1 };

	if (kept)
		forget_kept(keep, kept);
	keep_leave_notes(keep, is_another,
			 &(struct kept){ .disk = { domid, devid } });
	print_prefix(walk.prefix, sizeof(walk.prefix), domid, devid);
	(void)keep_each_file(keep, remove_file, &walk);
}

void keep_discard(struct keep *keep, uint32_t domid, uint32_t devid)
{
	if (keep->unsure || find_kept(keep, domid, devid))
		discard(keep, domid, devid);
}

static unsigned int count_files(struct keep *keep, uint32_t domid,
				uint32_t devid)
{
	const struct kept *kept = find_kept(keep, domid, devid);
	struct walk walk = { .only = -1 };

	if (!keep->unsure)
		return kept ? kept->files : 0;
	print_prefix(walk.prefix, sizeof(walk.prefix), domid, devid);
	(void)keep_each_file(keep, count_file, &walk);
	return walk.files;
}

uint64_t keep_pages(struct keep *keep, uint32_t domid, uint32_t devid)
{
	const struct kept *kept = find_kept(keep, domid, devid);
	struct walk walk = { .only = keep->dirs[XD_KEEP_PAGES] };

	if (!keep->unsure && (!kept || !kept->pages))
		return 0;
	print_prefix(walk.prefix, sizeof(walk.prefix), domid, devid);
	(void)keep_each_file(keep, count_file, &walk);
	return walk.bytes;
}

static void load_file(void *ctx, int dir, const char *name)
{
	struct keep *keep = ctx;
	unsigned int domid;
	unsigned int devid;

	if (sscanf(name, "%u-%u.", &domid, &devid) == 2)
		count_new(keep, domid, devid, dir == keep->dirs[XD_KEEP_PAGES]);
}

/* What there is, whoever has made it. */
static int load_kept(struct keep *keep)
{
	forget_all_kept(keep);
	return keep_each_file(keep, load_file, keep);
}

struct sweep {
	struct keep *keep;
	bool (*exists)(void *ctx, uint32_t domid, uint32_t devid);
	void *ctx;
};

static void sweep_file(void *ctx, int dir, const char *name)
{
	const struct sweep *sweep = ctx;
	unsigned int domid;
	unsigned int devid;
	int end = 0;

	if (keep_is_left(name) ||
	    (sscanf(name, "%u-%u.%n", &domid, &devid, &end) == 2 && end > 0 &&
	     sweep->exists(sweep->ctx, domid, devid)))
		return;
	(void)unlinkat(dir, name, 0);
}

void keep_sweep(struct keep *keep,
		bool (*exists)(void *ctx, uint32_t domid, uint32_t devid),
		void *ctx)
{
	struct sweep sweep = { keep, exists, ctx };

	keep_tell_left(keep);
	keep_leave_notes(keep, exists, ctx);
	(void)keep_each_file(keep, sweep_file, &sweep);
	if (load_kept(keep) < 0)
		keep->unsure = true;
}

/* --- Whose state it is ---------------------------------------------------- */

/*
 * DOMID-DEVID.id holds who the guest is, and the expression:
 *
 *     vm=UUID
 *     backend-domid=0
 *     cow(raw(/srv/gold.img), mem())
 */
static char *print_guest(const struct msg_identity *id)
{
	return xasprintf("vm=%s\nbackend-domid=%" PRIu32 "\n", id->vm,
			 id->backend_domid);
}

static void print_id_name(char *buf, size_t len, const struct msg_identity *id)
{
	print_prefix(buf, len, id->domid, id->devid);
	strncat(buf, ID_FILE, len - strlen(buf) - 1);
}

char *keep_expression(struct keep *keep, const struct msg_identity *id)
{
	cleanup_free char *guest = print_guest(id);
	cleanup_free char *owner = NULL;
	char name[ID_NAME_MAX];
	size_t length;

	print_id_name(name, sizeof(name), id);
	owner = keep_read_text(keep->dirs[XD_KEEP_STATE], name);
	if (!guest || !owner || strncmp(owner, guest, strlen(guest)) != 0)
		return NULL;
	length = strcspn(owner + strlen(guest), "\n");
	return length ? strndup(owner + strlen(guest), length) : NULL;
}

static int write_owner(int dir, const char *name, const char *owner)
{
	cleanup_close int fd = openat(
		dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		0600);

	return fd < 0 ? -errno : pwrite_all(fd, owner, strlen(owner), 0);
}

int keep_claim(struct keep *keep, const struct msg_identity *id,
	       const char *expression, bool *ret_kept)
{
	int dir = keep->dirs[XD_KEEP_STATE];
	cleanup_free char *guest = print_guest(id);
	cleanup_free char *owner =
		guest ? xasprintf("%s%s\n", guest, expression) : NULL;
	cleanup_free char *found = NULL;
	char name[ID_NAME_MAX];
	int r;

	if (!owner)
		return -ENOMEM;
	print_id_name(name, sizeof(name), id);
	found = keep_read_text(dir, name);
	if (found && strcmp(found, owner) == 0) {
		*ret_kept = count_files(keep, id->domid, id->devid) > 1;
		return 0;
	}
	if (found)
		discard(keep, id->domid, id->devid);
	else
		keep_discard(keep, id->domid, id->devid);
	count_new(keep, id->domid, id->devid, false);
	r = write_owner(dir, name, owner);
	if (r < 0)
		return r;
	*ret_kept = false;
	return 0;
}

/* --- A file --------------------------------------------------------------- */

static bool good_name(const char *name)
{
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_");

	return length > 0 && length < KEEP_NAME_MAX && name[length] == '\0';
}

static bool good_request(uint32_t layer, const char *name,
			 enum xd_keep_kind kind, uint64_t size)
{
	if (!good_name(name) || size == 0 || size > INT64_MAX)
		return false;
	if (layer >= EXPR_MAX_LAYERS && layer != MSG_LAYER_NONE)
		return false;
	if (kind == XD_KEEP_STATE)
		return size <= KEEP_STATE_MAX;
	return kind == XD_KEEP_PAGES;
}

/* A file that is there already, and of that size at least, else -ENOENT.  One
 * that is smaller grows, as its disk has: it is never replaced, since what is in
 * it may be all that there is of what a guest has written. */
static int open_kept(int dir, const char *name, uint64_t size)
{
	cleanup_close int fd =
		openat(dir, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return unlinkat(dir, name, 0) < 0 ? -errno : -ENOENT;
	if ((uint64_t)st.st_size < size && ftruncate(fd, (off_t)size) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int make_file(int dir, const char *name, uint64_t size, uid_t owner)
{
	cleanup_close int fd = openat(
		dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		0600);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0 ||
	    (owner && fchown(fd, owner, (gid_t)-1) < 0))
		r = -errno;
	if (r < 0) {
		(void)unlinkat(dir, name, 0);
		return r;
	}
	return TAKE_FD(fd);
}

static void print_file_name(char *buf, size_t len, uint32_t domid,
			    uint32_t devid, uint32_t layer, const char *name)
{
	size_t length;

	print_prefix(buf, len, domid, devid);
	length = strlen(buf);
	if (layer == MSG_LAYER_NONE)
		(void)snprintf(buf + length, len - length, "disk.%s", name);
	else
		(void)snprintf(buf + length, len - length, "%" PRIu32 ".%s",
			       layer, name);
}

int keep_read(struct keep *keep, uint32_t domid, uint32_t devid,
	      const char *name)
{
	char path[FILE_NAME_MAX];
	int fd;

	print_file_name(path, sizeof(path), domid, devid, MSG_LAYER_NONE, name);
	fd = openat(keep->dirs[XD_KEEP_STATE], path,
		    O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int keep_file(struct keep *keep, const struct msg_identity *id, uint32_t layer,
	      const char *name, enum xd_keep_kind kind, uint64_t size,
	      uid_t owner, bool *ret_kept)
{
	char path[FILE_NAME_MAX];
	int fd;

	if (!good_request(layer, name, kind, size))
		return -EINVAL;
	print_file_name(path, sizeof(path), id->domid, id->devid, layer, name);
	fd = open_kept(keep->dirs[kind], path, size);
	if (fd >= 0) {
		/* The last worker's user may have been another one. */
		if (owner && fchown(fd, owner, (gid_t)-1) < 0) {
			int r = -errno;

			(void)close(fd);
			return r;
		}
		*ret_kept = true;
		return fd;
	}
	if (fd != -ENOENT)
		return fd;
	if (count_files(keep, id->domid, id->devid) >= KEEP_MAX_FILES)
		return -EDQUOT;
	fd = make_file(keep->dirs[kind], path, size, owner);
	if (fd >= 0) {
		*ret_kept = false;
		count_new(keep, id->domid, id->devid, kind == XD_KEEP_PAGES);
	}
	return fd;
}

/* --- The account of memory ------------------------------------------------ */

int keep_charge(struct keep *keep, uint64_t *charge, int64_t more)
{
	uint64_t bytes = more < 0 ? -(uint64_t)more : (uint64_t)more;

	if (more < 0) {
		if (bytes > *charge)
			return -EINVAL;
		*charge -= bytes;
		keep->charged -= bytes;
		return 0;
	}
	if (bytes > UINT64_MAX - keep->charged)
		return -ENOSPC;
	if (keep->limit && keep->charged + bytes > keep->limit)
		return -ENOSPC;
	*charge += bytes;
	keep->charged += bytes;
	return 0;
}

void keep_recharge(struct keep *keep, uint64_t *charge, uint64_t bytes)
{
	keep->charged = keep->charged - *charge + bytes;
	*charge = bytes;
}
