/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * What is known of a chunk is one word, which is read and written whole: its kind
 * in two bits, then the number of the pack in ten, then an offset.  0 is nothing.
 * Two threads that find out the same at a time write the same.
 *
 * A chunk that does not compress is written to a pack as stored deflate blocks
 * (RFC 1951, 3.2.4): its bytes as they are, with 5 bytes in front of each 65535.
 * When all of these headers are as expected, no more of the stream is ever looked
 * at; what a file system gives back wrong stays wrong, as with any raw image.
 * Everything else is inflated, and checked by its Adler-32 (RFC 1950).
 */
#include "config.h"

#include "base.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "common/util.h"

#define KIND_BITS  2u
#define PACK_BITS  10u
#define AT_BITS	   (64u - KIND_BITS - PACK_BITS)
#define ZLIB_HEAD  2u
#define LOOK_AHEAD 32u /* chunks */
#define ASKED	   UINT16_MAX /* the "pack" of what was asked for, in the cache */

_Static_assert(ODB_MAX_PACKS < 1u << PACK_BITS, "their numbers fit");

struct base {
	atomic_uint users;
	struct store *store;
	struct chunk_map *map;
	uint8_t commit[OID_BYTES];
	uint64_t chunks;
	_Atomic uint64_t *where; /* as many */
};

struct base_reader {
	struct asker asker;
	struct store *store; /* of reader; counted */
	struct reader *reader;
};

/* --- Store ------------------------------------------------------------------- */

int store_new(struct store **ret, uint64_t cache, char *ret_why)
{
	struct store *store = calloc(1, sizeof(*store));
	int r = store ? cache_new(&store->cache, cache) : -ENOMEM;

	if (r == 0 &&
	    getrandom(&store->key, sizeof(store->key), 0) != sizeof(store->key))
		r = -EIO;
	if (r < 0)
		(void)why(ret_why, r, "the objects: %s", strerror(-r));
	else
		r = odb_new(&store->odb, ret_why);
	if (r < 0) {
		if (store)
			cache_free(store->cache);
		free(store);
		return r;
	}
	atomic_init(&store->users, 1);
	*ret = store;
	return 0;
}

static struct store *store_get(struct store *store)
{
	atomic_fetch_add(&store->users, 1);
	return store;
}

void store_put(struct store *store)
{
	if (!store || atomic_fetch_sub(&store->users, 1) != 1)
		return;
	odb_close(store->odb);
	cache_free(store->cache);
	free(store);
}

/* --- One thread's way to objects ------------------------------------------------ */

int base_reader_new(struct base_reader **ret, const struct asker *asker)
{
	struct base_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return -ENOMEM;
	reader->asker = *asker;
	*ret = reader;
	return 0;
}

static void leave_store(struct base_reader *reader)
{
	reader_free(TAKE_PTR(reader->reader));
	store_put(TAKE_PTR(reader->store));
}

void base_reader_free(struct base_reader *reader)
{
	if (!reader)
		return;
	leave_store(reader);
	free(reader);
}

static int enter_store(struct base_reader *reader, struct store *store)
{
	int r;

	if (reader->store == store)
		return 0;
	leave_store(reader);
	r = reader_new(&reader->reader, store->odb, store->cache);
	if (r == 0)
		reader->store = store_get(store);
	return r;
}

/* Of all of the id, and by a key that nobody knows: a guest can make chunks whose ids
 * begin with the same eight bytes. */
static struct place asked_place(const struct store *store,
				const uint8_t oid[OID_BYTES])
{
	struct place place = { .pack = ASKED, .at = store->key };
	uint32_t word;

	for (unsigned int i = 0; i < OID_BYTES; i += sizeof(word)) {
		memcpy(&word, oid + i, sizeof(word));
		place.at = (place.at ^ word) * 0x9e3779b97f4a7c15u;
		place.at ^= place.at >> 29;
	}
	return place;
}

/* What somebody else has read, into the cache. */
static int ask(struct base_reader *reader, const uint8_t oid[OID_BYTES],
	       size_t max, const struct object **ret, char *ret_why)
{
	const struct object *known = cache_get(reader->store->cache,
					       asked_place(reader->store, oid));
	cleanup_close int fd = -1;
	enum object_type type;
	struct object *object;
	uint64_t size;
	int r;

	if (known) {
		*ret = known;
		return 0;
	}
	r = reader->asker.ask(reader->asker.ctx, oid, &type, &size, &fd,
			      ret_why);
	if (r < 0)
		return r;
	if (size > max)
		return why(ret_why, -EBADMSG, "it is too large");
	object = object_new(type, size, asked_place(reader->store, oid));
	r = object ? pread_all(fd, object_bytes(object), size, 0) : -ENOMEM;
	if (r < 0) {
		free(object);
		return why(ret_why, r, "%s", strerror(-r));
	}
	*ret = cache_add(reader->store->cache, object);
	return 0;
}

