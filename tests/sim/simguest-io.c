/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simple verbs: one request at a time, queues in turn. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simguest.h"
#include "simio.h"

static void print_key(const char *key, const char *value)
{
	printf("%s=%s\n", key, value);
}

int simguest_info(struct simguest *guest, int argc, char **argv)
{
	const struct simfront_shape *shape = simfront_shape(guest->front);

	(void)argc;
	(void)argv;
	if (simfront_each_key(guest->front, print_key) < 0) {
		simguest_complain("info: %s", simfront_error(guest->front));
		return SIMGUEST_FAULT;
	}
	printf("connected.queues=%u\nconnected.ring-page-order=%u\n"
	       "connected.ring-slots=%u\nconnected.max-segments=%u\n",
	       shape->queues, shape->order,
	       simqueue_size(simfront_queue(guest->front, 0)),
	       simguest_max_segments(guest));
	return SIMGUEST_OK;
}

static const char *status_name(int status)
{
	switch (status) {
	case BLKIF_RSP_OKAY:
		return "okay";
	case BLKIF_RSP_ERROR:
		return "error";
	case BLKIF_RSP_EOPNOTSUPP:
		return "not supported";
	default:
		return "no blkif status";
	}
}

/* Sends one request on the next queue and complains if it fails. */
static int perform(struct simguest *guest, struct simqueue_request *req,
		   const char *what, uint64_t offset)
{
	static unsigned int turn;
	struct simqueue *queue = simfront_queue(
		guest->front, turn++ % simfront_shape(guest->front)->queues);
	int r = simio_sync(queue, req, (int)guest->opt.timeout);

	if (r < 0)
		return simguest_queue_failed(queue, r);
	if (req->status == BLKIF_RSP_OKAY)
		return SIMGUEST_OK;
	simguest_complain("%s at %" PRIu64 ": status %d (%s)", what, offset,
			  req->status, status_name(req->status));
	return SIMGUEST_IO_ERROR;
}

/* OFF and LEN in bytes; whole sectors inside the disk. */
static bool parse_extent(const struct simguest *guest, char **argv,
			 uint64_t *ret_offset, uint64_t *ret_length)
{
	uint64_t size = simfront_sectors(guest->front) * SIMABI_SECTOR;
	uint32_t unit = simfront_disk(guest->front)->sector_size;

	if (!simguest_parse_size(argv[1], ret_offset) ||
	    !simguest_parse_size(argv[2], ret_length))
		simguest_complain("%s: offset and length are not numbers",
				  argv[0]);
	else if (*ret_offset % unit != 0 || *ret_length % unit != 0)
		simguest_complain("%s: not in sectors of %u bytes", argv[0],
				  unit);
	else if (*ret_offset > size || *ret_length > size - *ret_offset)
		simguest_complain("%s: beyond the disk's %" PRIu64 " bytes",
				  argv[0], size);
	else
		return true;
	return false;
}

static int alloc_buffer(struct simguest *guest, struct simio_buffer *buffer)
{
	int r = simio_alloc(guest->front, simguest_max_segments(guest), buffer);

	if (r < 0)
		simguest_complain("guest memory: %s", strerror(-r));
	return r;
}

/* The next part of an extent that fits a request, laid out. */
static size_t next_part(struct simio_buffer *buffer, uint64_t left)
{
	size_t most = (size_t)buffer->nr_pages * SIMABI_PAGE;
	size_t part = left < most ? (size_t)left : most;

	simio_linear(buffer, (unsigned int)(part / SIMABI_SECTOR));
	return part;
}

static int read_extent(struct simguest *guest, struct simio_buffer *buffer,
		       uint64_t offset, uint64_t left)
{
	while (left > 0) {
		size_t part = next_part(buffer, left);
		struct simqueue_request req = simio_request(
			BLKIF_OP_READ, offset / SIMABI_SECTOR, buffer);
		int code;

		simio_set_canaries(buffer);
		code = perform(guest, &req, "read", offset);
		if (code != SIMGUEST_OK)
			return code;
		if (!simio_canaries_alive(buffer)) {
			simguest_complain("read at %" PRIu64 ": bytes outside "
					  "of the segments were written",
					  offset);
			return SIMGUEST_FAULT;
		}
		fwrite(buffer->pages, 1, part, stdout);
		offset += part;
		left -= part;
	}
	return SIMGUEST_OK;
}

int simguest_read(struct simguest *guest, int argc, char **argv)
{
	struct simio_buffer buffer;
	uint64_t offset, length;
	int code;

	(void)argc;
	if (!parse_extent(guest, argv, &offset, &length))
		return SIMGUEST_USAGE;
	if (alloc_buffer(guest, &buffer) < 0)
		return SIMGUEST_FAULT;
	code = read_extent(guest, &buffer, offset, length);
	simio_free(guest->front, &buffer);
	return code;
}

