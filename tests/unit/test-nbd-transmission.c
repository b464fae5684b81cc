/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests to the NBD server, right and wrong ones, with all three kinds of
 * headers. */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"
#include "nbd-fixture.h"
#include "nbd/private.h"

static struct nbd_fixture f;

static int set_up(void **state)
{
	(void)state;
	fixture_new(&f, NBD_TLS_NONE);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	fixture_free(&f);
	return 0;
}

static void request(uint16_t type, uint64_t cookie, uint64_t offset,
		    uint64_t length)
{
	fixture_request(&f, false, 0, type, cookie, offset, length);
}

/* An error chunk with a sentence. */
static void failed(bool extended, uint64_t cookie, uint32_t error)
{
	uint64_t length;
	const uint8_t *p = fixture_chunk(&f, extended, NBD_REPLY_TYPE_ERROR,
					 cookie, &length);

	assert_int_equal(nbd_get32(p), error);
	assert_int_equal(nbd_get16(p + 4), length - 6);
	assert_true(length > 6);
	assert_true(fixture_is_empty(&f));
	assert_int_equal(f.err, 0);
}

/* --- Right ------------------------------------------------------------------------- */

static void test_simple(void **state)
{
	static uint8_t data[100000];

	(void)state;
	fixture_go(&f, "disk", 0, false);
	memset(data, 0x5a, sizeof(data));
	request(NBD_CMD_WRITE, 1, 1000, sizeof(data));
	fixture_send(&f, data, sizeof(data));
	fixture_simple(&f, 1, 0);
	request(NBD_CMD_READ, 2, 999, 1 + sizeof(data));
	fixture_simple(&f, 2, 0);
	assert_memory_equal(fixture_take(&f, 1 + sizeof(data)), f.disk + 999,
			    1 + sizeof(data));
	assert_memory_equal(f.disk + 1000, data, sizeof(data));
	request(NBD_CMD_FLUSH, 3, 0, 0);
	fixture_simple(&f, 3, 0);
	assert_int_equal(f.nr_flushes, 1);
	request(NBD_CMD_TRIM, 4, 0, FIXTURE_SIZE);
	fixture_simple(&f, 4, 0);
	request(NBD_CMD_CACHE, 5, 0, FIXTURE_SIZE);
	fixture_simple(&f, 5, 0);
	fixture_request(&f, false, NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE,
			NBD_CMD_WRITE_ZEROES, 6, 512, 512);
	fixture_simple(&f, 6, 0);
	request(NBD_CMD_READ, 7, 5, 0); /* nothing: done */
	fixture_simple(&f, 7, 0);
	request(NBD_CMD_DISC, 8, 0, 0);
	assert_true(nbd_session_ended(f.session));
	assert_true(fixture_is_empty(&f));
}

static void test_structured_read(void **state)
{
	const uint8_t *p;
	uint64_t length;

	(void)state;
	fixture_go(&f, "disk", NBD_OPT_STRUCTURED_REPLY, false);
	request(NBD_CMD_READ, 1, 512, 1024);
	p = fixture_chunk(&f, false, NBD_REPLY_TYPE_OFFSET_DATA, 1, &length);
	assert_int_equal(length, 8 + 1024);
	assert_true(nbd_get64(p) == 512);
	assert_memory_equal(p + 8, f.disk + 512, 1024);
	/* Zeroes do not travel, unless the client wants them in one piece. */
	request(NBD_CMD_READ, 2, FIXTURE_HOLE, 65536);
	p = fixture_chunk(&f, false, NBD_REPLY_TYPE_OFFSET_HOLE, 2, &length);
	assert_int_equal(length, 12);
	assert_true(nbd_get64(p) == FIXTURE_HOLE);
	assert_int_equal(nbd_get32(p + 8), 65536);
	fixture_request(&f, false, NBD_CMD_FLAG_DF, NBD_CMD_READ, 3,
			FIXTURE_HOLE, 65536);
	p = fixture_chunk(&f, false, NBD_REPLY_TYPE_OFFSET_DATA, 3, &length);
	assert_int_equal(length, 8 + 65536);
	assert_true(fixture_is_empty(&f));
}

