/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the data path promises, on a stack that does what the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "io-fixture.h"
#include "worker/io-guest.h"

/* --- Data ------------------------------------------------------------------------ */

static void test_write_read(void **state)
{
	(void)state;
	fix_fill(10, 11, 0x5a);
	fix_rw(WRITE, 1, 80, 10, 11);
	fix_run();
	fix_complete_all();
	fix_rw(READ, 2, 88, 100, 2);
	fix_run();
	fix_complete_all();
	assert_int_equal(fix_status(1), 0);
	assert_int_equal(fix_status(2), 0);
	assert_int_equal(fix.store[80 * 512], 0x5a);
	assert_int_equal(fix.store[80 * 512 - 1], 0);
	assert_memory_equal(fix.guest + 100 * 4096, fix.guest + 10 * 4096,
			    2 * 4096);
	assert_int_equal(fix.guest[102 * 4096], 0);
}

static void test_indirect(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 256; i++)
		fix_fill(1000 + i, 1, (uint8_t)i);
	fix_indirect(WRITE, 1, 8, 900, 1000, 256);
	fix_run();
	fix_complete_all();
	assert_int_equal(fix_status(1), 0);
	for (unsigned int i = 0; i < 256; i++)
		assert_int_equal(fix.store[4096 + i * 4096], (uint8_t)i);
	fix_indirect(READ, 2, 8, 901, 2000, 256);
	fix_run();
	fix_complete_all();
	assert_memory_equal(fix.guest + 2000 * 4096, fix.guest + 1000 * 4096,
			    256 * 4096);
	assert_int_equal(fix.events[fix_when(FIX_RESPONSE, READ)].offset, 2);
}

/* The stack's own memory, in two pieces that are none of the guest's. */
static void test_lent_memory(void **state)
{
	(void)state;
	fix.maps = true;
	fix_fill(10, 2, 0x77);
	fix_rw(WRITE, 1, 8, 10, 2);
	fix_run();
	fix_rw(READ, 2, 8, 20, 2);
	fix_run();
	assert_int_equal(fix_status(1), 0);
	assert_int_equal(fix_status(2), 0);
	assert_int_equal(fix_count(FIX_SUBMIT), 0);
	assert_memory_equal(fix.guest + 20 * 4096, fix.guest + 10 * 4096,
			    2 * 4096);
}

/* A whole ring: one call copies, one kick, one notification. */
static void test_burst(void **state)
{
	(void)state;
	fix.maps = true;
	for (unsigned int i = 0; i < 32; i++)
		fix_rw(i % 2, i, i * 8, 10 + i, 1);
	fix_run();
	assert_int_equal(fix_count(FIX_COPY), 1);
	assert_int_equal(fix_count(FIX_NOTIFY), 1);
	assert_int_equal(fix_count(FIX_RESPONSE), 32);
}

/* Of large ones some are taken in a round, and answered before the next.  A worker
 * that dies has no others in its log. */
static void test_rounds(void **state)
{
	const uint32_t some = DIV_ROUND_UP(GUEST_ROUND_BYTES, 11 * 4096);

	(void)state;
	for (unsigned int i = 0; i < 32; i++)
		fix_rw(READ, i, i * 88, 10 + i * 11, 11);
	fix.maps = true;
	assert_true(io_pump(&fix.lane));
	assert_int_equal(fix.ring->ring.req_cons, some);
	assert_int_equal(fix.ring->ring.rsp_published, some);
	fix.maps = false;
	assert_true(io_pump(&fix.lane));
	assert_int_equal(fix.ring->ring.req_cons, 2 * some);
	assert_int_equal(fix.ring->ring.rsp_published, some);
	/* The guest waits for those that were left as well. */
	assert_int_equal(fix.stats.ring_occupancy[32], 1);
	assert_int_equal(fix.stats.ring_occupancy[32 - some], 1);
	assert_int_equal(fix.stats.in_flight, some);
	fix_die_and_recover();
	fix_complete_all();
	for (unsigned int i = 0; i < 32; i++)
		assert_int_equal(fix_responses(i), 1);
}

/* One that is larger than a round has a round of its own. */
static void test_large_rounds(void **state)
{
	(void)state;
	fix.maps = true;
	fix_indirect(READ, 1, 0, 900, 1000, 256);
	fix_indirect(READ, 2, 0, 901, 1000, 256);
	fix_rw(READ, 3, 0, 10, 1);
	assert_true(io_pump(&fix.lane));
	assert_int_equal(fix.ring->ring.rsp_published, 1);
	assert_true(io_pump(&fix.lane));
	assert_int_equal(fix.ring->ring.rsp_published, 2);
	fix_run();
	assert_int_equal(fix_status(3), 0);
}

