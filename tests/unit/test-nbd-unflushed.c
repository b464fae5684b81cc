/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What becomes of writes that the server has answered and no flush has covered,
 * when it comes back without them: unflushed=keep sends them again, check
 * notices, trust does neither.  Also when the worker dies with the server.
 */
#include "config.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"
#include "nbd-mutant.h"
#include "rig.h"

#define SIZE (4u << 20)
/* Of fingerprints (nbd-recall.c). */
#define PLACES 1024u
#define BLOCK  4096u
#define URI    "\"nbd+unix:///?socket=@/sock\", fence=0s"
#define KEEP   "nbd(" URI ", unflushed=keep, keep-limit=1M)"
#define CHECK  "nbd(" URI ")"
#define TRUST  "nbd(" URI ", unflushed=trust)"

static unsigned char content[SIZE];
static unsigned char buf[256u << 10];

struct test {
	struct rig rig;
	struct mutant mutant;
};

static void begin_with(struct test *t, uint64_t size)
{
	rig_new(&t->rig, true);
	mutant_start(&t->mutant, rig_file(&t->rig, "sock", 0), size);
	memset(content, 0, SIZE);
}

static void begin(struct test *t)
{
	begin_with(t, SIZE);
}

static void must_open(struct test *t, unsigned int lanes,
		      const char *expression)
{
	if (rig_open(&t->rig, lanes, expression) < 0)
		fail_msg("%s", t->rig.why);
}

static void end(struct test *t)
{
	rig_free(&t->rig);
	mutant_stop(&t->mutant);
}

static int fill(struct test *t, uint32_t flags, uint64_t offset,
		uint64_t length, int byte)
{
	memset(buf, byte, length);
	return rig_io(&t->rig, 0, XD_WRITE, flags, offset, length, buf);
}

static int first_byte(struct test *t, uint64_t offset)
{
	assert_int_equal(rig_io(&t->rig, 0, XD_READ, 0, offset, 512, buf), 0);
	return buf[0];
}

static int flush(struct test *t)
{
	return rig_io(&t->rig, 0, XD_FLUSH, 0, 0, 0, NULL);
}

/* --- Under load ------------------------------------------------------------------ */

struct load {
	struct rig_model model;
	pthread_t thread;
	unsigned int wrong;
};

static void *run_load(void *arg)
{
	struct load *load = arg;

	load->wrong = rig_model_run(&load->model);
	return NULL;
}

static void start_load(struct load *load, struct test *t, unsigned int lane,
		       unsigned int lanes, unsigned int bursts)
{
	load->model = (struct rig_model){ .rig = &t->rig,
					  .lane = lane,
					  .seed = 11 + lane,
					  .bursts = bursts,
					  .share = lanes,
					  .content = content };
	assert_int_equal(pthread_create(&load->thread, NULL, run_load, load),
			 0);
}

/* The server dies and comes back, less and less often, until the load is over.
 * Returns how often. */
static unsigned int harass(struct test *t, struct load *load, bool forgets)
{
	unsigned int times = 0;

	while (pthread_tryjoin_np(load->thread, NULL) != 0) {
		(void)usleep(10000 + times * 10000);
		mutant_restart(&t->mutant, forgets);
		times++;
	}
	return times;
}

static void kept_under_load(struct test *t)
{
	struct load load;

	start_load(&load, t, 0, 1, 150);
	assert_true(harass(t, &load, true) > 2);
	assert_int_equal(load.wrong, 0);
	/* More was written than there is room for. */
	assert_true(t->mutant.asked[MUTANT_CMD_FLUSH] > 0);
	assert_int_equal(t->mutant.unaligned, 0);
	assert_int_equal(flush(t), 0);
}

static void keep_under_load(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, KEEP);
	assert_int_equal(stack_limits(t.rig.stack)->max_channels, 1);
	assert_int_equal(stack_limits(t.rig.stack)->max_transfer, 256 << 10);
	kept_under_load(&t);
	end(&t);
}

