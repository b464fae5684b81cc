/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * GnuTLS reads and writes the socket itself.  A record that it could not send
 * is kept in it: the next call must be for the same bytes, or none.  So a send
 * is one record of what comes first, at most RECORD_BYTES, and what is left
 * stays in the session's output until the next call.
 *
 * TLS 1.2 and 1.3.  Downgrades are the session's business: it answers nothing
 * before STARTTLS (NBD_TLS_REQUIRED).
 */
#include "config.h"

#include "nbd/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <gnutls/gnutls.h>

#include "common/util.h"

#define RECORD_BYTES 16384u
#define HEX_DIGITS   "0123456789abcdefABCDEF"
#define PRIORITY     "NORMAL:-VERS-ALL:+VERS-TLS1.2:+VERS-TLS1.3"

struct nbd_credentials {
	gnutls_psk_server_credentials_t psk;
	gnutls_certificate_credentials_t certs;
	bool verify; /* clients need a certificate */
	gnutls_priority_t priority;
};

struct nbd_tls_conn {
	gnutls_session_t session;
	bool verify;
	uint8_t record[RECORD_BYTES]; /* being sent */
	size_t record_length;
	bool stuck; /* GnuTLS has it, and could not send it yet */
};

static int errno_of(int error)
{
	return error == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EINVAL;
}

static int fail(char *ret_why, const char *what, int error)
{
	(void)snprintf(ret_why, NBD_TLS_WHY_MAX, "%s: %s", what,
		       gnutls_strerror(error));
	return errno_of(error);
}

/* GnuTLS does not say which of the two files is wrong. */
static int fail_pair(char *ret_why, const char *cert, int error)
{
	(void)snprintf(ret_why, NBD_TLS_WHY_MAX, "%.150s or server-key.pem: %s",
		       cert, gnutls_strerror(error));
	return errno_of(error);
}

/* --- Credentials ---------------------------------------------------------- */

static struct nbd_credentials *new_credentials(const char *priority)
{
	struct nbd_credentials *c = calloc(1, sizeof(*c));

	if (c && gnutls_priority_init(&c->priority, priority, NULL) < 0) {
		free(c);
		return NULL;
	}
	return c;
}

void nbd_credentials_free(struct nbd_credentials *credentials)
{
	if (!credentials)
		return;
	if (credentials->psk)
		gnutls_psk_free_server_credentials(credentials->psk);
	if (credentials->certs)
		gnutls_certificate_free_credentials(credentials->certs);
	gnutls_priority_deinit(credentials->priority);
	free(credentials);
}

static int check_readable(const char *path, char *ret_why)
{
	int r;

	if (access(path, R_OK) == 0)
		return 0;
	r = -errno;
	(void)snprintf(ret_why, NBD_TLS_WHY_MAX, "%s: %s", path, strerror(-r));
	return r;
}

/* "NAME:HEXKEY", as psktool makes them. */
static bool is_key(const char *line)
{
	const char *key = strchr(line, ':');
	size_t digits = key ? strspn(key + 1, HEX_DIGITS) : 0;

	return key && key > line && digits > 0 && digits % 2 == 0 &&
	       key[1 + digits + strspn(key + 1 + digits, "\r\n")] == '\0';
}

/* GnuTLS looks for a client's key when the client is there; without any key
 * nobody would ever get in. */
static int check_has_key(const char *path, char *ret_why)
{
	cleanup_file FILE *f = fopen(path, "re");
	cleanup_free char *line = NULL;
	bool found = false;
	size_t size = 0;

	while (f && !found && getline(&line, &size, f) > 0)
		found = is_key(line);
	if (found)
		return 0;
	(void)snprintf(ret_why, NBD_TLS_WHY_MAX, "%s: %s", path,
		       f ? "there is no key in it, a line NAME:HEXKEY" :
			   strerror(errno));
	return -EINVAL;
}

int nbd_credentials_psk(struct nbd_credentials **ret, const char *file,
			char *ret_why)
{
	struct nbd_credentials *c;
	int r = check_has_key(file, ret_why);

	if (r < 0)
		return r;
	c = new_credentials(PRIORITY ":+ECDHE-PSK:+DHE-PSK:+PSK");
	if (!c) {
		(void)snprintf(ret_why, NBD_TLS_WHY_MAX, "no memory");
		return -ENOMEM;
	}
	r = gnutls_psk_allocate_server_credentials(&c->psk);
	if (r >= 0)
		r = gnutls_psk_set_server_credentials_file(c->psk, file);
	if (r >= 0)
		r = gnutls_psk_set_server_known_dh_params(
			c->psk, GNUTLS_SEC_PARAM_MEDIUM);
	if (r < 0) {
		nbd_credentials_free(c);
		return fail(ret_why, file, r);
	}
	*ret = c;
	return 0;
}

/* A link that leads nowhere counts as there: who made it wants clients to be looked
 * at, and nobody would be if it were passed over. */
static bool is_there(const char *path)
{
	return faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
	       errno != ENOENT;
}