/* There is no content of no bytes: a chunk of data has at least one. */
static void test_read_of_nothing(void **state)
{
	uint64_t length;

	(void)state;
	fixture_go(&f, "disk", NBD_OPT_EXTENDED_HEADERS, false);
	fixture_request(&f, true, 0, NBD_CMD_READ, 1, 512, 0);
	(void)fixture_chunk(&f, true, NBD_REPLY_TYPE_NONE, 1, &length);
	assert_int_equal(length, 0);
	fixture_request(&f, true, NBD_CMD_FLAG_DF, NBD_CMD_READ, 2, 512, 0);
	(void)fixture_chunk(&f, true, NBD_REPLY_TYPE_NONE, 2, &length);
	assert_int_equal(length, 0);
	assert_true(fixture_is_empty(&f));
}

/* A long read: data, a hole, data.  A short run of zeroes is data. */
static void test_read_with_holes(void **state)
{
	enum { KIB = 1024, AT = FIXTURE_HOLE - 96 * KIB };
	const uint8_t *p;
	uint64_t length;

	(void)state;
	fixture_go(&f, "disk", NBD_OPT_EXTENDED_HEADERS, false);
	memset(f.disk + AT + 4 * KIB, 0, 28 * KIB);
	f.disk[FIXTURE_HOLE + 32 * KIB + 511] = 1;
	fixture_request(&f, true, 0, NBD_CMD_READ, 1, AT, 256 * KIB);
	p = fixture_first_chunk(&f, true, NBD_REPLY_TYPE_OFFSET_DATA, 1,
				&length);
	assert_int_equal(length, 8 + 96 * KIB);
	assert_true(nbd_get64(p) == AT);
	assert_memory_equal(p + 8, f.disk + AT, 96 * KIB);
	p = fixture_first_chunk(&f, true, NBD_REPLY_TYPE_OFFSET_HOLE, 1,
				&length);
	assert_int_equal(length, 12);
	assert_true(nbd_get64(p) == FIXTURE_HOLE);
	assert_int_equal(nbd_get32(p + 8), 32 * KIB);
	p = fixture_first_chunk(&f, true, NBD_REPLY_TYPE_OFFSET_DATA, 1,
				&length);
	assert_int_equal(length, 8 + 4 * KIB);
	assert_int_equal(p[8 + 511], 1);
	p = fixture_chunk(&f, true, NBD_REPLY_TYPE_OFFSET_HOLE, 1, &length);
	assert_true(nbd_get64(p) == FIXTURE_HOLE + 36 * KIB);
	assert_int_equal(nbd_get32(p + 8), 124 * KIB);
	assert_true(fixture_is_empty(&f));
	/* All of it is zero; some of it is, and the client wants one piece. */
	fixture_request(&f, true, 0, NBD_CMD_READ, 2, FIXTURE_HOLE + 64 * KIB,
			100 * KIB);
	p = fixture_chunk(&f, true, NBD_REPLY_TYPE_OFFSET_HOLE, 2, &length);
	assert_int_equal(nbd_get32(p + 8), 100 * KIB);
	fixture_request(&f, true, NBD_CMD_FLAG_DF, NBD_CMD_READ, 3, AT,
			256 * KIB);
	p = fixture_chunk(&f, true, NBD_REPLY_TYPE_OFFSET_DATA, 3, &length);
	assert_memory_equal(p + 8, f.disk + AT, 256 * KIB);
	assert_true(fixture_is_empty(&f));
}

