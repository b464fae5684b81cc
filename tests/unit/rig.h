/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rig.h - backends on the real stack, in the test's own process.
 *
 * The broker outlives the stack, so that a test can let a worker die
 * (rig_die()) and open the next.  Lanes are whoever calls.
 */
#ifndef XENDISK_TEST_RIG_H
#define XENDISK_TEST_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "fake-broker.h"
#include "worker/disk.h"

#define RIG_LANES 4
#define RIG_IOVS  1024

struct rig {
	char images[64]; /* folder; on a disk, if TMPDIR is */
	char state[80]; /* the state directory, in it */
	char expression[MSG_EXPR_MAX + 1];
	const char *backend_dir;
	bool uring;
	char why[MSG_TEXT_MAX]; /* of what failed last */
	void (*before_activate)(struct rig *rig); /* NULL: nothing */

	struct fake_broker *broker;
	int64_t limit;
	struct services *services;
	struct stack *stack;
	struct engine *engine[RIG_LANES];
	struct xd_channel *top[RIG_LANES];
};

/* A folder, nothing open. */
void rig_new(struct rig *rig, bool uring);
/* Removes all; what is open is closed. */
void rig_free(struct rig *rig);

/* What xd_budget() may give in all, and has given. */
void rig_limit(struct rig *rig, int64_t limit, int64_t charge);
int64_t rig_charge(const struct rig *rig);

/* "IMAGES/name", made with that size, sparse, if size is not 0.  In static
 * memory: good until the next call but one. */
const char *rig_file(struct rig *rig, const char *name, uint64_t size);

/* Opens, activates and opens lanes; -errno with why set.  A '@' in the
 * expression stands for the folder of images. */
int rig_open(struct rig *rig, unsigned int lanes, const char *expression);
/* The same, read-only (mode=r), or after a worker's death. */
int rig_open_read_only(struct rig *rig, const char *expression);
int rig_recover(struct rig *rig, unsigned int lanes, const char *expression);
/* Deactivates and closes; what deactivate said. */
int rig_close(struct rig *rig);
/* As if killed: nothing is written out.  Kept state stays. */
void rig_die(struct rig *rig);
/* Removes kept state. */
void rig_detach(struct rig *rig);
/* The path of kept state, as rig_file(). */
const char *rig_kept(struct rig *rig, unsigned int layer, const char *name);

/* Looks how large the disk is by now (size 0), or makes it that large, as the
 * worker does between two requests.  -errno with why set. */
int rig_resize(struct rig *rig, uint64_t size);
uint64_t rig_size(const struct rig *rig);

/* One request and what became of it. */
struct rig_op {
	struct xd_request req;
	struct iovec iov[8];
	int err;
	bool done;
};

/* Hands it to the stack; buf is cut into pieces if there are iovs. */
void rig_start(struct rig *rig, unsigned int lane, struct rig_op *op,
	       enum xd_op kind, uint32_t flags, uint64_t offset,
	       uint64_t length, void *buf);
/* Ends the burst and waits for all of them. */
void rig_wait(struct rig *rig, unsigned int lane, struct rig_op *ops,
	      unsigned int n);

/* Start and wait.  Returns what the request was completed with. */
int rig_io(struct rig *rig, unsigned int lane, enum xd_op kind, uint32_t flags,
	   uint64_t offset, uint64_t length, void *buf);

/* READ or WRITE in lent memory; -EOPNOTSUPP: not lent. */
int rig_map_io(struct rig *rig, unsigned int lane, enum xd_op kind,
	       uint64_t offset, uint64_t length, void *buf);

/* Random requests for a while, checked against a plain buffer.  Returns how
 * many sectors were read that were not as they should be. */
struct rig_model {
	struct rig *rig;
	unsigned int lane;
	uint64_t seed;
	unsigned int bursts;
	unsigned int
		share; /* of all lanes: this one has sector % share == lane */
	bool discard_zeroes; /* what was discarded reads as zeroes */
	bool no_discard; /* there is none, so that all content is known */
	unsigned char *content; /* size bytes: what the disk holds */
};
unsigned int rig_model_run(struct rig_model *model);

#endif
