/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-facts.c - what a server says of its export, and whether a disk can be
 * made of it, or go on.
 */
#include "config.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "common/util.h"
#include "nbd.h"

/* What the protocol has a client assume when the server says nothing. */
#define DEFAULT_MAXIMUM (32u << 20)
/* Of the kernel client and others; larger ones have not been met. */
#define LARGEST_MINIMUM (64u << 10)

/* The broker gives up earlier. */
#define CALL_TIMEOUT_NS (20 * 1000000000ull)

/* Pre-shared keys only: libnbd checks no name in a certificate on a socket that
 * somebody else has connected.  With those TLS is not its business (nbd-tls.c). */
static int set_tls(struct nbd_handle *h, const struct nbd_disk *nbd)
{
	if (!nbd->server.tls || nbd->certs)
		return nbd_set_tls(h, LIBNBD_TLS_DISABLE);
	if (nbd_set_tls_psk_file(h, nbd->psk) < 0 ||
	    nbd_set_tls_username(h, nbd->user) < 0)
		return -1;
	return nbd_set_tls(h, LIBNBD_TLS_REQUIRE);
}

struct nbd_handle *nbd_facts_handle(const struct nbd_disk *nbd)
{
	struct nbd_handle *h = nbd_create();

	if (!h)
		return NULL;
	/* libnbd need not clear what the server is about to fill. */
	if (nbd_set_pread_initialize(h, false) < 0 ||
	    nbd_set_export_name(h, nbd->server.export_name) < 0 ||
	    nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
	    set_tls(h, nbd) < 0) {
		nbd_close(h);
		return NULL;
	}
	return h;
}

void nbd_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

/* --- Reading them --------------------------------------------------------- */

static uint32_t block_size(struct nbd_handle *h, int which, uint32_t otherwise)
{
	int64_t size = nbd_get_block_size(h, which);

	return size > 0 && size <= UINT32_MAX ? (uint32_t)size : otherwise;
}

static int check(const struct nbd_facts *facts, char *ret_why)
{
	const char *fault = NULL;

	if (!is_power_of_2(facts->minimum) || facts->minimum > LARGEST_MINIMUM)
		fault = "its minimum block size is no power of two up to 64K";
	else if (facts->maximum < facts->minimum)
		fault = "its maximum block size is less than the minimum";
	else if (facts->size == 0)
		fault = "the export is empty";
	else if (facts->size % facts->minimum)
		fault = "its size is no multiple of its block size";
	if (!fault)
		return 0;
	(void)snprintf(ret_why, NBD_WHY_MAX,
		       "%s (size %" PRIu64 ", blocks %u to %u)", fault,
		       facts->size, facts->minimum, facts->maximum);
	return -EINVAL;
}

