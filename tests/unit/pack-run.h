/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pack-run.h - a run of the pack writer, and what was told of its chunks.
 */
#ifndef XENDISK_TEST_PACK_RUN_H
#define XENDISK_TEST_PACK_RUN_H

#include "pack-fixture.h"

#define CHUNK 65536u

struct run {
	struct repo repo;
	struct pack_options options;
	struct pack_writer *writer;
	struct model model; /* what must be there */
	struct pack_names names;
	char why[WHY_MAX];
	/* Of chunks: tag is the number of the chunk */
	uint64_t told; /* how many done() was told of */
	enum pack_fate fates[512];
	uint8_t oids[512][OID_BYTES];
	bool has_id[512];
	/* Knobs */
	uint64_t fail_at; /* done() fails at this tag + 1 */
	uint64_t add_every; /* done() adds an object at each such tag */
	bool ask; /* the writer asks have() */
	uint8_t had[OID_BYTES]; /* of which it says yes */
	unsigned int asked;
};

/* pack_add(), noted in the model. */
void run_add(struct run *run, enum object_type type, const void *data,
	     size_t n);
/* A writer with these options. */
void run_begin(struct run *run);
/* A repository, two threads. */
void run_setup(struct run *run);
void run_teardown(struct run *run);
/* Sends n bytes of that stuff. */
int run_chunk(struct run *run, size_t n, uint64_t tag, enum stuff stuff,
	      uint64_t seed, const uint8_t *same);
/* Drains and publishes. */
void run_finish(struct run *run);
/* Chunk number tag has an id, and this content must be there under it. */
void run_expect_chunk(struct run *run, size_t n, uint64_t tag, enum stuff stuff,
		      uint64_t seed);
/* git has nothing to say, and has all of the model. */
void run_judged(struct run *run);
/* The bytes of the first pack, or of its file of another suffix; to be freed. */
uint8_t *run_slurp(const struct run *run, const char *suffix, size_t *ret_n);

#endif