static void test_bad_grant(void **state)
{
	(void)state;
	fix.bad_gref = 12;
	fix_rw(WRITE, 1, 0, 10, 3); /* its last page */
	fix_rw(WRITE, 2, 80, 20, 3);
	fix_rw(READ, 3, 160, 12, 1);
	fix_indirect(WRITE, 4, 240, 12, 30, 4); /* its list */
	fix_run();
	fix_complete_all();
	assert_int_equal(fix_status(1), -1);
	assert_int_equal(fix_status(2), 0);
	assert_int_equal(fix_status(3), -1);
	assert_int_equal(fix_status(4), -1);
	assert_int_equal(fix_count(FIX_SUBMIT), 2); /* 2 and the read */
}

/* More than the arena holds: nothing fails, and who came first goes first. */
static void test_memory_is_short(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 12; i++)
		fix_indirect(WRITE, i, i * 2048, 900 + i, 1000, 256);
	fix_run();
	assert_int_equal(fix.nr_queue, IO_ARENA_BYTES >> 20);
	fix_complete_all();
	for (unsigned int i = 0; i < 12; i++)
		assert_int_equal(fix_status(i), 0);
}

/* Memory that becomes free at the end of a round, with nothing else under way, is
 * used in another round, and not when something else wakes the lane. */
static void test_memory_becomes_free(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 12; i++)
		fix_indirect(READ, i, i * 2048, 900 + i, 1000, 256);
	fix_run();
	assert_int_equal(fix.nr_queue, IO_ARENA_BYTES >> 20);
	fix_complete_at_once();
	assert_int_equal(fix.nr_queue, 12 - (IO_ARENA_BYTES >> 20));
	fix_complete_at_once();
	for (unsigned int i = 0; i < 12; i++)
		assert_int_equal(fix_status(i), 0);
}

static void test_short_transfers(void **state)
{
	(void)state;
	fix.limits.max_transfer = 8192;
	fix_fill(10, 5, 0x33);
	fix_rw(WRITE, 1, 0, 10, 5);
	fix_run();
	fix_complete_all();
	assert_int_equal(fix_count(FIX_SUBMIT), 3);
	assert_int_equal(fix_status(1), 0);
	assert_int_equal(fix.store[5 * 4096 - 1], 0x33);
	fix_rw(READ, 2, 0, 50, 5);
	fix_run();
	fix_complete_all();
	assert_memory_equal(fix.guest + 50 * 4096, fix.store, 5 * 4096);
}

static void test_discard(void **state)
{
	(void)state;
	fix_discard(1, 0, (200u << 20) / 512);
	fix_run();
	assert_int_equal(fix.nr_queue, 1); /* piece by piece */
	fix_complete_all();
	assert_int_equal(fix_count(FIX_SUBMIT), 4);
	assert_int_equal(fix_status(1), 0);
	fix_discard(2, 0, 8);
	fix_run();
	fix_complete(0, -EOPNOTSUPP);
	assert_int_equal(fix_status(2), -2);
	fix_discard(3, 1, 7); /* nothing whole in it */
	fix_run();
	assert_int_equal(fix_status(3), 0);
}

static void test_overrun(void **state)
{
	(void)state;
	fix_rw(WRITE, 1, 0, 10, 1);
	fix_run();
	*(uint32_t *)(void *)fix.shared = 34;
	fix_run();
	fix_run();
	assert_int_equal(fix_count(FIX_BROKEN), 1);
	/* The lane sleeps until the broker disconnects, whenever that is. */
	assert_false(io_pending(&fix.lane));
	assert_false(io_arm(&fix.lane));
	fix_complete_all();
	assert_int_equal(fix_count(FIX_RESPONSE), 0);
}

/* --- Order ------------------------------------------------------------------------ */

