/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE
#include "config.h"

#include "hostile-log.h"

#include <unistd.h>

#define SEGMENT 8u

/* Where the cursors begin: they end with the head. */
#define CURSORS_AT \
	(INFLIGHT_HEAD_BYTES - XD_MAX_RINGS * sizeof(struct inflight_cursor))

/* A request from a few bytes: mostly legal, of the native layout. */
static void make_slot(struct input *in, uint8_t *slot)
{
	uint64_t id = input_u8(in), sector;
	uint32_t gref;

	slot[0] = input_u8(in) & 7;
	slot[1] = input_u8(in);
	slot[2] = slot[0] == 6 ? 1 + (slot[1] & 7) : 0; /* indirect */
	sector = input_u16(in);
	memcpy(slot + 8, &id, sizeof(id));
	memcpy(slot + 16, &sector, sizeof(sector));
	if (slot[0] == 6) {
		slot[1] &= 1;
		gref = input_u8(in);
		memcpy(slot + 28, &gref, sizeof(gref));
		return;
	}
	for (unsigned int i = 0; i < BLKIF_DIRECT_MAX; i++) {
		gref = i;
		memcpy(slot + 24 + i * SEGMENT, &gref, sizeof(gref));
		slot[24 + i * SEGMENT + 5] = 7;
	}
}

/* An index near at, or far away. */
static uint32_t near(uint32_t at, int8_t distance, bool far)
{
	return at + (uint32_t)distance * (far ? 0x01000001u : 1u);
}

void hostile_log_read(struct input *in, uint32_t nr_slots,
		      struct hostile_log *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->rsp_prod = input_u32(in);
	ret->cursor.rsp_prod = near(ret->rsp_prod, (int8_t)input_u8(in), false);
	ret->cursor.req_cons = near(ret->rsp_prod, (int8_t)input_u8(in), false);
	for (uint32_t i = 0; i < nr_slots && in->left > 0; i++) {
		struct inflight_entry *e = &ret->entries[i];
		uint8_t what = input_u8(in);

		e->state = what & 3;
		e->begun = what >> 2 & 1;
		e->tries = what >> 3 & 7;
		e->req_index = near(ret->cursor.req_cons, (int8_t)input_u8(in),
				    what & 64);
		e->rsp_index =
			near(ret->rsp_prod, (int8_t)input_u8(in), what & 128);
		e->status = (int8_t)input_u8(in);
		make_slot(in, e->slot);
	}
}

void hostile_log_write(int fd, uint32_t nr_slots, const struct hostile_log *log)
{
	ssize_t bytes = (ssize_t)(nr_slots * sizeof(log->entries[0]));

	HOLDS(pwrite(fd, &log->cursor, sizeof(log->cursor), CURSORS_AT) ==
		      sizeof(log->cursor),
	      "the test's own file");
	HOLDS(pwrite(fd, log->entries, (size_t)bytes, INFLIGHT_HEAD_BYTES) ==
		      bytes,
	      "the test's own file");
}
