/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread accepts, and one for each connection serves, one command after the
 * other; what they share is under a lock, so that a restart is one moment for
 * all of them: a command is done and answered before it, or not at all.
 */
#include "config.h"

#include "nbd-mutant.h"

#include <arpa/inet.h>
#include <assert.h>
#include <endian.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/util.h"

#define MAX_CONNECTIONS 64

#define MAGIC	     0x4e42444d41474943ull /* NBDMAGIC */
#define OPTION_MAGIC 0x49484156454f5054ull /* IHAVEOPT */
#define REPLY_MAGIC  0x0003e889045565a9ull
#define REQUEST	     0x25609513u
#define SIMPLE	     0x67446698u
#define CHUNK	     0x668e33efu

#define OPT_GO	       7u
#define OPT_STRUCTURED 8u
#define REP_ACK	       1u
#define REP_INFO       3u
#define ERR_UNSUP      0x80000001u
#define ERR_UNKNOWN    0x80000006u
#define ERR_INVALID    22u
#define ERR_DOWN       108u
#define CHUNK_DONE     1u /* a flag; and the types: */
#define CHUNK_NONE     0u
#define CHUNK_DATA     1u

struct connection {
	struct mutant *mutant;
	int fd; /* -1: free */
	pthread_t thread;
	bool used; /* there is a thread to join */
	bool dead; /* since a restart */
	uint64_t size; /* as it was told */
};

struct mutant_private {
	int listener;
	pthread_t acceptor;
	_Atomic(bool) stop;
	pthread_mutex_t lock;
	unsigned int replies; /* until the next fault */
	unsigned int turn; /* which one */
	uint64_t room;
	unsigned char *data, *stable;
	struct connection connections[MAX_CONNECTIONS];
};

/* --- Bytes ------------------------------------------------------------------- */

static bool get(int fd, void *buf, size_t length)
{
	char *p = buf;

	while (length > 0) {
		ssize_t n = recv(fd, p, length, 0);

		if (n <= 0)
			return false;
		p += n;
		length -= (size_t)n;
	}
	return true;
}

