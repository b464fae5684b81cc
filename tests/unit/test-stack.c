/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The stack: modules, layers, and requests on their way through them. */
#include "config.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/util.h"
#include "fake-broker.h"
#include "worker/disk.h"

static char *modules; /* folder of the test's backends */
static char *trace; /* what tmem.so has seen */
static struct fake_broker *broker;
static struct services *services;

static int group_setup(void **state)
{
	const char *top = getenv("top_builddir");
	cleanup_free char *tmem = NULL;
	void *handle;

	(void)state;
	modules = xasprintf("%s/tests/unit/modules/.libs", top ? top : ".");
	tmem = xasprintf("%s/tmem.so", modules);
	/* It stays loaded, so that trace can be read after stack_close(). */
	handle = dlopen(tmem, RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		print_error("%s\n", dlerror());
	assert_non_null(handle);
	trace = dlsym(handle, "trace");
	assert_non_null(trace);
	broker = fake_broker_new();
	services = fake_broker_connect(broker);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	services_free(services);
	fake_broker_free(broker);
	free(modules);
	return 0;
}

/* --- Opening --------------------------------------------------------------- */

static char why[MSG_TEXT_MAX];

static struct stack *open_stack(const char *expression, bool read_only)
{
	const struct stack_spec spec = { .expression = expression,
					 .read_only = read_only,
					 .backend_dir = modules };
	struct stack *stack = NULL;

	trace[0] = '\0';
	why[0] = '\0';
	if (stack_open(&stack, &spec, services, why))
		print_error("%s: %s\n", expression, why);
	assert_non_null(stack);
	return stack;
}

/* Refused, with the sentence that says so, and nothing stays open. */
static void refused(const char *expression, const char *sentence)
{
	const struct stack_spec spec = { .expression = expression,
					 .backend_dir = modules };
	struct stack *stack = NULL;
	const char *p;
	int balance = 0;

	trace[0] = '\0';
	assert_true(stack_open(&stack, &spec, services, why) < 0);
	assert_null(stack);
	if (!strstr(why, sentence))
		print_error("%s: %s, not %s\n", expression, why, sentence);
	assert_non_null(strstr(why, sentence));
	for (p = trace; (p = strstr(p, "open(ok")); p++)
		balance++;
	for (p = trace; (p = strstr(p, "close(ok")); p++)
		balance--;
	assert_int_equal(balance, 0);
}

static void test_order(void **state)
{
	struct stack *stack;

	(void)state;
	stack = open_stack("tfilter(tfilter(tmem(8K, name=a), "
			   "tmem(name=b)), tmem(name=c))",
			   false);
	assert_string_equal(trace, "open(a) open(b) open(c) ");
	stack_close(stack);
	assert_string_equal(trace, "open(a) open(b) open(c) "
				   "close(c) close(b) close(a) ");
}

static void test_describe(void **state)
{
	static struct msg_opened opened;
	struct stack *stack;

	(void)state;
	stack = open_stack("disk(tfilter(tmem(8K, name=a), tmem(name=b)), "
			   "on-error=report)",
			   false);
	assert_int_equal(stack_policy(stack)->on_error, ON_ERROR_REPORT);
	assert_int_equal(stack_policy(stack)->flush_error, FLUSH_ERROR_REPORT);
	assert_int_equal(stack_policy(stack)->poll_ns, POLL_AUTO);
	stack_describe(stack, &opened);
	/* The size of b is that of a; lanes are what the layers below allow. */
	assert_int_equal(opened.limits.size, 8192);
	assert_int_equal(opened.limits.physical_sector_size, 512);
	assert_int_equal(opened.limits.memory_alignment, 1);
	assert_int_equal(opened.limits.max_channels, 2);
	assert_false(opened.limits.readonly);
	/* A place that is only read is nobody's second writer. */
	assert_int_equal(opened.nr_identities, 1);
	assert_string_equal(opened.identity[0], "test:b");
	assert_string_equal(opened.notes, "1 tfilter left 8192 bytes\n"
					  "3 tmem written\n"
					  "2 tmem only read\n");
	stack_close(stack);

	stack = open_stack("disk(tmem(8K, name=a), flush-error=hold)", true);
	assert_int_equal(stack_policy(stack)->on_error, ON_ERROR_HOLD);
	assert_int_equal(stack_policy(stack)->flush_error, FLUSH_ERROR_HOLD);
	assert_int_equal(stack_policy(stack)->poll_ns, POLL_AUTO);
	assert_true(stack_limits(stack)->readonly);
	stack_close(stack);

	stack = open_stack("disk(tmem(8K, name=a), poll-max-us=0)", false);
	assert_int_equal(stack_policy(stack)->poll_ns, 0);
	stack_close(stack);
	stack = open_stack("disk(tmem(8K, name=a), poll-max-us=20)", false);
	assert_int_equal(stack_policy(stack)->poll_ns, 20000);
	stack_close(stack);
	stack = open_stack("tmem(8K, name=a)", false);
	assert_int_equal(stack_policy(stack)->poll_ns, POLL_AUTO);
	stack_close(stack);
}

static void test_refusals(void **state)
{
	(void)state;
	refused("nothing(1K)", "nothing");
	refused("tmem(8K, fail=open)", "tmem: open fails as told");
	refused("tmem(8K, fail=mute)", "tmem: No such device");
	refused("tfilter(tmem(8K, name=ok), tmem(8K, name=bad, fail=open))",
		"tmem: open fails as told");
	refused("tfilter(tmem(8K, name=ok), tmem(8K, frozen=yes))",
		"stands where it is written to (right)");
	refused("tfilter(tmem(8K, name=ok), disk(tmem(8K)))", "disk");
	refused("tmem(8K, colour=red)", "colour");
	refused("tmem(8K, fail=open", "at byte");
}

static void test_limits(void **state)
{
	static const char *const spoil[][2] = {
		{ "sector", "sector_size" },
		{ "size", "size is not a multiple" },
		{ "zero", "size is not a multiple" },
		{ "physical", "physical_sector_size" },
		{ "discard", "discard_granularity" },
		{ "alignment", "discard_alignment" },
		{ "memory", "memory_alignment" },
		{ "transfer", "max_transfer" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(spoil); i++) {
		cleanup_free char *text =
			xasprintf("tmem(8K, name=ok, spoil=%s)", spoil[i][0]);

		refused(text, spoil[i][1]);
		assert_non_null(strstr(why, "tmem: its open() gave wrong"));
	}
}

static void test_modules(void **state)
{
	struct xd_channel *top;
	struct engine *engine;
	struct stack *stack;

	(void)state;
	refused("tversion()", "for version 2 of the interface");
	refused("tsmall()", "tsmall.so is for version 1");
	refused("tname()", "its name is not that of its file");
	refused("tmap()", "map and unmap go together");
	refused("tnone()", "exports no xendisk_backend_v1");
	refused("tlost()", "xd_from_the_future");
	refused("tresized()", "resized without resize");
	/* Older than the header, with rubbish behind its end. */
	stack = open_stack("told()", false);
	assert_int_equal(engine_new(&engine, 8, false), 0);
	assert_int_equal(stack_channel_open(stack, engine, 0, &top, why), 0);
	stack_kick(top);
	stack_channel_close(top);
	engine_free(engine);
	stack_close(stack);
}

/* --- Growing --------------------------------------------------------------- */

/* Not grown, with that error and that sentence. */
static void stays(struct stack *stack, uint64_t size, int err,
		  const char *sentence)
{
	uint64_t before = stack_limits(stack)->size;

	assert_int_equal(stack_resize(stack, size, why), err);
	if (!strstr(why, sentence))
		print_error("%s, not %s\n", why, sentence);
	assert_non_null(strstr(why, sentence));
	assert_false(stack_unsettled(stack));
	assert_int_equal(stack_limits(stack)->size, before);
}

static void test_resize(void **state)
{
	struct stack *stack = open_stack("tmem(8K, name=a)", false);

	(void)state;
	trace[0] = '\0';
	assert_int_equal(stack_resize(stack, 0, why), 0);
	assert_false(stack_unsettled(stack));
	assert_int_equal(stack_resize(stack, 16384, why), 0);
	assert_string_equal(trace, "resize(a) resize(a) ");
	/* Nothing that lanes see has changed yet. */
	assert_true(stack_unsettled(stack));
	assert_int_equal(stack_limits(stack)->size, 8192);
	stack_settle(stack);
	assert_false(stack_unsettled(stack));
	assert_int_equal(stack_limits(stack)->size, 16384);
	assert_string_equal(trace, "resize(a) resize(a) resized(a) ");
	trace[0] = '\0';
	stays(stack, 8192, -EPERM, "it would shrink");
	stays(stack, 16385, -EINVAL, "no multiple of the sector size");
	stays(stack, 1ull << 63, -EINVAL, "no multiple");
	assert_string_equal(trace, "");
	assert_int_equal(stack_resize(stack, 16384, why), 0);
	assert_false(stack_unsettled(stack));
	stack_close(stack);
}

/* A module's answer is not believed either. */
static void test_resize_answers(void **state)
{
	static const struct {
		const char *expression;
		int err;
		const char *sentence;
	} cases[] = {
		{ "tmem(8K, grow=fail)", -EIO, "tmem: Input/output error" },
		{ "tmem(8K, grow=smaller)", -EINVAL,
		  "gave a wrong size, 7680" },
		{ "tmem(8K, grow=odd)", -EINVAL, "gave a wrong size, 16385" },
		{ "tmem(8K, grow=endless)", -EINVAL, "gave a wrong size" },
		{ "told()", -EOPNOTSUPP, "told: has the size that" },
		{ "tbefore()", -EOPNOTSUPP, "tbefore: has the size that" },
		{ "tfilter(tmem(8K, name=a), tmem(name=b))", -EOPNOTSUPP,
		  "tfilter: has the size that" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct stack *stack = open_stack(cases[i].expression, false);

		trace[0] = '\0';
		stays(stack, 16384, cases[i].err, cases[i].sentence);
		/* A filter that does not know of it shields what is below. */
		if (cases[i].err == -EOPNOTSUPP) {
			assert_string_equal(trace, "");
			assert_int_equal(stack_resize(stack, 0, why), 0);
			assert_string_equal(trace, "");
		}
		stack_close(stack);
	}
}

/* --- Services -------------------------------------------------------------- */

static void test_services(void **state)
{
	struct fake_broker_state *seen = fake_broker_state(broker);
	static struct msg_opened opened;
	struct stack *stack;

	(void)state;
	fake_broker_grant(broker, "tmem(8K, path=/nowhere)", modules);
	refused("tmem(8K, path=/nowhere)",
		"tmem: /nowhere: No such file or directory");
	refused("disk(tmem(8K, path=/nowhere))", "tmem: path is not granted");
	fake_broker_grant(broker, "tmem(8K, path=/etc/passwd)", modules);
	stack_close(open_stack("tmem(8K, path=/etc/passwd)", false));
	for (int i = 0; i < 2; i++) {
		stack = open_stack("tmem(8K, keep=yes)", false);
		stack_describe(stack, &opened);
		assert_string_equal(opened.notes, i ? "0 tmem kept 1, byte 1\n"
						      "0 tmem written\n" :
						      "0 tmem kept 0, byte 0\n"
						      "0 tmem written\n");
		stack_close(stack);
	}
	seen->budget = 1000;
	stack = open_stack("tmem(8K, budget=1000)", false);
	stack_describe(stack, &opened);
	assert_non_null(strstr(opened.notes, "budget 0\n"));
	stack_close(stack);
	stack = open_stack("tmem(8K, budget=1)", false);
	stack_describe(stack, &opened);
	assert_non_null(strstr(opened.notes, "budget -28\n"));
	stack_close(stack);
	seen->budget = INT64_MAX;
}

/* --- Requests -------------------------------------------------------------- */

struct lane {
	struct stack *stack;
	struct engine *engine;
	struct xd_channel *top;
};

static struct lane open_lane(const char *expression)
{
	struct lane lane = { .stack = open_stack(expression, false) };

	assert_int_equal(engine_new(&lane.engine, 8, true), 0);
	assert_int_equal(stack_activate(lane.stack, false, why), 0);
	assert_int_equal(stack_channel_open(lane.stack, lane.engine, 0,
					    &lane.top, why),
			 0);
	return lane;
}

static void close_lane(struct lane *lane)
{
	stack_channel_close(lane->top);
	assert_int_equal(stack_deactivate(lane->stack, why), 0);
	stack_close(lane->stack);
	engine_free(lane->engine);
}

struct outcome {
	unsigned int done;
	int err;
};

static void request_done(struct xd_request *req, int err)
{
	struct outcome *outcome = req->owner;

	outcome->done++;
	outcome->err = err;
}

static int perform(struct lane *lane, struct xd_request req)
{
	struct outcome outcome = { 0 };
	unsigned int done;

	req.owner = &outcome;
	req.done = request_done;
	xd_submit(lane->top, &req);
	assert_int_equal(outcome.done, 0); /* never from within */
	stack_kick(lane->top);
	while (stack_reap(lane->top) > 0)
		;
	while (outcome.done == 0) {
		assert_true(engine_run(lane->engine, UINT64_MAX) >= 0);
		while (stack_reap(lane->top) > 0)
			;
	}
	done = outcome.done;
	assert_int_equal(done, 1);
	assert_int_equal(stack_reap(lane->top), 0);
	return outcome.err;
}

static int transfer(struct lane *lane, enum xd_op op, uint64_t offset,
		    void *data, size_t length)
{
	struct iovec iov = { data, length };

	return perform(lane, (struct xd_request){ .op = op,
						  .offset = offset,
						  .length = length,
						  .iov = &iov,
						  .iovcnt = 1 });
}

static void check_requests(const char *expression)
{
	unsigned char out[4096], back[4096];
	struct lane lane = open_lane(expression);

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (unsigned char)(i / 512 + 1);
	assert_int_equal(transfer(&lane, XD_WRITE, 4096, out, 4096), 0);
	assert_int_equal(transfer(&lane, XD_READ, 4096, back, 4096), 0);
	/* The odd sectors are those of the left disk, which is empty. */
	for (size_t i = 0; i < 4096; i++)
		assert_int_equal(back[i], i / 512 % 2 ? 0 : out[i]);
	assert_int_equal(perform(&lane, (struct xd_request){ .op = XD_FLUSH }),
			 0);
	assert_int_equal(perform(&lane, (struct xd_request){ .op = XD_DISCARD,
							     .offset = 4096,
							     .length = 4096 }),
			 0);
	assert_int_equal(transfer(&lane, XD_READ, 4096, back, 512), 0);
	assert_int_equal(back[0], 0);
	close_lane(&lane);
}

static void test_requests(void **state)
{
	(void)state;
	check_requests("tfilter(tmem(8K), tmem)");
	check_requests("tfilter(tmem(8K, when=kick), tmem(when=timer))");
	check_requests("tfilter(tmem(8K, when=timer), tmem(when=kick))");
	check_requests("tfilter(tmem(8K, flush=no), tmem(flush=no))");
	/* Children from more than one block, and blocks used again. */
	check_requests("tfilter(tmem(8K), tfilter(tmem(8K), tfilter(tmem(8K), "
		       "tfilter(tmem(8K), tmem(when=kick)))))");
}

/* A kick that completes something: reap must not return 0 before it is out. */
static void test_kick_in_reap(void **state)
{
	struct lane lane = open_lane("tmem(8K, when=kick)");
	unsigned char byte[512];
	struct iovec iov = { byte, sizeof(byte) };
	struct xd_extent extent[1];
	struct xd_extents extents = { .extent = extent, .max = 1 };
	struct outcome outcome = { 0 };
	struct xd_request req = { .op = XD_READ,
				  .length = 512,
				  .iov = &iov,
				  .iovcnt = 1,
				  .done = request_done,
				  .owner = &outcome };

	(void)state;
	xd_submit(lane.top, &req);
	assert_int_equal(stack_reap(lane.top), 1);
	assert_int_equal(outcome.done, 1);
	xd_submit(lane.top, &req); /* the same one once more */
	assert_int_equal(stack_reap(lane.top), 1);
	assert_int_equal(stack_reap(lane.top), 0);
	req.op = XD_EXTENTS;
	req.iovcnt = 0;
	req.extents = &extents;
	xd_submit(lane.top, &req);
	assert_int_equal(stack_reap(lane.top), 1);
	close_lane(&lane);
}

static void test_map(void **state)
{
	struct lane lane = open_lane("tfilter(tmem(8K), tmem(lend=yes, "
				     "name=b))");
	struct xd_request req = { .op = XD_WRITE,
				  .offset = 512,
				  .length = 1024 };
	unsigned char back[1024];
	struct iovec iov[4];
	unsigned int nr = ARRAY_SIZE(iov);

	(void)state;
	assert_int_equal(xd_map(lane.top, &req, iov, &nr), 0);
	assert_int_equal(nr, 1);
	memset(iov[0].iov_base, 7, 1024);
	xd_unmap(lane.top, &req, 0);
	assert_non_null(strstr(trace, "map(b) unmap(b) "));
	assert_int_equal(transfer(&lane, XD_READ, 1024, back, 512), 0);
	assert_int_equal(back[0], 7);
	close_lane(&lane);

	lane = open_lane("tfilter(tmem(8K), tmem)");
	nr = ARRAY_SIZE(iov);
	assert_int_equal(xd_map(lane.top, &req, iov, &nr), -EOPNOTSUPP);
	assert_int_equal(nr, ARRAY_SIZE(iov));
	/* It may go the other way now. */
	req.iov = &(struct iovec){ back, sizeof(back) };
	req.iovcnt = 1;
	assert_int_equal(perform(&lane, req), 0);
	close_lane(&lane);
}

/* --- Coming and going ------------------------------------------------------ */

static void test_activate(void **state)
{
	struct stack *stack;

	(void)state;
	stack = open_stack("tfilter(tmem(8K, name=a), tmem(name=b))", false);
	trace[0] = '\0';
	assert_int_equal(stack_activate(stack, true, why), 0);
	assert_int_equal(stack_deactivate(stack, why), 0);
	assert_int_equal(stack_activate(stack, false, why), 0);
	assert_int_equal(stack_deactivate(stack, why), 0);
	assert_string_equal(trace, "recover(a) recover(b) deactivate(b) "
				   "deactivate(a) activate(a) activate(b) "
				   "deactivate(b) deactivate(a) ");
	stack_close(stack);

	stack = open_stack("tfilter(tmem(8K, name=a), "
			   "tmem(name=b, fail=activate))",
			   false);
	trace[0] = '\0';
	assert_int_equal(stack_activate(stack, false, why), -EBUSY);
	assert_string_equal(why, "tmem: activate fails as told");
	assert_string_equal(trace, "activate(a) activate(b) deactivate(a) ");
	stack_close(stack);

	stack = open_stack("tfilter(tmem(8K, name=a), "
			   "tmem(name=b, fail=deactivate))",
			   false);
	assert_int_equal(stack_activate(stack, false, why), 0);
	trace[0] = '\0';
	assert_int_equal(stack_deactivate(stack, why), -EBUSY);
	assert_string_equal(why, "tmem: deactivate fails as told");
	assert_string_equal(trace, "deactivate(b) deactivate(a) ");
	assert_int_equal(stack_deactivate(stack, why), 0);
	stack_close(stack);
}

static void test_channels(void **state)
{
	struct engine *engine;
	struct xd_channel *top[2];
	struct stack *stack;

	(void)state;
	assert_int_equal(engine_new(&engine, 8, true), 0);
	stack = open_stack("tfilter(tmem(8K, name=a), tmem(name=b))", false);
	trace[0] = '\0';
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(
			stack_channel_open(stack, engine, i, &top[i], why), 0);
		assert_int_equal(top[i]->lane, i);
		assert_int_equal(top[i]->below[1]->lane, i);
	}
	stack_channel_close(top[0]);
	stack_channel_close(top[1]);
	assert_string_equal(trace,
			    "channel_open(a) channel_open(b) channel_open(a) "
			    "channel_open(b) channel_close(b) "
			    "channel_close(a) channel_close(b) "
			    "channel_close(a) ");
	stack_close(stack);

	stack = open_stack("tfilter(tmem(8K, name=a), "
			   "tmem(name=b, fail=channel))",
			   false);
	trace[0] = '\0';
	assert_int_equal(stack_channel_open(stack, engine, 0, &top[0], why),
			 -EBUSY);
	assert_string_equal(why, "tmem: channel fails as told");
	assert_string_equal(trace, "channel_open(a) channel_open(b) "
				   "channel_close(a) ");
	stack_close(stack);
	engine_free(engine);
}

/* --- The contract: each breach is seen ------------------------------------- */

static int run_breach(const char *fault)
{
	unsigned char data[1024] = { 0 };
	cleanup_free char *text = xasprintf(
		"tfilter(tmem(8K), tmem(when=kick), fault=%s)", fault);
	struct rlimit none = { 0, 0 };
	struct lane lane;
	pid_t pid;
	int status, null;

	pid = fork();
	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &none);
		null = open("/dev/null", O_WRONLY);
		dup2(null, STDERR_FILENO);
		signal(SIGABRT, SIG_DFL);
		lane = open_lane(text);
		(void)transfer(&lane, XD_WRITE, 0, data, sizeof(data));
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_contract(void **state)
{
	static const char *const faults[] = {
		"range", "alignment", "sum",	  "zero",    "fua",
		"twice", "positive",  "sideways", "readonly"
	};
	int status;

	(void)state;
	status = run_breach("none");
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		status = run_breach(faults[i]);
		if (!WIFSIGNALED(status))
			print_error("%s was not noticed\n", faults[i]);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGABRT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_describe),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_modules),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_resize_answers),
		cmocka_unit_test(test_services),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_kick_in_reap),
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_activate),
		cmocka_unit_test(test_channels),
		cmocka_unit_test(test_contract),
	};

	return cmocka_run_group_tests_name("stack", tests, group_setup,
					   group_teardown);
}