static void test_status(void **state)
{
	const uint8_t *p;
	uint64_t length;

	(void)state;
	fixture_go(&f, "disk", NBD_OPT_STRUCTURED_REPLY, true);
	request(NBD_CMD_BLOCK_STATUS, 1, FIXTURE_HOLE - 512, 2048);
	p = fixture_chunk(&f, false, NBD_REPLY_TYPE_BLOCK_STATUS, 1, &length);
	assert_int_equal(length, 4 + 2 * 8);
	assert_int_equal(nbd_get32(p + 4), 512);
	assert_int_equal(nbd_get32(p + 8), 0);
	assert_int_equal(nbd_get32(p + 12), 1536);
	assert_int_equal(nbd_get32(p + 16), NBD_STATE_HOLE | NBD_STATE_ZERO);
	fixture_request(&f, false, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_BLOCK_STATUS,
			2, FIXTURE_HOLE - 512, 2048);
	p = fixture_chunk(&f, false, NBD_REPLY_TYPE_BLOCK_STATUS, 2, &length);
	assert_int_equal(length, 4 + 8);
	assert_int_equal(nbd_get32(p + 4), 512);
}

/* With 64 bits in each header. */
static void test_extended(void **state)
{
	uint8_t data[512];
	const uint8_t *p;
	uint64_t length;

	(void)state;
	fixture_go(&f, "disk", NBD_OPT_EXTENDED_HEADERS, true);
	memset(data, 7, sizeof(data));
	fixture_request(&f, true, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_WRITE, 1,
			512, sizeof(data));
	fixture_send(&f, data, sizeof(data));
	(void)fixture_chunk(&f, true, NBD_REPLY_TYPE_NONE, 1, &length);
	assert_int_equal(length, 0);
	fixture_request(&f, true, 0, NBD_CMD_READ, 2, 512, 512);
	p = fixture_chunk(&f, true, NBD_REPLY_TYPE_OFFSET_DATA, 2, &length);
	assert_memory_equal(p + 8, data, sizeof(data));
	fixture_request(&f, true, 0, NBD_CMD_BLOCK_STATUS, 3, 0, FIXTURE_SIZE);
	p = fixture_chunk(&f, true, NBD_REPLY_TYPE_BLOCK_STATUS_EXT, 3,
			  &length);
	assert_int_equal(length, 8 + 2 * 16);
	assert_int_equal(nbd_get32(p + 4), 2);
	assert_true(nbd_get64(p + 8) == FIXTURE_HOLE);
	assert_true(nbd_get64(p + 24) == FIXTURE_SIZE - FIXTURE_HOLE);
	/* A write says that it brings its data. */
	fixture_request(&f, true, 0, NBD_CMD_WRITE, 4, 0, 512);
	failed(true, 4, NBD_EINVAL);
	/* There is no extent without a length. */
	fixture_request(&f, true, 0, NBD_CMD_BLOCK_STATUS, 7, 0, 0);
	failed(true, 7, NBD_EINVAL);
	fixture_request(&f, true, 0, NBD_CMD_TRIM, 5, 0, 1ull << 40);
	failed(true, 5, NBD_EINVAL);
	/* Nobody waits for terabytes to be skipped. */
	fixture_request(&f, true, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_WRITE, 6, 0,
			1ull << 40);
	assert_int_equal(f.err, -EPROTO);
}

static void test_out_of_order(void **state)
{
	(void)state;
	fixture_go(&f, "disk", 0, false);
	f.late = true;
	for (uint64_t i = 0; i < 4; i++)
		request(NBD_CMD_READ, i, i * 512, 512);
	request(NBD_CMD_DISC, 9, 0, 0);
	assert_false(nbd_session_ended(f.session)); /* all is answered first */
	assert_int_equal(nbd_session_pending(f.session), 4);
	fixture_finish(&f);
	for (uint64_t i = 4; i-- > 0;) {
		fixture_simple(&f, i, 0);
		assert_memory_equal(fixture_take(&f, 512), f.disk + i * 512,
				    512);
	}
	assert_true(nbd_session_ended(f.session));
}

