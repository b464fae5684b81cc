/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-worker.c - a worker in the hands of its guest, as the broker hears it.
 *
 * Input: at which event the disk is given up, and then what the worker says and
 * what the broker wants of it, in any order.  Each question has at most one
 * answer, in the state that is for it; what is told has been checked; a message
 * that cannot be one is the worker's death; and after its death nothing comes.
 */
#define _GNU_SOURCE
#include "config.h"

#include "fuzz.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker-fixture.h"
#include "broker/process.h"
#include "broker/supervise.h"
#include "common/log.h"
#include "expr-env.h"

#define PID    4242
#define ROUNDS 4

/* What has been asked and not been answered; what is known. */
static struct {
	struct worker *worker;
	bool opening, open, connecting, disconnecting, resuming, resizing;
	bool hello; /* was sent */
	uint64_t size; /* as it was told */
	unsigned int events, give_up_at;
} seen;

/* --- In place of processes ----------------------------------------------------------- */

static struct process {
	struct process_spec spec;
	int sock; /* its end; -1: closed */
	bool alive, forgotten;
} the_process = { .sock = -1, .forgotten = true };

int process_start(struct process **ret, struct supervisor *supervisor,
		  const struct process_spec *spec)
{
	(void)supervisor;
	the_process = (struct process){ .spec = *spec,
					.sock = dup(spec->sock),
					.alive = true };
	*ret = &the_process;
	return 0;
}

void process_kill(struct process *process)
{
	if (process)
		process->alive = false;
}

void process_forget(struct process *process)
{
	if (process)
		process->forgotten = true;
}

pid_t process_pid(const struct process *process)
{
	(void)process;
	return PID;
}

uint32_t process_uid(const struct process *process)
{
	(void)process;
	return 0;
}

int process_note(const struct process *process, struct orphan_note *note)
{
	(void)process;
	(void)note;
	return 0;
}

struct process *process_claim(struct supervisor *supervisor,
			      const struct process_spec *spec)
{
	(void)supervisor;
	(void)spec;
	return NULL;
}

int process_call(struct process *process, struct orphan_note *ret_note)
{
	(void)process;
	(void)ret_note;
	return -ESRCH;
}

bool supervisor_is_stopping(const struct supervisor *supervisor)
{
	(void)supervisor;
	return false;
}

struct expr_env broker_expr_env(struct broker *broker)
{
	(void)broker;
	return expr_env;
}

/* --- The events ---------------------------------------------------------------------- */

/* As a disk that is detached does, from within an event. */
static void count_event(void)
{
	HOLDS(seen.worker, "nothing comes for a worker that was freed");
	if (++seen.events != seen.give_up_at)
		return;
	worker_free(seen.worker);
	seen.worker = NULL;
}

static void forget_questions(void)
{
	seen.opening = seen.open = false;
	seen.connecting = seen.disconnecting = false;
	seen.resuming = seen.resizing = false;
}

static void check_opened(const struct msg_opened *opened)
{
	const struct xd_limits *limits = &opened->limits;

	HOLDS(limits->sector_size >= 512 && limits->sector_size <= 4096 &&
		      (limits->sector_size & (limits->sector_size - 1)) == 0,
	      "sectors of %u", limits->sector_size);
	HOLDS(limits->size > 0 && limits->size <= INT64_MAX &&
		      limits->size % limits->sector_size == 0,
	      "a size");
	HOLDS(opened->max_rings >= 1 && opened->max_rings <= XD_MAX_RINGS &&
		      opened->max_ring_order <= XD_MAX_RING_ORDER,
	      "rings");
	HOLDS(opened->nr_identities <= MSG_MAX_IDENTITIES, "identities");
	for (uint32_t i = 0; i < opened->nr_identities; i++) {
		const char *text = opened->identity[i];

		HOLDS(text[0], "identity %u", i);
		for (; *text; text++)
			HOLDS((unsigned char)*text >= ' ' && *text != 0x7f,
			      "identity %u", i);
	}
	HOLDS(strnlen(opened->notes, MSG_NOTES_MAX) < MSG_NOTES_MAX, "notes");
	seen.size = limits->size;
}

static void on_opened(void *ctx, int err, const struct msg_opened *opened,
		      const char *why)
{
	(void)ctx;
	HOLDS(seen.opening, "it was asked for");
	HOLDS((err == 0) == (opened != NULL) && err <= 0, "%d", err);
	HOLDS(why, "a sentence");
	forget_questions();
	seen.open = err == 0;
	if (opened)
		check_opened(opened);
	count_event();
}

#define ANSWER(name, question)                                       \
	static void name(void *ctx, int err, const char *why)        \
	{                                                            \
		(void)ctx;                                           \
		(void)err;                                           \
		HOLDS(seen.question, "it was asked for");            \
		HOLDS(why &&strlen(why) < MSG_TEXT_MAX, "sentence"); \
		seen.question = false;                               \
		count_event();                                       \
	}