static void keep_blocks_under_load(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	t.mutant.minimum = t.mutant.preferred = 4096;
	t.mutant.maximum = 65536;
	must_open(&t, 1, KEEP);
	kept_under_load(&t);
	end(&t);
}

/* Without it the same server's loss is the guest's. */
static void trusted_under_load(void **state)
{
	struct load load;
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, TRUST);
	start_load(&load, &t, 0, 1, 100);
	assert_true(harass(&t, &load, true) > 1);
	assert_true(load.wrong > 0);
	assert_int_equal(flush(&t), 0);
	end(&t);
}

/* A server that forgets nothing raises no alarm, whoever writes meanwhile. */
static void no_false_alarm(void **state)
{
	struct load loads[3];
	struct test t;

	(void)state;
	begin(&t);
	t.mutant.flags |= MUTANT_MULTI_CONN;
	must_open(&t, 3, CHECK);
	for (unsigned int i = 0; i < 3; i++)
		start_load(&loads[i], &t, i, 3, 200);
	assert_true(harass(&t, &loads[0], false) > 2);
	for (unsigned int i = 1; i < 3; i++)
		pthread_join(loads[i].thread, NULL);
	assert_int_equal(loads[0].wrong + loads[1].wrong + loads[2].wrong, 0);
	assert_int_equal(flush(&t), 0);
	end(&t);
}

/* --- One write ---------------------------------------------------------------------- */

/* What a write of 8 KiB at an odd place, and then a flush, come to when the
 * server dies in between. */
static void one_write(const char *expression, bool flushed, bool forgets,
		      int byte, int err)
{
	struct test t;

	begin(&t);
	must_open(&t, 1, expression);
	assert_int_equal(fill(&t, 0, 512, 8192, 'A'), 0);
	if (flushed)
		assert_int_equal(flush(&t), 0);
	mutant_restart(&t.mutant, forgets);
	assert_int_equal(first_byte(&t, 4096), byte);
	assert_int_equal(flush(&t), err);
	/* That is told once. */
	assert_int_equal(flush(&t), 0);
	mutant_restart(&t.mutant, forgets);
	assert_int_equal(first_byte(&t, 4096), byte);
	assert_int_equal(flush(&t), 0);
	end(&t);
}

static void what_one_write_comes_to(void **state)
{
	(void)state;
	one_write(KEEP, false, true, 'A', 0);
	one_write(KEEP, true, true, 'A', 0);
	one_write(CHECK, false, true, 0, -EREMOTEIO);
	one_write(CHECK, false, false, 'A', 0);
	one_write(CHECK, true, true, 'A', 0);
	one_write(TRUST, false, true, 0, 0);
}

/* Blocks that the server says, and enforces: at first, and when it comes back. */
static int loss_with_blocks(const uint32_t before[3], const uint32_t after[3],
			    bool forgets)
{
	struct test t;
	int err;

	begin(&t);
	t.mutant.minimum = before[0];
	t.mutant.preferred = before[1];
	t.mutant.maximum = before[2];
	must_open(&t, 1, CHECK);
	assert_int_equal(fill(&t, 0, 12288, BLOCK, 'A'), 0);
	t.mutant.minimum = after[0];
	t.mutant.preferred = after[1];
	t.mutant.maximum = after[2];
	mutant_restart(&t.mutant, forgets);
	assert_int_equal(first_byte(&t, 12288), forgets ? 0 : 'A');
	err = flush(&t);
	assert_int_equal(t.mutant.unaligned, 0);
	end(&t);
	return err;
}