/* However the bytes are cut. */
static void test_pieces(void **state)
{
	static const size_t pieces[] = { 1, 3, 27, 28, 29, 511, 4096 };
	static uint8_t data[60000];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		fixture_free(&f);
		fixture_new(&f, NBD_TLS_NONE);
		f.piece = pieces[i];
		fixture_go(&f, "disk", NBD_OPT_STRUCTURED_REPLY, true);
		memset(data, (int)(i + 1), sizeof(data));
		for (uint64_t n = 0; n < 3; n++) {
			request(NBD_CMD_WRITE, n, n * 1000, sizeof(data));
			fixture_send(&f, data, sizeof(data));
			fixture_simple(&f, n, 0);
		}
		assert_memory_equal(f.disk, data, sizeof(data));
		assert_true(fixture_is_empty(&f));
	}
}

/* --- Wrong ---------------------------------------------------------------------------- */

static void test_judged(void **state)
{
	static const struct {
		uint16_t flags, type;
		uint64_t offset, length;
		uint32_t error;
	} cases[] = {
		{ 0, NBD_CMD_READ, FIXTURE_SIZE, 1, NBD_EINVAL },
		{ 0, NBD_CMD_READ, FIXTURE_SIZE - 1, 2, NBD_EINVAL },
		{ 0, NBD_CMD_READ, UINT64_MAX, 2, NBD_EINVAL },
		{ 0, NBD_CMD_READ, 0, NBD_MAX_PAYLOAD + 1, NBD_EINVAL },
		{ NBD_CMD_FLAG_NO_HOLE, NBD_CMD_READ, 0, 512, NBD_EINVAL },
		{ NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_READ, 0, 512, NBD_EINVAL },
		{ 1u << 15, NBD_CMD_READ, 0, 512, NBD_EINVAL },
		{ 0, NBD_CMD_TRIM, FIXTURE_SIZE, 512, NBD_EINVAL },
		{ 0, NBD_CMD_WRITE_ZEROES, FIXTURE_SIZE, 512, NBD_ENOSPC },
		{ 0, NBD_CMD_FLUSH, 512, 0, NBD_EINVAL },
		{ 0, NBD_CMD_FLUSH, 0, 512, NBD_EINVAL },
		{ 0, NBD_CMD_BLOCK_STATUS, 0, 512, NBD_EINVAL },
		{ 0, 8, 0, 512, NBD_EINVAL },
		{ 0, 0xffff, 0, 512, NBD_EINVAL },
	};

	(void)state;
	fixture_go(&f, "disk", NBD_OPT_STRUCTURED_REPLY, false);
	for (uint64_t i = 0; i < ARRAY_SIZE(cases); i++) {
		fixture_request(&f, false, cases[i].flags, cases[i].type, i,
				cases[i].offset, cases[i].length);
		failed(false, i, cases[i].error);
	}
	fixture_request(&f, false, NBD_CMD_FLAG_DF, NBD_CMD_READ, 99, 0, 512);
	(void)fixture_chunk(&f, false, NBD_REPLY_TYPE_OFFSET_DATA, 99,
			    &(uint64_t){ 0 });
}

/* Its payload is there all the same, and what follows it is understood. */
static void test_refused_write(void **state)
{
	static uint8_t data[100000];

	(void)state;
	fixture_go(&f, "disk", NBD_OPT_STRUCTURED_REPLY, false);
	memset(data, 0x77, sizeof(data));
	request(NBD_CMD_WRITE, 1, FIXTURE_SIZE - 512, sizeof(data));
	fixture_send(&f, data, sizeof(data));
	failed(false, 1, NBD_ENOSPC);
	assert_int_equal(f.disk[FIXTURE_SIZE - 1], 0);
	request(NBD_CMD_FLUSH, 2, 0, 0);
	fixture_simple(&f, 2, 0);
}

static void test_readonly(void **state)
{
	static const uint16_t types[] = { NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES };
	uint8_t data[512] = { 1 };

	(void)state;
	fixture_go(&f, "ro", 0, false);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		request(types[i], i, 0, 512);
		fixture_simple(&f, i, NBD_EPERM);
	}
	request(NBD_CMD_WRITE, 7, 0, sizeof(data));
	fixture_send(&f, data, sizeof(data));
	fixture_simple(&f, 7, NBD_EPERM);
	request(NBD_CMD_READ, 8, 1, 512); /* blocks of 512 */
	fixture_simple(&f, 8, NBD_EINVAL);
}

