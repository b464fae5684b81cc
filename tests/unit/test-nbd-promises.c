/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What xendisk-nbd(7) promises, against a server of our own that can be told
 * what to do wrong: what it is asked for, handshakes and replies that go wrong,
 * and servers that come back different.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"
#include "nbd-mutant.h"
#include "rig.h"

#define SIZE (4u << 20)
#define URI  "\"nbd+unix:///?socket=@/sock\""

static unsigned char content[SIZE];

struct test {
	struct rig rig;
	struct mutant mutant;
};

static void begin(struct test *t)
{
	rig_new(&t->rig, true);
	mutant_start(&t->mutant, rig_file(&t->rig, "sock", 0), SIZE);
	memset(content, 0, SIZE);
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

static int io(struct test *t, enum xd_op op, uint32_t flags, uint64_t offset,
	      uint64_t length, void *buf)
{
	return rig_io(&t->rig, 0, op, flags, offset, length, buf);
}

static unsigned int asked(const struct test *t, enum mutant_command command)
{
	return t->mutant.asked[command];
}

/* For at least so many ms; what is over is over. */
static void run_for(struct test *t, unsigned int ms)
{
	uint64_t until = now_ns() + ms * 1000000ull;

	while (now_ns() < until) {
		assert_true(engine_run(t->rig.engine[0], 5000000) >= 0);
		(void)stack_reap(t->rig.top[0]);
	}
}

static bool shows(struct test *t, const char *reason)
{
	return strstr(fake_broker_state(t->rig.broker)->condition, reason);
}

/* Until the disk is paused, and says so. */
static void run_until_it_shows(struct test *t, const char *reason)
{
	for (unsigned int i = 0; i < 2000 && !shows(t, reason); i++)
		run_for(t, 10);
	if (!shows(t, reason))
		fail_msg("no \"%s\", but \"%s\"", reason,
			 fake_broker_state(t->rig.broker)->condition);
}

/* --- What the server is asked for ------------------------------------------------ */

static void no_time_for_handshakes(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	assert_true(rig_open(&t.rig, 1, "nbd(" URI ", handshake=0s)") < 0);
	assert_non_null(strstr(t.rig.why, "handshake=0s"));
	end(&t);
}

static void what_it_offers_is_used(void **state)
{
	static unsigned char buf[8192];
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, "nbd(" URI ")");
	memset(buf, 'A', sizeof(buf));
	assert_int_equal(io(&t, XD_WRITE, 0, 0, 8192, buf), 0);
	assert_int_equal(t.mutant.fua, 0);
	assert_int_equal(io(&t, XD_WRITE, XD_FUA, 8192, 512, buf), 0);
	assert_int_equal(t.mutant.fua, 1);
	assert_int_equal(io(&t, XD_ZERO, XD_NO_HOLE, 0, 512, NULL), 0);
	assert_int_equal(asked(&t, MUTANT_CMD_ZERO), 1);
	assert_int_equal(t.mutant.no_hole, 1);
	assert_int_equal(io(&t, XD_ZERO, 0, 512, 512, NULL), 0);
	assert_int_equal(t.mutant.no_hole, 1);
	assert_int_equal(io(&t, XD_DISCARD, 0, 4096, 512, NULL), 0);
	assert_int_equal(asked(&t, MUTANT_CMD_TRIM), 1);
	assert_int_equal(io(&t, XD_FLUSH, 0, 0, 0, NULL), 0);
	assert_int_equal(asked(&t, MUTANT_CMD_FLUSH), 1);
	assert_int_equal(mutant_data(&t.mutant)[1023], 0);
	assert_int_equal(mutant_data(&t.mutant)[1024], 'A');
	assert_int_equal(mutant_data(&t.mutant)[4096], 0xdd);
	end(&t);
}

