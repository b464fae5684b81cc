/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests that do not come from the ring go the same way as those that do: an NBD
 * client's beside a guest's, without sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "io-fixture.h"

#define MAX_ASKED 8

/* In place of io-client.c. */
struct asked {
	struct io io;
	bool begun, answered;
	int err;
	uint8_t data[8192];
};

static struct asked asked[MAX_ASKED];
static unsigned int nr_asked;

static void take(struct io_lane *lane)
{
	(void)lane;
	for (unsigned int i = 0; i < nr_asked; i++) {
		if (asked[i].begun)
			continue;
		asked[i].begun = true;
		io_advance(&asked[i].io);
	}
}

static void answer(struct io_lane *lane)
{
	struct io *io;

	while ((io = io_pop(&lane->clients.answers))) {
		struct asked *a = container_of(io, struct asked, io);

		assert_false(a->answered);
		a->answered = true;
		a->err = io->status == BLKIF_STATUS_OKAY ? 0 : io->err;
		io_settle(io);
		io_unlock(io);
	}
}

static const struct client_ops ops = { .take = take, .answer = answer };

static int start(void **state)
{
	(void)state;
	memset(asked, 0, sizeof(asked));
	nr_asked = 0;
	fix_start();
	fix.lane.clients.ops = &ops;
	atomic_store(&fix.lane.clients.nr, 1);
	return 0;
}

static struct asked *ask(enum xd_op op, uint8_t steps, uint64_t offset,
			 uint64_t length)
{
	struct asked *a = &asked[nr_asked++];

	assert_true(nr_asked <= MAX_ASKED);
	a->io.lane = &fix.lane;
	a->io.client = true;
	a->io.op = (uint8_t)op;
	a->io.steps = steps;
	a->io.offset = offset;
	a->io.length = length;
	a->io.buffer = a->data;
	fix_run();
	return a;
}

static struct asked *ask_write(uint64_t offset, uint8_t value)
{
	memset(asked[nr_asked].data, value, 4096);
	return ask(XD_WRITE, IO_STEP(IO_LOCK) | IO_STEP(IO_DATA), offset, 4096);
}

static struct asked *ask_flush(void)
{
	return ask(XD_FLUSH, IO_STEP(IO_PREFLUSH), 0, 0);
}

static void guest_writes(uint64_t id, uint64_t offset, uint8_t value)
{
	uint32_t gref = 10 + (uint32_t)id;

	memset(fix.guest + (size_t)gref * 4096, value, 4096);
	fix_rw(WRITE, id, offset / 512, gref, 1);
	fix_run();
}

/* --- Data ----------------------------------------------------------------- */

static void test_data(void **state)
{
	struct asked *write = ask_write(8192, 0x5a), *read;

	(void)state;
	assert_false(write->answered);
	assert_int_equal(fix_count(FIX_COPY), 0); /* nothing of the guest's */
	fix_complete(0, 0);
	assert_true(write->answered);
	assert_int_equal(write->err, 0);
	assert_int_equal(fix.store[8192], 0x5a);
	read = ask(XD_READ, IO_STEP(IO_DATA), 8192, 4096);
	fix_complete(0, 0);
	assert_true(read->answered);
	assert_int_equal(read->data[0], 0x5a);
	assert_int_equal(fix_count(FIX_RESPONSE), 0);
}

static void test_pieces(void **state)
{
	struct asked *read;

	(void)state;
	fix.limits.max_transfer = 4096;
	memset(fix.store, 0x11, 8192);
	read = ask(XD_READ, IO_STEP(IO_DATA), 0, 8192);
	fix_complete(0, 0);
	assert_false(read->answered);
	fix_complete(0, 0);
	assert_true(read->answered);
	assert_int_equal(read->data[8191], 0x11);
}

/* The guest is heard between two pieces, also where the stack is done at once. */
static void test_share(void **state)
{
	static uint8_t data[3 * IO_CLIENT_PIECE];
	struct asked *read = &asked[nr_asked++];
	struct xd_request *piece;

	(void)state;
	memset(fix.store, 0x12, sizeof(data));
	read->io = (struct io){ .lane = &fix.lane,
				.client = true,
				.op = XD_READ,
				.steps = IO_STEP(IO_DATA),
				.length = sizeof(data),
				.buffer = data };
	fix_run();
	piece = fix.queue[0];
	assert_int_equal(fix.nr_queue, 1);
	assert_int_equal(piece->length, IO_CLIENT_PIECE);
	fix.nr_queue = 0;
	piece->done(piece, 0);
	assert_int_equal(fix.nr_queue, 0);
	guest_writes(1, 0, 0x13);
	assert_int_equal(fix.nr_queue, 2);
	fix_complete(0, 0);
	fix_complete(0, 0);
	fix_complete(0, 0);
	assert_int_equal(fix_status(1), 0);
	assert_true(read->answered);
	assert_int_equal(data[sizeof(data) - 1], 0x12);
}

/* --- The same place ------------------------------------------------------- */

static void test_guest_waits(void **state)
{
	struct asked *write = ask_write(8192, 0x22);

	(void)state;
	guest_writes(1, 12288 - 512, 0x33); /* overlaps by a sector */
	guest_writes(2, 65536, 0x44); /* does not */
	assert_int_equal(fix.nr_queue, 2);
	assert_int_equal(fix.queue[1]->offset, 65536);
	fix_complete(0, 0);
	assert_true(write->answered);
	assert_int_equal(fix.nr_queue, 2);
	fix_complete(1, 0);
	assert_int_equal(fix_status(1), 0);
	assert_int_equal(fix.store[12287], 0x33);
	fix_complete(0, 0);
	assert_int_equal(fix_status(2), 0);
}

