/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * private.h - a session from inside.  For the files of this folder only.
 */
#ifndef XENDISK_NBD_PRIVATE_H
#define XENDISK_NBD_PRIVATE_H

#include "nbd/session.h"

#define NBD_INPUT_BYTES (64u << 10)
/* Of a session, while writes are done from where they have come. */
#define NBD_MAX_INPUTS 4u
/* An option that is longer is skipped and refused. */
#define NBD_MAX_OPTION 16384u
/* So many bytes waiting to be sent are enough: nothing more is read. */
#define NBD_OUTPUT_BYTES (256u << 10)
#define NBD_MAX_EXTENTS	 1024u
/* Buffers that are kept for the next command: up to so many bytes in all, and so
 * many while no command is there. */
#define NBD_MAX_SPARE  (8u << 20)
#define NBD_IDLE_SPARE (1u << 20)
/* Lists of them: one for each number of pages, the last one for more as well. */
#define NBD_NR_SPARE 16u
/* The longest head of a reply that is not the status of much, or an error's. */
#define NBD_SMALL_HEAD 48u
#define NBD_CONTEXT_ID 1u /* of base:allocation */

/* What comes next from the client. */
enum nbd_state {
	NBD_WANT_FLAGS,
	NBD_WANT_OPTION, /* its header */
	NBD_WANT_OPTION_DATA,
	NBD_WANT_REQUEST, /* its header */
	NBD_WANT_PAYLOAD, /* of session->command */
	NBD_WANT_NOTHING, /* it has said goodbye */
};

enum nbd_headers { NBD_SIMPLE, NBD_STRUCTURED, NBD_EXTENDED };

struct nbd_extent {
	uint64_t length;
	uint32_t state;
};

/* The beginning of memory that nobody uses. */
struct nbd_spare {
	struct nbd_spare *next;
	size_t size; /* of a buffer */
};

/* What is made for each request, and always of one size: at most NBD_MAX_COMMANDS
 * are kept. */
struct nbd_pool {
	size_t size;
	struct nbd_spare *first;
	unsigned int nr;
};

/* What has come from the client, and is not taken yet; or was, by writes that are
 * under way and have their data in it. */
struct nbd_input {
	unsigned int nr_users; /* such writes */
	uint8_t bytes[NBD_INPUT_BYTES];
};

/* A piece of output: a head of our own, then perhaps a command's data, after
 * which the command is over. */
struct nbd_out {
	struct nbd_out *next;
	struct nbd_command *command; /* NULL: none ends here */
	const void *payload;
	size_t payload_length;
	size_t head_length;
	uint8_t head[];
};

struct nbd_session {
	const struct nbd_session_events *events;
	void *ctx;
	enum nbd_tls tls;
	bool in_tls;
	bool wants_tls;

	enum nbd_state state;
	bool fixed; /* the client speaks fixed newstyle */
	bool no_zeroes;
	enum nbd_headers headers;
	const struct nbd_export *export; /* chosen */
	/* base:allocation was chosen for that export. */
	bool allocation;
	char *allocation_name;

	/* Option or payload being received. */
	uint32_t option;
	struct nbd_command *command;
	uint64_t received; /* of the payload */
	uint64_t skip; /* bytes that nobody wants */

	struct nbd_input *input; /* the one that is filled */
	size_t input_start, input_end;
	unsigned int nr_inputs; /* and those that writes still use */

	struct nbd_out *out_first, *out_last;
	size_t out_sent; /* of out_first */
	size_t out_bytes; /* heads that wait */

	unsigned int nr_commands; /* made and not freed */
	unsigned int nr_pending; /* with the owner */
	size_t memory; /* of their buffers */
	/* The last one to be freed in front. */
	struct nbd_spare *spare[NBD_NR_SPARE];
	size_t spare_bytes;
	struct nbd_pool commands; /* events->command_size each */
	struct nbd_pool outs; /* with NBD_SMALL_HEAD bytes of head */
};

/* --- handshake.c: one option, complete ------------------------------------ */

int nbd_take_flags(struct nbd_session *s, uint32_t flags);
int nbd_take_option(struct nbd_session *s, uint32_t option, const uint8_t *data,
		    uint32_t length);
/* One that is too long to be looked at. */
int nbd_refuse_option(struct nbd_session *s, uint32_t option);

/* --- request.c ------------------------------------------------------------ */

struct nbd_request {
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint64_t offset;
	uint64_t length;
};

/* Its payload follows on the wire. */
bool nbd_request_has_payload(enum nbd_headers headers,
			     const struct nbd_request *request);
/* Pure.  NBD_SUCCESS, or why it cannot be done, with a sentence. */
enum nbd_error nbd_judge(const struct nbd_export *export,
			 enum nbd_headers headers, bool allocation,
			 const struct nbd_request *request,
			 const char **ret_why);
uint16_t nbd_transmission_flags(const struct nbd_export *export,
				enum nbd_headers headers);
enum nbd_error nbd_error_of(int err);

/* --- reply.c: output ------------------------------------------------------ */

/* Queues bytes, given later by the caller at the returned place; NULL: no
 * memory. */
uint8_t *nbd_out_bytes(struct nbd_session *s, size_t length);
/* Answers a request that never became a command. */
int nbd_reply_error(struct nbd_session *s, const struct nbd_request *request,
		    enum nbd_error error, const char *why);
void nbd_free_output(struct nbd_session *s);

/* --- buffer.c ------------------------------------------------------------- */

/* For a command of that length, aligned to 4096; NULL: no memory. */
void *nbd_buffer_new(struct nbd_session *s, uint64_t length);
void nbd_buffer_free(struct nbd_session *s, void *buffer, uint64_t length);
/* Empty, and the one to be filled; an older one goes with its last user.  False: no
 * memory, all is as it was. */
bool nbd_input_renew(struct nbd_session *s);
/* One user less. */
void nbd_input_put(struct nbd_session *s, struct nbd_input *input);
/* All buffers that are kept; or those that an idle client needs not. */
void nbd_buffer_trim(struct nbd_session *s, size_t most);
/* All zeroes; NULL: no memory. */
void *nbd_pool_take(struct nbd_pool *pool);
void nbd_pool_give(struct nbd_pool *pool, void *piece);
void nbd_pool_empty(struct nbd_pool *pool);

/* --- session.c ------------------------------------------------------------ */

void nbd_free_command(struct nbd_command *command);

#endif
