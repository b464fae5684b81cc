/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The guest's kernel has one xenstore ring, many programs share it.  So do the
 * clients of this socket, as with Linux's /dev/xen/xenbus: each request gets a
 * number of ours and the answer goes back under the client's own; watch tokens
 * carry the client's number in front.  When a client leaves, its watches and
 * its open transactions are ended.  One thread per domain does all of it.
 */
#include "config.h"

#include "storeproxy.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <xen/grant_table.h>
#include <xen/io/xs_wire.h>

#define CLIENTS	    64
#define MESSAGE_MAX (sizeof(struct xsd_sockmsg) + XENSTORE_PAYLOAD_MAX)

/* Something to undo when the client leaves: a watch or a transaction. */
struct debt {
	struct debt *next;
	uint32_t tx_id; /* 0: a watch */
	size_t len;
	char body[]; /* of the watch, with our token */
};

/* A request on its way. */
struct call {
	struct call *next;
	uint32_t ours;
	uint32_t theirs;
	uint32_t client; /* 0: nobody waits */
	uint32_t type;
};

struct client {
	int fd; /* 0: free place */
	uint32_t number;
	size_t have;
	char in[MESSAGE_MAX];
	struct debt *debts;
};

struct storeproxy {
	struct hv *hv;
	struct hv_device dev;
	struct xenstore_domain_interface *ring;
	uint32_t slot, generation, port;
	int listener;
	int stop;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	pthread_t thread;
	struct client clients[CLIENTS];
	uint32_t next_client, next_call;
	struct call *calls;
	size_t have; /* of the answer being read off the ring */
	char in[MESSAGE_MAX];
};

/* --- The ring ------------------------------------------------------------------ */

static bool wait_for_event(struct storeproxy *p)
{
	struct pollfd fds[] = { { .fd = p->dev.fd, .events = POLLIN },
				{ .fd = p->stop, .events = POLLIN } };
	uint32_t port;

	if (poll(fds, 2, -1) < 0 || fds[1].revents)
		return false;
	if (read(p->dev.fd, &port, sizeof(port)) == sizeof(port))
		hv_evtchn_unmask(p->hv, p->slot, port);
	return true;
}

static bool fill_ring(struct storeproxy *p, const char *bytes, size_t len)
{
	struct xenstore_domain_interface *r = p->ring;

	while (len && storeproxy_wanted(p)) {
		uint32_t prod = r->req_prod;
		uint32_t room = XENSTORE_RING_SIZE -
				(prod - *(volatile uint32_t *)&r->req_cons);
		uint32_t at = MASK_XENSTORE_IDX(prod);
		size_t n = XENSTORE_RING_SIZE - at;

		if (room == 0) {
			if (!wait_for_event(p))
				return false;
			continue;
		}
		n = n < room ? n : room;
		n = n < len ? n : len;
		memcpy(r->req + at, bytes, n);
		atomic_thread_fence(memory_order_seq_cst);
		*(volatile uint32_t *)&r->req_prod = prod + (uint32_t)n;
		hv_evtchn_send(p->hv, p->slot, p->port);
		bytes += n;
		len -= n;
	}
	return len == 0;
}

/* What the ring has, at most len bytes. */
static size_t drain_ring(struct storeproxy *p, char *bytes, size_t len)
{
	struct xenstore_domain_interface *r = p->ring;
	uint32_t cons = r->rsp_cons;
	uint32_t ready = *(volatile uint32_t *)&r->rsp_prod - cons;
	uint32_t at = MASK_XENSTORE_IDX(cons);
	size_t n = XENSTORE_RING_SIZE - at;

	n = n < ready ? n : ready;
	n = n < len ? n : len;
	if (n == 0 || !storeproxy_wanted(p))
		return 0;
	atomic_thread_fence(memory_order_seq_cst);
	memcpy(bytes, r->rsp + at, n);
	*(volatile uint32_t *)&r->rsp_cons = cons + (uint32_t)n;
	hv_evtchn_send(p->hv, p->slot, p->port);
	return n;
}

