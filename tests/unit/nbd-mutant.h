/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-mutant.h - an NBD server that does what servers should not do, in a
 * thread of the test's own.
 *
 * It says of its export what the test likes, hangs or talks nonsense in the
 * handshake, breaks off in the middle of replies, and loses what was not flushed
 * (mutant_restart()).  What it was asked for is counted.  Nothing here is taken
 * from the code under test: it speaks the protocol on its own, as NBD's
 * doc/proto.md has it, with simple replies, or reads in chunks.
 */
#ifndef XENDISK_NBD_MUTANT_H
#define XENDISK_NBD_MUTANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Transmission flags and commands of the protocol. */
#define MUTANT_HAS_FLAGS  (1u << 0)
#define MUTANT_READ_ONLY  (1u << 1)
#define MUTANT_FLUSH	  (1u << 2)
#define MUTANT_FUA	  (1u << 3)
#define MUTANT_TRIM	  (1u << 5)
#define MUTANT_ZERO	  (1u << 6)
#define MUTANT_MULTI_CONN (1u << 8)
#define MUTANT_ALL                                                    \
	(MUTANT_HAS_FLAGS | MUTANT_FLUSH | MUTANT_FUA | MUTANT_TRIM | \
	 MUTANT_ZERO)

enum mutant_command {
	MUTANT_CMD_READ,
	MUTANT_CMD_WRITE,
	MUTANT_CMD_DISC,
	MUTANT_CMD_FLUSH,
	MUTANT_CMD_TRIM,
	MUTANT_CMD_CACHE,
	MUTANT_CMD_ZERO,
	MUTANT_NR_COMMANDS,
};

/* In place of a good handshake. */
enum mutant_greeting {
	GREET_WELL,
	GREET_NOT_AT_ALL, /* it takes the connection and is silent */
	GREET_HALF, /* ... after half of the greeting */
	GREET_NO_ANSWER, /* ... to options */
	GREET_WRONG_MAGIC,
	GREET_WRONG_REPLY, /* the magic of a reply to an option */
	GREET_REFUSED, /* the export */
	GREET_NO_INFO, /* "go ahead", and not how large it is */
	GREET_HANG_UP, /* in the middle of a reply */
};

/* In place of a reply; all but the last two have done what was asked. */
enum mutant_reply {
	REPLY_WELL,
	REPLY_CUT_HEAD,
	REPLY_CUT_DATA,
	REPLY_WRONG_MAGIC,
	REPLY_WRONG_COOKIE,
	REPLY_NONE, /* it hangs up */
	REPLY_NOT_DONE, /* it hangs up, and has done nothing */
	REPLY_SHUTDOWN, /* ESHUTDOWN, and has done nothing */
	MUTANT_NR_REPLIES,
};

/* Of what a reply to a read consists. */
enum mutant_chunks {
	CHUNKS_NOT, /* a simple one; the others are structured */
	CHUNKS_WELL, /* two halves */
	CHUNKS_NO_DATA, /* it says that this is all */
	CHUNKS_HALF, /* the same after the first half */
	CHUNKS_ENDLESS, /* the first byte, again and again, until the test has
			 * it otherwise */
};

struct mutant {
	/* What it says; the test changes it between two connections. */
	uint64_t size; /* at most what it was made with */
	uint32_t minimum, preferred, maximum; /* 0: no block sizes are said */
	_Atomic(unsigned int) flags;
	_Atomic(enum mutant_greeting) greeting;
	_Atomic(enum mutant_chunks) chunks; /* another one at the handshake too */
	/* Every so many replies another fault, in turn; 0: none. */
	_Atomic(unsigned int) fault_every;
	/* Errors of the protocol, by command; 0: none. */
	_Atomic(uint32_t) error[MUTANT_NR_COMMANDS];
	_Atomic(bool) silent; /* no command is answered */

	/* What it has seen. */
	_Atomic(unsigned int) asked[MUTANT_NR_COMMANDS];
	_Atomic(unsigned int) fua; /* commands with that flag */
	_Atomic(unsigned int) no_hole;
	_Atomic(unsigned int) unaligned; /* not in whole blocks: an error */
	_Atomic(unsigned int) faults;
	_Atomic(unsigned int) endless; /* chunks that were sent */
	_Atomic(unsigned int) greeted; /* handshakes that ended well */
	_Atomic(unsigned int) connections; /* that are open now */

	struct mutant_private *private;
};

/* Listens at a Unix socket; or by TCP, at a port of 127.0.0.1, which it returns. */
void mutant_start(struct mutant *mutant, const char *path, uint64_t size);
unsigned int mutant_start_tcp(struct mutant *mutant, uint64_t size);
void mutant_stop(struct mutant *mutant);

/* Hangs up on all, as if it had been killed and started again; what was not
 * flushed (or FUA) is gone if it forgets. */
void mutant_restart(struct mutant *mutant, bool forgets);

/* What it has, size bytes. */
const unsigned char *mutant_data(const struct mutant *mutant);

#endif
