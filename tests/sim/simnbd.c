/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The NBD protocol, server's side; see simnbd.h. */
#include "config.h"

#include "simnbd.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define OPTION_MAGIC  0x49484156454f5054ull /* IHAVEOPT */
#define REPLY_MAGIC   0x0003e889045565a9ull
#define REQUEST_MAGIC 0x25609513u
#define SIMPLE_MAGIC  0x67446698u

#define FIXED_NEWSTYLE 1u
#define NO_ZEROES      2u
#define PREFERRED      4096u
#define MAX_OPTION     4096u /* bytes of data; names are at most that long */

enum option { EXPORT_NAME = 1, ABORT = 2, LIST = 3, INFO = 6, GO = 7 };

#define REP_ACK		1u
#define REP_SERVER	2u
#define REP_INFO	3u
#define REP_ERR_UNSUP	0x80000001u
#define REP_ERR_INVALID 0x80000003u

#define INFO_EXPORT	0u
#define INFO_BLOCK_SIZE 3u

enum export_flag {
	HAS_FLAGS = 1,
	READ_ONLY = 2,
	SEND_FLUSH = 4,
	SEND_TRIM = 32,
	SEND_WRITE_ZEROES = 64,
	CAN_MULTI_CONN = 256,
};

struct greeting {
	char magic[8];
	uint64_t option_magic;
	uint16_t flags;
} __attribute__((packed));

struct option_header {
	uint64_t magic;
	uint32_t option;
	uint32_t length;
} __attribute__((packed));

struct option_reply {
	uint64_t magic;
	uint32_t option;
	uint32_t type;
	uint32_t length;
} __attribute__((packed));

struct export_info {
	uint16_t type;
	uint64_t size;
	uint16_t flags;
} __attribute__((packed));

struct block_info {
	uint16_t type;
	uint32_t least, preferred, most;
} __attribute__((packed));

struct request_header {
	uint32_t magic;
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint64_t offset;
	uint32_t length;
} __attribute__((packed));

struct simple_reply {
	uint32_t magic;
	uint32_t error;
	uint64_t cookie;
} __attribute__((packed));