/* --- Requests -------------------------------------------------------------------- */

static bool send_request(struct storeproxy *p, struct xsd_sockmsg msg,
			 const char *body, uint32_t client)
{
	struct call *call = calloc(1, sizeof(*call));

	if (!call)
		return false;
	*call = (struct call){
		.next = p->calls,
		.ours = ++p->next_call ? p->next_call : ++p->next_call,
		.theirs = msg.req_id,
		.client = client,
		.type = msg.type,
	};
	p->calls = call;
	msg.req_id = call->ours;
	return fill_ring(p, (char *)&msg, sizeof(msg)) &&
	       fill_ring(p, body, msg.len);
}

static void add_debt(struct client *c, uint32_t tx_id, const char *body,
		     size_t len)
{
	struct debt *debt = calloc(1, sizeof(*debt) + len);

	if (!debt)
		return;
	debt->tx_id = tx_id;
	debt->len = len;
	memcpy(debt->body, body, len);
	debt->next = c->debts;
	c->debts = debt;
}

static void drop_debt(struct client *c, uint32_t tx_id, const char *body,
		      size_t len)
{
	for (struct debt **d = &c->debts; *d; d = &(*d)->next) {
		struct debt *debt = *d;

		if (debt->tx_id != tx_id || debt->len != len ||
		    memcmp(debt->body, body, len))
			continue;
		*d = debt->next;
		free(debt);
		return;
	}
}

/* "path\0token\0" becomes "path\0NUMBER:token\0". */
static bool mark_token(struct storeproxy *p, struct client *c,
		       struct xsd_sockmsg msg, const char *body)
{
	char marked[XENSTORE_PAYLOAD_MAX + 16];
	size_t path = strnlen(body, msg.len) + 1;
	int n;

	if (path >= msg.len)
		return send_request(p, msg, body, c->number);
	memcpy(marked, body, path);
	n = sprintf(marked + path, "%u:", c->number);
	memcpy(marked + path + n, body + path, msg.len - path);
	msg.len += (uint32_t)n;
	if (msg.type == XS_WATCH)
		add_debt(c, 0, marked, msg.len);
	else
		drop_debt(c, 0, marked, msg.len);
	return send_request(p, msg, marked, c->number);
}

static bool client_message(struct storeproxy *p, struct client *c)
{
	struct xsd_sockmsg msg;
	const char *body = c->in + sizeof(msg);

	memcpy(&msg, c->in, sizeof(msg));
	if (msg.type == XS_WATCH || msg.type == XS_UNWATCH)
		return mark_token(p, c, msg, body);
	if (msg.type == XS_TRANSACTION_END)
		drop_debt(c, msg.tx_id, "", 0);
	return send_request(p, msg, body, c->number);
}

/* False: the client is gone, or says nonsense. */
static bool client_readable(struct storeproxy *p, struct client *c)
{
	struct xsd_sockmsg msg;
	size_t want = sizeof(msg);
	ssize_t n;

	if (c->have >= sizeof(msg)) {
		memcpy(&msg, c->in, sizeof(msg));
		want += msg.len;
	}
	n = recv(c->fd, c->in + c->have, want - c->have, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0)
		return false;
	c->have += (size_t)n;
	if (c->have < sizeof(msg))
		return true;
	memcpy(&msg, c->in, sizeof(msg));
	if (msg.len > XENSTORE_PAYLOAD_MAX)
		return false;
	if (c->have < sizeof(msg) + msg.len)
		return true;
	c->have = 0;
	return client_message(p, c);
}

/* --- Answers ------------------------------------------------------------------------ */

static struct client *find_client(struct storeproxy *p, uint32_t number)
{
	for (int i = 0; i < CLIENTS; i++)
		if (p->clients[i].fd && p->clients[i].number == number)
			return &p->clients[i];
	return NULL;
}

