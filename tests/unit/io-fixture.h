/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A lane without a hypervisor, a stack or a broker: the data path's own code
 * with all that it stands on replaced at link time, and a guest to drive it.
 * One lane, one ring of one page, everything in the test's thread.
 */
#ifndef IO_FIXTURE_H
#define IO_FIXTURE_H

#include "common/log.h"
#include "worker/io.h"

#define FIX_DISK_BYTES (256u << 20)
#define FIX_PAGES      4096u /* of the guest; grant reference = page number */

/* Requests, as in io/blkif.h. */
enum { READ, WRITE, BARRIER, FLUSH };

/* What the worker did, in order. */
enum fix_event_kind {
	FIX_SUBMIT, /* to the stack; op, offset, length */
	FIX_MARK, /* asked for a poison mark */
	FIX_CONDITION, /* kind in op, set in offset */
	FIX_BROKEN,
	FIX_RESPONSE, /* op, id in offset, status in length */
	FIX_NOTIFY,
	FIX_COPY, /* a batch ran; segments in length */
	FIX_KICK,
	FIX_IDLE, /* unmaps pages that are not used */
};

struct fix_event {
	enum fix_event_kind kind;
	unsigned int op;
	uint64_t offset;
	int64_t length;
};

struct fix {
	struct io_disk disk;
	struct io_lane lane;
	struct io_ring *ring;
	struct inflight *log;
	int log_fd;
	struct xd_limits limits;
	struct stack_policy policy;
	struct pause pause;
	struct msg_opened opened;
	struct stats_queue stats;
	struct log_who who;

	uint8_t *shared; /* the ring's page */
	uint8_t *view; /* the same as the worker has it; NULL: no other */
	uint32_t req_prod, rsp_cons;
	uint8_t *guest; /* FIX_PAGES pages */
	uint8_t *store; /* the first 64 MiB of the disk's content */

	struct xd_request *queue[512]; /* the stack has them */
	unsigned int nr_queue;
	struct fix_event events[4096];
	unsigned int nr_events;

	uint32_t bad_gref; /* copies with it fail */
	int mark_result; /* of the service that makes the mark */
	void (*while_marking)(void); /* what others do meanwhile; or NULL */
	void (*before_telling)(void); /* of the next condition; or NULL */
	bool guest32; /* its layout */
	uint64_t idle_ns; /* how long before that; 0: for ever */
	bool maps; /* the stack lends its memory */
};

extern struct fix fix;

/* A connected disk; limits, policy, guest32, and shared with view may be set
 * before. */
void fix_start(void);
/* The same, with responses up to index and requests up to req_prod. */
void fix_start_at(uint32_t index, uint32_t req_prod);
void fix_stop(void);
/* Of each test that wants no more. */
#define IO_TEST(f) cmocka_unit_test_setup_teardown(f, fix_setup, fix_teardown)
int fix_setup(void **state);
int fix_teardown(void **state);
/* The worker dies: all it had in memory is gone.  Then another one. */
void fix_die_and_recover(void);
/* ... that has not had a round yet. */
void fix_die_and_begin(void);
/* ... that has not even got to what is to be done again. */
void fix_die_and_adopt(void);

/* The guest's side: queues one request. */
void fix_rw(uint8_t op, uint64_t id, uint64_t sector, uint32_t gref,
	    unsigned int segments);
void fix_indirect(uint8_t op, uint64_t id, uint64_t sector, uint32_t list_gref,
		  uint32_t gref, unsigned int segments);
void fix_discard(uint64_t id, uint64_t sector, uint64_t sectors);

/* Rounds until there is nothing to do; then takes responses as events. */
void fix_run(void);
/* Ends the n-th request that the stack has, 0 being the oldest; then runs. */
void fix_complete(unsigned int n, int err);
/* Ends all that the stack has, well and in one round; then runs. */
void fix_complete_at_once(void);
/* ... and one after the other, the oldest first. */
void fix_complete_all(void);
/* The bytes of that many pages, from the first. */
void fix_fill(uint32_t gref, unsigned int pages, uint8_t value);

/* How many events of that kind there were; of responses with that id. */
unsigned int fix_count(enum fix_event_kind kind);
unsigned int fix_responses(uint64_t id);
/* The status answered to id; 99 when it was not. */
int fix_status(uint64_t id);
void fix_forget_events(void);
/* Where the first event of that kind is; fails when there is none. */
unsigned int fix_when(enum fix_event_kind kind, unsigned int op);

#endif
