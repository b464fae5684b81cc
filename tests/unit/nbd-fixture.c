/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "nbd-fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"

/* --- The disk ---------------------------------------------------------------------- */

static const struct nbd_export *get_export(void *ctx, unsigned int index)
{
	struct nbd_fixture *f = ctx;

	return index < f->nr_exports ? &f->exports[index] : NULL;
}

static void status(struct nbd_command *c)
{
	uint64_t end = c->offset + c->length;
	uint64_t data = MIN(end, FIXTURE_HOLE);

	if (c->offset < data && !nbd_command_extent(c, data - c->offset, 0))
		return;
	if (end > FIXTURE_HOLE)
		(void)nbd_command_extent(c, end - MAX(c->offset, FIXTURE_HOLE),
					 NBD_STATE_HOLE | NBD_STATE_ZERO);
}

static void execute(struct nbd_fixture *f, struct nbd_command *c)
{
	uint8_t *at = f->disk + c->offset;

	switch (c->type) {
	case NBD_CMD_READ:
		memcpy(c->buffer, at, c->length);
		break;
	case NBD_CMD_WRITE:
		memcpy(at, c->buffer, c->length);
		break;
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		memset(at, 0, c->length);
		break;
	case NBD_CMD_FLUSH:
		f->nr_flushes++;
		break;
	case NBD_CMD_BLOCK_STATUS:
		status(c);
		break;
	default:
		assert_int_equal(c->type, NBD_CMD_CACHE);
	}
	nbd_command_done(c, f->fail, NULL);
}

static void submit(void *ctx, struct nbd_command *c)
{
	struct nbd_fixture *f = ctx;

	assert_true(c->offset + c->length <= c->export->size);
	assert_int_equal((c->offset | c->length) % c->export->minimum_block, 0);
	if (f->late)
		f->waiting[f->nr_waiting++] = c;
	else
		execute(f, c);
}

void fixture_finish_to(struct nbd_fixture *f, unsigned int left)
{
	while (f->nr_waiting > left)
		execute(f, f->waiting[--f->nr_waiting]);
	fixture_drain(f);
}

void fixture_finish(struct nbd_fixture *f)
{
	fixture_finish_to(f, 0);
}

static const struct nbd_session_events events = {
	.export = get_export,
	.submit = submit,
	.command_size = sizeof(struct nbd_command),
};

static void add_export(struct nbd_fixture *f, const char *name,
		       uint32_t minimum, bool readonly)
{
	f->exports[f->nr_exports++] = (struct nbd_export){
		.name = name,
		.description = "a disk of the tests",
		.size = FIXTURE_SIZE,
		.minimum_block = minimum,
		.preferred_block = 4096,
		.readonly = readonly,
		.flush = true,
		.fua = true,
		.trim = true,
		.zero = true,
		.multi_conn = true,
	};
}

void fixture_new(struct nbd_fixture *f, enum nbd_tls tls)
{
	memset(f, 0, sizeof(*f));
	add_export(f, "disk", 1, false);
	add_export(f, "ro", 512, true);
	add_export(f, "4k", 4096, false);
	f->disk = calloc(1, FIXTURE_SIZE);
	assert_non_null(f->disk);
	for (unsigned int i = 0; i < FIXTURE_HOLE; i++)
		f->disk[i] = (uint8_t)(i / 512 + i + 1);
	assert_int_equal(nbd_session_new(&f->session, &events, f, tls), 0);
}

void fixture_free(struct nbd_fixture *f)
{
	f->late = false;
	fixture_finish(f);
	nbd_session_free(f->session);
	free(f->disk);
	free(f->out);
}

/* --- Bytes --------------------------------------------------------------------------- */