static void send_client(struct client *c, const struct xsd_sockmsg *msg,
			const char *body)
{
	struct iovec iov[] = {
		{ .iov_base = (void *)(uintptr_t)msg, .iov_len = sizeof(*msg) },
		{ .iov_base = (void *)(uintptr_t)body, .iov_len = msg->len }
	};
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };

	/* A client that left is noticed when its socket is read. */
	(void)sendmsg(c->fd, &m, MSG_NOSIGNAL);
}

static void watch_event(struct storeproxy *p, struct xsd_sockmsg *msg,
			char *body)
{
	size_t path = strnlen(body, msg->len) + 1, mark;
	struct client *c;
	char *token, *end;

	if (path >= msg->len)
		return;
	token = body + path;
	c = find_client(p, (uint32_t)strtoul(token, &end, 10));
	if (!c || *end != ':')
		return;
	mark = (size_t)(end + 1 - token);
	memmove(token, end + 1, msg->len - path - mark);
	msg->len -= (uint32_t)mark;
	send_client(c, msg, body);
}

static struct call *take_call(struct storeproxy *p, uint32_t ours)
{
	for (struct call **c = &p->calls; *c; c = &(*c)->next) {
		struct call *call = *c;

		if (call->ours != ours)
			continue;
		*c = call->next;
		return call;
	}
	return NULL;
}

static void end_transaction(struct storeproxy *p, uint32_t tx_id)
{
	struct xsd_sockmsg msg = { .type = XS_TRANSACTION_END,
				   .tx_id = tx_id,
				   .len = 2 };

	send_request(p, msg, "F", 0);
}

static void answer(struct storeproxy *p, struct xsd_sockmsg *msg,
		   const char *body)
{
	struct call *call = take_call(p, msg->req_id);
	struct client *c = call ? find_client(p, call->client) : NULL;
	bool started = call && call->type == XS_TRANSACTION_START &&
		       msg->type == XS_TRANSACTION_START;

	if (started && c)
		add_debt(c, (uint32_t)strtoul(body, NULL, 10), "", 0);
	else if (started)
		end_transaction(p, (uint32_t)strtoul(body, NULL, 10));
	if (c) {
		msg->req_id = call->theirs;
		send_client(c, msg, body);
	}
	free(call);
}

/* One message off the ring; false when it does not hold a whole one yet. */
static bool take_message(struct storeproxy *p)
{
	struct xsd_sockmsg msg;
	size_t want = sizeof(msg), n;

	do {
		if (p->have >= sizeof(msg)) {
			memcpy(&msg, p->in, sizeof(msg));
			want = sizeof(msg) + msg.len;
			if (p->have == want)
				break;
		}
		n = drain_ring(p, p->in + p->have, want - p->have);
		if (n == 0)
			return false;
		p->have += n;
	} while (true);
	p->have = 0;
	if (msg.type == XS_WATCH_EVENT)
		watch_event(p, &msg, p->in + sizeof(msg));
	else
		answer(p, &msg, p->in + sizeof(msg));
	return true;
}

/* --- Clients --------------------------------------------------------------------------- */

static void client_gone(struct storeproxy *p, struct client *c)
{
	struct xsd_sockmsg unwatch = { .type = XS_UNWATCH };
	struct debt *debt;

	close(c->fd);
	c->fd = 0;
	while ((debt = c->debts)) {
		c->debts = debt->next;
		unwatch.len = (uint32_t)debt->len;
		if (debt->tx_id)
			end_transaction(p, debt->tx_id);
		else
			send_request(p, unwatch, debt->body, 0);
		free(debt);
	}
}

static void client_new(struct storeproxy *p)
{
	int fd = accept(p->listener, NULL, NULL);

	for (int i = 0; fd >= 0 && i < CLIENTS; i++) {
		struct client *c = &p->clients[i];

		if (c->fd)
			continue;
		c->fd = fd;
		c->number = ++p->next_client;
		c->have = 0;
		return;
	}
	if (fd >= 0)
		close(fd);
}