/* The second write waits until the answer to the first one is published. */
static void test_overlap(void **state)
{
	(void)state;
	fix_rw(WRITE, 1, 0, 10, 4);
	fix_rw(WRITE, 2, 24, 20, 4); /* its first page overlaps */
	fix_rw(WRITE, 3, 100, 30, 1);
	fix_discard(4, 0, 8);
	fix_rw(READ, 5, 0, 40, 1); /* reads do not wait */
	fix_run();
	assert_int_equal(fix.nr_queue, 3);
	assert_int_equal(fix.queue[0]->op, XD_READ); /* needs no data first */
	fix_complete(1, 0);
	assert_int_equal(fix_status(1), 0);
	assert_int_equal(fix.nr_queue, 4); /* now 2 and 4 */
	assert_true(fix_when(FIX_RESPONSE, WRITE) <
		    fix_when(FIX_SUBMIT, XD_DISCARD));
	fix_complete_all();
	assert_int_equal(fix_count(FIX_RESPONSE), 5);
}

/* What overlaps one that waits does not overtake it, and what does not overlap goes
 * on. */
static void test_order_of_arrival(void **state)
{
	(void)state;
	fix_rw(WRITE, 1, 0, 10, 1);
	fix_discard(2, 0, 1024);
	fix_run();
	fix_rw(WRITE, 3, 512, 20, 1);
	fix_rw(WRITE, 4, 1024, 30, 1);
	fix_rw(READ, 5, 512, 40, 1);
	fix_run();
	assert_int_equal(fix.nr_queue, 3); /* 1, 4 and 5 */
	fix_complete(1, 0);
	fix_complete(1, 0);
	assert_int_equal(fix_responses(4) + fix_responses(5), 2);
	fix_complete(0, 0);
	assert_int_equal(fix.nr_queue, 1);
	assert_int_equal(fix.queue[0]->op, XD_DISCARD);
	fix_complete(0, 0);
	assert_int_equal(fix_status(2), 0);
	assert_int_equal(fix.nr_queue, 1);
	fix_complete_all();
	assert_int_equal(fix_status(3), 0);
}

static void test_barrier(void **state)
{
	(void)state;
	fix_rw(WRITE, 1, 0, 10, 1);
	fix_rw(BARRIER, 2, 80, 20, 1);
	fix_rw(WRITE, 3, 160, 30, 1);
	fix_run();
	assert_int_equal(fix.nr_queue, 1); /* the write before it */
	fix_complete(0, 0);
	assert_int_equal(fix.queue[0]->op, XD_FLUSH);
	fix_complete(0, 0);
	assert_int_equal(fix.queue[0]->op, XD_WRITE);
	assert_int_equal(fix.queue[0]->offset, 80 * 512);
	fix_complete(0, 0);
	assert_int_equal(fix.queue[0]->op, XD_FLUSH);
	assert_int_equal(fix_status(2), 99);
	assert_int_equal(fix.nr_queue, 1); /* the third waits */
	assert_int_equal(fix_status(3), 99);
	fix_complete(0, 0);
	assert_int_equal(fix_status(2), 0);
	assert_int_equal(fix.nr_queue, 1);
	fix_complete_all();
	assert_int_equal(fix_status(3), 0);
}

/* One that is refused does not end another one's turn. */
static void test_bad_barrier(void **state)
{
	(void)state;
	fix_rw(WRITE, 1, 0, 10, 1);
	fix_rw(BARRIER, 2, UINT32_MAX, 20, 1); /* beyond the end */
	fix_rw(BARRIER, 3, 80, 30, 1);
	fix_rw(BARRIER, 4, 160, 40, 1);
	fix_rw(WRITE, 5, 240, 50, 1);
	fix_run();
	assert_int_equal(fix_status(2), -1);
	assert_int_equal(fix.nr_queue, 1); /* the first write alone */
	fix_complete_all();
	for (unsigned int id = 3; id <= 5; id++)
		assert_int_equal(fix_status(id), 0);
}

/* A ring's pause for its nonsense is over, and a barrier is under way: the lane sleeps. */
static void test_barrier_after_nonsense(void **state)
{
	(void)state;
	for (unsigned int i = 0; i <= STORM_REFUSALS; i++) {
		fix_rw(WRITE, 1, UINT32_MAX, 20, 1);
		if (i == STORM_REFUSALS)
			fix_rw(BARRIER, 2, 80, 20, 1);
		fix_run();
	}
	assert_int_not_equal(fix.ring->storm.look_at, 0);
	while (now_ns() < fix.ring->storm.look_at)
		;
	assert_false(io_arm(&fix.lane));
	assert_int_not_equal(io_sleep_ns(&fix.lane), 0);
	fix_complete_all();
	assert_int_equal(fix_status(2), 0);
}