static bool put(int fd, const void *buf, size_t length)
{
	const char *p = buf;

	while (length > 0) {
		ssize_t n = send(fd, p, length, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		p += n;
		length -= (size_t)n;
	}
	return true;
}

static void *put16(void *p, uint16_t x)
{
	x = htobe16(x);
	return (char *)memcpy(p, &x, sizeof(x)) + sizeof(x);
}

static void *put32(void *p, uint32_t x)
{
	x = htobe32(x);
	return (char *)memcpy(p, &x, sizeof(x)) + sizeof(x);
}

static void *put64(void *p, uint64_t x)
{
	x = htobe64(x);
	return (char *)memcpy(p, &x, sizeof(x)) + sizeof(x);
}

/* Until the other side, or the test, ends it. */
static bool wait_for_the_end(int fd)
{
	char byte;

	while (get(fd, &byte, 1))
		;
	return false;
}

/* --- The handshake ----------------------------------------------------------- */

static bool greet(struct connection *c, enum mutant_greeting how)
{
	unsigned char buf[18];
	uint32_t client;

	if (how == GREET_NOT_AT_ALL)
		return wait_for_the_end(c->fd);
	(void)put16(put64(put64(buf, how == GREET_WRONG_MAGIC ? 1 : MAGIC),
			  OPTION_MAGIC),
		    3); /* fixed newstyle, no zeroes */
	if (how == GREET_HALF)
		return put(c->fd, buf, 9) && wait_for_the_end(c->fd);
	return put(c->fd, buf, sizeof(buf)) && get(c->fd, &client, 4);
}

static bool reply(struct connection *c, uint32_t option, uint32_t type,
		  const void *data, uint32_t length)
{
	unsigned char buf[20];
	bool wrong = c->mutant->greeting == GREET_WRONG_REPLY;

	(void)put32(put32(put32(put64(buf, wrong ? 1 : REPLY_MAGIC), option),
			  type),
		    length);
	if (c->mutant->greeting == GREET_HANG_UP)
		return put(c->fd, buf, 11) && false;
	return put(c->fd, buf, sizeof(buf)) && put(c->fd, data, length);
}

static bool go(struct connection *c, enum mutant_greeting how)
{
	const struct mutant *mutant = c->mutant;
	unsigned char buf[14];

	if (how == GREET_REFUSED)
		return reply(c, OPT_GO, ERR_UNKNOWN, "no", 2);
	c->size = mutant->size;
	(void)put16(put64(put16(buf, 0), c->size), (uint16_t)mutant->flags);
	if (how != GREET_NO_INFO && !reply(c, OPT_GO, REP_INFO, buf, 12))
		return false;
	(void)put32(put32(put32(put16(buf, 3), mutant->minimum),
			  mutant->preferred),
		    mutant->maximum);
	if (mutant->maximum && !reply(c, OPT_GO, REP_INFO, buf, 14))
		return false;
	return reply(c, OPT_GO, REP_ACK, "", 0);
}

static bool answer_option(struct connection *c, uint32_t option)
{
	bool takes = option == OPT_STRUCTURED && c->mutant->chunks;

	return reply(c, option, takes ? REP_ACK : ERR_UNSUP, "", 0);
}

/* True: an export was chosen. */
static bool shake_hands(struct connection *c)
{
	enum mutant_greeting how = c->mutant->greeting;
	unsigned char head[16];
	char data[8192];
	uint32_t option, length;

	if (!greet(c, how))
		return false;
	while (get(c->fd, head, sizeof(head))) {
		memcpy(&option, head + 8, 4);
		memcpy(&length, head + 12, 4);
		option = be32toh(option);
		length = be32toh(length);
		if (length > sizeof(data) || !get(c->fd, data, length))
			return false;
		if (how == GREET_NO_ANSWER)
			return wait_for_the_end(c->fd);
		if (option == OPT_GO && !go(c, how))
			return false;
		if (option == OPT_GO && how != GREET_REFUSED)
			return true;
		if (option != OPT_GO && !answer_option(c, option))
			return false;
	}
	return false;
}

/* --- Commands ---------------------------------------------------------------- */

struct request {
	uint16_t flags, type;
	uint64_t cookie; /* as it came */
	uint64_t offset;
	uint32_t length;
	unsigned char *data;
};

static bool has_payload(const struct request *req)
{
	return req->type == MUTANT_CMD_WRITE;
}

static bool receive(struct connection *c, struct request *req)
{
	unsigned char buf[28];
	uint32_t magic;

	if (!get(c->fd, buf, sizeof(buf)))
		return false;
	memcpy(&magic, buf, 4);
	memcpy(&req->flags, buf + 4, 2);
	memcpy(&req->type, buf + 6, 2);
	memcpy(&req->cookie, buf + 8, 8);
	memcpy(&req->offset, buf + 16, 8);
	memcpy(&req->length, buf + 24, 4);
	assert(be32toh(magic) == REQUEST);
	req->flags = be16toh(req->flags);
	req->type = be16toh(req->type);
	req->offset = be64toh(req->offset);
	req->length = be32toh(req->length);
	assert(req->type < MUTANT_NR_COMMANDS);
	req->data = calloc(1, req->length + 1);
	assert(req->data);
	return !has_payload(req) || get(c->fd, req->data, req->length);
}

static void note(struct mutant *mutant, const struct request *req)
{
	mutant->asked[req->type]++;
	mutant->fua += req->flags & 1;
	mutant->no_hole += req->flags >> 1 & 1;
}

/* What a server must refuse, as the protocol has it. */
static bool is_wrong(const struct connection *c, const struct request *req)
{
	struct mutant *mutant = c->mutant;

	if (req->type == MUTANT_CMD_FLUSH)
		return req->offset || req->length;
	if (req->offset > c->size || req->length > c->size - req->offset)
		return true;
	if (mutant->minimum &&
	    (req->offset | req->length) & (mutant->minimum - 1)) {
		mutant->unaligned++;
		return true;
	}
	return mutant->maximum &&
	       (has_payload(req) || req->type == MUTANT_CMD_READ) &&
	       req->length > mutant->maximum;
}

/* The error to answer. */
static uint32_t carry_out(struct connection *c, struct request *req)
{
	struct mutant_private *private = c->mutant->private;
	unsigned char *at;

	if (is_wrong(c, req))
		return ERR_INVALID;
	if (c->mutant->error[req->type])
		return c->mutant->error[req->type];
	at = private->data + req->offset;
	if (req->type == MUTANT_CMD_READ)
		memcpy(req->data, at, req->length);
	else if (req->type == MUTANT_CMD_WRITE)
		memcpy(at, req->data, req->length);
	else if (req->type == MUTANT_CMD_ZERO)
		memset(at, 0, req->length);
	else if (req->type == MUTANT_CMD_TRIM)
		memset(at, 0xdd, req->length);
	else if (req->type == MUTANT_CMD_FLUSH)
		memcpy(private->stable, private->data, private->room);
	if (req->flags & 1)
		memcpy(private->stable + req->offset, at, req->length);
	return 0;
}

static enum mutant_reply next_fault(struct mutant *mutant)
{
	struct mutant_private *private = mutant->private;

	if (!mutant->fault_every ||
	    ++private->replies % mutant->fault_every != 0)
		return REPLY_WELL;
	mutant->faults++;
	return REPLY_CUT_HEAD + private->turn++ % (MUTANT_NR_REPLIES - 1);
}

#define CHUNK_HEAD 28u

/* Returns how many bytes it has.  length 0: no data. */
static size_t make_chunk(const struct request *req, uint32_t at,
			 uint32_t length, bool done, unsigned char *ret)
{
	unsigned char *p = put32(ret, CHUNK);

	p = put16(p, done ? CHUNK_DONE : 0);
	p = put16(p, length ? CHUNK_DATA : CHUNK_NONE);
	p = (unsigned char *)memcpy(p, &req->cookie, 8) + 8;
	p = put32(p, length ? 8 + length : 0);
	if (length)
		p = memcpy(put64(p, req->offset + at), req->data + at, length);
	return (size_t)(p + length - ret);
}

static bool put_chunk(struct connection *c, const struct request *req,
		      uint32_t at, uint32_t length, bool done)
{
	unsigned char *buf = malloc(CHUNK_HEAD + length);
	bool more;

	assert(buf);
	more = put(c->fd, buf, make_chunk(req, at, length, done, buf));
	free(buf);
	return more;
}

/* Many at a time, and short, so that there is always another one. */
static bool put_endless(struct connection *c, const struct request *req)
{
	static unsigned char buf[256u << 10];
	unsigned int many = 0;
	size_t n = 0;

	for (; n + CHUNK_HEAD < sizeof(buf); many++)
		n += make_chunk(req, 0, 1, false, buf + n);
	while (c->mutant->chunks == CHUNKS_ENDLESS) {
		if (!put(c->fd, buf, n))
			return false;
		c->mutant->endless += many;
	}
	return true;
}

static bool answer_in_chunks(struct connection *c, const struct request *req)
{
	enum mutant_chunks chunks = c->mutant->chunks;
	uint32_t half = req->length / 2;

	if (chunks == CHUNKS_NO_DATA)
		return put_chunk(c, req, 0, 0, true);
	if (chunks == CHUNKS_HALF)
		return put_chunk(c, req, 0, half, true);
	return (chunks == CHUNKS_ENDLESS ? put_endless(c, req) :
					   put_chunk(c, req, 0, half, false)) &&
	       put_chunk(c, req, half, req->length - half, true);
}

/* False: the connection is over. */
static bool answer(struct connection *c, const struct request *req,
		   uint32_t error, enum mutant_reply fault)
{
	uint32_t length = req->type == MUTANT_CMD_READ && !error ? req->length :
								   0;
	uint64_t cookie = req->cookie;
	unsigned char buf[16];
	size_t n = sizeof(buf);

	if (fault == REPLY_WRONG_COOKIE)
		cookie = ~cookie;
	(void)put32(put32(buf, fault == REPLY_WRONG_MAGIC ? 1 : SIMPLE), error);
	memcpy(buf + 8, &cookie, sizeof(cookie));
	if (fault == REPLY_CUT_HEAD)
		n = 7;
	if (fault == REPLY_CUT_DATA)
		length /= 2;
	if (fault == REPLY_NONE || fault == REPLY_NOT_DONE ||
	    !put(c->fd, buf, n))
		return false;
	if (fault == REPLY_CUT_HEAD || !put(c->fd, req->data, length))
		return false;
	return fault == REPLY_WELL || fault == REPLY_SHUTDOWN;
}

/* Under the lock: a restart comes before or after it. */
static bool handle(struct connection *c, struct request *req)
{
	struct mutant *mutant = c->mutant;
	enum mutant_reply fault;
	uint32_t error = 0;

	if (c->dead)
		return false;
	fault = next_fault(mutant);
	note(mutant, req);
	if (mutant->silent)
		return true;
	if (fault == REPLY_SHUTDOWN)
		error = ERR_DOWN;
	else if (fault != REPLY_NOT_DONE)
		error = carry_out(c, req);
	if (mutant->chunks && req->type == MUTANT_CMD_READ && !error && !fault)
		return answer_in_chunks(c, req);
	return answer(c, req, error, fault);
}

static void serve(struct connection *c)
{
	struct mutant_private *private = c->mutant->private;
	bool more = true;

	while (more) {
		struct request req = { .data = NULL };

		more = receive(c, &req) && req.type != MUTANT_CMD_DISC;
		if (more) {
			(void)pthread_mutex_lock(&private->lock);
			more = handle(c, &req);
			(void)pthread_mutex_unlock(&private->lock);
		}
		free(req.data);
	}
}

/* --- Connections --------------------------------------------------------------- */

static void *run_connection(void *arg)
{
	struct connection *c = arg;
	struct mutant_private *private = c->mutant->private;

	c->mutant->connections++;
	if (shake_hands(c)) {
		c->mutant->greeted++;
		serve(c);
	}
	(void)pthread_mutex_lock(&private->lock);
	c->mutant->connections--;
	(void)close(c->fd);
	c->fd = -1;
	(void)pthread_mutex_unlock(&private->lock);
	return NULL;
}

static void take(struct mutant *mutant, int fd)
{
	struct mutant_private *private = mutant->private;

	struct connection *c = private->connections;

	(void)pthread_mutex_lock(&private->lock);
	while (c->fd >= 0)
		assert(++c < private->connections + MAX_CONNECTIONS);
	/* Its thread needs the lock no more. */
	if (c->used)
		(void)pthread_join(c->thread, NULL);
	*c = (struct connection){ .mutant = mutant, .fd = fd, .used = true };
	assert(pthread_create(&c->thread, NULL, run_connection, c) == 0);
	(void)pthread_mutex_unlock(&private->lock);
}

static void *accept_all(void *arg)
{
	struct mutant *mutant = arg;
	struct mutant_private *private = mutant->private;
	struct pollfd pfd = { .fd = private->listener, .events = POLLIN };

	while (!private->stop)
		if (poll(&pfd, 1, 20) == 1)
			take(mutant, accept(private->listener, NULL, NULL));
	return NULL;
}

static void start(struct mutant *mutant, uint64_t size,
		  const struct sockaddr *address, socklen_t length)
{
	struct mutant_private *private = calloc(1, sizeof(*private));

	assert(private);
	memset(mutant, 0, sizeof(*mutant));
	mutant->private = private;
	mutant->size = size;
	mutant->flags = MUTANT_ALL;
	private->room = size;
	private->data = calloc(1, size);
	private->stable = calloc(1, size);
	assert(private->data && private->stable);
	for (unsigned int i = 0; i < MAX_CONNECTIONS; i++)
	private->connections[i].fd = -1;
	(void)pthread_mutex_init(&private->lock, NULL);
	private->listener =
		socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(bind(private->listener, address, length) == 0);
	assert(listen(private->listener, 16) == 0);
	assert(pthread_create(&private->acceptor, NULL, accept_all, mutant) ==
	       0);
}

void mutant_start(struct mutant *mutant, const char *path, uint64_t size)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	start(mutant, size, (struct sockaddr *)&address, sizeof(address));
}