ANSWER(on_connected, connecting)
ANSWER(on_disconnected, disconnecting)
ANSWER(on_resumed, resuming)
ANSWER(on_resized, resizing)

static void on_broken(void *ctx, const char *why)
{
	(void)ctx;
	HOLDS(seen.open && strlen(why) < MSG_TEXT_MAX, "while it is open");
	count_event();
}

static void on_condition(void *ctx, enum msg_condition_kind kind, bool set,
			 const char *reason)
{
	(void)ctx;
	(void)set;
	HOLDS(kind < MSG_NR_CONDITIONS, "condition %d", (int)kind);
	HOLDS(strlen(reason) < MSG_TEXT_MAX, "a reason");
	HOLDS(seen.opening || seen.open || !set, "while it lives");
}

static void on_grew(void *ctx, uint64_t size)
{
	(void)ctx;
	HOLDS(seen.open, "while it is open");
	HOLDS(size > seen.size && size <= INT64_MAX && size % 512 == 0,
	      "a size");
	seen.size = size;
	count_event();
}

static void on_died(void *ctx, const char *how)
{
	(void)ctx;
	HOLDS(seen.open, "an open that failed is told as that");
	HOLDS(how[0], "a sentence");
	forget_questions();
	count_event();
}

static const struct worker_events events = {
	.opened = on_opened,
	.connected = on_connected,
	.disconnected = on_disconnected,
	.resumed = on_resumed,
	.broken = on_broken,
	.condition = on_condition,
	.died = on_died,
	.resized = on_resized,
	.grew = on_grew,
};

/* --- The broker ---------------------------------------------------------------------- */

static struct fixture *fixture;

static void stop(void)
{
	fixture_free(fixture);
	expr_env_free();
}

void fuzz_leave(void)
{
	fixture_free(fixture);
}

static void start(void)
{
	log_init("fuzz-worker", LOG_LEVEL_ERROR);
	HOLDS(expr_env_make() == 0, "own backends");
	fixture = fixture_new();
	(void)atexit(stop);
}

static void turn(void)
{
	for (int i = 0; i < ROUNDS; i++) {
		(void)event_base_loop(fixture->broker.base, EVLOOP_NONBLOCK);
		if (the_process.alive || the_process.forgotten)
			continue;
		/* Reaped, once. */
		the_process.forgotten = true;
		if (the_process.sock >= 0)
			(void)close(the_process.sock);
		the_process.sock = -1;
		the_process.spec.exited(the_process.spec.ctx, SIGKILL);
	}
}

static bool lives(void)
{
	return the_process.alive && !the_process.forgotten &&
	       the_process.sock >= 0;
}

static void ask(struct input *in, uint8_t what)
{
	struct msg_connect connect = { .nr_rings = 1 };

	switch (what & 3) {
	case 0:
		if (worker_connect(seen.worker, &connect) == 0)
			seen.connecting = true;
		break;
	case 1:
		if (worker_disconnect(seen.worker) == 0) {
			seen.disconnecting = true;
			seen.connecting = false;
		}
		break;
	case 2:
		if (worker_resume(seen.worker, what & 4) == 0)
			seen.resuming = true;
		break;
	default:
		if (worker_resize(seen.worker, input_u32(in)) == 0)
			seen.resizing = true;
	}
}

/* --- The worker ---------------------------------------------------------------------- */

static const struct {
	uint16_t type;
	uint16_t question;
	size_t size;
} shapes[] = {
	{ MSG_HELLO, 0, sizeof(struct msg_hello) },
	{ MSG_OPENED, MSG_OPEN, sizeof(struct msg_opened) },
	{ MSG_CONNECTED, MSG_CONNECT, sizeof(struct msg_header) },
	{ MSG_DISCONNECTED, MSG_DISCONNECT, sizeof(struct msg_text) },
	{ MSG_RESUMED, MSG_RESUME, sizeof(struct msg_text) },
	{ MSG_FAILED, MSG_CONNECT, sizeof(struct msg_text) },
	{ MSG_FAILED, MSG_OPEN, sizeof(struct msg_text) },
	{ MSG_BROKEN, 0, sizeof(struct msg_text) },
	{ MSG_CONDITION, 0, sizeof(struct msg_condition) },
	{ MSG_SERVICE, 0, sizeof(struct msg_service) },
	{ MSG_GREW, 0, sizeof(struct msg_grew) },
	{ MSG_RESIZED, MSG_RESIZE, sizeof(struct msg_text) },
	{ MSG_SERVING, MSG_OPEN, sizeof(struct msg_serving) },
	{ MSG_OPEN, 0, sizeof(struct msg_open) },
	{ MSG_REACHED, 0, sizeof(struct msg_text) },
	{ MSG_CLIENT_TAKEN, 0, sizeof(struct msg_text) },
};

static uint32_t asked[128]; /* seq of the last question of that type */

