/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Structured and extended replies; BLOCK_STATUS. */
#include "config.h"

#include "cases.h"

#define ROOM (256u << 10)

static uint64_t room(const struct client *c)
{
	return blocks(c, ROOM);
}

/* Data with a hole between, as far as the server makes one. */
static void write_pattern(struct client *c)
{
	uint64_t third = blocks(c, ROOM / 4);

	client_needs_size(c, room(c));
	client_write(c, 0, room(c), 0);
	if (c->flags & NBD_FLAG_SEND_WRITE_ZEROES)
		(void)client_simple_do(c, NBD_CMD_WRITE_ZEROES, 0, 0, room(c));
	client_write(c, 0, third, 0xd1);
	client_write(c, room(c) - third, third, 0xd2);
}

static bool is_pattern(const struct client *c, const uint8_t *data)
{
	uint64_t third = blocks(c, ROOM / 4);

	for (uint64_t i = 0; i < room(c); i++)
		if (data[i] != (i < third	     ? 0xd1 :
				i >= room(c) - third ? 0xd2 :
						       0))
			return false;
	return true;
}

/* --- Reads ---------------------------------------------------------------- */

static void read_pattern(struct client *c, enum headers headers)
{
	client_go_to_write(c, headers);
	write_pattern(c);
	require(is_pattern(c, client_read(c, 0, room(c))),
		"what is read is not what was written");
}

static void structured_read(struct client *c)
{
	read_pattern(c, STRUCTURED);
}

static void extended_read(struct client *c)
{
	read_pattern(c, EXTENDED);
}

static void read_errors(struct client *c, enum headers headers)
{
	client_go(c, headers, false);
	client_needs_size(c, blocks(c, 512));
	require(client_simple_do(c, NBD_CMD_READ, 0, c->size, blocks(c, 512)),
		"a read beyond the end succeeds");
	require(client_simple_do(c, NBD_CMD_READ, 1u << 14, 0, blocks(c, 512)),
		"a read with an unknown flag succeeds");
	client_alive(c);
}

static void structured_read_error(struct client *c)
{
	read_errors(c, STRUCTURED);
}

static void extended_read_error(struct client *c)
{
	read_errors(c, EXTENDED);
}

static void dont_fragment(struct client *c)
{
	struct request r = { .type = NBD_CMD_READ, .flags = NBD_CMD_FLAG_DF };

	client_go_to_write(c, STRUCTURED);
	client_needs(c, NBD_FLAG_SEND_DF, "DF");
	write_pattern(c);
	r.offset = blocks(c, ROOM / 4) - blocks(c, 4096);
	r.length = blocks(c, 61440);
	require(client_do(c, &r) == 0, "a read of %llu bytes with DF: %s",
		(unsigned long long)r.length, error_name(r.error));
	require(r.content_chunks == 1 && r.holes == 0,
		"data and hole, with DF, in %u chunks, %u holes",
		r.content_chunks, r.holes);
	require(r.data[0] == 0xd1 && r.data[r.length - 1] == 0,
		"the data is another");
}

static void dont_fragment_long(struct client *c)
{
	struct request r = { .type = NBD_CMD_READ, .flags = NBD_CMD_FLAG_DF };

	client_go(c, STRUCTURED, false);
	client_needs(c, NBD_FLAG_SEND_DF, "DF");
	client_needs_size(c, room(c));
	r.length = room(c);
	(void)client_do(c, &r);
	require(!r.error || r.error == NBD_EOVERFLOW, "a long read with DF: %s",
		error_name(r.error));
	require(!r.error || r.content_chunks == 0,
		"EOVERFLOW, and content all the same");
}

static void df_flag(struct client *c)
{
	uint32_t error;

	client_go(c, STRUCTURED, false);
	client_needs_size(c, blocks(c, 512));
	error = client_simple_do(c, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0,
				 blocks(c, 512));
	require(!error == !!(c->flags & NBD_FLAG_SEND_DF),
		"SEND_DF is %s, and a read with DF: %s",
		c->flags & NBD_FLAG_SEND_DF ? "set" : "clear",
		error_name(error));
}

