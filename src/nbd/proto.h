/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * proto.h - the numbers of the NBD protocol, with the names of its document
 * (doc/proto.md of NetworkBlockDevice/nbd).  All integers on the wire are big
 * endian.
 */
#ifndef XENDISK_NBD_PROTO_H
#define XENDISK_NBD_PROTO_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

/* --- Handshake ------------------------------------------------------------ */

#define NBD_MAGIC	 0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC 0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_REP_MAGIC	 0x0003e889045565a9ull

#define NBD_FLAG_FIXED_NEWSTYLE (1u << 0)
#define NBD_FLAG_NO_ZEROES	(1u << 1)

#define NBD_OPTION_BYTES 16u /* magic, option, length */
#define NBD_REP_BYTES	 20u /* magic, option, type, length */
#define NBD_ZEROES_BYTES 124u

enum nbd_opt {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
	NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_ERROR (1u << 31)

enum nbd_rep {
	NBD_REP_ACK = 1,
	NBD_REP_SERVER = 2,
	NBD_REP_INFO = 3,
	NBD_REP_META_CONTEXT = 4,
};

/* With NBD_REP_ERROR. */
enum nbd_rep_err {
	NBD_REP_ERR_UNSUP = 1,
	NBD_REP_ERR_POLICY = 2,
	NBD_REP_ERR_INVALID = 3,
	NBD_REP_ERR_TLS_REQD = 5,
	NBD_REP_ERR_UNKNOWN = 6,
	NBD_REP_ERR_BLOCK_SIZE_REQD = 8,
	NBD_REP_ERR_TOO_BIG = 9,
	NBD_REP_ERR_EXT_HEADER_REQD = 10,
};

enum nbd_info {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_NAME = 1,
	NBD_INFO_DESCRIPTION = 2,
	NBD_INFO_BLOCK_SIZE = 3,
};

#define NBD_MAX_STRING 4096u

/* --- What an export can do (transmission flags) --------------------------- */

#define NBD_FLAG_HAS_FLAGS	   (1u << 0)
#define NBD_FLAG_READ_ONLY	   (1u << 1)
#define NBD_FLAG_SEND_FLUSH	   (1u << 2)
#define NBD_FLAG_SEND_FUA	   (1u << 3)
#define NBD_FLAG_SEND_TRIM	   (1u << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES (1u << 6)
#define NBD_FLAG_SEND_DF	   (1u << 7)
#define NBD_FLAG_CAN_MULTI_CONN	   (1u << 8)
#define NBD_FLAG_SEND_CACHE	   (1u << 10)
#define NBD_FLAG_SEND_FAST_ZERO	   (1u << 11)

/* --- Transmission --------------------------------------------------------- */

#define NBD_REQUEST_MAGIC	   0x25609513u
#define NBD_EXTENDED_REQUEST_MAGIC 0x21e41c71u
#define NBD_SIMPLE_REPLY_MAGIC	   0x67446698u
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efu
#define NBD_EXTENDED_REPLY_MAGIC   0x6e8a278cu

#define NBD_REQUEST_BYTES	   28u
#define NBD_EXTENDED_REQUEST_BYTES 32u
#define NBD_SIMPLE_REPLY_BYTES	   16u
#define NBD_CHUNK_BYTES		   20u
#define NBD_EXTENDED_CHUNK_BYTES   32u

enum nbd_cmd {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
	NBD_NR_CMDS
};

#define NBD_CMD_FLAG_FUA	 (1u << 0)
#define NBD_CMD_FLAG_NO_HOLE	 (1u << 1)
#define NBD_CMD_FLAG_DF		 (1u << 2)
#define NBD_CMD_FLAG_REQ_ONE	 (1u << 3)
#define NBD_CMD_FLAG_FAST_ZERO	 (1u << 4)
#define NBD_CMD_FLAG_PAYLOAD_LEN (1u << 5)

#define NBD_REPLY_FLAG_DONE (1u << 0)

enum nbd_reply_type {
	NBD_REPLY_TYPE_NONE = 0,
	NBD_REPLY_TYPE_OFFSET_DATA = 1,
	NBD_REPLY_TYPE_OFFSET_HOLE = 2,
	NBD_REPLY_TYPE_BLOCK_STATUS = 5,
	NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6,
	NBD_REPLY_TYPE_ERROR = 0x8001,
};

#define NBD_STATE_HOLE (1u << 0)
#define NBD_STATE_ZERO (1u << 1)

enum nbd_error {
	NBD_SUCCESS = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

/* --- Big endian, at any address ------------------------------------------- */

static inline uint16_t nbd_get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return be16toh(v);
}

static inline uint32_t nbd_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static inline uint64_t nbd_get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

/* These return where the next value goes. */
static inline uint8_t *nbd_put16(uint8_t *p, uint32_t value)
{
	uint16_t v = htobe16((uint16_t)value);

	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

static inline uint8_t *nbd_put32(uint8_t *p, uint32_t value)
{
	uint32_t v = htobe32(value);

	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

static inline uint8_t *nbd_put64(uint8_t *p, uint64_t value)
{
	uint64_t v = htobe64(value);

	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

static inline uint8_t *nbd_put_bytes(uint8_t *p, const void *bytes, size_t n)
{
	memcpy(p, bytes, n);
	return p + n;
}

#endif