static int load_trust(struct nbd_credentials *c, const char *dir, char *ret_why)
{
	cleanup_free char *ca = xasprintf("%s/ca-cert.pem", dir);
	cleanup_free char *crl = xasprintf("%s/ca-crl.pem", dir);
	int r;

	if (!ca || !crl)
		return -ENOMEM;
	if (!is_there(ca))
		return 0;
	r = check_readable(ca, ret_why);
	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_trust_file(c->certs, ca,
						   GNUTLS_X509_FMT_PEM);
	if (r <= 0)
		return fail(ret_why, ca, r ? r : GNUTLS_E_NO_CERTIFICATE_FOUND);
	c->verify = true;
	if (!is_there(crl))
		return 0;
	r = check_readable(crl, ret_why);
	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_crl_file(c->certs, crl,
						 GNUTLS_X509_FMT_PEM);
	return r < 0 ? fail(ret_why, crl, r) : 0;
}

static int load_own(struct nbd_credentials *c, const char *dir, char *ret_why)
{
	cleanup_free char *cert = xasprintf("%s/server-cert.pem", dir);
	cleanup_free char *key = xasprintf("%s/server-key.pem", dir);
	int r;

	if (!cert || !key)
		return -ENOMEM;
	r = check_readable(cert, ret_why);
	if (r == 0)
		r = check_readable(key, ret_why);
	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_key_file(c->certs, cert, key,
						 GNUTLS_X509_FMT_PEM);
	return r < 0 ? fail_pair(ret_why, cert, r) : 0;
}

int nbd_credentials_certs(struct nbd_credentials **ret, const char *dir,
			  char *ret_why)
{
	struct nbd_credentials *c = new_credentials(PRIORITY);
	int r = -ENOMEM;

	(void)snprintf(ret_why, NBD_TLS_WHY_MAX, "no memory");
	if (!c)
		return r;
	if (gnutls_certificate_allocate_credentials(&c->certs) >= 0)
		r = load_own(c, dir, ret_why);
	if (r == 0)
		r = load_trust(c, dir, ret_why);
	if (r < 0) {
		nbd_credentials_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

/* --- A connection --------------------------------------------------------- */

int nbd_tls_new(struct nbd_tls_conn **ret,
		const struct nbd_credentials *credentials, int fd)
{
	struct nbd_tls_conn *tls = calloc(1, sizeof(*tls));
	gnutls_session_t session;
	int r;

	if (!tls)
		return -ENOMEM;
	r = gnutls_init(&session,
			GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
	if (r < 0) {
		free(tls);
		return -ENOMEM;
	}
	tls->session = session;
	tls->verify = credentials->verify;
	r = gnutls_priority_set(session, credentials->priority);
	if (r >= 0 && credentials->psk)
		r = gnutls_credentials_set(session, GNUTLS_CRD_PSK,
					   credentials->psk);
	if (r >= 0 && credentials->certs)
		r = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE,
					   credentials->certs);
	if (r < 0) {
		nbd_tls_free(tls);
		return -EINVAL;
	}
	if (credentials->verify) {
		gnutls_certificate_server_set_request(session,
						      GNUTLS_CERT_REQUIRE);
		gnutls_session_set_verify_cert(session, NULL, 0);
	}
	gnutls_transport_set_int(session, fd);
	*ret = tls;
	return 0;
}

void nbd_tls_free(struct nbd_tls_conn *tls)
{
	if (!tls)
		return;
	gnutls_deinit(tls->session);
	free(tls);
}

int nbd_tls_handshake(struct nbd_tls_conn *tls, bool *ret_out, char *ret_why)
{
	int r;

	do
		r = gnutls_handshake(tls->session);
	while (r == GNUTLS_E_INTERRUPTED ||
	       r == GNUTLS_E_WARNING_ALERT_RECEIVED);
	*ret_out = gnutls_record_get_direction(tls->session);
	if (r == GNUTLS_E_AGAIN)
		return -EAGAIN;
	return r < 0 ? fail(ret_why, "TLS", r) : 0;
}

static ssize_t error_of(ssize_t r)
{
	if (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED)
		return -EAGAIN;
	return r < 0 ? -EPROTO : r;
}

ssize_t nbd_tls_recv(struct nbd_tls_conn *tls, void *buf, size_t length)
{
	return error_of(gnutls_record_recv(tls->session, buf, length));
}

bool nbd_tls_has_more(const struct nbd_tls_conn *tls)
{
	return gnutls_record_check_pending(tls->session) > 0;
}

/* The next record: small heads and their data go together. */
static void fill_record(struct nbd_tls_conn *tls, const struct iovec *iov,
			unsigned int iovcnt)
{
	tls->record_length = 0;
	for (unsigned int i = 0; i < iovcnt; i++) {
		size_t n =
			MIN(iov[i].iov_len, RECORD_BYTES - tls->record_length);

		memcpy(tls->record + tls->record_length, iov[i].iov_base, n);
		tls->record_length += n;
		if (n < iov[i].iov_len)
			return;
	}
}

ssize_t nbd_tls_send(struct nbd_tls_conn *tls, const struct iovec *iov,
		     unsigned int iovcnt)
{
	ssize_t r;

	if (tls->stuck) {
		r = gnutls_record_send(tls->session, NULL, 0);
	} else {
		fill_record(tls, iov, iovcnt);
		r = gnutls_record_send(tls->session, tls->record,
				       tls->record_length);
	}
	tls->stuck = r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED;
	return error_of(r);
}

void nbd_tls_bye(struct nbd_tls_conn *tls)
{
	if (!tls->stuck)
		(void)gnutls_bye(tls->session, GNUTLS_SHUT_WR);
}
