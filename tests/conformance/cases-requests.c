/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests: what they do, what is wrong with them, how they end. */
#include "config.h"

#include "cases.h"

/* Where cases write; the export needs as much. */
#define ROOM (128u << 10)

static uint64_t room(const struct client *c)
{
	return blocks(c, ROOM);
}

static void check_bytes(struct client *c, uint64_t offset, uint64_t length,
			uint8_t byte, const char *what)
{
	const uint8_t *data = client_read(c, offset, length);

	for (uint64_t i = 0; i < length; i++)
		require(data[i] == byte, "%s: byte %llu is %u and not %u", what,
			(unsigned long long)(offset + i), data[i], byte);
}

/* --- Reads and writes ----------------------------------------------------- */

static void read_simple(struct client *c)
{
	client_go(c, SIMPLE, false);
	client_needs_size(c, room(c));
	(void)client_read(c, 0, blocks(c, 1));
	(void)client_read(c, blocks(c, 1), room(c) - blocks(c, 1));
}

static void cookies(struct client *c)
{
	static const uint64_t values[] = { 1, UINT64_MAX, 0x2560951366846698, 1,
					   1ull << 63 };

	client_go(c, SIMPLE, false);
	client_needs_size(c, blocks(c, 1));
	for (unsigned int i = 0; i < ARRAY_SIZE(values); i++) {
		struct request r = { .type = NBD_CMD_READ,
				     .length = blocks(c, 1),
				     .cookie = values[i] };

		(void)client_do(c, &r);
	}
}

static void write_is_read(struct client *c)
{
	struct client *other = client_other(c);

	client_go_to_write(c, SIMPLE);
	client_needs_size(c, room(c));
	client_write(c, 0, room(c), 0x5a);
	client_write(c, blocks(c, 1), blocks(c, 1), 0xa5);
	check_bytes(c, 0, blocks(c, 1), 0x5a, "before");
	check_bytes(c, blocks(c, 1), blocks(c, 1), 0xa5, "what was written");
	check_bytes(c, 2 * blocks(c, 1), room(c) - 2 * blocks(c, 1), 0x5a,
		    "behind");
	client_go(other, SIMPLE, false);
	check_bytes(other, 0, blocks(c, 1), 0x5a, "seen by another client");
}

static void only_simple_replies(struct client *c)
{
	static const uint16_t types[] = { NBD_CMD_FLUSH, NBD_CMD_CACHE, 0x1234,
					  NBD_CMD_BLOCK_STATUS };

	client_go(c, SIMPLE, false);
	for (unsigned int i = 0; i < ARRAY_SIZE(types); i++) {
		struct request r = { .type = types[i] };

		r.length = r.type == NBD_CMD_FLUSH ? 0 : blocks(c, 1);
		(void)client_do(c, &r);
		require(r.simple, "request %u has no simple reply", types[i]);
	}
}

static void pipeline(struct client *c)
{
	enum { NR = 200 };
	struct request *r = client_memory(NR * sizeof(*r));

	client_go(c, SIMPLE, false);
	client_needs_size(c, room(c));
	for (unsigned int i = 0; i < NR; i++) {
		r[i].type = NBD_CMD_READ;
		r[i].offset = i % 8 * blocks(c, 1);
		r[i].length = blocks(c, 1 + i % 3 * 4096);
		client_submit(c, &r[i]);
	}
	client_collect(c, r, NR);
	for (unsigned int i = 0; i < NR; i++)
		require(!r[i].error, "read %u: %s", i, error_name(r[i].error));
	client_alive(c);
}

#define LONG ((32u << 20) - 4096)

/* What is there is written again. */
static void long_write(struct client *c)
{
	struct request r = { .type = NBD_CMD_WRITE, .length = LONG };

	client_go_to_write(c, SIMPLE);
	client_needs_size(c, LONG);
	if (LONG > c->maximum)
		client_skip("at most %u bytes in a request", c->maximum);
	r.payload = client_read(c, 0, LONG);
	require(client_do(c, &r) == 0, "a write of %u bytes: %s", LONG,
		error_name(r.error));
}

static void long_transfer(struct client *c)
{
	uint64_t length = LONG;

	client_go(c, SIMPLE, false);
	client_needs_size(c, length);
	if (length > c->maximum)
		client_skip("at most %u bytes in a request", c->maximum);
	(void)client_read(c, 0, length);
}

/* --- Errors of reads ------------------------------------------------------ */