/* What the broker has asked meanwhile. */
static void listen_to_broker(void)
{
	_Alignas(max_align_t) static unsigned char buf[MSG_MAX];
	const struct msg_header *header = (const void *)buf;
	ssize_t n;

	while ((n = recv(the_process.sock, buf, sizeof(buf), MSG_DONTWAIT)) >=
	       (ssize_t)sizeof(*header))
		if (header->type < ARRAY_SIZE(asked))
			asked[header->type] = header->seq;
}

/* The parts that a good worker would have right. */
static void fill(unsigned char *buf, uint16_t type)
{
	struct msg_hello *hello = (void *)buf;
	struct msg_opened *opened = (void *)buf;

	if (type == MSG_HELLO) {
		hello->id = (struct msg_identity){ 5, 51728, 0, "vm" };
		hello->pid = PID;
	} else if (type == MSG_OPENED) {
		opened->limits.size = 1 << 20;
		opened->limits.sector_size = 512;
		opened->limits.physical_sector_size = 4096;
		opened->max_rings = 4;
		opened->nr_identities = 1;
		opened->identity[0][0] = 'i';
	}
}

/* Marks are files that other inputs would find, made by children: not of storage
 * that is its own. */
static void tame(unsigned char *buf, uint16_t type)
{
	struct msg_service *service = (void *)buf;
	struct msg_opened *opened = (void *)buf;

	if (type == MSG_SERVICE && service->kind == MSG_SERVICE_POISON)
		service->name[0] = '!';
	for (unsigned int i = 0; type == MSG_OPENED && i < MSG_MAX_IDENTITIES;
	     i++)
		if (opened->identity[i][0] == '!')
			opened->identity[i][0] = 'i';
}

#define WITH_FD	      1u
#define OTHER_VERSION 2u
#define TOO_SHORT     4u
#define OTHER_SEQ     8u
#define FILLED	      16u

static void send_it(unsigned char *buf, size_t length, bool with_fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = { .buf = { 0 } };
	struct iovec iov = { buf, length };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (with_fd) {
		mh.msg_control = control.buf;
		mh.msg_controllen = sizeof(control.buf);
		*CMSG_FIRSTHDR(&mh) = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&mh)), &the_process.sock,
		       sizeof(int));
	}
	(void)sendmsg(the_process.sock, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void say(struct input *in, uint8_t what)
{
	_Alignas(max_align_t) static unsigned char buf[MSG_MAX];
	struct msg_header *header = (void *)buf;
	size_t shape = what % ARRAY_SIZE(shapes);
	uint8_t how = input_u8(in);
	size_t at = sizeof(*header), length = shapes[shape].size, n;
	uint16_t type = shapes[shape].type;
	bool first = !seen.hello;

	listen_to_broker();
	memset(buf, 0, sizeof(buf));
	if (how & FILLED)
		fill(buf, type);
	*header = (struct msg_header){
		.type = type,
		.version = MSG_VERSION + !!(how & OTHER_VERSION),
		.length = (uint32_t)length,
		.seq = asked[shapes[shape].question] + !!(how & OTHER_SEQ),
		.result = -(int32_t)(how >> 5),
	};
	/* Some bytes of it are the input's. */
	at += input_u16(in) % (length - at + 1);
	n = input_u8(in) & 31;
	input_bytes(in, buf + at, MIN(n, length - at));
	tame(buf, type);
	length -= how & TOO_SHORT ? 1 : 0;
	send_it(buf, length, how & WITH_FD);
	seen.hello = true;
	turn();
	if (how & (WITH_FD | OTHER_VERSION | TOO_SHORT) ||
	    first != (type == MSG_HELLO) || type < MSG_HELLO ||
	    type == MSG_REACHED)
		HOLDS(!lives(), "%s is its death", "rubbish");
}

/* --- One input ------------------------------------------------------------------------ */

static void act(struct input *in)
{
	uint8_t what = input_u8(in);

	if (seen.worker && !lives() && !seen.opening && !seen.open &&
	    worker_open(seen.worker) == 0) {
		seen.opening = true;
		seen.hello = false;
		memset(asked, 0, sizeof(asked));
	}
	if (!lives() || !seen.worker)
		return;
	if (what >= 0xe0)
		ask(in, what);
	else
		say(in, what);
	turn();
}

static void finish(void)
{
	the_process.alive = false;
	turn();
	HOLDS(!seen.worker || (!seen.opening && !seen.open),
	      "its death is told");
	HOLDS(!seen.worker || worker_pid(seen.worker) == 0, "no process");
	if (seen.worker) {
		worker_discard_kept(seen.worker);
		worker_free(seen.worker);
	}
	if (the_process.sock >= 0)
		(void)close(the_process.sock);
	the_process.sock = -1;
	turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct worker_spec spec = {
		.id = { 5, 51728, 0, "vm" },
		.expression = "mem(1M)",
	};
	struct input in = { data, size };

	if (!fixture)
		start();
	memset(&seen, 0, sizeof(seen));
	seen.give_up_at = input_u8(&in) & 15;
	if (worker_new(&seen.worker, &fixture->broker, &spec, &events) < 0)
		return 0;
	while (in.left > 0)
		act(&in);
	finish();
	return 0;
}