/* --- Durability ------------------------------------------------------------------- */

/* A flush that came while another ran needs one of its own; those that wait
 * share it. */
static void test_flush(void **state)
{
	(void)state;
	fix_rw(FLUSH, 1, 0, 0, 0);
	fix_run();
	assert_int_equal(fix.nr_queue, 1);
	fix_rw(FLUSH, 2, 0, 0, 0);
	fix_rw(FLUSH, 3, 0, 0, 0);
	fix_run();
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	assert_int_equal(fix_status(1), 0);
	assert_int_equal(fix_status(2), 99);
	assert_int_equal(fix.nr_queue, 1);
	fix_complete(0, 0);
	assert_int_equal(fix_status(2), 0);
	assert_int_equal(fix_status(3), 0);
	assert_int_equal(fix_count(FIX_SUBMIT), 2);
}

static void test_no_flush_needed(void **state)
{
	(void)state;
	fix.limits.flush = false;
	fix_rw(FLUSH, 1, 0, 0, 0);
	fix_rw(FLUSH, 2, 0, 10, 1);
	fix_run();
	fix_complete_all();
	assert_int_equal(fix_status(1), 0);
	assert_int_equal(fix_status(2), 0);
	assert_int_equal(fix_count(FIX_SUBMIT), 1);
}

static void test_flush_with_data(void **state)
{
	(void)state;
	fix_rw(FLUSH, 1, 0, 10, 1);
	fix_run();
	assert_int_equal(fix.queue[0]->op, XD_FLUSH);
	fix_complete(0, 0);
	assert_int_equal(fix.queue[0]->op, XD_WRITE);
	fix_complete(0, 0);
	assert_int_equal(fix.queue[0]->op, XD_FLUSH);
	assert_int_equal(fix_status(1), 99);
	fix_complete(0, 0);
	assert_int_equal(fix_status(1), 0);
}

/* Marked first, then answered; no flush succeeds any more, no write is taken,
 * reads are served; until the operator accepts it. */
static void test_failed_flush(void **state)
{
	(void)state;
	fix_rw(FLUSH, 1, 0, 0, 0);
	fix_run();
	fix_rw(FLUSH, 2, 0, 0, 0);
	fix_run();
	fix_complete(0, -EIO);
	assert_int_equal(fix_status(1), -3);
	assert_int_equal(fix_status(2), -3);
	assert_int_equal(fix_count(FIX_SUBMIT), 1); /* not tried again */
	assert_true(fix_when(FIX_MARK, 0) < fix_when(FIX_RESPONSE, FLUSH));
	assert_int_equal(
		fix.events[fix_when(FIX_CONDITION, MSG_POISONED)].offset, 1);
	fix_rw(WRITE, 3, 0, 10, 1);
	fix_discard(4, 0, 8);
	fix_rw(FLUSH, 5, 0, 0, 0);
	fix_rw(READ, 6, 0, 10, 1);
	fix_rw(FLUSH, 7, 0, 10, 1);
	fix_run();
	fix_complete_all();
	assert_int_equal(fix_status(3), -1);
	assert_int_equal(fix_status(4), -1);
	assert_int_equal(fix_status(5), -3);
	assert_int_equal(fix_status(6), 0);
	assert_int_equal(fix_status(7), -3);
	fix_forget_events();
	flush_forgive(&fix.disk);
	assert_int_equal(
		fix.events[fix_when(FIX_CONDITION, MSG_POISONED)].offset, 0);
	fix_rw(WRITE, 8, 0, 10, 1);
	fix_rw(FLUSH, 9, 0, 0, 0);
	fix_run();
	fix_complete_all();
	assert_int_equal(fix_status(8), 0);
	assert_int_equal(fix_status(9), 0);
}

/* Linux before 6.11 sends no flush any more after one that failed: its writes
 * are made safe without. */
static void test_write_through(void **state)
{
	(void)state;
	fix_rw(FLUSH, 1, 0, 0, 0);
	fix_run();
	fix_complete(0, -EIO);
	flush_forgive(&fix.disk);
	fix_rw(WRITE, 2, 0, 10, 1);
	fix_run();
	assert_int_equal(fix.queue[0]->op, XD_WRITE);
	fix_complete(0, 0);
	assert_int_equal(fix_status(2), 99);
	assert_int_equal(fix.queue[0]->op, XD_FLUSH);
	fix_complete(0, 0);
	assert_int_equal(fix_status(2), 0);
	fix_die_and_recover(); /* the next worker knows */
	fix_discard(3, 0, 8);
	fix_run();
	fix_complete(0, 0);
	assert_int_equal(fix_status(3), 99);
	fix_complete(0, -EIO);
	assert_int_equal(fix_status(3), -3);
}

