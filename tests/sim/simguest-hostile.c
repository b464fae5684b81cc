/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verb "hostile": the cases, one after the other, and what is between. */
#include "config.h"

#include "simguest-hostile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xen/io/xenbus.h>
#include <xenstore.h>

static const struct hostile_case *const tables[] = {
	hostile_requests_cases,
	hostile_ring_cases,
	hostile_store_cases,
	hostile_end_cases,
};
/* What --seconds 0 means. */
#define SHORTLY_NS 300000000
#define NR_TABLES  (sizeof(tables) / sizeof(tables[0]))

/* --- What cases share ------------------------------------------------------ */

bool hostile_has_time(struct hostile *h)
{
	return simio_now_ns() < h->end_ns;
}

uint32_t hostile_random(struct hostile *h, uint32_t below)
{
	return (uint32_t)((simio_random(&h->random) >> 16) % below);
}

int hostile_fault(const char *format, ...)
{
	char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	simguest_complain("hostile: %s", text);
	return SIMGUEST_FAULT;
}

int hostile_queue_fault(const struct hostile *h, const char *what, int r)
{
	if (r == -EPROTO)
		return hostile_fault("%s: %s", what, simqueue_fault(h->queue));
	return hostile_fault("%s: %s", what,
			     r == -ETIMEDOUT ? "no answer" : strerror(-r));
}

static uint32_t grant(struct hostile *h, uint32_t domid, const void *page,
		      bool readonly)
{
	uint32_t ref;

	if (h->nr_grants == HOSTILE_GRANTS ||
	    xensim_grant(h->domain, domid, page, readonly, &ref) < 0) {
		hostile_fault("too many grants");
		return 0;
	}
	h->grants[h->nr_grants++] = ref;
	return ref;
}

uint32_t hostile_grant_to(struct hostile *h, uint32_t domid, const void *page)
{
	return grant(h, domid, page, false);
}

uint32_t hostile_grant(struct hostile *h, const void *page, bool readonly)
{
	return grant(h, h->backend_domid, page, readonly);
}

void hostile_key(struct hostile *h, const char *key, const void *value,
		 size_t length)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", h->path, key);
	if (value)
		(void)xs_write(h->xs, XBT_NULL, path, value,
			       (unsigned int)length);
	else
		(void)xs_rm(h->xs, XBT_NULL, path);
}

void hostile_state(struct hostile *h, unsigned int state)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", state);
	hostile_key(h, "state", text, strlen(text));
}

static uint32_t read_number(struct hostile *h, const char *dir, const char *key)
{
	char path[320];
	unsigned int length;
	char *text;
	uint32_t value;

	snprintf(path, sizeof(path), "%s/%s", dir, key);
	text = xs_read(h->xs, XBT_NULL, path, &length);
	value = text ? (uint32_t)strtoul(text, NULL, 10) : 0;
	free(text);
	return value;
}

unsigned int hostile_backend_state(struct hostile *h)
{
	char dir[80];

	snprintf(dir, sizeof(dir), "/local/domain/%u/backend/vbd/%u/%u",
		 h->backend_domid, h->guest->domid, h->guest->devid);
	return read_number(h, dir, "state");
}

int hostile_await_backend(struct hostile *h, unsigned int states)
{
	int64_t end =
		simio_now_ns() + (int64_t)h->guest->opt.timeout * 1000000000;

	while (simio_now_ns() < end) {
		unsigned int state = hostile_backend_state(h);

		if (state < 9 && (states >> state & 1))
			return (int)state;
		usleep(2000);
	}
	return -ETIMEDOUT;
}

int hostile_await_closed(struct hostile *h)
{
	int64_t end =
		simio_now_ns() + (int64_t)h->guest->opt.timeout * 1000000000;

	while (simio_now_ns() < end) {
		if (simfront_closing(h->front))
			return SIMGUEST_OK;
		usleep(1000);
	}
	return hostile_fault("the backend goes on with what is broken");
}

/* --- Connections ----------------------------------------------------------- */

static void release_memory(struct hostile *h)
{
	bool ended = true;

	while (h->nr_grants > 0)
		if (xensim_grant_end(h->domain, h->grants[--h->nr_grants]) ==
		    -EBUSY)
			ended = false;
	if (ended && h->pages)
		xensim_free_pages(h->domain, h->pages, HOSTILE_PAGES);
	h->pages = NULL;
}

void hostile_drop(struct hostile *h)
{
	if (h->domain && xensim_guest_alive(h->domain))
		release_memory(h);
	h->domain = NULL;
	if (h->xs)
		xs_close(h->xs);
	h->xs = NULL;
	simfront_free(h->front);
	h->front = NULL;
	h->guest->front = NULL;
}