/* Whatever blocks it has, what is recalled is read back. */
static void recall_in_its_blocks(void **state)
{
	static const uint32_t usual[3] = { 512, 4096, 1u << 20 };
	static const uint32_t blocks[][3] = {
		{ 1, 512, 512 },	 { 512, 512, 1024 },
		{ 512, 512, 2560 },	 { 4096, 4096, 4096 },
		{ 16384, 16384, 16384 }, { 65536, 65536, 1u << 20 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(blocks); i++) {
		assert_int_equal(loss_with_blocks(usual, blocks[i], true),
				 -EREMOTEIO);
		assert_int_equal(loss_with_blocks(usual, blocks[i], false), 0);
		assert_int_equal(loss_with_blocks(blocks[i], blocks[i], true),
				 -EREMOTEIO);
		assert_int_equal(loss_with_blocks(blocks[i], blocks[i], false),
				 0);
	}
}

/* Block 0 and the one that has the same place in the table of fingerprints: the other
 * is written so many times; then one of both is zeroed, and so is remembered no more.
 * What does the flush say of a server that has forgotten all? */
static int shared_place(unsigned int writes, bool zero_other)
{
	uint64_t other = (uint64_t)PLACES * BLOCK;
	struct test t;
	int err;

	begin_with(&t, 2 * other);
	must_open(&t, 1, CHECK);
	assert_int_equal(fill(&t, 0, 0, BLOCK, 'A'), 0);
	for (unsigned int i = 0; i < writes; i++)
		assert_int_equal(fill(&t, 0, other, BLOCK, 'B'), 0);
	assert_int_equal(rig_io(&t.rig, 0, XD_ZERO, 0, zero_other ? other : 0,
				BLOCK, NULL),
			 0);
	mutant_restart(&t.mutant, true);
	err = flush(&t);
	end(&t);
	return err;
}

/* The place is the first one's for some writes, and then the other's. */
static void one_place_for_two(void **state)
{
	(void)state;
	assert_int_equal(shared_place(1, true), -EREMOTEIO);
	assert_int_equal(shared_place(1, false), 0);
	assert_int_equal(shared_place(7, false), -EREMOTEIO);
	assert_int_equal(shared_place(7, true), 0);
}

/* What has been changed by others than writes is not missed. */
static void changed_since(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, CHECK);
	assert_int_equal(fill(&t, 0, 0, 4096, 'A'), 0);
	assert_int_equal(rig_io(&t.rig, 0, XD_ZERO, 0, 512, 512, NULL), 0);
	assert_int_equal(fill(&t, 0, 8192, 4096, 'B'), 0);
	assert_int_equal(rig_io(&t.rig, 0, XD_DISCARD, 0, 0, SIZE, NULL), 0);
	assert_int_equal(fill(&t, 0, 16384, 4096, 'C'), 0);
	assert_int_equal(fill(&t, XD_FUA, 16384, 4096, 'D'), 0);
	mutant_restart(&t.mutant, false);
	assert_int_equal(first_byte(&t, 16384), 'D');
	assert_int_equal(flush(&t), 0);
	end(&t);
}

/* An older write does not come back over a newer one that was durable. */
static void keep_order(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, KEEP);
	assert_int_equal(fill(&t, 0, 0, 4096, 'A'), 0);
	assert_int_equal(fill(&t, XD_FUA, 0, 4096, 'B'), 0);
	assert_int_equal(fill(&t, 0, 8192, 4096, 'A'), 0);
	assert_int_equal(fill(&t, 0, 8192, 512, 'B'), 0);
	assert_int_equal(rig_io(&t.rig, 0, XD_ZERO, 0, 8704, 512, NULL), 0);
	mutant_restart(&t.mutant, true);
	assert_int_equal(first_byte(&t, 0), 'B');
	assert_int_equal(first_byte(&t, 8192), 'B');
	assert_int_equal(first_byte(&t, 8704), 0);
	assert_int_equal(first_byte(&t, 9216), 'A');
	end(&t);
}

/* The server's blocks become smaller, and then what they were: what was written
 * meanwhile is taken again. */
