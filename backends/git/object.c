/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * object.c - reading objects out of packs.
 *
 * An object is a header, then a zlib stream; or changes (a delta) to another
 * object, which may be changes as well.  Such a chain is followed down to a whole
 * object, or to one in the cache, and then applied upwards: no recursion, and a
 * named limit.  Whole objects are inflated by libdeflate, which wants all of the
 * input at once; how long that is no pack says, so a likely length is tried, by what
 * the ones before took, then the longest that makes sense, and zlib does it bit by
 * bit where that was not enough.
 */
#include "config.h"

#include <libdeflate.h>
#include <string.h>
#define ZLIB_CONST
#include <zlib.h>

#include "common/util.h"
#include "odb.h"

#define PIECE	   16384u
#define HEAD	   48u /* bytes of a header, and more */
#define HEAD_INPUT 16384u /* deflated bytes that a few in front may take */
#define KEEP_INPUT (1u << 20) /* bytes of a buffer that stays */
#define GUESS_FROM 16384u /* smaller objects are worth no guess */
#define SHARE	   1024u

struct link {
	struct place place;
	struct object_head head;
};

struct reader {
	const struct odb *odb;
	struct cache *cache;
	struct libdeflate_decompressor *whole;
	z_stream bits;
	bool has_bits;
	uint8_t *input;
	size_t room;
	unsigned int share; /* of SHARE: the input of objects, the most of late */
	struct place window_at; /* what peek() has read */
	size_t window_bytes;
	uint8_t window[4096];
	struct link chain[ODB_MAX_CHAIN];
};

int reader_new(struct reader **ret, const struct odb *odb, struct cache *cache)
{
	struct reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return -ENOMEM;
	reader->odb = odb;
	reader->cache = cache;
	reader->share = SHARE;
	reader->whole = libdeflate_alloc_decompressor();
	reader->has_bits = inflateInit(&reader->bits) == Z_OK;
	if (!reader->whole || !reader->has_bits) {
		reader_free(reader);
		return -ENOMEM;
	}
	*ret = reader;
	return 0;
}

void reader_free(struct reader *reader)
{
	if (!reader)
		return;
	if (reader->whole)
		libdeflate_free_decompressor(reader->whole);
	if (reader->has_bits)
		(void)inflateEnd(&reader->bits);
	free(reader->input);
	free(reader);
}

/*
 * At least n bytes of a pack, up to 512, unless it ends before; returns how many
 * there are in ret, which is good until the next call, or -errno.  Headers are
 * often near each other.
 */
static ssize_t peek(struct reader *reader, struct place place, size_t n,
		    const uint8_t **ret)
{
	uint64_t skip = place.at - reader->window_at.at;
	ssize_t got;

	if (place.pack != reader->window_at.pack ||
	    place.at < reader->window_at.at ||
	    skip + n > reader->window_bytes) {
		got = odb_pread(reader->odb, place, reader->window,
				sizeof(reader->window));
		reader->window_bytes = (size_t)MAX(got, 0);
		reader->window_at = place;
		if (got < 0)
			return got;
		skip = 0;
	}
	*ret = reader->window + skip;
	return (ssize_t)(reader->window_bytes - skip);
}

/* --- Inflating --------------------------------------------------------------- */

static int reserve_input(struct reader *reader, size_t n)
{
	uint8_t *input;

	if (n <= reader->room)
		return 0;
	input = realloc(reader->input, n);
	if (!input)
		return -ENOMEM;
	reader->input = input;
	reader->room = n;
	return 0;
}

static void release_input(struct reader *reader)
{
	if (reader->room <= KEEP_INPUT)
		return;
	free(TAKE_PTR(reader->input));
	reader->room = 0;
}

/*
 * The first n bytes of a stream, bit by bit, which are in its first HEAD_INPUT;
 * or all of it, which must be n, no more and no less.  Returns how many, or
 * -errno.
 */
