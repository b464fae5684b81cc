/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reply.c - what the client gets to read.
 *
 * Output is a list of pieces in the order in which they are sent.  The data of
 * a read is sent from the command's own buffer, so the command lives until its
 * last byte is gone; its memory counts until then.  Where it has holes it goes in
 * several chunks, all of which are there before the first is queued.
 */
#include "nbd/private.h"

#include <assert.h>

#include "common/util.h"

/* --- Pieces --------------------------------------------------------------- */

static struct nbd_out *new_out(struct nbd_session *s, size_t length)
{
	struct nbd_out *out = length <= NBD_SMALL_HEAD ?
				      nbd_pool_take(&s->outs) :
				      calloc(1, sizeof(*out) + length);

	if (out)
		out->head_length = length;
	return out;
}

static void free_out(struct nbd_session *s, struct nbd_out *out)
{
	if (out->head_length <= NBD_SMALL_HEAD)
		nbd_pool_give(&s->outs, out);
	else
		free(out);
}

/* Adds one or more. */
static void queue(struct nbd_session *s, struct nbd_out *out)
{
	if (s->out_first)
		s->out_last->next = out;
	else
		s->out_first = out;
	for (; out; out = out->next) {
		s->out_last = out;
		s->out_bytes += out->head_length;
	}
}

uint8_t *nbd_out_bytes(struct nbd_session *s, size_t length)
{
	struct nbd_out *out = new_out(s, length);

	if (!out)
		return NULL;
	queue(s, out);
	return out->head;
}

static void drop_first(struct nbd_session *s)
{
	struct nbd_out *out = s->out_first;

	s->out_first = out->next;
	s->out_bytes -= out->head_length;
	s->out_sent = 0;
	if (out->command)
		nbd_free_command(out->command);
	free_out(s, out);
}

static void free_outs(struct nbd_session *s, struct nbd_out *out)
{
	struct nbd_out *next;

	for (; out; out = next) {
		next = out->next;
		free_out(s, out);
	}
}

void nbd_free_output(struct nbd_session *s)
{
	while (s->out_first)
		drop_first(s);
}

unsigned int nbd_session_output(const struct nbd_session *session,
				struct iovec *iov, unsigned int max)
{
	size_t sent = session->out_sent;
	unsigned int n = 0;

	for (struct nbd_out *out = session->out_first; out && n + 2 <= max;
	     out = out->next, sent = 0) {
		if (sent < out->head_length) {
			iov[n].iov_base = out->head + sent;
			iov[n++].iov_len = out->head_length - sent;
			sent = 0;
		} else {
			sent -= out->head_length;
		}
		if (sent < out->payload_length) {
			iov[n].iov_base =
				(uint8_t *)(uintptr_t)out->payload + sent;
			iov[n++].iov_len = out->payload_length - sent;
		}
	}
	return n;
}

void nbd_session_sent(struct nbd_session *session, size_t length)
{
	while (length > 0) {
		const struct nbd_out *out = session->out_first;
		size_t left;

		assert(out);
		left = out->head_length + out->payload_length -
		       session->out_sent;
		if (length < left) {
			session->out_sent += length;
			return;
		}
		length -= left;
		drop_first(session);
	}
}

/* --- Replies: not queued yet ---------------------------------------------- */

static struct nbd_out *simple_reply(struct nbd_session *s, uint64_t cookie,
				    enum nbd_error error)
{
	struct nbd_out *out = new_out(s, NBD_SIMPLE_REPLY_BYTES);
	uint8_t *p;

	if (!out)
		return NULL;
	p = nbd_put32(out->head, NBD_SIMPLE_REPLY_MAGIC);
	p = nbd_put32(p, error);
	(void)nbd_put64(p, cookie);
	return out;
}

/* A chunk, the last one of its reply.  own: bytes of its payload that stand in
 * the head (*ret_own); more follow elsewhere. */
