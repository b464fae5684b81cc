/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-recover.c - what a worker does with an in-flight log that somebody has
 * tampered with, requests included.
 *
 * Input: a log.  When a plan is made of it, the data path must live through it:
 * the guest gets exactly the answers that it is owed, and the ring goes on.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fuzz.h"
#include "hostile-log.h"
#include "io-fixture.h"

#define SLOTS 32u
#define LAST  0x123456789abcull /* the id of the request afterwards */

static struct hostile_log hostile;

static void complete_all(void)
{
	/* Each completion may begin others; a split request comes in parts.
	 * Who pokes a lane wakes it. */
	for (unsigned int i = 0;
	     fix.nr_queue > 0 || atomic_load(&fix.lane.poked); i++) {
		HOLDS(i < 4096, "it ends");
		if (fix.nr_queue > 0)
			fix_complete(0, 0);
		else
			fix_run();
	}
}

static void check_answers(uint32_t owed)
{
	uint32_t before = fix_count(FIX_RESPONSE);

	HOLDS(before == owed, "%u answers to %u requests", before, owed);
	HOLDS(fix_count(FIX_BROKEN) == 0, "the ring is whole");
	HOLDS(fix.lane.submitted == 0, "nothing is with the stack");
	HOLDS(atomic_load(&fix.disk.nr_begun) == 0 &&
		      atomic_load(&fix.disk.nr_recovered) == 0,
	      "nothing is left over");
	fix_rw(0, LAST, 8, 1, 1);
	fix_run();
	complete_all();
	HOLDS(fix_responses(LAST) == 1, "the ring goes on");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct inflight_plan plan;
	int r;

	memset(&fix, 0, sizeof(fix));
	hostile_log_read(&in, SLOTS, &hostile);
	r = inflight_plan(hostile.entries, SLOTS, &hostile.cursor,
			  hostile.rsp_prod, &plan);
	if (r < 0)
		return 0;
	fix_start_at(hostile.rsp_prod, plan.req_cons);
	hostile_log_write(fix.log_fd, SLOTS, &hostile);
	fix_die_and_recover();
	complete_all();
	check_answers(plan.req_cons - hostile.rsp_prod);
	fix_stop();
	return 0;
}