static ssize_t inflate_bits(struct reader *reader, struct place place,
			    uint8_t *ret, size_t n, bool all)
{
	z_stream *z = &reader->bits;
	uint64_t end = place.at + HEAD_INPUT;
	uint8_t beyond;
	int r = Z_OK;

	if (reserve_input(reader, PIECE) < 0 || inflateReset(z) != Z_OK)
		return -ENOMEM;
	z->avail_in = 0;
	z->next_out = ret;
	z->avail_out = (uInt)n;
	while (r == Z_OK && (z->avail_out > 0 || all)) {
		if (z->avail_in == 0) {
			const uint8_t *input = reader->input;
			ssize_t got = all ? odb_pread(reader->odb, place,
						      reader->input, PIECE) :
					    peek(reader, place, 512, &input);

			if (got < 0)
				return got;
			/* Empty blocks could go on and on. */
			if (got == 0 || (!all && place.at >= end))
				return -EBADMSG;
			place.at += (uint64_t)got;
			z->next_in = input;
			z->avail_in = (uInt)got;
		}
		if (z->avail_out == 0) { /* the end has to come now */
			z->next_out = &beyond;
			z->avail_out = 1;
			r = inflate(z, Z_NO_FLUSH);
			if (z->avail_out == 0)
				return -EBADMSG;
			z->avail_out = 0;
		} else {
			r = inflate(z, Z_NO_FLUSH);
		}
		if (r == Z_BUF_ERROR)
			r = Z_OK; /* more input */
	}
	if (r != Z_OK && r != Z_STREAM_END)
		return r == Z_MEM_ERROR ? -ENOMEM : -EBADMSG;
	if (all && z->avail_out > 0)
		return -EBADMSG;
	return (ssize_t)(n - z->avail_out);
}

/* An eighth more than others took; a wrong guess costs an inflation. */
static size_t guess_input(const struct reader *reader, size_t n, size_t most)
{
	size_t likely = n / SHARE * (reader->share + reader->share / 8) + 512;

	return n < GUESS_FROM ? most : MIN(likely, most);
}

static void note_input(struct reader *reader, size_t n, size_t took)
{
	unsigned int share = (unsigned int)(took / (n / SHARE));

	if (share > reader->share)
		reader->share = share;
	else
		reader->share -= DIV_ROUND_UP(reader->share - share, 16);
}

static bool inflate_at_once(struct reader *reader, struct place place,
			    uint8_t *ret, size_t n)
{
	size_t most = n + n / 1000 + 64, want = guess_input(reader, n, most);
	size_t have = 0, took;
	ssize_t got;

	if (reserve_input(reader, most) < 0)
		return false;
	for (;; want = most) {
		got = odb_pread(reader->odb,
				(struct place){ place.pack, place.at + have },
				reader->input + have, want - have);
		if (got <= 0)
			return false;
		have += (size_t)got;
		if (libdeflate_zlib_decompress_ex(reader->whole, reader->input,
						  have, ret, n, &took,
						  NULL) == LIBDEFLATE_SUCCESS)
			break;
		if (want == most)
			return false;
	}
	if (n >= GUESS_FROM)
		note_input(reader, n, took);
	return true;
}

static int inflate_all(struct reader *reader, struct place place, uint8_t *ret,
		       size_t n)
{
	ssize_t got = 0;

	if (!inflate_at_once(reader, place, ret, n))
		got = inflate_bits(reader, place, ret, n, true);
	release_input(reader);
	return got < 0 ? (int)got : 0;
}

/* --- Headers ------------------------------------------------------------------ */

/* "blob 123" and a NUL, at the front of a loose object's stream. */
static int loose_head(struct reader *reader, struct place place,
		      struct object_head *ret)
{
	static const char *const names[] = { [OBJECT_COMMIT] = "commit ",
					     [OBJECT_TREE] = "tree ",
					     [OBJECT_BLOB] = "blob ",
					     [OBJECT_TAG] = "tag " };
	char head[33] = "";
	ssize_t n = inflate_bits(reader, place, (uint8_t *)head,
				 sizeof(head) - 1, false);

	if (n < 0)
		return (int)n;
	*ret = (struct object_head){ .data = place.at,
				     .skip = (uint32_t)strlen(head) + 1 };
	if (ret->skip > (size_t)n)
		return -EBADMSG;
	for (unsigned int i = OBJECT_COMMIT; i <= OBJECT_TAG; i++) {
		size_t length = strlen(names[i]);

		if (strncmp(head, names[i], length) != 0)
			continue;
		ret->type = i;
		return parse_u64(head + length, INT64_MAX, &ret->size) < 0 ?
			       -EBADMSG :
			       0;
	}
	return -EBADMSG;
}

