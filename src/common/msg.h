/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * msg.h - what broker and worker say to each other.
 *
 * Over a SOCK_SEQPACKET pair, one message a packet, at most MSG_MAX bytes and
 * MSG_MAX_FDS descriptors.  Every message begins with struct msg_header; the
 * rest is the struct named beside its type.  Text is in fixed arrays and ends
 * with a NUL, which the receiver checks: the broker takes a worker for an
 * enemy, since it reads what a guest wrote.
 *
 * Which side sends what is in enum msg_type.  A worker has one service request
 * outstanding at most; seq ties the answer to it.
 */
#ifndef XENDISK_MSG_H
#define XENDISK_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util.h"
#include "xendisk-backend.h"

#define MSG_VERSION 4
#define MSG_MAX	    8192
#define MSG_MAX_FDS 4

#define MSG_EXPR_MAX	   4096 /* bytes of an expression, without the NUL */
#define MSG_TEXT_MAX	   512
#define MSG_EXPORT_MAX	   64 /* bytes of an export's name, without the NUL */
#define MSG_NOTES_MAX	   2048
#define MSG_VERB_MAX	   32 /* of CONTROL, with the NUL */
#define MSG_CONTROL_MAX	   4096 /* its text and the answer, with the NUL */
#define MSG_COMMIT_MAX	   65 /* SHA-256 in hexadecimal, with the NUL */
#define MSG_IDENTITY_MAX   512
#define MSG_MAX_IDENTITIES 8

#define XD_MAX_RINGS	  16
#define XD_MAX_RING_ORDER 4
#define XD_MAX_RING_PAGES (1u << XD_MAX_RING_ORDER)
#define XD_MAX_SEGMENTS	  256 /* of an indirect request, as blkback offers */

enum msg_type {
	/* broker to worker */
	MSG_OPEN = 1, /* struct msg_open; answered by OPENED or FAILED */
	MSG_CONNECT, /* struct msg_connect; CONNECTED or FAILED */
	MSG_DISCONNECT, /* header only; answered by DISCONNECTED */
	MSG_RESUME, /* struct msg_resume; answered by RESUMED */
	MSG_CLOSE, /* header only; the worker closes all and exits 0 */
	MSG_SERVICE_DONE, /* struct msg_service_done, maybe a descriptor */
	MSG_RESIZE, /* struct msg_resize; answered by RESIZED */
	MSG_CLIENT, /* struct msg_client, and the NBD client's socket; answered
		     * by CLIENT_TAKEN */
	MSG_CONTROL, /* struct msg_control; answered by CONTROLLED */

	/* worker to broker */
	MSG_HELLO = 32, /* struct msg_hello: the first message */
	MSG_OPENED, /* struct msg_opened */
	MSG_CONNECTED, /* header only */
	MSG_DISCONNECTED, /* struct msg_text: result of the last flush */
	MSG_RESUMED, /* struct msg_text */
	MSG_FAILED, /* struct msg_text: OPEN or CONNECT did not work */
	MSG_BROKEN, /* struct msg_text: the guest broke its ring; the
			   * rings are stopped, DISCONNECT is expected */
	MSG_CONDITION, /* struct msg_condition */
	MSG_SERVICE, /* struct msg_service */
	MSG_GREW, /* struct msg_grew: the disk is larger now */
	MSG_RESIZED, /* struct msg_text; GREW came before it, if it did */
	MSG_SERVING, /* struct msg_serving: to a new broker, after HELLO and
		      * OPENED */

	MSG_CLIENT_TAKEN, /* struct msg_text: or why it was sent away */
	MSG_CONTROLLED, /* struct msg_controlled */
	MSG_CHANGED, /* struct msg_changed; again to a new broker */

	/* what became of MSG_SERVICE_CONNECT or SPAWN, on a socket of its own */
	MSG_REACHED = 64, /* struct msg_text, and the connection */
};

struct msg_header {
	uint16_t type;
	uint16_t version;
	uint32_t length; /* of the whole message, bytes */
	uint32_t seq; /* answers repeat the question's */
	int32_t result; /* answers: 0 or -errno */
};

/* Which disk of which guest.  With the UUID, since domain ids are used again. */
struct msg_identity {
	uint32_t domid;
	uint32_t devid;
	uint32_t backend_domid;
	char vm[40]; /* UUID text, or empty */
};

struct msg_hello {
	struct msg_header h;
	struct msg_identity id;
	uint32_t pid;
};

#define MSG_OPEN_READONLY (1u << 0) /* mode=r */
/* A worker died while the disk was in use: its writes may be under way. */
#define MSG_OPEN_FENCE (1u << 1)

struct msg_open {
	struct msg_header h;
	struct msg_identity id;
	uint32_t flags;
	char expression[MSG_EXPR_MAX + 1]; /* canonical, no @names */
};

struct msg_opened {
	struct msg_header h;
	struct xd_limits limits; /* of the whole stack */
	uint32_t max_rings;
	uint32_t max_ring_order;
	uint32_t nr_identities;
	char identity[MSG_MAX_IDENTITIES][MSG_IDENTITY_MAX];
	char notes[MSG_NOTES_MAX]; /* a line per layer: "0 raw O_DIRECT..." */
};

enum msg_abi { MSG_ABI_NATIVE, MSG_ABI_X86_32, MSG_ABI_X86_64 };

struct msg_ring {
	uint32_t event_channel;
	uint32_t nr_refs; /* 1, 2, 4, 8 or 16 pages */
	uint32_t ref[XD_MAX_RING_PAGES];
};

