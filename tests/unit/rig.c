/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "rig.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "common/util.h"

/* --- The rig ------------------------------------------------------------- */

void rig_new(struct rig *rig, bool uring)
{
	const char *tmp = getenv("TMPDIR");

	memset(rig, 0, sizeof(*rig));
	rig->uring = uring;
	rig->backend_dir = TEST_BACKENDS;
	snprintf(rig->images, sizeof(rig->images), "%s/xendisk-rig-XXXXXX",
		 tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(rig->images));
	snprintf(rig->state, sizeof(rig->state), "%s/state", rig->images);
	rig->broker = fake_broker_new();
	rig_limit(rig, INT64_MAX, 0);
}

void rig_free(struct rig *rig)
{
	cleanup_free char *command = xasprintf("rm -rf '%s'", rig->images);

	if (rig->stack)
		rig_die(rig);
	fake_broker_free(rig->broker);
	assert_int_equal(system(command), 0);
}

void rig_limit(struct rig *rig, int64_t limit, int64_t charge)
{
	rig->limit = limit;
	fake_broker_state(rig->broker)->budget = limit - charge;
}

int64_t rig_charge(const struct rig *rig)
{
	return rig->limit - fake_broker_state(rig->broker)->budget;
}

const char *rig_file(struct rig *rig, const char *name, uint64_t size)
{
	static char path[2][128];
	static unsigned int turn;
	char *p = path[turn++ % 2];

	snprintf(p, sizeof(path[0]), "%s/%s", rig->images, name);
	if (size) {
		cleanup_close int fd = open(p, O_RDWR | O_CREAT, 0600);

		assert_true(fd >= 0);
		assert_int_equal(ftruncate(fd, (off_t)size), 0);
	}
	return p;
}

static int open_lanes(struct rig *rig, unsigned int lanes)
{
	int r = 0;

	for (unsigned int i = 0; i < lanes && r == 0; i++) {
		r = engine_new(&rig->engine[i], 64, rig->uring);
		assert_int_equal(r, 0);
		r = stack_channel_open(rig->stack, rig->engine[i], i,
				       &rig->top[i], rig->why);
	}
	return r;
}

static void expand(struct rig *rig, const char *expression)
{
	char *to = rig->expression;
	const char *end = to + sizeof(rig->expression);

	for (const char *p = expression; *p; p++)
		to += snprintf(to, (size_t)(end - to), "%.*s",
			       *p == '@' ? (int)sizeof(rig->images) : 1,
			       *p == '@' ? rig->images : p);
}

static int open_stack(struct rig *rig, unsigned int lanes,
		      const char *expression, bool read_only, bool recover)
{
	const struct stack_spec spec = { .expression = rig->expression,
					 .read_only = read_only,
					 .backend_dir = rig->backend_dir,
					 .state_dir = rig->state };
	int r;

	expand(rig, expression);
	rig->why[0] = '\0';
	if (fake_broker_grant(rig->broker, rig->expression, rig->backend_dir) <
	    0)
		fail_msg("%s is wrong", rig->expression);
	rig->services = fake_broker_connect(rig->broker);
	r = stack_open(&rig->stack, &spec, rig->services, rig->why);
	if (r < 0) {
		rig->stack = NULL;
		services_free(TAKE_PTR(rig->services));
		return r;
	}
	r = open_lanes(rig, lanes);
	if (rig->before_activate)
		rig->before_activate(rig);
	if (r == 0)
		r = stack_activate(rig->stack, recover, rig->why);
	if (r < 0)
		rig_die(rig);
	return r;
}

int rig_open(struct rig *rig, unsigned int lanes, const char *expression)
{
	return open_stack(rig, lanes, expression, false, false);
}

int rig_open_read_only(struct rig *rig, const char *expression)
{
	return open_stack(rig, 1, expression, true, false);
}

int rig_recover(struct rig *rig, unsigned int lanes, const char *expression)
{
	return open_stack(rig, lanes, expression, false, true);
}

int rig_resize(struct rig *rig, uint64_t size)
{
	int r = stack_resize(rig->stack, size, rig->why);

	if (stack_unsettled(rig->stack))
		stack_settle(rig->stack);
	return r;
}

uint64_t rig_size(const struct rig *rig)
{
	return stack_limits(rig->stack)->size;
}

void rig_die(struct rig *rig)
{
	for (unsigned int i = 0; i < RIG_LANES; i++) {
		if (rig->top[i])
			stack_channel_close(TAKE_PTR(rig->top[i]));
		if (rig->engine[i])
			engine_free(TAKE_PTR(rig->engine[i]));
	}
	stack_close(TAKE_PTR(rig->stack));
	services_free(TAKE_PTR(rig->services));
}