int simnbd_read(int fd, void *ret_data, size_t size)
{
	uint8_t *at = ret_data;

	while (size > 0) {
		ssize_t n = recv(fd, at, size, MSG_WAITALL);

		if (n == 0)
			return -ECONNRESET;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

static int send_all(int fd, const void *data, size_t size, int flags)
{
	const uint8_t *at = data;

	while (size > 0) {
		ssize_t n = send(fd, at, size, MSG_NOSIGNAL | flags);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

static uint16_t export_flags(const struct simnbd_export *export)
{
	unsigned int flags = HAS_FLAGS | CAN_MULTI_CONN;

	if (export->read_only)
		flags |= READ_ONLY;
	else
		flags |= SEND_WRITE_ZEROES;
	if (export->flush)
		flags |= SEND_FLUSH;
	if (export->trim)
		flags |= SEND_TRIM;
	return (uint16_t)flags;
}

static int reply_option(int fd, uint32_t option, uint32_t type,
			const void *data, size_t size)
{
	struct option_reply reply = {
		.magic = htobe64(REPLY_MAGIC),
		.option = htobe32(option),
		.type = htobe32(type),
		.length = htobe32((uint32_t)size),
	};
	int r = send_all(fd, &reply, sizeof(reply), size ? MSG_MORE : 0);

	return r < 0 ? r : send_all(fd, data, size, 0);
}

static int send_info(int fd, uint32_t option,
		     const struct simnbd_export *export)
{
	struct export_info info = {
		.type = htobe16(INFO_EXPORT),
		.size = htobe64(export->size),
		.flags = htobe16(export_flags(export)),
	};
	struct block_info block = {
		.type = htobe16(INFO_BLOCK_SIZE),
		.least = htobe32(export->block),
		.preferred = htobe32(PREFERRED),
		.most = htobe32(export->largest),
	};
	int r = reply_option(fd, option, REP_INFO, &info, sizeof(info));

	if (r == 0)
		r = reply_option(fd, option, REP_INFO, &block, sizeof(block));
	return r < 0 ? r : reply_option(fd, option, REP_ACK, NULL, 0);
}

/* The old way to begin: no reply but the export itself. */
static int send_export(int fd, const struct simnbd_export *export,
		       bool no_zeroes)
{
	struct {
		uint64_t size;
		uint16_t flags;
		uint8_t zeroes[124];
	} __attribute__((packed)) reply = {
		.size = htobe64(export->size),
		.flags = htobe16(export_flags(export)),
	};

	return send_all(fd, &reply,
			no_zeroes ? sizeof(reply) - sizeof(reply.zeroes) :
				    sizeof(reply),
			0);
}

static int list_exports(int fd)
{
	uint32_t empty_name = 0;
	int r = reply_option(fd, LIST, REP_SERVER, &empty_name,
			     sizeof(empty_name));

	return r < 0 ? r : reply_option(fd, LIST, REP_ACK, NULL, 0);
}

/* 1: transmission begins; 0: more options. */
static int answer_option(int fd, uint32_t option,
			 const struct simnbd_export *export, bool no_zeroes)
{
	int r;

	switch (option) {
	case EXPORT_NAME:
		r = send_export(fd, export, no_zeroes);
		return r < 0 ? r : 1;
	case ABORT:
		reply_option(fd, option, REP_ACK, NULL, 0);
		return -ECONNRESET;
	case LIST:
		return list_exports(fd);
	case INFO:
		return send_info(fd, option, export);
	case GO:
		r = send_info(fd, option, export);
		return r < 0 ? r : 1;
	default:
		return reply_option(fd, option, REP_ERR_UNSUP, NULL, 0);
	}
}

static int greet(int fd, bool *ret_no_zeroes)
{
	struct greeting greeting = {
		.magic = "NBDMAGIC",
		.option_magic = htobe64(OPTION_MAGIC),
		.flags = htobe16(FIXED_NEWSTYLE | NO_ZEROES),
	};
	uint32_t flags;
	int r = send_all(fd, &greeting, sizeof(greeting), 0);

	if (r == 0)
		r = simnbd_read(fd, &flags, sizeof(flags));
	if (r < 0)
		return r;
	flags = be32toh(flags);
	if (flags & ~(FIXED_NEWSTYLE | NO_ZEROES))
		return -EPROTO;
	*ret_no_zeroes = flags & NO_ZEROES;
	return 0;
}

int simnbd_negotiate(int fd, const struct simnbd_export *export)
{
	uint8_t data[MAX_OPTION];
	bool no_zeroes = false;
	int r = greet(fd, &no_zeroes);

	while (r == 0) {
		struct option_header header;

		r = simnbd_read(fd, &header, sizeof(header));
		if (r < 0)
			return r;
		if (be64toh(header.magic) != OPTION_MAGIC ||
		    be32toh(header.length) > sizeof(data))
			return -EPROTO;
		r = simnbd_read(fd, data, be32toh(header.length));
		if (r == 0)
			r = answer_option(fd, be32toh(header.option), export,
					  no_zeroes);
	}
	return r < 0 ? r : 0;
}

int simnbd_read_request(int fd, struct simnbd_request *ret_request)
{
	struct request_header header;
	int r = simnbd_read(fd, &header, sizeof(header));

	if (r < 0)
		return r;
	if (be32toh(header.magic) != REQUEST_MAGIC)
		return -EPROTO;
	*ret_request = (struct simnbd_request){
		.flags = be16toh(header.flags),
		.type = be16toh(header.type),
		.cookie = header.cookie, /* opaque: echoed as it came */
		.offset = be64toh(header.offset),
		.length = be32toh(header.length),
	};
	return 0;
}

int simnbd_reply(int fd, uint64_t cookie, int error, const void *data,
		 size_t size)
{
	struct simple_reply reply = {
		.magic = htobe32(SIMPLE_MAGIC),
		.error = htobe32((uint32_t)error),
		.cookie = cookie,
	};
	int r = send_all(fd, &reply, sizeof(reply), size ? MSG_MORE : 0);

	return r < 0 ? r : send_all(fd, data, size, 0);
}
