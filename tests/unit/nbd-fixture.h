/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-fixture.h - an NBD session over 1 MiB of memory, and a client that is
 * the test itself: bytes go in, in pieces of any size, and replies come out.
 */
#ifndef XENDISK_TEST_NBD_FIXTURE_H
#define XENDISK_TEST_NBD_FIXTURE_H

#include "nbd/session.h"

#define FIXTURE_SIZE (1u << 20)
#define FIXTURE_HOLE (512u << 10) /* from here on there is nothing */

struct nbd_fixture {
	struct nbd_session *session;
	struct nbd_export exports[3];
	unsigned int nr_exports;
	uint8_t *disk;
	bool late; /* commands wait for fixture_finish() */
	struct nbd_command *waiting[NBD_MAX_COMMANDS];
	unsigned int nr_waiting;
	unsigned int nr_flushes;
	int fail; /* commands end with this */

	size_t piece; /* bytes given at a time; 0: as many as go */
	int err; /* what nbd_session_take() said last */
	uint8_t *out; /* all that came out and was not looked at */
	size_t out_length, out_at;
};

/* "disk" (everything), "ro" (read-only), "4k" (blocks of 4096). */
void fixture_new(struct nbd_fixture *f, enum nbd_tls tls);
void fixture_free(struct nbd_fixture *f);

/* The client sends; what is answered at once is in the output. */
void fixture_send(struct nbd_fixture *f, const void *bytes, size_t length);
/* Takes what there is to send from the session. */
void fixture_drain(struct nbd_fixture *f);
/* Ends the commands that wait, the last one first. */
void fixture_finish(struct nbd_fixture *f);
/* ... until only the first ones still do. */
void fixture_finish_to(struct nbd_fixture *f, unsigned int left);

/* The next bytes of the output; the test fails when there are not so many. */
const uint8_t *fixture_take(struct nbd_fixture *f, size_t length);
bool fixture_is_empty(const struct nbd_fixture *f);

/* --- A client's words --------------------------------------------------------- */

void fixture_greet(struct nbd_fixture *f, uint32_t flags);
void fixture_option(struct nbd_fixture *f, uint32_t option, const void *data,
		    uint32_t length);
/* The next reply is of that type to that option; returns its data. */
const uint8_t *fixture_reply(struct nbd_fixture *f, uint32_t option,
			     uint32_t type, uint32_t *ret_length);
void fixture_refused(struct nbd_fixture *f, uint32_t option, uint32_t error);

/* Data of INFO and GO for an export, asking for nothing. */
uint32_t fixture_info_data(uint8_t *buf, const char *name);
/* Data of a metadata context option with one query, or none (NULL). */
uint32_t fixture_meta_data(uint8_t *buf, const char *name, const char *query);

/* Greeting, structured or extended headers (or 0), the context if wanted, GO. */
void fixture_go(struct nbd_fixture *f, const char *name, uint32_t headers,
		bool context);

void fixture_request(struct nbd_fixture *f, bool extended, uint16_t flags,
		     uint16_t type, uint64_t cookie, uint64_t offset,
		     uint64_t length);
/* A simple reply. */
void fixture_simple(struct nbd_fixture *f, uint64_t cookie, uint32_t error);
/* A chunk that others of its reply follow; returns its payload. */
const uint8_t *fixture_first_chunk(struct nbd_fixture *f, bool extended,
				   uint16_t type, uint64_t cookie,
				   uint64_t *ret_length);
/* A chunk, the last one; returns its payload. */
const uint8_t *fixture_chunk(struct nbd_fixture *f, bool extended,
			     uint16_t type, uint64_t cookie,
			     uint64_t *ret_length);

#endif
