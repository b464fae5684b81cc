/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-disk.c - the commit of a git disk that somebody hostile has made: the text
 * of the disk, its trees, and changes that we make to them.
 *
 * Input: the text's length and the text; how many objects, and those: a tree as
 * bytes (0), a blob (1), or a folder (2) of entries: number, style, object. Then
 * what the root has, and changes: how far the next chunk is, which object.
 *
 * Either it is refused, with a sentence; or the disk is one that can be, going
 * through all chunks and asking for each gives the same, in order, and after a
 * change exactly what was changed is another chunk.
 */
#include "config.h"

#include "fuzz.h"

#include <errno.h>
#include <stdbool.h>

#include "../../backends/git/pack-write.h"
#include "../../backends/git/tree-edit.h"

#define OBJECTS 32u
#define MADE	600u /* by our own changes */
#define CHANGES 24u
#define CHECKED \
	500u /* chunks of one input: folders may be in each other's place */

struct stored {
	enum object_type type;
	uint8_t *data;
	size_t n;
};

static struct stored given[OBJECTS + 2], made[MADE];
static unsigned int nr_given, nr_made;

/* --- Objects: the id says where it is ------------------------------------------- */

static void name_it(uint8_t ret[OID_BYTES], bool ours, unsigned int i)
{
	memset(ret, ours ? 0xee : 0x11, OID_BYTES);
	ret[0] = (uint8_t)i;
	ret[1] = (uint8_t)(i >> 8);
}

static const struct stored *find(const uint8_t oid[OID_BYTES])
{
	unsigned int i = oid[0] | (unsigned int)oid[1] << 8;

	if (oid[2] == 0xee)
		return i < nr_made ? &made[i] : NULL;
	return nr_given ? &given[i % nr_given] : NULL;
}

static int read_stored(void *ctx, const uint8_t oid[OID_BYTES],
		       enum object_type type, size_t max, uint8_t **ret,
		       size_t *ret_n, char *ret_why)
{
	const struct stored *object = find(oid);

	(void)ctx;
	if (!object)
		return why(ret_why, -ENOENT, "it is not there");
	if (object->type != type || object->n > max)
		return why(ret_why, -EBADMSG, "it is another one");
	*ret = malloc(object->n + 1);
	HOLDS(*ret, "memory");
	memcpy(*ret, object->data, object->n);
	*ret_n = object->n;
	return 0;
}

static const struct object_source source = { .read = read_stored };

static void store(struct stored *to, enum object_type type, const void *data,
		  size_t n)
{
	to->type = type;
	to->n = n;
	to->data = malloc(n + 1);
	HOLDS(to->data, "memory");
	memcpy(to->data, data, n);
}

int pack_add(struct pack_writer *writer, enum object_type type,
	     const void *data, size_t n, uint8_t ret_oid[OID_BYTES],
	     char *ret_why)
{
	(void)writer;
	if (nr_made == MADE)
		return why(ret_why, -ENOSPC, "too many");
	store(&made[nr_made], type, data, n);
	name_it(ret_oid, true, nr_made++);
	return 0;
}

static void forget(void)
{
	while (nr_given > 0)
		free(given[--nr_given].data);
	while (nr_made > 0)
		free(made[--nr_made].data);
}

/* --- The input -------------------------------------------------------------------- */

static size_t put_entry(uint8_t *to, const char *mode, const char *name,
			const uint8_t oid[OID_BYTES])
{
	size_t n = (size_t)sprintf((char *)to, "%s %s", mode, name) + 1;

	memcpy(to + n, oid, OID_BYTES);
	return n + OID_BYTES;
}

static size_t read_folder(struct input *in, uint8_t *to)
{
	static const char *const modes[] = { "100644", "40000", "120000",
					     "100755" };
	unsigned int entries = input_u8(in);
	size_t n = 0;

	for (unsigned int i = 0; i < entries && in->left > 0; i++) {
		uint8_t number = input_u8(in), style = input_u8(in);
		uint8_t oid[OID_BYTES];
		char name[4];

		(void)snprintf(name, sizeof(name), style & 4 ? "%02X" : "%02x",
			       number);
		name_it(oid, false, input_u8(in));
		n += put_entry(to + n, modes[style & 3], name, oid);
	}
	return n;
}

static void read_objects(struct input *in)
{
	static uint8_t bytes[256 * 40];
	unsigned int nr = input_u8(in) % OBJECTS;
	size_t n;

	for (unsigned int i = 0; i < nr; i++) {
		uint8_t kind = input_u8(in) % 3;

		if (kind == 2) {
			n = read_folder(in, bytes);
		} else {
			n = input_u8(in);
			input_bytes(in, bytes, n);
		}
		store(&given[nr_given++], kind == 1 ? OBJECT_BLOB : OBJECT_TREE,
		      bytes, n);
	}
}

/* The last two objects are the text and the root. */
static void read_root(struct input *in, const uint8_t *text, size_t n,
		      uint8_t ret[OID_BYTES])
{
	uint8_t tree[300], oid[OID_BYTES], flags = input_u8(in);
	size_t size = 0;

	name_it(oid, false, input_u8(in));
	if (flags & 1)
		size += put_entry(tree + size, "100644", "README", oid);
	if (!(flags & 2))
		size += put_entry(tree + size, flags & 4 ? "100644" : "40000",
				  GIT_DISK_DATA, oid);
	name_it(oid, false, nr_given);
	if (!(flags & 8))
		size += put_entry(tree + size, "100644", GIT_DISK_FILE, oid);
	store(&given[nr_given++], OBJECT_BLOB, text, n);
	name_it(ret, false, nr_given);
	store(&given[nr_given++], OBJECT_TREE, tree, size);
}

