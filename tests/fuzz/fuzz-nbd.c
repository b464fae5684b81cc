/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-nbd.c - any bytes as an NBD client.
 *
 * Input: a byte that says how (bit 0: TLS is wanted first, bit 1: commands end
 * late and the last one first, bits 2 to 7: how the bytes are cut), then what
 * the client sends.  A command that comes out of the session is inside its
 * export, aligned, permitted and of a kind that is offered; its reply is as long
 * as it has to be; what a client can make grow has its limits.
 */
#include "config.h"

#include "fuzz.h"

#include <errno.h>

#include "common/util.h"
#include "nbd/session.h"

#define SIZE (256u << 10)

struct client {
	struct nbd_session *session;
	bool late;
	struct nbd_command *waiting[NBD_MAX_COMMANDS];
	unsigned int nr_waiting;
	uint64_t memory;
};

static const struct nbd_export exports[] = {
	{ .name = "a",
	  .size = SIZE,
	  .minimum_block = 512,
	  .preferred_block = 4096,
	  .flush = true,
	  .fua = true,
	  .trim = true,
	  .zero = true,
	  .multi_conn = true },
	{ .name = "ro",
	  .description = "read-only",
	  .size = SIZE - 1,
	  .minimum_block = 1,
	  .preferred_block = 512,
	  .readonly = true },
	{ .name = "bare",
	  .size = 3 * 4096,
	  .minimum_block = 4096,
	  .preferred_block = 4096 },
};

static const struct nbd_export *get_export(void *ctx, unsigned int index)
{
	(void)ctx;
	return index < ARRAY_SIZE(exports) ? &exports[index] : NULL;
}

static size_t queued(const struct client *client)
{
	static struct iovec iov[4096];
	unsigned int n =
		nbd_session_output(client->session, iov, ARRAY_SIZE(iov));
	size_t sum = 0;

	for (unsigned int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* How long the reply to a command may be, simple or in a chunk. */
static void check_growth(enum nbd_cmd type, uint64_t length, size_t growth,
			 int err)
{
	if (err)
		HOLDS(growth >= NBD_SIMPLE_REPLY_BYTES && growth < 300,
		      "error reply of %zu", growth);
	else if (type == NBD_CMD_READ)
		HOLDS(growth == NBD_SIMPLE_REPLY_BYTES + length ||
			      growth == NBD_CHUNK_BYTES + 8 + length ||
			      growth == NBD_CHUNK_BYTES + 12 ||
			      growth == NBD_EXTENDED_CHUNK_BYTES + 8 + length ||
			      growth == NBD_EXTENDED_CHUNK_BYTES + 12,
		      "read of %llu: %zu", (unsigned long long)length, growth);
	else if (type == NBD_CMD_BLOCK_STATUS)
		HOLDS(growth == NBD_CHUNK_BYTES + 4 + 8 ||
			      growth == NBD_EXTENDED_CHUNK_BYTES + 8 + 16,
		      "status: %zu", growth);
	else
		HOLDS(growth == NBD_SIMPLE_REPLY_BYTES ||
			      growth == NBD_EXTENDED_CHUNK_BYTES,
		      "reply: %zu", growth);
}

static void finish(struct client *client, struct nbd_command *c)
{
	enum nbd_cmd type = c->type;
	uint64_t length = c->length;
	size_t before = queued(client);
	int err = c->offset == 512 ? -EIO : 0;

	if (type == NBD_CMD_READ)
		memset(c->buffer, (int)(c->offset / 512), length);
	if (c->buffer)
		client->memory -= length;
	nbd_command_done(c, err, NULL);
	check_growth(type, length, queued(client) - before, err);
}

static void check_command(const struct nbd_command *c)
{
	const struct nbd_export *export = c->export;
	bool writes = c->type == NBD_CMD_WRITE || c->type == NBD_CMD_TRIM ||
		      c->type == NBD_CMD_WRITE_ZEROES;

	HOLDS(c->type < NBD_NR_CMDS && c->type != NBD_CMD_DISC, "kind %d",
	      c->type);
	HOLDS(c->offset <= export->size &&
		      c->length <= export->size - c->offset,
	      "range");
	HOLDS(!((c->offset | c->length) & (export->minimum_block - 1)),
	      "alignment");
	HOLDS(!writes || !export->readonly, "a write to a read-only export");
	HOLDS(c->type == NBD_CMD_FLUSH ? c->length == 0 : c->length > 0,
	      "length");
	HOLDS(!(c->flags & NBD_CMD_FLAG_FUA) || export->fua, "FUA");
	HOLDS(c->type != NBD_CMD_TRIM || export->trim, "TRIM");
	HOLDS(c->type != NBD_CMD_WRITE_ZEROES || export->zero, "zeroes");
	HOLDS(c->type != NBD_CMD_FLUSH || export->flush, "FLUSH");
	HOLDS(!c->buffer ==
		      (c->type != NBD_CMD_READ && c->type != NBD_CMD_WRITE),
	      "buffer");
}

static void submit(void *ctx, struct nbd_command *c)
{
	struct client *client = ctx;

	check_command(c);
	if (c->buffer)
		client->memory += c->length;
	HOLDS(client->memory <= NBD_MAX_MEMORY + NBD_MAX_PAYLOAD, "memory");
	if (!client->late) {
		finish(client, c);
		return;
	}
	HOLDS(client->nr_waiting < NBD_MAX_COMMANDS, "commands");
	client->waiting[client->nr_waiting++] = c;
}

static void finish_all(struct client *client)
{
	while (client->nr_waiting > 0)
		finish(client, client->waiting[--client->nr_waiting]);
}

/* Takes the output, as a socket would. */
static int drain(struct client *client)
{
	size_t n = queued(client);

	if (n == 0)
		return 0;
	nbd_session_sent(client->session, n);
	return nbd_session_take(client->session, 0);
}

static void talk(struct client *client, struct input *in, size_t piece)
{
	int r = 0;

	while (r == 0 && in->left > 0) {
		void *room;
		size_t n = nbd_session_room(client->session, &room);

		if (nbd_session_wants_tls(client->session)) {
			r = drain(client);
			nbd_session_tls_started(client->session);
			continue;
		}
		if (n == 0) {
			size_t before = queued(client) + client->nr_waiting;

			finish_all(client);
			r = drain(client);
			if (before == 0)
				break; /* it wants no more */
			continue;
		}
		n = MIN(MIN(n, piece), in->left);
		input_bytes(in, room, n);
		r = nbd_session_take(client->session, n);
		if (r == 0 && !client->late)
			r = drain(client);
	}
	HOLDS(r == 0 || r == -EPROTO || r == -ENOMEM, "error %d", r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct nbd_session_events events = {
		.export = get_export,
		.submit = submit,
		.command_size = sizeof(struct nbd_command),
	};
	struct input in = { data, size };
	struct client client = { 0 };
	uint8_t how = input_u8(&in);

	client.late = how & 2;
	if (nbd_session_new(&client.session, &events, &client,
			    how & 1 ? NBD_TLS_REQUIRED : NBD_TLS_NONE) < 0)
		return 0;
	talk(&client, &in, how >> 2 ? how >> 2 : 65536);
	finish_all(&client);
	HOLDS(nbd_session_pending(client.session) == 0, "pending");
	nbd_session_free(client.session);
	return 0;
}