unsigned int mutant_start_tcp(struct mutant *mutant, uint64_t size)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof(address);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	start(mutant, size, (struct sockaddr *)&address, length);
	assert(getsockname(mutant->private->listener,
			   (struct sockaddr *)&address, &length) == 0);
	return ntohs(address.sin_port);
}

static void hang_up(struct mutant_private *private)
{
	for (unsigned int i = 0; i < MAX_CONNECTIONS; i++) {
		struct connection *c = &private->connections[i];

		c->dead = true;
		if (c->fd >= 0)
			(void)shutdown(c->fd, SHUT_RDWR);
	}
}

void mutant_restart(struct mutant *mutant, bool forgets)
{
	struct mutant_private *private = mutant->private;

	(void)pthread_mutex_lock(&private->lock);
	hang_up(private);
	if (forgets)
		memcpy(private->data, private->stable, private->room);
	(void)pthread_mutex_unlock(&private->lock);
}

void mutant_stop(struct mutant *mutant)
{
	struct mutant_private *private = mutant->private;

	private->stop = true;
	(void)pthread_join(private->acceptor, NULL);
	(void)pthread_mutex_lock(&private->lock);
	hang_up(private);
	(void)pthread_mutex_unlock(&private->lock);
	for (unsigned int i = 0; i < MAX_CONNECTIONS; i++)
		if (private->connections[i].used)
			(void)pthread_join(private->connections[i].thread,
					   NULL);
	(void)close(private->listener);
	(void)pthread_mutex_destroy(&private->lock);
	free(private->data);
	free(private->stable);
	free(private);
}

const unsigned char *mutant_data(const struct mutant *mutant)
{
	return mutant->private->data;
}
