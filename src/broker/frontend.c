/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * frontend.c - the rings as the frontend's keys have them.
 *
 * One queue has its keys in the frontend's directory, several have them in
 * queue-0, queue-1 and so on:
 *
 *	event-channel	a port
 *	ring-ref	grant reference of a ring of one page, or
 *	ring-ref0 ...	of each page, when there are several
 *
 * The number of pages is 2 to the power of ring-page-order or, as older
 * frontends spell it, num-ring-pages; neither means one.
 */
#include <string.h>
#include <xen/io/xenbus.h>

#include "broker/frontend.h"

/* 2-level event channels have 4096 ports on 64 bits, FIFO ones 2^17. */
#define MAX_PORT ((1u << 17) - 1)

static const struct {
	const char *name;
	enum msg_abi abi;
} abis[] = {
	{ "x86_32-abi", MSG_ABI_X86_32 },
	{ "x86_64-abi", MSG_ABI_X86_64 },
	{ "arm-abi", MSG_ABI_NATIVE },
};

/* A reader of one directory, with a place for the sentence. */
struct reader {
	struct store *store;
	const char *dir;
	char *why;
};

static int wrong(const struct reader *reader, const char *key, int err,
		 const char *what)
{
	const char *queue = strstr(reader->dir, "/queue-");

	return msg_why(reader->why, err, "frontend's %s%s%s: %s",
		       queue ? queue + 1 : "", queue ? "/" : "", key, what);
}

/* A number from min to max.  -ENOENT leaves ret_why alone. */
static int read_number(const struct reader *reader, const char *key,
		       uint32_t min, uint32_t max, uint32_t *ret)
{
	char what[64];
	uint32_t value = 0;
	int r = store_read_u32(reader->store, reader->dir, key, max, &value);

	if (r == -ENOENT)
		return r;
	if (r == 0 && value >= min) {
		*ret = value;
		return 0;
	}
	if (r != 0 && r != -EINVAL && r != -EBADMSG)
		return wrong(reader, key, r, strerror(-r));
	(void)snprintf(what, sizeof(what), "not a number from %u to %u", min,
		       max);
	return wrong(reader, key, -EINVAL, what);
}

static int need_number(const struct reader *reader, const char *key,
		       uint32_t min, uint32_t max, uint32_t *ret)
{
	int r = read_number(reader, key, min, max, ret);

	return r == -ENOENT ? wrong(reader, key, -EINVAL, "is missing") : r;
}

static int read_abi(const struct reader *reader, uint32_t *ret)
{
	cleanup_free char *name = NULL;
	int r = store_read(reader->store, reader->dir, "protocol", &name);

	if (r == -ENOENT) {
		*ret = MSG_ABI_NATIVE;
		return 0;
	}
	for (unsigned int i = 0; r == 0 && i < ARRAY_SIZE(abis); i++) {
		if (strcmp(name, abis[i].name) == 0) {
			*ret = abis[i].abi;
			return 0;
		}
	}
	return wrong(reader, "protocol", -EINVAL,
		     "not x86_32-abi, x86_64-abi or arm-abi");
}

static int read_pages(const struct reader *reader, uint32_t *ret)
{
	uint32_t order, pages;
	int r = read_number(reader, "ring-page-order", 0, XD_MAX_RING_ORDER,
			    &order);

	if (r == 0) {
		*ret = 1u << order;
		return 0;
	}
	if (r != -ENOENT)
		return r;
	r = read_number(reader, "num-ring-pages", 1, XD_MAX_RING_PAGES, &pages);
	if (r == -ENOENT) {
		*ret = 1;
		return 0;
	}
	if (r == 0 && !is_power_of_2(pages))
		return wrong(reader, "num-ring-pages", -EINVAL,
			     "not a power of two");
	if (r == 0)
		*ret = pages;
	return r;
}

static int read_refs(const struct reader *reader, uint32_t pages,
		     struct msg_ring *ring)
{
	char key[24];
	int r = 0;

