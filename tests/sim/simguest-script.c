/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The script verb: operations from standard input, one a line, and the status
 * of each on standard output.
 *
 *   read OFF LEN            write OFF LEN [BYTE]      barrier OFF LEN [BYTE]
 *   flush [OFF LEN [BYTE]]  discard OFF LEN [secure]  op NUMBER
 *   sleep MILLISECONDS      reconnect [queues=N] [order=N] [abi=NAME]
 *   size BYTES              waits until the disk has that size, as blkfront
 *                           reads it when the backend writes its state again
 *
 * Sizes are bytes, whole sectors of 512, and may lie beyond the disk: this is
 * how the answers to wrong requests are tested.  A line may begin with
 * "indirect" (read and write only) and end with "expect=STATUS"; without that
 * 0 is expected.  After # comes a comment.
 *
 * A line of output is "STATUS OPERATION ...", and for a read of equal bytes
 * their value: "0 read 4096 512 = 0x5a".
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "simguest.h"
#include "simio.h"

#define MAX_WORDS 8

struct script {
	struct simguest *guest;
	struct simio_buffer buffer;
	unsigned int line, turn;
	int code; /* the exit code so far */
};

/* One line taken apart. */
struct command {
	char *words[MAX_WORDS + 1];
	int count;
	bool indirect, has_expected;
	int expected;
};

static int wrong(const struct script *s, const char *what)
{
	simguest_complain("script: line %u: %s", s->line, what);
	return SIMGUEST_USAGE;
}

static bool split(char *line, struct command *ret)
{
	char *save = NULL, *word;

	*ret = (struct command){ 0 };
	line[strcspn(line, "#\n")] = '\0';
	for (word = strtok_r(line, " \t", &save); word;
	     word = strtok_r(NULL, " \t", &save)) {
		if (ret->count == MAX_WORDS)
			return false;
		if (strncmp(word, "expect=", 7) == 0) {
			ret->expected = atoi(word + 7);
			ret->has_expected = true;
		} else if (ret->count == 0 && strcmp(word, "indirect") == 0) {
			ret->indirect = true;
		} else {
			ret->words[ret->count++] = word;
		}
	}
	return true;
}

/* Optional word number i as a number. */
static bool number(const struct command *c, int i, uint64_t *ret)
{
	char *end;

	if (i >= c->count)
		return false;
	if (simguest_parse_size(c->words[i], ret))
		return true;
	*ret = strtoull(c->words[i], &end, 0);
	return *end == '\0';
}

/* Sends it, prints the line and compares with what was expected. */
static int perform(struct script *s, const struct command *c,
		   struct simqueue_request *req)
{
	struct simqueue *queue = simfront_queue(
		s->guest->front,
		s->turn++ % simfront_shape(s->guest->front)->queues);
	int r;

	req->indirect = c->indirect;
	r = simio_sync(queue, req, (int)s->guest->opt.timeout);
	if (r < 0)
		return simguest_queue_failed(queue, r);
	printf("%d", req->status);
	for (int i = 0; i < c->count; i++)
		printf(" %s", c->words[i]);
	if (req->status == c->expected)
		return SIMGUEST_OK;
	if (c->has_expected)
		simguest_complain("script: line %u: status %d, not %d", s->line,
				  req->status, c->expected);
	s->code = c->has_expected ? SIMGUEST_FAULT : SIMGUEST_IO_ERROR;
	return SIMGUEST_OK;
}

/* Lays out words i and i + 1, OFF LEN, in the buffer. */
static bool lay_out(struct script *s, const struct command *c, int i,
		    uint64_t *ret_sector)
{
	uint64_t offset, length;

	if (!number(c, i, &offset) || !number(c, i + 1, &length) ||
	    offset % SIMABI_SECTOR != 0 || length % SIMABI_SECTOR != 0 ||
	    length > (uint64_t)s->buffer.nr_pages * SIMABI_PAGE)
		return false;
	*ret_sector = offset / SIMABI_SECTOR;
	simio_linear(&s->buffer, (unsigned int)(length / SIMABI_SECTOR));
	return true;
}

