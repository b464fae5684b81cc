/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The server's side of the NBD protocol on one blocking socket: fixed
 * newstyle, simple replies (the NBD project's doc/proto.md).
 *
 * It has one export, whatever name the client asks for.
 */
#ifndef SIMNBD_H
#define SIMNBD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum simnbd_command {
	SIMNBD_READ = 0,
	SIMNBD_WRITE = 1,
	SIMNBD_DISCONNECT = 2,
	SIMNBD_FLUSH = 3,
	SIMNBD_TRIM = 4,
	SIMNBD_WRITE_ZEROES = 6,
};

#define SIMNBD_NO_HOLE 2u /* flag of WRITE_ZEROES */

struct simnbd_export {
	uint64_t size; /* bytes */
	uint32_t block; /* the smallest, bytes */
	uint32_t largest; /* request with data, bytes */
	bool read_only, flush, trim;
};

struct simnbd_request {
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint64_t offset;
	uint32_t length;
};

/*
 * All return 0, or -errno; -ECONNRESET when the client went away, -EPROTO when
 * it does not speak the protocol.  simnbd_negotiate() returns with
 * transmission begun.
 */
int simnbd_negotiate(int fd, const struct simnbd_export *export);
int simnbd_read_request(int fd, struct simnbd_request *ret_request);
int simnbd_read(int fd, void *ret_data, size_t size);
/* error: 0 or a positive errno of Linux, which NBD's are. */
int simnbd_reply(int fd, uint64_t cookie, int error, const void *data,
		 size_t size);

#endif