static int read_at(struct base_reader *reader, struct place place,
		   const struct object **ret, char *ret_why)
{
	int r = object_read(reader->reader, place, ret);

	return r < 0 ? why(ret_why, r, "%s",
			   r == -EBADMSG ? "it is damaged" : strerror(-r)) :
		       0;
}

/* Any object of our packs, else of whoever can be asked. */
static int read_object(struct base_reader *reader, const uint8_t oid[OID_BYTES],
		       size_t max, const struct object **ret, char *ret_why)
{
	struct place place;
	int r = odb_look_up(reader->store->odb, oid, &place, ret_why);

	if (r == -ENOENT)
		return ask(reader, oid, max, ret, ret_why);
	return r < 0 ? r : read_at(reader, place, ret, ret_why);
}

/* struct object_source: a copy, for trees are kept in another form. */
static int source_read(void *ctx, const uint8_t oid[OID_BYTES],
		       enum object_type type, size_t max, uint8_t **ret,
		       size_t *ret_n, char *ret_why)
{
	struct base_reader *reader = ctx;
	const struct object *object;
	char name[OID_HEX + 1], reason[WHY_MAX] = "";
	uint8_t *bytes = NULL;
	int r = read_object(reader, oid, max, &object, reason);

	oid_hex(oid, name);
	if (r < 0)
		return why(ret_why, r, "object %s: %.300s", name, reason);
	if (object->type != type || object->size > max)
		r = why(ret_why, -EBADMSG, "object %s is not what it should be",
			name);
	else
		bytes = malloc(object->size + 1);
	if (r == 0 && !bytes)
		r = why(ret_why, -ENOMEM, "object %s: no memory", name);
	if (r == 0) {
		memcpy(bytes, object->data, object->size);
		*ret = bytes;
		*ret_n = object->size;
	}
	cache_put(reader->store->cache, object);
	return r;
}

static struct object_source source_of(struct base_reader *reader)
{
	return (struct object_source){ .read = source_read, .ctx = reader };
}

/* --- A base -------------------------------------------------------------------- */

static size_t where_bytes(const struct base *base)
{
	return base->chunks * sizeof(*base->where);
}

int base_open(struct base **ret, struct store *store,
	      struct base_reader *reader, const uint8_t commit[OID_BYTES],
	      const uint8_t tree[OID_BYTES], char *ret_why)
{
	struct object_source source = source_of(reader);
	struct base *base = calloc(1, sizeof(*base));
	int r = base ? enter_store(reader, store) : -ENOMEM;
	void *where;

	if (r < 0) {
		free(base);
		return why(ret_why, r, "the disk: no memory");
	}
	atomic_init(&base->users, 1);
	memcpy(base->commit, commit, OID_BYTES);
	r = chunk_map_open(&base->map, &source, tree, ret_why);
	if (r < 0) {
		free(base);
		return r;
	}
	base->chunks = git_disk_chunks(chunk_map_disk(base->map));
	/* Pages that nobody touches take no memory. */
	where = mmap(NULL, where_bytes(base), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (where == MAP_FAILED) {
		chunk_map_free(base->map);
		free(base);
		return why(ret_why, -ENOMEM, "the disk: no memory");
	}
	base->where = where;
	base->store = store_get(store);
	*ret = base;
	return 0;
}

void base_inherit(struct base *base, const struct base *before,
		  bool (*touched)(void *ctx, uint64_t chunk), void *ctx)
{
	uint64_t n = MIN(base->chunks, before->chunks);

	if (base->store != before->store ||
	    base_disk(base)->chunk != base_disk(before)->chunk)
		return;
	/* The last one may have been shorter. */
	if (base->chunks != before->chunks ||
	    base_disk(base)->size != base_disk(before)->size)
		n--;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t word = atomic_load_explicit(&before->where[i],
						     memory_order_relaxed);

		if (word && !touched(ctx, i))
			atomic_store_explicit(&base->where[i], word,
					      memory_order_relaxed);
	}
}

struct base *base_get(struct base *base)
{
	atomic_fetch_add(&base->users, 1);
	return base;
}

void base_put(struct base *base)
{
	if (!base || atomic_fetch_sub(&base->users, 1) != 1)
		return;
	(void)munmap((void *)(uintptr_t)base->where, where_bytes(base));
	chunk_map_free(base->map);
	store_put(base->store);
	free(base);
}

const struct git_disk *base_disk(const struct base *base)
{
	return chunk_map_disk(base->map);
}

const uint8_t *base_commit(const struct base *base)
{
	return base->commit;
}

/* --- What is known of a chunk ---------------------------------------------------- */

static uint64_t word_of(enum where_kind kind, struct place place)
{
	return kind | (uint64_t)place.pack << KIND_BITS |
	       place.at << (KIND_BITS + PACK_BITS);
}

