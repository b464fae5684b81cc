/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-nbd.c - any bytes as an NBD client.
 *
 * Input: a byte that says how (bit 0: TLS is wanted first, bit 1: commands end
 * late and the last one first, bits 2 to 7: how the bytes are cut), then what
 * the client sends.  A command that comes out of the session is inside its
 * export, aligned, permitted and of a kind that is offered; its reply is read as
 * a client would read it, and says what was to be said: the data, holes and all,
 * the extents in order.  What a client can make grow has its limits.
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
	  .multi_conn = true,
	  .memory_alignment = 1 },
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

/* --- The reply, as its reader sees it ------------------------------------- */

#define MOST_TOLD 4096u

/* A command that is over, and what its reply has to say. */
struct answer {
	enum nbd_cmd type;
	uint16_t flags;
	uint64_t offset, length;
	int err;
	uint8_t data[SIZE]; /* READ */
	struct {
		uint64_t length;
		uint32_t state;
	} told[MOST_TOLD]; /* BLOCK_STATUS; none: nothing is known */
	unsigned int nr_told;
};

static struct answer answer;

struct reading {
	const uint8_t *at, *end;
};

static const uint8_t *take(struct reading *in, size_t length)
{
	const uint8_t *p = in->at;

	HOLDS((size_t)(in->end - in->at) >= length, "the reply is too short");
	in->at += length;
	return p;
}

/* Data, or a hole (NULL), from the place on where the last one ended. */
static void check_content(uint64_t *io_done, uint64_t offset, uint64_t length,
			  const uint8_t *data)
{
	static const uint8_t zeroes[SIZE];

	HOLDS(offset == answer.offset + *io_done && length > 0 &&
		      length <= answer.length - *io_done,
	      "a chunk out of place");
	HOLDS(memcmp(answer.data + *io_done, data ? data : zeroes, length) == 0,
	      "other content than was read");
	HOLDS(data || !(answer.flags & NBD_CMD_FLAG_DF) ||
		      length == answer.length,
	      "a hole beside data, with DF");
	*io_done += length;
}

static void check_extents(const uint8_t *p, uint64_t length, bool extended)
{
	size_t head = extended ? 8 : 4, each = extended ? 16 : 8;
	uint64_t n = (length - head) / each;

	HOLDS(length > head && (length - head) % each == 0, "its length");
	HOLDS(!(answer.flags & NBD_CMD_FLAG_REQ_ONE) || n == 1, "REQ_ONE");
	HOLDS(n == MAX(answer.nr_told, 1), "%llu extents, %u were told",
	      (unsigned long long)n, answer.nr_told);
	p += head;
	for (uint64_t i = 0; i < n; i++, p += each) {
		uint64_t is = extended ? nbd_get64(p) : nbd_get32(p);
		uint64_t state = extended ? nbd_get64(p + 8) : nbd_get32(p + 4);

		HOLDS(is == (answer.nr_told ? answer.told[i].length :
					      answer.length) &&
			      state == (answer.nr_told ? answer.told[i].state :
							 0),
		      "extent %llu", (unsigned long long)i);
	}
}

/* One chunk; true: it was the last. */
static bool check_chunk(struct reading *in, bool extended, uint64_t *io_done)
{
	const uint8_t *p =
		take(in, extended ? NBD_EXTENDED_CHUNK_BYTES : NBD_CHUNK_BYTES);
	uint64_t length = extended ? nbd_get64(p + 24) : nbd_get32(p + 16);
	uint16_t flags = nbd_get16(p + 4), type = nbd_get16(p + 6);
	const uint8_t *body = take(in, length);

	HOLDS(!extended || nbd_get64(p + 16) == answer.offset, "its offset");
	HOLDS((type == NBD_REPLY_TYPE_ERROR) == (answer.err != 0), "an error");
	if (type == NBD_REPLY_TYPE_ERROR)
		HOLDS(length < 300 && nbd_get16(body + 4) == length - 6,
		      "its text");
	else if (type == NBD_REPLY_TYPE_OFFSET_DATA)
		check_content(io_done, nbd_get64(body), length - 8, body + 8);
	else if (type == NBD_REPLY_TYPE_OFFSET_HOLE)
		check_content(io_done, nbd_get64(body), nbd_get32(body + 8),
			      NULL);
	else if (answer.type == NBD_CMD_BLOCK_STATUS)
		check_extents(body, length, extended);
	else
		HOLDS(type == NBD_REPLY_TYPE_NONE && length == 0, "its type");
	return flags & NBD_REPLY_FLAG_DONE;
}