static struct nbd_out *chunk(struct nbd_session *s,
			     const struct nbd_command *command,
			     enum nbd_reply_type type, size_t own, size_t more,
			     uint8_t **ret_own)
{
	bool extended = s->headers == NBD_EXTENDED;
	size_t head = extended ? NBD_EXTENDED_CHUNK_BYTES : NBD_CHUNK_BYTES;
	struct nbd_out *out = new_out(s, head + own);
	uint8_t *p;

	if (!out)
		return NULL;
	p = nbd_put32(out->head, extended ? NBD_EXTENDED_REPLY_MAGIC :
					    NBD_STRUCTURED_REPLY_MAGIC);
	p = nbd_put16(p, NBD_REPLY_FLAG_DONE);
	p = nbd_put16(p, type);
	p = nbd_put64(p, command->cookie);
	if (extended) {
		p = nbd_put64(p, command->offset);
		*ret_own = nbd_put64(p, own + more);
	} else {
		*ret_own = nbd_put32(p, (uint32_t)(own + more));
	}
	return out;
}

/* Others follow after all; the flags stand where both kinds of headers have
 * them. */
static void not_last(struct nbd_out *out)
{
	(void)nbd_put16(out->head + 4, 0);
}

static struct nbd_out *error_reply(struct nbd_session *s,
				   const struct nbd_command *command,
				   enum nbd_error error, const char *why)
{
	size_t length = why ? strlen(why) : 0;
	struct nbd_out *out;
	uint8_t *p;

	if (s->headers == NBD_SIMPLE)
		return simple_reply(s, command->cookie, error);
	assert(length <= NBD_MAX_STRING);
	out = chunk(s, command, NBD_REPLY_TYPE_ERROR, 6 + length, 0, &p);
	if (!out)
		return NULL;
	p = nbd_put32(p, error);
	p = nbd_put16(p, (uint32_t)length);
	(void)nbd_put_bytes(p, why, length);
	return out;
}

/* Zeroes need not travel; but each piece of a reply costs its reader something,
 * so in a long read they count when they are many. */
#define ZERO_BLOCK ((size_t)4096)
#define LEAST_HOLE ((size_t)32 << 10)

static bool is_zero(const uint8_t *data, size_t length)
{
	return length >= 16 && data[0] == 0 &&
	       memcmp(data, data + 1, length - 1) == 0;
}

/* The first zeroes from `at` on that are worth a chunk; *ret_end: where they
 * end.  None: both are the length. */
static size_t find_hole(const uint8_t *data, size_t length, size_t at,
			size_t *ret_end)
{
	while (at < length) {
		size_t start = at;

		while (at < length &&
		       is_zero(data + at, MIN(ZERO_BLOCK, length - at)))
			at = MIN(at + ZERO_BLOCK, length);
		if (at - start >= LEAST_HOLE) {
			*ret_end = at;
			return start;
		}
		at = MIN(at + ZERO_BLOCK, length);
	}
	*ret_end = length;
	return length;
}

static struct nbd_out *data_chunk(struct nbd_session *s,
				  const struct nbd_command *command, size_t at,
				  size_t length)
{
	struct nbd_out *out;
	uint8_t *p;

	out = chunk(s, command, NBD_REPLY_TYPE_OFFSET_DATA, 8, length, &p);
	if (!out)
		return NULL;
	(void)nbd_put64(p, command->offset + at);
	out->payload = (uint8_t *)command->buffer + at;
	out->payload_length = length;
	return out;
}

static struct nbd_out *hole_chunk(struct nbd_session *s,
				  const struct nbd_command *command, size_t at,
				  size_t length)
{
	struct nbd_out *out;
	uint8_t *p;

	out = chunk(s, command, NBD_REPLY_TYPE_OFFSET_HOLE, 12, 0, &p);
	if (out)
		(void)nbd_put32(nbd_put64(p, command->offset + at),
				(uint32_t)length);
	return out;
}

/* The read's bytes from `at` on, in chunks. */
static struct nbd_out *read_chunks(struct nbd_session *s,
				   const struct nbd_command *command)
{
	struct nbd_out *first = NULL, **end = &first;
	size_t length = command->length;

	for (size_t at = 0, next; at < length; at = next) {
		size_t hole = find_hole(command->buffer, length, at, &next);

		if (hole > at) {
			next = hole;
			*end = data_chunk(s, command, at, hole - at);
		} else {
			*end = hole_chunk(s, command, at, next - at);
		}
		if (!*end) {
			free_outs(s, first);
			return NULL;
		}
		if (next < length)
			not_last(*end);
		end = &(*end)->next;
	}
	return first;
}

