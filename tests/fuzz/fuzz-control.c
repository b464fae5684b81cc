/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-control.c - any bytes on the control socket, in any pieces.
 *
 * Input: how many pieces there are but one, where they end (two bytes each), and
 * what a client sends.  However it is cut up, the answers are the same: one
 * object for each call, none for a oneway call, and the end of the connection
 * where a message is no call.  Two clients do it, one in a single piece.
 */
#include "config.h"

#include "fuzz.h"

#include <errno.h>
#include <jansson.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker-fixture.h"
#include "broker/control.h"
#include "broker/registry.h"
#include "common/log.h"
#include "fake-bus.h"

#define PIECES_MAX 8u
#define ROUNDS	   4 /* of the loop: accept, read, call, write */

static struct fixture *fixture;

static void stop(void)
{
	control_free(fixture->broker.control);
	registry_free(fixture->broker.registry);
	fixture_free(fixture);
}

void fuzz_leave(void)
{
	fixture_free(fixture);
}

static void start(void)
{
	log_init("fuzz-control", LOG_LEVEL_ERROR);
	fixture = fixture_new();
	HOLDS(registry_load(&fixture->broker.registry, fixture->dir) == 0,
	      "the test's own broker");
	HOLDS(control_start(&fixture->broker.control, &fixture->broker) == 0,
	      "the test's own broker");
	(void)atexit(stop);
}

/* Lets the daemon do what it can. */
static void turn(void)
{
	for (int i = 0; i < ROUNDS; i++) {
		vbd_done_fn done;

		(void)event_base_loop(fixture->broker.base, EVLOOP_NONBLOCK);
		done = fake_pending_done;
		fake_pending_done = NULL;
		if (done)
			done(fake_pending_ctx, 0, NULL);
	}
}

/* --- A client ------------------------------------------------------------------------- */

struct client {
	int fd;
	char *answers;
	size_t length;
	bool ended;
};

static void client_connect(struct client *client)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s",
		       fixture_path(fixture, "control.sock"));
	*client = (struct client){
		.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0)
	};
	HOLDS(connect(client->fd, (struct sockaddr *)&address,
		      sizeof(address)) == 0,
	      "%s", strerror(errno));
}

static void client_read(struct client *client)
{
	char buf[4096];
	ssize_t n;

	while ((n = recv(client->fd, buf, sizeof(buf), 0)) > 0) {
		client->answers =
			realloc(client->answers, client->length + (size_t)n);
		memcpy(client->answers + client->length, buf, (size_t)n);
		client->length += (size_t)n;
	}
	client->ended = n == 0 || errno != EAGAIN;
}

/* The daemon may have hung up already. */
static void client_send(struct client *client, const uint8_t *data, size_t size)
{
	(void)send(client->fd, data, size, MSG_NOSIGNAL);
	turn();
	client_read(client);
}

static void client_finish(struct client *client)
{
	(void)shutdown(client->fd, SHUT_WR);
	for (int i = 0; !client->ended; i++) {
		HOLDS(i < 1000, "the daemon hangs up");
		turn();
		client_read(client);
	}
	(void)close(client->fd);
	turn();
}

/* --- What must come -------------------------------------------------------------------- */

/* One message: how many answers it gets; -1: it is no call. */
static int expect_answers(const char *text, size_t length)
{
	json_t *call = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
	json_t *params = json_object_get(call, "parameters");
	int answers = json_is_true(json_object_get(call, "oneway")) ? 0 : 1;

	if (!json_is_string(json_object_get(call, "method")) ||
	    (params && !json_is_object(params) && !json_is_null(params)))
		answers = -1;
	json_decref(call);
	return answers;
}

static int expect_all(const uint8_t *data, size_t size)
{
	const char *at = (const char *)data, *end = at + size, *nul;
	int answers = 0;

	while (at < end && (nul = memchr(at, 0, (size_t)(end - at)))) {
		int n = expect_answers(at, (size_t)(nul - at));

		if (n < 0)
			break;
		answers += n;
		at = nul + 1;
	}
	return answers;
}

static void check_answer(const char *text)
{
	json_t *answer = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	json_t *error = json_object_get(answer, "error");

	HOLDS(json_is_object(json_object_get(answer, "parameters")), "%s",
	      text);
	HOLDS(!error || json_is_string(error), "%s", text);
	HOLDS(json_object_size(answer) == (error ? 2 : 1), "%s", text);
	json_decref(answer);
}

static void check_answers(const struct client *client, int expected)
{
	size_t at = 0;
	int n = 0;

	HOLDS(client->length == 0 ||
		      client->answers[client->length - 1] == '\0',
	      "whole answers");
	for (; at < client->length; n++) {
		check_answer(client->answers + at);
		at += strlen(client->answers + at) + 1;
	}
	HOLDS(n == expected, "%d answers, not %d", n, expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned int cuts = input_u8(&in) % PIECES_MAX;
	uint16_t where[PIECES_MAX];
	struct client whole, pieces;

	if (!fixture)
		start();
	for (unsigned int i = 0; i < cuts; i++)
		where[i] = input_u16(&in);
	client_connect(&whole);
	client_send(&whole, in.at, in.left);
	client_finish(&whole);
	check_answers(&whole, expect_all(in.at, in.left));
	client_connect(&pieces);
	for (unsigned int i = 0; i <= cuts; i++) {
		size_t n = in.left;

		if (i < cuts && n > 0)
			n = where[i] % n;
		client_send(&pieces, in.at, n);
		in.at += n;
		in.left -= n;
	}
	client_finish(&pieces);
	HOLDS(whole.length == pieces.length &&
		      (whole.length == 0 ||
		       memcmp(whole.answers, pieces.answers, whole.length) ==
			       0),
	      "the same answers");
	free(whole.answers);
	free(pieces.answers);
	return 0;
}
