/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* nbd-uri.c - the backend nbd: a server that a URI names. */
#include "config.h"

#include <string.h>

#include "common/util.h"
#include "nbd.h"

static const struct xd_param params[] = {
	{ "uri", XD_SERVER, XD_POSITIONAL | XD_REQUIRED, NULL, NULL,
	  "the export: nbd://HOST[:PORT]/NAME, nbd+unix:///NAME?socket=PATH" },
	{ "credentials", XD_CREDENTIALS, 0, NULL, NULL,
	  "for TLS: a name in the configuration file" },
	NBD_OPTIONS("check"),
	{ NULL, XD_END, 0, NULL, NULL, NULL },
};

/* Whose certificate is it to be? */
static int take_certs(struct nbd_disk *nbd, const char *dir)
{
	struct xd_disk *disk = nbd->disk;
	char host[256] = "";
	int r = xd_credential(disk, "credentials", "hostname", host,
			      sizeof(host));

	if (r == -ENODATA) {
		(void)snprintf(host, sizeof(host), "%s", nbd->server.host);
		r = 0;
	}
	if (r == 0 && !host[0]) {
		xd_error(disk,
			 "%s: a certificate is made out to a name: the "
			 "credentials need a hostname here",
			 nbd->place);
		r = -EINVAL;
	}
	return r < 0 ? r : nbd_certs_load(&nbd->certs, disk, dir, host);
}

/* libnbd opens the file of keys at each handshake. */
static int take_keys(struct nbd_disk *nbd)
{
	struct xd_disk *disk = nbd->disk;
	int r = xd_credential(disk, "credentials", "psk", nbd->psk,
			      sizeof(nbd->psk));

	if (r == 0)
		r = xd_credential(disk, "credentials", "user", nbd->user,
				  sizeof(nbd->user));
	if (r == 0 && nbd->server.user[0])
		(void)snprintf(nbd->user, sizeof(nbd->user), "%s",
			       nbd->server.user);
	return r < 0 ? r : xd_lend_file(disk, nbd->psk);
}

static int take_credentials(struct nbd_disk *nbd)
{
	char dir[512];
	struct xd_disk *disk = nbd->disk;
	int r;

	if (!nbd->server.tls && !xd_arg_set(disk, "credentials"))
		return 0;
	if (!nbd->server.tls) {
		xd_error(disk, "credentials are for TLS: nbds://...");
		return -EINVAL;
	}
	if (!xd_arg_set(disk, "credentials")) {
		xd_error(disk,
			 "%s: TLS needs credentials=NAME, with pre-shared "
			 "keys or certificates",
			 nbd->place);
		return -EINVAL;
	}
	r = xd_credential(disk, "credentials", "certs", dir, sizeof(dir));
	if (r == 0)
		return take_certs(nbd, dir);
	return r == -ENODATA ? take_keys(nbd) : r;
}

static int prepare(struct nbd_disk *nbd)
{
	struct xd_disk *disk = nbd->disk;
	char why[SERVER_TEXT_MAX];
	int r;

	/* It has been parsed before, when the expression was checked. */
	(void)server_parse(xd_arg_string(disk, "uri"), &nbd->server, why);
	server_print(&nbd->server, nbd->place, sizeof(nbd->place));
	r = take_credentials(nbd);
	if (r < 0)
		return r;
	return xd_identify(disk, "nbd:%s/%.150s", nbd->place,
			   nbd->server.export_name);
}

static int open_uri(struct xd_disk *disk, struct xd_limits *ret_limits)
{
	return nbd_open(disk, ret_limits, prepare);
}

XD_API const struct xd_backend xendisk_backend_v1 = {
	NBD_MEMBERS,
	.name = "nbd",
	.summary = "an export of an NBD server",
	.params = params,
	.schemes = "nbd\0nbds\0nbd+unix\0nbds+unix\0nbd+vsock\0nbds+vsock\0",
	.open = open_uri,
};
