/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * session.h - one NBD client, as bytes in and bytes out.
 *
 * A session knows the protocol and nothing else: no socket, no thread, no
 * storage.  Its owner brings the bytes that the client sent, takes away those
 * that the client is to get, and executes the commands.  One thread at a time.
 *
 *	nbd_session_room()	where the next bytes of the client go
 *	nbd_session_take()	that many have come: may call submit()
 *	nbd_command_done()	a command is over: its reply is queued
 *	nbd_session_output()	what is to be sent
 *	nbd_session_sent()	that much was
 *
 * What a client can make grow has a limit: NBD_MAX_PAYLOAD for a request,
 * NBD_MAX_MEMORY and NBD_MAX_COMMANDS for a session; at the limit
 * nbd_session_room() has no room until something was sent.
 */
#ifndef XENDISK_NBD_SESSION_H
#define XENDISK_NBD_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "nbd/proto.h"

#define NBD_MAX_PAYLOAD (32u << 20) /* as QEMU's and nbdkit's clients assume */
/* Payloads of all commands in flight; one more may begin below it.  More would not
 * make anything faster, and leave the processor's cache. */
#define NBD_MAX_MEMORY	 (4u << 20)
#define NBD_MAX_COMMANDS 256u

/* What a client may choose.  Lives longer than the sessions that use it. */
struct nbd_export {
	const char *name;
	const char *description; /* or NULL */
	uint64_t size;
	uint32_t minimum_block; /* a power of two, 1 to 64 KiB */
	uint32_t preferred_block; /* a power of two, at least 512 */
	bool readonly;
	bool flush;
	bool fua;
	bool trim;
	bool zero;
	bool multi_conn; /* a flush on one connection is good for all */
	/* What the data of a write must be aligned to in memory, 1 to 4096; 0 is
	 * 4096.  Where it is little, data need not be copied. */
	uint32_t memory_alignment;
	void *owner; /* for the code that made the export */
};

struct nbd_session;
struct nbd_input;

/* What the client wants done.  The head of a struct of the owner's. */
struct nbd_command {
	struct nbd_session *session;
	const struct nbd_export *export;
	enum nbd_cmd type; /* neither DISC nor an unknown one */
	uint16_t flags; /* NBD_CMD_FLAG_... that are valid for it */
	uint64_t offset; /* within the export, multiples of minimum_block, ... */
	uint64_t length; /* ... checked; 0 only for FLUSH */
	/* The data: of READ aligned to 4096, of WRITE to what the export needs, and
	 * not to be changed. */
	void *buffer;

	/* private to the session */
	struct nbd_command *next;
	uint64_t cookie;
	struct nbd_input *input; /* the buffer is a part of it */
	struct nbd_extent *extents;
	uint32_t nr_extents;
};

struct nbd_session_events {
	/* The exports, in order; NULL: no more. */
	const struct nbd_export *(*export)(void *ctx, unsigned int index);
	/* Executes it and calls nbd_command_done(), at once or later. */
	void (*submit)(void *ctx, struct nbd_command *command);
	/* sizeof the owner's struct around a command. */
	size_t command_size;
};

/* How it may be talked to. */
enum nbd_tls {
	NBD_TLS_NONE, /* there is none */
	NBD_TLS_REQUIRED, /* nothing but STARTTLS before it */
};

/* The greeting waits in the output at once. */
int nbd_session_new(struct nbd_session **ret,
		    const struct nbd_session_events *events, void *ctx,
		    enum nbd_tls tls);
/* No command may be with the owner any more. */
void nbd_session_free(struct nbd_session *session);

/* Where the client's next bytes go; 0: none are wanted now. */
size_t nbd_session_room(struct nbd_session *session, void **ret_room);
/* Also with 0 bytes, when some were sent: what waited for room goes on then.
 * -EPROTO: the client broke the protocol; -ENOMEM.  The session is over, and
 * nothing more may be sent. */
int nbd_session_take(struct nbd_session *session, size_t length);
/* It is at a limit: there would be room if there were less under way. */
bool nbd_session_is_full(const struct nbd_session *session);

/* Fills iov with what is to be sent; returns how many there are. */
unsigned int nbd_session_output(const struct nbd_session *session,
				struct iovec *iov, unsigned int max);
void nbd_session_sent(struct nbd_session *session, size_t length);

/* What the protocol has for an error of the disk's: a trim is a hint, and "not
 * supported" is the answer to FAST_ZERO only. */
int nbd_command_error(const struct nbd_command *command, int err);
/* err: 0 or a negative errno; why (may be NULL) is told to the client with it. */
void nbd_command_done(struct nbd_command *command, int err, const char *why);

/* BLOCK_STATUS: the next bytes are like this (NBD_STATE_...), from the
 * command's offset on.  Those that follow the last one are left unsaid; with
 * none the reply says that nothing is known.  False: enough. */
bool nbd_command_extent(struct nbd_command *command, uint64_t length,
			uint32_t state);

/* The client has said goodbye, and all is sent: close it. */
bool nbd_session_ended(const struct nbd_session *session);
/* Would it, after what is not taken yet and the rest, which is the end of all? */
bool nbd_session_goodbye(const struct nbd_session *session, const uint8_t *rest,
			 size_t length);
/* It has, but what is under way is not sent yet.  All that it had asked for is to be
 * done. */
bool nbd_session_is_leaving(const struct nbd_session *session);
/* Has it chosen an export?  Else it may be timed out. */
const struct nbd_export *nbd_session_export(const struct nbd_session *session);
/* Commands that are with the owner. */
unsigned int nbd_session_pending(const struct nbd_session *session);

/* STARTTLS was acknowledged: when all output is sent, both sides go on inside
 * TLS, and nbd_session_tls_started() says so.  What was negotiated before is
 * forgotten. */
bool nbd_session_wants_tls(const struct nbd_session *session);
void nbd_session_tls_started(struct nbd_session *session);

#endif