static void test_bad_magic(void **state)
{
	static const uint8_t zeroes[NBD_REQUEST_BYTES];

	(void)state;
	fixture_go(&f, "disk", 0, false);
	fixture_send(&f, zeroes, sizeof(zeroes));
	assert_int_equal(f.err, -EPROTO);
}

/* The storage fails: the client hears of it, in the protocol's own numbers. */
static void test_storage_error(void **state)
{
	static const struct {
		int err;
		uint32_t error;
	} errors[] = {
		{ -EIO, NBD_EIO },
		{ -EREMOTEIO, NBD_EIO },
		{ -EDQUOT, NBD_ENOSPC },
		{ -EROFS, NBD_EPERM },
		{ -ENOTSUP, NBD_ENOTSUP },
		{ -ESHUTDOWN, NBD_ESHUTDOWN },
		{ -EOVERFLOW, NBD_EOVERFLOW },
	};

	(void)state;
	fixture_go(&f, "disk", NBD_OPT_STRUCTURED_REPLY, false);
	for (uint64_t i = 0; i < ARRAY_SIZE(errors); i++) {
		f.fail = errors[i].err;
		request(NBD_CMD_READ, i, 0, 512);
		failed(false, i, errors[i].error);
	}
}

/* --- Limits ------------------------------------------------------------------------------ */

/* A client that asks and never reads is not read from any more. */
static void test_greedy(void **state)
{
	unsigned int asked = 0;
	void *room;

	(void)state;
	fixture_go(&f, "disk", 0, false);
	f.late = true;
	while (nbd_session_room(f.session, &room) > 0 && asked < 10000) {
		request(NBD_CMD_READ, asked, 0, FIXTURE_SIZE);
		asked++;
	}
	assert_int_equal(asked, NBD_MAX_MEMORY / FIXTURE_SIZE);
	f.late = false;
	fixture_finish(&f);
	for (unsigned int i = 0; i < asked; i++) {
		fixture_simple(&f, asked - 1 - i, 0);
		(void)fixture_take(&f, FIXTURE_SIZE);
	}
	assert_true(nbd_session_room(f.session, &room) > 0);
	request(NBD_CMD_FLUSH, 1, 0, 0);
	fixture_simple(&f, 1, 0);
}

/* At the limit a write that has begun comes to its end, and no other begins. */
static void test_payload_at_the_limit(void **state)
{
	static uint8_t data[FIXTURE_SIZE];
	unsigned int nr = NBD_MAX_MEMORY / FIXTURE_SIZE;
	void *room;

	(void)state;
	fixture_go(&f, "disk", 0, false);
	f.late = true;
	for (unsigned int i = 0; i < nr; i++) {
		request(NBD_CMD_WRITE, i, 0, sizeof(data));
		fixture_send(&f, data, sizeof(data));
	}
	assert_int_equal(f.nr_waiting, nr);
	assert_int_equal(nbd_session_room(f.session, &room), 0);
}

static void test_many_commands(void **state)
{
	unsigned int asked = 0;
	void *room;

	(void)state;
	fixture_go(&f, "disk", 0, false);
	f.late = true;
	while (nbd_session_room(f.session, &room) > 0 && asked < 10000)
		request(NBD_CMD_FLUSH, asked++, 0, 0);
	assert_int_equal(asked, NBD_MAX_COMMANDS);
}

/* Requests that came in one piece wait in the buffer at the limit, and are not
 * forgotten there. */
