/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * server.h - the URI of a server: NBD's, as its URI document and libnbd have
 * it.
 *
 *     nbd[s]://[USER@]HOST[:PORT]/EXPORT
 *     nbd[s]+unix://[USER@]/EXPORT?socket=PATH
 *     nbd[s]+vsock://[USER@]CID[:PORT]/EXPORT
 *
 * One process connects, another one speaks to the server; each parses the URI for
 * itself.  Credentials have no place in a URI: it can be read in xenstore.
 */
#ifndef XENDISK_SERVER_H
#define XENDISK_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERVER_TEXT_MAX	  256 /* of a sentence */
#define SERVER_EXPORT_MAX 4096 /* bytes, as the protocol has it */

enum server_transport { SERVER_TCP, SERVER_UNIX, SERVER_VSOCK };

struct server {
	enum server_transport transport;
	bool tls; /* required */
	char host[256]; /* TCP: a name or an address, without brackets */
	uint32_t cid; /* vsock */
	uint32_t port; /* TCP, vsock */
	char path[108]; /* unix: as long as the kernel takes */
	char user[128]; /* or empty */
	char export_name[SERVER_EXPORT_MAX + 1];
};

/* 0, or -EINVAL and a sentence in ret_why (SERVER_TEXT_MAX bytes). */
int server_parse(const char *uri, struct server *ret, char *ret_why);

/* "127.0.0.1:10809", "/run/nbd.sock", "vsock 2:10809". */
void server_print(const struct server *server, char *buf, size_t size);

/*
 * Connects; may block for long.  Returns a socket, or -errno and in ret_why
 * (SERVER_TEXT_MAX bytes) the reason, which does not name the server.  The socket
 * notices after a while when its peer is gone without a word (tcp.h).
 */
int server_connect(const struct server *server, char *ret_why);

#endif
