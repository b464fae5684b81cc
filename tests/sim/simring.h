/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The frontend's half of a shared blkif ring: publish slots, take responses,
 * decide who needs an event, and judge every answer as a hardened blkfront
 * (Linux 5.16 and later) does.
 *
 * A ring knows nothing of grants, event channels or how a request was built:
 * simring_put() takes the bytes of a slot as they are, honest or not.  It
 * registers an id with simring_claim(); an answer to anything else is a fault.
 * One thread at a time.
 */
#ifndef SIMRING_H
#define SIMRING_H

#include "simabi.h"

struct simring_claim {
	bool pending;
	uint8_t operation; /* what the response must echo */
	uint64_t id;
	void *cookie;
};

struct simring {
	const struct simabi *abi;
	blkif_sring_t *sring; /* shared with the backend */
	uint8_t *slots; /* shared: the entries behind the header */
	unsigned int size; /* entries, a power of two */
	uint32_t req_prod; /* private: next slot to fill */
	uint32_t published; /* private: what the backend was told */
	uint32_t rsp_cons; /* private: next response to take */
	uint8_t *sent; /* private copy of what each slot was given */
	struct simring_claim *claims; /* size of them, by the id's low bits */
	uint16_t *unclaimed; /* indices free to claim, a stack */
	unsigned int nr_unclaimed;
	uint64_t next_id;
	char fault[160]; /* why simring_take() said -EPROTO */
};

/* pages: 2^order pages of guest memory, in a row.  Returns 0 or -ENOMEM. */
int simring_init(struct simring *ring, const struct simabi *abi, void *pages,
		 unsigned int order);
void simring_destroy(struct simring *ring);

/* Free slots; a request needs one until it is answered. */
unsigned int simring_room(const struct simring *ring);

/*
 * Registers a request: its answer must echo operation (for an indirect
 * request the inner one) and the id returned here.  Returns the index of the
 * claim, below ring->size, or -EAGAIN.
 */
int simring_claim(struct simring *ring, uint8_t operation, void *cookie,
		  uint64_t *ret_id);

/* Puts abi->slot bytes in the next slot, not yet published. */
void simring_put(struct simring *ring, const uint8_t *slot);

/* Publishes what was put.  True: the backend asked for an event. */
bool simring_publish(struct simring *ring);

struct simring_answer {
	unsigned int index; /* of the claim, free again */
	void *cookie;
	int16_t status;
};

/*
 * Takes one response: 1 and the answer, 0 when there is none, or -EPROTO with
 * the text in ring->fault: the frontend must disable the disk.
 */
int simring_take(struct simring *ring, struct simring_answer *ret_answer);

/* Asks for an event at the next response; true when one is there already. */
bool simring_arm(struct simring *ring);

/* Requests published or put and not answered yet. */
unsigned int simring_pending(const struct simring *ring);

#endif
