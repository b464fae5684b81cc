/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* committer-objects.c - packs and objects for the worker, as descriptors. */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <git2.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "committer-private.h"
#include "common/util.h"
#include "safe-git.h"
#include "layer-commit.h"

/* --- Packs -------------------------------------------------------------------- */

/* One message, as it fills. */
struct parcel {
	const struct committer *c;
	struct cm_pack msg;
	int fds[CM_MAX_FDS];
};

static int send_parcel(struct parcel *parcel, bool more)
{
	int r;

	parcel->msg.left = more;
	r = cm_send(parcel->c->sock, &parcel->msg.h, CM_PACK, parcel->fds,
		    2 * parcel->msg.nr, true);
	for (unsigned int i = 0; i < 2 * parcel->msg.nr; i++)
		(void)close(parcel->fds[i]);
	parcel->msg.nr = 0;
	return r;
}

/* No links, and nothing that would be waited for. */
static int open_part(int dir, const char *name, const char *end)
{
	char file[CM_PACK_NAME + 8];
	struct stat st;
	int fd;

	(void)snprintf(file, sizeof(file), "%s%s", name, end);
	fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))) {
		(void)close(fd);
		return -1;
	}
	return fd;
}

static int add_pack(struct parcel *parcel, const char *name)
{
	cleanup_close int idx = open_part(parcel->c->pack_dir, name, ".idx");
	cleanup_close int pack = open_part(parcel->c->pack_dir, name, ".pack");
	uint32_t nr = parcel->msg.nr;
	int r = 0;

	if (idx < 0 || pack < 0)
		return 0;
	if (nr == CM_PACKS_EACH) {
		r = send_parcel(parcel, true);
		nr = 0;
	}
	if (r < 0)
		return r;
	parcel->fds[2 * nr] = TAKE_FD(idx);
	parcel->fds[2 * nr + 1] = TAKE_FD(pack);
	(void)snprintf(parcel->msg.name[nr], CM_PACK_NAME, "%s", name);
	parcel->msg.nr++;
	return 0;
}

static int add_all(struct parcel *parcel)
{
	int fd = openat(parcel->c->pack_dir, ".",
			O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	int r = 0;

	if (!dir && fd >= 0)
		(void)close(fd);
	if (!dir)
		return 0;
	while (r == 0 && (entry = readdir(dir))) {
		size_t n = strlen(entry->d_name);
		char name[CM_PACK_NAME];

		if (n <= 4 || n - 4 >= sizeof(name) ||
		    strcmp(entry->d_name + n - 4, ".idx") != 0)
			continue;
		(void)snprintf(name, sizeof(name), "%.*s", (int)n - 4,
			       entry->d_name);
		r = add_pack(parcel, name);
	}
	(void)closedir(dir);
	return r;
}

int committer_send_packs(const struct committer *c, uint32_t seq,
			 const char (*names)[CM_PACK_NAME], unsigned int nr)
{
	struct parcel parcel = { .c = c, .msg = { .h = { .seq = seq } } };
	int r = 0;

	if (!names)
		r = add_all(&parcel);
	for (unsigned int i = 0; names && r == 0 && i < nr; i++)
		r = add_pack(&parcel, names[i]);
	return r < 0 ? r : send_parcel(&parcel, false);
}

/* --- Objects ------------------------------------------------------------------ */

/* A file in memory that nobody can change. */
static int make_file(const void *data, size_t n)
{
	cleanup_close int fd =
		memfd_create("object", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r = fd < 0 ? -errno : pwrite_all(fd, data, n, 0);

	if (r == 0 && fcntl(fd, F_ADD_SEALS,
			    F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) < 0)
		r = -errno;
	return r < 0 ? r : TAKE_FD(fd);
}

static int read_any(const struct committer *c, const uint8_t oid[OID_BYTES],
		    struct cm_object_is *ret, uint8_t **ret_data, char *ret_why)
{
	git_object_t type;
	git_odb *odb;
	git_oid id;
	size_t n;
	int r;

	memcpy(id.id, oid, OID_BYTES);
	if (git_repository_odb(&odb, c->repo) < 0)
		return why(ret_why, -EIO, "the objects cannot be opened");
	r = git_odb_read_header(&n, &type, odb, &id);
	git_odb_free(odb);
	if (r < 0) /* for its words */
		type = GIT_OBJECT_BLOB;
	r = repo_source_read(c->repo, oid, (enum object_type)type,
			     ODB_MAX_WHOLE, ret_data, &n, ret_why);
	ret->type = (uint32_t)type;
	ret->size = n;
	return r;
}

void committer_object(const struct committer *c, const struct cm_object *ask)
{
	struct cm_object_is answer = { .h = { .seq = ask->h.seq } };
	cleanup_free uint8_t *data = NULL;
	cleanup_close int fd = -1;
	char reason[WHY_MAX];
	int r = read_any(c, ask->oid, &answer, &data, reason);

	if (r == 0) {
		r = fd = make_file(data, answer.size);
		if (r < 0)
			(void)why(reason, r, "an object: %s", strerror(-r));
	}
	if (r < 0)
		committer_fail(c, ask->h.seq, r, reason);
	else
		(void)cm_send(c->sock, &answer.h, CM_OBJECT_IS, &fd, 1, true);
}

/* --- Many packs --------------------------------------------------------------- */

/* Each snapshot makes one: their number is what opening a disk takes. */
#define PACKS_MANY 50u

/* A pack with ".keep" is left alone by git, and so not counted. */
static unsigned int count_packs(const struct committer *c)
{
	int fd = openat(c->pack_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	unsigned int packs = 0, kept = 0;

	if (!dir && fd >= 0)
		(void)close(fd);
	while (dir && (entry = readdir(dir))) {
		const char *dot = strrchr(entry->d_name, '.');

		packs += dot && strcmp(dot, ".pack") == 0;
		kept += dot && strcmp(dot, ".keep") == 0;
	}
	if (dir)
		(void)closedir(dir);
	return packs - MIN(packs, kept);
}

void committer_consolidate(struct committer *c)
{
	char threshold[64], reason[WHY_MAX];
	/* Packs of a size that grows by two each: what is small is combined
	 * often, what is large is not.  Chunks are not compared with others,
	 * trees are. */
	const char *const args[] = {
		"-c",		threshold, "-c", "pack.threads=1",
		"repack",	"-d",	   "-q", "--geometric=2",
		"--write-midx", NULL,
	};
	unsigned int packs = c->no_git ? 0 : count_packs(c);
	cleanup_close int lock = -1;
	int r;

	if (packs < MAX(PACKS_MANY, c->packs_again))
		return;
	/* Another disk's committer may be at it.  git has the lock, too: should we
	 * die, it goes on, and our successor is to leave it alone. */
	lock = openat(c->repo_dir, "objects/pack",
		      O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0)
		return;
	(void)snprintf(threshold, sizeof(threshold), "core.bigFileThreshold=%u",
		       (unsigned int)c->chunk / 2);
	r = safe_git(c->repo_dir, args, NULL, reason);
	c->no_git = r == -ENOENT;
	/* What failed, for want of space perhaps, is not tried each time. */
	c->packs_again = r < 0 ? packs + PACKS_MANY / 2 : 0;
}
