/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-broken SOCKET [FAULT] - an NBD server of memory that makes one mistake, so
 * that it can be shown that nbd-conformance notices; --list names the faults and
 * the case that must fail for each.
 *
 * It is the product's own session (src/nbd), a thread for each client.  Faults
 * are in what it does with a command, or in the bytes on their way out: each head
 * of a message passes by once, whole.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/util.h"
#include "nbd/session.h"

#define SIZE (4u << 20)

enum deed {
	HONEST,
	LOSE_WRITES,
	LEAVE_A_BYTE,
	TRIM_TOO_MUCH,
	CACHE_CHANGES,
	OWN_CACHE,
	STATUS_TOO_LONG,
	IGNORE_DF,
	STAY,
	ANY_CLIENT_FLAG,
	ALWAYS_ZEROES,
	NEVER_ZEROES,
	PADDING,
	NO_FUA,
};

struct fault {
	const char *name;
	const char *test; /* the case */
	void (*spoil)(uint8_t *head, size_t length);
	enum deed deed;
};

/* --- Heads ---------------------------------------------------------------- */

static bool is_greeting(const uint8_t *p, size_t length)
{
	return length == 18 && nbd_get64(p) == NBD_MAGIC;
}

static bool is_reply(const uint8_t *p, size_t length, uint32_t option,
		     uint32_t type)
{
	return length >= NBD_REP_BYTES && nbd_get64(p) == NBD_REP_MAGIC &&
	       nbd_get32(p + 8) == option && nbd_get32(p + 12) == type;
}

/* The information of INFO or GO; NULL: it is another message. */
static uint8_t *info_of(uint8_t *p, size_t length, uint16_t info)
{
	if (!is_reply(p, length, NBD_OPT_GO, NBD_REP_INFO) ||
	    nbd_get16(p + NBD_REP_BYTES) != info)
		return NULL;
	return p + NBD_REP_BYTES + 2;
}

static bool is_simple(const uint8_t *p, size_t length)
{
	return length == NBD_SIMPLE_REPLY_BYTES &&
	       nbd_get32(p) == NBD_SIMPLE_REPLY_MAGIC;
}

static bool is_chunk(const uint8_t *p, size_t length)
{
	return length >= NBD_CHUNK_BYTES &&
	       nbd_get32(p) == NBD_STRUCTURED_REPLY_MAGIC;
}

/* The payload of a chunk of that type; NULL: it is none. */
static uint8_t *chunk_of(uint8_t *p, size_t length, uint16_t type)
{
	return is_chunk(p, length) && nbd_get16(p + 6) == type ?
		       p + NBD_CHUNK_BYTES :
		       NULL;
}

/* --- Faults of bytes ------------------------------------------------------ */

static void spoil_greeting(uint8_t *p, size_t length)
{
	if (is_greeting(p, length))
		p[0] ^= 1;
}

static void spoil_greeting_flags(uint8_t *p, size_t length)
{
	if (is_greeting(p, length))
		p[16] = 0x80;
}

static void spoil_fixed(uint8_t *p, size_t length)
{
	if (is_greeting(p, length))
		p[17] &= (uint8_t)~NBD_FLAG_FIXED_NEWSTYLE;
}

static void spoil_option(uint8_t *p, size_t length)
{
	if (is_reply(p, length, NBD_OPT_ABORT, NBD_REP_ACK))
		p[11]++;
}

static void spoil_abort(uint8_t *p, size_t length)
{
	if (is_reply(p, length, NBD_OPT_ABORT, NBD_REP_ACK))
		(void)nbd_put32(p + 12, NBD_REP_ERROR | NBD_REP_ERR_INVALID);
}

static void spoil_unsup(uint8_t *p, size_t length)
{
	if (length >= NBD_REP_BYTES && nbd_get64(p) == NBD_REP_MAGIC &&
	    nbd_get32(p + 12) == (NBD_REP_ERROR | NBD_REP_ERR_UNSUP))
		(void)nbd_put32(p + 12, NBD_REP_ERROR | NBD_REP_ERR_INVALID);
}

static void spoil_go(uint8_t *p, size_t length)
{
	if (is_reply(p, length, NBD_OPT_GO, NBD_REP_ACK))
		(void)nbd_put32(p + 12,
				NBD_REP_ERROR | NBD_REP_ERR_BLOCK_SIZE_REQD);
}

static void spoil_list(uint8_t *p, size_t length)
{
	if (is_reply(p, length, NBD_OPT_LIST, NBD_REP_SERVER))
		(void)nbd_put32(p + NBD_REP_BYTES, 1000);
}

static void spoil_has_flags(uint8_t *p, size_t length)
{
	uint8_t *export = info_of(p, length, NBD_INFO_EXPORT);

	if (export)
		export[9] &= (uint8_t)~NBD_FLAG_HAS_FLAGS;
}

