/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * In place of nbd-tls.c, where there is no GnuTLS, and for servers of our own.
 */
#include "config.h"

#include "common/util.h"
#include "nbd.h"

int nbd_certs_load(struct nbd_certs **ret, struct xd_disk *disk,
		   const char *dir, const char *host)
{
	(void)ret;
	(void)host;
	xd_error(disk, "%s: built without certificates", dir);
	return -EOPNOTSUPP;
}

void nbd_certs_free(struct nbd_certs *certs)
{
	(void)certs;
}

int nbd_tls_new(struct nbd_tls **ret, const struct nbd_certs *certs, int fd)
{
	(void)ret;
	(void)certs;
	(void)close(fd);
	return -EOPNOTSUPP;
}

void nbd_tls_free(struct nbd_tls *tls)
{
	(void)tls;
}

void nbd_tls_pump(struct nbd_tls *tls)
{
	(void)tls;
}

void nbd_tls_shut(struct nbd_tls *tls)
{
	(void)tls;
}

void nbd_tls_wants(const struct nbd_tls *tls, struct pollfd ret[2])
{
	(void)tls;
	ret[0] = ret[1] = (struct pollfd){ .fd = -1 };
}

const char *nbd_tls_why(const struct nbd_tls *tls)
{
	(void)tls;
	return NULL;
}
