/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tmem.c - a backend for tests of the stack: memory, and every fault that the
 * host must notice.  `trace` tells the test what was called, in order.
 */
#include "xendisk-backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRACE_MAX 4096
/* Found by dlsym(). */
extern XD_API char trace[];
char trace[TRACE_MAX];

#define WAITING 64

/* A channel's requests until their kick, and a timer for those of `when=timer`.
 */
struct lane {
	struct xd_request *req[WAITING];
	unsigned int nr;
	struct xd_sys timer, poll;
	int pipe[2];
	int polled; /* what the poll ended with */
};

struct tmem {
	unsigned char *memory;
	const char *name;
};

static struct tmem *tmem_of(const struct xd_disk *disk)
{
	return disk->data;
}

static void note(const char *what, const struct xd_disk *disk)
{
	size_t used = strlen(trace);
	const char *name = xd_arg_string(disk, "name");

	snprintf(trace + used, TRACE_MAX - used, "%s(%s) ", what,
		 name ? name : "");
}

static int fails(struct xd_disk *disk, const char *where)
{
	const char *fail = xd_arg_string(disk, "fail");

	if (strcmp(fail, where) != 0)
		return 0;
	xd_error(disk, "%s fails as told", where);
	return -EBUSY;
}

static void spoil(struct xd_limits *l, const char *how)
{
	if (strcmp(how, "sector") == 0)
		l->sector_size = 500;
	else if (strcmp(how, "size") == 0)
		l->size += 1;
	else if (strcmp(how, "zero") == 0)
		l->size = 0;
	else if (strcmp(how, "physical") == 0)
		l->physical_sector_size = 700;
	else if (strcmp(how, "discard") == 0)
		l->discard_granularity = 100;
	else if (strcmp(how, "alignment") == 0)
		l->discard_alignment = l->discard_granularity;
	else if (strcmp(how, "memory") == 0)
		l->memory_alignment = 3;
	else if (strcmp(how, "transfer") == 0)
		l->max_transfer = 100;
}

/* path=, keep= and budget= try the services of the host. */
static int use_services(struct xd_disk *disk)
{
	int64_t budget = (int64_t)xd_arg_u64(disk, "budget");
	unsigned char byte = 0;
	bool kept;
	int fd;

	if (xd_arg_set(disk, "path")) {
		fd = xd_open(disk, "path", O_RDONLY);
		if (fd < 0)
			return fd;
		close(fd);
	}
	if (xd_arg_bool(disk, "keep")) {
		fd = xd_keep(disk, "state", XD_KEEP_STATE, 100, &kept);
		if (fd < 0)
			return fd;
		if (pread(fd, &byte, 1, 50) != 1)
			byte = 99;
		xd_note(disk, "kept %d, byte %d", kept, byte);
		byte++;
		if (pwrite(fd, &byte, 1, 50) != 1)
			return -EIO;
		close(fd);
	}
	if (budget)
		xd_note(disk, "budget %d", xd_budget(disk, budget));
	return 0;
}

static int tmem_open(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	struct tmem *tmem;
	struct xd_limits limits = { .size = xd_arg_u64(disk, "size"),
				    .sector_size = 512,
				    .discard_granularity = 4096,
				    .max_channels = 2,
				    .readonly = xd_arg_bool(disk, "frozen"),
				    .flush = xd_arg_bool(disk, "flush") };
	int r;

	note("open", disk);
	if (strcmp(xd_arg_string(disk, "fail"), "mute") == 0)
		return -ENODEV;
	r = fails(disk, "open");
	if (r == 0)
		r = use_services(disk);
	if (r < 0)
		return r;
	spoil(&limits, xd_arg_string(disk, "spoil"));
	tmem = calloc(1, sizeof(*tmem));
	if (!tmem)
		return -ENOMEM;
	tmem->memory = calloc(1, limits.size + 1);
	tmem->name = xd_arg_string(disk, "name");
	disk->data = tmem;
	if (tmem->name)
		xd_identify(disk, "test:%s", tmem->name);
	xd_note(disk, "%s", xd_readonly(disk) ? "only read" : "written");
	*ret_limits = limits;
	return 0;
}

static void tmem_close(struct xd_disk *disk)
{
	note("close", disk);
	free(tmem_of(disk)->memory);
	free(tmem_of(disk));
}

static int tmem_activate(struct xd_disk *disk, bool recover)
{
	note(recover ? "recover" : "activate", disk);
	return fails(disk, "activate");
}

static int tmem_deactivate(struct xd_disk *disk)
{
	note("deactivate", disk);
	return fails(disk, "deactivate");
}

static void poll_done(struct xd_sys *sys, int64_t res)
{
	struct lane *lane =
		(struct lane *)((char *)sys - offsetof(struct lane, poll));

	lane->polled = (int)res;
}

static int tmem_channel_open(struct xd_channel *ch)
{
	struct lane *lane;

	note("channel_open", ch->disk);
	if (fails(ch->disk, "channel"))
		return -EBUSY;
	lane = calloc(1, sizeof(*lane));
	if (!lane || pipe(lane->pipe) < 0)
		return -ENOMEM;
	/* It never comes true: the host has to end it. */
	lane->poll = (struct xd_sys){ .op = XD_SYS_POLL,
				      .fd = lane->pipe[0],
				      .flags = 1,
				      .done = poll_done };
	xd_sys(ch, &lane->poll);
	ch->data = lane;
	return 0;
}

static void tmem_channel_close(struct xd_channel *ch)
{
	struct lane *lane = ch->data;

	note(lane->polled == -ECANCELED ? "channel_close" : "poll_not_ended",
	     ch->disk);
	close(lane->pipe[0]);
	close(lane->pipe[1]);
	free(lane);
}