static void print_contents(const struct simio_buffer *b)
{
	struct simio_cursor at = { 0 };
	const uint8_t *first = simio_next(b, &at), *sector;

	if (!first)
		return;
	for (sector = first; sector; sector = simio_next(b, &at))
		if (memcmp(sector, first, SIMABI_SECTOR) != 0)
			return;
	if (memcmp(first, first + 1, SIMABI_SECTOR - 1) == 0)
		printf(" = 0x%02x", first[0]);
}

static int do_read(struct script *s, const struct command *c)
{
	struct simqueue_request req;
	uint64_t sector;
	int code;

	if (!lay_out(s, c, 1, &sector))
		return wrong(s, "read OFF LEN");
	simio_set_canaries(&s->buffer);
	req = simio_request(BLKIF_OP_READ, sector, &s->buffer);
	code = perform(s, c, &req);
	if (code != SIMGUEST_OK)
		return code;
	if (req.status == BLKIF_RSP_OKAY)
		print_contents(&s->buffer);
	putchar('\n');
	if (simio_canaries_alive(&s->buffer))
		return SIMGUEST_OK;
	simguest_complain("script: line %u: bytes outside of the segments "
			  "were written",
			  s->line);
	return SIMGUEST_FAULT;
}

/* A write, a barrier, or a flush with data. */
static int do_write(struct script *s, const struct command *c,
		    uint8_t operation)
{
	struct simqueue_request req;
	uint64_t sector, byte = 0;
	int code;

	if (!lay_out(s, c, 1, &sector) ||
	    (c->count > 3 && !number(c, 3, &byte)))
		return wrong(s, "OFF LEN [BYTE]");
	memset(s->buffer.pages, (int)byte,
	       (size_t)s->buffer.nr_segments * SIMABI_PAGE);
	req = simio_request(operation, sector, &s->buffer);
	code = perform(s, c, &req);
	if (code == SIMGUEST_OK)
		putchar('\n');
	return code;
}

/* An operation without data. */
static int do_bare(struct script *s, const struct command *c,
		   struct simqueue_request req)
{
	int code = perform(s, c, &req);

	if (code == SIMGUEST_OK)
		putchar('\n');
	return code;
}

static int do_discard(struct script *s, const struct command *c)
{
	struct simqueue_request req = { .operation = BLKIF_OP_DISCARD };
	uint64_t offset, length;

	if (!number(c, 1, &offset) || !number(c, 2, &length))
		return wrong(s, "discard OFF LEN [secure]");
	req.sector = offset / SIMABI_SECTOR;
	req.nr_sectors = length / SIMABI_SECTOR;
	req.secure = c->count > 3 && strcmp(c->words[3], "secure") == 0;
	return do_bare(s, c, req);
}

/* One word of a reconnect. */
static bool take_shape(struct simguest_options *opt, const char *word)
{
	if (strncmp(word, "queues=", 7) == 0)
		return simguest_parse_size(word + 7, &opt->queues) &&
		       opt->queues >= 1 && opt->queues <= SIMFRONT_MAX_QUEUES;
	if (strncmp(word, "order=", 6) == 0)
		return simguest_parse_size(word + 6, &opt->order) &&
		       opt->order <= SIMQUEUE_MAX_ORDER;
	opt->abi = word + 4;
	return strncmp(word, "abi=", 4) == 0 && simabi_by_name(opt->abi);
}

static int do_reconnect(struct script *s, const struct command *c)
{
	struct simguest_options opt = s->guest->opt;
	struct simfront_shape shape;
	int r;

	for (int i = 1; i < c->count; i++)
		if (!take_shape(&opt, c->words[i]))
			return wrong(s, "reconnect [queues=N] [order=N] "
					"[abi=NAME]");
	shape = simguest_shape(&opt);
	r = simfront_disconnect(s->guest->front);
	if (r == 0)
		r = simfront_connect(s->guest->front, &shape);
	if (r < 0) {
		simguest_complain("script: line %u: %s", s->line,
				  simfront_error(s->guest->front));
		return SIMGUEST_FAULT;
	}
	puts("0 reconnect");
	return SIMGUEST_OK;
}

