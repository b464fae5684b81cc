/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-broker.c - any messages from the broker, as a worker hears them.
 *
 * Input: messages, all of which are there at once, and after them what the
 * worker does.  Orders come out whole and in their sequence; a service's answer
 * is the one to the question; rubbish is the end, and stays it; no descriptor is
 * left over.
 */
#define _GNU_SOURCE
#include "config.h"

#include "fuzz.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"
#include "worker/services.h"

#define ORDERS_MAX 16u

static const struct {
	enum msg_type type;
	size_t size;
} shapes[] = {
	{ MSG_SERVICE_DONE, sizeof(struct msg_service_done) },
	{ MSG_OPEN, sizeof(struct msg_open) },
	{ MSG_CONNECT, sizeof(struct msg_connect) },
	{ MSG_DISCONNECT, sizeof(struct msg_header) },
	{ MSG_RESUME, sizeof(struct msg_resume) },
	{ MSG_RESIZE, sizeof(struct msg_resize) },
	{ MSG_CLOSE, sizeof(struct msg_header) },
	{ MSG_OPENED, sizeof(struct msg_opened) },
	{ MSG_CLIENT, sizeof(struct msg_client) },
};

/* What was sent before the first rubbish, and is no answer. */
static struct {
	size_t length;
	_Alignas(max_align_t) unsigned char bytes[MSG_MAX];
} orders[ORDERS_MAX];
static unsigned int nr_orders, nr_heard;
static bool rubbish;

static void send_one(struct input *in, int sock)
{
	_Alignas(max_align_t) static unsigned char buf[MSG_MAX];
	struct msg_header *header = (void *)buf;
	uint8_t what = input_u8(in), how = input_u8(in);
	size_t shape = what % ARRAY_SIZE(shapes), at = sizeof(*header);
	size_t length = shapes[shape].size, n;

	memset(buf, 0, sizeof(buf));
	at += input_u16(in) % (length - at + 1);
	n = input_u8(in) & 15;
	input_bytes(in, buf + at, MIN(n, length - at));
	header->seq = how & 3;
	header->result = -(int32_t)(how >> 6);
	if (how & 4) /* not a whole one */
		(void)send(sock, buf, length - 1, MSG_NOSIGNAL);
	else
		(void)msg_send(sock, buf, length, shapes[shape].type,
			       how & 8 ? sock : -1);
	/* A text may not end, an OPENED may count wrongly: then it is not
	 * known here whether what follows is heard. */
	rubbish = rubbish || how & 4;
	if (!rubbish && shape != 0) {
		orders[nr_orders].length = length;
		memcpy(orders[nr_orders++].bytes, buf, length);
	}
}

static void hear_order(struct services *services, int *io_lost)
{
	_Alignas(max_align_t) static unsigned char buf[MSG_MAX];
	size_t length;
	int fd = -1;
	int r = services_next(services, buf, &length, &fd, 0);

	if (r < 0) {
		HOLDS(!*io_lost || r == *io_lost, "%d after %d", r, *io_lost);
		*io_lost = r == -ETIMEDOUT ? *io_lost : r;
		return;
	}
	if (fd >= 0)
		(void)close(fd);
	HOLDS(nr_heard < nr_orders, "no order that was not given");
	HOLDS(length == orders[nr_heard].length &&
		      memcmp(buf, orders[nr_heard].bytes, length) == 0,
	      "order %u", nr_heard);
	nr_heard++;
}

static void call_service(struct services *services, uint32_t seq, int *io_lost)
{
	struct msg_service request = { .kind = MSG_SERVICE_BUDGET };
	struct msg_service_done done;
	int fd = -1, r;

	memset(&done, 0x5a, sizeof(done));
	r = services_call(services, &request, &done, &fd, 0);
	if (done.h.version == 0x5a5a) { /* untouched: there was no answer */
		HOLDS(r < 0 && fd < 0, "%d", r);
		HOLDS(!*io_lost || r == *io_lost, "%d after %d", r, *io_lost);
		*io_lost = r == -ETIMEDOUT ? *io_lost : r;
		return;
	}
	HOLDS(!*io_lost, "no answer after the end");
	HOLDS(done.h.type == MSG_SERVICE_DONE && done.h.seq == seq,
	      "the answer to question %u", seq);
	HOLDS(r == done.h.result, "%d", r);
	HOLDS(memchr(done.text, 0, sizeof(done.text)), "its text ends");
	HOLDS(r == 0 || fd < 0, "a descriptor only with success");
	if (fd >= 0)
		(void)close(fd);
}

/* The lowest that is free; as many are open as before when it is the same. */
static int free_descriptor(void)
{
	int fd = dup(STDERR_FILENO);

	(void)close(fd);
	return fd;
}

static void live(struct input *in, int pair[2])
{
	struct services *services;
	unsigned int messages = input_u8(in) % ORDERS_MAX;
	uint32_t asked = 0;
	int lost = 0;

	while (messages-- > 0)
		send_one(in, pair[1]);
	/* It can still be written to. */
	(void)shutdown(pair[1], SHUT_WR);
	if (services_new(&services, pair[0], -1) < 0)
		return;
	for (int i = 0; i < 8; i++) {
		if (input_u8(in) & 1)
			hear_order(services, &lost);
		else
			call_service(services, ++asked, &lost);
	}
	for (unsigned int i = 0; i <= ORDERS_MAX; i++)
		hear_order(services, &lost);
	HOLDS(lost, "it ends");
	services_free(services);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	int before = free_descriptor();
	int pair[2];

	nr_orders = nr_heard = 0;
	rubbish = false;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return 0;
	live(&in, pair);
	(void)close(pair[1]);
	HOLDS(free_descriptor() == before, "no descriptor is left over");
	return 0;
}
