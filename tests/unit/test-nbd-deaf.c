/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An NBD server whose host seems to be gone: the real backend, and a server by TCP
 * that says nothing, of which the kernel says what the test likes.
 */
#include "config.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/util.h"
#include "nbd-mutant.h"
#include "rig.h"

#define SIZE (1u << 20)

/* --- What the backend sees ------------------------------------------------------ */

#define LOOKS_MAX 64u

static unsigned int looks;
/* Of each look; the last one's answer is that of all after it. */
static const char *deaf;

static bool is_deaf(void)
{
	size_t last = strlen(deaf) - 1;

	return deaf[MIN(looks, last)] == 'x';
}

/* The backend's, which is a module. */
int getsockopt(int fd, int level, int name, void *restrict value,
	       socklen_t *restrict length)
{
	struct tcp_info *info = value;
	long r = syscall(SYS_getsockopt, fd, level, name, value, length);

	if (r < 0 || level != IPPROTO_TCP || name != TCP_INFO)
		return (int)r;
	info->tcpi_unacked = is_deaf();
	info->tcpi_last_ack_recv = is_deaf() ? 60000 : 0;
	looks++;
	return 0;
}

void __real_engine_sys(struct engine *engine, struct xd_sys *sys);
void __wrap_engine_sys(struct engine *engine, struct xd_sys *sys);

/* Five seconds are 20 ms. */
void __wrap_engine_sys(struct engine *engine, struct xd_sys *sys)
{
	if (sys->op == XD_SYS_TIMER && sys->length == 5000000000ull)
		sys->length = 20000000;
	__real_engine_sys(engine, sys);
}

/* --- The tests ------------------------------------------------------------------ */

static struct test {
	struct rig rig;
	struct mutant mutant;
	struct rig_op op;
	unsigned char buf[4096];
} t;

/* A request that is not answered. */
static int setup(void **state)
{
	char expression[64];

	(void)state;
	memset(&t, 0, sizeof(t));
	looks = 0;
	deaf = ".";
	rig_new(&t.rig, true);
	(void)snprintf(expression, sizeof(expression),
		       "nbd(\"nbd://127.0.0.1:%u\", fence=0s)",
		       mutant_start_tcp(&t.mutant, SIZE));
	if (rig_open(&t.rig, 1, expression) < 0)
		fail_msg("%s", t.rig.why);
	assert_int_equal(rig_io(&t.rig, 0, XD_READ, 0, 0, 4096, t.buf), 0);
	t.mutant.silent = true;
	rig_start(&t.rig, 0, &t.op, XD_READ, 0, 0, 4096, t.buf);
	stack_kick(t.rig.top[0]);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_free(&t.rig);
	mutant_stop(&t.mutant);
	return 0;
}

static bool is_away(void)
{
	return strstr(fake_broker_state(t.rig.broker)->condition,
		      "its host acknowledges nothing");
}

/* Until it has looked so often, or has given up. */
static void run_for(unsigned int n)
{
	uint64_t until = now_ns() + 20000000000ull;

	while (looks < n && !is_away()) {
		assert_true(now_ns() < until);
		assert_true(engine_run(t.rig.engine[0], 5000000) >= 0);
		(void)stack_reap(t.rig.top[0]);
	}
}

static void must_stay(const char *what)
{
	unsigned int greeted = t.mutant.greeted;

	deaf = what;
	looks = 0;
	run_for((unsigned int)strlen(what) + 2);
	assert_false(is_away());
	assert_int_equal(t.mutant.greeted, greeted);
}

/* As it is for who was left alone for long, until its answer is here. */
static void deaf_once(void **state)
{
	(void)state;
	must_stay("x.");
	must_stay("x.x.x.");
}

static void deaf_two_times(void **state)
{
	(void)state;
	deaf = ".x.xx.";
	looks = 0;
	run_for(8);
	assert_true(is_away());
	assert_int_equal(looks, 5);
	/* Another connection begins with none; and has an answer. */
	t.mutant.silent = false;
	rig_wait(&t.rig, 0, &t.op, 1);
	assert_int_equal(t.op.err, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(deaf_once, setup, teardown),
		cmocka_unit_test_setup_teardown(deaf_two_times, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