static void spoil_df(uint8_t *p, size_t length)
{
	uint8_t *export = info_of(p, length, NBD_INFO_EXPORT);

	if (export)
		export[9] ^= NBD_FLAG_SEND_DF;
}

static void spoil_readonly(uint8_t *p, size_t length)
{
	uint8_t *export = info_of(p, length, NBD_INFO_EXPORT);

	if (export)
		export[9] |= NBD_FLAG_READ_ONLY;
}

static void spoil_fua(uint8_t *p, size_t length)
{
	uint8_t *export = info_of(p, length, NBD_INFO_EXPORT);

	if (export)
		export[9] |= NBD_FLAG_SEND_FUA;
}

static void spoil_minimum(uint8_t *p, size_t length)
{
	uint8_t *sizes = info_of(p, length, NBD_INFO_BLOCK_SIZE);

	if (sizes)
		(void)nbd_put32(sizes, 3);
}

static void spoil_preferred(uint8_t *p, size_t length)
{
	uint8_t *sizes = info_of(p, length, NBD_INFO_BLOCK_SIZE);

	if (sizes)
		(void)nbd_put32(sizes + 4, 256);
}

static void spoil_maximum(uint8_t *p, size_t length)
{
	uint8_t *sizes = info_of(p, length, NBD_INFO_BLOCK_SIZE);

	if (sizes)
		(void)nbd_put32(sizes + 8, (32u << 20) + 1);
}

static void spoil_cookie(uint8_t *p, size_t length)
{
	if (is_simple(p, length))
		p[15] ^= 0x80;
}

static void spoil_error(uint8_t *p, size_t length)
{
	if (is_simple(p, length) && nbd_get32(p + 4) == NBD_EINVAL)
		(void)nbd_put32(p + 4, NBD_EIO);
}

static void spoil_enospc(uint8_t *p, size_t length)
{
	if (is_simple(p, length) && nbd_get32(p + 4) == NBD_ENOSPC)
		(void)nbd_put32(p + 4, NBD_SUCCESS);
}

static void spoil_done(uint8_t *p, size_t length)
{
	if (is_chunk(p, length))
		(void)nbd_put16(p + 4, 0);
}

static void spoil_chunk_flags(uint8_t *p, size_t length)
{
	if (is_chunk(p, length))
		p[4] = 0x80;
}

static void spoil_error_chunk(uint8_t *p, size_t length)
{
	uint8_t *error = chunk_of(p, length, NBD_REPLY_TYPE_ERROR);

	if (error)
		(void)nbd_put32(error, 0);
}

static void spoil_hole(uint8_t *p, size_t length)
{
	uint8_t *hole = chunk_of(p, length, NBD_REPLY_TYPE_OFFSET_HOLE);

	if (hole)
		(void)nbd_put32(hole + 8, nbd_get32(hole + 8) - 512);
}

static void spoil_data(uint8_t *p, size_t length)
{
	uint8_t *data = chunk_of(p, length, NBD_REPLY_TYPE_OFFSET_DATA);

	if (data)
		(void)nbd_put64(data, nbd_get64(data) + 512);
}

static void spoil_extended_offset(uint8_t *p, size_t length)
{
	if (length >= NBD_EXTENDED_CHUNK_BYTES &&
	    nbd_get32(p) == NBD_EXTENDED_REPLY_MAGIC)
		p[23]++;
}

static void spoil_context(uint8_t *p, size_t length)
{
	uint8_t *status = chunk_of(p, length, NBD_REPLY_TYPE_BLOCK_STATUS);

	if (status)
		status[3]++;
}

static void spoil_extent(uint8_t *p, size_t length)
{
	uint8_t *status = chunk_of(p, length, NBD_REPLY_TYPE_BLOCK_STATUS);

	if (status)
		(void)nbd_put32(status + 4, 0);
}

static void spoil_zero(uint8_t *p, size_t length)
{
	uint8_t *status = chunk_of(p, length, NBD_REPLY_TYPE_BLOCK_STATUS);

	if (status)
		status[11] |= NBD_STATE_ZERO;
}

static void spoil_reserved(uint8_t *p, size_t length)
{
	uint8_t *status = chunk_of(p, length, NBD_REPLY_TYPE_BLOCK_STATUS);

	if (status)
		status[8] = 0x80;
}

