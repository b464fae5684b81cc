/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Connections, bytes, and the handshake. */
#include "config.h"

#include "client.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>

/* No reply may be longer: a string and a little. */
#define LONGEST_REPLY (64u << 10)

/* --- The case under way --------------------------------------------------- */

struct chunk_of_memory {
	struct chunk_of_memory *next;
	_Alignas(16) unsigned char bytes[];
};

static struct {
	jmp_buf escape;
	struct verdict verdict;
	struct client *clients;
	struct chunk_of_memory *memory;
} now;

static void end_as(int kind, const char *fmt, va_list ap) PRINTF(2, 0);

static void end_as(int kind, const char *fmt, va_list ap)
{
	now.verdict.kind = kind;
	(void)vsnprintf(now.verdict.why, sizeof(now.verdict.why), fmt, ap);
}

void client_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	end_as(FAILED, fmt, ap);
	va_end(ap);
	longjmp(now.escape, 1);
}

void client_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	end_as(SKIPPED, fmt, ap);
	va_end(ap);
	longjmp(now.escape, 1);
}

void *client_memory(size_t size)
{
	struct chunk_of_memory *memory = calloc(1, sizeof(*memory) + size);

	require(memory, "no memory");
	memory->next = now.memory;
	now.memory = memory;
	return memory->bytes;
}

static struct client *new_client(const struct options *options)
{
	struct client *c = client_memory(sizeof(*c));

	c->options = options;
	c->fd = -1;
	c->next = now.clients;
	now.clients = c;
	return c;
}

struct client *client_other(const struct client *c)
{
	return new_client(c->options);
}

static void forget(void)
{
	struct chunk_of_memory *memory;

	for (struct client *c = now.clients; c; c = c->next)
		client_close(c);
	now.clients = NULL;
	while ((memory = now.memory)) {
		now.memory = memory->next;
		free(memory);
	}
}

struct verdict client_run(const struct options *options,
			  void (*run)(struct client *c))
{
	now.verdict.kind = PASSED;
	now.verdict.why[0] = '\0';
	if (setjmp(now.escape) == 0)
		run(new_client(options));
	forget();
	return now.verdict;
}

/* --- Bytes ---------------------------------------------------------------- */

void client_close(struct client *c)
{
	if (c->fd >= 0)
		(void)close(c->fd);
	c->fd = -1;
}

static void wait_for(const struct client *c, short events, uint64_t deadline)
{
	struct pollfd pfd = { .fd = c->fd, .events = events };
	uint64_t at = now_ns();
	int n;

	do
		n = at < deadline ? poll(&pfd, 1,
					 (int)((deadline - at) / 1000000) + 1) :
				    0;
	while (n < 0 && errno == EINTR);
	require(n > 0, "nothing came from the server in %u ms",
		c->options->timeout_ms);
}

static uint64_t deadline_of(const struct client *c)
{
	return now_ns() + c->options->timeout_ms * 1000000ull;
}