static void check_simple(struct reading *in, uint64_t *io_done)
{
	const uint8_t *p = take(in, NBD_SIMPLE_REPLY_BYTES);

	HOLDS((nbd_get32(p + 4) != 0) == (answer.err != 0), "its error");
	HOLDS(answer.type != NBD_CMD_BLOCK_STATUS || answer.err, "its kind");
	if (answer.type == NBD_CMD_READ && !answer.err)
		check_content(io_done, answer.offset, answer.length,
			      take(in, answer.length));
}

/* What was queued behind the first bytes. */
static void check_reply(const struct client *client, size_t before)
{
	static struct iovec iov[4096];
	static uint8_t bytes[2 * SIZE];
	unsigned int n =
		nbd_session_output(client->session, iov, ARRAY_SIZE(iov));
	struct reading in = { bytes, bytes };
	uint64_t done = 0;

	for (unsigned int i = 0; i < n; i++) {
		size_t skip = MIN(before, iov[i].iov_len);
		size_t length = iov[i].iov_len - skip;

		before -= skip;
		if (length == 0)
			continue;
		HOLDS(length <= (size_t)(bytes + sizeof(bytes) - in.end),
		      "a reply of more than %zu", sizeof(bytes));
		memcpy(bytes + (in.end - bytes),
		       (const uint8_t *)iov[i].iov_base + skip, length);
		in.end += length;
	}
	HOLDS(in.end - in.at >= 4, "no reply");
	if (nbd_get32(in.at) == NBD_SIMPLE_REPLY_MAGIC)
		check_simple(&in, &done);
	else
		while (!check_chunk(
			&in, nbd_get32(in.at) == NBD_EXTENDED_REPLY_MAGIC,
			&done))
			;
	HOLDS(in.at == in.end, "more than a reply");
	HOLDS(answer.err || answer.type != NBD_CMD_READ ||
		      done == answer.length,
	      "not all of the data");
}

/* --- Commands ------------------------------------------------------------- */

/* Runs of zeroes of many lengths; long reads have several. */
static void fill(const struct nbd_command *c)
{
	uint8_t *p = c->buffer;

	memset(p, 0, c->length);
	for (uint64_t at = c->offset % 7 * 3000; at < c->length;
	     at += 5000 + at % 11 * 9000)
		memset(p + at, 1 + (int)(at % 200),
		       MIN(c->length - at, 1 + at % 9000));
	memcpy(answer.data, p, c->length);
}

/* For the sanitizer to say whether it is there. */
static void look_at(const struct nbd_command *c)
{
	static volatile uint8_t sum;
	const uint8_t *p = c->buffer;

	for (uint64_t i = 0; i < c->length; i++)
		sum = (uint8_t)(sum + p[i]);
}

/* Extents of all lengths, alike or not, more than there is room for. */
static void tell(struct nbd_command *c)
{
	uint64_t unit = c->export->minimum_block;
	uint64_t seed = c->offset / unit + c->length;
	bool going = c->offset / unit % 5 != 3;

	answer.nr_told = 0;
	for (uint64_t at = 0, n; going && at < c->length; at += n) {
		uint32_t state;

		seed = seed * 25214903917u + 11;
		n = MIN(c->length - at, unit * (1 + (seed >> 20) % 4));
		state = seed >> 40 & 3;
		going = nbd_command_extent(c, n, state);
		if (!going)
			break;
		if (answer.nr_told &&
		    answer.told[answer.nr_told - 1].state == state) {
			answer.told[answer.nr_told - 1].length += n;
			continue;
		}
		HOLDS(answer.nr_told < MOST_TOLD, "extents without end");
		answer.told[answer.nr_told].length = n;
		answer.told[answer.nr_told++].state = state;
	}
}

static void finish(struct client *client, struct nbd_command *c)
{
	size_t before = queued(client);

	answer.type = c->type;
	answer.flags = c->flags;
	answer.offset = c->offset;
	answer.length = c->length;
	answer.err = c->offset == 512 ? -EIO : 0;
	if (c->type == NBD_CMD_READ)
		fill(c);
	if (c->type == NBD_CMD_BLOCK_STATUS)
		tell(c);
	if (c->type == NBD_CMD_WRITE)
		look_at(c);
	if (c->buffer)
		client->memory -= c->length;
	nbd_command_done(c, answer.err, NULL);
	check_reply(client, before);
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
	HOLDS((uintptr_t)c->buffer % (export->memory_alignment ?: 4096) == 0,
	      "a buffer's place");
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