static const struct fault faults[] = {
	{ "greeting", "greeting", spoil_greeting, HONEST },
	{ "greeting-flags", "greeting-flags", spoil_greeting_flags, HONEST },
	{ "old", "fixed-newstyle", spoil_fixed, HONEST },
	{ "any-client", "client-flag-unknown", NULL, ANY_CLIENT_FLAG },
	{ "always-zeroes", "no-zeroes", NULL, ALWAYS_ZEROES },
	{ "never-zeroes", "export-name", NULL, NEVER_ZEROES },
	{ "other-option", "abort", spoil_option, HONEST },
	{ "no-abort", "abort-with-data", spoil_abort, HONEST },
	{ "no-unsup", "option-unknown", spoil_unsup, HONEST },
	{ "long-name", "list", spoil_list, HONEST },
	{ "needs-sizes", "block-size-asked", spoil_go, HONEST },
	{ "padding", "go-no-padding", NULL, PADDING },
	{ "no-flags", "flags-has-flags", spoil_has_flags, HONEST },
	{ "df", "flags-no-df", spoil_df, HONEST },
	{ "df-hidden", "df-flag", spoil_df, HONEST },
	{ "minimum", "block-minimum", spoil_minimum, HONEST },
	{ "preferred", "block-preferred", spoil_preferred, HONEST },
	{ "maximum", "block-maximum", spoil_maximum, HONEST },
	{ "cookie", "cookie", spoil_cookie, HONEST },
	{ "other-error", "read-beyond", spoil_error, HONEST },
	{ "no-error", "write-error", spoil_enospc, HONEST },
	{ "lost-write", "write", NULL, LOSE_WRITES },
	{ "read-only", "read-only", spoil_readonly, HONEST },
	{ "no-fua", "fua-all", spoil_fua, NO_FUA },
	{ "own-cache", "multi-conn", NULL, OWN_CACHE },
	{ "trim", "trim", NULL, TRIM_TOO_MUCH },
	{ "cache", "cache", NULL, CACHE_CHANGES },
	{ "zeroes", "write-zeroes", NULL, LEAVE_A_BYTE },
	{ "zeroes-no-hole", "write-zeroes-no-hole", NULL, LEAVE_A_BYTE },
	{ "stay", "disc", NULL, STAY },
	{ "not-done", "structured-read", spoil_done, HONEST },
	{ "chunk-flags", "structured-read", spoil_chunk_flags, HONEST },
	{ "hole", "structured-read", spoil_hole, HONEST },
	{ "data", "structured-read", spoil_data, HONEST },
	{ "error-0", "structured-read-error", spoil_error_chunk, HONEST },
	{ "fragments", "df", NULL, IGNORE_DF },
	{ "offset", "extended-offset", spoil_extended_offset, HONEST },
	{ "context", "status", spoil_context, HONEST },
	{ "extent", "status", spoil_extent, HONEST },
	{ "long-extent", "status-one", NULL, STATUS_TOO_LONG },
	{ "zero", "status-zero", spoil_zero, HONEST },
	{ "reserved", "status-reserved", spoil_reserved, HONEST },
};

static const struct fault honest = { .name = "none" };
static const struct fault *fault = &honest;

/* --- A client ------------------------------------------------------------- */

static uint8_t memory[SIZE];

struct client {
	int fd;
	struct nbd_session *session;
	uint8_t *disk;
	bool flags_taken;
};

static struct nbd_export export = {
	.name = "disk",
	.size = SIZE,
	.minimum_block = 512,
	.preferred_block = 4096,
	.flush = true,
	.fua = true,
	.trim = true,
	.zero = true,
	.multi_conn = true,
};

static const struct nbd_export *get_export(void *ctx, unsigned int index)
{
	(void)ctx;
	return index ? NULL : &export;
}

static bool is_zero(const uint8_t *p)
{
	static const uint8_t zeroes[512];

	return memcmp(p, zeroes, sizeof(zeroes)) == 0;
}

static void status(const struct client *client, struct nbd_command *c)
{
	uint64_t more = fault->deed == STATUS_TOO_LONG ? c->length : 0;
	bool going = true;

	for (uint64_t at = 0; going && at < c->length; at += 512)
		going = nbd_command_extent(
			c, 512 + more,
			is_zero(client->disk + c->offset + at) ?
				NBD_STATE_ZERO | NBD_STATE_HOLE :
				0);
}

static void clear(struct client *client, const struct nbd_command *c)
{
	uint64_t offset = c->offset, length = c->length;

	if (c->type == NBD_CMD_TRIM && fault->deed == TRIM_TOO_MUCH) {
		offset = 0;
		length = SIZE;
	}
	if (c->type == NBD_CMD_WRITE_ZEROES && fault->deed == LEAVE_A_BYTE)
		length--;
	memset(client->disk + offset, 0, length);
}