#define MSG_CONNECT_RECOVER  (1u << 0) /* a worker died on this ring before */
#define MSG_CONNECT_POISONED (1u << 1) /* an earlier flush failed: see RESUME */
/* Persistent grants: pages of the guest may stay mapped until DISCONNECT. */
#define MSG_CONNECT_PERSISTENT (1u << 2)

struct msg_connect {
	struct msg_header h;
	uint32_t flags;
	uint32_t abi; /* enum msg_abi */
	uint32_t nr_rings;
	uint32_t discard; /* 0: discard-enable=0 */
	struct msg_ring ring[XD_MAX_RINGS];
};

/* What a worker is doing whose broker has died. */
struct msg_serving {
	struct msg_header h;
	uint64_t budget; /* bytes taken of the common limit */
	struct msg_connect connect; /* as it came; nr_rings 0: not connected */
};

struct msg_resume {
	struct msg_header h;
	uint32_t accept_loss;
};

struct msg_resize {
	struct msg_header h;
	uint64_t size; /* bytes; 0: as large as the storage is by now */
};

#define MSG_CLIENT_READONLY (1u << 0)
#define MSG_CLIENT_FORCE    (1u << 1) /* it may write beside the guest */
#define MSG_CLIENT_POISONED (1u << 2) /* an earlier flush failed */

struct msg_client {
	struct msg_header h;
	uint32_t flags;
	char name[MSG_EXPORT_MAX + 1]; /* of the export, or "" */
};

/* For control() of a backend. */
struct msg_control {
	struct msg_header h;
	char verb[MSG_VERB_MAX];
	char text[MSG_CONTROL_MAX]; /* pairs.h */
};

struct msg_controlled {
	struct msg_header h;
	char text[MSG_CONTROL_MAX]; /* pairs.h; result < 0: why, a sentence, or
				     * "": no backend of it knows the verb */
};

/* xd_changed(): what a layer shows now. */
struct msg_changed {
	struct msg_header h;
	uint32_t layer; /* its number, pre-order from 0 at the root */
	char commit[MSG_COMMIT_MAX]; /* or "" */
	char text[MSG_TEXT_MAX];
};

struct msg_grew {
	struct msg_header h;
	uint64_t size; /* bytes */
};

struct msg_text {
	struct msg_header h;
	char text[MSG_TEXT_MAX];
};

enum msg_condition_kind {
	MSG_PAUSED,
	MSG_POISONED,
	MSG_RECOVERING,
	MSG_FINISHING, /* DISCONNECT takes long, and goes on: the broker's own */
	MSG_NR_CONDITIONS
};

struct msg_condition {
	struct msg_header h;
	uint32_t kind; /* enum msg_condition_kind */
	uint32_t set; /* 1: it holds now; 0: it is over */
	char reason[MSG_TEXT_MAX];
};

/* What the broker does for a worker that may not do it itself. */
enum msg_service_kind {
	MSG_SERVICE_OPEN, /* layer, name: an XD_PATH parameter; flags */
	MSG_SERVICE_KEEP, /* layer, name, kind, size: see xd_keep() */
	MSG_SERVICE_BUDGET, /* amount: see xd_budget() */
	MSG_SERVICE_POISON, /* name: the identity; text in reason: remember it,
			     * durably, before a guest hears of the failure */
	MSG_SERVICE_CONNECT, /* layer, name: an XD_SERVER parameter; the
			      * descriptor is where REACHED will come */
	MSG_SERVICE_CREDENTIAL, /* layer, name: an XD_CREDENTIALS parameter;
				 * reason: which setting; text: its value */
	MSG_SERVICE_SPAWN, /* layer, flags of xd_spawn(): the descriptor is where
			    * REACHED will come */
	MSG_NR_SERVICES
};

#define MSG_LAYER_NONE UINT32_MAX /* the worker itself */

struct msg_service {
	struct msg_header h;
	uint32_t kind; /* enum msg_service_kind */
	uint32_t layer; /* its number, pre-order from 0 at the root */
	uint32_t flags; /* OPEN: of open(2); SPAWN: of xd_spawn() */
	uint32_t keep; /* KEEP: enum xd_keep_kind */
	uint64_t size; /* KEEP: bytes */
	int64_t amount; /* BUDGET: bytes */
	char name[MSG_IDENTITY_MAX];
	char reason[MSG_TEXT_MAX];
};

struct msg_service_done {
	struct msg_header h;
	uint32_t kept; /* KEEP: the file was there already */
	char text[MSG_TEXT_MAX]; /* why it failed */
};

/*
 * Sends a message whose type and length are set here; fd -1 for none (it stays
 * the caller's).  MSG_DONTWAIT: a peer that does not read is -EAGAIN.
 */
int msg_send(int sock, void *msg, size_t length, enum msg_type type, int fd);

/*
 * Receives one into buf (MSG_MAX bytes, aligned for any message).  Checks
 * version, length against what the type needs, and that every text ends.
 * *ret_fd is -1 when none came along.  -EAGAIN: nothing there; -ECONNRESET:
 * the peer is gone; -EPROTO: rubbish.
 */
int msg_receive(int sock, void *buf, size_t *ret_length, int *ret_fd);

/* 40 or 64 hexadecimal digits in lower case: what may be in CHANGED. */
bool msg_is_commit(const char *text);

/* "OPEN", "SERVICE", ...; "?" for a number that is none. */
const char *msg_name(uint16_t type);

/* Writes a sentence into ret_why (MSG_TEXT_MAX bytes), and returns err. */
int msg_why(char *ret_why, int err, const char *fmt, ...) PRINTF(3, 4);

#endif
