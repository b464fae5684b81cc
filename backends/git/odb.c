/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * A pack is a file of objects behind each other, its index (version 2) the
 * sorted ids and their offsets (gitformat-pack(5)).  While a disk is laid out
 * the indexes are in memory, all of them, for they are searched as often as
 * there are files; after that (odb_settle) only the packs that were hit stay
 * open, and an index is searched in its file, which only the rare object needs
 * that is stored as changes to another one named by id.  Until then a repack may take
 * packs away that were not opened: an object that is nowhere is looked for in those
 * that have come since.
 *
 * Number 0 is no pack but the spool: a file in memory to which loose objects
 * are copied when they are found.
 *
 * Packs may be added to a settled odb, by descriptors, while other threads find
 * and read: the table has room for all there may ever be, so it never moves, and
 * an entry is complete before the number of entries says that it is there.
 */
#include "config.h"

#include "odb.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/random.h>

#include "common/util.h"

/* Files may be named so that a hash which is known puts them all in one place. */
static uint64_t hash_key;

static unsigned int hash_oid(const void *oid)
{
	uint64_t h = hash_key, word;

	for (int i = 0; i + 4 <= OID_BYTES; i += 4) {
		word = 0;
		memcpy(&word, (const uint8_t *)oid + i, 4);
		h = (h ^ word) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	return (unsigned int)(h >> 16);
}

#define HASH_NONFATAL_OOM		 1
#define HASH_FUNCTION(key, length, hash) ((hash) = hash_oid(key))
#include <uthash.h>

#define SPOOL	   0
#define TRAILER	   20u /* a SHA-1 */
#define FANOUT	   8u /* where it is in an index */
#define NAMES	   (FANOUT + 256 * 4)
#define PACKS_SEEN 10000u /* more of them are refused */
#define TRIES	   3u /* while packs come and go */

struct pack {
	char *name; /* "pack-...", without what follows the dot */
	int fd; /* of the pack; -1: not opened yet */
	int index; /* its file; -1: it is not used */
	uint64_t size; /* of the pack, without its trailer */
	uint64_t index_size;
	const uint8_t *map; /* the index in memory, or NULL */
	uint32_t nr;
	uint32_t fanout[256];
};

/* A loose object that was copied. */
struct loose {
	UT_hash_handle hh;
	uint8_t oid[OID_BYTES];
	uint64_t at; /* in the spool */
};

struct odb {
	int objects; /* borrowed, until odb_settle() */
	int dir; /* objects/pack; -1: there is none */
	struct pack *packs;
	_Atomic uint32_t nr; /* with the spool */
	uint32_t room; /* entries of packs, once it is settled */
	_Atomic uint32_t last; /* where the last one was found: a hint */
	uint32_t nr_used;
	pthread_mutex_t adding;
	struct loose *loose; /* until odb_settle() */
	uint64_t spooled; /* bytes */
	uint64_t indexed; /* bytes of indexes that were read */
};

void oid_hex(const uint8_t oid[OID_BYTES], char ret[OID_HEX + 1])
{
	for (int i = 0; i < OID_BYTES; i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", oid[i]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 |
	       (uint32_t)p[2] << 8 | p[3];
}

/* --- Indexes --------------------------------------------------------------- */

static int bad_index(const struct pack *pack, char *ret_why, const char *what)
{
	return why(ret_why, -EBADMSG, "%s.idx: %s", pack->name, what);
}

/* Bytes of the index; the caller has checked that they are inside. */
static int index_bytes(const struct pack *pack, uint64_t at, void *ret,
		       size_t n)
{
	if (pack->map) {
		memcpy(ret, pack->map + at, n);
		return 0;
	}
	return pread_all(pack->index, ret, n, at);
}

/* The header, and that the tables it speaks of are what the file has: a large
 * index is no more than a large repository. */
static int check_index(struct pack *pack, const uint8_t head[NAMES],
		       char *ret_why)
{
	static const uint8_t magic[FANOUT] = { 0xff, 't', 'O', 'c', 0, 0, 0, 2 };
	uint64_t least, before = 0;

	if (memcmp(head, magic, sizeof(magic)) != 0)
		return bad_index(pack, ret_why,
				 "no index of version 2; git index-pack makes "
				 "one");
	for (int i = 0; i < 256; i++) {
		pack->fanout[i] = get32(head + FANOUT + 4 * i);
		if (pack->fanout[i] < before)
			return bad_index(pack, ret_why,
					 "its first table does not rise");
		before = pack->fanout[i];
	}
	pack->nr = pack->fanout[255];
	least = NAMES + (uint64_t)pack->nr * (OID_BYTES + 8) + 2 * TRAILER;
	if (pack->index_size < least)
		return bad_index(pack, ret_why,
				 "it is shorter than its tables");
	if (pack->index_size > least + 8ull * pack->nr)
		return bad_index(pack, ret_why, "it is longer than its tables");
	return 0;
}

/* In memory of our own: a file could be cut while it is looked at. */
static int load_index(struct odb *odb, struct pack *pack, int fd, char *ret_why)
{
	uint8_t head[NAMES];
	uint8_t *map;
	int r;

	if (pack->index_size < NAMES + 2 * TRAILER)
		return bad_index(pack, ret_why, "it is too short");
	r = pread_all(fd, head, sizeof(head), 0);
	if (r < 0)
		return bad_index(pack, ret_why, strerror(-r));
	r = check_index(pack, head, ret_why);
	if (r < 0)
		return r;
	if (pack->index_size > ODB_MAX_INDEXES - odb->indexed)
		return why(ret_why, -EFBIG,
			   "the indexes of packs have more than 1 GiB");
	map = mmap(NULL, pack->index_size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return why(ret_why, -ENOMEM, "%s.idx: no memory", pack->name);
	pack->map = map;
	odb->indexed += pack->index_size;
	r = pread_all(fd, map, pack->index_size, 0);
	return r < 0 ? bad_index(pack, ret_why, strerror(-r)) : 0;
}

static void drop_index(struct pack *pack)
{
	if (pack->map)
		(void)munmap((void *)(uintptr_t)pack->map, pack->index_size);
	pack->map = NULL;
}

static int offset_of(const struct pack *pack, uint32_t i, uint64_t *ret)
{
	uint64_t offsets = NAMES + (uint64_t)pack->nr * (OID_BYTES + 4);
	uint64_t at = offsets + 4ull * pack->nr;
	uint8_t bytes[8];
	int r = index_bytes(pack, offsets + 4ull * i, bytes, 4);

	if (r < 0)
		return r;
	*ret = get32(bytes);
	if (!(*ret & 0x80000000))
		return 0;
	at += 8 * (*ret & 0x7fffffff);
	if (at + 8 > pack->index_size - 2 * TRAILER)
		return -EBADMSG;
	r = index_bytes(pack, at, bytes, 8);
	*ret = (uint64_t)get32(bytes) << 32 | get32(bytes + 4);
	return r;
}

/* -ENOENT; -EBADMSG: the offset is outside of the index. */
static int search(const struct pack *pack, const uint8_t oid[OID_BYTES],
		  uint64_t *ret_at)
{
	uint32_t low = oid[0] ? pack->fanout[oid[0] - 1] : 0;
	uint32_t high = pack->fanout[oid[0]];

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		uint8_t here[OID_BYTES];
		int r = index_bytes(pack, NAMES + (uint64_t)mid * OID_BYTES,
				    here, sizeof(here));
		int order = r < 0 ? 0 : memcmp(here, oid, sizeof(here));

		if (r < 0)
			return r;
		if (order == 0)
			return offset_of(pack, mid, ret_at);
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return -ENOENT;
}

/* --- Packs ----------------------------------------------------------------- */

/* No links: a repository shows what is in it. */
static int open_file(int dir, const char *name, const char *end,
		     uint64_t *ret_size)
{
	cleanup_free char *file = xasprintf("%s%s", name, end);
	cleanup_close int fd = -1;
	struct stat st;

	if (!file)
		return -ENOMEM;
	fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	*ret_size = (uint64_t)st.st_size;
	return TAKE_FD(fd);
}

/* The file has this many bytes. */
static int check_pack(struct pack *pack, uint64_t size, char *ret_why)
{
	uint8_t head[12];

	if (size < sizeof(head) + TRAILER ||
	    pread_all(pack->fd, head, sizeof(head), 0) < 0 ||
	    memcmp(head, "PACK", 4) != 0 ||
	    (get32(head + 4) != 2 && get32(head + 4) != 3))
		return why(ret_why, -EBADMSG, "%s.pack is no pack", pack->name);
	pack->size = size - TRAILER;
	return 0;
}

static int open_pack(struct odb *odb, struct pack *pack, char *ret_why)
{
	uint64_t size, index_size;
	cleanup_close int fd = -1;
	int r = fd = open_file(odb->dir, pack->name, ".pack", &size);

	if (r >= 0)
		r = open_file(odb->dir, pack->name, ".idx", &index_size);
	if (r < 0)
		return why(ret_why, r, "%s.pack: %s", pack->name, strerror(-r));
	pack->fd = TAKE_FD(fd);
	pack->index = r;
	r = check_pack(pack, size, ret_why);
	if (r < 0)
		return r;
	if (++odb->nr_used > ODB_MAX_PACKS)
		return why(ret_why, -EMFILE,
			   "the objects are in more than %u packs: try git "
			   "repack",
			   ODB_MAX_PACKS);
	return 0;
}

static int add_pack(struct odb *odb, const char *name, char *ret_why)
{
	struct pack *pack = &odb->packs[odb->nr];
	cleanup_close int fd = -1;

	if (odb->nr >= PACKS_SEEN)
		return why(ret_why, -EMFILE,
			   "there are more than %u packs: try git repack",
			   PACKS_SEEN);
	*pack = (struct pack){ .fd = -1, .index = -1 };
	pack->name = strndup(name, strlen(name) - 4);
	odb->nr++;
	if (!pack->name)
		return why(ret_why, -ENOMEM, "the packs: no memory");
	fd = open_file(odb->dir, pack->name, ".idx", &pack->index_size);
	if (fd == -ENOENT) /* a repack has just replaced it */
		return 0;
	if (fd < 0)
		return why(ret_why, fd, "%s: %s", name, strerror(-fd));
	return load_index(odb, pack, fd, ret_why);
}

/* Sorted, so that of two copies of an object always the same one is read. */
static int by_name(const void *a, const void *b)
{
	const struct pack *x = a, *y = b;

	return strcmp(x->name ? x->name : "", y->name ? y->name : "");
}

/* One that was there and is gone is another when it comes back. */
static bool is_known(const struct odb *odb, const char *name)
{
	size_t n = strlen(name) - 4;

	for (uint32_t i = 1; i < odb->nr; i++) {
		const struct pack *pack = &odb->packs[i];

		if ((pack->map || pack->fd >= 0) &&
		    strncmp(pack->name, name, n) == 0 && !pack->name[n])
			return true;
	}
	return false;
}

/* All that are not known; again: later on, when some may be. */
static int list_packs(struct odb *odb, bool again, char *ret_why)
{
	const struct dirent *entry;
	DIR *dir;
	int fd = odb->dir < 0 ? -1 : fcntl(odb->dir, F_DUPFD_CLOEXEC, 0);
	int r = 0;

	if (odb->dir < 0)
		return 0;
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		r = -errno;
		if (fd >= 0)
			(void)close(fd);
		return why(ret_why, r, "objects/pack: %s", strerror(-r));
	}
	rewinddir(dir);
	while (r == 0 && (entry = readdir(dir))) {
		size_t n = strlen(entry->d_name);

		if (n > 4 && strcmp(entry->d_name + n - 4, ".idx") == 0 &&
		    !(again && is_known(odb, entry->d_name)))
			r = add_pack(odb, entry->d_name, ret_why);
	}
	(void)closedir(dir);
	/* What has been found has a number by then. */
	if (!again)
		qsort(odb->packs + 1, odb->nr - 1, sizeof(*odb->packs),
		      by_name);
	return r;
}

/* With room for so many packs. */
static int new_odb(struct odb **ret, uint32_t room, char *ret_why)
{
	struct odb *odb = calloc(1, sizeof(*odb));

	if (odb)
		odb->packs = calloc(room, sizeof(*odb->packs));
	if (!odb || !odb->packs ||
	    getrandom(&hash_key, sizeof(hash_key), 0) != sizeof(hash_key)) {
		if (odb)
			free(odb->packs);
		free(odb);
		return why(ret_why, -ENOMEM, "the objects: no memory");
	}
	pthread_mutex_init(&odb->adding, NULL);
	odb->objects = odb->dir = -1;
	odb->nr = 1;
	odb->packs[SPOOL] = (struct pack){ .fd = -1, .index = -1 };
	*ret = odb;
	return 0;
}

int odb_open(struct odb **ret, int objects, char *ret_why)
{
	struct odb *odb;
	int r = new_odb(&odb, PACKS_SEEN + 1, ret_why);

	if (r < 0)
		return r;
	odb->objects = objects;
	odb->dir = openat(objects, "pack",
			  O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	r = odb->dir < 0 && errno != ENOENT ?
		    why(ret_why, -errno, "objects/pack: %s", strerror(errno)) :
		    list_packs(odb, false, ret_why);
	if (r < 0) {
		odb_close(odb);
		return r;
	}
	*ret = odb;
	return 0;
}

int odb_new(struct odb **ret, char *ret_why)
{
	int r = new_odb(ret, ODB_MAX_PACKS + 1, ret_why);

	if (r == 0)
		(*ret)->room = ODB_MAX_PACKS + 1;
	return r;
}

static void forget_loose(struct odb *odb)
{
	struct loose *loose, *next;

	HASH_ITER(hh, odb->loose, loose, next) {
		HASH_DEL(odb->loose, loose);
		free(loose);
	}
}

static void close_pack(struct pack *pack)
{
	drop_index(pack);
	if (pack->fd >= 0)
		(void)close(TAKE_FD(pack->fd));
	if (pack->index >= 0)
		(void)close(TAKE_FD(pack->index));
	free(TAKE_PTR(pack->name));
}

/* For packs to come; without memory they will be refused. */
static void make_room(struct odb *odb)
{
	uint32_t room = odb->nr + ODB_MAX_PACKS - odb->nr_used;
	struct pack *packs = realloc(odb->packs, room * sizeof(*packs));

	odb->room = packs ? room : odb->nr;
	if (packs)
		odb->packs = packs;
}

void odb_settle(struct odb *odb)
{
	for (uint32_t i = 1; i < odb->nr; i++) {
		if (odb->packs[i].fd < 0)
			close_pack(&odb->packs[i]);
		drop_index(&odb->packs[i]);
	}
	if (odb->dir >= 0)
		(void)close(TAKE_FD(odb->dir));
	forget_loose(odb);
	odb->objects = -1;
	make_room(odb);
}

void odb_close(struct odb *odb)
{
	if (!odb)
		return;
	for (uint32_t i = 0; i < odb->nr; i++)
		close_pack(&odb->packs[i]);
	if (odb->dir >= 0)
		(void)close(odb->dir);
	forget_loose(odb);
	pthread_mutex_destroy(&odb->adding);
	free(odb->packs);
	free(odb);
}

/* --- Loose objects ------------------------------------------------------------ */

static int spool(struct odb *odb, int fd, uint64_t size)
{
	struct pack *pack = &odb->packs[SPOOL];
	cleanup_free uint8_t *bytes = NULL;
	int r;

	if (size > ODB_MAX_LOOSE - odb->spooled)
		return -EFBIG;
	if (pack->fd < 0)
		pack->fd = memfd_create("loose", MFD_CLOEXEC);
	if (pack->fd < 0)
		return -errno;
	bytes = malloc(size ? size : 1);
	r = bytes ? pread_all(fd, bytes, size, 0) : -ENOMEM;
	if (r == 0)
		r = pwrite_all(pack->fd, bytes, size, odb->spooled);
	if (r == 0)
		pack->size = odb->spooled += size;
	return r;
}

/* The same file many times is copied once. */
static int remember_loose(struct odb *odb, const uint8_t oid[OID_BYTES],
			  uint64_t at)
{
	struct loose *loose = calloc(1, sizeof(*loose));

	if (!loose)
		return -ENOMEM;
	memcpy(loose->oid, oid, OID_BYTES);
	loose->at = at;
	HASH_ADD(hh, odb->loose, oid, OID_BYTES, loose);
	if (loose->hh.tbl)
		return 0;
	free(loose);
	return -ENOMEM;
}

/* No links on the way, either: the folder is opened by itself. */
static int open_loose(const struct odb *odb, const char name[OID_HEX + 1],
		      uint64_t *ret_size)
{
	char folder[3] = { name[0], name[1], '\0' };
	cleanup_close int dir =
		openat(odb->objects, folder,
		       O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	return dir < 0 ? -errno : open_file(dir, name + 2, "", ret_size);
}

static int find_loose(struct odb *odb, const uint8_t oid[OID_BYTES],
		      struct place *ret, char *ret_why)
{
	char name[OID_HEX + 1];
	const struct loose *known;
	cleanup_close int fd = -1;
	uint64_t size;
	int r;

	HASH_FIND(hh, odb->loose, oid, OID_BYTES, known);
	if (known) {
		*ret = (struct place){ SPOOL, known->at };
		return 0;
	}
	oid_hex(oid, name);
	r = fd = open_loose(odb, name, &size);
	*ret = (struct place){ SPOOL, odb->spooled };
	if (r >= 0)
		r = spool(odb, fd, size);
	if (r == 0)
		r = remember_loose(odb, oid, ret->at);
	if (r == -ENOENT)
		return why(ret_why, r, "object %s is not in the repository",
			   name);
	if (r == -EFBIG)
		return why(
			ret_why, r,
			"the loose objects take more than 1 GiB: try git gc");
	return r < 0 ? why(ret_why, r, "object %s: %s", name, strerror(-r)) : 0;
}

bool odb_is_loose(struct place place)
{
	return place.pack == SPOOL;
}

uint64_t odb_loose_bytes(const struct odb *odb)
{
	return odb->spooled;
}

/* --- Finding ------------------------------------------------------------------- */

static int found_in(struct odb *odb, uint32_t i, uint64_t at, struct place *ret,
		    char *ret_why)
{
	const struct pack *pack = &odb->packs[i];

	if (at >= pack->size)
		return bad_index(pack, ret_why,
				 "an object is beyond the end of the pack");
	atomic_store_explicit(&odb->last, i, memory_order_relaxed);
	*ret = (struct place){ (uint16_t)i, at };
	return 0;
}

static int find_packed(struct odb *odb, uint32_t i,
		       const uint8_t oid[OID_BYTES], struct place *ret,
		       char *ret_why)
{
	struct pack *pack = &odb->packs[i];
	uint64_t at;
	int r = pack->map ? search(pack, oid, &at) : -ENOENT;

	if (r < 0 && r != -ENOENT)
		return bad_index(pack, ret_why, "an offset is outside of it");
	if (r == 0 && pack->fd < 0) {
		r = open_pack(odb, pack, ret_why);
		if (r == -ENOENT) /* a repack has replaced it */
			drop_index(pack);
	}
	return r < 0 ? r : found_in(odb, i, at, ret, ret_why);
}

static int find(struct odb *odb, const uint8_t oid[OID_BYTES],
		struct place *ret, char *ret_why)
{
	int r = -ENOENT;

	if (odb->last)
		r = find_packed(odb, odb->last, oid, ret, ret_why);
	for (uint32_t i = 1; i < odb->nr && r == -ENOENT; i++)
		r = find_packed(odb, i, oid, ret, ret_why);
	return r == -ENOENT ? find_loose(odb, oid, ret, ret_why) : r;
}

/* What is nowhere may be in a pack by now that was not there at the beginning: then
 * that is where a repack has put it. */
int odb_find(struct odb *odb, const uint8_t oid[OID_BYTES], struct place *ret,
	     char *ret_why)
{
	int r = find(odb, oid, ret, ret_why);

	for (unsigned int i = 0; i < TRIES && r == -ENOENT; i++) {
		uint32_t before = odb->nr;
		int listed = list_packs(odb, true, ret_why);

		if (listed < 0)
			return listed;
		if (odb->nr == before)
			break;
		r = find(odb, oid, ret, ret_why);
	}
	return r;
}

/* In the index's file. */
static int look_in(struct odb *odb, uint32_t i, const uint8_t oid[OID_BYTES],
		   struct place *ret, char *ret_why)
{
	const struct pack *pack = &odb->packs[i];
	uint64_t at;
	int r = pack->index >= 0 ? search(pack, oid, &at) : -ENOENT;

	if (r < 0 && r != -ENOENT)
		return bad_index(pack, ret_why,
				 r == -EBADMSG ? "an offset is outside of it" :
						 strerror(-r));
	return r < 0 ? r : found_in(odb, i, at, ret, ret_why);
}

int odb_look_up(struct odb *odb, const uint8_t oid[OID_BYTES],
		struct place *ret, char *ret_why)
{
	uint32_t nr = atomic_load_explicit(&odb->nr, memory_order_acquire);
	uint32_t last = atomic_load_explicit(&odb->last, memory_order_relaxed);
	int r = -ENOENT;

	if (last > 0 && last < nr)
		r = look_in(odb, last, oid, ret, ret_why);
	/* What was added last is wanted most. */
	for (uint32_t i = nr - 1; i > 0 && r == -ENOENT; i--)
		if (i != last)
			r = look_in(odb, i, oid, ret, ret_why);
	return r;
}

/* --- Adding to it -------------------------------------------------------------- */

static int fill_pack(struct pack *pack, const char *name, char *ret_why)
{
	uint8_t head[NAMES];
	struct stat st, index_st;
	int r;

	pack->name = strdup(name);
	if (!pack->name)
		return why(ret_why, -ENOMEM, "the packs: no memory");
	if (fstat(pack->fd, &st) < 0 || fstat(pack->index, &index_st) < 0)
		return why(ret_why, -errno, "%s: %s", name, strerror(errno));
	if (!S_ISREG(st.st_mode) || !S_ISREG(index_st.st_mode))
		return why(ret_why, -EBADMSG, "%s is no plain file", name);
	pack->index_size = (uint64_t)index_st.st_size;
	if (pack->index_size < NAMES + 2 * TRAILER)
		return bad_index(pack, ret_why, "it is too short");
	r = pread_all(pack->index, head, sizeof(head), 0);
	if (r < 0)
		return bad_index(pack, ret_why, strerror(-r));
	r = check_index(pack, head, ret_why);
	return r < 0 ? r : check_pack(pack, (uint64_t)st.st_size, ret_why);
}

int odb_add(struct odb *odb, const char *name, int fd, int index, char *ret_why)
{
	struct pack pack = { .fd = fd, .index = index };
	int r = fill_pack(&pack, name, ret_why);
	uint32_t nr;

	pthread_mutex_lock(&odb->adding);
	nr = odb->nr;
	if (r == 0 && nr >= odb->room)
		r = why(ret_why, -EMFILE,
			"the objects are in more than %u packs: try git repack",
			ODB_MAX_PACKS);
	if (r == 0) {
		odb->packs[nr] = pack;
		atomic_store_explicit(&odb->nr, nr + 1, memory_order_release);
	}
	pthread_mutex_unlock(&odb->adding);
	if (r < 0)
		close_pack(&pack);
	return r;
}

bool odb_has_pack(struct odb *odb, const char *name)
{
	uint32_t nr = atomic_load_explicit(&odb->nr, memory_order_acquire);

	for (uint32_t i = 1; i < nr; i++)
		if (odb->packs[i].name && odb->packs[i].index >= 0 &&
		    strcmp(odb->packs[i].name, name) == 0)
			return true;
	return false;
}

uint32_t odb_packs_left(struct odb *odb)
{
	return odb->room - odb->nr;
}

int odb_pack_fd(const struct odb *odb, uint16_t pack)
{
	return odb->packs[pack].fd;
}

/* --- For readers ---------------------------------------------------------------- */

int odb_find_in(const struct odb *odb, uint16_t number,
		const uint8_t oid[OID_BYTES], struct place *ret)
{
	const struct pack *pack = &odb->packs[number];
	uint64_t at;
	int r = number == SPOOL ? -ENOENT : search(pack, oid, &at);

	if (r == -ENOENT || (r == 0 && at >= pack->size))
		r = -EBADMSG;
	if (r == 0)
		*ret = (struct place){ number, at };
	return r;
}

ssize_t odb_pread(const struct odb *odb, struct place place, void *buf,
		  size_t n)
{
	const struct pack *pack = &odb->packs[place.pack];
	ssize_t got;

	if (place.at >= pack->size)
		return 0;
	n = (size_t)MIN((uint64_t)n, pack->size - place.at);
	do
		got = pread(pack->fd, buf, n, (off_t)place.at);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}