struct bytes {
	const uint8_t *at;
	const uint8_t *end;
};

static bool next_byte(struct bytes *b, uint8_t *ret)
{
	if (b->at == b->end)
		return false;
	*ret = *b->at++;
	return true;
}

/* Seven bits a byte, the lowest first, after `bits` that are there. */
static bool get_size(struct bytes *b, unsigned int bits, uint64_t *io)
{
	uint8_t c;

	do {
		if (!next_byte(b, &c) || bits > 56)
			return false;
		*io |= (uint64_t)(c & 0x7f) << bits;
		bits += 7;
	} while (c & 0x80);
	return true;
}

/* How far before it the base of an OFS_DELTA is. */
static bool get_distance(struct bytes *b, uint64_t *ret)
{
	uint8_t c;

	if (!next_byte(b, &c))
		return false;
	*ret = c & 0x7f;
	while (c & 0x80) {
		if (!next_byte(b, &c) || *ret >> 56)
			return false;
		*ret = (*ret + 1) << 7 | (c & 0x7f);
	}
	return true;
}

static int find_base(const struct reader *reader, struct place place,
		     struct bytes *b, struct object_head *head)
{
	uint64_t distance;

	if (head->type == OBJECT_REF_DELTA) {
		if (b->end - b->at < OID_BYTES)
			return -EBADMSG;
		b->at += OID_BYTES;
		return odb_find_in(reader->odb, place.pack, b->at - OID_BYTES,
				   &head->base);
	}
	if (!get_distance(b, &distance) || distance == 0 ||
	    distance >= place.at)
		return -EBADMSG;
	head->base = (struct place){ place.pack, place.at - distance };
	return 0;
}

static bool is_delta(enum object_type type)
{
	return type == OBJECT_OFS_DELTA || type == OBJECT_REF_DELTA;
}

int object_head(struct reader *reader, struct place place,
		struct object_head *ret)
{
	const uint8_t *start;
	struct bytes b;
	uint8_t c = 0;
	ssize_t n;
	int r = 0;

	if (odb_is_loose(place))
		return loose_head(reader, place, ret);
	n = peek(reader, place, HEAD, &start);
	if (n < 0)
		return (int)n;
	b = (struct bytes){ start, start + n };
	if (!next_byte(&b, &c))
		return -EBADMSG;
	*ret = (struct object_head){ .type = c >> 4 & 7, .size = c & 15 };
	if (ret->type == 0 || ret->type == 5 ||
	    (c & 0x80 && !get_size(&b, 4, &ret->size)))
		return -EBADMSG;
	if (is_delta(ret->type))
		r = find_base(reader, place, &b, ret);
	ret->data = place.at + (uint64_t)(b.at - start);
	return r;
}

/* --- Deltas --------------------------------------------------------------------- */

/* The sizes of base and result, in front of the instructions. */
static int delta_sizes(struct bytes *b, uint64_t *ret_base, uint64_t *ret)
{
	*ret_base = *ret = 0;
	return get_size(b, 0, ret_base) && get_size(b, 0, ret) ? 0 : -EBADMSG;
}

int object_size(struct reader *reader, struct place place,
		enum object_type *ret_type, uint64_t *ret)
{
	struct object_head head;
	struct bytes b;
	uint8_t start[20];
	uint64_t base;
	ssize_t n;
	int r = object_head(reader, place, &head);

	if (r < 0)
		return r;
	*ret_type = head.type;
	if (!is_delta(head.type)) {
		*ret = head.size;
		return 0;
	}
	n = inflate_bits(reader, (struct place){ place.pack, head.data }, start,
			 sizeof(start), false);
	if (n < 0)
		return (int)n;
	b = (struct bytes){ start, start + n };
	return delta_sizes(&b, &base, ret);
}

/* The operands of a copy: which of their bytes are there, the command says. */
static bool get_copy(struct bytes *b, uint8_t command, uint32_t *ret_at,
		     uint32_t *ret_n)
{
	uint8_t c;

	*ret_at = *ret_n = 0;
	for (unsigned int i = 0; i < 7; i++) {
		if (!(command & 1u << i))
			continue;
		if (!next_byte(b, &c))
			return false;
		if (i < 4)
			*ret_at |= (uint32_t)c << 8 * i;
		else
			*ret_n |= (uint32_t)c << 8 * (i - 4);
	}
	if (*ret_n == 0)
		*ret_n = 0x10000;
	return true;
}

