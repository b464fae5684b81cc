/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * overlay-meta.h - the file "meta" of an overlay: for overlay*.c only.
 *
 * Two places, written in turn, each whole and with a check sum: a crash damages
 * the one that is being written, and the other says what was before.  Numbers are
 * as this machine has them, since the folder never leaves it.
 */
#ifndef XENDISK_GIT_OVERLAY_META_H
#define XENDISK_GIT_OVERLAY_META_H

#include "overlay.h"

#define META_MAGIC   0x796c7265766f4758ull /* "XGoverly" */
#define META_VERSION 1u
#define META_BYTES   16384u /* of a place */
#define META_FILE    (2 * META_BYTES)

/* Generations are those of layers; 0: none. */
struct meta_slot {
	uint32_t state; /* enum layer_state, but for LAYER_DROPPED */
	uint32_t kind; /* as struct snapshot_info */
	uint32_t consistency;
	uint32_t reserved;
	uint64_t generation;
	uint64_t size;
	int64_t time;
	uint64_t dirty;
	uint8_t commit[OID_BYTES];
	uint8_t reserved2[4];
	char domain[OVERLAY_NAME_MAX];
	char message[OVERLAY_TEXT_MAX];
};

struct meta {
	uint64_t magic;
	uint32_t version;
	uint32_t bytes; /* sizeof(struct meta) */
	uint64_t sequence; /* from 1; odd: it is in the second place */
	uint8_t uuid[16];
	uint64_t size, base_size;
	uint64_t base_gen;
	uint64_t next_gen; /* of the next layer */
	uint32_t chunk;
	uint32_t closed; /* 1: all that was written is durable, and nobody
			  * writes */
	uint8_t base[OID_BYTES];
	uint8_t head[OID_BYTES];
	char branch[OVERLAY_BRANCH_MAX];
	char repo[OVERLAY_REPO_MAX];
	struct meta_slot slot[OVERLAY_SLOTS];
	uint32_t diverged; /* 1: head is beside the branch; 0 before there was
			    * this word */
	uint32_t check; /* CRC-32 of all that comes before */
};
_Static_assert(sizeof(struct meta) <= META_BYTES, "meta fits its place");

/* -ENODATA: both places are zero; -EBADMSG, -EOPNOTSUPP and why; else the newer
 * one that is right. */
int meta_read(int fd, struct meta *ret, char *ret_why);
/* Durable on return, in the other place than the one before; io_meta's sequence
 * grows.  *ret_unknown: it failed so that either may be found. */
int meta_write(int fd, struct meta *io_meta, bool *ret_unknown, char *ret_why);

/* Slots that are layers, newest first; returns how many. */
unsigned int meta_order(const struct meta *meta,
			unsigned int ret[OVERLAY_SLOTS]);
/* How many slots are in that state; *ret_last (may be NULL) is the oldest. */
unsigned int meta_count(const struct meta *meta, enum layer_state state,
			unsigned int *ret_oldest);

#endif