static void structured_pipeline(struct client *c)
{
	enum { NR = 64 };
	struct request *r = client_memory(NR * sizeof(*r));

	client_go(c, STRUCTURED, false);
	client_needs_size(c, room(c));
	for (unsigned int i = 0; i < NR; i++) {
		r[i].type = NBD_CMD_READ;
		r[i].offset = i % 4 * blocks(c, 4096);
		r[i].length = blocks(c, i % 5 ? 4096 : 65536);
		client_submit(c, &r[i]);
	}
	client_collect(c, r, NR);
}

static void other_replies(struct client *c, enum headers headers)
{
	static const uint16_t types[] = { NBD_CMD_FLUSH, NBD_CMD_TRIM,
					  NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE };

	client_go_to_write(c, headers);
	client_needs_size(c, blocks(c, 4096));
	client_write(c, 0, blocks(c, 4096), 1);
	for (unsigned int i = 0; i < ARRAY_SIZE(types); i++)
		(void)client_simple_do(
			c, types[i], 0, 0,
			types[i] == NBD_CMD_FLUSH ? 0 : blocks(c, 4096));
	(void)client_simple_do(c, 0x1234, 0, 0, 0);
	client_alive(c);
}

static void structured_others(struct client *c)
{
	other_replies(c, STRUCTURED);
}

static void extended_others(struct client *c)
{
	other_replies(c, EXTENDED);
}

/* --- Extended requests ---------------------------------------------------- */

static void extended_offset(struct client *c)
{
	uint64_t offset;

	client_go(c, EXTENDED, false);
	client_needs_size(c, room(c));
	offset = blocks(c, ROOM / 2);
	(void)client_read(c, offset, blocks(c, 4096));
	(void)client_simple_do(c, NBD_CMD_CACHE, 0, offset, blocks(c, 4096));
	/* Of an error, too. */
	(void)client_simple_do(c, 0x1234, 0, offset, 0);
}

static void payload_not_wanted(struct client *c)
{
	static const uint16_t types[] = { NBD_CMD_READ, NBD_CMD_TRIM,
					  NBD_CMD_CACHE };

	client_go(c, EXTENDED, false);
	client_needs_size(c, blocks(c, 512));
	for (unsigned int i = 0; i < ARRAY_SIZE(types); i++) {
		struct request r = { .type = types[i],
				     .flags = NBD_CMD_FLAG_PAYLOAD_LEN,
				     .length = blocks(c, 512) };

		if (r.type == NBD_CMD_TRIM && c->flags & NBD_FLAG_READ_ONLY)
			continue;
		r.payload = client_memory(r.length);
		(void)client_do(c, &r);
		require(r.error == NBD_EINVAL, "request %u with a payload: %s",
			types[i], error_name(r.error));
	}
	client_alive(c);
}

static void write_without_payload(struct client *c)
{
	uint32_t error;

	client_go_to_write(c, EXTENDED);
	client_needs_size(c, blocks(c, 512));
	error = client_simple_do(c, NBD_CMD_WRITE, 0, 0, blocks(c, 512));
	require(error, "a write without PAYLOAD_LEN succeeds");
	client_alive(c);
}

static void long_effects(struct client *c)
{
	uint32_t error;

	client_go_to_write(c, EXTENDED);
	error = client_simple_do(c, NBD_CMD_TRIM, 0, 0, 1ull << 62);
	require(error, "a trim of 2^62 bytes succeeds");
	error = client_simple_do(c, NBD_CMD_WRITE_ZEROES, 0, 0, 1ull << 62);
	require(error, "zeroes of 2^62 bytes succeed");
	client_alive(c);
}

/* --- BLOCK_STATUS --------------------------------------------------------- */

static void ask_status(struct client *c, struct request *r)
{
	require(client_do(c, r) == 0, "BLOCK_STATUS: %s", error_name(r->error));
}

