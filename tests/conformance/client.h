/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client.h - an NBD client that trusts nobody: for the cases of nbd-conformance.
 *
 * It knows the protocol's numbers (nbd/proto.h) and nothing else of the product.
 * Whatever the server sends is checked against the document, in every case; the
 * first violation ends the case (client_fail() does not return).  Each case has
 * connections of its own.
 */
#ifndef XENDISK_CONFORMANCE_CLIENT_H
#define XENDISK_CONFORMANCE_CLIENT_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdnoreturn.h>

#include "common/server.h"
#include "common/util.h"
#include "nbd/proto.h"

#define NO_EXPORT_NAME "there is surely no export of this name"
#define ALLOCATION     "base:allocation"

/* How the program was called. */
struct options {
	struct server server;
	bool readonly; /* nothing may be written */
	unsigned int timeout_ms; /* for what must come */
};

enum headers { SIMPLE, STRUCTURED, EXTENDED };

/* A reply to an option. */
struct reply {
	uint32_t type, length;
	uint8_t *data;
};

#define MAX_REPLIES 1024u

struct client {
	const struct options *options;
	struct client *next; /* all of the case */
	int fd;

	/* Handshake */
	uint16_t server_flags;
	struct reply replies[MAX_REPLIES]; /* to the last option */
	unsigned int nr_replies; /* without the final one */

	/* What client_go() has found out. */
	enum headers headers;
	bool allocation; /* BLOCK_STATUS may be asked */
	uint32_t context; /* its id */
	uint64_t size;
	uint16_t flags;
	uint32_t minimum, preferred, maximum; /* 1, 4096, 32M: not told */
	bool sizes_told;
	uint64_t cookie; /* of the last request */
};

/* --- The case under way --------------------------------------------------- */

struct verdict {
	enum { PASSED, FAILED, SKIPPED } kind;
	char why[400];
};

/* Runs a case; its connections are closed and its memory is freed. */
struct verdict client_run(const struct options *options,
			  void (*run)(struct client *c));

noreturn void client_fail(const char *fmt, ...) PRINTF(1, 2);
noreturn void client_skip(const char *fmt, ...) PRINTF(1, 2);
#define require(condition, ...)                   \
	do {                                      \
		if (!(condition))                 \
			client_fail(__VA_ARGS__); \
	} while (0)

/* Freed when the case ends. */
void *client_memory(size_t size);
/* Another connection of the same case; not connected. */
struct client *client_other(const struct client *c);

/* --- Bytes ---------------------------------------------------------------- */

/* Connects and takes the greeting. */
void client_connect(struct client *c);
void client_send(struct client *c, const void *bytes, size_t length);
void client_recv(struct client *c, void *bytes, size_t length);
/* The server must close the connection, and say nothing before. */
void client_gone(struct client *c, const char *after);
/* Is it closed?  False: it has sent something. */
bool client_is_gone(struct client *c);
void client_close(struct client *c);

/* --- Handshake ------------------------------------------------------------ */

void client_flags(struct client *c, uint32_t flags);
/* client_connect() and client_flags() with all that is offered. */
void client_begin(struct client *c);
void client_option(struct client *c, uint32_t option, const void *data,
		   size_t length);
/* The same, and takes all replies to it.  Returns the type of the final one. */
uint32_t client_ask(struct client *c, uint32_t option, const void *data,
		    size_t length);
/* The reply of that information type; NULL: none. */
const struct reply *client_info(const struct client *c, uint16_t info);

/* Data of options; they return its length.  room: 8192 bytes. */
size_t info_data(uint8_t *room, const char *name, const uint16_t *infos,
		 unsigned int nr);
size_t meta_data(uint8_t *room, const char *name, const char *const *queries,
		 unsigned int nr);

/* Sends GO, takes what it says, and is in transmission. */
void client_enter(struct client *c);
/* All of it.  Skips the case where headers are not to be had; context: asks for
 * base:allocation, and skips without. */
void client_go(struct client *c, enum headers headers, bool context);
/* client_go(), for a case that writes: skips what is read-only. */
void client_go_to_write(struct client *c, enum headers headers);
/* Skips the case unless the export has such a flag. */
void client_needs(const struct client *c, uint16_t flag, const char *what);
/* Skips it unless the export has so many bytes; whole blocks of it. */
void client_needs_size(const struct client *c, uint64_t size);

/* --- Transmission --------------------------------------------------------- */

#define MAX_EXTENTS 4096u

struct extent {
	uint64_t length;
	uint64_t flags;
};

/* A request, and what came of it. */
struct request {
	uint16_t type, flags;
	uint64_t offset, length;
	const void *payload; /* WRITE, or with PAYLOAD_LEN */
	uint64_t cookie; /* 0: the next one */

	bool done;
	uint32_t error;
	bool simple; /* a simple reply */
	unsigned int content_chunks, holes;
	uint8_t *data; /* READ */
	uint8_t *seen; /* a byte for each of it that has come */
	struct extent *extents; /* BLOCK_STATUS */
	unsigned int nr_extents, status_chunks;
};

/* Header and payload. */
void client_submit(struct client *c, struct request *r);
/* Replies until all of them are done, in any order. */
void client_collect(struct client *c, struct request *requests,
		    unsigned int nr);
/* One request; returns the error, 0 for success. */
uint32_t client_do(struct client *c, struct request *r);
uint32_t client_simple_do(struct client *c, uint16_t type, uint16_t flags,
			  uint64_t offset, uint64_t length);
/* Must succeed; READ's data. */
const uint8_t *client_read(struct client *c, uint64_t offset, uint64_t length);
void client_write(struct client *c, uint64_t offset, uint64_t length,
		  uint8_t byte);
/* The connection is in step: a small read is answered as it must be. */
void client_alive(struct client *c);
const char *error_name(uint32_t error);

/* Whole blocks, at least that many bytes. */
uint64_t blocks(const struct client *c, uint64_t length);

#endif