/* --- What is promised ---------------------------------------------------------------- */

static void check_disk(const struct git_disk *disk)
{
	char text[GIT_DISK_TEXT], reason[WHY_MAX];
	uint64_t chunks = git_disk_chunks(disk);
	struct git_disk again;

	HOLDS(disk->size > 0 && disk->size % disk->sector == 0, "its size");
	HOLDS(chunks <= (uint64_t)1 << 8 * disk->levels, "its levels");
	HOLDS(git_disk_bytes(disk, chunks - 1) > 0, "its last chunk");
	HOLDS(git_disk_parse(text, git_disk_print(disk, text), &again,
			     reason) == 0 &&
		      again.size == disk->size && again.chunk == disk->chunk,
	      "its text");
}

struct seen {
	struct chunk_map *map;
	unsigned int nr;
	uint64_t next;
};

static int see_chunk(void *ctx, uint64_t chunk, const uint8_t oid[OID_BYTES])
{
	struct seen *seen = ctx;
	uint8_t got[OID_BYTES], peeked[OID_BYTES];
	char reason[WHY_MAX] = "";
	int r;

	HOLDS(chunk >= seen->next, "the order");
	HOLDS(chunk < git_disk_chunks(chunk_map_disk(seen->map)), "the end");
	seen->next = chunk + 1;
	r = chunk_map_get(seen->map, &source, chunk, got, reason);
	HOLDS(r == 1 && memcmp(got, oid, OID_BYTES) == 0, "asked: %d %s", r,
	      reason);
	r = chunk_map_peek(seen->map, chunk, peeked);
	HOLDS(r == 1 && memcmp(peeked, oid, OID_BYTES) == 0, "from memory");
	return ++seen->nr == CHECKED;
}

struct changes {
	unsigned int nr;
	uint64_t chunk[CHANGES];
	uint8_t oid[CHANGES][OID_BYTES];
	bool zero[CHANGES];
};

static int see_change(void *ctx, uint64_t chunk, const uint8_t *in_a,
		      const uint8_t *in_b)
{
	const struct changes *changes = ctx;
	unsigned int i = 0;

	while (i < changes->nr && changes->chunk[i] != chunk)
		i++;
	HOLDS(i < changes->nr, "a chunk that nobody has changed");
	HOLDS(in_a != in_b, "one that is the same");
	return 0;
}

static void check_changed(struct chunk_map *base, const uint8_t root[OID_BYTES],
			  struct changes *changes)
{
	struct chunk_map *map;
	uint8_t oid[OID_BYTES];
	char reason[WHY_MAX] = "";
	int r = chunk_map_open(&map, &source, root, reason);

	HOLDS(r == 0, "%s", reason);
	for (unsigned int i = 0; i < changes->nr; i++) {
		r = chunk_map_get(map, &source, changes->chunk[i], oid, reason);
		HOLDS(r == (changes->zero[i] ? 0 : 1) &&
			      (r == 0 ||
			       memcmp(oid, changes->oid[i], OID_BYTES) == 0),
		      "what it was set to: %d %s", r, reason);
	}
	/* Broken folders are only found when somebody looks into them. */
	(void)chunk_map_compare(base, map, &source, see_change, changes,
				reason);
	chunk_map_free(map);
}

static void change(struct input *in, struct chunk_map *map)
{
	const struct git_disk *disk = chunk_map_disk(map);
	struct changes changes = { .nr = 0 };
	unsigned int nr = input_u8(in) % CHANGES;
	char reason[WHY_MAX] = "";
	uint8_t root[OID_BYTES];
	struct tree_edit *edit;
	uint64_t chunk = 0;
	int r = tree_edit_new(&edit, map, &source, disk, NULL, reason);

	HOLDS(r == 0, "%s", reason);
	for (unsigned int i = 0; i < nr && r == 0; i++) {
		uint8_t target = input_u8(in);

		chunk += input_u16(in);
		if (chunk >= git_disk_chunks(disk))
			break;
		changes.chunk[changes.nr] = chunk;
		changes.zero[changes.nr] = target == 0;
		name_it(changes.oid[changes.nr], false, target);
		r = tree_edit_set(edit, chunk++,
				  target ? changes.oid[changes.nr] : NULL,
				  reason);
		changes.nr++;
	}
	if (r == 0)
		r = tree_edit_finish(edit, root, reason);
	HOLDS(r == 0 || *reason, "a refusal without a sentence");
	tree_edit_free(edit);
	if (r == 0)
		check_changed(map, root, &changes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	char reason[WHY_MAX] = "";
	uint8_t text[300], root[OID_BYTES];
	struct seen seen = { .nr = 0 };
	struct chunk_map *map;
	size_t n = input_u8(&in);
	int r;

	input_bytes(&in, text, n);
	read_objects(&in);
	read_root(&in, text, n, root);
	r = chunk_map_open(&map, &source, root, reason);
	HOLDS(r == 0 || *reason, "a refusal without a sentence");
	if (r == 0) {
		check_disk(chunk_map_disk(map));
		seen.map = map;
		r = chunk_map_walk(map, &source, 0, UINT64_MAX, see_chunk,
				   &seen, reason);
		HOLDS(r >= 0 || *reason, "a refusal without a sentence");
		change(&in, map);
		chunk_map_free(map);
	}
	forget();
	return 0;
}
