/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tls.h - TLS under a session, by GnuTLS: pre-shared keys or certificates.
 *
 * A server's credentials are read once, before anything is locked down; a
 * connection's TLS belongs to the connection's thread and never blocks.
 */
#ifndef XENDISK_NBD_TLS_H
#define XENDISK_NBD_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define NBD_TLS_WHY_MAX 256 /* of a sentence */

struct nbd_credentials;
struct nbd_tls_conn;

/*
 * psk: a file of NAME:HEXKEY lines (psktool(1)).  ret_why (NBD_TLS_WHY_MAX bytes)
 * says what is wrong.  -EOPNOTSUPP: built without GnuTLS.
 */
int nbd_credentials_psk(struct nbd_credentials **ret, const char *file,
			char *ret_why);
/* certs: a folder with server-cert.pem and server-key.pem; with ca-cert.pem,
 * clients need a certificate of that authority; with ca-crl.pem, not one of
 * those. */
int nbd_credentials_certs(struct nbd_credentials **ret, const char *dir,
			  char *ret_why);
void nbd_credentials_free(struct nbd_credentials *credentials);

/* fd is borrowed, and does not block. */
int nbd_tls_new(struct nbd_tls_conn **ret,
		const struct nbd_credentials *credentials, int fd);
void nbd_tls_free(struct nbd_tls_conn *tls);

/* 0: done; -EAGAIN: when the socket is readable or, if *ret_out, writable; any
 * other: it failed, and ret_why (NBD_TLS_WHY_MAX bytes) says how. */
int nbd_tls_handshake(struct nbd_tls_conn *tls, bool *ret_out, char *ret_why);

/* As recv() and sendmsg(), with -errno; 0 of the first: the peer has ended. */
ssize_t nbd_tls_recv(struct nbd_tls_conn *tls, void *buf, size_t length);
ssize_t nbd_tls_send(struct nbd_tls_conn *tls, const struct iovec *iov,
		     unsigned int iovcnt);
/* Bytes that have come already, of which poll() knows nothing. */
bool nbd_tls_has_more(const struct nbd_tls_conn *tls);
/* Says goodbye, without waiting. */
void nbd_tls_bye(struct nbd_tls_conn *tls);

#endif