static void read_beyond(struct client *c)
{
	uint32_t error;

	client_go(c, SIMPLE, false);
	error = client_simple_do(c, NBD_CMD_READ, 0, c->size, blocks(c, 1));
	require(error == NBD_EINVAL, "a read beyond the end: %s",
		error_name(error));
	client_needs_size(c, blocks(c, 1));
	error = client_simple_do(c, NBD_CMD_READ, 0, c->size - blocks(c, 1),
				 2 * blocks(c, 1));
	require(error == NBD_EINVAL, "a read across the end: %s",
		error_name(error));
	error = client_simple_do(c, NBD_CMD_READ, 0,
				 UINT64_MAX - blocks(c, 1) + 1,
				 2 * blocks(c, 1));
	require(error == NBD_EINVAL, "a read around 2^64: %s",
		error_name(error));
}

static void error_without_payload(struct client *c)
{
	client_go(c, SIMPLE, false);
	client_needs_size(c, blocks(c, 1));
	(void)client_simple_do(c, NBD_CMD_READ, 0, c->size, blocks(c, 4096));
	client_alive(c);
	(void)client_simple_do(c, NBD_CMD_READ, 0x8000, 0, blocks(c, 4096));
	client_alive(c);
}

static void misaligned(struct client *c)
{
	uint32_t error;

	client_go(c, SIMPLE, false);
	if (c->minimum == 1)
		client_skip("blocks of one byte");
	client_needs_size(c, 2 * c->minimum);
	error = client_simple_do(c, NBD_CMD_READ, 0, 1, c->minimum);
	require(error == NBD_EINVAL, "a misaligned offset: %s",
		error_name(error));
	error = client_simple_do(c, NBD_CMD_READ, 0, 0, c->minimum - 1);
	require(error == NBD_EINVAL, "a misaligned length: %s",
		error_name(error));
	client_alive(c);
}

/* Without damage to what is there. */
static void misaligned_write(struct client *c)
{
	struct request r = { .type = NBD_CMD_WRITE, .offset = 1 };

	client_go_to_write(c, SIMPLE);
	if (c->minimum == 1)
		client_skip("blocks of one byte");
	client_needs_size(c, 4 * c->minimum);
	client_write(c, 0, 4 * c->minimum, 0x42);
	r.length = c->minimum;
	r.payload = client_memory(r.length);
	require(client_do(c, &r), "a misaligned write is accepted");
	check_bytes(c, 0, 4 * c->minimum, 0x42, "after a misaligned write");
}

static void too_long(struct client *c)
{
	uint32_t error;

	client_go(c, SIMPLE, false);
	if (!c->sizes_told || c->maximum >= UINT32_MAX - c->minimum ||
	    c->size <= c->maximum)
		client_skip("there is no request that would be too long");
	error = client_simple_do(c, NBD_CMD_READ, 0, 0,
				 c->maximum + c->minimum);
	require(error == NBD_EINVAL || error == NBD_EOVERFLOW,
		"a read that is longer than the maximum: %s",
		error_name(error));
	client_alive(c);
}

static void nothing(struct client *c)
{
	static const uint16_t types[] = { NBD_CMD_READ, NBD_CMD_TRIM,
					  NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES };

	client_go(c, SIMPLE, false);
	for (unsigned int i = 0; i < ARRAY_SIZE(types); i++)
		(void)client_simple_do(c, types[i], 0, 0, 0);
	client_alive(c);
}

/* --- Errors of writes ----------------------------------------------------- */

static void write_beyond(struct client *c)
{
	struct request r = { .type = NBD_CMD_WRITE };

	client_go_to_write(c, SIMPLE);
	r.offset = c->size;
	r.length = blocks(c, 4096);
	r.payload = client_memory(r.length);
	(void)client_do(c, &r);
	require(r.error == NBD_ENOSPC, "a write beyond the end: %s",
		error_name(r.error));
	client_alive(c);
}

static void write_error_is_told(struct client *c)
{
	struct request r = { .type = NBD_CMD_WRITE };

	client_go_to_write(c, SIMPLE);
	r.offset = c->size;
	r.length = blocks(c, 70000);
	r.payload = client_memory(r.length);
	require(client_do(c, &r), "a write beyond the end succeeds");
	client_alive(c);
}