/* Even "no space" from a flush means that data is lost. */
static void test_flush_is_never_retried(void **state)
{
	static const int errs[] = { -ENOSPC, -EDQUOT, -ENOMEM, -EIO };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(errs); i++) {
		fix_forget_events();
		flush_forgive(&fix.disk);
		fix_rw(FLUSH, i, 0, 0, 0);
		fix_run();
		fix_complete(0, errs[i]);
		assert_int_equal(fix_status(i), -3);
		assert_int_equal(fix_count(FIX_SUBMIT), 1);
	}
}

static void test_mark_cannot_be_made(void **state)
{
	(void)state;
	fix.mark_result = -ECONNRESET;
	fix_rw(FLUSH, 1, 0, 0, 0);
	fix_run();
	fix_complete(0, -EIO);
	fix_run();
	assert_int_equal(fix_responses(1), 0);
	assert_int_equal(fix_count(FIX_MARK), 1); /* not in a busy loop */
	fix.mark_result = 0;
	fix.lane.flush.mark_at = 1;
	fix_run();
	assert_int_equal(fix_status(1), -3);
}

/* Its own attempt would be due for ever, and the lane would never sleep. */
static void test_mark_made_by_another_lane(void **state)
{
	(void)state;
	fix.mark_result = -ECONNRESET;
	fix_rw(FLUSH, 1, 0, 0, 0);
	fix_run();
	fix_complete(0, -EIO);
	fix.lane.flush.mark_at = 1;
	assert_int_equal(io_sleep_ns(&fix.lane), 0);
	atomic_store(&fix.disk.poison, IO_POISONED);
	fix_run();
	assert_int_equal(fix_status(1), -3);
	assert_true(io_sleep_ns(&fix.lane) > 0);
}

/* The kernel tells of a lost write once; the worker that heard it dies before
 * it is on record. */
static void test_failed_flush_and_death(void **state)
{
	(void)state;
	fix.mark_result = -ECONNRESET;
	fix_rw(FLUSH, 1, 0, 0, 0);
	fix_run();
	fix_complete(0, -EIO);
	fix.mark_result = 0;
	fix_die_and_recover();
	assert_int_equal(fix.nr_queue, 0); /* no flush is believed */
	assert_int_equal(fix_status(1), -3);
	assert_int_equal(fix_count(FIX_MARK), 2);
}

static void test_flush_error_hold(void **state)
{
	(void)state;
	fix.policy.flush_error = FLUSH_ERROR_HOLD;
	fix_rw(FLUSH, 1, 0, 0, 0);
	fix_run();
	fix_complete(0, -EIO);
	fix_rw(FLUSH, 2, 0, 0, 0);
	fix_run();
	assert_int_equal(fix_count(FIX_RESPONSE), 0);
	assert_int_equal(fix_count(FIX_MARK), 1);
	flush_forgive(&fix.disk);
	fix_run();
	assert_int_equal(fix.nr_queue, 1); /* tried anew */
	fix_complete_all();
	assert_int_equal(fix_status(1), 0);
	assert_int_equal(fix_status(2), 0);
}

/* --- Errors that pass --------------------------------------------------------------- */

static void test_hold(void **state)
{
	(void)state;
	fix_fill(10, 1, 0x44);
	fix_rw(WRITE, 1, 0, 10, 1);
	fix_rw(WRITE, 2, 80, 10, 1);
	fix_run();
	fix_complete(0, -ENOSPC);
	fix_complete(0, -ENOSPC);
	assert_int_equal(fix_count(FIX_RESPONSE), 0);
	assert_int_equal(fix_count(FIX_CONDITION), 1);
	assert_int_equal(fix.nr_queue, 0); /* not yet */
	assert_true(io_sleep_ns(&fix.lane) <= 100000000);
	fix_rw(WRITE, 3, 0, 20, 1); /* overlaps what is held */
	fix_rw(READ, 4, 0, 30, 1);
	fix_run();
	assert_int_equal(fix.nr_queue, 1); /* the read */
	fix_complete_all();
	fix_forget_events();

	fix.lane.resume = true; /* as RESUME does */
	fix_run();
	assert_int_equal(fix.nr_queue, 2);
	fix_complete(0, -ENOSPC); /* still */
	assert_int_equal(fix_count(FIX_CONDITION), 0);
	fix_complete(0, 0);
	assert_int_equal(fix_status(2), 0);
	fix_run(); /* it works again: the other one at once */
	fix_complete_all();
	assert_int_equal(fix_status(1), 0);
	assert_int_equal(fix_status(3), 0);
	assert_int_equal(fix_count(FIX_CONDITION), 1);
	assert_int_equal(fix.events[fix_when(FIX_CONDITION, MSG_PAUSED)].offset,
			 0);
}

