/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that is not honest: what its cases share.
 *
 * Each case gets a connected disk of one queue and does its worst for a while.
 * What it sees itself it judges: that refused requests are answered as refused
 * and change nothing, that a broken ring is closed.  The rest (do the daemon and
 * the neighbours live?) is its caller's to see.
 */
#ifndef SIMGUEST_HOSTILE_H
#define SIMGUEST_HOSTILE_H

#include "simguest.h"
#include "simio.h"
#include "simring.h"

#define HOSTILE_PAGES  256u
#define HOSTILE_GRANTS 2048u

/* How a case leaves its connection. */
enum hostile_end {
	HOSTILE_GOOD, /* it still works */
	HOSTILE_SPOILT, /* nobody knows; a new one works */
	HOSTILE_CLOSED, /* the backend has closed it; a new one works */
	HOSTILE_LAST, /* there is no guest any more */
};

struct hostile {
	struct simguest *guest;
	struct simfront *front;
	struct simqueue *queue;
	const struct simabi *abi;
	struct xensim_guest *domain;
	uint32_t backend_domid;
	struct xs_handle *xs; /* as the guest */
	char path[64]; /* the frontend's directory */
	uint64_t sectors;
	uint8_t *pages; /* HOSTILE_PAGES */
	uint32_t grants[HOSTILE_GRANTS]; /* to be ended with the connection */
	unsigned int nr_grants;
	uint64_t random;
	int64_t end_ns; /* of the case */
	uint64_t count; /* of what it did; printed */
};

struct hostile_case {
	const char *name;
	enum hostile_end end;
	int (*run)(struct hostile *h); /* an exit code */
	const char *counts; /* what h->count counts */
	const char *help;
};

/* Is there time left?  Cheap enough for a tight loop. */
bool hostile_has_time(struct hostile *h);
uint32_t hostile_random(struct hostile *h, uint32_t below);

/* simguest_complain(), and SIMGUEST_FAULT. */
__attribute__((format(printf, 1, 2))) int hostile_fault(const char *format,
							...);
/* What a negative errno of a queue means, as an exit code. */
int hostile_queue_fault(const struct hostile *h, const char *what, int r);

/* Lets the connection go without a word, as a kernel that crashed. */
void hostile_drop(struct hostile *h);
/* An honest connection; whatever was there before is dropped. */
int hostile_connect(struct hostile *h);
/* One write, read back. */
int hostile_work(struct hostile *h);
/* Waits until the backend has closed the connection. */
int hostile_await_closed(struct hostile *h);

/* A reference of one page for some domain, or for the backend. */
uint32_t hostile_grant(struct hostile *h, const void *page, bool readonly);
uint32_t hostile_grant_to(struct hostile *h, uint32_t domid, const void *page);

/* Writes a key of the frontend's directory; NULL removes it. */
void hostile_key(struct hostile *h, const char *key, const void *value,
		 size_t length);
void hostile_state(struct hostile *h, unsigned int state);
/* The backend's state; 0 when there is none. */
unsigned int hostile_backend_state(struct hostile *h);

/* Random bytes in a slot that often look like a request. */
void hostile_random_slot(struct hostile *h, const uint32_t *refs,
			 unsigned int nr_refs, uint8_t *slot);
/* Fills the ring with such requests and takes no answer; how many there was
 * room for. */
unsigned int hostile_fill_ring(struct hostile *h, const uint32_t *refs,
			       unsigned int nr_refs);
/* Waits until the backend's state is in the mask of 1 << state; -ETIMEDOUT. */
int hostile_await_backend(struct hostile *h, unsigned int states);

extern const struct hostile_case hostile_requests_cases[];
extern const struct hostile_case hostile_ring_cases[];
extern const struct hostile_case hostile_store_cases[];
extern const struct hostile_case hostile_end_cases[];

#endif