static void read_only_error(struct client *c, bool eperm)
{
	static const uint16_t types[] = { NBD_CMD_WRITE, NBD_CMD_TRIM,
					  NBD_CMD_WRITE_ZEROES };

	client_go(c, SIMPLE, false);
	if (!(c->flags & NBD_FLAG_READ_ONLY))
		client_skip("the export is writable");
	client_needs_size(c, blocks(c, 512));
	for (unsigned int i = 0; i < ARRAY_SIZE(types); i++) {
		struct request r = { .type = types[i],
				     .length = blocks(c, 512) };

		r.payload = client_memory(r.length);
		(void)client_do(c, &r);
		require(r.error, "request %u to a read-only export succeeds",
			types[i]);
		require(!eperm || r.error == NBD_EPERM, "request %u: %s",
			types[i], error_name(r.error));
	}
	client_alive(c);
}

static void read_only(struct client *c)
{
	read_only_error(c, false);
}

static void read_only_eperm(struct client *c)
{
	read_only_error(c, true);
}

/* --- Flags ---------------------------------------------------------------- */

static void unknown_command(struct client *c)
{
	uint32_t error;

	client_go(c, SIMPLE, false);
	error = client_simple_do(c, 0x1234, 0, 0, 0);
	require(error == NBD_EINVAL, "an unknown command: %s",
		error_name(error));
	client_alive(c);
}

static void unknown_flag(struct client *c)
{
	uint32_t error;

	client_go(c, SIMPLE, false);
	client_needs_size(c, blocks(c, 512));
	error = client_simple_do(c, NBD_CMD_READ, 1u << 14, 0, blocks(c, 512));
	require(error == NBD_EINVAL, "an unknown flag: %s", error_name(error));
	client_alive(c);
}

static void foreign_flag(struct client *c)
{
	static const struct {
		uint16_t type, flags;
	} cases[] = {
		{ NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE },
		{ NBD_CMD_READ, NBD_CMD_FLAG_REQ_ONE },
		{ NBD_CMD_READ, NBD_CMD_FLAG_FAST_ZERO },
		{ NBD_CMD_READ, NBD_CMD_FLAG_DF }, /* not structured */
	};

	client_go(c, SIMPLE, false);
	client_needs_size(c, blocks(c, 512));
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		uint32_t error = client_simple_do(
			c, cases[i].type, cases[i].flags, 0, blocks(c, 512));

		require(error == NBD_EINVAL, "request %u with flag %#x: %s",
			cases[i].type, cases[i].flags, error_name(error));
	}
	client_alive(c);
}

static void fua_everywhere(struct client *c)
{
	static const struct {
		uint16_t type, flag;
	} cases[] = {
		{ NBD_CMD_READ, NBD_FLAG_HAS_FLAGS },
		{ NBD_CMD_FLUSH, NBD_FLAG_SEND_FLUSH },
		{ NBD_CMD_CACHE, NBD_FLAG_SEND_CACHE },
	};

	client_go(c, SIMPLE, false);
	client_needs(c, NBD_FLAG_SEND_FUA, "FUA");
	client_needs_size(c, blocks(c, 512));
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct request r = { .type = cases[i].type,
				     .flags = NBD_CMD_FLAG_FUA };

		if (!(c->flags & cases[i].flag))
			continue;
		r.length = r.type == NBD_CMD_FLUSH ? 0 : blocks(c, 512);
		(void)client_do(c, &r);
		require(!r.error, "request %u with FUA: %s", r.type,
			error_name(r.error));
	}
}

static void fua_on_writes(struct client *c)
{
	struct request r = { .type = NBD_CMD_WRITE, .flags = NBD_CMD_FLAG_FUA };

	client_go_to_write(c, SIMPLE);
	client_needs(c, NBD_FLAG_SEND_FUA, "FUA");
	client_needs_size(c, blocks(c, 4096));
	r.length = blocks(c, 4096);
	r.payload = memset(client_memory(r.length), 0x21, r.length);
	require(client_do(c, &r) == 0, "a write with FUA: %s",
		error_name(r.error));
	check_bytes(c, 0, r.length, 0x21, "written with FUA");
	if (c->flags & NBD_FLAG_SEND_TRIM)
		require(!client_simple_do(c, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 0,
					  r.length),
			"a trim with FUA fails");
	if (c->flags & NBD_FLAG_SEND_WRITE_ZEROES)
		require(!client_simple_do(c, NBD_CMD_WRITE_ZEROES,
					  NBD_CMD_FLAG_FUA, 0, r.length),
			"zeroes with FUA fail");
}