static void copy(struct tmem *tmem, const struct xd_request *req)
{
	unsigned char *at = tmem->memory + req->offset;

	for (unsigned int i = 0; i < req->iovcnt; i++) {
		if (req->op == XD_READ)
			memcpy(req->iov[i].iov_base, at, req->iov[i].iov_len);
		else
			memcpy(at, req->iov[i].iov_base, req->iov[i].iov_len);
		at += req->iov[i].iov_len;
	}
}

static void execute(struct xd_channel *ch, struct xd_request *req)
{
	struct tmem *tmem = tmem_of(ch->disk);

	if (req->op == XD_READ || req->op == XD_WRITE)
		copy(tmem, req);
	else if (req->op == XD_DISCARD)
		memset(tmem->memory + req->offset, 0, req->length);
	xd_complete(req, 0);
}

static void run_waiting(struct xd_channel *ch)
{
	struct lane *lane = ch->data;
	unsigned int nr = lane->nr;

	lane->nr = 0;
	for (unsigned int i = 0; i < nr; i++)
		execute(ch, lane->req[i]);
}

/* The channel travels in a member that a timer has no use for. */
static void timer_done(struct xd_sys *sys, int64_t res)
{
	if (res == 0)
		run_waiting((struct xd_channel *)(uintptr_t)sys->offset);
}

static void tmem_submit(struct xd_channel *ch, struct xd_request *req)
{
	const char *when = xd_arg_string(ch->disk, "when");
	struct lane *lane = ch->data;

	if (strcmp(when, "now") == 0) {
		execute(ch, req);
		return;
	}
	lane->req[lane->nr++] = req;
	if (strcmp(when, "timer") == 0 && lane->nr == 1) {
		lane->timer = (struct xd_sys){ .op = XD_SYS_TIMER,
					       .length = 1000000,
					       .offset = (uintptr_t)ch,
					       .done = timer_done };
		xd_sys(ch, &lane->timer);
	}
}

static void tmem_kick(struct xd_channel *ch)
{
	note("kick", ch->disk);
	if (strcmp(xd_arg_string(ch->disk, "when"), "kick") == 0)
		run_waiting(ch);
}

static int tmem_map(struct xd_channel *ch, struct xd_request *req,
		    struct iovec *ret_iov, unsigned int *io_iovcnt)
{
	note("map", ch->disk);
	if (!xd_arg_bool(ch->disk, "lend"))
		return -EOPNOTSUPP;
	ret_iov[0].iov_base = tmem_of(ch->disk)->memory + req->offset;
	ret_iov[0].iov_len = req->length;
	*io_iovcnt = 1;
	return 0;
}

static void tmem_unmap(struct xd_channel *ch, struct xd_request *req, int err)
{
	(void)req;
	note(err ? "unmap_failed" : "unmap", ch->disk);
}

/* grow= says what becomes of it. */
static int tmem_resize(struct xd_disk *disk, uint64_t size, uint64_t *ret_size)
{
	const char *grow = xd_arg_string(disk, "grow");

	note("resize", disk);
	if (strcmp(grow, "fail") == 0)
		return -EIO;
	*ret_size = size ? size : disk->limits.size;
	if (strcmp(grow, "smaller") == 0)
		*ret_size = disk->limits.size - 512;
	else if (strcmp(grow, "odd") == 0)
		*ret_size += 1;
	else if (strcmp(grow, "endless") == 0)
		*ret_size = 1ull << 63;
	return 0;
}

static void tmem_resized(struct xd_disk *disk)
{
	struct tmem *tmem = tmem_of(disk);

	note("resized", disk);
	tmem->memory = realloc(tmem->memory, disk->limits.size + 1);
}

static const struct xd_param params[] = {
	{ "size", XD_SIZE,
	  XD_POSITIONAL | XD_WHOLE_SECTORS | XD_SIZE_OF_SIBLING, NULL, NULL,
	  "bytes" },
	{ "name", XD_STRING, 0, NULL, NULL, "what the trace calls it" },
	{ "when", XD_ENUM, 0, "now|kick|timer", "now",
	  "when requests complete" },
	{ "fail", XD_ENUM, 0, "none|open|mute|activate|deactivate|channel",
	  "none", "what fails" },
	{ "spoil", XD_ENUM, 0,
	  "none|sector|size|zero|physical|discard|alignment|memory|transfer",
	  "none", "which limit is wrong" },
	{ "grow", XD_ENUM, 0, "well|fail|smaller|odd|endless", "well",
	  "how resize() ends" },
	{ "flush", XD_BOOL, 0, NULL, "yes", "needs flushes" },
	{ "frozen", XD_BOOL, 0, NULL, "no", "turns out to be read-only" },
	{ "lend", XD_BOOL, 0, NULL, "no", "map() works" },
	{ "path", XD_PATH, 0, NULL, NULL, "opened and closed" },
	{ "keep", XD_BOOL, 0, NULL, "no", "keeps a counter" },
	{ "budget", XD_SIZE, 0, NULL, NULL, "asked for" },
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

const struct xd_backend xendisk_backend_v1 = {
	.size = sizeof(struct xd_backend),
	.version = XD_API_VERSION,
	.name = "tmem",
	.summary = "memory for tests",
	.params = params,
	.open = tmem_open,
	.close = tmem_close,
	.activate = tmem_activate,
	.deactivate = tmem_deactivate,
	.channel_open = tmem_channel_open,
	.channel_close = tmem_channel_close,
	.submit = tmem_submit,
	.kick = tmem_kick,
	.extents = tmem_submit,
	.map = tmem_map,
	.unmap = tmem_unmap,
	.resize = tmem_resize,
	.resized = tmem_resized,
};