/* The flags that it has; what the disk says it can; how a write arrives. */
static void without_flush(void **state)
{
	static const struct {
		unsigned int flags;
		bool flush, fua;
		unsigned int sent; /* writes that were FUA, of one */
		const char *note;
	} cases[] = {
		{ MUTANT_FLUSH | MUTANT_FUA, true, true, 0, "blocks of" },
		{ MUTANT_FLUSH, true, false, 0, "blocks of" },
		{ MUTANT_FUA, false, true, 1, "every write is FUA" },
		{ 0, false, false, 0, "is taken as durable" },
	};
	unsigned char buf[512] = "";
	struct msg_opened opened;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct test t;

		begin(&t);
		t.mutant.flags = MUTANT_HAS_FLAGS | cases[i].flags;
		must_open(&t, 1, "nbd(" URI ")");
		assert_int_equal(stack_limits(t.rig.stack)->flush,
				 cases[i].flush);
		assert_int_equal(stack_limits(t.rig.stack)->fua, cases[i].fua);
		assert_false(stack_limits(t.rig.stack)->zero);
		assert_int_equal(stack_limits(t.rig.stack)->discard_granularity,
				 0);
		stack_describe(t.rig.stack, &opened);
		assert_non_null(strstr(opened.notes, cases[i].note));
		assert_int_equal(io(&t, XD_WRITE, 0, 0, 512, buf), 0);
		assert_int_equal(t.mutant.fua, cases[i].sent);
		/* The host answers what needs no flush. */
		assert_int_equal(io(&t, XD_FLUSH, 0, 0, 0, NULL), 0);
		assert_int_equal(asked(&t, MUTANT_CMD_FLUSH), cases[i].flush);
		end(&t);
	}
}

static void connections(void **state)
{
	unsigned char buf[512];
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, "nbd(" URI ")");
	assert_int_equal(stack_limits(t.rig.stack)->max_channels, 1);
	assert_int_equal(rig_close(&t.rig), 0);
	t.mutant.flags |= MUTANT_MULTI_CONN;
	must_open(&t, 3, "nbd(" URI ")");
	assert_int_equal(stack_limits(t.rig.stack)->max_channels, 0);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(rig_io(&t.rig, i, XD_READ, 0, 0, 512, buf), 0);
	/* That of the look at the beginning is closed by and by. */
	for (unsigned int i = 0; i < 2000 && t.mutant.connections != 3; i++)
		(void)usleep(5000);
	assert_int_equal(t.mutant.connections, 3);
	end(&t);
}

/* --- Handshakes -------------------------------------------------------------------- */

/* Those that are silent have the less time. */
#define BRIEF "nbd(" URI ", handshake=300ms)"
#define LONG  "nbd(" URI ", handshake=1s)"

static const struct handshake {
	enum mutant_greeting how;
	const char *expression, *why;
} handshakes[] = {
	{ GREET_NOT_AT_ALL, BRIEF, "no answer in the handshake" },
	{ GREET_HALF, BRIEF, "no answer in the handshake" },
	{ GREET_NO_ANSWER, BRIEF, "no answer in the handshake" },
	{ GREET_WRONG_MAGIC, LONG, "magic" },
	{ GREET_WRONG_REPLY, LONG, "magic" },
	{ GREET_REFUSED, LONG, "no export named" },
	{ GREET_NO_INFO, LONG, "has not returned export size" },
	{ GREET_HANG_UP, LONG, "disconnected" },
};

static void bad_handshake(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(handshakes); i++) {
		struct test t;

		begin(&t);
		t.mutant.greeting = handshakes[i].how;
		assert_true(rig_open(&t.rig, 1, handshakes[i].expression) < 0);
		if (!strstr(t.rig.why, handshakes[i].why))
			fail_msg("%zu: %s", i, t.rig.why);
		end(&t);
	}
}

static void too_large(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	t.mutant.size = 1ull << 63;
	assert_true(rig_open(&t.rig, 1, BRIEF) < 0);
	assert_non_null(strstr(t.rig.why, "2^63 bytes or more"));
	end(&t);
}