void client_send(struct client *c, const void *bytes, size_t length)
{
	uint64_t deadline = deadline_of(c);

	while (length > 0) {
		ssize_t n =
			send(c->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN) {
			wait_for(c, POLLOUT, deadline);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		require(n > 0, "the server has closed the connection");
		bytes = (const char *)bytes + n;
		length -= (size_t)n;
	}
}

/* 0: the end.  What was reset has ended as well. */
static size_t receive(struct client *c, void *bytes, size_t length,
		      uint64_t deadline)
{
	ssize_t n;

	for (;;) {
		n = recv(c->fd, bytes, length, MSG_DONTWAIT);
		if (n >= 0 || errno == ECONNRESET)
			return n > 0 ? (size_t)n : 0;
		require(errno == EAGAIN || errno == EINTR, "recv: errno %d",
			errno);
		if (errno == EAGAIN)
			wait_for(c, POLLIN, deadline);
	}
}

void client_recv(struct client *c, void *bytes, size_t length)
{
	uint64_t deadline = deadline_of(c);
	size_t n;

	for (; length > 0; length -= n) {
		n = receive(c, bytes, length, deadline);
		require(n > 0, "the server has closed the connection");
		bytes = (char *)bytes + n;
	}
}

bool client_is_gone(struct client *c)
{
	char byte;

	return receive(c, &byte, 1, deadline_of(c)) == 0;
}

void client_gone(struct client *c, const char *after)
{
	require(client_is_gone(c), "%s: the server goes on", after);
}

/* --- Greeting ------------------------------------------------------------- */

void client_connect(struct client *c)
{
	char why[SERVER_TEXT_MAX];
	uint8_t greeting[18];

	client_close(c);
	c->fd = server_connect(&c->options->server, why);
	require(c->fd >= 0, "cannot connect: %s", why);
	client_recv(c, greeting, sizeof(greeting));
	require(nbd_get64(greeting) == NBD_MAGIC, "no NBDMAGIC");
	require(nbd_get64(greeting + 8) == NBD_OPTION_MAGIC, "no IHAVEOPT");
	c->server_flags = nbd_get16(greeting + 16);
}

void client_flags(struct client *c, uint32_t flags)
{
	uint8_t bytes[4];

	(void)nbd_put32(bytes, flags);
	client_send(c, bytes, sizeof(bytes));
}

void client_begin(struct client *c)
{
	client_connect(c);
	client_flags(c, c->server_flags &
				(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
}

/* --- Options -------------------------------------------------------------- */

void client_option(struct client *c, uint32_t option, const void *data,
		   size_t length)
{
	uint8_t head[NBD_OPTION_BYTES];

	(void)nbd_put32(nbd_put32(nbd_put64(head, NBD_OPTION_MAGIC), option),
			(uint32_t)length);
	client_send(c, head, sizeof(head));
	client_send(c, data, length);
}

static void take_reply(struct client *c, uint32_t option, struct reply *ret)
{
	uint8_t head[NBD_REP_BYTES];

	client_recv(c, head, sizeof(head));
	require(nbd_get64(head) == NBD_REP_MAGIC, "a reply without its magic");
	require(nbd_get32(head + 8) == option,
		"a reply to option %u, but %u was asked", nbd_get32(head + 8),
		option);
	ret->type = nbd_get32(head + 12);
	ret->length = nbd_get32(head + 16);
	require(ret->length <= LONGEST_REPLY, "a reply of %u bytes",
		ret->length);
	ret->data = client_memory(ret->length + 1);
	client_recv(c, ret->data, ret->length);
}

/* A string must have no NUL, be of UTF-8, and of at most 4096 bytes. */
static void check_string(const uint8_t *p, size_t length, const char *what)
{
	size_t more = 0;

	require(length <= NBD_MAX_STRING, "%s of %zu bytes", what, length);
	for (size_t i = 0; i < length; i++) {
		bool continues = (p[i] & 0xc0) == 0x80;

		require(p[i], "%s with a NUL", what);
		require(continues == (more > 0) && p[i] < 0xf8,
			"%s is no UTF-8", what);
		if (continues)
			more--;
		else if (p[i] >= 0xc0)
			more = p[i] >= 0xf0 ? 3 : p[i] >= 0xe0 ? 2 : 1;
	}
	require(more == 0, "%s is no UTF-8", what);
}

static void check_info(const struct reply *reply)
{
	require(reply->length >= 2, "an INFO of %u bytes", reply->length);
	switch (nbd_get16(reply->data)) {
	case NBD_INFO_EXPORT:
		require(reply->length == 12, "INFO_EXPORT of %u bytes",
			reply->length);
		break;
	case NBD_INFO_BLOCK_SIZE:
		require(reply->length == 14, "INFO_BLOCK_SIZE of %u bytes",
			reply->length);
		break;
	case NBD_INFO_NAME:
	case NBD_INFO_DESCRIPTION:
		check_string(reply->data + 2, reply->length - 2, "a name");
		break;
	}
}

static void check_reply(uint32_t option, const struct reply *reply)
{
	if (reply->type & NBD_REP_ERROR) {
		check_string(reply->data, reply->length, "an error's text");
		return;
	}
	switch (reply->type) {
	case NBD_REP_ACK:
		require(reply->length == 0, "an ACK with data");
		break;
	case NBD_REP_SERVER:
		require(option == NBD_OPT_LIST, "a SERVER that is no list");
		require(reply->length >= 4 &&
				nbd_get32(reply->data) <= reply->length - 4,
			"a SERVER whose name is longer than the reply");
		check_string(reply->data + 4, nbd_get32(reply->data), "a name");
		break;
	case NBD_REP_INFO:
		require(option == NBD_OPT_INFO || option == NBD_OPT_GO,
			"an INFO that nobody asked for");
		check_info(reply);
		break;
	case NBD_REP_META_CONTEXT:
		require(reply->length > 4, "a context without a name");
		check_string(reply->data + 4, reply->length - 4, "a context");
		require(memchr(reply->data + 4, ':', reply->length - 4),
			"a context without a namespace");
		break;
	default:
		client_fail("a reply of type %#x", reply->type);
	}
}

/* All of them.  Returns the type of the final one. */
static uint32_t take_replies(struct client *c, uint32_t option)
{
	c->nr_replies = 0;
	for (;;) {
		struct reply *reply = &c->replies[c->nr_replies];

		take_reply(c, option, reply);
		check_reply(option, reply);
		if (reply->type == NBD_REP_ACK || reply->type & NBD_REP_ERROR)
			return reply->type;
		require(++c->nr_replies < MAX_REPLIES, "replies without end");
	}
}

uint32_t client_ask(struct client *c, uint32_t option, const void *data,
		    size_t length)
{
	client_option(c, option, data, length);
	return take_replies(c, option);
}

const struct reply *client_info(const struct client *c, uint16_t info)
{
	for (unsigned int i = 0; i < c->nr_replies; i++)
		if (c->replies[i].type == NBD_REP_INFO &&
		    nbd_get16(c->replies[i].data) == info)
			return &c->replies[i];
	return NULL;
}

size_t info_data(uint8_t *room, const char *name, const uint16_t *infos,
		 unsigned int nr)
{
	uint8_t *p = nbd_put32(room, (uint32_t)strlen(name));

	p = nbd_put_bytes(p, name, strlen(name));
	p = nbd_put16(p, nr);
	for (unsigned int i = 0; i < nr; i++)
		p = nbd_put16(p, infos[i]);
	return (size_t)(p - room);
}

size_t meta_data(uint8_t *room, const char *name, const char *const *queries,
		 unsigned int nr)
{
	uint8_t *p = nbd_put32(room, (uint32_t)strlen(name));

	p = nbd_put_bytes(p, name, strlen(name));
	p = nbd_put32(p, nr);
	for (unsigned int i = 0; i < nr; i++) {
		p = nbd_put32(p, (uint32_t)strlen(queries[i]));
		p = nbd_put_bytes(p, queries[i], strlen(queries[i]));
	}
	return (size_t)(p - room);
}

/* --- Into transmission ---------------------------------------------------- */

static void take_sizes(struct client *c)
{
	const struct reply *sizes = client_info(c, NBD_INFO_BLOCK_SIZE);

	c->minimum = 1;
	c->preferred = 4096;
	c->maximum = 32u << 20;
	c->sizes_told = sizes;
	if (!sizes)
		return;
	c->minimum = nbd_get32(sizes->data + 2);
	c->preferred = nbd_get32(sizes->data + 6);
	c->maximum = nbd_get32(sizes->data + 10);
	require(c->minimum, "a minimum block size of 0");
}

void client_enter(struct client *c)
{
	static const uint16_t infos[] = { NBD_INFO_BLOCK_SIZE };
	const struct reply *export;
	uint8_t room[8192];
	uint32_t type;

	type = client_ask(c, NBD_OPT_GO, room,
			  info_data(room, c->options->server.export_name, infos,
				    1));
	if (type == (NBD_REP_ERROR | NBD_REP_ERR_TLS_REQD))
		client_skip("the server wants TLS first");
	require(type == NBD_REP_ACK, "GO is answered %#x", type);
	export = client_info(c, NBD_INFO_EXPORT);
	require(export, "GO is acknowledged without INFO_EXPORT");
	c->size = nbd_get64(export->data + 2);
	c->flags = nbd_get16(export->data + 10);
	take_sizes(c);
}

static void choose_headers(struct client *c, enum headers headers)
{
	uint32_t option = headers == EXTENDED ? NBD_OPT_EXTENDED_HEADERS :
						NBD_OPT_STRUCTURED_REPLY;

	c->headers = headers;
	if (headers == SIMPLE)
		return;
	if (client_ask(c, option, NULL, 0) != NBD_REP_ACK)
		client_skip("the server has no %s headers",
			    headers == EXTENDED ? "extended" : "structured");
}

static void choose_context(struct client *c)
{
	static const char *const queries[] = { ALLOCATION };
	uint8_t room[8192];

	if (client_ask(c, NBD_OPT_SET_META_CONTEXT, room,
		       meta_data(room, c->options->server.export_name, queries,
				 1)) != NBD_REP_ACK ||
	    c->nr_replies == 0)
		client_skip("the server has no " ALLOCATION);
	require(c->nr_replies == 1, "one context was asked for, %u given",
		c->nr_replies);
	c->context = nbd_get32(c->replies[0].data);
	c->allocation = true;
}

void client_go(struct client *c, enum headers headers, bool context)
{
	client_begin(c);
	choose_headers(c, headers);
	if (context)
		choose_context(c);
	client_enter(c);
}

void client_go_to_write(struct client *c, enum headers headers)
{
	if (c->options->readonly)
		client_skip("nothing may be written (--readonly)");
	client_go(c, headers, false);
	if (c->flags & NBD_FLAG_READ_ONLY)
		client_skip("the export is read-only");
}

void client_needs(const struct client *c, uint16_t flag, const char *what)
{
	if (!(c->flags & flag))
		client_skip("the export has no %s", what);
}

void client_needs_size(const struct client *c, uint64_t size)
{
	if (c->size < size)
		client_skip("the export has only %llu bytes",
			    (unsigned long long)c->size);
}
