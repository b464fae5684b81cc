/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests and replies: each reply is checked by all that the document says of
 * its kind. */
#include "config.h"

#include "client.h"

#include <inttypes.h>

const char *error_name(uint32_t error)
{
	static char other[24];

	switch (error) {
	case NBD_SUCCESS:
		return "success";
	case NBD_EPERM:
		return "EPERM";
	case NBD_EIO:
		return "EIO";
	case NBD_ENOMEM:
		return "ENOMEM";
	case NBD_EINVAL:
		return "EINVAL";
	case NBD_ENOSPC:
		return "ENOSPC";
	case NBD_EOVERFLOW:
		return "EOVERFLOW";
	case NBD_ENOTSUP:
		return "ENOTSUP";
	case NBD_ESHUTDOWN:
		return "ESHUTDOWN";
	}
	(void)snprintf(other, sizeof(other), "error %" PRIu32, error);
	return other;
}

uint64_t blocks(const struct client *c, uint64_t length)
{
	return ALIGN_UP(length, (uint64_t)c->minimum);
}

/* --- Requests ------------------------------------------------------------- */

static bool has_payload(const struct client *c, const struct request *r)
{
	return c->headers == EXTENDED ? r->flags & NBD_CMD_FLAG_PAYLOAD_LEN :
					r->type == NBD_CMD_WRITE;
}

void client_submit(struct client *c, struct request *r)
{
	uint8_t head[NBD_EXTENDED_REQUEST_BYTES];
	bool extended = c->headers == EXTENDED;
	uint8_t *p;

	if (!r->cookie)
		r->cookie = ++c->cookie;
	p = nbd_put32(head, extended ? NBD_EXTENDED_REQUEST_MAGIC :
				       NBD_REQUEST_MAGIC);
	p = nbd_put16(p, r->flags);
	p = nbd_put16(p, r->type);
	p = nbd_put64(p, r->cookie);
	p = nbd_put64(p, r->offset);
	p = extended ? nbd_put64(p, r->length) :
		       nbd_put32(p, (uint32_t)r->length);
	client_send(c, head, (size_t)(p - head));
	if (has_payload(c, r))
		client_send(c, r->payload, r->length);
	if (r->type == NBD_CMD_READ && r->length <= 64u << 20) {
		r->data = client_memory(r->length + 1);
		r->seen = client_memory(r->length + 1);
	}
}

/* --- Chunks --------------------------------------------------------------- */

struct chunk {
	uint16_t flags, type;
	uint64_t length; /* of the payload */
};

static void claim(struct request *r, uint64_t offset, uint64_t length,
		  const char *what)
{
	require(offset >= r->offset && offset - r->offset <= r->length &&
			length <= r->length - (offset - r->offset),
		"%s outside of what was asked for: %" PRIu64 " bytes at "
		"%" PRIu64,
		what, length, offset);
	require(!memchr(r->seen + (offset - r->offset), 1, length),
		"%s overlaps an earlier chunk", what);
	memset(r->seen + (offset - r->offset), 1, length);
	require(++r->content_chunks == 1 || !(r->flags & NBD_CMD_FLAG_DF),
		"more than one content chunk, with DF");
}

static void take_data(struct client *c, struct request *r,
		      const struct chunk *chunk)
{
	uint8_t head[8];
	uint64_t offset;

	require(r->type == NBD_CMD_READ, "OFFSET_DATA, but it was no read");
	require(chunk->length >= 9, "OFFSET_DATA of %" PRIu64 " bytes",
		chunk->length);
	client_recv(c, head, sizeof(head));
	offset = nbd_get64(head);
	claim(r, offset, chunk->length - 8, "OFFSET_DATA");
	client_recv(c, r->data + (offset - r->offset), chunk->length - 8);
}

static void take_hole(struct client *c, struct request *r,
		      const struct chunk *chunk)
{
	uint8_t body[12];

	require(r->type == NBD_CMD_READ, "OFFSET_HOLE, but it was no read");
	require(chunk->length == 12, "OFFSET_HOLE of %" PRIu64 " bytes",
		chunk->length);
	client_recv(c, body, sizeof(body));
	require(nbd_get32(body + 8), "a hole of 0 bytes");
	claim(r, nbd_get64(body), nbd_get32(body + 8), "OFFSET_HOLE");
	r->holes++;
}

