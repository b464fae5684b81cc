/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-tls.c - TLS with certificates, between the server and libnbd.
 *
 * Theory of operation
 *
 * libnbd 1.14 looks at a server's certificate only where it has made the
 * connection itself, and so knows a host name (its lib/crypto.c asks for one, and
 * nothing can set it); given a connected socket it takes any certificate at all,
 * whatever nbd_set_tls_verify_peer() says.  So TLS ends here.  libnbd has one end
 * of a pair of sockets and talks NBD in clear to us; we talk to the server:
 *
 *   HELLO    its greeting comes, in clear; the answer asks for TLS
 *   ANSWER   it agrees, or this is the end: nothing else is ever said in clear
 *   SHAKE    the TLS handshake, with a certificate that is trusted, in time, not
 *            revoked and made out to the name that we know the server by
 *   GREET    libnbd is greeted as we were, and answers as we did
 *   FORWARD  what comes from one side goes to the other
 *   OVER     both sockets are shut down; why, if something went wrong
 *
 * nbd_tls_pump() goes as far as it can without waiting; nbd_tls_wants() says
 * what to poll for.  A record that GnuTLS could not send is kept in it: the next
 * call must be for the same, or nothing (`stuck`).
 *
 * The certificates are read when the disk is opened, before the worker is
 * isolated.
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include "common/util.h"
#include "nbd.h"

/* As the server's side has it: src/nbd/tls.c. */
#define PRIORITY "NORMAL:-VERS-ALL:+VERS-TLS1.2:+VERS-TLS1.3"

/* NBD's doc/proto.md: newstyle negotiation. */
#define MAGIC	       0x4e42444d41474943ull
#define OPTION_MAGIC   0x49484156454f5054ull
#define REPLY_MAGIC    0x0003e889045565a9ull
#define GREETING_BYTES 18u
#define REPLY_BYTES    20u
#define FIXED_NEWSTYLE 1u
#define NO_ZEROES      2u
#define OPT_STARTTLS   5u
#define REP_ACK	       1u
#define MAX_REPLY_TEXT 4096u
#define RECORD_BYTES   16384u /* TLS has no longer ones */

struct nbd_certs {
	gnutls_certificate_credentials_t credentials;
	gnutls_priority_t priority;
	char host[256]; /* what the certificate must be made out to */
};

enum state { HELLO, ANSWER, SHAKE, GREET, FORWARD, OVER };

/* Bytes on their way in one direction. */
struct flow {
	unsigned char buf[RECORD_BYTES];
	size_t begin, end;
};

struct nbd_tls {
	const struct nbd_certs *certs;
	gnutls_session_t session;
	enum state state;
	int net, inner; /* -1: closed */
	struct flow in; /* from the server */
	struct flow out;
	bool stuck;
	bool heard; /* the server has said something since the handshake */
	bool ended; /* the server has; what is in `in` is still passed on */
	uint16_t flags; /* of its greeting */
	char why[NBD_WHY_MAX];
};

/* --- Certificates --------------------------------------------------------- */

static int complain(struct xd_disk *disk, const char *what, int error)
{
	xd_error(disk, "%s: %s", what, gnutls_strerror(error));
	return error == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EINVAL;
}