/* A server that comes back so: the guest waits, with the reason. */
static void bad_handshake_later(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(handshakes); i++) {
		unsigned char buf[512];
		struct rig_op op;
		struct test t;

		begin(&t);
		must_open(&t, 1, LONG);
		assert_int_equal(io(&t, XD_READ, 0, 0, 512, buf), 0);
		t.mutant.greeting = handshakes[i].how;
		mutant_restart(&t.mutant, false);
		rig_start(&t.rig, 0, &op, XD_READ, 0, 0, 512, buf);
		run_until_it_shows(&t, handshakes[i].why);
		assert_false(op.done);
		t.mutant.greeting = GREET_WELL;
		mutant_restart(&t.mutant, false);
		rig_wait(&t.rig, 0, &op, 1);
		assert_int_equal(op.err, 0);
		end(&t);
	}
}

/* --- Replies -------------------------------------------------------------------------- */

static unsigned int wrong_after(struct test *t, unsigned int bursts)
{
	struct rig_model model = { .rig = &t->rig,
				   .seed = 3,
				   .bursts = bursts,
				   .share = 1,
				   .content = content };

	return rig_model_run(&model);
}

/* Cut in the head, in the data, nonsense, none at all, "I shut down": each is a
 * connection that is lost, and the guest does not notice. */
static void bad_replies(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, "nbd(" URI ", fence=0s)");
	t.mutant.fault_every = 97;
	assert_int_equal(wrong_after(&t, 120), 0);
	assert_true(t.mutant.faults > MUTANT_NR_REPLIES);
	assert_true(t.mutant.greeted > t.mutant.faults / 2);
	end(&t);
}

/* The same notices when something is lost with the connection. */
static void bad_replies_and_loss(void **state)
{
	struct test t;
	unsigned char buf[512];

	(void)state;
	begin(&t);
	t.mutant.flags &= ~MUTANT_TRIM;
	must_open(&t, 1, "nbd(" URI ", fence=0s, unflushed=trust)");
	memset(buf, 'A', sizeof(buf));
	assert_int_equal(io(&t, XD_WRITE, 0, 0, 512, buf), 0);
	memset(content, 'A', 512);
	assert_int_equal(wrong_after(&t, 20), 0);
	mutant_restart(&t.mutant, true);
	assert_true(wrong_after(&t, 60) > 0);
	end(&t);
}

/* "That is all", without some of the data: of no use to the guest, and nothing that
 * is written back. */
static void reads_without_data(void **state)
{
	static const enum mutant_chunks kinds[] = { CHUNKS_NO_DATA,
						    CHUNKS_HALF };
	static unsigned char buf[8192];

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(kinds); i++) {
		struct test t;

		begin(&t);
		t.mutant.chunks = CHUNKS_WELL;
		t.mutant.minimum = t.mutant.preferred = i % 2 ? 4096 : 1;
		t.mutant.maximum = 65536;
		must_open(&t, 1, "nbd(" URI ")");
		assert_int_equal(io(&t, XD_READ, 0, 512, 4096, buf), 0);
		t.mutant.chunks = kinds[i / 2];
		assert_int_equal(io(&t, XD_READ, 0, 512, 4096, buf), -EIO);
		assert_int_equal(io(&t, XD_WRITE, 0, 512, 4096, buf),
				 i % 2 ? -EIO : 0);
		assert_int_equal(asked(&t, MUTANT_CMD_WRITE) > 0, !(i % 2));
		t.mutant.chunks = CHUNKS_WELL;
		assert_int_equal(io(&t, XD_WRITE, 0, 512, 4096, buf), 0);
		assert_int_equal(io(&t, XD_READ, 0, 512, 4096, buf), 0);
		end(&t);
	}
}

/* A reply without end does not keep the disk's thread from all else.  (What a socket
 * holds, and the mutant's buffer, are 20,000 chunks.) */
static void reads_without_end(void **state)
{
	unsigned char buf[512];
	struct rig_op op;
	struct test t;

	(void)state;
	begin(&t);
	t.mutant.chunks = CHUNKS_ENDLESS;
	must_open(&t, 1, "nbd(" URI ")");
	rig_start(&t.rig, 0, &op, XD_READ, 0, 0, sizeof(buf), buf);
	while (t.mutant.endless < 1000000) {
		unsigned int before = t.mutant.endless;

		assert_true(engine_run(t.rig.engine[0], 5000000) >= 0);
		assert_true(t.mutant.endless - before < 50000);
	}
	assert_false(op.done);
	t.mutant.chunks = CHUNKS_WELL;
	rig_wait(&t.rig, 0, &op, 1);
	assert_int_equal(op.err, -EIO); /* more than was asked for */
	end(&t);
}