/* One of each, up to the last before the end of what was asked for. */
static void add_extent(const struct client *c, struct request *r,
		       uint64_t length, uint64_t flags)
{
	uint64_t before = 0;

	require(length, "an extent of length 0");
	require(length % c->minimum == 0,
		"an extent of %" PRIu64 " bytes, but blocks of %u", length,
		c->minimum);
	for (unsigned int i = 0; i < r->nr_extents; i++)
		before += r->extents[i].length;
	require(before < r->length,
		"an extent after all that was asked for is covered");
	require(!(r->flags & NBD_CMD_FLAG_REQ_ONE) ||
			(r->nr_extents == 0 && length <= r->length),
		"with REQ_ONE: more than one extent, or a longer one");
	r->extents[r->nr_extents++] = (struct extent){ length, flags };
}

static void take_status(struct client *c, struct request *r,
			const struct chunk *chunk)
{
	bool ext = chunk->type == NBD_REPLY_TYPE_BLOCK_STATUS_EXT;
	size_t head = ext ? 8 : 4, each = ext ? 16 : 8;
	uint8_t *body;

	require(r->type == NBD_CMD_BLOCK_STATUS,
		"BLOCK_STATUS, but it was not asked for");
	require(!ext || c->headers == EXTENDED,
		"BLOCK_STATUS_EXT without extended headers");
	require(++r->status_chunks == 1, "a second chunk for one context");
	require(chunk->length > head && (chunk->length - head) % each == 0 &&
			chunk->length <= head + each * MAX_EXTENTS,
		"BLOCK_STATUS of %" PRIu64 " bytes", chunk->length);
	body = client_memory(chunk->length);
	client_recv(c, body, chunk->length);
	require(nbd_get32(body) == c->context, "context %u instead of %u",
		nbd_get32(body), c->context);
	require(!ext || nbd_get32(body + 4) == 0 ||
			nbd_get32(body + 4) == (chunk->length - head) / each,
		"a count of extents that is not true");
	r->extents = client_memory(MAX_EXTENTS * sizeof(*r->extents));
	for (const uint8_t *p = body + head; p < body + chunk->length;
	     p += each)
		add_extent(c, r, ext ? nbd_get64(p) : nbd_get32(p),
			   ext ? nbd_get64(p + 8) : nbd_get32(p + 4));
}

static void take_error(struct client *c, struct request *r,
		       const struct chunk *chunk, bool with_offset)
{
	uint8_t body[NBD_MAX_STRING + 14];
	size_t least = with_offset ? 14 : 6;
	uint32_t text;

	require(chunk->length >= least && chunk->length <= sizeof(body),
		"an error chunk of %" PRIu64 " bytes", chunk->length);
	client_recv(c, body, chunk->length);
	text = nbd_get16(body + 4);
	require(nbd_get32(body), "an error chunk with error 0");
	require(text <= chunk->length - least && text <= NBD_MAX_STRING,
		"an error whose text is longer than its chunk");
	require(!memchr(body + 6, 0, text), "an error's text with a NUL");
	if (!r->error)
		r->error = nbd_get32(body);
}

static void take_chunk(struct client *c, struct request *r,
		       const struct chunk *chunk)
{
	require(!(chunk->flags & ~NBD_REPLY_FLAG_DONE),
		"a chunk with unknown flags, %#x", chunk->flags);
	switch (chunk->type) {
	case NBD_REPLY_TYPE_NONE:
		require(chunk->length == 0, "NONE with a payload");
		require(chunk->flags & NBD_REPLY_FLAG_DONE,
			"NONE that is not the last");
		break;
	case NBD_REPLY_TYPE_OFFSET_DATA:
		take_data(c, r, chunk);
		break;
	case NBD_REPLY_TYPE_OFFSET_HOLE:
		take_hole(c, r, chunk);
		break;
	case NBD_REPLY_TYPE_BLOCK_STATUS:
	case NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
		take_status(c, r, chunk);
		break;
	case NBD_REPLY_TYPE_ERROR:
		take_error(c, r, chunk, false);
		break;
	case NBD_REPLY_TYPE_ERROR + 1:
		take_error(c, r, chunk, true);
		break;
	default:
		client_fail("a chunk of type %#x", chunk->type);
	}
	r->done = chunk->flags & NBD_REPLY_FLAG_DONE;
}

/* --- Replies -------------------------------------------------------------- */

static struct request *find(struct request *requests, unsigned int nr,
			    uint64_t cookie)
{
	for (unsigned int i = 0; i < nr; i++)
		if (requests[i].cookie == cookie && !requests[i].done)
			return &requests[i];
	client_fail("a reply to a request that is not under way, %#" PRIx64,
		    cookie);
}