int rig_close(struct rig *rig)
{
	int r = stack_deactivate(rig->stack, rig->why);

	rig_die(rig);
	return r;
}

void rig_detach(struct rig *rig)
{
	cleanup_free char *command =
		xasprintf("rm -f '%s'/*", fake_broker_dir(rig->broker));

	assert_int_equal(system(command), 0);
	rig_limit(rig, rig->limit, 0);
}

const char *rig_kept(struct rig *rig, unsigned int layer, const char *name)
{
	static char path[2][128];
	static unsigned int turn;
	char *p = path[turn++ % 2];

	snprintf(p, sizeof(path[0]), "%s/%u.%s", fake_broker_dir(rig->broker),
		 layer, name);
	return p;
}

/* --- Requests ------------------------------------------------------------ */

static void op_done(struct xd_request *req, int err)
{
	struct rig_op *op = req->owner;

	assert_false(op->done);
	op->err = err;
	op->done = true;
}

/* In small pieces first, the rest in one, as a guest's segments. */
static void cut(struct rig_op *op, uint64_t length, char *buf, uint64_t least)
{
	while (length > 0) {
		uint64_t n = length;

		if (op->req.iovcnt + 1 < ARRAY_SIZE(op->iov))
			n = MIN(length, least << op->req.iovcnt);
		op->iov[op->req.iovcnt++] = (struct iovec){ buf, n };
		buf += n;
		length -= n;
	}
}

void rig_start(struct rig *rig, unsigned int lane, struct rig_op *op,
	       enum xd_op kind, uint32_t flags, uint64_t offset,
	       uint64_t length, void *buf)
{
	memset(op, 0, sizeof(*op));
	op->req.op = kind;
	op->req.flags = flags;
	op->req.offset = offset;
	op->req.length = length;
	op->req.iov = op->iov;
	op->req.owner = op;
	op->req.done = op_done;
	if (kind == XD_READ || kind == XD_WRITE)
		cut(op, length, buf,
		    MAX(stack_limits(rig->stack)->memory_alignment, 512u));
	xd_submit(rig->top[lane], &op->req);
}

static bool all_done(const struct rig_op *ops, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		if (!ops[i].done)
			return false;
	return true;
}

void rig_wait(struct rig *rig, unsigned int lane, struct rig_op *ops,
	      unsigned int n)
{
	uint64_t deadline = now_ns() + 120000000000ull; /* of a busy machine */

	stack_kick(rig->top[lane]);
	for (;;) {
		while (stack_reap(rig->top[lane]))
			;
		if (all_done(ops, n))
			return;
		assert_true(now_ns() < deadline);
		assert_true(engine_run(rig->engine[lane], 1000000000) >= 0);
	}
}

int rig_io(struct rig *rig, unsigned int lane, enum xd_op kind, uint32_t flags,
	   uint64_t offset, uint64_t length, void *buf)
{
	struct rig_op op;

	rig_start(rig, lane, &op, kind, flags, offset, length, buf);
	rig_wait(rig, lane, &op, 1);
	return op.err;
}

int rig_map_io(struct rig *rig, unsigned int lane, enum xd_op kind,
	       uint64_t offset, uint64_t length, void *buf)
{
	struct xd_request req = { .op = kind,
				  .offset = offset,
				  .length = length };
	struct iovec iov[RIG_IOVS];
	unsigned int n = RIG_IOVS;
	char *p = buf;
	int r = xd_map(rig->top[lane], &req, iov, &n);

	if (r < 0)
		return r;
	for (unsigned int i = 0; i < n; p += iov[i++].iov_len)
		if (kind == XD_READ)
			memcpy(p, iov[i].iov_base, iov[i].iov_len);
		else
			memcpy(iov[i].iov_base, p, iov[i].iov_len);
	xd_unmap(rig->top[lane], &req, 0);
	return 0;
}

/* --- The model ----------------------------------------------------------- */

#define BURST	16
#define LONGEST (64u << 10)

/* xorshift64 */
static uint64_t draw(struct rig_model *model, uint64_t below)
{
	model->seed ^= model->seed << 13;
	model->seed ^= model->seed >> 7;
	model->seed ^= model->seed << 17;
	return model->seed % below;
}

struct run {
	struct rig_model *model;
	const struct xd_limits *limits;
	unsigned char *undefined; /* per sector */
	unsigned char *claimed; /* per sector, in this burst */
	unsigned char *buf; /* BURST * LONGEST */
	unsigned int wrong; /* sectors */
	struct rig_op ops[BURST];
};

static enum xd_op draw_op(struct run *run)
{
	static const enum xd_op often[] = { XD_READ,  XD_READ,	 XD_READ,
					    XD_WRITE, XD_WRITE,	 XD_WRITE,
					    XD_ZERO,  XD_DISCARD };
	enum xd_op op = often[draw(run->model, ARRAY_SIZE(often))];