static struct place place_of(uint64_t word)
{
	return (struct place){
		.pack = word >> KIND_BITS & ((1u << PACK_BITS) - 1),
		.at = word >> (KIND_BITS + PACK_BITS),
	};
}

static uint64_t get_word(const struct base *base, uint64_t chunk)
{
	/* What else is in the store was there before. */
	return atomic_load_explicit(&base->where[chunk], memory_order_acquire);
}

static void set_word(struct base *base, uint64_t chunk, uint64_t word)
{
	atomic_store_explicit(&base->where[chunk], word, memory_order_release);
}

static enum where_kind kind_of(uint64_t word)
{
	return word & ((1u << KIND_BITS) - 1);
}

struct where base_where(const struct base *base, uint64_t chunk)
{
	uint64_t word = get_word(base, chunk);
	struct where where = { .kind = kind_of(word), .fd = -1 };
	struct place place = place_of(word);

	if (where.kind == WHERE_STORED) {
		where.fd = odb_pack_fd(base->store->odb, place.pack);
		where.at = place.at;
	}
	return where;
}

const struct object *base_cached(const struct base *base, uint64_t chunk)
{
	uint64_t word = get_word(base, chunk);
	struct place place = place_of(word);

	return kind_of(word) == WHERE_CACHED && place.pack ?
		       cache_get(base->store->cache, place) :
		       NULL;
}

void base_uncache(const struct base *base, const struct object *object)
{
	cache_put(base->store->cache, object);
}

/* --- Finding out ------------------------------------------------------------------ */

static int bad_chunk(const struct base *base, uint64_t chunk,
		     const uint8_t *oid, char *ret_why, int err,
		     const char *what)
{
	char id[OID_HEX + 1], name[OID_HEX + 1], path[GIT_CHUNK_PATH];

	oid_hex(base->commit, id);
	oid_hex(oid, name);
	(void)why(ret_why, err, "%s of commit %s (object %s): %.200s",
		  git_disk_path(base_disk(base), chunk, path), id, name, what);
	/* What passes: whoever is asked may be away for a moment. */
	return err == -ENOMEM || err == -EAGAIN ? err : -EIO;
}

/* Is that the header of a stored block of n bytes, the last one or not? */
static bool is_block(const uint8_t head[STORED_HEAD], uint32_t n, bool last)
{
	uint16_t length = (uint16_t)(head[1] | head[2] << 8);
	uint16_t check = (uint16_t)(head[3] | head[4] << 8);

	return (head[0] & 7) == (last ? 1 : 0) && length == n &&
	       (length ^ check) == 0xffff;
}

/* Is all of it in stored blocks?  at: where its content begins. */
static bool is_stored(const struct odb *odb, struct place place,
		      const struct object_head *head, uint64_t *ret_at)
{
	uint64_t left = head->size, at = head->data;
	uint8_t bytes[ZLIB_HEAD + STORED_HEAD];
	uint32_t skip = ZLIB_HEAD;

	*ret_at = at + sizeof(bytes);
	while (left > 0) {
		uint32_t n = (uint32_t)MIN(left, STORED_BLOCK);
		ssize_t want = skip + STORED_HEAD;
		ssize_t got = odb_pread(odb, (struct place){ place.pack, at },
					bytes, (size_t)want);

		if (got != want || !is_block(bytes + skip, n, n == left))
			return false;
		/* CMF and FLG: deflate, no dictionary. */
		if (skip && ((bytes[0] & 15) != 8 || bytes[1] & 0x20 ||
			     (bytes[0] << 8 | bytes[1]) % 31 != 0))
			return false;
		at += (uint64_t)want + n;
		left -= n;
		skip = 0;
	}
	return *ret_at >> AT_BITS == 0;
}

/* The place of an object in a pack: how is it kept? */
static int look_at(struct base *base, struct base_reader *reader,
		   uint64_t chunk, struct place place, uint64_t *ret_word)
{
	struct object_head head;
	uint64_t at;
	int r = object_head(reader->reader, place, &head);

	if (r < 0)
		return r;
	if (head.type == OBJECT_BLOB &&
	    head.size != git_disk_bytes(base_disk(base), chunk))
		return -EBADMSG;
	if (head.type == OBJECT_BLOB &&
	    is_stored(base->store->odb, place, &head, &at))
		*ret_word =
			word_of(WHERE_STORED, (struct place){ place.pack, at });
	else
		*ret_word = word_of(WHERE_CACHED, place);
	return 0;
}