static int load_trust(struct nbd_certs *certs, struct xd_disk *disk,
		      const char *dir)
{
	cleanup_free char *ca = xasprintf("%s/ca-cert.pem", dir);
	cleanup_free char *crl = xasprintf("%s/ca-crl.pem", dir);
	int r;

	if (!ca || !crl)
		return -ENOMEM;
	r = gnutls_certificate_set_x509_trust_file(certs->credentials, ca,
						   GNUTLS_X509_FMT_PEM);
	if (r <= 0)
		return complain(disk, ca,
				r ? r : GNUTLS_E_NO_CERTIFICATE_FOUND);
	/* A link that leads nowhere is a list that has got lost, not none. */
	if (faccessat(AT_FDCWD, crl, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
	    errno == ENOENT)
		return 0;
	r = gnutls_certificate_set_x509_crl_file(certs->credentials, crl,
						 GNUTLS_X509_FMT_PEM);
	return r < 0 ? complain(disk, crl, r) : 0;
}

/* Ours: only some servers want to see one. */
static int load_own(struct nbd_certs *certs, struct xd_disk *disk,
		    const char *dir)
{
	cleanup_free char *cert = xasprintf("%s/client-cert.pem", dir);
	cleanup_free char *key = xasprintf("%s/client-key.pem", dir);
	/* GnuTLS does not say which of them is wrong. */
	cleanup_free char *both = xasprintf("%s or client-key.pem", cert);
	int r;

	if (!cert || !key || !both)
		return -ENOMEM;
	if (access(cert, F_OK) < 0 && access(key, F_OK) < 0)
		return 0;
	r = gnutls_certificate_set_x509_key_file(certs->credentials, cert, key,
						 GNUTLS_X509_FMT_PEM);
	return r < 0 ? complain(disk, both, r) : 0;
}

int nbd_certs_load(struct nbd_certs **ret, struct xd_disk *disk,
		   const char *dir, const char *host)
{
	struct nbd_certs *certs = calloc(1, sizeof(*certs));
	int r = -ENOMEM;

	if (!certs)
		return r;
	(void)snprintf(certs->host, sizeof(certs->host), "%s", host);
	if (gnutls_certificate_allocate_credentials(&certs->credentials) >= 0 &&
	    gnutls_priority_init(&certs->priority, PRIORITY, NULL) >= 0)
		r = load_trust(certs, disk, dir);
	if (r == 0)
		r = load_own(certs, disk, dir);
	if (r < 0) {
		nbd_certs_free(certs);
		return r;
	}
	*ret = certs;
	return 0;
}

void nbd_certs_free(struct nbd_certs *certs)
{
	if (!certs)
		return;
	if (certs->credentials)
		gnutls_certificate_free_credentials(certs->credentials);
	if (certs->priority)
		gnutls_priority_deinit(certs->priority);
	free(certs);
}

/* --- A connection --------------------------------------------------------- */

static bool is_address(const char *host)
{
	unsigned char buf[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, buf) == 1 ||
	       inet_pton(AF_INET6, host, buf) == 1;
}

static int set_up(struct nbd_tls *tls)
{
	const struct nbd_certs *certs = tls->certs;
	int r = gnutls_init(&tls->session,
			    GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);

	if (r < 0) {
		tls->session = NULL;
		return -ENOMEM;
	}
	r = gnutls_priority_set(tls->session, certs->priority);
	if (r >= 0)
		r = gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE,
					   certs->credentials);
	if (r >= 0 && !is_address(certs->host))
		r = gnutls_server_name_set(tls->session, GNUTLS_NAME_DNS,
					   certs->host, strlen(certs->host));
	gnutls_session_set_verify_cert(tls->session, certs->host, 0);
	gnutls_transport_set_int(tls->session, tls->net);
	return r < 0 ? -EINVAL : 0;
}

int nbd_tls_new(struct nbd_tls **ret, const struct nbd_certs *certs, int fd)
{
	struct nbd_tls *tls = calloc(1, sizeof(*tls));
	int pair[2];
	int r;

	if (!tls) {
		(void)close(fd);
		return -ENOMEM;
	}
	tls->certs = certs;
	tls->net = fd;
	tls->inner = -1;
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		r = -errno;
		nbd_tls_free(tls);
		return r;
	}
	tls->inner = pair[1];
	r = set_up(tls);
	if (r < 0) {
		(void)close(pair[0]);
		nbd_tls_free(tls);
		return r;
	}
	*ret = tls;
	return pair[0];
}

void nbd_tls_free(struct nbd_tls *tls)
{
	if (!tls)
		return;
	if (tls->session)
		gnutls_deinit(tls->session);
	if (tls->net >= 0)
		(void)close(tls->net);
	if (tls->inner >= 0)
		(void)close(tls->inner);
	free(tls);
}

const char *nbd_tls_why(const struct nbd_tls *tls)
{
	return tls->why[0] ? tls->why : NULL;
}

void nbd_tls_shut(struct nbd_tls *tls)
{
	if (tls->state == FORWARD && !tls->stuck)
		(void)gnutls_bye(tls->session, GNUTLS_SHUT_WR);
	tls->state = OVER;
	(void)shutdown(tls->net, SHUT_RDWR);
	(void)shutdown(tls->inner, SHUT_RDWR);
}

static int PRINTF(2, 3) fail(struct nbd_tls *tls, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(tls->why, sizeof(tls->why), fmt, ap);
	va_end(ap);
	return -EPROTO;
}

/* --- In clear ------------------------------------------------------------- */

