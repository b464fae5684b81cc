/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bells: a guest that sleeps in an eventfd.
 *
 * Theory of operation
 *
 * To sleep in a futex that processes share costs two searches for its page, one
 * on each side, which no guest of Xen's pays.  Where one request is under way at a
 * time that is a twentieth of the latency which is to be measured.  An eventfd
 * costs less, but must be handed over, and a backend that has locked itself down
 * takes nothing: it has to have the descriptor before there is a guest.
 *
 * So each slot for a domain has one bell, an eventfd which the machine's server
 * makes when it first sees a domain there, and keeps.  Its number stands in the
 * shared state.  A process that still may fetches it out of the server with
 * pidfd_getfd(): a backend when it restricts its device to the domain (which comes
 * before it locks itself down), a guest when it opens an events object.
 *
 *  - One handle of a domain at a time may sleep in the bell, the `listener`; the
 *    others sleep in their futex as ever, and so does a second thread on that one.
 *  - The sleeper sets `listening`, then looks for what has come, then sleeps.  The
 *    sender sets the event's bits, then looks at `listening`, then rings.  So one of
 *    them sees the other.  A ring too many is a wake-up too many, no more.
 *  - Anybody may send, even a process that could not fetch the bell (another user, an
 *    old kernel, locked down too early, XENSIM_FUTEX set).  It sets `deaf` and tells
 *    the server, which has all bells and rings.  A deaf handle stays with its futex:
 *    there is one such detour in its life.  No count of holders is kept, so a process
 *    may die anywhere.
 *
 * A number may mean something else by the time it is fetched (the server has died
 * and its id is another's).  The kernel's own number of the eventfd tells.
 */
#include "config.h"

#include "hv.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BELL_WAIT_MS 10000

/* A bell: its descriptor in the server, never 0, and the kernel's number of it. */
#define BELL(fd, id) ((uint64_t)(uint32_t)(id) << 32 | (uint32_t)(fd))
#define BELL_FD(b)   ((int)(uint32_t)(b))
#define BELL_ID(b)   ((int)((b) >> 32))

/* What no two eventfds of the system have at a time; -EBADF: it is none. */
static int eventfd_id(int fd, int *ret_id)
{
	char path[64], line[128];
	int r = -EBADF;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (r < 0 && fgets(line, sizeof(line), f))
		if (sscanf(line, "eventfd-id: %d", ret_id) == 1)
			r = 0;
	fclose(f);
	return r;
}

/* False: this process does not have it. */
static bool write_bell(struct hv *hv, uint32_t slot)
{
	const uint64_t one = 1;
	int fd = hv->bells[slot] - 1;

	return fd >= 0 && write(fd, &one, sizeof(one)) == sizeof(one);
}

/* --- The server ---------------------------------------------------------------- */

static void make_bell(struct hv *hv, uint32_t slot)
{
	int fd = eventfd(0, EFD_CLOEXEC), id;

	if (fd < 0)
		return;
	if (fd == 0 || eventfd_id(fd, &id) < 0) {
		close(fd);
		return;
	}
	hv->bells[slot] = fd + 1;
	hv_domain(hv, slot)->bell = BELL(fd, id);
}

void hv_bell_serve(struct hv *hv)
{
	struct hv_shared *s = hv->shared;

	s->server = getpid();
	for (uint32_t slot = 0; slot < HV_DOMAINS; slot++)
		if (hv_domain(hv, slot)->state == HV_DOMAIN_LIVE &&
		    !hv_domain(hv, slot)->bell)
			make_bell(hv, slot);
	for (uint32_t i = 0; i < s->nr_handles; i++)
		if (s->handles[i].deaf && s->handles[i].listening)
			write_bell(hv, s->handles[i].slot);
}

/* --- Fetching it ----------------------------------------------------------------- */

static int fetch(struct hv *hv, uint32_t slot)
{
	uint64_t bell = hv_domain(hv, slot)->bell;
	int pidfd, fd, id, r;

	if (!bell)
		return -ENOENT;
	pidfd = (int)syscall(SYS_pidfd_open, hv->shared->server, 0);
	if (pidfd < 0)
		return -errno;
	fd = (int)syscall(SYS_pidfd_getfd, pidfd, BELL_FD(bell), 0);
	r = fd < 0 ? -errno : 0;
	close(pidfd);
	if (r < 0)
		return r;
	r = eventfd_id(fd, &id);
	if (r == 0 && id == BELL_ID(bell))
		return fd;
	close(fd);
	return r < 0 ? r : -ESTALE;
}

int hv_bell_fetch(struct hv *hv, uint32_t slot)
{
	int fd;

	if (getenv("XENSIM_FUTEX"))
		return -EOPNOTSUPP;
	/* A domain that is not on xenstore: the server may not know of it yet. */
	if (!hv_domain(hv, slot)->bell && hv->shared->server)
		hv_server_ask(hv, BELL_WAIT_MS);
	pthread_mutex_lock(&hv->writer_lock);
	fd = hv->bells[slot] - 1;
	if (fd < 0)
		fd = fetch(hv, slot);
	if (fd >= 0)
		hv->bells[slot] = fd + 1;
	pthread_mutex_unlock(&hv->writer_lock);
	return fd < 0 ? fd : 0;
}

void hv_bell_claim(struct hv_device *dev)
{
	struct hv *hv = dev->hv;
	uint32_t slot = hv_device_handle(dev)->slot;
	struct hv_domain *d = hv_domain(hv, slot);

	if (hv_bell_fetch(hv, slot) < 0)
		return;
	hv_lock(hv);
	if (!d->listener ||
	    hv->shared->handles[d->listener_index].serial != d->listener) {
		d->listener = dev->serial;
		d->listener_index = dev->index;
		dev->listener = true;
	}
	hv_unlock(hv);
}

/* --- Ringing and sleeping: no lock ------------------------------------------------ */

void hv_bell_ring(struct hv *hv, struct hv_handle *h)
{
	if (!h->listening || write_bell(hv, h->slot))
		return;
	h->deaf = 1;
	hv_server_ring(hv);
}

bool hv_bell_listen(struct hv_device *dev)
{
	struct hv_handle *h = hv_device_handle(dev);

	return dev->listener && !h->deaf && !atomic_exchange(&h->listening, 1);
}

int hv_bell_sleep(struct hv_device *dev, int timeout_ms)
{
	struct hv_handle *h = hv_device_handle(dev);
	struct pollfd pfd = { .fd = dev->hv->bells[h->slot] - 1,
			      .events = POLLIN };
	uint64_t count;
	int n;

	/* Who became deaf before this one listened is not rung for again. */
	if (h->deaf)
		return 0;
	if (timeout_ms >= 0) {
		n = poll(&pfd, 1, timeout_ms);
		if (n <= 0)
			return n < 0 ? -errno : -ETIMEDOUT;
	}
	return read(pfd.fd, &count, sizeof(count)) < 0 ? -errno : 0;
}

void hv_bell_rest(struct hv_device *dev)
{
	hv_device_handle(dev)->listening = 0;
}