static void submit(void *ctx, struct nbd_command *c)
{
	struct client *client = ctx;
	uint8_t *at = client->disk + c->offset;

	switch (c->type) {
	case NBD_CMD_READ:
		memcpy(c->buffer, at, c->length);
		if (fault->deed == IGNORE_DF)
			c->flags &= (uint16_t)~NBD_CMD_FLAG_DF;
		break;
	case NBD_CMD_WRITE:
		if (fault->deed != LOSE_WRITES)
			memcpy(at, c->buffer, c->length);
		break;
	case NBD_CMD_CACHE:
		if (fault->deed == CACHE_CHANGES)
			at[0] ^= 1;
		break;
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		clear(client, c);
		break;
	case NBD_CMD_BLOCK_STATUS:
		status(client, c);
		break;
	default:
		break;
	}
	nbd_command_done(c, 0, NULL);
}

static const struct nbd_session_events events = {
	.export = get_export,
	.submit = submit,
	.command_size = sizeof(struct nbd_command),
};

static bool send_all(int fd, const void *bytes, size_t length)
{
	while (length > 0) {
		ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		bytes = (const char *)bytes + n;
		length -= (size_t)n;
	}
	return true;
}

/* All that is there; each piece whole, so that each head is seen once. */
static bool send_output(struct client *client)
{
	static const uint8_t padding[NBD_ZEROES_BYTES];
	struct iovec iov[64];
	unsigned int n;
	bool good = true;

	while (good && (n = nbd_session_output(client->session, iov, 64))) {
		size_t total = 0;

		for (unsigned int i = 0; good && i < n; i++) {
			bool ack = is_reply(iov[i].iov_base, iov[i].iov_len,
					    NBD_OPT_GO, NBD_REP_ACK);

			if (fault->spoil)
				fault->spoil(iov[i].iov_base, iov[i].iov_len);
			good = send_all(client->fd, iov[i].iov_base,
					iov[i].iov_len);
			if (good && ack && fault->deed == PADDING)
				good = send_all(client->fd, padding,
						sizeof(padding));
			total += iov[i].iov_len;
		}
		nbd_session_sent(client->session, total);
		good = good && nbd_session_take(client->session, 0) == 0;
	}
	return good;
}

/* The client's flags, its first four bytes, as the fault wants them. */
static void change_flags(struct client *client, uint8_t *p)
{
	uint32_t flags = nbd_get32(p);

	client->flags_taken = true;
	if (fault->deed == ANY_CLIENT_FLAG)
		flags &= NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES;
	if (fault->deed == ALWAYS_ZEROES)
		flags &= ~NBD_FLAG_NO_ZEROES;
	if (fault->deed == NEVER_ZEROES)
		flags |= NBD_FLAG_NO_ZEROES;
	(void)nbd_put32(p, flags);
}

static bool receive(struct client *client)
{
	void *room;
	size_t length = nbd_session_room(client->session, &room);
	ssize_t n;

	if (length == 0)
		return false;
	if (!client->flags_taken) {
		n = recv(client->fd, room, 4, MSG_WAITALL);
		if (n == 4)
			change_flags(client, room);
	} else {
		n = recv(client->fd, room, length, 0);
	}
	return n > 0 && nbd_session_take(client->session, (size_t)n) == 0;
}

static void *serve(void *arg)
{
	struct client client = { .fd = *(int *)arg, .disk = memory };
	bool own = fault->deed == OWN_CACHE;

	free(arg);
	if (own)
		client.disk = calloc(1, SIZE);
	if (client.disk && nbd_session_new(&client.session, &events, &client,
					   NBD_TLS_NONE) == 0)
		while (send_output(&client) &&
		       !nbd_session_ended(client.session) && receive(&client))
			;
	if (fault->deed == STAY && client.session &&
	    nbd_session_ended(client.session))
		(void)sleep(60);
	nbd_session_free(client.session);
	if (own)
		free(client.disk);
	(void)close(client.fd);
	return NULL;
}

/* --- The server ----------------------------------------------------------- */

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	(void)unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(fd, 16) < 0) {
		perror(path);
		exit(1);
	}
	return fd;
}

static void accept_for_ever(int listener)
{
	for (;;) {
		int *fd = malloc(sizeof(*fd));
		pthread_t thread;

		if (!fd)
			exit(1);
		*fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (*fd < 0 || pthread_create(&thread, NULL, serve, fd) != 0) {
			free(fd);
			continue;
		}
		(void)pthread_detach(thread);
	}
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
			printf("%s %s\n", faults[i].name, faults[i].test);
		return 0;
	}
	for (size_t i = 0; argc == 3 && i < ARRAY_SIZE(faults); i++)
		if (strcmp(argv[2], faults[i].name) == 0)
			fault = &faults[i];
	if (argc < 2 || argc > 3 || (argc == 3 && fault == &honest)) {
		(void)fprintf(stderr, "usage: nbd-broken SOCKET [FAULT]\n"
				      "       nbd-broken --list\n");
		return 2;
	}
	export.fua = fault->deed != NO_FUA;
	accept_for_ever(listen_at(argv[1]));
}