void fixture_drain(struct nbd_fixture *f)
{
	struct iovec iov[8];
	unsigned int n;

	while ((n = nbd_session_output(f->session, iov, ARRAY_SIZE(iov)))) {
		size_t total = 0;

		for (unsigned int i = 0; i < n; i++) {
			f->out =
				realloc(f->out, f->out_length + iov[i].iov_len);
			assert_non_null(f->out);
			memcpy(f->out + f->out_length, iov[i].iov_base,
			       iov[i].iov_len);
			f->out_length += iov[i].iov_len;
			total += iov[i].iov_len;
		}
		nbd_session_sent(f->session, total);
		if (!f->err)
			f->err = nbd_session_take(f->session, 0);
	}
}

void fixture_send(struct nbd_fixture *f, const void *bytes, size_t length)
{
	const uint8_t *p = bytes;

	while (length > 0 && !f->err) {
		void *room;
		size_t n = nbd_session_room(f->session, &room);

		if (n == 0) {
			fixture_drain(f);
			n = nbd_session_room(f->session, &room);
		}
		if (n == 0)
			return; /* no more is wanted */
		n = MIN(n, length);
		if (f->piece)
			n = MIN(n, f->piece);
		memcpy(room, p, n);
		f->err = nbd_session_take(f->session, n);
		p += n;
		length -= n;
	}
	if (!f->err)
		fixture_drain(f);
}

const uint8_t *fixture_take(struct nbd_fixture *f, size_t length)
{
	const uint8_t *p = f->out + f->out_at;

	assert_true(f->out_length - f->out_at >= length);
	f->out_at += length;
	return p;
}

bool fixture_is_empty(const struct nbd_fixture *f)
{
	return f->out_at == f->out_length;
}

/* --- Handshake ------------------------------------------------------------------------- */

void fixture_greet(struct nbd_fixture *f, uint32_t flags)
{
	uint8_t buf[4];
	const uint8_t *p;

	fixture_drain(f);
	p = fixture_take(f, 18);
	assert_true(nbd_get64(p) == NBD_MAGIC);
	assert_true(nbd_get64(p + 8) == NBD_OPTION_MAGIC);
	assert_int_equal(nbd_get16(p + 16), 3);
	(void)nbd_put32(buf, flags);
	fixture_send(f, buf, sizeof(buf));
}

void fixture_option(struct nbd_fixture *f, uint32_t option, const void *data,
		    uint32_t length)
{
	uint8_t head[NBD_OPTION_BYTES];

	(void)nbd_put32(nbd_put32(nbd_put64(head, NBD_OPTION_MAGIC), option),
			length);
	fixture_send(f, head, sizeof(head));
	fixture_send(f, data, length);
}

const uint8_t *fixture_reply(struct nbd_fixture *f, uint32_t option,
			     uint32_t type, uint32_t *ret_length)
{
	const uint8_t *p = fixture_take(f, NBD_REP_BYTES);

	assert_true(nbd_get64(p) == NBD_REP_MAGIC);
	assert_int_equal(nbd_get32(p + 8), option);
	assert_int_equal(nbd_get32(p + 12), type);
	*ret_length = nbd_get32(p + 16);
	return fixture_take(f, *ret_length);
}

void fixture_refused(struct nbd_fixture *f, uint32_t option, uint32_t error)
{
	uint32_t length;

	(void)fixture_reply(f, option, NBD_REP_ERROR | error, &length);
	assert_true(length > 0); /* it says why */
	assert_true(fixture_is_empty(f));
	assert_int_equal(f->err, 0);
}

uint32_t fixture_info_data(uint8_t *buf, const char *name)
{
	uint8_t *p = nbd_put32(buf, (uint32_t)strlen(name));

	p = nbd_put_bytes(p, name, strlen(name));
	return (uint32_t)(nbd_put16(p, 0) - buf);
}

uint32_t fixture_meta_data(uint8_t *buf, const char *name, const char *query)
{
	uint8_t *p = nbd_put32(buf, (uint32_t)strlen(name));

	p = nbd_put_bytes(p, name, strlen(name));
	p = nbd_put32(p, query ? 1 : 0);
	if (query) {
		p = nbd_put32(p, (uint32_t)strlen(query));
		p = nbd_put_bytes(p, query, strlen(query));
	}
	return (uint32_t)(p - buf);
}