static void status(struct client *c, enum headers headers)
{
	struct request r = { .type = NBD_CMD_BLOCK_STATUS };

	client_go(c, headers, true);
	client_needs_size(c, room(c));
	r.length = room(c);
	ask_status(c, &r);
	r = (struct request){ .type = NBD_CMD_BLOCK_STATUS,
			      .offset = blocks(c, ROOM / 2),
			      .length = blocks(c, 512) };
	ask_status(c, &r);
}

static void structured_status(struct client *c)
{
	status(c, STRUCTURED);
}

static void extended_status(struct client *c)
{
	status(c, EXTENDED);
}

static void status_one(struct client *c)
{
	struct client *writer = client_other(c);
	struct request r = { .type = NBD_CMD_BLOCK_STATUS,
			     .flags = NBD_CMD_FLAG_REQ_ONE };

	client_go_to_write(writer, STRUCTURED);
	write_pattern(writer);
	client_go(c, STRUCTURED, true);
	r.length = room(c);
	ask_status(c, &r);
	r = (struct request){ .type = NBD_CMD_BLOCK_STATUS,
			      .flags = NBD_CMD_FLAG_REQ_ONE,
			      .offset = blocks(c, 4096),
			      .length = blocks(c, 512) };
	ask_status(c, &r);
}

/* The whole export is covered, step by step. */
static void status_makes_progress(struct client *c)
{
	uint64_t at = 0;

	client_go(c, STRUCTURED, true);
	for (unsigned int steps = 0; at < c->size && steps < 1000; steps++) {
		struct request r = { .type = NBD_CMD_BLOCK_STATUS,
				     .offset = at };

		r.length = MIN(c->size - at, blocks(c, 1u << 30));
		r.length -= r.length % c->minimum;
		if (r.length == 0)
			return;
		ask_status(c, &r);
		for (unsigned int i = 0; i < r.nr_extents; i++)
			at += r.extents[i].length;
	}
}

static void status_is_true(struct client *c)
{
	struct client *writer = client_other(c);
	struct request r = { .type = NBD_CMD_BLOCK_STATUS };
	const uint8_t *data;
	uint64_t at = 0;

	client_go_to_write(writer, STRUCTURED);
	write_pattern(writer);
	client_go(c, STRUCTURED, true);
	r.length = room(c);
	ask_status(c, &r);
	data = client_read(c, 0, room(c));
	for (unsigned int i = 0; i < r.nr_extents; i++) {
		uint64_t end = MIN(at + r.extents[i].length, room(c));

		for (; r.extents[i].flags & NBD_STATE_ZERO && at < end; at++)
			require(data[at] == 0,
				"byte %llu is %u, and called zero",
				(unsigned long long)at, data[at]);
		at = end;
	}
}

static void status_bits(struct client *c)
{
	struct request r = { .type = NBD_CMD_BLOCK_STATUS };

	client_go(c, STRUCTURED, true);
	client_needs_size(c, room(c));
	r.length = room(c);
	ask_status(c, &r);
	for (unsigned int i = 0; i < r.nr_extents; i++)
		require(!(r.extents[i].flags &
			  ~(uint64_t)(NBD_STATE_HOLE | NBD_STATE_ZERO)),
			"reserved bits: %#llx",
			(unsigned long long)r.extents[i].flags);
}

static void status_differs(struct client *c)
{
	struct request r = { .type = NBD_CMD_BLOCK_STATUS };

	client_go(c, STRUCTURED, true);
	client_needs_size(c, room(c));
	r.length = room(c);
	ask_status(c, &r);
	for (unsigned int i = 1; i < r.nr_extents; i++)
		require(r.extents[i].flags != r.extents[i - 1].flags,
			"extents %u and %u are alike", i - 1, i);
}