static void test_limit_in_buffer(void **state)
{
	uint8_t many[2 * NBD_MAX_COMMANDS * NBD_REQUEST_BYTES];
	unsigned int n = 0;

	(void)state;
	memset(many, 0, sizeof(many));
	for (uint8_t *p = many; p < many + sizeof(many);
	     p += NBD_REQUEST_BYTES, n++) {
		(void)nbd_put32(p, NBD_REQUEST_MAGIC);
		(void)nbd_put16(p + 6, NBD_CMD_FLUSH);
		(void)nbd_put64(p + 8, n);
	}
	fixture_go(&f, "disk", 0, false);
	f.late = true;
	fixture_send(&f, many, sizeof(many));
	assert_int_equal(f.nr_waiting, NBD_MAX_COMMANDS);
	while (f.nr_waiting > 0)
		fixture_finish(&f);
	assert_int_equal(f.nr_flushes, n);
}

/* A client that goes on reading has the same memory again; one that stops gives
 * it back. */
static void kept(uint64_t length)
{
	enum { NR = 32 };
	const void *first[NR];
	unsigned int same = 0;

	request(NBD_CMD_FLUSH, 99, 0, 0);
	for (unsigned int turn = 0; turn < 2; turn++) {
		for (uint64_t i = 0; i < NR; i++)
			request(NBD_CMD_READ, i, i % 8 * length, length);
		assert_int_equal(f.nr_waiting, 1 + NR);
		assert_int_equal(f.session->memory, NR * length);
		assert_int_equal(f.session->spare_bytes, 0);
		for (unsigned int i = 0; i < NR; i++) {
			first[i] = turn ? first[i] : f.waiting[1 + i]->buffer;
			for (unsigned int j = 0; turn && j < NR; j++)
				same += first[i] == f.waiting[1 + j]->buffer;
		}
		fixture_finish_to(&f, 1);
		assert_int_equal(f.session->memory, 0);
		assert_int_equal(f.session->spare_bytes, NR * length);
		assert_int_equal(f.session->commands.nr, NR);
	}
	assert_int_equal(same, NR);
	fixture_finish(&f);
	assert_true(f.session->spare_bytes <= NBD_IDLE_SPARE);
	assert_true(f.session->spare_bytes + length > NBD_IDLE_SPARE ||
		    f.session->spare_bytes == NR * length);
	nbd_buffer_trim(f.session, 0);
	assert_int_equal(f.session->spare_bytes, 0);
	nbd_pool_empty(&f.session->commands);
}

static void test_buffers_are_kept(void **state)
{
	static const unsigned int pages[] = { 1, 2, 15, 16, 17, 32 };

	(void)state;
	fixture_go(&f, "disk", 0, false);
	f.late = true;
	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++)
		kept(pages[i] * 4096);
}

/* Nothing of a command is left in the next one at its place. */
static void test_commands_are_new(void **state)
{
	static const struct nbd_command none = { .next = NULL };
	const struct nbd_command *command;

	(void)state;
	fixture_go(&f, "disk", NBD_OPT_EXTENDED_HEADERS, true);
	f.late = true;
	for (uint64_t i = 0; i < 2; i++) {
		fixture_request(&f, true, 0, NBD_CMD_BLOCK_STATUS, i, 0,
				FIXTURE_SIZE);
		command = f.waiting[0];
		assert_ptr_equal(command->extents, none.extents);
		assert_int_equal(command->nr_extents, 0);
		assert_ptr_equal(command->buffer, NULL);
		assert_true(nbd_command_extent(f.waiting[0], 512, 0));
		fixture_finish(&f);
	}
	assert_int_equal(f.session->commands.nr, 1);
}

/* --- Writes done from where they have come ----------------------------------- */

#define MANY 200u
#define MOST 5000u

static uint64_t length_of(unsigned int i)
{
	return i % 3 == 0 ? 4096 : 1 + i * 577 % MOST;
}

/* MANY writes of other lengths and bytes, side by side on the disk.  Returns how many
 * bytes that is on the wire. */
