/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk with two connections, and a server that takes the place of another one while
 * that still serves one of them: what the old one answers from then on is not taken for
 * something that a flush by the new one covers.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"
#include "nbd-mutant.h"
#include "rig.h"

#define SIZE  (1u << 20)
#define BLOCK 4096u
#define URI   "\"nbd+unix:///?socket=@/sock\", fence=0s"
#define CHECK "nbd(" URI ")"

struct test {
	struct rig rig;
	struct mutant old, new;
};

static unsigned char buf[BLOCK], other[BLOCK];

static int io(struct test *t, unsigned int lane, enum xd_op op)
{
	return rig_io(&t->rig, lane, op, 0, 0, op == XD_FLUSH ? 0 : BLOCK,
		      op == XD_FLUSH ? NULL : buf);
}

static void must_do(struct test *t, unsigned int lane, enum xd_op op)
{
	assert_int_equal(io(t, lane, op), 0);
}

/* Lane 0 is connected, and lane 1 is if the old server lets it. */
static void begin(struct test *t)
{
	rig_new(&t->rig, true);
	mutant_start(&t->old, rig_file(&t->rig, "sock", 0), SIZE);
	t->old.flags |= MUTANT_MULTI_CONN;
	if (rig_open(&t->rig, 2, CHECK) < 0)
		fail_msg("%s", t->rig.why);
	must_do(t, 0, XD_READ);
}

/* The old one keeps what is connected. */
static void replace(struct test *t)
{
	const char *path = rig_file(&t->rig, "sock", 0);

	assert_int_equal(unlink(path), 0);
	mutant_start(&t->new, path, SIZE);
	t->new.flags |= MUTANT_MULTI_CONN;
}

/* ... but for lane 1, which is connected to the new one then. */
static void replace_for_one(struct test *t)
{
	must_do(t, 1, XD_READ);
	replace(t);
	t->old.fault_every = 1;
	must_do(t, 1, XD_READ);
	t->old.fault_every = 0;
	assert_int_equal(t->new.greeted, 1);
}

static void end(struct test *t)
{
	rig_free(&t->rig);
	mutant_stop(&t->old);
	mutant_stop(&t->new);
}

/* So many commands. */
static void have_come(_Atomic(unsigned int) *count, unsigned int n)
{
	for (unsigned int i = 0; i < 4000 && *count < n; i++)
		(void)usleep(5000);
	assert_int_equal(*count, n);
}

/* Each lane has one connection, and keeps it. */
static void both_are_at_the_new_one(struct test *t, unsigned int greeted)
{
	for (unsigned int i = 0; i < 5; i++) {
		must_do(t, 0, XD_READ);
		must_do(t, 1, XD_READ);
	}
	assert_int_equal(t->new.greeted, greeted);
	for (unsigned int i = 0; i < 4000 && t->old.connections; i++)
		(void)usleep(5000);
	assert_int_equal(t->old.connections, 0);
}

/* What is flushed by the new server is there. */
static void a_write_after_that(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	replace_for_one(&t);
	memset(buf, 'A', sizeof(buf));
	must_do(&t, 0, XD_WRITE);
	must_do(&t, 1, XD_FLUSH);
	assert_int_equal(mutant_data(&t.new)[0], 'A');
	both_are_at_the_new_one(&t, 2);
	end(&t);
}

/* The old one has answered before, and nobody has looked at that. */
static void an_answer_in_the_socket(void **state)
{
	struct rig_op op;
	struct test t;

	(void)state;
	begin(&t);
	must_do(&t, 1, XD_READ);
	memset(other, 'B', sizeof(other));
	rig_start(&t.rig, 0, &op, XD_WRITE, 0, 0, BLOCK, other);
	stack_kick(t.rig.top[0]);
	/* One for each piece of memory. */
	have_come(&t.old.asked[MUTANT_CMD_WRITE], op.req.iovcnt);
	replace_for_one(&t);
	assert_false(op.done);
	rig_wait(&t.rig, 0, &op, 1);
	assert_int_equal(op.err, 0);
	must_do(&t, 1, XD_FLUSH);
	assert_int_equal(mutant_data(&t.new)[0], 'B');
	both_are_at_the_new_one(&t, 2);
	end(&t);
}

/* What was answered and looked at before is compared. */
static void an_answer_that_counted(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	memset(buf, 'C', sizeof(buf));
	must_do(&t, 0, XD_WRITE);
	replace_for_one(&t);
	assert_int_equal(io(&t, 1, XD_FLUSH), -EREMOTEIO);
	end(&t);
}

/* A flush goes to the server that has what was written, and no other one counts. */
static void a_flush_by_the_old_one(void **state)
{
	struct rig_op op;
	struct test t;

	(void)state;
	begin(&t);
	replace_for_one(&t);
	must_do(&t, 1, XD_WRITE);
	must_do(&t, 0, XD_FLUSH);
	assert_int_equal(t.new.asked[MUTANT_CMD_FLUSH], 1);
	end(&t);

	begin(&t);
	rig_start(&t.rig, 0, &op, XD_FLUSH, 0, 0, 0, NULL);
	stack_kick(t.rig.top[0]);
	have_come(&t.old.asked[MUTANT_CMD_FLUSH], 1);
	replace_for_one(&t);
	must_do(&t, 1, XD_WRITE);
	rig_wait(&t.rig, 0, &op, 1);
	assert_int_equal(op.err, 0);
	assert_int_equal(t.new.asked[MUTANT_CMD_FLUSH], 1);
	end(&t);
}

/* The old one would not take a second connection, and the new one does. */
static void a_connection_that_failed(void **state)
{
	struct rig_op op;
	struct test t;

	(void)state;
	begin(&t);
	t.old.fault_every = 1;
	t.old.greeting = GREET_REFUSED;
	rig_start(&t.rig, 1, &op, XD_READ, 0, 0, BLOCK, other);
	stack_kick(t.rig.top[1]);
	while (!strstr(fake_broker_state(t.rig.broker)->condition,
		       "no export named"))
		assert_true(engine_run(t.rig.engine[1], 5000000) >= 0);
	t.old.fault_every = 0;
	replace(&t);
	rig_wait(&t.rig, 1, &op, 1);
	memset(buf, 'D', sizeof(buf));
	must_do(&t, 0, XD_WRITE);
	must_do(&t, 1, XD_FLUSH);
	assert_int_equal(mutant_data(&t.new)[0], 'D');
	both_are_at_the_new_one(&t, 2);
	end(&t);
}

/* A server that was killed and started again: neither lane makes the other one connect
 * again and again. */
static void both_come_back(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	must_do(&t, 1, XD_READ);
	replace(&t);
	mutant_restart(&t.old, false);
	both_are_at_the_new_one(&t, 2);
	end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_write_after_that),
		cmocka_unit_test(an_answer_in_the_socket),
		cmocka_unit_test(an_answer_that_counted),
		cmocka_unit_test(a_flush_by_the_old_one),
		cmocka_unit_test(a_connection_that_failed),
		cmocka_unit_test(both_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