static void keep_in_its_blocks(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	t.mutant.minimum = t.mutant.preferred = 4096;
	t.mutant.maximum = 65536;
	must_open(&t, 1, KEEP);
	t.mutant.minimum = t.mutant.preferred = 512;
	mutant_restart(&t.mutant, false);
	assert_int_equal(fill(&t, 0, 512, 1024, 'A'), 0);
	t.mutant.minimum = t.mutant.preferred = 4096;
	mutant_restart(&t.mutant, true);
	assert_int_equal(first_byte(&t, 512), 'A');
	assert_int_equal(flush(&t), 0);
	assert_int_equal(t.mutant.unaligned, 0);
	end(&t);
}

/* What a guest has seen gone does not come back. */
static void keep_discards(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, KEEP);
	assert_int_equal(fill(&t, 0, 0, 16384, 'A'), 0);
	assert_int_equal(rig_io(&t.rig, 0, XD_DISCARD, 0, 4096, 8192, NULL), 0);
	assert_int_equal(fill(&t, 0, 8192, 4096, 'B'), 0);
	assert_int_equal(first_byte(&t, 4096), 0xdd); /* the mutant's */
	mutant_restart(&t.mutant, true);
	assert_int_equal(first_byte(&t, 0), 'A');
	assert_int_equal(first_byte(&t, 4096), 0xdd);
	assert_int_equal(first_byte(&t, 8192), 'B');
	assert_int_equal(first_byte(&t, 12288), 'A');
	assert_int_equal(flush(&t), 0);
	end(&t);
}

/* A server that discards nothing any more has nothing to do. */
static void keep_without_discard(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, KEEP);
	assert_int_equal(fill(&t, 0, 0, 4096, 'A'), 0);
	assert_int_equal(flush(&t), 0);
	assert_int_equal(rig_io(&t.rig, 0, XD_DISCARD, 0, 4096, 4096, NULL), 0);
	t.mutant.flags &= ~MUTANT_TRIM;
	mutant_restart(&t.mutant, true);
	assert_int_equal(first_byte(&t, 0), 'A');
	assert_int_equal(flush(&t), 0);
	end(&t);
}

/* --- The worker dies as well ----------------------------------------------------------- */

static void both_die(struct test *t, const char *expression, bool forgets)
{
	begin(t);
	must_open(t, 1, expression);
	assert_int_equal(fill(t, 0, 0, 4096, 'A'), 0);
	assert_int_equal(flush(t), 0);
	assert_int_equal(fill(t, 0, 65536, 8192, 'B'), 0);
	rig_die(&t->rig);
	mutant_restart(&t->mutant, forgets);
}

static void keep_when_both_die(void **state)
{
	struct test t;

	(void)state;
	both_die(&t, KEEP, true);
	assert_int_equal(rig_recover(&t.rig, 1, KEEP), 0);
	assert_int_equal(first_byte(&t, 0), 'A');
	assert_int_equal(first_byte(&t, 65536), 'B');
	assert_int_equal(first_byte(&t, 73216), 'B');
	assert_int_equal(flush(&t), 0);
	end(&t);
}

/* It was another guest's, or another time: nothing is sent again. */
static void keep_is_for_recovery(void **state)
{
	struct test t;

	(void)state;
	both_die(&t, KEEP, true);
	must_open(&t, 1, KEEP);
	assert_int_equal(first_byte(&t, 65536), 0);
	assert_int_equal(flush(&t), 0);
	end(&t);
}

static void check_when_both_die(void **state)
{
	struct test t;

	(void)state;
	both_die(&t, CHECK, true);
	assert_int_equal(rig_recover(&t.rig, 1, CHECK), 0);
	assert_int_equal(flush(&t), -EREMOTEIO);
	assert_int_equal(flush(&t), 0);
	end(&t);
	both_die(&t, CHECK, false);
	assert_int_equal(rig_recover(&t.rig, 1, CHECK), 0);
	assert_int_equal(flush(&t), 0);
	end(&t);
}

/* Kept state that makes no sense: the loss is not hidden, and nothing else is
 * harmed. */