static void fua_not_offered(struct client *c)
{
	uint32_t error;

	client_go(c, SIMPLE, false);
	if (c->flags & NBD_FLAG_SEND_FUA)
		client_skip("FUA is offered");
	client_needs_size(c, blocks(c, 512));
	error = client_simple_do(c, NBD_CMD_READ, NBD_CMD_FLAG_FUA, 0,
				 blocks(c, 512));
	require(error == NBD_EINVAL, "FUA that is not offered: %s",
		error_name(error));
}

/* --- FLUSH, TRIM, CACHE, WRITE_ZEROES ------------------------------------- */

static void flush(struct client *c)
{
	uint32_t error;

	client_go(c, SIMPLE, false);
	client_needs(c, NBD_FLAG_SEND_FLUSH, "FLUSH");
	error = client_simple_do(c, NBD_CMD_FLUSH, 0, 0, 0);
	require(!error, "FLUSH: %s", error_name(error));
}

static void several_connections(struct client *c)
{
	struct client *other = client_other(c);
	struct request r = { .type = NBD_CMD_WRITE };

	client_go_to_write(c, SIMPLE);
	client_needs(c, NBD_FLAG_CAN_MULTI_CONN, "CAN_MULTI_CONN");
	client_needs_size(c, room(c));
	client_go(other, SIMPLE, false);
	client_write(other, 0, blocks(c, 4096), 0);
	client_write(c, 0, blocks(c, 4096), 0x33);
	if (c->flags & NBD_FLAG_SEND_FLUSH)
		(void)client_simple_do(c, NBD_CMD_FLUSH, 0, 0, 0);
	check_bytes(other, 0, blocks(c, 4096), 0x33, "after a flush");
	client_needs(c, NBD_FLAG_SEND_FUA, "FUA");
	r.flags = NBD_CMD_FLAG_FUA;
	r.length = blocks(c, 4096);
	r.payload = memset(client_memory(r.length), 0x34, r.length);
	(void)client_do(c, &r);
	check_bytes(other, 0, blocks(c, 4096), 0x34, "after FUA");
}

static void trim(struct client *c)
{
	uint32_t error;

	client_go_to_write(c, SIMPLE);
	client_needs(c, NBD_FLAG_SEND_TRIM, "TRIM");
	client_needs_size(c, room(c));
	client_write(c, 0, room(c), 0x61);
	error = client_simple_do(c, NBD_CMD_TRIM, 0, 0, room(c) / 2);
	require(!error, "TRIM: %s", error_name(error));
	check_bytes(c, room(c) / 2, room(c) / 2, 0x61, "beside a trim");
}

static void trim_beyond(struct client *c)
{
	uint32_t error;

	client_go_to_write(c, SIMPLE);
	client_needs(c, NBD_FLAG_SEND_TRIM, "TRIM");
	error = client_simple_do(c, NBD_CMD_TRIM, 0, c->size, blocks(c, 4096));
	require(error == NBD_EINVAL, "a trim beyond the end: %s",
		error_name(error));
	client_alive(c);
}

static void cache(struct client *c)
{
	client_go_to_write(c, SIMPLE);
	client_needs(c, NBD_FLAG_SEND_CACHE, "CACHE");
	client_needs_size(c, room(c));
	client_write(c, 0, room(c), 0x77);
	(void)client_simple_do(c, NBD_CMD_CACHE, 0, 0, room(c));
	check_bytes(c, 0, room(c), 0x77, "after CACHE");
}

static void cache_flags(struct client *c)
{
	client_go(c, SIMPLE, false);
	client_needs(c, NBD_FLAG_SEND_CACHE, "CACHE");
	client_needs_size(c, blocks(c, 512));
	require(client_simple_do(c, NBD_CMD_CACHE, 1u << 13, 0, blocks(c, 512)),
		"CACHE with an unknown flag is accepted");
}

static void zeroes(struct client *c, uint16_t flags)
{
	uint32_t error;

	client_go_to_write(c, SIMPLE);
	client_needs(c, NBD_FLAG_SEND_WRITE_ZEROES, "WRITE_ZEROES");
	client_needs_size(c, room(c));
	client_write(c, 0, room(c), 0x99);
	error = client_simple_do(c, NBD_CMD_WRITE_ZEROES, flags, blocks(c, 1),
				 room(c) / 2);
	require(!error, "WRITE_ZEROES: %s", error_name(error));
	check_bytes(c, 0, blocks(c, 1), 0x99, "before zeroes");
	check_bytes(c, blocks(c, 1), room(c) / 2, 0, "zeroes");
	check_bytes(c, blocks(c, 1) + room(c) / 2, room(c) / 2 - blocks(c, 1),
		    0x99, "behind zeroes");
}