/* Until there are so many bytes in `in`. */
static int receive_clear(struct nbd_tls *tls, size_t length)
{
	struct flow *in = &tls->in;
	ssize_t n;

	while (in->end < length) {
		n = recv(tls->net, in->buf + in->end, length - in->end,
			 MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return -EAGAIN;
		if (n < 0)
			return fail(tls, "%s", strerror(errno));
		if (n == 0)
			return fail(tls, "it hung up in the handshake");
		in->end += (size_t)n;
	}
	return 0;
}

static uint64_t get(const unsigned char *p, unsigned int bytes)
{
	uint64_t x = 0;

	while (bytes--)
		x = x << 8 | *p++;
	return x;
}

static void put(unsigned char *p, uint64_t x, unsigned int bytes)
{
	while (bytes--) {
		p[bytes] = (unsigned char)x;
		x >>= 8;
	}
}

static int hello(struct nbd_tls *tls)
{
	unsigned char ask[20];
	int r = receive_clear(tls, GREETING_BYTES);

	if (r < 0)
		return r;
	if (get(tls->in.buf, 8) != MAGIC ||
	    get(tls->in.buf + 8, 8) != OPTION_MAGIC)
		return fail(tls, "it is no NBD server, or one without TLS");
	tls->flags = (uint16_t)get(tls->in.buf + 16, 2);
	if (!(tls->flags & FIXED_NEWSTYLE))
		return fail(tls, "it is too old a server for TLS");
	tls->flags &= FIXED_NEWSTYLE | NO_ZEROES;
	put(ask, tls->flags, 4);
	put(ask + 4, OPTION_MAGIC, 8);
	put(ask + 12, OPT_STARTTLS, 4);
	put(ask + 16, 0, 4);
	/* The first that is sent: there is room. */
	if (send(tls->net, ask, sizeof(ask), MSG_NOSIGNAL | MSG_DONTWAIT) !=
	    sizeof(ask))
		return fail(tls, "it hung up in the handshake");
	tls->in.end = 0;
	tls->state = ANSWER;
	return 0;
}

static int take_answer(struct nbd_tls *tls)
{
	const unsigned char *reply = tls->in.buf;
	uint64_t length, type;
	int r = receive_clear(tls, REPLY_BYTES);

	if (r < 0)
		return r;
	type = get(reply + 12, 4);
	length = get(reply + 16, 4);
	if (get(reply, 8) != REPLY_MAGIC || get(reply + 8, 4) != OPT_STARTTLS ||
	    length > MAX_REPLY_TEXT)
		return fail(tls, "it does not answer as an NBD server");
	r = receive_clear(tls, REPLY_BYTES + length);
	if (r < 0)
		return r;
	if (type != REP_ACK)
		return fail(tls, "it has no TLS, which is required%s%.*s",
			    length ? ": " : "", (int)length,
			    reply + REPLY_BYTES);
	tls->in.end = 0;
	tls->state = SHAKE;
	return 0;
}

/* --- TLS ------------------------------------------------------------------ */

/* What is wrong with its certificate; or with the handshake. */
static int fail_handshake(struct nbd_tls *tls, int error)
{
	unsigned int status =
		gnutls_session_get_verify_cert_status(tls->session);
	gnutls_datum_t text;

	if (error == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR &&
	    gnutls_certificate_verification_status_print(
		    status, GNUTLS_CRT_X509, &text, 0) >= 0) {
		(void)fail(tls, "TLS, as %s: %s", tls->certs->host, text.data);
		gnutls_free(text.data);
		return -EPROTO;
	}
	if (error == GNUTLS_E_FATAL_ALERT_RECEIVED)
		return fail(
			tls, "TLS: it says \"%s\"",
			gnutls_alert_get_name(gnutls_alert_get(tls->session)));
	return fail(tls, "TLS: %s", gnutls_strerror(error));
}

static int shake(struct nbd_tls *tls)
{
	unsigned char *to = tls->in.buf;
	int r;

	do
		r = gnutls_handshake(tls->session);
	while (r == GNUTLS_E_INTERRUPTED ||
	       r == GNUTLS_E_WARNING_ALERT_RECEIVED);
	if (r == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (r < 0)
		return fail_handshake(tls, r);
	put(to, MAGIC, 8);
	put(to + 8, OPTION_MAGIC, 8);
	put(to + 16, tls->flags, 2);
	tls->in.begin = 0;
	tls->in.end = GREETING_BYTES;
	tls->state = GREET;
	return 0;
}

/* --- Forwarding ----------------------------------------------------------- */

/* Takes from libnbd; 0: it has closed its end. */
static ssize_t take_from_libnbd(struct nbd_tls *tls, size_t room)
{
	ssize_t n = recv(tls->inner, tls->out.buf + tls->out.end, room,
			 MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (n > 0)
		tls->out.end += (size_t)n;
	return MAX(n, 0);
}

/* All that is in `in`; -EAGAIN: it is not taken yet. */
static int give_to_libnbd(struct nbd_tls *tls)
{
	struct flow *in = &tls->in;
	ssize_t n;

	while (in->begin < in->end) {
		n = send(tls->inner, in->buf + in->begin, in->end - in->begin,
			 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return -EAGAIN;
		if (n < 0)
			return -EPIPE;
		in->begin += (size_t)n;
	}
	in->begin = in->end = 0;
	return 0;
}

/* Greets libnbd, and hears the flags that we have answered in its place. */
static int greet(struct nbd_tls *tls)
{
	int r = give_to_libnbd(tls);
	ssize_t n;

	if (r < 0)
		return r;
	while (tls->out.end < 4) {
		n = take_from_libnbd(tls, 4 - tls->out.end);
		if (n <= 0)
			return n ? (int)n : -EPIPE;
	}
	if (get(tls->out.buf, 4) != tls->flags)
		return fail(tls, "libnbd does not answer as expected");
	tls->out.end = 0;
	tls->state = FORWARD;
	return 0;
}

static int forward_out(struct nbd_tls *tls)
{
	struct flow *out = &tls->out;
	ssize_t n;

	for (;;) {
		if (out->end == 0) {
			n = take_from_libnbd(tls, sizeof(out->buf));
			if (n <= 0)
				return n ? (int)n : -EPIPE;
		}
		n = tls->stuck ? gnutls_record_send(tls->session, NULL, 0) :
				 gnutls_record_send(tls->session,
						    out->buf + out->begin,
						    out->end - out->begin);
		tls->stuck = n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED;
		if (tls->stuck)
			return -EAGAIN;
		if (n < 0)
			return fail_handshake(tls, (int)n);
		out->begin += (size_t)n;
		if (out->begin == out->end)
			out->begin = out->end = 0;
	}
}

static int forward_in(struct nbd_tls *tls)
{
	struct flow *in = &tls->in;
	ssize_t n;
	int r;

	for (;;) {
		r = give_to_libnbd(tls);
		if (r < 0)
			return r;
		if (tls->ended)
			return -EPIPE;
		n = gnutls_record_recv(tls->session, in->buf, sizeof(in->buf));
		if (n == GNUTLS_E_AGAIN)
			return -EAGAIN;
		if (n == GNUTLS_E_INTERRUPTED ||
		    n == GNUTLS_E_WARNING_ALERT_RECEIVED)
			continue;
		if (n == GNUTLS_E_FATAL_ALERT_RECEIVED)
			return fail_handshake(tls, (int)n);
		if (n <= 0 && !tls->heard)
			return fail(
				tls,
				"it hung up after the TLS handshake: it may "
				"not take our certificate");
		tls->ended = n <= 0;
		tls->heard = true;
		if (n > 0)
			in->end = (size_t)n;
	}
}

/* Both directions; an end of one is the end of both. */
static int forward(struct nbd_tls *tls)
{
	int out = forward_out(tls);
	int in = forward_in(tls);

	/* The server's last words are heard, although it hears no more. */
	if (in != -EAGAIN)
		return in;
	return out;
}

/* --- All of it ------------------------------------------------------------ */

static int (*const steps[])(struct nbd_tls *tls) = {
	[HELLO] = hello, [ANSWER] = take_answer, [SHAKE] = shake,
	[GREET] = greet, [FORWARD] = forward,
};

void nbd_tls_pump(struct nbd_tls *tls)
{
	int r = 0;

	while (r == 0 && tls->state != OVER)
		r = steps[tls->state](tls);
	if (r < 0 && r != -EAGAIN)
		nbd_tls_shut(tls);
}

/* What the handshake waits for. */
static short shake_events(const struct nbd_tls *tls)
{
	return gnutls_record_get_direction(tls->session) ? POLLOUT : POLLIN;
}

void nbd_tls_wants(const struct nbd_tls *tls, struct pollfd ret[2])
{
	bool full = tls->in.begin < tls->in.end;

	ret[0] = (struct pollfd){ .fd = tls->net };
	ret[1] = (struct pollfd){ .fd = tls->inner };
	switch (tls->state) {
	case HELLO:
	case ANSWER:
		ret[0].events = POLLIN;
		return;
	case SHAKE:
		ret[0].events = shake_events(tls);
		return;
	case GREET:
		ret[1].events = full ? POLLOUT : POLLIN;
		return;
	case FORWARD:
		ret[0].events = (short)((full ? 0 : POLLIN) |
					(tls->stuck ? POLLOUT : 0));
		ret[1].events = (short)((full ? POLLOUT : 0) |
					(tls->out.end ? 0 : POLLIN));
		return;
	case OVER:
		return;
	}
}