static void damaged(const char *name, const char *expression, off_t at,
		    size_t length, int byte, int err)
{
	struct test t;
	int fd;

	both_die(&t, expression, true);
	fd = open(rig_kept(&t.rig, 0, name), O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	memset(buf, byte, length);
	assert_int_equal(pwrite(fd, buf, length, at), (ssize_t)length);
	(void)close(fd);
	if (rig_recover(&t.rig, 1, expression) < 0)
		fail_msg("%s", t.rig.why);
	assert_int_equal(first_byte(&t, 0), 'A');
	assert_int_equal(flush(&t), err);
	assert_int_equal(fill(&t, 0, 0, 4096, 'C'), 0);
	assert_int_equal(flush(&t), 0);
	end(&t);
}

static void damaged_state(void **state)
{
	(void)state;
	damaged("unflushed", KEEP, 0, 8, 0xff, -EREMOTEIO);
	damaged("unflushed", KEEP, 8, 8, 0xff, -EREMOTEIO);
	damaged("unflushed", KEEP, 16, 8, 0xff, -EREMOTEIO);
	damaged("unflushed", KEEP, 24, 8, 0xff, -EREMOTEIO);
	damaged("unflushed", KEEP, 65536, 65536, 0x55, -EREMOTEIO);
	damaged("recall", CHECK, 0, 4096, 0xff, 0);
	damaged("recall", CHECK, 8, 16384, 0x55, 0);
}

/* --- Servers that do not take it back ------------------------------------------------------ */

static void run_until_it_shows(struct test *t, const char *reason)
{
	for (unsigned int i = 0; i < 4000; i++) {
		if (strstr(fake_broker_state(t->rig.broker)->condition, reason))
			return;
		assert_true(engine_run(t->rig.engine[0], 5000000) >= 0);
		(void)stack_reap(t->rig.top[0]);
	}
	fail_msg("no \"%s\"", reason);
}

static void refused_again(void **state)
{
	struct rig_op op;
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, KEEP);
	assert_int_equal(fill(&t, 0, 0, 4096, 'A'), 0);
	t.mutant.error[MUTANT_CMD_WRITE] = 5;
	mutant_restart(&t.mutant, true);
	assert_int_equal(first_byte(&t, 0), 0);
	assert_int_equal(flush(&t), -EREMOTEIO);
	t.mutant.error[MUTANT_CMD_WRITE] = 0;
	assert_int_equal(flush(&t), 0);

	/* ... but without space it is tried again. */
	assert_int_equal(fill(&t, 0, 0, 4096, 'A'), 0);
	t.mutant.error[MUTANT_CMD_WRITE] = 28;
	mutant_restart(&t.mutant, true);
	rig_start(&t.rig, 0, &op, XD_READ, 0, 0, 512, buf);
	run_until_it_shows(&t, "take again");
	assert_false(op.done);
	t.mutant.error[MUTANT_CMD_WRITE] = 0;
	rig_wait(&t.rig, 0, &op, 1);
	assert_int_equal(buf[0], 'A');
	assert_int_equal(flush(&t), 0);
	end(&t);
}

/* More than there is room for, while the server refuses to flush. */
static void force_a_flush_that_fails(struct test *t)
{
	begin(t);
	must_open(t, 1, KEEP);
	t->mutant.error[MUTANT_CMD_FLUSH] = 5;
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(fill(t, 0, i << 18, 256 << 10, 'A'), 0);
	assert_true(t->mutant.asked[MUTANT_CMD_FLUSH] > 0);
	t->mutant.error[MUTANT_CMD_FLUSH] = 0;
}

/* The flush that makes room fails: the guest's next one is told. */
static void forced_flush_fails(void **state)
{
	struct test t;

	(void)state;
	force_a_flush_that_fails(&t);
	assert_int_equal(flush(&t), -EREMOTEIO);
	assert_int_equal(flush(&t), 0);
	end(&t);
}

/* ... also if the worker has died in between. */
static void forced_flush_fails_and_worker_dies(void **state)
{
	struct test t;

	(void)state;
	force_a_flush_that_fails(&t);
	rig_die(&t.rig);
	assert_int_equal(rig_recover(&t.rig, 1, KEEP), 0);
	assert_int_equal(flush(&t), -EREMOTEIO);
	assert_int_equal(flush(&t), 0);
	end(&t);
}