/* However much the guest writes, a client's discard of much gets its turn. */
static void test_order_of_arrival(void **state)
{
	struct asked *discard;

	(void)state;
	guest_writes(1, 0, 0x11);
	discard = ask(XD_DISCARD, IO_STEP(IO_LOCK) | IO_STEP(IO_DATA), 0,
		      1u << 20);
	guest_writes(2, 65536, 0x22);
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	assert_int_equal(fix_status(1), 0);
	guest_writes(3, 0, 0x33);
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	assert_true(discard->answered);
	assert_int_equal(fix.nr_queue, 2);
	fix_complete(0, 0);
	fix_complete(0, 0);
	assert_int_equal(fix_status(2), 0);
	assert_int_equal(fix_status(3), 0);
}

static void test_client_waits(void **state)
{
	struct asked *write, *other;

	(void)state;
	guest_writes(1, 8192, 0x33);
	write = ask_write(8192, 0x22);
	other = ask_write(65536, 0x22);
	assert_int_equal(fix.nr_queue, 2);
	fix_complete(1, 0);
	assert_true(other->answered);
	assert_false(write->answered);
	fix_complete(0, 0);
	assert_int_equal(fix_status(1), 0);
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	assert_true(write->answered);
	assert_int_equal(fix.store[8192], 0x22);
}

/* --- Flushes -------------------------------------------------------------- */

/* What comes while one runs waits for the next, and shares it. */
static void test_flush_shared(void **state)
{
	struct asked *first = ask_flush(), *second = ask_flush();

	(void)state;
	assert_int_equal(fix.nr_queue, 1);
	fix_rw(FLUSH, 1, 0, 0, 0);
	fix_run();
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	assert_true(first->answered);
	assert_false(second->answered);
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	assert_true(second->answered);
	assert_int_equal(fix_status(1), 0);
}

static void test_poison(void **state)
{
	struct asked *flush = ask_flush(), *write, *again, *read, *extents;

	(void)state;
	fix_complete(0, -EIO);
	assert_int_equal(fix_count(FIX_MARK), 1);
	assert_true(flush->answered);
	assert_int_equal(flush->err, -EIO);
	guest_writes(1, 0, 1);
	assert_int_equal(fix_status(1), BLKIF_STATUS_ERROR);
	write = ask_write(0, 1);
	again = ask_flush();
	assert_true(write->answered && again->answered);
	assert_int_equal(write->err, -EIO);
	assert_int_equal(again->err, -EIO);
	assert_int_equal(fix.nr_queue, 0);
	read = ask(XD_READ, IO_STEP(IO_DATA), 0, 4096);
	extents = ask(XD_EXTENTS, IO_STEP(IO_DATA), 0, 4096);
	while (fix.nr_queue > 0)
		fix_complete(0, 0);
	assert_true(read->answered && extents->answered);
	assert_int_equal(read->err, 0);
	assert_int_equal(extents->err, 0);
}

/* --- Errors --------------------------------------------------------------- */

static void test_held(void **state)
{
	struct asked *write = ask_write(0, 0x66);

	(void)state;
	fix_complete(0, -ENOSPC);
	assert_false(write->answered);
	assert_int_equal(fix_count(FIX_CONDITION), 1);
	assert_int_equal(fix.nr_queue, 0);
	atomic_store(&fix.lane.resume, true);
	fix_run();
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	assert_true(write->answered);
	assert_int_equal(write->err, 0);
	assert_int_equal(fix_count(FIX_CONDITION), 2);
}

static void test_reported(void **state)
{
	struct asked *write;

	(void)state;
	fix.policy.on_error = ON_ERROR_REPORT;
	write = ask_write(0, 0x66);
	fix_complete(0, -ENOSPC);
	assert_true(write->answered);
	assert_int_equal(write->err, -ENOSPC); /* as it is, not just "error" */
}

/* --- A worker that dies --------------------------------------------------- */

/* The guest's is repeated, the client's is not. */
static void test_not_in_log(void **state)
{
	(void)state;
	(void)ask_write(0, 0x77);
	guest_writes(1, 65536, 0x78);
	assert_int_equal(fix.nr_queue, 2);
	nr_asked = 0;
	fix_die_and_recover();
	assert_int_equal(fix.nr_queue, 1);
	assert_int_equal(fix.queue[0]->offset, 65536);
	fix_complete(0, 0);
	assert_int_equal(fix_status(1), 0);
}

/* Those that waited until what had begun has its range go before what comes then. */
static void test_order_after_death(void **state)
{
	(void)state;
	memset(fix.guest + 1000ul * 4096, 1, 4096);
	fix_indirect(WRITE, 1, 0, 900, 1000, 1);
	fix_run();
	guest_writes(2, 512, 2); /* waits for it */
	assert_int_equal(fix.nr_queue, 1);
	fix_die_and_begin();
	/* The list is fetched: it has its range at the end of this round. */
	(void)io_pump(&fix.lane);
	assert_int_equal(atomic_load(&fix.disk.nr_begun), 0);
	guest_writes(3, 0, 3);
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(fix.nr_queue, 1);
		assert_int_equal(fix.queue[0]->offset, i == 1 ? 512 : 0);
		fix_complete(0, 0);
	}
	assert_int_equal(fix_status(3), 0);
	assert_int_equal(fix.store[512], 3);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, start, fix_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_data),
		TEST(test_pieces),
		TEST(test_guest_waits),
		TEST(test_client_waits),
		TEST(test_order_of_arrival),
		TEST(test_flush_shared),
		TEST(test_poison),
		TEST(test_held),
		TEST(test_reported),
		TEST(test_not_in_log),
		TEST(test_order_after_death),
		TEST(test_share),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
