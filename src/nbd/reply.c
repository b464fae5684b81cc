/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reply.c - what the client gets to read.
 *
 * Output is a list of pieces in the order in which they are sent.  The data of
 * a read is sent from the command's own buffer, so the command lives until its
 * last byte is gone; its memory counts until then.
 */
#include "nbd/private.h"

#include <assert.h>

#include "common/util.h"

/* --- Pieces --------------------------------------------------------------- */

static struct nbd_out *add_out(struct nbd_session *s, size_t length)
{
	struct nbd_out *out = calloc(1, sizeof(*out) + length);

	if (!out)
		return NULL;
	out->head_length = length;
	if (s->out_first)
		s->out_last->next = out;
	else
		s->out_first = out;
	s->out_last = out;
	s->out_bytes += length;
	return out;
}

uint8_t *nbd_out_bytes(struct nbd_session *s, size_t length)
{
	struct nbd_out *out = add_out(s, length);

	return out ? out->head : NULL;
}

static void drop_first(struct nbd_session *s)
{
	struct nbd_out *out = s->out_first;

	s->out_first = out->next;
	s->out_bytes -= out->head_length;
	s->out_sent = 0;
	if (out->command)
		nbd_free_command(out->command);
	free(out);
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

/* --- Replies -------------------------------------------------------------- */

static struct nbd_out *simple_reply(struct nbd_session *s, uint64_t cookie,
				    enum nbd_error error)
{
	struct nbd_out *out = add_out(s, NBD_SIMPLE_REPLY_BYTES);
	uint8_t *p;

	if (!out)
		return NULL;
	p = nbd_put32(out->head, NBD_SIMPLE_REPLY_MAGIC);
	p = nbd_put32(p, error);
	(void)nbd_put64(p, cookie);
	return out;
}

/* A chunk, always the only one of its reply.  own: bytes of its payload that
 * stand in the head (*ret_own); more follow elsewhere. */
static struct nbd_out *chunk(struct nbd_session *s,
			     const struct nbd_command *command,
			     enum nbd_reply_type type, size_t own, size_t more,
			     uint8_t **ret_own)
{
	bool extended = s->headers == NBD_EXTENDED;
	size_t head = extended ? NBD_EXTENDED_CHUNK_BYTES : NBD_CHUNK_BYTES;
	struct nbd_out *out = add_out(s, head + own);
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

/* Zeroes need not travel. */
static bool is_zero(const uint8_t *data, size_t length)
{
	return length >= 16 && data[0] == 0 &&
	       memcmp(data, data + 1, length - 1) == 0;
}

static struct nbd_out *read_reply(struct nbd_session *s,
				  const struct nbd_command *command)
{
	struct nbd_out *out;
	uint8_t *p;

	if (s->headers == NBD_SIMPLE) {
		out = simple_reply(s, command->cookie, NBD_SUCCESS);
	} else if (!(command->flags & NBD_CMD_FLAG_DF) &&
		   is_zero(command->buffer, command->length)) {
		out = chunk(s, command, NBD_REPLY_TYPE_OFFSET_HOLE, 12, 0, &p);
		if (out)
			(void)nbd_put32(nbd_put64(p, command->offset),
					(uint32_t)command->length);
		return out;
	} else {
		out = chunk(s, command, NBD_REPLY_TYPE_OFFSET_DATA, 8,
			    command->length, &p);
		if (out)
			(void)nbd_put64(p, command->offset);
	}
	if (out) {
		out->payload = command->buffer;
		out->payload_length = command->length;
	}
	return out;
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
	out->command = command;
}

int nbd_reply_error(struct nbd_session *s, const struct nbd_request *request,
		    enum nbd_error error, const char *why)
{
	const struct nbd_command command = {
		.type = NBD_CMD_FLUSH,
		.cookie = request->cookie,
		.offset = request->offset,
	};

	return error_reply(s, &command, error, why) ? 0 : -ENOMEM;
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