static bool wait_for_work(struct storeproxy *p, struct pollfd *fds)
{
	fds[0] = (struct pollfd){ .fd = p->stop, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = p->dev.fd, .events = POLLIN };
	fds[2] = (struct pollfd){ .fd = p->listener, .events = POLLIN };
	for (int i = 0; i < CLIENTS; i++)
		fds[3 + i] = (struct pollfd){
			.fd = p->clients[i].fd ? p->clients[i].fd : -1,
			.events = POLLIN,
		};
	return poll(fds, 3 + CLIENTS, -1) >= 0 && !fds[0].revents;
}

static void *proxy_main(void *arg)
{
	struct storeproxy *p = arg;
	struct pollfd fds[3 + CLIENTS];
	uint32_t port;

	while (wait_for_work(p, fds)) {
		if (fds[1].revents &&
		    read(p->dev.fd, &port, sizeof(port)) == sizeof(port))
			hv_evtchn_unmask(p->hv, p->slot, port);
		if (fds[2].revents)
			client_new(p);
		for (int i = 0; i < CLIENTS; i++)
			if (fds[3 + i].revents && p->clients[i].fd &&
			    !client_readable(p, &p->clients[i]))
				client_gone(p, &p->clients[i]);
		while (take_message(p))
			;
	}
	return NULL;
}

/* --- Start and stop ---------------------------------------------------------------------- */

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	strcpy(addr.sun_path, path);
	unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(fd, 16) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

/* The ring page, granted under the reference that xenstored expects. */
static int make_ring(struct storeproxy *p)
{
	uint32_t frame;
	int r;

	hv_lock(p->hv);
	r = hv_frames_alloc(p->hv, p->slot, 1, &frame);
	hv_unlock(p->hv);
	if (r < 0)
		return r;
	p->ring = (void *)hv_frame_ptr(p->hv, frame);
	return hv_grant_set(p->hv, p->slot, GNTTAB_RESERVED_XENSTORE, 0, frame,
			    false, NULL);
}

static int proxy_init(struct storeproxy *p)
{
	int n = snprintf(p->path, sizeof(p->path), "%s/xenstore-%u", p->hv->dir,
			 hv_domain(p->hv, p->slot)->domid);
	int r;

	if (n >= (int)sizeof(p->path))
		return -ENAMETOOLONG;
	r = make_ring(p);
	if (r == 0)
		r = hv_evtchn_alloc_unbound(&p->dev, 0, &p->port);
	if (r == 0)
		r = p->stop = eventfd(0, EFD_CLOEXEC);
	if (r >= 0)
		r = p->listener = listen_at(p->path);
	if (r >= 0)
		r = -pthread_create(&p->thread, NULL, proxy_main, p);
	return r;
}

int storeproxy_start(struct hv *hv, uint32_t slot,
		     struct storeproxy **ret_proxy, uint32_t *ret_port)
{
	struct storeproxy *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	p->hv = hv;
	p->slot = slot;
	p->generation = hv_domain(hv, slot)->generation;
	r = hv_device_open(hv, HV_EVENTS_FIFO, slot, &p->dev);
	if (r == 0) {
		r = proxy_init(p);
		if (r < 0)
			hv_device_close(&p->dev);
	}
	if (r < 0) {
		free(p);
		return r;
	}
	*ret_proxy = p;
	*ret_port = p->port;
	return 0;
}

void storeproxy_stop(struct storeproxy *p)
{
	const uint64_t one = 1;

	if (write(p->stop, &one, sizeof(one)) == sizeof(one))
		pthread_join(p->thread, NULL);
	for (int i = 0; i < CLIENTS; i++)
		if (p->clients[i].fd)
			close(p->clients[i].fd);
	close(p->listener);
	close(p->stop);
	unlink(p->path);
	hv_device_close(&p->dev);
	free(p);
}

bool storeproxy_wanted(const struct storeproxy *p)
{
	const struct hv_domain *d = hv_domain(p->hv, p->slot);

	return d->state == HV_DOMAIN_LIVE && d->generation == p->generation;
}