static int take_up(struct hostile *h)
{
	h->queue = simfront_queue(h->front, 0);
	h->abi = simfront_shape(h->front)->abi;
	h->domain = simfront_guest(h->front);
	h->sectors = simfront_sectors(h->front);
	h->xs = xensim_guest_xs_open(h->domain);
	if (!h->xs)
		return hostile_fault("xenstore: %s", strerror(errno));
	h->backend_domid = read_number(h, h->path, "backend-id");
	h->pages = xensim_alloc_pages(h->domain, HOSTILE_PAGES);
	return h->pages ? SIMGUEST_OK : hostile_fault("no guest memory");
}

int hostile_connect(struct hostile *h)
{
	struct simfront_shape shape = simguest_shape(&h->guest->opt);
	int r;

	hostile_drop(h);
	r = simfront_open(h->guest->domid, h->guest->devid,
			  (int)h->guest->opt.timeout, &h->front);
	if (r == 0)
		r = simfront_connect(h->front, &shape);
	h->guest->front = h->front;
	if (r < 0)
		return hostile_fault("connecting again: %s",
				     h->front ? simfront_error(h->front) :
						strerror(-r));
	return take_up(h);
}

int hostile_work(struct hostile *h)
{
	uint64_t sector = h->sectors - 8;
	struct simqueue_segment segment = { h->pages, 0, 7 };
	struct simqueue_request req = { .operation = BLKIF_OP_WRITE,
					.nr_segments = 1,
					.segments = &segment,
					.sector = sector };
	int timeout = (int)h->guest->opt.timeout;
	uint64_t tag = simio_random(&h->random);
	int r;

	memcpy(h->pages, &tag, sizeof(tag));
	r = simio_sync(h->queue, &req, timeout);
	if (r < 0)
		return hostile_queue_fault(h, "honest write", r);
	memset(h->pages, 0, SIMABI_PAGE);
	if (req.status == BLKIF_RSP_OKAY) {
		req.operation = BLKIF_OP_READ;
		r = simio_sync(h->queue, &req, timeout);
		if (r < 0)
			return hostile_queue_fault(h, "honest read", r);
	}
	if (req.status != BLKIF_RSP_OKAY)
		return hostile_fault("an honest request: status %d",
				     req.status);
	if (memcmp(h->pages, &tag, sizeof(tag)) != 0)
		return hostile_fault("an honest request: wrong data");
	return SIMGUEST_OK;
}

/* --- Running a case --------------------------------------------------------- */

/* What the case left must be as it promises. */
static int judge_end(struct hostile *h, const struct hostile_case *c)
{
	int code = SIMGUEST_OK;

	if (c->end == HOSTILE_GOOD)
		code = hostile_work(h);
	else if (c->end == HOSTILE_CLOSED)
		code = hostile_await_closed(h);
	if (code == SIMGUEST_OK)
		code = hostile_connect(h);
	return code == SIMGUEST_OK ? hostile_work(h) : code;
}

static int run_case(struct hostile *h, const struct hostile_case *c)
{
	int code;

	h->count = 0;
	h->end_ns =
		simio_now_ns() + (int64_t)h->guest->opt.seconds * 1000000000;
	code = c->run(h);
	if (code == SIMGUEST_OK && c->end != HOSTILE_LAST)
		code = judge_end(h, c);
	printf("hostile: %s: %s", c->name,
	       code == SIMGUEST_OK ? "ok" : "FAILED");
	if (c->counts)
		printf(", %" PRIu64 " %s", h->count, c->counts);
	printf("\n");
	fflush(stdout);
	return code;
}

static int run_all(struct hostile *h)
{
	int code = SIMGUEST_OK;

	for (size_t t = 0; t < NR_TABLES && code == SIMGUEST_OK; t++)
		for (const struct hostile_case *c = tables[t];
		     c->name && code == SIMGUEST_OK; c++)
			if (c->end != HOSTILE_LAST)
				code = run_case(h, c);
	return code;
}

static const struct hostile_case *find_case(const char *name)
{
	for (size_t t = 0; t < NR_TABLES; t++)
		for (const struct hostile_case *c = tables[t]; c->name; c++)
			if (strcmp(c->name, name) == 0)
				return c;
	simguest_complain("hostile %s: no such case; see --list", name);
	return NULL;
}

void simguest_list_hostile(void)
{
	for (size_t t = 0; t < NR_TABLES; t++)
		for (const struct hostile_case *c = tables[t]; c->name; c++)
			printf("%-16s %s\n", c->name, c->help);
}

int simguest_hostile(struct simguest *guest, int argc, char **argv)
{
	const struct hostile_case *one = argc > 1 ? find_case(argv[1]) : NULL;
	static struct hostile h;
	int code;

	if (argc > 1 && !one)
		return SIMGUEST_USAGE;
	h.guest = guest;
	h.front = guest->front;
	h.random = guest->opt.seed ? guest->opt.seed : 1;
	snprintf(h.path, sizeof(h.path), "/local/domain/%u/device/vbd/%u",
		 guest->domid, guest->devid);
	code = take_up(&h);
	if (code == SIMGUEST_OK)
		code = one ? run_case(&h, one) : run_all(&h);
	if (one && one->end == HOSTILE_LAST)
		_exit(code);
	if (h.xs)
		xs_close(h.xs);
	return code;
}
