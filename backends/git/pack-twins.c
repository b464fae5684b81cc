/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "pack-twins.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "common/util.h"

/* An index, as odb.c has it: the ids are behind a table of 256 numbers, the last
 * of which is how many there are. */
#define FAN_OUT	  8u
#define IDS	  (FAN_OUT + 256 * 4)
#define INDEX_MAX (1ull << 30)
#define TWINS_MAX 64u

struct ids {
	uint8_t *file;
	uint32_t nr;
};

struct twins {
	char name[TWINS_MAX][PACK_NAME_MAX];
	unsigned int nr;
};

static int open_part(int dir, const char *name, const char *end)
{
	char file[PACK_NAME_MAX + 8];

	(void)snprintf(file, sizeof(file), "%s%s", name, end);
	return openat(dir, file,
		      O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/* The index first: without it the pack is none. */
static void remove_pack(int dir, const char *name)
{
	static const char *const parts[] = { ".idx", ".pack", ".keep" };
	char file[PACK_NAME_MAX + 8];

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		(void)snprintf(file, sizeof(file), "%s%s", name, parts[i]);
		(void)unlinkat(dir, file, 0);
	}
}

/* False: it cannot be told, and so is nobody's twin. */
static bool read_ids(int dir, const char *name, struct ids *ret)
{
	cleanup_close int fd = open_part(dir, name, ".idx");
	cleanup_free uint8_t *file = NULL;
	const uint8_t *last;
	struct stat st;
	uint64_t size;
	uint32_t nr;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	size = (uint64_t)st.st_size;
	if (size < IDS || size > INDEX_MAX)
		return false;
	file = malloc(size);
	if (!file || pread_all(fd, file, size, 0) < 0 ||
	    memcmp(file, "\377tOc\0\0\0\2", FAN_OUT) != 0)
		return false;
	last = file + IDS - 4;
	nr = (uint32_t)last[0] << 24 | (uint32_t)last[1] << 16 |
	     (uint32_t)last[2] << 8 | last[3];
	if (nr == 0 || (size - IDS) / OID_BYTES < nr)
		return false;
	*ret = (struct ids){ TAKE_PTR(file), nr };
	return true;
}

static int compare_ids(const void *a, const void *b)
{
	return memcmp(a, b, OID_BYTES);
}

static bool are_all_in(const struct ids *some, const struct ids *others,
		       unsigned int nr)
{
	for (uint32_t i = 0; i < some->nr; i++) {
		const uint8_t *oid = some->file + IDS + (size_t)i * OID_BYTES;
		bool found = false;

		for (unsigned int k = 0; k < nr && !found; k++)
			found = bsearch(oid, others[k].file + IDS, others[k].nr,
					OID_BYTES, compare_ids);
		if (!found)
			return false;
	}
	return true;
}

static bool is_fresh(const char *name, const struct pack_names *fresh)
{
	for (unsigned int i = 0; i < fresh->nr; i++)
		if (strcmp(name, fresh->packs[i].name) == 0)
			return true;
	return false;
}

/* "pack-....keep" of another pack than a fresh one. */
static bool take_name(const char *file, const struct pack_names *fresh,
		      char ret[PACK_NAME_MAX])
{
	size_t n = strlen(file);

	if (n != PACK_NAME_MAX - 1 + strlen(".keep") ||
	    strcmp(file + n - strlen(".keep"), ".keep") != 0)
		return false;
	memcpy(ret, file, PACK_NAME_MAX - 1);
	ret[PACK_NAME_MAX - 1] = '\0';
	return !is_fresh(ret, fresh);
}

static void find_twins(int dir, const struct pack_names *fresh,
		       const struct ids *ids, struct twins *ret)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	if (!list && fd >= 0)
		(void)close(fd);
	while (list && ret->nr < TWINS_MAX && (entry = readdir(list))) {
		char *name = ret->name[ret->nr];
		struct ids other;

		if (!take_name(entry->d_name, fresh, name) ||
		    !read_ids(dir, name, &other))
			continue;
		ret->nr += are_all_in(&other, ids, fresh->nr);
		free(other.file);
	}
	if (list)
		(void)closedir(list);
}

/* One whose ".keep" is there still has a writer that lives. */
static void drop(int dir, const struct twins *twins)
{
	for (unsigned int i = 0; i < twins->nr; i++) {
		cleanup_close int keep =
			open_part(dir, twins->name[i], ".keep");

		if (keep < 0)
			remove_pack(dir, twins->name[i]);
	}
}

int pack_drop_twins(int dir, const struct pack_names *fresh, char *ret_why)
{
	cleanup_free struct ids *ids = calloc(fresh->nr + 1, sizeof(*ids));
	cleanup_free struct twins *twins = calloc(1, sizeof(*twins));
	unsigned int nr = 0;
	int r;

	if (!ids || !twins)
		return why(ret_why, -ENOMEM, "the packs: no memory");
	while (nr < fresh->nr && read_ids(dir, fresh->packs[nr].name, &ids[nr]))
		nr++;
	if (nr == fresh->nr && nr > 0)
		find_twins(dir, fresh, ids, twins);
	r = pack_clean(dir, NULL, ret_why);
	if (r == 0)
		drop(dir, twins);
	while (nr > 0)
		free(ids[--nr].file);
	return r;
}