void fixture_go(struct nbd_fixture *f, const char *name, uint32_t headers,
		bool context)
{
	uint8_t buf[256];
	uint32_t length;

	fixture_greet(f, 3);
	if (headers) {
		fixture_option(f, headers, NULL, 0);
		(void)fixture_reply(f, headers, NBD_REP_ACK, &length);
	}
	if (context) {
		fixture_option(f, NBD_OPT_SET_META_CONTEXT, buf,
			       fixture_meta_data(buf, name, "base:allocation"));
		(void)fixture_reply(f, NBD_OPT_SET_META_CONTEXT,
				    NBD_REP_META_CONTEXT, &length);
		(void)fixture_reply(f, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK,
				    &length);
	}
	fixture_option(f, NBD_OPT_GO, buf, fixture_info_data(buf, name));
	(void)fixture_reply(f, NBD_OPT_GO, NBD_REP_INFO, &length);
	(void)fixture_reply(f, NBD_OPT_GO, NBD_REP_INFO, &length);
	(void)fixture_reply(f, NBD_OPT_GO, NBD_REP_ACK, &length);
	assert_true(fixture_is_empty(f));
}

/* --- Transmission -------------------------------------------------------------------------- */

void fixture_request(struct nbd_fixture *f, bool extended, uint16_t flags,
		     uint16_t type, uint64_t cookie, uint64_t offset,
		     uint64_t length)
{
	uint8_t buf[NBD_EXTENDED_REQUEST_BYTES];
	uint8_t *p;

	p = nbd_put32(buf, extended ? NBD_EXTENDED_REQUEST_MAGIC :
				      NBD_REQUEST_MAGIC);
	p = nbd_put16(p, flags);
	p = nbd_put16(p, type);
	p = nbd_put64(p, cookie);
	p = nbd_put64(p, offset);
	p = extended ? nbd_put64(p, length) : nbd_put32(p, (uint32_t)length);
	fixture_send(f, buf, (size_t)(p - buf));
}

void fixture_simple(struct nbd_fixture *f, uint64_t cookie, uint32_t error)
{
	const uint8_t *p = fixture_take(f, NBD_SIMPLE_REPLY_BYTES);

	assert_int_equal(nbd_get32(p), NBD_SIMPLE_REPLY_MAGIC);
	assert_int_equal(nbd_get32(p + 4), error);
	assert_true(nbd_get64(p + 8) == cookie);
}

static const uint8_t *take_chunk(struct nbd_fixture *f, bool extended,
				 unsigned int flags, uint16_t type,
				 uint64_t cookie, uint64_t *ret_length)
{
	const uint8_t *p = fixture_take(f, extended ? NBD_EXTENDED_CHUNK_BYTES :
						      NBD_CHUNK_BYTES);

	assert_true(nbd_get32(p) == (extended ? NBD_EXTENDED_REPLY_MAGIC :
						NBD_STRUCTURED_REPLY_MAGIC));
	assert_int_equal(nbd_get16(p + 4), flags);
	assert_int_equal(nbd_get16(p + 6), type);
	assert_true(nbd_get64(p + 8) == cookie);
	*ret_length = extended ? nbd_get64(p + 24) : nbd_get32(p + 16);
	return fixture_take(f, *ret_length);
}

const uint8_t *fixture_first_chunk(struct nbd_fixture *f, bool extended,
				   uint16_t type, uint64_t cookie,
				   uint64_t *ret_length)
{
	return take_chunk(f, extended, 0, type, cookie, ret_length);
}

const uint8_t *fixture_chunk(struct nbd_fixture *f, bool extended,
			     uint16_t type, uint64_t cookie,
			     uint64_t *ret_length)
{
	return take_chunk(f, extended, NBD_REPLY_FLAG_DONE, type, cookie,
			  ret_length);
}