/* ret_oid: also when it fails, if it is known. */
static int find_out(struct base *base, struct base_reader *reader,
		    uint64_t chunk, uint8_t ret_oid[OID_BYTES],
		    uint64_t *ret_word, char *ret_why)
{
	struct object_source source = source_of(reader);
	struct place place = { 0 };
	int r = chunk_map_get(base->map, &source, chunk, ret_oid, ret_why);

	if (r == 0)
		*ret_word = word_of(WHERE_ZERO, place);
	if (r <= 0)
		return r;
	r = odb_look_up(base->store->odb, ret_oid, &place, ret_why);
	if (r == -ENOENT) { /* pack 0: to be asked for */
		*ret_word = word_of(WHERE_CACHED, (struct place){ 0 });
		return 0;
	}
	if (r == 0)
		r = look_at(base, reader, chunk, place, ret_word);
	if (r < 0 && !*ret_why)
		(void)why(ret_why, r, "%s",
			  r == -EBADMSG ? "it is damaged" : strerror(-r));
	return r;
}

/* Who wants a chunk, and where. */
struct wanted {
	uint32_t bytes;
	uint8_t *into; /* or NULL */
	const struct object *object; /* if it is not there */
};

/* 1: it is in want->into. */
static int read_place(struct base_reader *reader, struct place place,
		      struct wanted *want, char *ret_why)
{
	int r = 0;

	if (want->into)
		r = object_read_into(reader->reader, place, want->into,
				     want->bytes);
	return r ? r : read_at(reader, place, &want->object, ret_why);
}

/* What find_out() says is to be inflated, or to be asked for. */
static int read_found(struct base_reader *reader, const uint8_t oid[OID_BYTES],
		      uint64_t word, struct wanted *want, char *ret_why)
{
	struct place place = place_of(word);
	int r;

	if (place.pack)
		r = read_place(reader, place, want, ret_why);
	else
		r = ask(reader, oid, want->bytes, &want->object, ret_why);
	if (r < 0 && !*ret_why)
		(void)why(ret_why, r, "%s",
			  r == -EBADMSG ? "it is damaged" : strerror(-r));
	return r;
}

/* False: it is no blob of the chunk's size. */
static bool is_right(const struct base *base, struct wanted *want)
{
	const struct object *object = want->object;

	if (!object ||
	    (object->type == OBJECT_BLOB && object->size == want->bytes))
		return true;
	base_uncache(base, object);
	want->object = NULL;
	return false;
}

/* One whose place is known, but which is not in the cache any more.  0: that is not
 * so, or not all is well with it; from the start then, which says why. */
static int read_again(struct base *base, struct base_reader *reader,
		      uint64_t chunk, struct wanted *want)
{
	uint64_t word = get_word(base, chunk);
	char reason[WHY_MAX];
	int r;

	if (kind_of(word) != WHERE_CACHED || place_of(word).pack == 0)
		return 0;
	r = read_place(reader, place_of(word), want, reason);
	return r >= 0 && is_right(base, want) ? 1 : 0;
}

static int read_first(struct base *base, struct base_reader *reader,
		      uint64_t chunk, struct wanted *want, char *ret_why)
{
	uint8_t oid[OID_BYTES] = { 0 };
	char reason[WHY_MAX] = "";
	uint64_t word = 0;
	int r = find_out(base, reader, chunk, oid, &word, reason);

	if (r == 0 && kind_of(word) == WHERE_CACHED)
		r = read_found(reader, oid, word, want, reason);
	if (r >= 0 && !is_right(base, want))
		r = why(reason, -EBADMSG, "it is no blob of the chunk's size");
	if (r < 0)
		return bad_chunk(base, chunk, oid, ret_why, r, reason);
	set_word(base, chunk, word);
	return r;
}

int base_fetch(struct base *base, struct base_reader *reader, uint64_t chunk,
	       uint8_t *into, const struct object **ret, char *ret_why)
{
	struct wanted want = { .bytes = git_disk_bytes(base_disk(base), chunk),
			       .into = into };
	int r = enter_store(reader, base->store);

	if (r < 0)
		return why(ret_why, r, "the objects: no memory");
	r = read_again(base, reader, chunk, &want);
	if (r == 0)
		r = read_first(base, reader, chunk, &want, ret_why);
	if (r < 0)
		return r;
	*ret = want.object;
	return into && !want.object ? r : 0;
}

void base_look_ahead(struct base *base, struct base_reader *reader,
		     uint64_t chunk)
{
	uint64_t end = MIN(base->chunks, chunk + LOOK_AHEAD);
	uint8_t oid[OID_BYTES];
	char reason[WHY_MAX];

	/* Only for who reads in order. */
	if ((chunk > 1 && !get_word(base, chunk - 2)) ||
	    enter_store(reader, base->store) < 0)
		return;
	for (; chunk < end; chunk++) {
		uint64_t word = 0;

		*reason = '\0';
		if (get_word(base, chunk))
			break;
		if (find_out(base, reader, chunk, oid, &word, reason) < 0)
			break;
		set_word(base, chunk, word);
	}
}