static size_t make_writes(uint8_t *wire, uint8_t *ret_disk)
{
	uint64_t at = 0;
	uint8_t *p = wire;

	for (unsigned int i = 0; i < MANY; i++, at += length_of(i - 1)) {
		(void)nbd_put32(p, NBD_REQUEST_MAGIC);
		(void)nbd_put16(p + 4, 0);
		(void)nbd_put16(p + 6, NBD_CMD_WRITE);
		(void)nbd_put64(p + 8, i);
		(void)nbd_put64(p + 16, at);
		(void)nbd_put32(p + 24, (uint32_t)length_of(i));
		p += NBD_REQUEST_BYTES;
		for (uint64_t j = 0; j < length_of(i); j++)
			*p++ = ret_disk[at + j] = (uint8_t)(i * 7 + j);
	}
	return (size_t)(p - wire);
}

/* Returns how many stayed where they were. */
static unsigned int write_late(const uint8_t *wire, size_t length,
			       uint32_t alignment)
{
	unsigned int stayed = 0;

	fixture_send(&f, wire, length);
	assert_int_equal(f.nr_waiting, MANY);
	assert_in_range(f.session->nr_inputs, 1, NBD_MAX_INPUTS);
	for (unsigned int i = 0; i < MANY; i++) {
		assert_int_equal((uintptr_t)f.waiting[i]->buffer % alignment,
				 0);
		stayed += f.waiting[i]->input != NULL;
	}
	/* The last one first: a buffer goes when the last that it has does. */
	fixture_finish(&f);
	assert_int_equal(f.session->nr_inputs, 1);
	assert_int_equal(f.session->memory, 0);
	return stayed;
}

static void test_writes_in_place(void **state)
{
	static const size_t pieces[] = { 0, 4124, 10007, 1 };
	uint8_t *wire = malloc(MANY * (MOST + NBD_REQUEST_BYTES));
	uint8_t *disk = calloc(1, FIXTURE_SIZE);
	size_t length;

	(void)state;
	assert_non_null(wire);
	assert_non_null(disk);
	length = make_writes(wire, disk);
	f.exports[0].memory_alignment = 1;
	fixture_go(&f, "disk", 0, false);
	f.late = true;
	for (unsigned int i = 0; i < ARRAY_SIZE(pieces); i++) {
		unsigned int stayed;

		f.piece = pieces[i];
		memset(f.disk, 0, FIXTURE_SIZE);
		stayed = write_late(wire, length, 1);
		assert_memory_equal(f.disk, disk, MANY * MOST);
		/* Of the first buffers, those that came whole. */
		assert_in_range(stayed, f.piece == 1 ? 0 : 5,
				f.piece == 1 ? 0 : MANY / 2);
	}
	/* Not where the disk needs its data aligned. */
	f.piece = 0;
	f.exports[0].memory_alignment = 512;
	(void)write_late(wire, length, 512);
	f.exports[0].memory_alignment = 0;
	assert_int_equal(write_late(wire, length, 4096), 0);
	free(disk);
	free(wire);
}

/* However many lengths it uses. */
static void test_buffers_have_a_limit(void **state)
{
	(void)state;
	fixture_go(&f, "disk", 0, false);
	f.late = true;
	request(NBD_CMD_FLUSH, 99, 0, 0);
	for (uint64_t i = 0; i < 100; i++) {
		request(NBD_CMD_READ, i, 0, FIXTURE_SIZE - i * 4096);
		fixture_finish_to(&f, 1);
		assert_true(f.session->spare_bytes <= NBD_MAX_SPARE);
	}
	assert_true(f.session->spare_bytes > 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_simple),
		T(test_structured_read),
		T(test_read_of_nothing),
		T(test_read_with_holes),
		T(test_status),
		T(test_extended),
		T(test_out_of_order),
		T(test_pieces),
		T(test_judged),
		T(test_refused_write),
		T(test_readonly),
		T(test_bad_magic),
		T(test_storage_error),
		T(test_greedy),
		T(test_many_commands),
		T(test_limit_in_buffer),
		T(test_payload_at_the_limit),
		T(test_buffers_are_kept),
		T(test_buffers_have_a_limit),
		T(test_commands_are_new),
		T(test_writes_in_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