static void errors(void **state)
{
	static const struct {
		uint32_t said;
		int err;
	} cases[] = {
		{ 1, -EPERM },	  { 5, -EIO },	      { 12, -ENOMEM },
		{ 22, -EINVAL },  { 28, -ENOSPC },    { 75, -EOVERFLOW },
		{ 95, -ENOTSUP }, { 12345, -EINVAL },
	};
	static const enum mutant_command commands[] = { MUTANT_CMD_READ,
							MUTANT_CMD_WRITE,
							MUTANT_CMD_FLUSH };
	static const enum xd_op ops[] = { XD_READ, XD_WRITE, XD_FLUSH };
	unsigned char buf[512] = "";
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, "nbd(" URI ")");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (size_t k = 0; k < ARRAY_SIZE(commands); k++) {
			uint64_t length = ops[k] == XD_FLUSH ? 0 : 512;

			t.mutant.error[commands[k]] = cases[i].said;
			assert_int_equal(io(&t, ops[k], 0, 0, length, buf),
					 cases[i].err);
			t.mutant.error[commands[k]] = 0;
			assert_int_equal(io(&t, ops[k], 0, 0, length, buf), 0);
		}
	assert_int_equal(t.mutant.greeted, 2);
	end(&t);
}

/* A request has no time limit; it, and a flush, are done when the server says
 * so, on whichever connection, and not before. */
static void silent(void **state)
{
	unsigned char buf[512] = "x";
	struct rig_op ops[2];
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, LONG);
	assert_int_equal(io(&t, XD_READ, 0, 0, 512, buf), 0);
	t.mutant.silent = true;
	rig_start(&t.rig, 0, &ops[0], XD_WRITE, 0, 0, 512, buf);
	rig_start(&t.rig, 0, &ops[1], XD_FLUSH, 0, 0, 0, NULL);
	stack_kick(t.rig.top[0]);
	run_for(&t, 1300);
	assert_false(ops[0].done);
	assert_false(ops[1].done);
	assert_int_equal(asked(&t, MUTANT_CMD_FLUSH), 1);
	t.mutant.silent = false;
	run_for(&t, 100);
	assert_false(ops[1].done);
	mutant_restart(&t.mutant, false);
	rig_wait(&t.rig, 0, ops, 2);
	assert_int_equal(ops[0].err, 0);
	assert_int_equal(ops[1].err, 0);
	assert_int_equal(asked(&t, MUTANT_CMD_FLUSH), 2);
	end(&t);
}

/* One that shakes hands and hangs up at the first request is called again with pauses
 * before long; and at once when it has been of use again. */
static void of_no_use(void **state)
{
	unsigned char buf[512] = "x";
	unsigned int greeted;
	struct rig_op op;
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, LONG);
	assert_int_equal(io(&t, XD_READ, 0, 0, 512, buf), 0);
	greeted = t.mutant.greeted;
	t.mutant.fault_every = 1;
	rig_start(&t.rig, 0, &op, XD_READ, 0, 0, 512, buf);
	stack_kick(t.rig.top[0]);
	run_for(&t, 600);
	assert_false(op.done);
	assert_true(t.mutant.greeted > greeted + 1);
	/* About 12; without pauses it is hundreds. */
	assert_true(t.mutant.greeted < greeted + 100);
	t.mutant.fault_every = 0;
	rig_wait(&t.rig, 0, &op, 1);
	assert_int_equal(op.err, 0);
	greeted = t.mutant.greeted;
	mutant_restart(&t.mutant, false);
	for (unsigned int i = 0; i < 100 && t.mutant.greeted == greeted; i++)
		run_for(&t, 10);
	assert_int_equal(t.mutant.greeted, greeted + 1);
	end(&t);
}

