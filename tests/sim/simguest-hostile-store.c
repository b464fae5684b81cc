/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a guest can do in xenstore. */
#include "config.h"

#include "simguest-hostile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xen/io/xenbus.h>
#include <xenstore.h>

#define STORM_NODES 500 /* xenstored allows a guest 1000 */
#define LONG_VALUE  2000 /* and 2048 bytes in each */

static char long_digits[LONG_VALUE + 1];

struct value {
	const char *bytes;
	size_t length;
};

#define VALUE(text)                     \
	{                               \
		text, sizeof(text) - 1, \
	}

/* No numbers, whatever strtoul() makes of them. */
static const struct value garbage[] = {
	VALUE(""),
	VALUE(" 1"),
	VALUE("1 "),
	VALUE("-1"),
	VALUE("+1"),
	VALUE("0x10"),
	VALUE("01"),
	VALUE("1\n"),
	VALUE("1\0"
	      "2"),
	VALUE("\xff\xfe\x80"),
	VALUE("4294967296"),
	VALUE("18446744073709551617"),
	VALUE("%s%n%p"),
	VALUE("../../1"),
	{ long_digits, LONG_VALUE },
};
#define NR_GARBAGE (sizeof(garbage) / sizeof(garbage[0]))

static void fill_long(void)
{
	memset(long_digits, '9', LONG_VALUE);
}

/* --- The state ------------------------------------------------------------- */

static int run_states(struct hostile *h)
{
	fill_long();
	do {
		const struct value *v = &garbage[hostile_random(h, NR_GARBAGE)];

		if (hostile_random(h, 4) == 0)
			hostile_key(h, "state", v->bytes, v->length);
		else
			hostile_state(h, hostile_random(h, 10));
		h->count++;
	} while (hostile_has_time(h));
	/* Else the next kernel might take an old Connected for an answer. */
	hostile_state(h, XenbusStateClosing);
	return SIMGUEST_OK;
}

/* Connects and closes in good order, or just stops, without a pause. */
static int run_reconnects(struct hostile *h)
{
	int code;

	do {
		if (hostile_random(h, 2) == 0 &&
		    simfront_disconnect(h->front) < 0)
			return hostile_fault("close: %s",
					     simfront_error(h->front));
		code = hostile_connect(h);
		h->count++;
	} while (code == SIMGUEST_OK && hostile_has_time(h));
	return code;
}

/* Interferes with every transaction in which the backend would close: that must
 * not keep it from closing, nor from others. */
static int run_closes(struct hostile *h)
{
	int code = SIMGUEST_OK;

	do {
		int64_t end = simio_now_ns() +
			      (int64_t)h->guest->opt.timeout * 1000000000;

		hostile_state(h, XenbusStateClosing);
		while (hostile_backend_state(h) != XenbusStateClosed) {
			hostile_state(h, XenbusStateClosed);
			hostile_key(h, "ring-ref", "8", 1);
			h->count++;
			if (simio_now_ns() > end)
				return hostile_fault("it does not close");
		}
		code = hostile_connect(h);
	} while (code == SIMGUEST_OK && hostile_has_time(h));
	return code;
}

/* --- Keys, while connected ---------------------------------------------------- */

static const char *const keys[] = {
	"ring-ref",
	"ring-ref0",
	"ring-ref1",
	"event-channel",
	"ring-page-order",
	"num-ring-pages",
	"multi-queue-num-queues",
	"protocol",
	"feature-persistent",
	"queue-0/ring-ref",
	"queue-0/event-channel",
	"queue-99/ring-ref",
	"physical-device",
	"params",
	"backend-id",
	"backend",
};
#define NR_KEYS (sizeof(keys) / sizeof(keys[0]))

/* Has the backend looked again?  It has nothing to say, so: wait a little. */
static void let_it_look(struct hostile *h)
{
	hostile_state(h, XenbusStateConnected);
	usleep(20000);
}