/* The server is away, and does not come back in time for the last flush. */
static void leave_without_server(struct test *t)
{
	run_until_it_shows(t, "no export named");
	stack_stop(t->rig.top[0]);
	(void)stack_reap(t->rig.top[0]);
	assert_int_equal(flush(t), -ENOTCONN);
	end(t);
}

/* ... and the guest goes without another one, when all that it has written was in
 * the one that failed: the server answers that, and dies of the next write. */
static void forced_flush_fails_and_guest_goes(void **state)
{
	struct rig_op op;
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, KEEP);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(fill(&t, 0, i << 18, 256 << 10, 'A'), 0);
	t.mutant.error[MUTANT_CMD_FLUSH] = 5;
	t.mutant.fault_every = 2;
	t.mutant.greeting = GREET_REFUSED;
	rig_start(&t.rig, 0, &op, XD_WRITE, 0, 0, 256 << 10, buf);
	leave_without_server(&t);
	assert_int_equal(op.err, -ECANCELED);
}

/* An older write is sent again over a newer one, and that after it; both were
 * durable, and neither is any more if the server dies in between. */
static void sent_again_and_guest_goes(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, KEEP);
	assert_int_equal(fill(&t, XD_FUA, 0, 4096, 'A'), 0);
	assert_int_equal(fill(&t, XD_FUA, 0, 4096, 'B'), 0);
	mutant_restart(&t.mutant, true);
	assert_int_equal(first_byte(&t, 0), 'B');
	t.mutant.greeting = GREET_REFUSED;
	mutant_restart(&t.mutant, true);
	leave_without_server(&t);
}

/* --- What is refused ------------------------------------------------------------------------- */

static void refusals(void **state)
{
	static const struct {
		const char *expression;
		unsigned int flags;
		int64_t memory;
		const char *why;
	} cases[] = {
		{ KEEP, MUTANT_HAS_FLAGS, INT64_MAX, "knows no flush" },
		{ KEEP, MUTANT_ALL, 4096, "no more is left" },
		{ "nbd(" URI ", unflushed=keep, keep-limit=64K)", MUTANT_ALL,
		  INT64_MAX, "1M at least" },
		{ "nbd(" URI ", unflushed=keep, keep-limit=17G)", MUTANT_ALL,
		  INT64_MAX, "16G at most" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct test t;

		begin(&t);
		t.mutant.flags = cases[i].flags;
		rig_limit(&t.rig, cases[i].memory, 0);
		assert_true(rig_open(&t.rig, 1, cases[i].expression) < 0);
		if (!strstr(t.rig.why, cases[i].why))
			fail_msg("%zu: %s", i, t.rig.why);
		end(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keep_under_load),
		cmocka_unit_test(keep_blocks_under_load),
		cmocka_unit_test(trusted_under_load),
		cmocka_unit_test(no_false_alarm),
		cmocka_unit_test(what_one_write_comes_to),
		cmocka_unit_test(recall_in_its_blocks),
		cmocka_unit_test(one_place_for_two),
		cmocka_unit_test(changed_since),
		cmocka_unit_test(keep_order),
		cmocka_unit_test(keep_in_its_blocks),
		cmocka_unit_test(keep_discards),
		cmocka_unit_test(keep_without_discard),
		cmocka_unit_test(keep_when_both_die),
		cmocka_unit_test(keep_is_for_recovery),
		cmocka_unit_test(check_when_both_die),
		cmocka_unit_test(damaged_state),
		cmocka_unit_test(refused_again),
		cmocka_unit_test(forced_flush_fails),
		cmocka_unit_test(forced_flush_fails_and_worker_dies),
		cmocka_unit_test(forced_flush_fails_and_guest_goes),
		cmocka_unit_test(sent_again_and_guest_goes),
		cmocka_unit_test(refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
