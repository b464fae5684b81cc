/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "supervise-fixture.h"

#include <stdarg.h>
#include <string.h>

/* --- The fake worker --------------------------------------------------------- */

int fake_sock;
_Alignas(max_align_t) unsigned char fake_buf[MSG_MAX];

void fake_say(void *msg, size_t length, enum msg_type type, uint32_t seq)
{
	((struct msg_header *)msg)->seq = seq;
	if (msg_send(fake_sock, msg, length, type, -1) < 0)
		_exit(11);
}

void fake_say_text(enum msg_type type, uint32_t seq, int result,
		   const char *text)
{
	struct msg_text msg = { .h.result = result };

	snprintf(msg.text, sizeof(msg.text), "%s", text);
	fake_say(&msg, sizeof(msg), type, seq);
}

const struct msg_header *fake_hear(int *ret_fd)
{
	size_t length;
	int r = msg_receive(fake_sock, fake_buf, &length, ret_fd);

	if (r < 0)
		_exit(r == -ECONNRESET ? 0 : 12);
	return (const struct msg_header *)fake_buf;
}

/* --- What it is made of: fake(BEHAVIOUR, file=PATH) --------------------------- */

static struct xd_param fake_params[] = {
	{ "behaviour", XD_STRING, XD_POSITIONAL | XD_REQUIRED, NULL, NULL, "" },
	{ "file", XD_PATH, 0, NULL, NULL, "" },
	{ .type = XD_END },
};
static char fake_name[] = "fake";
static const struct backend_info fake_info = { .name = fake_name,
					       .summary = fake_name,
					       .params = fake_params,
					       .nr_params = 2 };

static const struct backend_info *find_fake(void *ctx, const char *name)
{
	(void)ctx;
	return strcmp(name, "fake") == 0 ? &fake_info : NULL;
}

struct expr_env broker_expr_env(struct broker *broker)
{
	return (struct expr_env){ .ctx = broker,
				  .backend = find_fake,
				  .scheme = find_fake };
}

/* --- The listener ------------------------------------------------------------- */

void note(struct seen *seen, const char *event, int err, const char *text)
{
	seen->any = true;
	seen->event = event;
	seen->err = err;
	snprintf(seen->text, sizeof(seen->text), "%s", text);
}

static void on_opened(void *ctx, int err, const struct msg_opened *opened,
		      const char *why)
{
	assert_true((err == 0) == (opened != NULL));
	note(ctx, "opened", err, opened ? opened->notes : why);
}

static void on_connected(void *ctx, int err, const char *why)
{
	note(ctx, "connected", err, why);
}

static void on_disconnected(void *ctx, int err, const char *why)
{
	note(ctx, "disconnected", err, why);
}

static void on_resumed(void *ctx, int err, const char *why)
{
	note(ctx, "resumed", err, why);
}

static void on_broken(void *ctx, const char *why)
{
	note(ctx, "broken", 0, why);
}

static void on_condition(void *ctx, enum msg_condition_kind kind, bool set,
			 const char *reason)
{
	struct seen *seen = ctx;

	(void)reason;
	if (kind == MSG_POISONED)
		seen->poisoned = set;
	else if (kind == MSG_PAUSED)
		seen->paused = set;
}

static void on_died(void *ctx, const char *how)
{
	note(ctx, "died", 0, how);
}

static void on_resized(void *ctx, int err, const char *why)
{
	note(ctx, "resized", err, why);
}

static void on_grew(void *ctx, uint64_t size)
{
	struct seen *seen = ctx;

	seen->size = size;
}

static void on_controlled(void *ctx, int err, const char *text)
{
	note(ctx, "controlled", err, text);
}

static void on_changed(void *ctx, uint32_t layer, const char *commit,
		       const char *text)
{
	struct seen *seen = ctx;

	seen->changes++;
	seen->layer = layer;
	snprintf(seen->commit, sizeof(seen->commit), "%s", commit);
	snprintf(seen->now, sizeof(seen->now), "%s", text);
}

const struct worker_events supervise_events = {
	on_opened, on_connected,  on_disconnected, on_resumed,
	on_broken, on_condition,  on_died,	   on_resized,
	on_grew,   on_controlled, on_changed,
};

void expect(struct seen *seen, const char *event, int err)
{
	assert_true(fixture_run(seen->fixture, &seen->any));
	assert_string_equal(seen->event, event);
	assert_int_equal(seen->err, err);
	seen->any = false;
}

struct seen *start_as(void **state, bool read_only, const char *fmt, ...)
{
	struct seen *seen = *state;
	char expression[512];
	struct worker_spec spec = { .id = { 5, 51728, 0, "vm" },
				    .read_only = read_only,
				    .expression = expression,
				    .ctx = seen };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(expression, sizeof(expression), fmt, ap);
	va_end(ap);
	assert_int_equal(worker_new(&seen->worker, &seen->fixture->broker,
				    &spec, &supervise_events),
			 0);
	assert_int_equal(worker_open(seen->worker), 0);
	assert_int_not_equal(worker_pid(seen->worker), 0);
	assert_int_equal(worker_open(seen->worker), -EALREADY);
	return seen;
}

int supervise_setup(void **state)
{
	struct seen *seen = calloc(1, sizeof(*seen));

	seen->fixture = fixture_new();
	assert_int_equal(supervisor_new(&seen->fixture->broker.supervisor,
					&seen->fixture->broker),
			 0);
	*state = seen;
	return 0;
}

int supervise_teardown(void **state)
{
	struct seen *seen = *state;

	worker_free(seen->worker);
	supervisor_free(seen->fixture->broker.supervisor);
	fixture_free(seen->fixture);
	free(seen);
	return 0;
}
