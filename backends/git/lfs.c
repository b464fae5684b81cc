/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "lfs.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "common/util.h"

#define FORMAT "version https://git-lfs.github.com/spec/v1\n"
#define OID    "oid sha256:"
#define SIZE   "size "

struct lfs_object {
	char oid[LFS_OID_HEX];
	int fd;
	uint64_t size;
};

struct lfs {
	int dir; /* lfs/objects; -1: there is none */
	struct lfs_object *objects;
	uint32_t *sorted; /* numbers, by id */
	uint32_t nr, room;
};

/* --- Pointers ----------------------------------------------------------------- */

/* Steps over a text that has to be there. */
static bool skip(const char **io, const char *text)
{
	size_t n = strlen(text);

	if (strncmp(*io, text, n) != 0)
		return false;
	*io += n;
	return true;
}

bool lfs_is_pointer(const uint8_t *bytes, size_t n, struct lfs_pointer *ret)
{
	char text[LFS_POINTER_MAX + 1] = "";
	const char *p = text;
	const char *oid;
	char *end;

	if (n < LFS_POINTER_MIN || n > LFS_POINTER_MAX ||
	    memchr(bytes, '\0', n) || bytes[n - 1] != '\n')
		return false;
	memcpy(text, bytes, n);
	text[n - 1] = '\0'; /* for the number, which is the last */
	if (!skip(&p, FORMAT) || !skip(&p, OID))
		return false;
	oid = p;
	p += strspn(p, "0123456789abcdef");
	if (p - oid != LFS_OID_HEX || !skip(&p, "\n") || !skip(&p, SIZE) ||
	    parse_u64(p, INT64_MAX, &ret->size) < 0)
		return false;
	end = mempcpy(ret->oid, oid, LFS_OID_HEX);
	*end = '\0';
	return true;
}

/* --- Opening ------------------------------------------------------------------ */

