/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * A zlib stream can only be read from its front.  So on the way through it
 * points are noted at which one can start again: between two blocks, with the
 * 32 KiB before it that later bytes may refer to, as zlib's examples/zran.c
 * does.  They are at least 1 MiB and a 256th of the object apart, which bounds
 * both their memory (8 MiB) and the way back.
 *
 * A few streams stay open, each where its last reader left it, so that a file
 * that is read in order is inflated once.
 */
#include "config.h"

#include "stream.h"

#include <string.h>
#include <zlib.h>

#include "common/util.h"

#define STREAMS	    4u /* open at a time */
#define POINTS	    256u
#define LEAST_APART (1u << 20)
#define WINDOW	    32768u
#define PIECE	    65536u

struct point {
	uint64_t out; /* bytes of the stream's content before it */
	uint64_t in; /* where the next byte of input is in the pack */
	unsigned int bits; /* of the byte before that are still to be used */
	unsigned int window_bytes;
	uint8_t *window;
};

struct stream {
	const struct odb *odb;
	struct place place;
	struct object_head head;
	uint64_t used; /* when; 0: it is free */
	z_stream z;
	bool has_z;
	uint64_t out; /* position: bytes that came out so far */
	uint64_t in; /* where to read on in the pack */
	uint64_t apart;
	struct point points[POINTS];
	unsigned int nr_points;
	uint8_t input[PIECE];
};

struct streams {
	const struct odb *odb;
	uint64_t clock;
	struct stream stream[STREAMS];
	uint8_t skipped[PIECE];
};

int streams_new(struct streams **ret, const struct odb *odb)
{
	struct streams *streams = calloc(1, sizeof(*streams));

	if (!streams)
		return -ENOMEM;
	streams->odb = odb;
	*ret = streams;
	return 0;
}

static void close_stream(struct stream *s)
{
	while (s->nr_points > 0)
		free(s->points[--s->nr_points].window);
	if (s->has_z)
		(void)inflateEnd(&s->z);
	s->has_z = false;
	s->used = 0;
}

void streams_free(struct streams *streams)
{
	if (!streams)
		return;
	for (unsigned int i = 0; i < STREAMS; i++)
		close_stream(&streams->stream[i]);
	free(streams);
}

/* --- One stream ------------------------------------------------------------- */

static int start_at_front(struct stream *s)
{
	s->z.avail_in = 0;
	s->in = s->head.data;
	s->out = 0;
	return inflateReset2(&s->z, 15) == Z_OK ? 0 : -ENOMEM;
}

static int open_stream(struct stream *s, const struct odb *odb,
		       struct place place, const struct object_head *head)
{
	s->odb = odb;
	s->place = place;
	s->head = *head;
	s->apart = MAX(head->size / POINTS + 1, LEAST_APART);
	memset(&s->z, 0, sizeof(s->z));
	if (inflateInit(&s->z) != Z_OK)
		return -ENOMEM;
	s->has_z = true;
	return start_at_front(s);
}

static int start_at(struct stream *s, const struct point *point)
{
	struct place before = { s->place.pack, point->in - 1 };
	uint8_t byte;

	if (inflateReset2(&s->z, -15) != Z_OK)
		return -ENOMEM;
	if (point->bits) {
		if (odb_pread(s->odb, before, &byte, 1) != 1)
			return -EIO;
		if (inflatePrime(&s->z, (int)point->bits,
				 byte >> (8 - point->bits)) != Z_OK)
			return -EIO;
	}
	if (inflateSetDictionary(&s->z, point->window, point->window_bytes) !=
	    Z_OK)
		return -EIO;
	s->z.avail_in = 0;
	s->in = point->in;
	s->out = point->out;
	return 0;
}

/* Is this a place to start again, and far enough from the one before?  Without
 * memory there is just no point here. */
static void note_point(struct stream *s)
{
	uint64_t before = s->nr_points ? s->points[s->nr_points - 1].out : 0;
	bool between_blocks = (s->z.data_type & 128) && !(s->z.data_type & 64);
	struct point *point = &s->points[s->nr_points];

	if (!between_blocks || s->out < before + s->apart ||
	    s->nr_points == POINTS)
		return;
	*point = (struct point){
		.out = s->out,
		.in = s->in - s->z.avail_in,
		.bits = (unsigned int)s->z.data_type & 7,
		.window = malloc(WINDOW),
	};
	if (point->window && inflateGetDictionary(&s->z, point->window,
						  &point->window_bytes) == Z_OK)
		s->nr_points++;
	else
		free(TAKE_PTR(point->window));
}

static int refill(struct stream *s)
{
	ssize_t n = odb_pread(s->odb, (struct place){ s->place.pack, s->in },
			      s->input, sizeof(s->input));

	if (n <= 0)
		return n < 0 ? (int)n : -EBADMSG;
	s->in += (uint64_t)n;
	s->z.next_in = s->input;
	s->z.avail_in = (uInt)n;
	return 0;
}

/* The next n bytes. */
static int read_on(struct stream *s, uint8_t *ret, size_t n)
{
	int r = 0, z;

	s->z.next_out = ret;
	s->z.avail_out = (uInt)n;
	while (s->z.avail_out > 0) {
		uInt left = s->z.avail_out;

		if (s->z.avail_in == 0)
			r = refill(s);
		if (r < 0)
			return r;
		z = inflate(&s->z, Z_BLOCK);
		s->out += left - s->z.avail_out;
		if (z == Z_MEM_ERROR)
			return -ENOMEM;
		if (z != Z_OK && z != Z_BUF_ERROR &&
		    !(z == Z_STREAM_END && s->z.avail_out == 0))
			return -EBADMSG;
		note_point(s);
	}
	return 0;
}

/* Goes where it can, and as near in front of `to` as it can. */
static int approach(struct stream *s, uint64_t to)
{
	const struct point *best = NULL;

	for (unsigned int i = 0; i < s->nr_points; i++)
		if (s->points[i].out <= to)
			best = &s->points[i];
	if (s->out <= to && (!best || best->out <= s->out))
		return 0;
	return best ? start_at(s, best) : start_at_front(s);
}

static int read_stream(struct streams *streams, struct stream *s,
		       uint64_t offset, void *ret, size_t n,
		       const atomic_bool *stop)
{
	int r = approach(s, offset);

	while (r == 0 && s->out < offset) {
		if (atomic_load(stop))
			return -ECANCELED;
		r = read_on(s, streams->skipped,
			    (size_t)MIN(offset - s->out, PIECE));
	}
	return r < 0 ? r : read_on(s, ret, n);
}

/* --- A few of them ------------------------------------------------------------ */

static struct stream *find_stream(struct streams *streams, struct place place)
{
	struct stream *oldest = &streams->stream[0];

	for (unsigned int i = 0; i < STREAMS; i++) {
		struct stream *s = &streams->stream[i];

		if (s->used && s->place.pack == place.pack &&
		    s->place.at == place.at)
			return s;
		if (s->used < oldest->used)
			oldest = s;
	}
	close_stream(oldest);
	return oldest;
}

int streams_read(struct streams *streams, struct place place,
		 const struct object_head *head, uint64_t offset, void *ret,
		 size_t n, const atomic_bool *stop)
{
	struct stream *s = find_stream(streams, place);
	int r = 0;

	if (!s->used)
		r = open_stream(s, streams->odb, place, head);
	s->used = ++streams->clock;
	if (r == 0)
		r = read_stream(streams, s, offset + head->skip, ret, n, stop);
	/* It may stand anywhere after an error. */
	if (r < 0 && r != -ECANCELED)
		close_stream(s);
	return r;
}