static int run_keys(struct hostile *h)
{
	char backend[64], id[16];
	uint32_t port = simqueue_port(h->queue);
	char other[16];

	fill_long();
	for (size_t k = 0; k < NR_KEYS; k++) {
		for (size_t v = 0; v < NR_GARBAGE; v++) {
			hostile_key(h, keys[k], garbage[v].bytes,
				    garbage[v].length);
			h->count++;
		}
		let_it_look(h);
	}
	/* Others that could be true. */
	snprintf(other, sizeof(other), "%u", port + 1);
	hostile_key(h, "event-channel", other, strlen(other));
	hostile_key(h, "ring-ref", "8", 1);
	let_it_look(h);
	/* The next kernel has to find the disk. */
	snprintf(backend, sizeof(backend), "/local/domain/%u/backend/vbd/%u/%u",
		 h->backend_domid, h->guest->domid, h->guest->devid);
	snprintf(id, sizeof(id), "%u", h->backend_domid);
	hostile_key(h, "backend", backend, strlen(backend));
	hostile_key(h, "backend-id", id, strlen(id));
	hostile_key(h, "queue-0", NULL, 0);
	hostile_key(h, "queue-99", NULL, 0);
	return SIMGUEST_OK;
}

/* --- Keys that are offered -------------------------------------------------------- */

/* What takes the place of a good ring's keys. */
struct offer {
	const char *key;
	const char *value; /* NULL: see how */
	enum { AS_IT_IS, REMOVED, READONLY, OTHERS, ENDED, STORE_PORT } how;
};

static const struct offer offers[] = {
	{ "ring-ref", "0", AS_IT_IS },
	{ "ring-ref", "4294967295", AS_IT_IS },
	{ "ring-ref", NULL, REMOVED },
	{ "ring-ref", NULL, READONLY },
	{ "ring-ref", NULL, OTHERS },
	{ "ring-ref", NULL, ENDED },
	{ "event-channel", "0", AS_IT_IS },
	{ "event-channel", "131071", AS_IT_IS },
	{ "event-channel", "131072", AS_IT_IS },
	{ "event-channel", "4294967295", AS_IT_IS },
	{ "event-channel", NULL, REMOVED },
	{ "event-channel", NULL, STORE_PORT },
	{ "ring-page-order", "1", AS_IT_IS }, /* ring-ref1 is missing */
	{ "ring-page-order", "5", AS_IT_IS },
	{ "num-ring-pages", "0", AS_IT_IS },
	{ "num-ring-pages", "3", AS_IT_IS },
	{ "num-ring-pages", "32", AS_IT_IS },
	{ "multi-queue-num-queues", "0", AS_IT_IS },
	{ "multi-queue-num-queues", "2", AS_IT_IS }, /* no queue-0 */
	{ "multi-queue-num-queues", "17", AS_IT_IS },
	{ "protocol", "", AS_IT_IS },
	{ "protocol", "x86_64-abi ", AS_IT_IS },
	{ "protocol", "mips-abi", AS_IT_IS },
};
#define NR_OFFERS (sizeof(offers) / sizeof(offers[0]))

/* With garbage, numbers are refused wherever they stand. */
static const char *const number_keys[] = {
	"ring-ref",	  "event-channel",	    "ring-page-order",
	"num-ring-pages", "multi-queue-num-queues", "protocol",
};
#define NR_NUMBER_KEYS (sizeof(number_keys) / sizeof(number_keys[0]))

static void number_key(struct hostile *h, const char *key, uint32_t value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	hostile_key(h, key, text, strlen(text));
}

static void make_offer(struct hostile *h, const struct offer *offer,
		       const struct value *value)
{
	uint32_t ref;

	switch (offer->how) {
	case AS_IT_IS:
		hostile_key(h, offer->key, value->bytes, value->length);
		return;
	case REMOVED:
		hostile_key(h, offer->key, NULL, 0);
		return;
	case READONLY:
		number_key(h, offer->key, hostile_grant(h, h->pages, true));
		return;
	case OTHERS:
		number_key(h, offer->key, hostile_grant_to(h, 4711, h->pages));
		return;
	case ENDED:
		ref = hostile_grant(h, h->pages, false);
		(void)xensim_grant_end(h->domain, ref);
		number_key(h, offer->key, ref);
		return;
	case STORE_PORT:
		number_key(h, offer->key, 1);
		return;
	}
}

static void forget_keys(struct hostile *h)
{
	for (size_t i = 0; i < NR_NUMBER_KEYS; i++)
		hostile_key(h, number_keys[i], NULL, 0);
}

/* Closed, or on the way there, from wherever we are. */
static int close_offer(struct hostile *h)
{
	hostile_state(h, XenbusStateClosing);
	if (hostile_await_backend(h, 1u << XenbusStateClosing |
					     1u << XenbusStateClosed) < 0)
		return hostile_fault("the backend does not close");
	hostile_state(h, XenbusStateClosed);
	if (hostile_await_backend(h, 1u << XenbusStateClosed) < 0)
		return hostile_fault("the backend is not closed");
	forget_keys(h);
	return SIMGUEST_OK;
}