static void write_zeroes(struct client *c)
{
	zeroes(c, 0);
}

static void write_zeroes_no_hole(struct client *c)
{
	zeroes(c, NBD_CMD_FLAG_NO_HOLE);
}

static void write_zeroes_beyond(struct client *c)
{
	uint32_t error;

	client_go_to_write(c, SIMPLE);
	client_needs(c, NBD_FLAG_SEND_WRITE_ZEROES, "WRITE_ZEROES");
	error = client_simple_do(c, NBD_CMD_WRITE_ZEROES, 0, c->size,
				 blocks(c, 4096));
	require(error == NBD_ENOSPC, "zeroes beyond the end: %s",
		error_name(error));
	client_alive(c);
}

static void fast_zero(struct client *c)
{
	uint32_t error;

	client_go_to_write(c, SIMPLE);
	client_needs(c, NBD_FLAG_SEND_WRITE_ZEROES, "WRITE_ZEROES");
	client_needs(c, NBD_FLAG_SEND_FAST_ZERO, "FAST_ZERO");
	client_needs_size(c, room(c));
	client_write(c, 0, room(c), 0x88);
	for (unsigned int i = 0; i < 2; i++) {
		error = client_simple_do(
			c, NBD_CMD_WRITE_ZEROES,
			(uint16_t)(NBD_CMD_FLAG_FAST_ZERO |
				   (i ? NBD_CMD_FLAG_NO_HOLE : 0)),
			0, room(c));
		require(!error || error == NBD_ENOTSUP, "FAST_ZERO: %s",
			error_name(error));
		if (!error)
			check_bytes(c, 0, room(c), 0, "after FAST_ZERO");
	}
}

static void fast_zero_not_offered(struct client *c)
{
	uint32_t error;

	client_go_to_write(c, SIMPLE);
	client_needs(c, NBD_FLAG_SEND_WRITE_ZEROES, "WRITE_ZEROES");
	if (c->flags & NBD_FLAG_SEND_FAST_ZERO)
		client_skip("FAST_ZERO is offered");
	client_needs_size(c, room(c));
	error = client_simple_do(c, NBD_CMD_WRITE_ZEROES,
				 NBD_CMD_FLAG_FAST_ZERO, 0, room(c));
	require(error == NBD_EINVAL, "FAST_ZERO that is not offered: %s",
		error_name(error));
}

static void status_not_negotiated(struct client *c)
{
	uint32_t error;

	client_go(c, STRUCTURED, false);
	client_needs_size(c, blocks(c, 512));
	error = client_simple_do(c, NBD_CMD_BLOCK_STATUS, 0, 0, blocks(c, 512));
	require(error == NBD_EINVAL, "BLOCK_STATUS without a context: %s",
		error_name(error));
	client_alive(c);
}

/* --- The end -------------------------------------------------------------- */

static void disconnect(struct client *c)
{
	struct request r = { .type = NBD_CMD_DISC };

	client_go(c, SIMPLE, false);
	client_submit(c, &r);
	client_gone(c, "DISC");
}

static void disconnect_last(struct client *c)
{
	enum { NR = 20 };
	struct request *r = client_memory(NR * sizeof(*r));
	struct request last = { .type = NBD_CMD_DISC };

	client_go(c, SIMPLE, false);
	client_needs_size(c, room(c));
	for (unsigned int i = 0; i < NR; i++) {
		r[i].type = NBD_CMD_READ;
		r[i].length = room(c);
		client_submit(c, &r[i]);
	}
	client_submit(c, &last);
	client_collect(c, r, NR);
	client_gone(c, "DISC");
}