/* It answers one request, and hangs up at the next: the guest gets on, and the host
 * does not make connections as fast as it can. */
static void of_little_use(void **state)
{
	unsigned char buf[512];
	unsigned int greeted, brief;
	struct test t;
	uint64_t begun;

	(void)state;
	begin(&t);
	must_open(&t, 1, "nbd(" URI ")");
	t.mutant.fault_every = 2;
	greeted = t.mutant.greeted;
	begun = now_ns();
	while (now_ns() - begun < 1500000000ull)
		assert_int_equal(io(&t, XD_READ, 0, 0, 512, buf), 0);
	brief = t.mutant.greeted - greeted;
	assert_true(brief > 20);
	/* About 50, without pauses hundreds. */
	assert_true(brief < 50 + (now_ns() - begun) / 50000000);
	end(&t);
}

/* --- A server that comes back different -------------------------------------------------- */

static void set_read_only(struct mutant *mutant)
{
	mutant->flags |= MUTANT_READ_ONLY;
}

static void no_flush(struct mutant *mutant)
{
	mutant->flags &= ~MUTANT_FLUSH;
}

static void no_fua(struct mutant *mutant)
{
	mutant->flags &= ~MUTANT_FUA;
}

static void no_zero(struct mutant *mutant)
{
	mutant->flags &= ~MUTANT_ZERO;
}

static void one_connection(struct mutant *mutant)
{
	mutant->flags &= ~MUTANT_MULTI_CONN;
}

static void smaller(struct mutant *mutant)
{
	mutant->size = SIZE / 2;
}

static void blocks_of_4k(struct mutant *mutant)
{
	mutant->minimum = mutant->preferred = 4096;
	mutant->maximum = 65536;
}

static void as_before(struct mutant *mutant)
{
	mutant->flags = MUTANT_ALL | MUTANT_MULTI_CONN;
	mutant->size = SIZE;
	mutant->minimum = mutant->preferred = mutant->maximum = 0;
}

/* It is not used, with the reason, and the old one is. */
static void another_is_refused(void **state)
{
	static const struct {
		void (*change)(struct mutant *mutant);
		const char *why;
	} cases[] = {
		{ set_read_only, "read-only now" },
		{ no_flush, "knows no flush any more" },
		{ no_fua, "knows no FUA any more" },
		{ no_zero, "cannot write zeroes any more" },
		{ one_connection, "not for several connections" },
		{ smaller, "shrunk from 4194304 to 2097152" },
		{ blocks_of_4k, "larger blocks now" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned char buf[512] = "B";
		unsigned int writes;
		struct rig_op op;
		struct test t;

		begin(&t);
		as_before(&t.mutant);
		must_open(&t, 1, "nbd(" URI ", fence=0s)");
		assert_int_equal(io(&t, XD_WRITE, 0, 0, 512, buf), 0);
		writes = asked(&t, MUTANT_CMD_WRITE);
		cases[i].change(&t.mutant);
		mutant_restart(&t.mutant, false);
		rig_start(&t.rig, 0, &op, XD_WRITE, 0, 0, 512, buf);
		run_until_it_shows(&t, cases[i].why);
		assert_false(op.done);
		assert_int_equal(asked(&t, MUTANT_CMD_WRITE), writes);
		as_before(&t.mutant);
		rig_wait(&t.rig, 0, &op, 1);
		assert_int_equal(op.err, 0);
		assert_int_equal(mutant_data(&t.mutant)[0], 'B');
		end(&t);
	}
}

/* Something more than so often. */
static bool asked_more(struct test *t, enum mutant_command command,
		       unsigned int n)
{
	for (unsigned int i = 0; i < 500 && asked(t, command) == n; i++)
		run_for(t, 10);
	return asked(t, command) > n;
}

/* A guest may have seen what it has written, though no answer came, and the next
 * server have forgotten it: nobody reads there before it is written again. */
static void reads_wait_for_what_is_sent_again(void **state)
{
	unsigned char out[512] = "B", back[512] = "", other[512];
	struct rig_op write, read, elsewhere;
	unsigned int writes, reads;
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, "nbd(" URI ", fence=0s)");
	t.mutant.silent = true;
	rig_start(&t.rig, 0, &write, XD_WRITE, 0, 0, 512, out);
	assert_true(asked_more(&t, MUTANT_CMD_WRITE, 0));
	/* The first time they may meet, as always. */
	rig_start(&t.rig, 0, &read, XD_READ, 0, 0, 512, back);
	assert_true(asked_more(&t, MUTANT_CMD_READ, 0));
	run_for(&t, 20);
	writes = asked(&t, MUTANT_CMD_WRITE);
	reads = asked(&t, MUTANT_CMD_READ);
	mutant_restart(&t.mutant, false);
	assert_true(asked_more(&t, MUTANT_CMD_WRITE, writes));
	run_for(&t, 50);
	assert_int_equal(asked(&t, MUTANT_CMD_READ), reads);
	rig_start(&t.rig, 0, &elsewhere, XD_READ, 0, 8192, 512, other);
	assert_true(asked_more(&t, MUTANT_CMD_READ, reads));
	assert_false(read.done);
	t.mutant.silent = false;
	mutant_restart(&t.mutant, false);
	rig_wait(&t.rig, 0, &write, 1);
	rig_wait(&t.rig, 0, &read, 1);
	rig_wait(&t.rig, 0, &elsewhere, 1);
	assert_int_equal(read.err, 0);
	assert_int_equal(back[0], 'B');
	end(&t);
}