static int run_delta(struct bytes b, const struct object *base, uint8_t *to,
		     uint64_t left)
{
	uint8_t command;

	while (next_byte(&b, &command)) {
		const uint8_t *from = b.at;
		uint32_t at, n = command;

		if (command & 0x80) {
			if (!get_copy(&b, command, &at, &n) ||
			    at > base->size || n > base->size - at)
				return -EBADMSG;
			from = base->data + at;
		} else {
			if (n == 0 || n > (size_t)(b.end - b.at))
				return -EBADMSG;
			b.at += n;
		}
		if (n > left)
			return -EBADMSG;
		memcpy(to, from, n);
		to += n;
		left -= n;
	}
	return left ? -EBADMSG : 0;
}

static int make_from(struct reader *reader, struct place place,
		     const struct object *base, struct bytes b,
		     const struct object **ret)
{
	struct object *object;
	uint64_t base_size, size;
	int r = delta_sizes(&b, &base_size, &size);

	if (r < 0)
		return r;
	if (base_size != base->size)
		return -EBADMSG;
	if (size > ODB_MAX_WHOLE)
		return -EFBIG;
	object = object_new(base->type, size, place);
	if (!object)
		return -ENOMEM;
	r = run_delta(b, base, object_bytes(object), size);
	if (r < 0)
		free(object);
	else
		*ret = cache_add(reader->cache, object);
	return r;
}

/* Takes the base, and gives what comes out. */
static int apply(struct reader *reader, const struct link *link,
		 const struct object **io)
{
	const struct object *base = *io;
	cleanup_free uint8_t *delta = NULL;
	size_t n = (size_t)link->head.size;
	int r = -EFBIG;

	if (link->head.size <= ODB_MAX_WHOLE) {
		delta = malloc(n + 1);
		r = delta ? inflate_all(reader,
					(struct place){ link->place.pack,
							link->head.data },
					delta, n) :
			    -ENOMEM;
	}
	if (r == 0)
		r = make_from(reader, link->place, base,
			      (struct bytes){ delta, delta + n }, io);
	cache_put(reader->cache, base);
	return r;
}

/* --- Whole objects ---------------------------------------------------------------- */

static int read_plain(struct reader *reader, struct place place,
		      const struct object_head *head, const struct object **ret)
{
	struct object *object;
	int r;

	if (head->size > ODB_MAX_WHOLE)
		return -EFBIG;
	object = object_new(head->type, head->size + head->skip, place);
	if (!object)
		return -ENOMEM;
	r = inflate_all(reader, (struct place){ place.pack, head->data },
			object_bytes(object), head->size + head->skip);
	if (r < 0) {
		free(object);
		return r;
	}
	object->data += head->skip;
	object->size = head->size;
	*ret = cache_add(reader->cache, object);
	return 0;
}

int object_read_into(struct reader *reader, struct place place, uint8_t *to,
		     uint64_t n)
{
	struct object_head head;
	int r = object_head(reader, place, &head);

	if (r < 0)
		return r;
	if (head.type != OBJECT_BLOB || head.size != n || head.skip)
		return 0;
	r = inflate_all(reader, (struct place){ place.pack, head.data }, to, n);
	return r < 0 ? r : 1;
}

int object_read(struct reader *reader, struct place place,
		const struct object **ret)
{
	const struct object *object;
	unsigned int n = 0;
	int r = 0;

	while (!(object = cache_get(reader->cache, place))) {
		struct link *link = &reader->chain[n];

		link->place = place;
		r = object_head(reader, place, &link->head);
		if (r == 0 && !is_delta(link->head.type)) {
			r = read_plain(reader, place, &link->head, &object);
			break;
		}
		if (r == 0 && ++n == ODB_MAX_CHAIN)
			r = -EBADMSG;
		if (r < 0)
			break;
		place = link->head.base;
	}
	while (r == 0 && n-- > 0)
		r = apply(reader, &reader->chain[n], &object);
	if (r == 0)
		*ret = object;
	return r;
}