const struct test_case request_cases[] = {
	{ "read", "Simple reply message",
	  "MUST be answered by a simple reply, with length bytes of data",
	  false, read_simple },
	{ "cookie", "Transmission",
	  "the server MUST use the same value for the cookie", false, cookies },
	{ "write", "NBD_CMD_WRITE", "the server MUST write the data", false,
	  write_is_read },
	{ "simple-only", "Simple reply message",
	  "MUST be sent in response to all requests if structured replies were "
	  "not negotiated",
	  false, only_simple_replies },
	{ "pipeline", "Transmission",
	  "each request has one reply, in any order", false, pipeline },
	{ "long-transfer", "Block size constraints",
	  "a length of less than 2^25 SHOULD NOT count as an attack", true,
	  long_transfer },
	{ "long-write", "Block size constraints", "... to be written, either",
	  true, long_write },
	{ "read-beyond", "Error values",
	  "EINVAL SHOULD be returned for a read beyond the end", true,
	  read_beyond },
	{ "read-error", "NBD_CMD_READ",
	  "after an error the server MUST NOT send any payload", false,
	  error_without_payload },
	{ "misaligned", "Block size constraints",
	  "EINVAL SHOULD be returned for what is not aligned", true,
	  misaligned },
	{ "misaligned-write", "Block size constraints",
	  "... MUST cleanly error, without corrupting data", false,
	  misaligned_write },
	{ "too-long", "Block size constraints",
	  "EINVAL SHOULD be returned for what is longer than the maximum", true,
	  too_long },
	{ "length-0", "Request types",
	  "the server SHOULD NOT disconnect because of a length of 0", true,
	  nothing },
	{ "write-beyond", "Error values",
	  "ENOSPC SHOULD be returned for a write beyond the end", true,
	  write_beyond },
	{ "write-error", "NBD_CMD_WRITE",
	  "if an error occurs the server MUST set the error code", false,
	  write_error_is_told },
	{ "read-only", "Transmission flags",
	  "with READ_ONLY the server MUST error write operations", false,
	  read_only },
	{ "read-only-eperm", "Error values",
	  "EPERM SHOULD be returned for a write to a read-only export", true,
	  read_only_eperm },
	{ "command-unknown", "Error values",
	  "EINVAL SHOULD be returned for an unknown command", true,
	  unknown_command },
	{ "flag-unknown", "Error values",
	  "EINVAL SHOULD be returned for an unknown flag", true, unknown_flag },
	{ "flag-foreign", "Error values",
	  "EINVAL SHOULD be returned for a flag not applicable to the request",
	  true, foreign_flag },
	{ "fua-all", "Command flags",
	  "with SEND_FUA the server MUST accept all commands with FUA", false,
	  fua_everywhere },
	{ "fua-writes", "Command flags", "... and those that write", false,
	  fua_on_writes },
	{ "fua-not-offered", "Error values",
	  "EINVAL SHOULD be returned for FUA that is not offered", true,
	  fua_not_offered },
	{ "flush", "NBD_CMD_FLUSH", "offered, it has to work", false, flush },
	{ "multi-conn", "Transmission flags",
	  "the effects of FLUSH and FUA MUST be visible across all connections",
	  false, several_connections },
	{ "trim", "NBD_CMD_TRIM", "no more than length bytes at offset", false,
	  trim },
	{ "trim-beyond", "Error values",
	  "EINVAL SHOULD be returned for a trim beyond the end", true,
	  trim_beyond },
	{ "cache", "NBD_CMD_CACHE",
	  "there MUST NOT be any difference in semantics", false, cache },
	{ "cache-flags", "NBD_CMD_CACHE",
	  "the server MUST reject any flags it does not recognize", false,
	  cache_flags },
	{ "write-zeroes", "NBD_CMD_WRITE_ZEROES",
	  "MUST ensure that the data reads back as zero; MUST NOT fail with "
	  "ENOTSUP",
	  false, write_zeroes },
	{ "write-zeroes-no-hole", "Command flags",
	  "NO_HOLE MUST be supported with WRITE_ZEROES", false,
	  write_zeroes_no_hole },
	{ "write-zeroes-beyond", "NBD_CMD_WRITE_ZEROES",
	  "ENOSPC SHOULD be returned beyond the end", true,
	  write_zeroes_beyond },
	{ "fast-zero", "NBD_CMD_WRITE_ZEROES",
	  "FAST_ZERO: done, or MUST fail with ENOTSUP", false, fast_zero },
	{ "fast-zero-not-offered", "NBD_CMD_WRITE_ZEROES",
	  "... EINVAL SHOULD be returned if it is not offered", true,
	  fast_zero_not_offered },
	{ "status-not-negotiated", "Metadata querying",
	  "EINVAL SHOULD be returned for BLOCK_STATUS without a context", true,
	  status_not_negotiated },
	{ "disc", "NBD_CMD_DISC",
	  "the server MUST close the connection; there is no reply", false,
	  disconnect },
	{ "disc-after-requests", "NBD_CMD_DISC",
	  "the server MUST handle all outstanding requests", false,
	  disconnect_last },
	{ 0 },
};