/* Blocks may become larger and smaller where the disk has one connection. */
static void other_blocks(void **state)
{
	static const uint32_t minima[] = { 1, 4096, 512, 16384, 1 };
	struct test t;

	(void)state;
	begin(&t);
	t.mutant.flags &=
		~MUTANT_TRIM; /* the model forgets what was discarded */
	must_open(&t, 1, "nbd(" URI ", fence=0s)");
	for (size_t i = 0; i < ARRAY_SIZE(minima); i++) {
		t.mutant.minimum = t.mutant.preferred = minima[i];
		t.mutant.maximum = 64u << 10;
		mutant_restart(&t.mutant, false);
		assert_int_equal(wrong_after(&t, 20), 0);
	}
	assert_int_equal(t.mutant.unaligned, 0);
	assert_memory_equal(mutant_data(&t.mutant), content, 1);
	end(&t);
}

static void no_trim_any_more(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, "nbd(" URI ", fence=0s)");
	assert_int_equal(io(&t, XD_DISCARD, 0, 0, 4096, NULL), 0);
	t.mutant.flags &= ~MUTANT_TRIM;
	mutant_restart(&t.mutant, false);
	/* It may still reach the old connection, and come back. */
	assert_int_equal(io(&t, XD_FLUSH, 0, 0, 0, NULL), 0);
	assert_int_equal(io(&t, XD_DISCARD, 0, 0, 4096, NULL), -EOPNOTSUPP);
	assert_int_equal(io(&t, XD_FLUSH, 0, 0, 0, NULL), 0);
	end(&t);
}

/* --- The guest goes ---------------------------------------------------------------------- */

/* The server is away: what waits is given up at once, the last flush after a
 * while, and at once if there is nothing that it would have to cover. */
static void stops(bool dirty, int err)
{
	unsigned char buf[512] = "";
	struct rig_op op;
	struct test t;

	begin(&t);
	must_open(&t, 1, LONG);
	assert_int_equal(io(&t, XD_WRITE, 0, 0, 512, buf), 0);
	if (!dirty)
		assert_int_equal(io(&t, XD_FLUSH, 0, 0, 0, NULL), 0);
	t.mutant.greeting = GREET_REFUSED;
	mutant_restart(&t.mutant, false);
	rig_start(&t.rig, 0, &op, XD_READ, 0, 0, 512, buf);
	run_until_it_shows(&t, "no export named");
	assert_false(op.done);
	stack_stop(t.rig.top[0]);
	(void)stack_reap(t.rig.top[0]);
	assert_true(op.done);
	assert_int_equal(op.err, -ECANCELED);
	assert_int_equal(io(&t, XD_WRITE, 0, 0, 512, buf), -ECANCELED);
	assert_int_equal(io(&t, XD_FLUSH, 0, 0, 0, NULL), err);
	end(&t);
}