/* A good ring but for one key: it must be refused. */
static int try_offer(struct hostile *h, const struct offer *offer,
		     const struct value *value)
{
	struct simqueue_config config = { .guest = h->domain,
					  .backend_domid = h->backend_domid,
					  .abi = h->abi };
	struct simqueue *queue;
	int state, code;

	hostile_state(h, XenbusStateInitialising);
	if (hostile_await_backend(h, 1u << XenbusStateInitWait) < 0)
		return hostile_fault("the backend does not begin again");
	if (simqueue_create(&config, &queue) < 0)
		return hostile_fault("no memory for a ring");
	number_key(h, "ring-ref", simqueue_ring_refs(queue)[0]);
	number_key(h, "event-channel", simqueue_port(queue));
	make_offer(h, offer, value);
	hostile_state(h, XenbusStateInitialised);
	state = hostile_await_backend(h, 1u << XenbusStateConnected |
						 1u << XenbusStateClosing |
						 1u << XenbusStateClosed);
	h->count++;
	code = close_offer(h);
	(void)simqueue_destroy(queue);
	if (state == XenbusStateConnected)
		return hostile_fault("%s of \"%.20s\" was taken", offer->key,
				     value ? value->bytes : "");
	if (state < 0)
		return hostile_fault("%s of \"%.20s\": no answer", offer->key,
				     value ? value->bytes : "");
	return code;
}

static int try_garbage(struct hostile *h)
{
	struct offer offer = {
		.key = number_keys[hostile_random(h, NR_NUMBER_KEYS)],
		.how = AS_IT_IS,
	};

	return try_offer(h, &offer, &garbage[hostile_random(h, NR_GARBAGE)]);
}

/* Each takes about a second, since the backend does not hurry for who begins
 * anew again and again: as many as there is time for, from a random one on. */
static int run_offers(struct hostile *h)
{
	uint32_t at = hostile_random(h, NR_OFFERS);
	int code = SIMGUEST_OK;

	fill_long();
	if (simfront_disconnect(h->front) < 0)
		return hostile_fault("close: %s", simfront_error(h->front));
	h->queue = NULL;
	forget_keys(h);
	do {
		const struct offer *offer = &offers[at++ % NR_OFFERS];
		struct value value = { offer->value,
				       offer->value ? strlen(offer->value) :
						      0 };

		code = try_offer(h, offer, &value);
		if (code == SIMGUEST_OK)
			code = try_garbage(h);
	} while (code == SIMGUEST_OK && hostile_has_time(h));
	return code;
}

/* --- Watch storms ------------------------------------------------------------------- */

/* Nodes below one that the backend watches, and the node itself.  Different
 * ones: xenstored drops an event equal to one that waits. */
static int run_watches(struct hostile *h)
{
	char key[64];

	fill_long();
	do {
		snprintf(key, sizeof(key), "state/a%u/b",
			 hostile_random(h, STORM_NODES / 2));
		hostile_key(h, key, long_digits,
			    hostile_random(h, 8) ? 1 : LONG_VALUE);
		hostile_state(h, XenbusStateConnected);
		snprintf(key, sizeof(key), "n%u",
			 hostile_random(h, STORM_NODES / 4));
		hostile_key(h, key, "1", 1);
		h->count += 3;
	} while (hostile_has_time(h));
	for (unsigned int i = 0; i < STORM_NODES; i++) {
		snprintf(key, sizeof(key), "%s%u",
			 i < STORM_NODES / 2 ? "state/a" : "n",
			 i % (STORM_NODES / 2));
		hostile_key(h, key, NULL, 0);
	}
	return SIMGUEST_OK;
}

const struct hostile_case hostile_store_cases[] = {
	{ "states", HOSTILE_SPOILT, run_states, "states",
	  "writes states at random, and what is no state" },
	{ "reconnects", HOSTILE_GOOD, run_reconnects, "connections",
	  "connects again and again, with and without a close" },
	{ "closes", HOSTILE_GOOD, run_closes, "writes",
	  "writes without a pause while the backend closes" },
	{ "keys", HOSTILE_GOOD, run_keys, "values",
	  "changes all its keys while connected" },
	{ "offers", HOSTILE_SPOILT, run_offers, "offers",
	  "offers rings with one key wrong" },
	{ "watches", HOSTILE_GOOD, run_watches, "writes",
	  "writes to nodes that the backend watches, and below them" },
	{ 0 },
};
