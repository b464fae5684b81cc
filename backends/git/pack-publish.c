/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How packs become visible, and what is left behind when that is cut short.
 *
 * Theory of operation
 *
 * To git a pack is there once its ".idx" is, so that is renamed last; the ".pack"
 * before it, and before that the ".keep", for `git gc` may look at any moment, and
 * what no reference leads to yet it would explode or delete.  All three are
 * complete and durable before the first rename; the folder is, afterwards.
 *
 * Unfinished files do not have git's own prefix, "tmp_": `git gc --prune=now`
 * removes such files whoever is writing to them.  Each is locked by who makes it,
 * and so is a ".keep", until that process lets go of it or dies; pack_clean()
 * removes those that nobody has locked.  flock() may not reach another host that
 * has the repository mounted as well, so the name says which host a file is of, and
 * so does the text in a ".keep".
 */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "common/util.h"
#include "commit-points.h"
#include "pack-private.h"

#define TMP_TRIES 10
#define PATH_MAX_ (PACK_NAME_MAX + 8)

int file_error(char *ret_why, int err, const char *name, const char *what)
{
	return why(ret_why, err, "objects/pack/%s %s: %s", name, what,
		   strerror(-err));
}

static void host_name(struct utsname *ret)
{
	if (uname(ret) < 0)
		*ret = (struct utsname){ .nodename = "unknown" };
}

void tmp_prefix(char ret[OURS_MAX])
{
	uint32_t h = 2166136261u; /* FNV-1a */
	struct utsname host;

	host_name(&host);
	for (const char *p = host.nodename; *p; p++)
		h = (h ^ (uint8_t)*p) * 16777619u;
	(void)snprintf(ret, OURS_MAX, "xendisk_tmp_%08" PRIx32 "_", h);
}

void keep_prefix(char ret[OURS_MAX])
{
	struct utsname host;

	host_name(&host);
	(void)snprintf(ret, OURS_MAX, "xendisk-git: host=%s ", host.nodename);
}

/* --- Unfinished files ------------------------------------------------------------ */

/* 1: it is ours; 0: somebody took it for a dead one before it was locked. */
static int lock_new(int fd)
{
	struct stat st;

	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? 0 : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	return st.st_nlink > 0;
}

static int try_create(int dir, struct tmp_file *file)
{
	char prefix[OURS_MAX];
	uint64_t number;
	int r;

	if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
		return -EIO;
	tmp_prefix(prefix);
	(void)snprintf(file->name, sizeof(file->name), "%s%016" PRIx64, prefix,
		       number);
	file->fd = openat(dir, file->name,
			  O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
			  0644);
	if (file->fd < 0)
		return errno == EEXIST ? 0 : -errno;
	r = lock_new(file->fd);
	if (r <= 0)
		tmp_discard(dir, file);
	return r;
}

int tmp_create(int dir, struct tmp_file *ret, char *ret_why)
{
	struct tmp_file file = { .fd = -1 };
	int r = 0;

	for (int i = 0; i < TMP_TRIES && r == 0; i++)
		r = try_create(dir, &file);
	if (r == 0)
		r = -EEXIST;
	if (r < 0)
		return file_error(ret_why, r, file.name, "cannot be made");
	*ret = file;
	return 0;
}

void tmp_discard(int dir, struct tmp_file *file)
{
	if (file->fd < 0)
		return;
	if (file->name[0])
		(void)unlinkat(dir, file->name, 0);
	(void)close(TAKE_FD(file->fd));
}

/* --- Names ---------------------------------------------------------------------- */

static void path_of(char ret[PATH_MAX_], const char *name, const char *suffix)
{
	(void)snprintf(ret, PATH_MAX_, "%s.%s", name, suffix);
}

static bool is_taken(int dir, const char *name)
{
	static const char *const suffixes[] = { "pack", "idx", "keep" };
	char path[PATH_MAX_];

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		path_of(path, name, suffixes[i]);
		if (faccessat(dir, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			return true;
	}
	return false;
}

/*
 * After its trailer, as git does.  One of that name has the same bytes, but may be
 * on somebody's list of packs to delete, made before our ".keep": then ours is
 * called something else.
 */
static int choose_name(const struct pack_file *file, char ret[PACK_NAME_MAX])
{
	uint8_t id[OID_BYTES];

	memcpy(id, file->trailer, sizeof(id));
	for (int i = 0; i < TMP_TRIES; i++) {
		char hex[OID_HEX + 1];

		oid_hex(id, hex);
		(void)snprintf(ret, PACK_NAME_MAX, "pack-%s", hex);
		if (!is_taken(file->dir, ret))
			return 0;
		if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
			return -EIO;
	}
	return -EEXIST;
}

/* --- .keep ---------------------------------------------------------------------- */

static void boot_id(char *ret, size_t size)
{
	cleanup_close int fd =
		open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);

	if (n <= 0)
		(void)snprintf(ret, size, "unknown");
	else
		ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}

static int write_keep(struct pack_file *file, const char *text, char *ret_why)
{
	char line[KEEP_MAX], boot[48], prefix[OURS_MAX];
	int r = tmp_create(file->dir, &file->keep, ret_why), n;

	if (r < 0)
		return r;
	keep_prefix(prefix);
	boot_id(boot, sizeof(boot));
	n = snprintf(line, sizeof(line), "%spid=%d boot=%s%s%s\n", prefix,
		     (int)getpid(), boot, text ? " " : "", text ? text : "");
	r = pwrite_all(file->keep.fd, line, MIN((size_t)n, sizeof(line) - 1),
		       0);
	if (r == 0 && fsync(file->keep.fd) < 0)
		r = -errno;
	return r < 0 ? file_error(ret_why, r, file->keep.name,
				  "cannot be written") :
		       0;
}