static void stops_without_server(void **state)
{
	(void)state;
	stops(false, 0);
	stops(true, -ENOTCONN);
}

/* It comes back in time for the last flush. */
static void stops_and_server_is_back(void **state)
{
	unsigned char buf[512] = "";
	struct rig_op op;
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, LONG);
	assert_int_equal(io(&t, XD_WRITE, 0, 0, 512, buf), 0);
	t.mutant.greeting = GREET_HANG_UP;
	mutant_restart(&t.mutant, false);
	rig_start(&t.rig, 0, &op, XD_READ, 0, 0, 512, buf);
	run_until_it_shows(&t, "away");
	stack_stop(t.rig.top[0]);
	(void)stack_reap(t.rig.top[0]);
	assert_int_equal(op.err, -ECANCELED);
	rig_start(&t.rig, 0, &op, XD_FLUSH, 0, 0, 0, NULL);
	t.mutant.greeting = GREET_WELL;
	rig_wait(&t.rig, 0, &op, 1);
	assert_int_equal(op.err, 0);
	end(&t);
}

/* One that is there ends what it has. */
static void stops_with_server(void **state)
{
	unsigned char buf[512] = "S";
	struct rig_op ops[2];
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, LONG);
	assert_int_equal(io(&t, XD_READ, 0, 0, 512, buf), 0);
	memset(buf, 'S', sizeof(buf));
	rig_start(&t.rig, 0, &ops[0], XD_WRITE, 0, 0, 512, buf);
	stack_stop(t.rig.top[0]);
	rig_start(&t.rig, 0, &ops[1], XD_FLUSH, 0, 0, 0, NULL);
	rig_wait(&t.rig, 0, ops, 2);
	assert_int_equal(ops[0].err, 0);
	assert_int_equal(ops[1].err, 0);
	assert_int_equal(mutant_data(&t.mutant)[0], 'S');
	end(&t);
}

/* --- After a worker ---------------------------------------------------------------------- */

/* The connections of a dead worker get the same time as one that broke. */
static void recovery_waits(void **state)
{
	unsigned char buf[512] = "";
	uint64_t before;
	struct test t;

	(void)state;
	begin(&t);
	must_open(&t, 1, "nbd(" URI ", fence=300ms)");
	assert_int_equal(io(&t, XD_WRITE, 0, 0, 512, buf), 0);
	rig_die(&t.rig);
	before = now_ns();
	assert_int_equal(rig_recover(&t.rig, 1, "nbd(" URI ", fence=300ms)"),
			 0);
	assert_true(now_ns() - before >= 300000000ull);
	assert_int_equal(io(&t, XD_WRITE, 0, 0, 512, buf), 0);
	end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_it_offers_is_used),
		cmocka_unit_test(without_flush),
		cmocka_unit_test(connections),
		cmocka_unit_test(no_time_for_handshakes),
		cmocka_unit_test(bad_handshake),
		cmocka_unit_test(too_large),
		cmocka_unit_test(bad_handshake_later),
		cmocka_unit_test(bad_replies),
		cmocka_unit_test(bad_replies_and_loss),
		cmocka_unit_test(reads_without_data),
		cmocka_unit_test(reads_without_end),
		cmocka_unit_test(errors),
		cmocka_unit_test(silent),
		cmocka_unit_test(of_no_use),
		cmocka_unit_test(of_little_use),
		cmocka_unit_test(another_is_refused),
		cmocka_unit_test(other_blocks),
		cmocka_unit_test(no_trim_any_more),
		cmocka_unit_test(stops_without_server),
		cmocka_unit_test(reads_wait_for_what_is_sent_again),
		cmocka_unit_test(stops_and_server_is_back),
		cmocka_unit_test(stops_with_server),
		cmocka_unit_test(recovery_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