static void status_beyond(struct client *c)
{
	uint32_t error;

	client_go(c, STRUCTURED, true);
	client_needs_size(c, blocks(c, 512));
	error = client_simple_do(c, NBD_CMD_BLOCK_STATUS, 0, c->size,
				 blocks(c, 512));
	require(error == NBD_EINVAL, "beyond the end: %s", error_name(error));
	error = client_simple_do(c, NBD_CMD_BLOCK_STATUS, 0,
				 c->size - blocks(c, 1), 2 * blocks(c, 1));
	require(error == NBD_EINVAL, "across the end: %s", error_name(error));
	client_alive(c);
}

static void status_length_0(struct client *c)
{
	client_go(c, STRUCTURED, true);
	(void)client_simple_do(c, NBD_CMD_BLOCK_STATUS, 0, 0, 0);
	client_alive(c);
}

const struct test_case chunk_cases[] = {
	{ "structured-read", "NBD_CMD_READ",
	  "chunks inside the request that do not overlap and cover all of it; "
	  "DONE with the last",
	  false, structured_read },
	{ "structured-read-error", "Structured reply chunk message",
	  "MUST NOT use a simple reply for a read, not even for an error",
	  false, structured_read_error },
	{ "structured-others", "Structured reply types",
	  "NONE has no payload and is the last; errors have their text", false,
	  structured_others },
	{ "structured-pipeline", "Structured reply chunk message",
	  "chunks of several replies may be mixed", false,
	  structured_pipeline },
	{ "df", "NBD_CMD_READ",
	  "with DF at most one content chunk; MUST be data where some is; up "
	  "to 65536 bytes MUST be supported",
	  false, dont_fragment },
	{ "df-long", "NBD_CMD_READ",
	  "EOVERFLOW if it is too long, and then MUST NOT send content", false,
	  dont_fragment_long },
	{ "df-flag", "Transmission flags",
	  "SEND_DF MUST be set if DF is supported", false, df_flag },
	{ "extended-read", "Extended reply chunk message",
	  "the same in chunks with extended headers", false, extended_read },
	{ "extended-read-error", "Extended reply chunk message",
	  "MUST use extended replies, for errors too", false,
	  extended_read_error },
	{ "extended-others", "Extended reply chunk message",
	  "the server MUST NOT use simple replies, even without a payload",
	  false, extended_others },
	{ "extended-offset", "Extended reply chunk message",
	  "the offset MUST match that of the request", false, extended_offset },
	{ "extended-payload", "Command flags",
	  "EINVAL for PAYLOAD_LEN where no payload is expected", false,
	  payload_not_wanted },
	{ "extended-no-payload", "Command flags",
	  "PAYLOAD_LEN MUST be set for a write", false, write_without_payload },
	{ "extended-long", "Request types",
	  "lengths of 64 bits are understood, and refused beyond the end",
	  false, long_effects },
	{ "status", "NBD_CMD_BLOCK_STATUS",
	  "MUST have one chunk per context, at least one extent, none of "
	  "length 0, whole blocks",
	  false, structured_status },
	{ "status-extended", "NBD_REPLY_TYPE_BLOCK_STATUS_EXT",
	  "one of both kinds; a count that is true or 0", false,
	  extended_status },
	{ "status-one", "NBD_REPLY_TYPE_BLOCK_STATUS",
	  "with REQ_ONE exactly one extent, MUST NOT exceed the length", false,
	  status_one },
	{ "status-progress", "NBD_CMD_BLOCK_STATUS",
	  "a client can always make progress", false, status_makes_progress },
	{ "status-zero", "base:allocation metadata context",
	  "ZERO: the block reads as all zeroes", false, status_is_true },
	{ "status-reserved", "base:allocation metadata context",
	  "reserved bits SHOULD be zero", true, status_bits },
	{ "status-alike", "NBD_CMD_BLOCK_STATUS",
	  "consecutive extents SHOULD have different flags", true,
	  status_differs },
	{ "status-beyond", "NBD_CMD_BLOCK_STATUS",
	  "EINVAL SHOULD be returned beyond the end", true, status_beyond },
	{ "status-length-0", "NBD_CMD_BLOCK_STATUS",
	  "the server SHOULD NOT disconnect because of a length of 0", true,
	  status_length_0 },
	{ 0 },
};
