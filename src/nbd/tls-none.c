/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* In tls.c's place where there is no GnuTLS. */
#include "config.h"

#include "nbd/tls.h"

#include <errno.h>

#include "common/util.h"

static int missing(char *ret_why)
{
	(void)snprintf(ret_why, NBD_TLS_WHY_MAX,
		       "this xendisk was built without TLS");
	return -EOPNOTSUPP;
}

int nbd_credentials_psk(struct nbd_credentials **ret, const char *file,
			char *ret_why)
{
	(void)ret;
	(void)file;
	return missing(ret_why);
}

int nbd_credentials_certs(struct nbd_credentials **ret, const char *dir,
			  char *ret_why)
{
	(void)ret;
	(void)dir;
	return missing(ret_why);
}

/* Without credentials there is never a connection. */
void nbd_credentials_free(struct nbd_credentials *credentials)
{
	(void)credentials;
}

int nbd_tls_new(struct nbd_tls_conn **ret,
		const struct nbd_credentials *credentials, int fd)
{
	(void)ret;
	(void)credentials;
	(void)fd;
	return -EOPNOTSUPP;
}

void nbd_tls_free(struct nbd_tls_conn *tls)
{
	(void)tls;
}

int nbd_tls_handshake(struct nbd_tls_conn *tls, bool *ret_out, char *ret_why)
{
	(void)tls;
	(void)ret_out;
	return missing(ret_why);
}

ssize_t nbd_tls_recv(struct nbd_tls_conn *tls, void *buf, size_t length)
{
	(void)tls;
	(void)buf;
	(void)length;
	return -EOPNOTSUPP;
}

ssize_t nbd_tls_send(struct nbd_tls_conn *tls, const struct iovec *iov,
		     unsigned int iovcnt)
{
	(void)tls;
	(void)iov;
	(void)iovcnt;
	return -EOPNOTSUPP;
}

bool nbd_tls_has_more(const struct nbd_tls_conn *tls)
{
	(void)tls;
	return false;
}

void nbd_tls_bye(struct nbd_tls_conn *tls)
{
	(void)tls;
}