static int do_sleep(struct script *s, const struct command *c)
{
	uint64_t ms;

	if (!number(c, 1, &ms) || ms > 1000000)
		return wrong(s, "sleep MILLISECONDS");
	usleep((useconds_t)ms * 1000);
	return SIMGUEST_OK;
}

/* As long as an answer may take. */
static int do_size(struct script *s, const struct command *c)
{
	int64_t end =
		simio_now_ns() + (int64_t)s->guest->opt.timeout * 1000000000;
	uint64_t wanted, now;

	if (!number(c, 1, &wanted))
		return wrong(s, "size BYTES");
	while ((now = simfront_sectors(s->guest->front) * SIMABI_SECTOR) !=
		       wanted &&
	       simio_now_ns() < end)
		usleep(10000);
	printf("%d size %" PRIu64 "\n", now == wanted ? 0 : -1, now);
	if (now == wanted)
		return SIMGUEST_OK;
	simguest_complain("script: line %u: the size is %" PRIu64, s->line,
			  now);
	return SIMGUEST_FAULT;
}

static int do_operation(struct script *s, const struct command *c)
{
	uint64_t op;

	if (!number(c, 1, &op) || op > UINT8_MAX || op == BLKIF_OP_INDIRECT)
		return wrong(s, "op NUMBER");
	return do_bare(s, c,
		       (struct simqueue_request){ .operation = (uint8_t)op });
}

static int do_flush(struct script *s, const struct command *c)
{
	if (c->count > 1)
		return do_write(s, c, BLKIF_OP_FLUSH_DISKCACHE);
	return do_bare(s, c,
		       (struct simqueue_request){
			       .operation = BLKIF_OP_FLUSH_DISKCACHE });
}

static int do_line(struct script *s, char *line)
{
	struct command c;

	if (!split(line, &c))
		return wrong(s, "too many words");
	if (c.count == 0)
		return SIMGUEST_OK;
	if (strcmp(c.words[0], "read") == 0)
		return do_read(s, &c);
	if (strcmp(c.words[0], "write") == 0)
		return do_write(s, &c, BLKIF_OP_WRITE);
	if (strcmp(c.words[0], "barrier") == 0)
		return do_write(s, &c, BLKIF_OP_WRITE_BARRIER);
	if (strcmp(c.words[0], "flush") == 0)
		return do_flush(s, &c);
	if (strcmp(c.words[0], "discard") == 0)
		return do_discard(s, &c);
	if (strcmp(c.words[0], "op") == 0)
		return do_operation(s, &c);
	if (strcmp(c.words[0], "sleep") == 0)
		return do_sleep(s, &c);
	if (strcmp(c.words[0], "size") == 0)
		return do_size(s, &c);
	if (strcmp(c.words[0], "reconnect") == 0)
		return do_reconnect(s, &c);
	return wrong(s, "no such operation");
}

int simguest_script(struct simguest *guest, int argc, char **argv)
{
	struct script s = { .guest = guest };
	char line[256];
	int r;

	(void)argc;
	(void)argv;
	r = simio_alloc(guest->front, SIMQUEUE_MAX_SEGMENTS, &s.buffer);
	if (r < 0) {
		simguest_complain("guest memory: %s", strerror(-r));
		return SIMGUEST_FAULT;
	}
	while (fgets(line, sizeof(line), stdin)) {
		int code;

		s.line++;
		code = do_line(&s, line);
		fflush(stdout);
		if (code != SIMGUEST_OK) {
			s.code = code;
			break;
		}
	}
	simio_free(guest->front, &s.buffer);
	return s.code;
}