	if (run->limits->readonly || (op == XD_ZERO && !run->limits->zero) ||
	    (op == XD_DISCARD &&
	     (!run->limits->discard_granularity || run->model->no_discard)))
		return XD_READ;
	return op;
}

/* A range that nothing in this burst touches; false: there is none. */
static bool draw_range(struct run *run, uint64_t *ret_offset,
		       uint64_t *ret_length)
{
	struct rig_model *model = run->model;
	uint32_t sector = run->limits->sector_size;
	uint64_t sectors = run->limits->size / sector;
	uint64_t first = draw(model, sectors);
	uint64_t n = 1 + draw(model, draw(model, 2) ? 8 : LONGEST / sector);

	if (model->share > 1) {
		first = first / model->share * model->share + model->lane;
		n = 1;
	}
	if (first >= sectors)
		return false;
	n = MIN(n, sectors - first);
	for (uint64_t s = first; s < first + n; s++)
		if (run->claimed[s])
			return false;
	memset(run->claimed + first, 1, n);
	*ret_offset = first * sector;
	*ret_length = n * sector;
	return true;
}

static void start_one(struct run *run, unsigned int i)
{
	struct rig_model *model = run->model;
	unsigned char *buf = run->buf + (size_t)i * LONGEST;
	struct rig_op *op = &run->ops[i];
	enum xd_op kind = draw_op(run);
	uint64_t offset, length;
	uint32_t flags = 0;

	memset(op, 0, sizeof(*op));
	op->done = true;
	op->req.length = 0;
	if (!draw_range(run, &offset, &length))
		return;
	if (kind == XD_WRITE)
		for (uint64_t b = 0; b < length; b++)
			buf[b] = (unsigned char)draw(model, 256);
	if (kind == XD_READ)
		memset(buf, 0xa5, length);
	if (kind == XD_WRITE && run->limits->fua && draw(model, 64) == 0)
		flags = XD_FUA;
	if (kind == XD_ZERO && draw(model, 2))
		flags = XD_NO_HOLE;
	if ((kind == XD_READ || kind == XD_WRITE) && draw(model, 2) &&
	    rig_map_io(model->rig, model->lane, kind, offset, length, buf) ==
		    0) {
		op->req.op = kind;
		op->req.offset = offset;
		op->req.length = length;
		return;
	}
	rig_start(model->rig, model->lane, op, kind, flags, offset, length,
		  buf);
}

static void check_read(struct run *run, uint64_t offset, uint64_t length,
		       const unsigned char *buf)
{
	uint32_t sector = run->limits->sector_size;

	for (uint64_t at = 0; at < length; at += sector)
		if (!run->undefined[(offset + at) / sector] &&
		    memcmp(buf + at, run->model->content + offset + at,
			   sector) != 0)
			run->wrong++;
}

static void settle_one(struct run *run, unsigned int i)
{
	const unsigned char *buf = run->buf + (size_t)i * LONGEST;
	const struct rig_op *op = &run->ops[i];
	uint64_t offset = op->req.offset, length = op->req.length;
	uint32_t sector = run->limits->sector_size;

	if (length == 0)
		return;
	assert_int_equal(op->err, 0);
	if (op->req.op == XD_READ) {
		check_read(run, offset, length, buf);
		return;
	}
	if (op->req.op == XD_WRITE)
		memcpy(run->model->content + offset, buf, length);
	else
		memset(run->model->content + offset, 0, length);
	memset(run->undefined + offset / sector,
	       op->req.op == XD_DISCARD && !run->model->discard_zeroes,
	       length / sector);
}

unsigned int rig_model_run(struct rig_model *model)
{
	const struct xd_limits *limits = stack_limits(model->rig->stack);
	uint64_t sectors = limits->size / limits->sector_size;
	struct run run = { .model = model, .limits = limits };

	run.undefined = calloc(sectors, 1);
	run.claimed = calloc(sectors, 1);
	run.buf = aligned_alloc(4096, (size_t)BURST * LONGEST);
	for (unsigned int burst = 0; burst < model->bursts; burst++) {
		memset(run.claimed, 0, sectors);
		for (unsigned int i = 0; i < BURST; i++)
			start_one(&run, i);
		rig_wait(model->rig, model->lane, run.ops, BURST);
		for (unsigned int i = 0; i < BURST; i++)
			settle_one(&run, i);
		if (burst % 16 == 0 && limits->flush)
			assert_int_equal(rig_io(model->rig, model->lane,
						XD_FLUSH, 0, 0, 0, NULL),
					 0);
	}
	free(run.undefined);
	free(run.claimed);
	free(run.buf);
	return run.wrong;
}