/* --- Publication ------------------------------------------------------------------ */

/* The descriptor stays, and the name is no longer that of an unfinished file. */
static int rename_to(int dir, struct tmp_file *file, const char *name,
		     const char *suffix, char *ret_why)
{
	char path[PATH_MAX_];

	path_of(path, name, suffix);
	if (renameat(dir, file->name, dir, path) < 0)
		return file_error(ret_why, -errno, path, "cannot be made");
	file->name[0] = '\0';
	return 0;
}

static int read_only(const struct tmp_file *file, char *ret_why)
{
	struct stat st;

	if (fstat(file->fd, &st) < 0 || fchmod(file->fd, st.st_mode & 0444) < 0)
		return file_error(ret_why, -errno, file->name,
				  "cannot be made read-only");
	return 0;
}

static int prepare(struct pack_file *file, const char *keep_text,
		   struct pack_published *ret, char *ret_why)
{
	int r = choose_name(file, ret->name);

	if (r < 0)
		return file_error(ret_why, r, file->pack.name,
				  "cannot be given its name");
	r = read_only(&file->pack, ret_why);
	if (r == 0)
		r = read_only(&file->index, ret_why);
	if (r == 0)
		r = write_keep(file, keep_text, ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(keep_written);
	return 0;
}

/* As far as git can see: from nothing to the whole pack. */
static int publish(struct pack_file *file, const char *name, char *ret_why)
{
	int r = rename_to(file->dir, &file->keep, name, "keep", ret_why);

	if (r < 0)
		return r;
	COMMIT_POINT(keep_made);
	r = rename_to(file->dir, &file->pack, name, "pack", ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(pack_renamed);
	r = rename_to(file->dir, &file->index, name, "idx", ret_why);
	if (r < 0)
		return r;
	COMMIT_POINT(index_renamed);
	return 0;
}

/*
 * In the reverse order; but what git may have seen stays, for a repack may have left
 * out what is in it, and be about to delete the packs that had that before.  Its
 * ".keep" is that of a dead one then, and pack_clean() makes it a pack like others.
 */
static void unpublish(struct pack_file *file, const char *name)
{
	char path[PATH_MAX_];

	if (!file->index.name[0])
		return;
	if (!file->pack.name[0]) {
		path_of(path, name, "pack");
		(void)unlinkat(file->dir, path, 0);
	}
	if (file->keep.fd >= 0 && !file->keep.name[0]) {
		path_of(path, name, "keep");
		(void)unlinkat(file->dir, path, 0);
	}
}

static int publish_all(struct pack_file *const *files, unsigned int nr,
		       const char *keep_text, struct pack_published *packs,
		       char *ret_why)
{
	int r = 0;

	for (unsigned int i = 0; i < nr && r == 0; i++)
		r = prepare(files[i], keep_text, &packs[i], ret_why);
	for (unsigned int i = 0; i < nr && r == 0; i++)
		r = publish(files[i], packs[i].name, ret_why);
	if (r == 0 && fsync(files[0]->dir) < 0)
		r = why(ret_why, -errno,
			"objects/pack: cannot be made durable: %s",
			strerror(errno));
	if (r < 0)
		for (unsigned int i = nr; i-- > 0;)
			unpublish(files[i], packs[i].name);
	return r;
}

int packs_publish(struct pack_file *const *files, unsigned int nr,
		  const char *keep_text, struct pack_names *ret, char *ret_why)
{
	struct pack_published *packs;
	int r;

	if (nr == 0) {
		*ret = (struct pack_names){ 0 };
		return 0;
	}
	packs = calloc(nr, sizeof(*packs));
	if (!packs)
		return why(ret_why, -ENOMEM, "no memory for names of packs");
	r = publish_all(files, nr, keep_text, packs, ret_why);
	if (r < 0) {
		free(packs);
		return r;
	}
	/* The lock goes on until the caller lets go. */
	for (unsigned int i = 0; i < nr; i++)
		packs[i].keep = TAKE_FD(files[i]->keep.fd);
	*ret = (struct pack_names){ .packs = packs, .nr = nr };
	return 0;
}

int pack_unkeep(int dir, struct pack_names *names, char *ret_why)
{
	int r = 0;

	for (unsigned int i = 0; i < names->nr; i++) {
		struct pack_published *pack = &names->packs[i];
		char path[PATH_MAX_];

		if (pack->keep < 0)
			continue;
		path_of(path, pack->name, "keep");
		if (unlinkat(dir, path, 0) < 0 && errno != ENOENT && r == 0)
			r = file_error(ret_why, -errno, path,
				       "cannot be removed");
		(void)close(TAKE_FD(pack->keep));
		COMMIT_POINT(keep_removed);
	}
	return r;
}

void pack_names_free(struct pack_names *names)
{
	for (unsigned int i = 0; i < names->nr; i++)
		if (names->packs[i].keep >= 0)
			(void)close(names->packs[i].keep);
	free(names->packs);
	*names = (struct pack_names){ 0 };
}