static void test_report(void **state)
{
	(void)state;
	fix.policy.on_error = ON_ERROR_REPORT;
	fix_rw(WRITE, 1, 0, 10, 1);
	fix_run();
	fix_complete(0, -ENOSPC);
	assert_int_equal(fix_status(1), -1);
	assert_int_equal(fix_count(FIX_CONDITION), 0);
}

static void test_other_error(void **state)
{
	(void)state;
	fix_rw(WRITE, 1, 0, 10, 1);
	fix_rw(READ, 2, 80, 10, 1);
	fix_run();
	fix_complete(0, -EIO);
	fix_complete(0, -EIO);
	assert_int_equal(fix_status(1), -1);
	assert_int_equal(fix_status(2), -1);
}

/* First the lane's own memory, then the guest's pages that are mapped and not used;
 * beside a request not before that takes long, or if it is held. */
static void test_idle(void **state)
{
	(void)state;
	fix_rw(WRITE, 1, 0, 10, 1);
	fix_run();
	fix.idle_ns = 1;
	assert_int_equal(io_sleep_ns(&fix.lane), 200000000);
	fix.idle_ns = 300000000;
	assert_int_equal(io_sleep_ns(&fix.lane), 300000000);
	fix.idle_ns = 1;
	fix_complete(0, -ENOSPC);
	assert_int_equal(io_sleep_ns(&fix.lane), 1);
	while (fix.nr_queue == 0)
		fix_run();
	fix_complete_all();
	fix.idle_ns = 30000000000;
	assert_int_equal(io_sleep_ns(&fix.lane), 2000000000);
	io_idle(&fix.lane);
	assert_int_equal(fix_count(FIX_IDLE), 0);
	assert_int_equal(io_sleep_ns(&fix.lane), 30000000000);
	io_idle(&fix.lane);
	assert_int_equal(fix_count(FIX_IDLE), 1);
	fix_rw(WRITE, 2, 0, 10, 1);
	fix_run();
	fix_complete_all();
	fix.idle_ns = 1;
	assert_int_equal(io_sleep_ns(&fix.lane), 1);
	io_idle(&fix.lane);
	assert_int_equal(fix_count(FIX_IDLE), 2);
	fix.idle_ns = 0;
	assert_int_equal(io_sleep_ns(&fix.lane), 2000000000);
	io_idle(&fix.lane);
	assert_true(io_sleep_ns(&fix.lane) == UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IO_TEST(test_write_read),
		IO_TEST(test_indirect),
		IO_TEST(test_lent_memory),
		IO_TEST(test_burst),
		IO_TEST(test_rounds),
		IO_TEST(test_large_rounds),
		IO_TEST(test_bad_grant),
		IO_TEST(test_memory_is_short),
		IO_TEST(test_memory_becomes_free),
		IO_TEST(test_short_transfers),
		IO_TEST(test_discard),
		IO_TEST(test_overrun),
		IO_TEST(test_overlap),
		IO_TEST(test_order_of_arrival),
		IO_TEST(test_barrier),
		IO_TEST(test_bad_barrier),
		IO_TEST(test_barrier_after_nonsense),
		IO_TEST(test_flush),
		IO_TEST(test_no_flush_needed),
		IO_TEST(test_flush_with_data),
		IO_TEST(test_failed_flush),
		IO_TEST(test_write_through),
		IO_TEST(test_flush_is_never_retried),
		IO_TEST(test_mark_cannot_be_made),
		IO_TEST(test_mark_made_by_another_lane),
		IO_TEST(test_failed_flush_and_death),
		IO_TEST(test_flush_error_hold),
		IO_TEST(test_hold),
		IO_TEST(test_report),
		IO_TEST(test_other_error),
		IO_TEST(test_idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