static void take_simple(struct client *c, struct request *requests,
			unsigned int nr)
{
	uint8_t rest[NBD_SIMPLE_REPLY_BYTES - 4];
	struct request *r;

	client_recv(c, rest, sizeof(rest));
	r = find(requests, nr, nbd_get64(rest + 4));
	require(c->headers != EXTENDED,
		"a simple reply, with extended headers");
	require(c->headers == SIMPLE || r->type != NBD_CMD_READ,
		"a simple reply to a read, with structured replies");
	r->error = nbd_get32(rest);
	require(r->error || r->type != NBD_CMD_BLOCK_STATUS,
		"a simple reply to BLOCK_STATUS");
	r->simple = true;
	r->done = true;
	if (r->error || r->type != NBD_CMD_READ)
		return;
	client_recv(c, r->data, r->length);
	memset(r->seen, 1, r->length);
}

static void take_structured(struct client *c, struct request *requests,
			    unsigned int nr, bool extended)
{
	uint8_t rest[NBD_EXTENDED_CHUNK_BYTES - 4];
	struct chunk chunk;
	struct request *r;

	client_recv(c, rest,
		    (extended ? NBD_EXTENDED_CHUNK_BYTES : NBD_CHUNK_BYTES) -
			    4);
	chunk.flags = nbd_get16(rest);
	chunk.type = nbd_get16(rest + 2);
	r = find(requests, nr, nbd_get64(rest + 4));
	chunk.length = extended ? nbd_get64(rest + 20) : nbd_get32(rest + 12);
	require(!extended || nbd_get64(rest + 12) == r->offset,
		"a reply with offset %" PRIu64 ", the request had %" PRIu64,
		nbd_get64(rest + 12), r->offset);
	take_chunk(c, r, &chunk);
}

/* What must be there when a request has succeeded. */
static void check_complete(const struct request *r)
{
	if (r->error)
		return;
	require(r->type != NBD_CMD_READ || !memchr(r->seen, 0, r->length),
		"a read that succeeded, but not all of its data came");
	require(r->type != NBD_CMD_BLOCK_STATUS || r->status_chunks == 1 ||
			r->length == 0,
		"BLOCK_STATUS without an answer");
}

static void take_one(struct client *c, struct request *requests,
		     unsigned int nr)
{
	uint8_t magic[4];

	client_recv(c, magic, sizeof(magic));
	switch (nbd_get32(magic)) {
	case NBD_SIMPLE_REPLY_MAGIC:
		take_simple(c, requests, nr);
		break;
	case NBD_STRUCTURED_REPLY_MAGIC:
		require(c->headers == STRUCTURED,
			"a structured reply that was not negotiated");
		take_structured(c, requests, nr, false);
		break;
	case NBD_EXTENDED_REPLY_MAGIC:
		require(c->headers == EXTENDED,
			"an extended reply that was not negotiated");
		take_structured(c, requests, nr, true);
		break;
	default:
		client_fail("a reply with magic %#x", nbd_get32(magic));
	}
}

static bool all_done(const struct request *requests, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++)
		if (!requests[i].done)
			return false;
	return true;
}

void client_collect(struct client *c, struct request *requests, unsigned int nr)
{
	while (!all_done(requests, nr))
		take_one(c, requests, nr);
	for (unsigned int i = 0; i < nr; i++)
		check_complete(&requests[i]);
}

uint32_t client_do(struct client *c, struct request *r)
{
	client_submit(c, r);
	client_collect(c, r, 1);
	return r->error;
}

uint32_t client_simple_do(struct client *c, uint16_t type, uint16_t flags,
			  uint64_t offset, uint64_t length)
{
	struct request r = {
		.type = type, .flags = flags, .offset = offset, .length = length
	};

	return client_do(c, &r);
}

const uint8_t *client_read(struct client *c, uint64_t offset, uint64_t length)
{
	struct request r = { .type = NBD_CMD_READ,
			     .offset = offset,
			     .length = length };
	uint32_t error = client_do(c, &r);

	require(!error, "a read of %" PRIu64 " bytes at %" PRIu64 ": %s",
		length, offset, error_name(error));
	return r.data;
}

void client_write(struct client *c, uint64_t offset, uint64_t length,
		  uint8_t byte)
{
	uint8_t *payload = client_memory(length);
	struct request r = { .type = NBD_CMD_WRITE,
			     .offset = offset,
			     .length = length,
			     .payload = payload };
	uint32_t error;

	if (c->headers == EXTENDED)
		r.flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
	memset(payload, byte, length);
	error = client_do(c, &r);
	require(!error, "a write of %" PRIu64 " bytes at %" PRIu64 ": %s",
		length, offset, error_name(error));
}

void client_alive(struct client *c)
{
	if (c->size >= blocks(c, 1))
		(void)client_read(c, 0, blocks(c, 1));
}