/* Writes what comes on standard input, up to length bytes. */
static int write_extent(struct simguest *guest, struct simio_buffer *buffer,
			uint64_t offset, uint64_t length, uint64_t *ret_written)
{
	uint32_t unit = simfront_disk(guest->front)->sector_size;
	uint64_t done = 0;

	while (done < length) {
		size_t part = next_part(buffer, length - done);
		size_t got = fread(buffer->pages, 1, part, stdin);
		struct simqueue_request req;
		int code;

		if (got % unit != 0) {
			simguest_complain("write: the input ends inside of a "
					  "sector of %u bytes",
					  unit);
			return SIMGUEST_USAGE;
		}
		if (got == 0)
			break;
		next_part(buffer, got);
		req = simio_request(BLKIF_OP_WRITE,
				    (offset + done) / SIMABI_SECTOR, buffer);
		code = perform(guest, &req, "write", offset + done);
		if (code != SIMGUEST_OK)
			return code;
		done += got;
	}
	*ret_written = done;
	return SIMGUEST_OK;
}

int simguest_write(struct simguest *guest, int argc, char **argv)
{
	char to_the_end[32], *extent[] = { argv[0], argv[1], to_the_end };
	uint64_t size = simfront_sectors(guest->front) * SIMABI_SECTOR;
	struct simio_buffer buffer;
	uint64_t offset, length, written = 0;
	int code;

	if (argc == 3)
		extent[2] = argv[2];
	else if (simguest_parse_size(argv[1], &offset) && offset < size)
		snprintf(to_the_end, sizeof(to_the_end), "%" PRIu64,
			 size - offset);
	else
		strcpy(to_the_end, "0");
	if (!parse_extent(guest, extent, &offset, &length))
		return SIMGUEST_USAGE;
	if (alloc_buffer(guest, &buffer) < 0)
		return SIMGUEST_FAULT;
	code = write_extent(guest, &buffer, offset, length, &written);
	simio_free(guest->front, &buffer);
	if (code == SIMGUEST_OK && argc == 3 && written < length) {
		simguest_complain("write: the input ends after %" PRIu64
				  " bytes",
				  written);
		return SIMGUEST_USAGE;
	}
	if (code == SIMGUEST_OK)
		printf("wrote %" PRIu64 " bytes at %" PRIu64 "\n", written,
		       offset);
	return code;
}

int simguest_flush(struct simguest *guest, int argc, char **argv)
{
	struct simqueue_request req = { .operation = BLKIF_OP_FLUSH_DISKCACHE };
	int code = perform(guest, &req, "flush", 0);

	(void)argc;
	(void)argv;
	if (code == SIMGUEST_OK)
		puts("flushed");
	return code;
}

int simguest_discard(struct simguest *guest, int argc, char **argv)
{
	struct simqueue_request req = { .operation = BLKIF_OP_DISCARD };
	uint64_t offset, length;
	int code;

	if (!parse_extent(guest, argv, &offset, &length))
		return SIMGUEST_USAGE;
	if (argc == 4 && strcmp(argv[3], "secure") != 0) {
		simguest_complain("discard: %s: only secure may follow",
				  argv[3]);
		return SIMGUEST_USAGE;
	}
	req.secure = argc == 4;
	req.sector = offset / SIMABI_SECTOR;
	req.nr_sectors = length / SIMABI_SECTOR;
	code = perform(guest, &req, "discard", offset);
	if (code == SIMGUEST_OK)
		printf("discarded %" PRIu64 " bytes at %" PRIu64 "\n", length,
		       offset);
	return code;
}

/* Stays connected and tells of what happens to the disk. */
int simguest_hold(struct simguest *guest, int argc, char **argv)
{
	struct simqueue *queue = simfront_queue(guest->front, 0);
	uint64_t sectors = simfront_sectors(guest->front);
	int64_t end = simio_now_ns() + (int64_t)guest->opt.seconds * 1000000000;
	int r = 0;

	(void)argc;
	(void)argv;
	printf("connected %" PRIu64 "\n", sectors * SIMABI_SECTOR);
	while ((r >= 0 || r == -EINTR) && !simfront_closing(guest->front) &&
	       simio_now_ns() < end) {
		uint64_t now = simfront_sectors(guest->front);

		if (now != sectors)
			printf("resized %" PRIu64 "\n", now * SIMABI_SECTOR);
		sectors = now;
		fflush(stdout);
		r = simqueue_reap(queue, 50);
	}
	if (r < 0 && r != -EINTR)
		return simguest_queue_failed(queue, r);
	puts(simfront_closing(guest->front) ? "closed" : "time is up");
	return SIMGUEST_OK;
}