/* Step by step: a link on the way leads out of the repository. */
static int open_dir(int dir, const char *name)
{
	int fd = openat(dir, name,
			O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

static int open_path(int from, const char *path)
{
	cleanup_free char *copy = strdup(path);
	cleanup_close int dir = open_dir(from, ".");
	char *rest = copy, *name;
	int r = dir;

	if (!copy)
		return -ENOMEM;
	while (r >= 0 && (name = strsep(&rest, "/"))) {
		if (strcmp(name, "..") == 0)
			return -EXDEV;
		if (!*name || strcmp(name, ".") == 0)
			continue;
		r = open_dir(dir, name);
		(void)close(dir);
		dir = r;
	}
	return r < 0 ? r : TAKE_FD(dir);
}

int lfs_open(struct lfs **ret, int repo, const char *storage, char *ret_why)
{
	struct lfs *lfs = calloc(1, sizeof(*lfs));
	cleanup_close int dir = -1;
	int r;

	if (!lfs)
		return why(ret_why, -ENOMEM, "lfs: no memory");
	if (!storage)
		storage = "lfs";
	r = dir = open_path(repo, storage);
	if (r >= 0)
		r = open_dir(dir, "objects");
	if (r < 0 && r != -ENOENT) {
		free(lfs);
		return why(ret_why, r, "%.200s/objects: %s", storage,
			   strerror(-r));
	}
	lfs->dir = r;
	*ret = lfs;
	return 0;
}

void lfs_settle(struct lfs *lfs)
{
	if (lfs->dir >= 0)
		(void)close(TAKE_FD(lfs->dir));
	free(TAKE_PTR(lfs->sorted));
}

void lfs_close(struct lfs *lfs)
{
	if (!lfs)
		return;
	lfs_settle(lfs);
	for (uint32_t i = 0; i < lfs->nr; i++)
		(void)close(lfs->objects[i].fd);
	free(lfs->objects);
	free(lfs);
}

static int open_object(int objects, const char *oid)
{
	const char outer_name[] = { oid[0], oid[1], '\0' };
	const char inner_name[] = { oid[2], oid[3], '\0' };
	cleanup_close int outer = open_dir(objects, outer_name);
	cleanup_close int inner = -1;
	int fd;

	if (outer < 0)
		return outer;
	inner = open_dir(outer, inner_name);
	if (inner < 0)
		return inner;
	fd = openat(inner, oid, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

/* What may be raised without asking anybody, is, where it is not enough. */
static bool raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 ||
	    limit.rlim_cur == limit.rlim_max)
		return false;
	limit.rlim_cur = limit.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static int open_checked(const struct lfs *lfs,
			const struct lfs_pointer *pointer, char *ret_why)
{
	struct stat st;
	cleanup_close int fd = open_object(lfs->dir, pointer->oid);

	if (fd == -EMFILE && raise_limit())
		fd = open_object(lfs->dir, pointer->oid);
	if (fd == -ENOENT)
		return fd;
	if (fd == -EMFILE)
		return why(ret_why, fd,
			   "object %s of Git LFS: each is an open file, and "
			   "the limit (RLIMIT_NOFILE) does not allow so many: "
			   "lfs=no leaves them out",
			   pointer->oid);
	if (fd < 0 || fstat(fd, &st) < 0) {
		int r = fd < 0 ? fd : -errno;

		return why(ret_why, r, "object %s of Git LFS: %s", pointer->oid,
			   strerror(-r));
	}
	if (!S_ISREG(st.st_mode))
		return why(ret_why, -EBADMSG,
			   "object %s of Git LFS is no plain file",
			   pointer->oid);
	if ((uint64_t)st.st_size != pointer->size)
		return why(ret_why, -EBADMSG,
			   "object %s of Git LFS has %lld bytes, its pointer "
			   "says %" PRIu64,
			   pointer->oid, (long long)st.st_size, pointer->size);
	return TAKE_FD(fd);
}

/* --- Those that are open ------------------------------------------------------- */

/* Where in `sorted` it is, or would be. */
static uint32_t search(const struct lfs *lfs, const char *oid, bool *ret_found)
{
	uint32_t low = 0, high = lfs->nr;

	*ret_found = false;
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		int order = memcmp(lfs->objects[lfs->sorted[mid]].oid, oid,
				   LFS_OID_HEX);

		if (order == 0) {
			*ret_found = true;
			return mid;
		}
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int make_room(struct lfs *lfs)
{
	uint32_t room = lfs->room ? 2 * lfs->room : 64;
	struct lfs_object *objects;
	uint32_t *sorted;

	if (lfs->nr < lfs->room)
		return 0;
	objects = realloc(lfs->objects, room * sizeof(*objects));
	if (!objects)
		return -ENOMEM;
	lfs->objects = objects;
	sorted = realloc(lfs->sorted, room * sizeof(*sorted));
	if (!sorted)
		return -ENOMEM;
	lfs->sorted = sorted;
	lfs->room = room;
	return 0;
}

int lfs_find(struct lfs *lfs, const struct lfs_pointer *pointer,
	     uint64_t *ret_number, char *ret_why)
{
	bool found;
	uint32_t at = search(lfs, pointer->oid, &found);
	struct lfs_object *object;
	int fd;

	if (found && lfs->objects[lfs->sorted[at]].size != pointer->size)
		return why(ret_why, -EBADMSG,
			   "pointers to object %s of Git LFS differ in its "
			   "size",
			   pointer->oid);
	if (found) {
		*ret_number = lfs->sorted[at];
		return 0;
	}
	if (lfs->dir < 0)
		return -ENOENT;
	if (lfs->nr >= LFS_MAX_OBJECTS)
		return why(ret_why, -EMFILE,
			   "there are more than %u objects of Git LFS: lfs=no "
			   "leaves them out",
			   LFS_MAX_OBJECTS);
	if (make_room(lfs) < 0)
		return why(ret_why, -ENOMEM, "lfs: no memory");
	fd = open_checked(lfs, pointer, ret_why);
	if (fd < 0)
		return fd;
	object = &lfs->objects[lfs->nr];
	memcpy(object->oid, pointer->oid, LFS_OID_HEX);
	object->fd = fd;
	object->size = pointer->size;
	memmove(lfs->sorted + at + 1, lfs->sorted + at,
		(lfs->nr - at) * sizeof(*lfs->sorted));
	lfs->sorted[at] = lfs->nr;
	*ret_number = lfs->nr++;
	return 0;
}

/* --- Reading --------------------------------------------------------------------- */

int lfs_read(const struct lfs *lfs, uint64_t number, uint64_t offset, void *ret,
	     size_t n)
{
	return pread_all(lfs->objects[number].fd, ret, n, offset);
}