int nbd_facts_read(struct nbd_handle *h, struct nbd_facts *ret, char *ret_why)
{
	int64_t size = nbd_get_size(h);

	if (size < 0) {
		const char *error = nbd_get_error();

		/* Of a size that is negative here libnbd says nothing. */
		(void)snprintf(ret_why, NBD_WHY_MAX, "%s",
			       error ? error :
				       "the export has 2^63 bytes or more");
		return -EINVAL;
	}
	*ret = (struct nbd_facts){
		.size = (uint64_t)size,
		.minimum = block_size(h, LIBNBD_SIZE_MINIMUM, 1),
		.preferred = block_size(h, LIBNBD_SIZE_PREFERRED, 4096),
		.maximum = block_size(h, LIBNBD_SIZE_MAXIMUM, DEFAULT_MAXIMUM),
		.readonly = nbd_is_read_only(h) > 0,
		.flush = nbd_can_flush(h) > 0,
		.fua = nbd_can_fua(h) > 0,
		.trim = nbd_can_trim(h) > 0,
		.zero = nbd_can_zero(h) > 0,
		.fast_zero = nbd_can_fast_zero(h) > 0,
		.multi_conn = nbd_can_multi_conn(h) > 0,
		.extents = nbd_can_meta_context(
				   h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0,
	};
	ret->maximum = MIN(ret->maximum, DEFAULT_MAXIMUM);
	/* A whole number of blocks, even if the server is sloppy. */
	if (is_power_of_2(ret->minimum))
		ret->maximum &= ~(ret->minimum - 1);
	return check(ret, ret_why);
}

/* --- At open() ------------------------------------------------------------ */

static int wait_for(int fd, short events, uint64_t deadline)
{
	struct pollfd pfd = { .fd = fd, .events = events };
	uint64_t now = now_ns();
	int n;

	if (now >= deadline)
		return -ETIMEDOUT;
	n = poll(&pfd, 1, (int)((deadline - now) / 1000000) + 1);
	return n < 0 && errno != EINTR ? -errno : 0;
}

/* A connected socket. */
static int call(const struct nbd_disk *nbd, uint64_t deadline, char *ret_why)
{
	const struct timespec pause = { .tv_nsec = 50000000 };
	int pending = nbd_call(nbd);
	int r;

	/* The broker is busy, or has others to connect first. */
	while (pending == -EAGAIN && now_ns() < deadline) {
		(void)nanosleep(&pause, NULL);
		pending = nbd_call(nbd);
	}

	if (pending < 0) {
		(void)snprintf(ret_why, NBD_WHY_MAX, "%s", strerror(-pending));
		return pending;
	}
	for (;;) {
		r = xd_connected(pending, ret_why, NBD_WHY_MAX);
		if (r != -EAGAIN)
			return r;
		r = wait_for(pending, POLLIN, deadline);
		if (r < 0) {
			(void)close(pending);
			(void)snprintf(ret_why, NBD_WHY_MAX, "%s",
				       strerror(-r));
			return r;
		}
	}
}

static int wait_for_any(struct pollfd *fds, nfds_t n, uint64_t deadline)
{
	uint64_t now = now_ns();

	if (now >= deadline)
		return -ETIMEDOUT;
	if (poll(fds, n, (int)((deadline - now) / 1000000) + 1) >= 0)
		return 0;
	if (errno != EINTR)
		return -errno;
	for (nfds_t i = 0; i < n; i++)
		fds[i].revents = 0;
	return 0;
}

static int step(struct nbd_handle *h, struct nbd_tls *tls, uint64_t deadline)
{
	unsigned int direction = nbd_aio_get_direction(h);
	struct pollfd fds[3] = { { .fd = nbd_aio_get_fd(h) } };
	int r;

	if (direction & LIBNBD_AIO_DIRECTION_READ)
		fds[0].events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		fds[0].events |= POLLOUT;
	if (tls)
		nbd_tls_wants(tls, fds + 1);
	r = wait_for_any(fds, tls ? 3 : 1, deadline);
	if (r < 0)
		return r;
	if (tls && (fds[1].revents || fds[2].revents))
		nbd_tls_pump(tls);
	if (!fds[0].revents)
		return 0;
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		return nbd_aio_notify_read(h);
	return nbd_aio_notify_write(h);
}

static const char *why_not(const struct nbd_tls *tls, int r)
{
	if (r == -ETIMEDOUT)
		return "no answer in the handshake";
	if (tls && nbd_tls_why(tls))
		return nbd_tls_why(tls);
	return nbd_get_error() ? nbd_get_error() :
				 "it hung up in the handshake";
}

/* The whole handshake.  libnbd's own would wait for ever. */
static int greet(const struct nbd_disk *nbd, struct nbd_handle *h, int fd,
		 char *ret_why)
{
	uint64_t deadline = now_ns() + nbd->handshake_ns;
	struct nbd_tls *tls = NULL;
	int r = fd;

	if (nbd->certs)
		r = fd = nbd_tls_new(&tls, nbd->certs, fd);
	if (r >= 0)
		r = nbd_aio_connect_socket(h, fd);
	while (r >= 0 && !nbd_aio_is_ready(h) && !nbd_aio_is_closed(h))
		r = step(h, tls, deadline);
	r = r >= 0 && nbd_aio_is_ready(h) ? 0 : MIN(r, -1);
	if (r < 0)
		(void)snprintf(ret_why, NBD_WHY_MAX, "%s", why_not(tls, r));
	if (tls) {
		(void)nbd_aio_disconnect(h, 0);
		nbd_tls_pump(tls);
		nbd_tls_shut(tls);
	}
	nbd_tls_free(tls);
	return r < 0 ? -ECONNREFUSED : 0;
}

int nbd_facts_probe(const struct nbd_disk *nbd, struct nbd_facts *ret)
{
	char why[NBD_WHY_MAX] = "no memory";
	struct nbd_handle *h;
	int fd, r = -ENOMEM;

	h = nbd_facts_handle(nbd);
	if (h)
		r = fd = call(nbd, now_ns() + CALL_TIMEOUT_NS, why);
	if (r >= 0)
		r = greet(nbd, h, fd, why);
	if (r >= 0)
		r = nbd_facts_read(h, ret, why);
	if (r >= 0) {
		(void)nbd_aio_disconnect(h, 0);
	} else {
		nbd_printable(why);
		xd_error(nbd->disk, "%s: %s", nbd->place, why);
	}
	if (h)
		nbd_close(h);
	return MIN(r, 0);
}

/* --- At reconnect --------------------------------------------------------- */

void nbd_facts_keep_blocks(const struct nbd_disk *nbd, struct nbd_facts *io_now)
{
	uint32_t block = nbd->facts.minimum;

	if (!nbd->keep || io_now->minimum >= block || io_now->maximum < block ||
	    io_now->size % block)
		return;
	io_now->minimum = block;
	io_now->maximum &= ~(block - 1);
}

int nbd_facts_compare(const struct nbd_disk *nbd, const struct nbd_facts *now,
		      char *ret_why)
{
	const struct nbd_facts *then = &nbd->facts;
	const char *lost = NULL;

	if (now->size < then->size) {
		(void)snprintf(ret_why, NBD_WHY_MAX,
			       "the export has shrunk from %" PRIu64
			       " to %" PRIu64 " bytes",
			       then->size, now->size);
		return -EINVAL;
	}
	if (now->readonly && !nbd->readonly)
		lost = "the export is read-only now";
	else if (then->flush && !now->flush)
		lost = "the export knows no flush any more";
	else if (then->fua && !now->fua)
		lost = "the export knows no FUA any more";
	else if (then->zero && !now->zero)
		lost = "the export cannot write zeroes any more";
	else if (then->multi_conn && !now->multi_conn)
		lost = "the export is not for several connections any more";
	else if (now->minimum > MAX(nbd->sector, then->minimum) &&
		 (!nbd->rmw || then->multi_conn || nbd->keep))
		lost = "the export has larger blocks now";
	if (!lost)
		return 0;
	(void)snprintf(ret_why, NBD_WHY_MAX, "%s", lost);
	return -EINVAL;
}