static struct nbd_out *read_reply(struct nbd_session *s,
				  const struct nbd_command *command)
{
	struct nbd_out *out;
	uint8_t *p;

	if (s->headers == NBD_SIMPLE) {
		out = simple_reply(s, command->cookie, NBD_SUCCESS);
		if (out) {
			out->payload = command->buffer;
			out->payload_length = command->length;
		}
		return out;
	}
	/* A chunk of data has at least one byte. */
	if (command->length == 0)
		return chunk(s, command, NBD_REPLY_TYPE_NONE, 0, 0, &p);
	if (command->flags & NBD_CMD_FLAG_DF)
		return data_chunk(s, command, 0, command->length);
	if (command->length > LEAST_HOLE)
		return read_chunks(s, command);
	return (is_zero(command->buffer, command->length) ?
			hole_chunk :
			data_chunk)(s, command, 0, command->length);
}

/* 32-bit lengths are for small requests only; a long extent is cut, and the
 * client asks for the rest. */
static uint8_t *put_extent(const struct nbd_session *s, uint8_t *p,
			   uint64_t length, uint32_t state)
{
	if (s->headers == NBD_EXTENDED)
		return nbd_put64(nbd_put64(p, length), state);
	return nbd_put32(nbd_put32(p, (uint32_t)length), state);
}

static struct nbd_out *status_reply(struct nbd_session *s,
				    const struct nbd_command *command)
{
	bool extended = s->headers == NBD_EXTENDED;
	uint32_t n = MAX(command->nr_extents, 1);
	struct nbd_out *out;
	uint8_t *p;

	out = chunk(s, command,
		    extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT :
			       NBD_REPLY_TYPE_BLOCK_STATUS,
		    extended ? 8 + n * 16 : 4 + n * 8, 0, &p);
	if (!out)
		return NULL;
	p = nbd_put32(p, NBD_CONTEXT_ID);
	if (extended)
		p = nbd_put32(p, n);
	if (command->nr_extents == 0)
		(void)put_extent(s, p, command->length, 0);
	for (uint32_t i = 0; i < command->nr_extents; i++)
		p = put_extent(s, p, command->extents[i].length,
			       command->extents[i].state);
	return out;
}

static struct nbd_out *good_reply(struct nbd_session *s,
				  const struct nbd_command *command)
{
	uint8_t *p;

	switch (command->type) {
	case NBD_CMD_READ:
		return read_reply(s, command);
	case NBD_CMD_BLOCK_STATUS:
		return status_reply(s, command);
	default:
		if (s->headers == NBD_EXTENDED)
			return chunk(s, command, NBD_REPLY_TYPE_NONE, 0, 0, &p);
		return simple_reply(s, command->cookie, NBD_SUCCESS);
	}
}

void nbd_command_done(struct nbd_command *command, int err, const char *why)
{
	struct nbd_session *s = command->session;
	struct nbd_out *out;

	assert(s->nr_pending > 0);
	s->nr_pending--;
	if (err)
		out = error_reply(s, command, nbd_error_of(err),
				  why ? why : strerror(-err));
	else
		out = good_reply(s, command);
	/* Without its reply the client would wait for ever. */
	if (!out) {
		s->state = NBD_WANT_NOTHING;
		nbd_free_command(command);
		return;
	}
	queue(s, out);
	s->out_last->command = command;
}

int nbd_reply_error(struct nbd_session *s, const struct nbd_request *request,
		    enum nbd_error error, const char *why)
{
	const struct nbd_command command = {
		.type = NBD_CMD_FLUSH,
		.cookie = request->cookie,
		.offset = request->offset,
	};

	struct nbd_out *out = error_reply(s, &command, error, why);

	if (!out)
		return -ENOMEM;
	queue(s, out);
	return 0;
}

bool nbd_command_extent(struct nbd_command *command, uint64_t length,
			uint32_t state)
{
	const struct nbd_session *s = command->session;
	uint64_t most = s->headers == NBD_EXTENDED ? UINT64_MAX : UINT32_MAX;
	uint32_t limit =
		command->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : NBD_MAX_EXTENTS;
	uint32_t n = command->nr_extents;

	if (n > 0 && command->extents[n - 1].state == state &&
	    length <= most - command->extents[n - 1].length) {
		command->extents[n - 1].length += length;
		return true;
	}
	if (n == limit)
		return false;
	if (!command->extents)
		command->extents = calloc(limit, sizeof(*command->extents));
	if (!command->extents)
		return false;
	command->extents[n].length = MIN(length, most);
	command->extents[n].state = state;
	command->nr_extents++;
	/* After one that was cut nothing can follow. */
	return length <= most;
}