	if (pages == 1) {
		r = read_number(reader, "ring-ref", 0, UINT32_MAX,
				&ring->ref[0]);
		if (r != -ENOENT)
			return r;
	}
	for (uint32_t i = 0; i < pages; i++) {
		(void)snprintf(key, sizeof(key), "ring-ref%u", i);
		r = need_number(reader, key, 0, UINT32_MAX, &ring->ref[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_ring(const struct reader *reader, uint32_t pages,
		     struct msg_ring *ret)
{
	struct msg_ring ring = { .nr_refs = pages };
	int r = need_number(reader, "event-channel", 1, MAX_PORT,
			    &ring.event_channel);

	if (r == 0)
		r = read_refs(reader, pages, &ring);
	if (r == 0)
		*ret = ring;
	return r;
}

static int read_queue(const struct reader *reader, uint32_t queue,
		      uint32_t pages, struct msg_ring *ret)
{
	char dir[STORE_PATH_MAX];
	struct reader below = *reader;

	(void)snprintf(dir, sizeof(dir), "%s/queue-%u", reader->dir, queue);
	below.dir = dir;
	return read_ring(&below, pages, ret);
}

static int read_queues(const struct reader *reader, uint32_t pages,
		       struct msg_connect *connect)
{
	int r = 0;

	if (connect->nr_rings == 1)
		return read_ring(reader, pages, &connect->ring[0]);
	for (uint32_t i = 0; r == 0 && i < connect->nr_rings; i++)
		r = read_queue(reader, i, pages, &connect->ring[i]);
	return r;
}

int frontend_rings(struct store *store, const char *dir,
		   struct msg_connect *ret_connect, char *ret_why)
{
	const struct reader reader = { store, dir, ret_why };
	struct msg_connect connect = *ret_connect;
	uint32_t pages = 1;
	int r = read_abi(&reader, &connect.abi);

	connect.nr_rings = 1;
	if (r == 0)
		r = read_pages(&reader, &pages);
	if (r == 0)
		r = read_number(&reader, "multi-queue-num-queues", 1,
				XD_MAX_RINGS, &connect.nr_rings);
	if (r == -ENOENT)
		r = 0;
	if (r == 0)
		r = read_queues(&reader, pages, &connect);
	if (r == 0)
		*ret_connect = connect;
	return r;
}

int frontend_persistent(struct store *store, const char *dir, bool *ret,
			char *ret_why)
{
	const struct reader reader = { store, dir, ret_why };
	uint32_t value = 0;
	int r = read_number(&reader, "feature-persistent", 0, 1, &value);

	if (r < 0 && r != -ENOENT)
		return r;
	*ret = value;
	return 0;
}

int frontend_state(struct store *store, const char *dir, int *ret)
{
	uint32_t state = XenbusStateUnknown;
	int r = store_read_u32(store, dir, "state", XenbusStateReconfigured,
			       &state);

	/* In a driver domain what is not there may not be read either. */
	if (r == -ENOENT || r == -EACCES)
		state = XenbusStateClosed;
	else if (r < 0 && r != -EINVAL && r != -EBADMSG)
		return r; /* xenstored is gone */
	*ret = (int)state;
	return 0;
}

void frontend_forget_rings(struct store *store, const char *dir)
{
	static const char *const keys[] = {
		"event-channel",      "ring-ref", "ring-page-order",
		"num-ring-pages",     "protocol", "multi-queue-num-queues",
		"feature-persistent",
	};
	char key[24];

	/* A driver domain may not write there; the keys stay, then. */
	for (unsigned int i = 0; i < ARRAY_SIZE(keys); i++)
		(void)store_remove(store, dir, keys[i]);
	for (unsigned int i = 0; i < XD_MAX_RING_PAGES; i++) {
		(void)snprintf(key, sizeof(key), "ring-ref%u", i);
		(void)store_remove(store, dir, key);
	}
	for (unsigned int i = 0; i < XD_MAX_RINGS; i++) {
		(void)snprintf(key, sizeof(key), "queue-%u", i);
		(void)store_remove(store, dir, key);
	}
}
