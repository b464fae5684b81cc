/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every sector of a disk may hold, given the requests sent to it.
 *
 * Each write stamps its sectors with a generation.  A sector has a set of
 * candidates: the contents that a read may return.  An acknowledged write
 * supersedes what was settled before it was sent; writes that overlap in time
 * may land in either order; a discard leaves the old contents or zeroes.
 * Units: sectors of 512 bytes.  All functions may be called from any thread.
 */
#ifndef SIMMODEL_H
#define SIMMODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct simmodel;

struct simmodel_options {
	uint64_t seed;
	uint32_t sectors;
	bool discard_zeroes; /* a discarded sector must read as zeroes */
	bool atomic_sectors; /* racing requests may not tear a sector */
	bool volatile_cache; /* remember what a power cut could bring back */
};

enum simmodel_kind {
	SIMMODEL_READ,
	SIMMODEL_WRITE,
	SIMMODEL_DISCARD,
	SIMMODEL_FLUSH,
};

/* A request on its way; the caller's memory, untouched from begin to end. */
struct simmodel_op {
	enum simmodel_kind kind;
	uint32_t sector, sectors;
	uint32_t generation; /* of a write */
	uint64_t start;
	struct simmodel_op *prev, *next;
};

/* Contents start out unknown: simmodel_learn() every sector. -ENOMEM. */
int simmodel_new(const struct simmodel_options *options,
		 struct simmodel **ret_model);
void simmodel_free(struct simmodel *model);

uint32_t simmodel_sectors(const struct simmodel *model);
void simmodel_learn(struct simmodel *model, uint32_t sector,
		    const uint8_t *data);

void simmodel_begin(struct simmodel *model, struct simmodel_op *op);
/* The 512 bytes that a begun write must put in sector. */
void simmodel_fill(const struct simmodel *model, const struct simmodel_op *op,
		   uint32_t sector, uint8_t *ret_data);
/*
 * Is data what sector may hold for this begun read?  When not, false and one
 * line of text in ret_why.
 */
bool simmodel_check(struct simmodel *model, const struct simmodel_op *op,
		    uint32_t sector, const uint8_t *data, char *ret_why,
		    size_t why_size);
/* ok: the backend answered OKAY. A failed write may have landed or not. */
void simmodel_end(struct simmodel *model, struct simmodel_op *op, bool ok);

/* Torn sectors that were let pass, for the report. */
uint64_t simmodel_torn(const struct simmodel *model);

/*
 * Requests not ended count as maybe done.  power_cut: acknowledged writes
 * that no later flush covered may be gone (needs volatile_cache when saved).
 * Return 0 or -errno; -EINVAL: not such a file.
 */
int simmodel_save(struct simmodel *model, const char *path);
int simmodel_load(const char *path, const struct simmodel_options *options,
		  bool power_cut, struct simmodel **ret_model);

#endif
