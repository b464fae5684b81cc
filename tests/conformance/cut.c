/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-cut - a client that is cut off with writes under way, and comes back.
 *
 * What it sends is for one place, so that one write is carried out at a time and the
 * others wait for it, as many as a server takes of one client; only one of them (NTH,
 * if that is not 0) and one more are for places of their own.  It goes without a word,
 * comes back and writes all three places anew.  Whatever became of the old writes, what
 * it reads from then on is the new ones, and it does not wait until the old are through.
 *
 * Before that it comes as one that says goodbye with more under way than a server takes,
 * and closes its side: it gets all replies.
 */
#include "config.h"

#include "client.h"

#include <sys/socket.h>
#include <time.h>

#define OLD	 0x01
#define NEW	 0x02
#define LENGTH	 4096u
#define MANY	 0u
#define MIDDLE	 (256u << 10)
#define LAST	 (512u << 10)
#define NR_TAKEN 256u /* of one client */

static uint32_t settle_ms, nth;

static void rest(uint32_t ms)
{
	const struct timespec ts = { .tv_sec = ms / 1000,
				     .tv_nsec = ms % 1000 * 1000000l };

	(void)nanosleep(&ts, NULL);
}

static void submit(struct client *c, uint64_t offset, uint8_t byte,
		   struct request *r)
{
	uint8_t *payload = client_memory(LENGTH);

	memset(payload, byte, LENGTH);
	*r = (struct request){ .type = NBD_CMD_WRITE,
			       .offset = offset,
			       .length = LENGTH,
			       .payload = payload };
	client_submit(c, r);
}

static void leave(struct client *c)
{
	static struct request reads[NR_TAKEN + 50];
	struct request last = { .type = NBD_CMD_DISC };

	client_go(c, STRUCTURED, false);
	client_needs_size(c, LENGTH);
	for (unsigned int i = 0; i < ARRAY_SIZE(reads); i++) {
		reads[i] = (struct request){ .type = NBD_CMD_READ,
					     .length = LENGTH };
		client_submit(c, &reads[i]);
	}
	client_submit(c, &last);
	require(shutdown(c->fd, SHUT_WR) == 0, "shutdown fails");
	client_collect(c, reads, ARRAY_SIZE(reads));
	client_gone(c, "DISC");
}

static void send_old(struct client *c)
{
	struct request r;

	client_go_to_write(c, STRUCTURED);
	client_needs_size(c, LAST + LENGTH);
	for (unsigned int i = 0; i < NR_TAKEN; i++)
		submit(c, i && i == nth ? MIDDLE : MANY, OLD, &r);
	submit(c, LAST, OLD, &r);
	rest(300);
	client_close(c);
}

static void must_be_new(struct client *c, uint64_t offset)
{
	require(client_read(c, offset, LENGTH)[0] == NEW,
		"an old write at %u is newer than the new one",
		(unsigned int)offset);
}

static void cut(struct client *c)
{
	struct client *again = client_other(c);
	struct request two[2];

	send_old(c);
	client_go_to_write(again, STRUCTURED);
	submit(again, MIDDLE, NEW, &two[0]);
	submit(again, LAST, NEW, &two[1]);
	client_collect(again, two, 2);
	require(!two[0].error && !two[1].error, "a write fails");
	must_be_new(again, MIDDLE);
	must_be_new(again, LAST);
	rest(settle_ms);
	must_be_new(again, MIDDLE);
	must_be_new(again, LAST);
	client_write(again, MANY, LENGTH, NEW);
	must_be_new(again, MANY);
	rest(settle_ms);
	must_be_new(again, MANY);
}

int main(int argc, char **argv)
{
	struct options options = { .timeout_ms = 20000 };
	char why[SERVER_TEXT_MAX];
	struct verdict verdict;

	if (argc != 4 || parse_u32(argv[1], 60000, &settle_ms) < 0 ||
	    parse_u32(argv[2], NR_TAKEN - 1, &nth) < 0) {
		(void)fprintf(stderr, "usage: nbd-cut SETTLE-MS NTH URI\n");
		return 2;
	}
	if (server_parse(argv[3], &options.server, why) < 0) {
		(void)fprintf(stderr, "nbd-cut: %s: %s\n", argv[3], why);
		return 2;
	}
	verdict = client_run(&options, leave);
	if (verdict.kind == PASSED)
		verdict = client_run(&options, cut);
	if (verdict.kind == PASSED)
		return 0;
	(void)fprintf(stderr, "nbd-cut: %s\n", verdict.why);
	return 1;
}
